"""Histories in which schedules keep their promise, each in a way that is easily taken for a breach."""

from __future__ import annotations

from collections.abc import Callable

from .book import HOUR, Book, occurrence


def scheduled(book: Book) -> None:
    """Added, advanced by two, missed in an outage, edited, paused, removed, added again."""
    book.schedule("define", 500, on=None, cursor=1_000, fires=(1_000,))
    book.run(occurrence(1_000), 1_000, fire=1_000)
    book.schedule("advance", 1_100, on=500, cursor=3_000, fires=(2_000, 3_000), proc="w2")
    book.run(occurrence(2_000), 2_000, fire=2_000)
    book.run(occurrence(3_000), 3_000, fire=3_000)
    book.schedule("advance", 7_000, on=1_100, cursor=7_000, fires=(7_000,), missed=3)
    book.run(occurrence(7_000), 7_001, fire=7_000)
    book.schedule("define", 7_100, on=7_000, cursor=9_000, fires=(8_000, 9_000), line="*/1 * * * * *")
    book.schedule("define", 7_200, on=7_100, cursor=7_200, status="p", back=(8_000, 9_000))
    book.schedule("define", 7_300, on=7_200, cursor=8_000, fires=(8_000,))
    book.run(occurrence(8_000), 8_000, fire=8_000)
    book.schedule("define", 8_500, on=7_300, cursor=0, status="")
    book.schedule("define", 8_600, on=None, cursor=8_600, line="0 0 1 1 *")
    book.snapshot(9_000)


def changed_anew_after_a_loss(book: Book) -> None:
    """The first change was confirmed and lost: the next is built on what is left."""
    book.schedule("define", 500, on=None, cursor=500)
    book.schedule("define", 900, on=500, cursor=900, status="p")
    book.fault("aof_cut", 800, 950)
    book.schedule("advance", 1_001, on=500, cursor=1_001, fires=(1_000,))
    book.run(occurrence(1_000), 1_010, fire=1_000)
    book.snapshot(9_000)


def waited_through_an_edit(book: Book) -> None:
    """09:00:02 waits for the run before it; the new definition has no such time, and it runs all the same."""
    book.schedule("define", 500, on=None, cursor=500)
    book.schedule("advance", 1_001, on=500, cursor=1_001, fires=(1_000,))
    book.claim(occurrence(1_000), 1_010, fire=1_000)
    book.schedule("advance", 2_001, on=1_001, cursor=2_001, buffered=HOUR + 2_000, word="b")
    book.schedule("define", 2_100, on=2_001, cursor=2_100, buffered=HOUR + 2_000, line="0 0 1 1 *")
    book.settle("complete", occurrence(1_000), 2_200, of=1_010)
    book.schedule("advance", 2_300, on=2_100, cursor=2_300, fires=(2_000,), line="0 0 1 1 *")
    book.run(occurrence(2_000), 2_301, fire=2_000)
    book.snapshot(9_000)


def one_at_a_time(book: Book) -> None:
    """Each goes on the wheel when the one before has ended: ahead of its time, or at it; redriven ones run beside it."""
    skip = {"overlap": "skip"}
    book.schedule("define", 100, on=None, cursor=100, says=skip)
    book.schedule("advance", 500, on=100, cursor=1_000, fires=(1_000,), says=skip)
    book.claim(occurrence(1_000), 1_000, fire=1_000)
    book.schedule("advance", 1_500, on=500, cursor=1_000, before=occurrence(1_000), word="b", says=skip)
    book.settle("bury", occurrence(1_000), 1_700, of=1_000)
    book.schedule("advance", 2_000, on=1_500, cursor=2_000, fires=(2_000,), before=occurrence(1_000), says=skip)
    book.run(occurrence(2_000), 2_001, fire=2_000)
    book.schedule("advance", 2_500, on=2_000, cursor=3_000, fires=(3_000,), before=occurrence(2_000), says=skip)
    book.call("redrive", 2_600, [{"id": occurrence(1_000), "letter": "r", "fire": HOUR + 2_600}])
    book.schedule("define", 2_700, on=2_500, cursor=2_700, back=(3_000,), status="p", says=skip)
    book.schedule("define", 2_800, on=2_700, cursor=2_800, says=skip)
    book.schedule("advance", 2_900, on=2_800, cursor=3_000, fires=(3_000,), before=occurrence(2_000), says=skip)
    book.run(occurrence(3_000), 3_000, fire=3_000)
    book.run(occurrence(1_000), 3_010, fire=2_600)
    book.snapshot(9_000)


def changed_by_a_request_whose_answer_came_when_others_had_gone_on(book: Book) -> None:
    """Its server died with the answer, and came back with the change; the repeat is told when two more are written."""
    book.schedule("define", 500, on=None, cursor=500)
    book.schedule("define", 600, on=500, cursor=600, line="*/1 * * * * *", proc="p", phase="info", request="p:0:1")
    book.schedule("advance", 900, on=620, cursor=1_000, fires=(1_000,), line="*/1 * * * * *")
    book.schedule("advance", 950, on=900, cursor=2_000, fires=(2_000,), line="*/1 * * * * *")
    book.schedule("define", 980, on=500, cursor=600, line="*/1 * * * * *", proc="p", request="p:0:1")
    book.run(occurrence(1_000), 1_000, fire=1_000)
    book.run(occurrence(2_000), 2_000, fire=2_000)
    book.snapshot(9_000)


def added_again_while_its_queue_is_cut_anew(book: Book) -> None:
    """A new schedule then says how many shards the queue had, in the place of a stamp."""
    book.schedule("define", 500, on=None, cursor=500)
    book.schedule("define", 600, on=500, cursor=0, status="")
    book.schedule("define", 700, on=None, cursor=700)
    for line in book.lines[-2:]:
        line["args"]["stamp"] = "3"
    book.schedule("advance", 800, on=700, cursor=1_000, fires=(1_000,))
    book.run(occurrence(1_000), 1_000, fire=1_000)
    book.snapshot(9_000)


def taken_off_by_a_pause_and_before_the_new_start(book: Book) -> None:
    book.schedule("define", 500, on=None, cursor=1_000, fires=(1_000,), says={"jitter_ms": 900})
    book.schedule("define", 1_100, on=500, cursor=1_100, status="p", back=(1_000,), taken=[HOUR + 1_000])
    later = {"jitter_ms": 900, "start_ms": HOUR + 60_000}
    book.schedule("define", 1_200, on=1_100, cursor=1_100, taken=[HOUR + 1_000], says=later)
    book.schedule("advance", 1_300, on=1_200, cursor=59_999, says=later)
    book.snapshot(9_000)


def advanced_without_an_answer(book: Book) -> None:
    book.schedule("define", 500, on=None, cursor=500)
    book.schedule("advance", 600, on=500, cursor=1_000, fires=(1_000,), phase="lost", asked=550)
    book.schedule("advance", 900, on=700, cursor=2_000, fires=(2_000,), proc="w2")
    book.run(occurrence(1_000), 1_000, fire=1_000)
    book.run(occurrence(2_000), 2_000, fire=2_000)
    book.snapshot(9_000)


KEPT: tuple[Callable[[Book], None], ...] = (
    scheduled, changed_anew_after_a_loss, waited_through_an_edit, one_at_a_time,
    changed_by_a_request_whose_answer_came_when_others_had_gone_on, added_again_while_its_queue_is_cut_anew,
    taken_off_by_a_pause_and_before_the_new_start, advanced_without_an_answer,
)  # fmt: skip
