"""What the tidy tests look at: the project's own files, found in the tree and not through the links."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CODE = ("zwheel", "cli", "workers")
"""What is shipped, beside the scripts in lua/."""
OTHERS = ("lua", "tests", "examples", "benchmarks")


@cache
def files(suffix: str, *folders: str) -> tuple[Path, ...]:
    """List the files of some top-level folders, sorted; links are not followed."""
    return tuple(
        path
        for folder in folders
        for path in sorted((ROOT / folder).rglob(f"*{suffix}"))
        if "__pycache__" not in path.parts and path.is_file()
    )


@cache
def parse(path: Path) -> ast.Module:
    """Read one Python file as a syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def short(path: Path) -> str:
    """Name a file as a person would: relative to the checkout."""
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Give every import of a file as (line, dotted name); relative ones keep their dots, as in `.output`."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, name.name
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "." * node.level + (node.module or "")
            if node.level == 0:
                for name in node.names:
                    yield node.lineno, f"{node.module}.{name.name}"


def calls(path: Path) -> Iterator[tuple[ast.Call, str]]:
    """Give every call of a file with the dotted name it is called by: `yaml.load`, `self.redis.eval`."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func)
