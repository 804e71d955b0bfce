"""Histories that end in a snapshot which breaks a promise: a job in two places or none, a wrong index, a body astray."""

from __future__ import annotations

from collections.abc import Callable

from .book import DAY, HOUR, Book, on_wheel


def in_two_places(book: Book) -> None:
    book.enqueue("a", fire=60_000)
    both = [[f"wheel:{DAY}", HOUR + 60_000], ["processing", HOUR + 60_000]]
    book.snapshot(5_000, {"a": on_wheel(60_000, **{"in": both})})


def in_no_place(book: Book) -> None:
    book.enqueue("a", fire=60_000)
    book.snapshot(5_000, {"a": on_wheel(60_000, **{"in": []})})


def listed_without_a_record(book: Book) -> None:
    book.enqueue("a", fire=60_000)
    book.snapshot(5_000, {"a": on_wheel(60_000) | {"state": None, "fire": None}})


def without_its_body(book: Book) -> None:
    book.enqueue("a", fire=60_000)
    book.snapshot(5_000, {"a": on_wheel(60_000, body=[5_000, 0])})


def body_of_nobody(book: Book) -> None:
    book.enqueue("a", fire=60_000)
    book.snapshot(5_000, {"a": on_wheel(60_000, body=[0, 5_000])})


def in_the_wrong_set(book: Book) -> None:
    book.enqueue("a", fire=60_000)
    book.snapshot(5_000, {"a": on_wheel(60_000, **{"in": [["dead", HOUR]]})})


def day_not_in_the_index(book: Book) -> None:
    book.enqueue("a", fire=60_000)
    book.snapshot(5_000, {"a": on_wheel(60_000)}, days=())


def empty_day_in_the_index(book: Book) -> None:
    book.enqueue("a")
    book.run("a")
    book.snapshot(5_000, {}, days=(DAY,))


def in_the_bucket_of_another_day(book: Book) -> None:
    book.enqueue("a", fire=60_000)
    book.snapshot(5_000, {"a": on_wheel(60_000, **{"in": [["wheel:20400101", HOUR + 60_000]]})})


def at_another_time_than_its_record(book: Book) -> None:
    book.enqueue("a", fire=60_000)
    book.snapshot(5_000, {"a": on_wheel(60_000) | {"fire": HOUR + 1}})


SNAPSHOTS: dict[str, tuple[set[str], int, Callable[[Book], None]]] = {
    "in two places": ({"I9"}, 1, in_two_places),
    "in no place": ({"I9"}, 1, in_no_place),
    "listed without a record": ({"I9"}, 1, listed_without_a_record),
    "without its body": ({"I9"}, 1, without_its_body),
    "a body of nobody": ({"I9"}, 1, body_of_nobody),
    "in the wrong set": ({"I9"}, 1, in_the_wrong_set),
    "day not in the index": ({"I10"}, 2, day_not_in_the_index),
    "empty day in the index": ({"I10"}, 1, empty_day_in_the_index),
    "in another day's bucket": ({"I10"}, 1, in_the_bucket_of_another_day),
    "at another time": ({"I10"}, 1, at_another_time_than_its_record),
}
