"""How often a process was asked to stop, when one asking may arrive as several signals."""

from __future__ import annotations

import signal

from zwheel.workers.asks import Asks

TERM, INT = signal.SIGTERM, signal.SIGINT


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_signal_and_the_parents_word_for_it_are_one_asking_however_far_apart() -> None:
    clock = Clock()
    asks = Asks(clock)
    assert asks.signal(TERM)
    clock.now = 30.0
    assert not asks.parent()
    assert asks.count == 1
    assert asks.parent()
    assert not asks.signal(TERM)
    assert asks.count == 2


def test_a_second_signal_of_the_same_kind_is_a_second_asking_at_once() -> None:
    asks = Asks(Clock())
    assert asks.signal(INT)
    assert asks.signal(INT)
    assert asks.count == 2


def test_a_terminal_that_closes_asks_once_however_often_it_says_so() -> None:
    clock = Clock()
    asks = Asks(clock)
    assert asks.signal(signal.SIGHUP)
    clock.now = 5.0
    assert not asks.signal(signal.SIGHUP)
    assert asks.count == 1
    assert asks.signal(TERM), "somebody wants it to end at once"


def test_two_kinds_of_signals_are_one_asking_when_they_arrive_together() -> None:
    clock = Clock()
    asks = Asks(clock)
    assert asks.signal(INT)
    clock.now = 0.3
    assert not asks.signal(TERM)
    assert asks.count == 1
    clock.now = 5.0
    assert asks.signal(TERM)
    assert asks.count == 2


def test_another_kind_of_signal_later_is_a_second_asking() -> None:
    clock = Clock()
    asks = Asks(clock)
    assert asks.signal(INT)
    clock.now = 2.0
    assert asks.signal(TERM)
    assert asks.count == 2
