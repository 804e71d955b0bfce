"""How many jobs a worker claims beyond the running jobs: as many as end within two round trips, and no more."""

from __future__ import annotations

import pytest

from zwheel.workers.claims import Slots


def prefetched(*, ended: int, since_s: float, trip_s: float, most: int = 200) -> int:
    """How many are claimed beyond the concurrency after a claim that was answered."""
    slots = Slots(4, most)
    slots.turn(100.0, trip_s)
    slots.held = ended
    for _ in range(ended):
        slots.ended()
    slots.turn(100.0 + since_s, trip_s)
    return slots.room() - 4


@pytest.mark.parametrize(
    ("ended", "since_s", "trip_s", "expected"),
    [
        (100, 0.004, 0.0015, 75),  # jobs that do nothing
        (1, 2.0, 0.001, 0),  # jobs of seconds
        (5, 2.0, 1.9, 9),  # five quick jobs, and then an answer that was long in coming
        (5, 0.02, 1.9, 10),
        (4, 0.001, 0.001, 0),  # each slot had one, which may have begun long ago
        (0, 1.0, 1.0, 0),
        (10_000, 0.1, 0.05, 200),  # no more than the settings allow
    ],
)
def test_no_more_is_claimed_than_ends_within_two_round_trips(
    ended: int, since_s: float, trip_s: float, expected: int
) -> None:
    assert abs(prefetched(ended=ended, since_s=since_s, trip_s=trip_s) - expected) <= (expected > 10)


def test_a_claim_asks_for_half_of_what_may_be_held_while_the_other_half_runs() -> None:
    slots = Slots(100, 200)
    assert slots.share() == 100
    slots.turn(100.0, 0.001)
    slots.held = 237
    for _ in range(200):
        slots.ended()
    slots.turn(100.001, 0.001)
    assert (slots.room(), slots.share()) == (263, 150)
    slots.held = 263
    assert slots.share() == slots.room() == 37


def test_a_small_prefetch_does_not_make_a_claim_smaller_than_the_concurrency() -> None:
    slots = Slots(100, 50)
    slots.turn(100.0, 0.001)
    slots.held = 101
    for _ in range(101):
        slots.ended()
    slots.turn(100.001, 0.001)
    assert (slots.room(), slots.share()) == (150, 100)


def test_jobs_that_end_together_are_no_quick_jobs() -> None:
    """Ten slots, jobs of half a second, and 3 ms for a claim of large ones: after each half second come two claims."""
    slots = Slots(10, 200)
    slots.turn(100.0, 0.003)
    now, most = 100.0, 0
    for _ in range(20):
        for after_s, ended in ((0.5, 2), (0.005, 8)):
            now += after_s
            slots.held = ended
            for _ in range(ended):
                slots.ended()
            slots.turn(now, 0.003, 100_000)
            most = max(most, slots.room() - 10)
    assert most == 0


def test_few_large_jobs_are_prefetched_however_long_their_answers_take() -> None:
    slots = Slots(4, 200)
    slots.turn(100.0, 0.1)
    for round_ in range(1, 10):
        slots.held = 100
        for _ in range(100):
            slots.ended()
        slots.turn(100.0 + round_ * 0.1, 0.1, 100_000)
        assert slots.room() - 4 <= 2
    slots.turn(101.0, 0.1, 300_000)
    assert slots.room() == 4


def test_a_pace_that_is_no_more_is_forgotten() -> None:
    slots = Slots(4, 200)
    slots.turn(100.0, 0.001)
    slots.held = 100
    for _ in range(100):
        slots.ended()
    slots.turn(100.01, 0.001)
    assert slots.room() > 20
    slots.turn(101.01, 0.001)
    assert slots.room() == 4


def test_never_more_than_twice_as_many_as_ended() -> None:
    for ended in (1, 3, 50):
        for since_s in (1e-9, 0.001, 1.0):
            for trip_s in (0.0, 0.001, 5.0):
                assert prefetched(ended=ended, since_s=since_s, trip_s=trip_s) <= 2 * ended
