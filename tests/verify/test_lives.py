"""Histories of ids that have a new job after an end: what is allowed, and what is a breach of I13."""

from __future__ import annotations

import pytest

from .book import DIGEST, HOUR, Book, on_wheel


def judged(book: Book) -> list[str]:
    return [verdict.number for verdict in book.judge().broken]


def end(book: Book, how: str) -> None:
    """One job called a, which ended."""
    book.enqueue("a", fire=60_000 if how == "cancel" else None, digest=DIGEST, window=60_000, most=1)
    if how == "cancel":
        book.call("cancel", 10, [{"id": "a", "letter": "c"}], proc="p")
        return
    book.claim("a", 10, most=1)
    book.settle(how, "a", 20, of=10)


@pytest.mark.parametrize(
    ("how", "replace", "broken"),
    [
        ("cancel", None, []), ("cancel", True, []), ("cancel", False, ["I13"]),
        ("bury", True, []), ("bury", None, ["I13"]), ("complete", True, []), ("complete", None, ["I13"]),
    ],
)  # fmt: skip
def test_an_ended_job_gives_way_as_it_was_asked_for(
    book: Book, how: str, replace: bool | None, broken: list[str]
) -> None:
    end(book, how)
    # A key that it had passes on.
    book.enqueue("a", 50, fire=60_000, letter="r", digest=DIGEST, replace=replace)
    book.snapshot(5_000, {"a": on_wheel(60_000, digest=DIGEST)}, dedup=[[DIGEST, "a", None]])
    assert judged(book) == broken


def test_the_second_life_is_held_to_the_same_promises(book: Book) -> None:
    end(book, "bury")
    book.enqueue("a", 50, letter="r", replace=True)
    book.claim("a", 60, fire=50)
    book.settle("complete", "a", 70, of=10)
    assert set(judged(book)) == {"I5"}


def test_a_living_job_that_gave_way_is_found(book: Book) -> None:
    book.enqueue("a", fire=60_000)
    book.enqueue("a", 50, fire=60_000, letter="r", replace=True)
    book.snapshot(5_000, {"a": on_wheel(60_000)})
    assert judged(book) == ["I13"]


def test_nothing_is_said_where_an_end_may_be_unknown(book: Book) -> None:
    book.enqueue("a")
    book.claim("a", 10)
    book.settle("bury", "a", 20, of=10, phase="lost")
    book.enqueue("a", 50, fire=60_000, letter="r", replace=True)
    book.snapshot(5_000, {"a": on_wheel(60_000)})
    assert judged(book) == []


def test_a_cancel_that_was_repeated_may_have_been_the_last_word(book: Book) -> None:
    book.enqueue("a", fire=60_000)
    book.call("cancel", 10, [{"id": "a", "letter": "c"}], proc="p", request="p:c:1", phase="lost")
    book.call("reschedule", 20, [{"id": "a", "letter": "s", "fire": HOUR + 70_000}], proc="q")
    book.call("cancel", 50, [{"id": "a", "letter": "c"}], proc="p", request="p:c:1")
    book.enqueue("a", 60, fire=60_000, letter="r")
    book.snapshot(5_000, {"a": on_wheel(60_000)})
    assert judged(book) == []


def test_an_enqueue_that_was_repeated_may_have_come_after_the_end(book: Book) -> None:
    book.enqueue("a")
    book.enqueue("a", 12, fire=60_000, letter="r", replace=True, request="p:e:1", phase="lost")
    book.claim("a", 15)
    book.settle("complete", "a", 20, of=15)
    book.enqueue("a", 50, fire=60_000, letter="r", replace=True, request="p:e:1")
    book.snapshot(5_000, {"a": on_wheel(60_000)})
    assert judged(book) == []


def test_a_redriven_job_lives_and_must_not_give_way(book: Book) -> None:
    end(book, "bury")
    book.call("redrive", 30, [{"id": "a", "letter": "r"}], proc="p")
    book.enqueue("a", 50, fire=60_000, letter="r", replace=True)
    book.snapshot(5_000, {"a": on_wheel(60_000)})
    assert judged(book) == ["I13"]


def test_by_its_fire_time_it_is_known_when_an_enqueue_that_was_repeated_made_its_job(book: Book) -> None:
    # Asked first before the claim, answered after the end: its delay counted from when it was carried out.
    facts = {"id": "a", "most": 3, "delay": 0, "replace": True}
    book.enqueue("a")
    book.call("enqueue", 12, [facts], proc="p", request="p:e:1", phase="info")
    book.claim("a", 15)
    book.settle("complete", "a", 20, of=15)
    book.call("enqueue", 50, [facts | {"letter": "r", "fire": HOUR + 50}], proc="p", request="p:e:1", receipt="memory")
    book.claim("a", 51, fire=50, attempt=1)
    book.settle("complete", "a", 60, of=51)
    book.snapshot(5_000, {})
    assert judged(book) == []
