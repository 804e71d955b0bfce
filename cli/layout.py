"""How a table finds its place: which columns stand where, how wide, and what is left out on a narrow terminal. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

#: Columns between two columns.
GAP = 2
#: A flexible column is not made narrower than this; a bar is this wide at the least.
LEAST = 10
#: A bar is this wide at the most.
BAR_COLUMNS = 40
_EIGHTHS = " ▏▎▍▌▋▊▉"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table."""

    title: str
    right: bool = False
    """Numbers stand to the right."""
    flexible: bool = False
    """Shortened when the terminal is narrow; others, such as ids, are always whole."""
    drop: int = 0
    """Left out when the terminal is too narrow, the highest number first; 0: never."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A text with a style for terminals that have colours, or a bar."""

    text: str
    style: str = ""
    share: float | None = None
    """Of a bar: which part of its column it fills, 0 to 1; None for a text."""


Row = Sequence[str | Cell]
"""One line of a table."""


def cell_width(text: str) -> int:
    """Count the terminal columns of a cleaned text: wide characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def bar(share: float, width: int, *, unicode: bool = True) -> str:
    """Draw a share of `width` columns; anything above 0 shows."""
    if share <= 0 or width <= 0:
        return ""
    filled = min(share, 1.0) * width
    if not unicode:
        return "#" * max(1, round(filled))
    eighths = max(1, round(filled * 8))
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def natural_widths(titles: Sequence[str], rows: Sequence[Sequence[Cell]]) -> list[int]:
    """Give each column the width of its widest cell, a bar BAR_COLUMNS."""
    return [
        max(
            cell_width(title),
            *(cell_width(row[i].text) if row[i].share is None else BAR_COLUMNS for row in rows),
        )
        for i, title in enumerate(titles)
    ]


def fit(columns: Sequence[Column], widths: Sequence[int], space: int) -> list[tuple[int, int]]:
    """Choose the columns that are shown on `space` terminal columns: (index, width) of each.

    Flexible columns give way first, then columns are left out in the order of their `drop`. When what must stay is
    still too wide, it stays as it is: a broken line is better than half an id.
    """
    kept = list(range(len(columns)))
    while True:
        least = {i: min(widths[i], LEAST) if columns[i].flexible else widths[i] for i in kept}
        used = sum(least.values()) + GAP * (len(kept) - 1)
        droppable = [i for i in kept if columns[i].drop]
        if used <= space or not droppable:
            break
        kept.remove(max(droppable, key=lambda i: columns[i].drop))
    left = space - used
    chosen = []
    for i in kept:
        more = max(0, min(left, widths[i] - least[i]))
        left -= more
        chosen.append((i, least[i] + more))
    return chosen
