"""The estimate of the server's clock: what its readings allow, and what it makes of a reading that contradicts them."""

from __future__ import annotations

import random
import time

import pytest

import zwheel.calls.clock as module
from zwheel.calls.clock import ServerClock

SECOND_NS = 1_000_000_000
HOUR_US = 3_600_000_000


class Two:
    """A machine's monotonic clock and a server's, both by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.mono_ns = 500 * SECOND_NS
        self.server_us = 1_900_000_000_000_000
        self.slept_us = 0
        self.jumps: list[int] = []
        monkeypatch.setattr(time, "monotonic_ns", lambda: self.mono_ns)
        monkeypatch.setattr(module, "_slept_us", lambda: self.slept_us)
        self.clock = ServerClock()
        self.clock.on_jump = self.jumps.append

    def passes(self, seconds: float, ppm: int = 0) -> None:
        self.mono_ns += int(seconds * SECOND_NS)
        self.server_us += int(seconds * (1_000_000 + ppm))

    def ask(self, there_s: float, back_s: float) -> None:
        """One round trip."""
        sent = self.mono_ns
        self.passes(there_s)
        said = self.server_us
        self.passes(back_s)
        self.clock.observe(said, sent, self.mono_ns)

    @property
    def off_us(self) -> int:
        return abs(self.clock.now_us() - self.server_us)


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> Two:
    return Two(monkeypatch)


def test_the_estimate_is_never_further_off_than_it_says(two: Two) -> None:
    dice = random.Random(7)
    for _ in range(500):
        two.ask(dice.expovariate(200), dice.expovariate(50))
        assert two.off_us <= two.clock.error_us()
        two.passes(dice.expovariate(1), ppm=dice.choice((-400, 0, 400)))
        assert two.off_us <= two.clock.error_us()
    assert two.jumps == []


def test_an_answer_that_took_long_makes_nothing_worse(two: Two) -> None:
    two.ask(0.0001, 0.0001)
    two.passes(11)
    before = two.clock.error_us()
    two.ask(0.0, 40.0)
    assert two.off_us <= two.clock.error_us() <= before + 40 * 500 + 10


def test_what_the_clock_is_known_to_within_does_not_outgrow_what_the_answers_say(two: Two) -> None:
    two.ask(0.00005, 0.00005)
    for _ in range(1_000):
        two.passes(0.01, ppm=300)
        two.ask(0.0002, 0.0002)
        assert two.off_us <= two.clock.error_us() <= 260


@pytest.mark.parametrize("ppm", [500, -500])
def test_a_slow_drift_of_a_day_is_followed_and_is_no_jump(two: Two, ppm: int) -> None:
    for _ in range(2_000):
        two.ask(0.0002, 0.0002)
        two.passes(43, ppm=ppm)
    assert two.off_us < 43 * 500 + 1_000
    assert two.jumps == []


@pytest.mark.parametrize("by_us", [HOUR_US, -HOUR_US, 8_000_000, -8_000_000, 900_000])
def test_a_jump_is_believed_at_once_told_once_and_doubted_until_one_more_reading_agrees(two: Two, by_us: int) -> None:
    two.ask(0.0005, 0.0005)
    two.passes(3)
    two.server_us += by_us
    two.ask(0.2, 0.2)
    assert two.off_us <= 200_000
    assert len(two.jumps) == 1
    assert abs(two.jumps[0] - by_us) < 300_000
    assert two.clock.error_us() >= abs(by_us) - 300_000
    two.ask(0.0005, 0.0005)
    assert two.clock.error_us() < 2_000
    assert two.off_us < 2_000
    assert len(two.jumps) == 1


def test_a_step_that_is_small_is_followed_and_not_told(two: Two) -> None:
    two.ask(0.0005, 0.0005)
    two.server_us += 100_000
    two.ask(0.0005, 0.0005)
    two.ask(0.0005, 0.0005)
    assert two.off_us < 2_000
    assert two.jumps == []


def test_a_machine_that_slept_is_no_jump_of_the_server(two: Two) -> None:
    two.ask(0.0005, 0.0005)
    two.server_us += HOUR_US
    two.slept_us += HOUR_US
    two.ask(0.0005, 0.0005)
    assert two.off_us < 2_000
    assert two.jumps == []


def test_an_answer_from_before_a_jump_that_comes_in_late_counts_for_nothing(two: Two) -> None:
    """Two threads ask; the first is answered before the jump and reads its answer after it."""
    two.ask(0.0005, 0.0005)
    sent, said = two.mono_ns, two.server_us
    two.passes(0.001)
    two.server_us += HOUR_US
    two.ask(0.0005, 0.0005)
    two.clock.observe(said, sent, two.mono_ns)
    assert two.off_us < 2_000
    assert len(two.jumps) == 1
