"""Files and functions stay as long as a person can hold in mind."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from .tree import CODE, OTHERS, files, parse, short

FILE_LIMIT = 500
FUNCTION_LIMIT = 70


@pytest.mark.parametrize("path", [*files(".py", *CODE, *OTHERS), *files(".lua", "lua")], ids=short)
def test_a_file_has_at_most_500_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= FILE_LIMIT


@pytest.mark.parametrize("path", files(".py", *CODE, *OTHERS), ids=short)
def test_a_function_has_at_most_70_lines_below_its_signature(path: Path) -> None:
    long = [
        f"{node.name} at line {node.lineno}: {length} lines"
        for node in ast.walk(parse(path))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and (length := (node.end_lineno or node.lineno) - node.body[0].lineno + 1) > FUNCTION_LIMIT
    ]
    assert long == []
