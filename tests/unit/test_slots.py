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
        (3, 2.0, 1.9, 5),  # three quick jobs, and then an answer that was long in coming
        (3, 0.02, 1.9, 6),
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
    slots.held = 100
    for _ in range(100):
        slots.ended()
    slots.turn(100.001, 0.001)
    assert (slots.room(), slots.share()) == (150, 100)


def test_never_more_than_twice_as_many_as_ended() -> None:
    for ended in (1, 3, 50):
        for since_s in (1e-9, 0.001, 1.0):
            for trip_s in (0.0, 0.001, 5.0):
                assert prefetched(ended=ended, since_s=since_s, trip_s=trip_s) <= 2 * ended
