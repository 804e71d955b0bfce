"""What zwheel logs holds ids and texts that anyone may have written."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_logger_of_the_runtime_escapes_what_it_says() -> None:
    for path in sorted((ROOT / "workers").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "getLogger":
                assert not node.args, f"{path.name}: get it by zwheel.outside.escaped"
