"""The examples in the tables of docs/schedules.md are what the page says they are."""

from __future__ import annotations

import re
from itertools import islice

import pytest

from tests.docs.pages import ROOT
from zwheel.errors import InvalidTime
from zwheel.schedules.foreign import split_zone
from zwheel.schedules.kinds import kind_from_text
from zwheel.schedules.occurrences import Rhythm

PAGE = (ROOT / "docs" / "schedules.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[tuple[str, str]]:
    """Each example of the first column of the table below a line, with the second column."""
    table = PAGE.partition(heading)[2].strip().partition("\n\n")[0]
    cells = [line.strip("| ").split(" | ", 1) for line in table.splitlines()[2:]]
    return [(example, text) for first, text in cells for example in re.findall(r"`([^`]+)`", first)]


@pytest.mark.parametrize("example", [example for example, _ in rows("## Kinds of schedules\n")])
def test_each_kind_on_the_page_fires(example: str) -> None:
    assert list(islice(Rhythm(kind_from_text(example), name="report").after(1_790_000_000_000), 2))


def test_lines_of_others_are_read_or_refused_as_the_page_says() -> None:
    found = [(example, text) for example, text in rows("with what to write instead:\n") if len(example) > 1]
    assert len(found) == 5
    for example, text in found:
        line, _ = split_zone(example)
        if text.startswith("read"):
            assert kind_from_text(line)  # type: ignore[truthy-bool]
        else:
            with pytest.raises(InvalidTime):
                kind_from_text(line)
