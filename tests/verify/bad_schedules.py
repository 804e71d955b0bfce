"""Histories that break the promise of schedules, each in one way."""

from __future__ import annotations

from collections.abc import Callable

from .book import HOUR, Book, occurrence


def a_second_missing(book: Book) -> None:
    book.schedule("define", 500, on=None, cursor=500)
    book.schedule("advance", 600, on=500, cursor=3_000, fires=(1_000, 3_000))


def a_second_too_many(book: Book) -> None:
    book.schedule("define", 500, on=None, cursor=500, line="*/2 * * * * *", fires=(1_000,))


def a_second_twice(book: Book) -> None:
    book.schedule("define", 500, on=None, cursor=1_000, fires=(1_000,))
    book.run(occurrence(1_000), 1_000, fire=1_000)
    book.schedule("advance", 1_100, on=500, cursor=2_000, fires=(1_000, 2_000))


def two_schedulers(book: Book) -> None:
    book.schedule("define", 500, on=None, cursor=500)
    book.schedule("advance", 600, on=500, cursor=1_000, fires=(1_000,))
    book.schedule("advance", 601, on=500, cursor=1_000, fires=(1_000,), letters="i", proc="w2")


def built_on_nothing(book: Book) -> None:
    book.schedule("define", 500, on=None, cursor=500)
    book.schedule("advance", 600, on=400, cursor=500)


def fired_while_paused(book: Book) -> None:
    book.schedule("define", 500, on=None, cursor=500, status="p")
    book.schedule("advance", 600, on=500, cursor=1_000, fires=(1_000,))


def taken_back_and_run(book: Book) -> None:
    book.schedule("define", 500, on=None, cursor=1_000, fires=(1_000,))
    book.schedule("define", 700, on=500, cursor=700, status="p", back=(1_000,))
    book.run(occurrence(1_000), 1_000, fire=1_000)


def a_second_that_waited_dropped(book: Book) -> None:
    book.schedule("define", 500, on=None, cursor=500)
    book.schedule("advance", 1_001, on=500, cursor=1_001, buffered=HOUR + 1_000)
    book.schedule("define", 1_100, on=1_001, cursor=1_100)


def a_second_dropped_by_an_edit(book: Book) -> None:
    book.schedule("define", 500, on=None, cursor=2_000, fires=(1_000, 2_000))
    book.schedule("define", 1_100, on=500, cursor=2_000, fires=(2_000,), back=(1_000, 2_000), says={"jitter_ms": 50})


def a_missed_second_dropped_by_an_edit(book: Book) -> None:
    book.schedule("define", 500, on=None, cursor=500)
    book.schedule("define", 1_100, on=500, cursor=1_100, says={"grace_ms": 50})


def a_second_dropped_after_a_pause(book: Book) -> None:
    book.schedule("define", 500, on=None, cursor=1_000, fires=(1_000,), says={"jitter_ms": 900})
    book.schedule("define", 1_100, on=500, cursor=1_100, status="p", back=(1_000,), taken=[HOUR + 1_000])
    book.schedule("define", 1_200, on=1_100, cursor=1_100, taken=[HOUR + 1_000])
    book.schedule("advance", 1_300, on=1_200, cursor=1_300)


def a_second_beside_the_one_before(book: Book) -> None:
    book.schedule("define", 500, on=None, cursor=1_000, fires=(1_000,), says={"overlap": "skip"})
    book.claim(occurrence(1_000), 1_000, fire=1_000)
    book.schedule(
        "advance", 1_500, on=500, cursor=2_000, fires=(2_000,), before=occurrence(1_000), says={"overlap": "skip"}
    )
    book.settle("complete", occurrence(1_000), 1_700, of=1_000)


def a_second_beside_the_one_before_it_which_was_redriven(book: Book) -> None:
    book.schedule("define", 500, on=None, cursor=1_000, fires=(1_000,), says={"overlap": "skip"})
    book.claim(occurrence(1_000), 1_000, fire=1_000)
    book.settle("bury", occurrence(1_000), 1_010, of=1_000)
    book.call("redrive", 1_100, [{"id": occurrence(1_000), "letter": "r", "fire": HOUR + 1_100}])
    book.schedule(
        "advance", 1_500, on=500, cursor=2_000, fires=(2_000,), before=occurrence(1_000), says={"overlap": "skip"}
    )


SCHEDULES: dict[str, tuple[set[str], int, Callable[[Book], None]]] = {
    "a second dropped by an edit": ({"I14"}, 1, a_second_dropped_by_an_edit),
    "a missed second dropped by an edit": ({"I14"}, 2, a_missed_second_dropped_by_an_edit),
    "a second dropped after a pause": ({"I14"}, 2, a_second_dropped_after_a_pause),
    "a second missing": ({"I14"}, 2, a_second_missing),
    "a second too many": ({"I14"}, 1, a_second_too_many),
    "a second twice": ({"I14"}, 2, a_second_twice),
    "two schedulers": ({"I14"}, 2, two_schedulers),
    "built on nothing": ({"I14"}, 2, built_on_nothing),
    "fired while paused": ({"I14"}, 2, fired_while_paused),
    "a second that waited dropped": ({"I14"}, 2, a_second_that_waited_dropped),
    "a second beside the one before": ({"I14"}, 2, a_second_beside_the_one_before),
    "a second beside the one before it, which was redriven": (
        {"I14"},
        2,
        a_second_beside_the_one_before_it_which_was_redriven,
    ),
    "taken back and run": ({"I14"}, 2, taken_back_and_run),
}
