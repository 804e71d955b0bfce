"""The fault matrix of docs/reliability.md: its rows as data, and `python -m tests.faults.matrix` to fill the last column.

The command runs every test that a row names, and writes what became of them into the page. Only that column is its own;
everything else in the page is written by people. ARGS after the command go to pytest: `-n 2`, `-x`.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reliability.md"
CATALOGUE = Path(__file__).with_name("catalogue.txt")
#: What the last column may say: never run, all passed, passed as far as it can be shown here, or what went wrong.
RESULTS = ("not run", "ok", "ok, in part", "skipped", "failed", "no such test")
_CELLS = 5
_ID = re.compile(r"[A-Z]-\d\d")
_TEST = re.compile(r"`([\w/]+\.py)::(\w+)`")


def catalogue() -> dict[str, str]:
    """Read every fault, promise and invariant that was thought of: id -> shown, open, or later and the capability."""
    lines = CATALOGUE.read_text(encoding="utf-8").splitlines()
    parts = (line.partition(" ") for line in lines if line and not line.startswith("#"))
    return {name: word for name, _, word in parts}


REQUIRED = frozenset(name for name, word in catalogue().items() if _ID.fullmatch(name) and word == "shown")
"""The faults that must have a row."""


@dataclass(frozen=True, slots=True)
class Row:
    """One fault of the page."""

    line: int
    """Where it is, counted from 0."""
    id: str
    fault: str
    expected: str
    tests: tuple[tuple[str, str], ...]
    """File and function of each test that shows it."""
    limit: str
    """What cannot be shown on one machine, and why; '' when everything can."""
    result: str


def rows(text: str) -> list[Row]:
    """Read the rows of the page. Raises: ValueError for a row with too few or too many cells."""
    found = []
    for number, line in enumerate(text.splitlines()):
        cells = [cell.strip() for cell in line.strip("|").split(" | ")] if line.startswith("| ") else []
        if not cells or not _ID.fullmatch(cells[0]):
            continue
        if len(cells) != _CELLS:
            raise ValueError(f"line {number + 1}: {len(cells)} cells, not {_CELLS}")
        _, _, limit = cells[3].partition("Not here: ")
        result = cells[4].removesuffix(" |").strip()
        found.append(Row(number, cells[0], cells[1], cells[2], tuple(_TEST.findall(cells[3])), limit, result))
    return found


def functions(path: Path) -> frozenset[str]:
    """Name the test functions of a file without importing it."""
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    return frozenset(
        node.name
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_")
    )


def outcomes(report: str) -> dict[tuple[str, str], list[str]]:
    """Read a junit report: for each test function what became of its cases, each passed, failed or skipped."""
    found: dict[tuple[str, str], list[str]] = {}
    for case in ET.fromstring(report).iter("testcase"):  # noqa: S314 - pytest wrote it a moment ago
        path = case.get("classname", "").replace(".", "/") + ".py"
        name = case.get("name", "").partition("[")[0]
        tags = {child.tag for child in case}
        word = "failed" if tags & {"failure", "error"} else "skipped" if "skipped" in tags else "passed"
        found.setdefault((path, name), []).append(word)
    return found


def result_of(row: Row, seen: Mapping[tuple[str, str], Iterable[str]]) -> str:
    """Sum up what became of a row's tests."""
    words: list[str] = []
    for test in row.tests:
        cases = list(seen.get(test, ()))
        if not cases:
            return "no such test"
        words += cases
    if "failed" in words:
        return "failed"
    if "passed" not in words:
        return "skipped"
    return "ok, in part" if row.limit else "ok"


def filled(text: str, seen: Mapping[tuple[str, str], Iterable[str]]) -> str:
    """Write the last column anew."""
    lines = text.splitlines()
    for row in rows(text):
        head, _, _ = lines[row.line].removesuffix("|").rstrip().rpartition(" | ")
        lines[row.line] = f"{head} | {result_of(row, seen)} |"
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """Run the tests of all rows and write the last column; 0 when every row is shown."""
    text = PAGE.read_text(encoding="utf-8")
    tests = sorted({f"{path}::{name}" for row in rows(text) for path, name in row.tests})
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *arguments, *tests]
        subprocess.run(command, cwd=ROOT, check=False)
        if not report.exists():
            return 2
        seen = outcomes(report.read_text(encoding="utf-8"))
    # Read again: somebody may have edited the page while the tests ran.
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), seen), encoding="utf-8")
    bad = [
        f"{row.id}: {row.result}" for row in rows(PAGE.read_text(encoding="utf-8")) if not row.result.startswith("ok")
    ]
    print("\n".join([*bad, f"{len(REQUIRED) - len(bad)} of {len(REQUIRED)} faults are shown"]))  # noqa: T201
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
