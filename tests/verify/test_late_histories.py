"""Histories with occurrences that no worker started in time: what is allowed, and what is a breach of I14."""

from __future__ import annotations

from .book import HOUR, Book, occurrence

GRACE = {"grace_ms": 2_000, "misfire": "skip"}


def judged(book: Book) -> list[str]:
    return [verdict.number for verdict in book.judge(lateness_ms=3_600_000).broken]


def test_one_that_comes_back_and_is_missed_is_no_breach(book: Book) -> None:
    book.schedule("define", 500, on=None, cursor=2_000, fires=(1_000, 2_000), says=GRACE)
    book.claim(occurrence(1_000), 40_000, fire=1_000)
    book.schedule(
        "define", 40_100, on=500, cursor=2_000, back=(1_000, 2_000), taken=[HOUR + 1_000, HOUR + 2_000], says=GRACE
    )
    book.schedule("advance", 40_200, on=40_100, cursor=40_200, missed=40, says=GRACE)
    book.snapshot(50_000)
    assert judged(book) == []


def test_one_that_comes_back_and_is_caught_up_has_its_grace_from_then_on(book: Book) -> None:
    book.schedule("define", 500, on=None, cursor=1_000, fires=(1_000,), says=GRACE)
    book.claim(occurrence(1_000), 40_000, fire=1_000)
    book.schedule("define", 40_100, on=500, cursor=1_000, back=(1_000,), taken=[HOUR + 1_000], says=GRACE)
    book.schedule("advance", 40_200, on=40_100, cursor=40_200, missed=39, fires=(1_000,), says=GRACE)
    book.claim(occurrence(1_000), 40_300, fire=1_000)
    book.start(occurrence(1_000), 40_301, of=40_300, fire=1_000)
    book.settle("complete", occurrence(1_000), 40_302, of=40_300)
    book.snapshot(50_000)
    assert judged(book) == []


def test_one_that_comes_back_and_is_caught_up_by_calls_whose_answers_are_lost_is_no_breach(book: Book) -> None:
    book.schedule("define", 500, on=None, cursor=1_000, fires=(1_000,), says=GRACE)
    book.claim(occurrence(1_000), 40_000, fire=1_000)
    book.schedule("define", 40_100, on=500, cursor=1_000, back=(1_000,), taken=[HOUR + 1_000], says=GRACE, phase="info")
    book.schedule("advance", 40_200, on=40_100, cursor=40_200, missed=39, fires=(1_000,), says=GRACE, phase="info")
    book.claim(occurrence(1_000), 40_300, fire=1_000, by="w2")
    book.start(occurrence(1_000), 40_301, of=40_300, fire=1_000, by="w2")
    book.settle("complete", occurrence(1_000), 40_302, of=40_300, by="w2")
    book.snapshot(50_000)
    assert judged(book) == []


def test_one_that_started_after_its_grace_is_a_breach(book: Book) -> None:
    book.schedule("define", 500, on=None, cursor=1_000, fires=(1_000,), says=GRACE)
    book.claim(occurrence(1_000), 40_000, fire=1_000)
    book.start(occurrence(1_000), 40_001, of=40_000, fire=1_000)
    book.settle("complete", occurrence(1_000), 40_002, of=40_000)
    book.snapshot(50_000)
    assert judged(book) == ["I14"]


def test_one_that_came_back_and_is_dropped_is_a_breach(book: Book) -> None:
    book.schedule("define", 500, on=None, cursor=1_000, fires=(1_000,), says=GRACE)
    book.claim(occurrence(1_000), 40_000, fire=1_000)
    book.schedule("define", 40_100, on=500, cursor=1_000, back=(1_000,), taken=[HOUR + 1_000], says=GRACE)
    book.schedule("advance", 40_200, on=40_100, cursor=40_200, missed=39, says=GRACE)
    book.snapshot(50_000)
    assert judged(book) == ["I14"]


def test_a_cursor_that_is_drawn_back_is_no_gap(book: Book) -> None:
    book.schedule("define", 500, on=None, cursor=3_600_000, missed=3_599)
    book.schedule("advance", 2_000, on=500, cursor=2_000)
    book.snapshot(5_000)
    assert judged(book) == []
