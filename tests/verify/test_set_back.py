"""Histories in which the server's clock is set back: what it shows is no order any more, and all is told right."""

from __future__ import annotations

import pytest

from zwheel.verify.steps import Steps

from .book import Book, on_wheel, token

#: The clock is set back at the tenth of a second, by 8 s.
AT, BACK = 100, 8_000
#: Of the enqueued jobs below, by the server's clock: so late that it is past on both sides of the step.
LONG_PAST = -20_000


def set_back(book: Book) -> None:
    """Each job is moved before the clock is set back, and again after it."""
    for job in "abcdefg":
        book.enqueue(job, 0, fire=LONG_PAST, most=5)
    book.enqueue("waits", 0, fire=9_000)
    book.claim("a", 10, fire=LONG_PAST, most=5)
    book.start("a", 11, of=10, fire=LONG_PAST)
    book.claim("d", 20, fire=LONG_PAST, most=5)
    book.settle("bury", "d", 25, of=20)
    book.claim("e", 30, fire=LONG_PAST, most=5)
    book.claim("f", 40, fire=LONG_PAST, most=5)
    book.claim("g", 50, fire=LONG_PAST, most=5)
    book.extend("g", 60, of=50)
    book.settle("release", "f", 90, of=40, fire=LONG_PAST)
    book.set_back(BACK)
    book.settle("complete", "a", 120, of=10)
    book.claim("f", 130, fire=LONG_PAST, most=5, by="w2")
    book.extend("f", 140, of=130, by="w2")
    book.settle("retry", "f", 150, of=130, by="w2", fire=LONG_PAST)
    book.run("f", 160, fire=LONG_PAST, most=5, attempt=2)
    book.run("b", 170, fire=LONG_PAST, most=5)
    book.call("cancel", 180, [{"id": "c", "letter": "c"}], proc="p")
    book.call("redrive", 190, [{"id": "d", "letter": "r"}], proc="p")
    book.run("d", 200, fire=LONG_PAST, most=5)
    book.enqueue("a", 210)
    book.run("a", 220, fire=-7_790, asked=90)
    book.settle("complete", "g", 230, of=50)
    # By the server's clock the lease of e lasts for 8 s longer: a worker that looks shortens it to one lease from then.
    for t in range(500, 2_500, 400):
        book.beat(t, by="w2")
    book.reap(900)
    book.reap(2_300, ("e",))
    book.run("e", 2_400, fire=LONG_PAST, most=5, attempt=2, by="w2")
    book.snapshot(9_600, {"waits": on_wheel(9_000), "c": {"state": "c", "in": [["done", 0]]}})


def test_a_run_that_held_is_told_to_have_held(book: Book) -> None:
    set_back(book)
    report = book.judge(lateness_ms=3_600_000, drained=True)
    assert [(verdict.number, verdict.breaches) for verdict in report.broken] == []
    assert report.summary["starts"] == 6


def test_by_the_clock_alone_much_of_it_would_seem_broken(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Steps, "back_us", 0)
    set_back(book)
    assert {verdict.number for verdict in book.judge().broken} >= {"I1", "I5", "I6"}


def test_a_job_that_starts_before_its_time_has_come_again_is_early(book: Book) -> None:
    book.enqueue("a", 0, fire=6_000)
    book.claims(5_000, [], role="timekeeper")
    book.set_back(BACK)
    book.claim("a", 6_100, fire=6_000)
    (verdict,) = book.judge().broken
    assert verdict.number == "I3"


def test_a_stale_token_and_a_second_holder_are_found_across_the_step(book: Book) -> None:
    for job in ("a", "b"):
        book.enqueue(job, 0, fire=LONG_PAST)
        book.claim(job, 10, fire=LONG_PAST)
    book.settle("release", "a", 20, of=10, fire=LONG_PAST)
    book.set_back(BACK)
    book.claim("a", 150, fire=LONG_PAST, by="w2")
    book.settle("complete", "a", 160, of=10)
    book.claim("b", 170, fire=LONG_PAST, attempt=2, by="w2", token=token(170))
    assert [verdict.number for verdict in book.judge().broken] == ["I4", "I5", "I7"]


def test_an_answer_that_came_after_the_step_tells_of_the_time_before_it() -> None:
    second = 1_000_000
    calls = [(n * second, n * second + 500, n * second + 100 * second + 200) for n in range(10)]
    late = (9 * second + 600, 12 * second, 109 * second + 700)
    after = [(n * second, n * second + 500, n * second + 92 * second + 200) for n in range(11, 20)]
    steps = Steps([*calls, late, *after])
    assert 8 * second <= steps.back_us <= 8 * second + 1_000
    assert steps.shift(*late) == steps.shift(*calls[-1]) == 0
    assert steps.shift(*after[0]) == steps.back_us
    times = [us + steps.shift(asked, answered, us) for asked, answered, us in (*calls, late, *after)]
    assert times == sorted(times)
    assert len(steps.backs) == 1


def test_a_jump_ahead_and_back_is_one_step_back_and_a_clock_that_drifts_is_none() -> None:
    second, hour = 1_000_000, 3_600_000_000
    there = [(n * second, n * second + 400, n * second + 200 + (hour if 10 <= n < 12 else 0)) for n in range(30)]
    steps = Steps(there)
    assert hour <= steps.back_us <= hour + 1_000
    assert [steps.shift(*call) for call in there] == [0] * 12 + [steps.back_us] * 18
    slow = [(n * second, n * second + 400, int(n * second * 0.9999) + 200) for n in range(0, 100_000, 10)]
    assert Steps(slow).back_us == 0
