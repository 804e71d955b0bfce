from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zwheel.cli.layout import GAP, LEAST, Cell, Column, bar, cell_width, fit, natural_widths


@pytest.mark.parametrize(
    ("share", "drawn"),
    [(0, ""), (1, "█" * 8), (0.5, "█" * 4), (0.001, "▏"), (9 / 16, "████▌"), (-1, ""), (2, "█" * 8)],
)
def test_a_bar_is_as_long_as_its_share(share: float, drawn: str) -> None:
    assert bar(share, 8) == drawn


def test_a_terminal_without_unicode_gets_hashes() -> None:
    assert bar(0.5, 8, unicode=False) == "####"
    assert bar(0.001, 8, unicode=False) == "#"


def test_wide_characters_take_two_columns_and_combining_ones_none() -> None:
    assert cell_width("明天") == 4
    assert cell_width("e\u0301") == 1


def test_a_column_is_as_wide_as_its_widest_cell() -> None:
    assert natural_widths(["id", "title", ""], [[Cell("a明"), Cell("x"), Cell("", share=0.1)]]) == [3, 5, 40]


COLUMNS = [Column("id"), Column("task", flexible=True), Column("when", drop=2), Column("error", flexible=True, drop=1)]


@pytest.mark.parametrize(
    ("space", "chosen"),
    [
        (200, [(0, 26), (1, 30), (2, 19), (3, 40)]),
        (100, [(0, 26), (1, 30), (2, 19), (3, 19)]),
        (71, [(0, 26), (1, 10), (2, 19), (3, 10)]),
        (70, [(0, 26), (1, 30), (3, 10)]),
        (49, [(0, 26), (1, 21)]),
        (20, [(0, 26), (1, 10)]),
    ],
)
def test_what_is_shown_on_a_narrow_terminal(space: int, chosen: list[tuple[int, int]]) -> None:
    assert fit(COLUMNS, [26, 30, 19, 40], space) == chosen


@given(
    st.lists(st.tuples(st.integers(1, 60), st.booleans(), st.integers(0, 4)), min_size=1, max_size=9),
    st.integers(10, 250),
)
def test_a_table_fits_unless_what_must_stay_is_wider(drawn: list[tuple[int, bool, int]], space: int) -> None:
    columns = [Column("", flexible=flexible, drop=drop) for _, flexible, drop in drawn]
    widths = [width for width, _, _ in drawn]
    chosen = fit(columns, widths, space)
    least = sum(min(width, LEAST) if flexible else width for width, flexible, drop in drawn if not drop) + GAP * max(
        0, sum(not drop for *_, drop in drawn) - 1
    )
    total = sum(width for _, width in chosen) + GAP * (len(chosen) - 1)
    assert total <= max(space, least)
    shown = {i for i, _ in chosen}
    assert all(i in shown for i, column in enumerate(columns) if not column.drop)
    assert all(width == widths[i] for i, width in chosen if not columns[i].flexible)
