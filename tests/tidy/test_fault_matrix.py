"""The fault matrix is honest: every fault has its row, every row names tests, and every test it names is there."""

from __future__ import annotations

import re

import pytest

from tests.faults.matrix import PAGE, REQUIRED, RESULTS, ROOT, Row, catalogue, filled, functions, outcomes, rows

TEXT = PAGE.read_text(encoding="utf-8")
#: How many faults each section has, and how many promises and invariants there are. None is ever taken out.
WHOLE = {
    "K": 23, "Z": 14, "S": 22, "N": 12, "C": 8, "T": 18, "P": 10, "V": 14, "D": 11, "X": 10, "H": 11, "L": 8, "O": 6,
    "W": 14, "F": 11, "G": 11, "I": 26, "Q": 7,
}  # fmt: skip
REPORT = """<testsuites><testsuite>
<testcase classname="tests.a" name="test_one[x]"/>
<testcase classname="tests.a" name="test_one[y]"><skipped message="no server"/></testcase>
<testcase classname="tests.b" name="test_two"><failure message="no"/></testcase>
</testsuite></testsuites>"""
TWO = """| id | fault | expected | shown by | last result |
|---|---|---|---|---|
| K-01 | f | e | `tests/a.py::test_one` | not run |
| K-02 | f | e | `tests/a.py::test_one` Not here: power loss. | not run |
| K-03 | f | e | `tests/a.py::test_one` `tests/b.py::test_two` | ok |
| K-04 | f | e | `tests/c.py::test_gone` | ok |
"""


def test_every_fault_has_one_row() -> None:
    ids = [row.id for row in rows(TEXT)]
    assert len(ids) == len(set(ids))
    assert set(ids) >= REQUIRED, "shown by no row"
    coming = {name for name, word in catalogue().items() if word == "open"}
    assert set(ids) <= REQUIRED | coming, "a row that the catalogue does not know as shown"


def test_no_fault_promise_or_invariant_of_the_catalogue_was_left_out() -> None:
    known = catalogue()
    sections: dict[str, list[int]] = {}
    for name in known:
        letter, number = re.fullmatch(r"([A-Z])-?(\d+)", name).groups()  # type: ignore[union-attr]
        sections.setdefault(letter, []).append(int(number))
    assert sections == {letter: list(range(1, count + 1)) for letter, count in WHOLE.items()}
    assert {word for word in known.values() if not re.fullmatch(r"shown|open|later [a-z-]+", word)} == set()


def test_the_invariants_that_are_shown_are_known_to_the_checker_or_to_the_scripts() -> None:
    shown = {name for name, word in catalogue().items() if name.startswith("I") and word == "shown"}
    read = (ROOT / "lua" / "README.md", ROOT / "docs" / "history.md", ROOT / "tests" / "simulator" / "judge.py")
    told = "\n".join(page.read_text(encoding="utf-8") for page in read)
    assert [name for name in sorted(shown) if not re.search(rf"\b{name}\b", told)] == []


@pytest.mark.parametrize("row", rows(TEXT), ids=lambda row: row.id)
def test_a_row_says_what_is_expected_and_names_tests_that_exist(row: Row) -> None:
    assert row.fault
    assert row.expected.endswith(".")
    assert row.tests, "no test shows it"
    assert [path for path, _ in row.tests if not (ROOT / path).is_file()] == []
    assert [name for path, name in row.tests if name not in functions(ROOT / path)] == []
    assert row.result in RESULTS
    assert row.limit == "" or row.limit.endswith(".")


def test_every_promise_is_on_the_page() -> None:
    assert re.findall(r"^- \*\*(G\d+)", TEXT, re.MULTILINE) == [f"G{number}" for number in range(1, 12)]


def test_the_last_column_is_what_became_of_the_tests() -> None:
    text = filled(TWO, outcomes(REPORT))
    assert [row.result for row in rows(text)] == ["ok", "ok, in part", "failed", "no such test"]
    assert text.splitlines()[:2] == TWO.splitlines()[:2]
    assert filled(text, outcomes(REPORT)) == text


def test_a_row_with_too_few_cells_is_refused() -> None:
    with pytest.raises(ValueError, match="line 1"):
        rows("| K-01 | fault | expected | tests |\n")
