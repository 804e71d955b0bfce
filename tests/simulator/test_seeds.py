"""Sixteen hundred runs of a fleet with faults: no promise is broken, and the rare branches were all reached.

`python -m tests.simulator --seeds 10000 --start 2000` runs others. A failure prints its seed and the shortest way to it.
"""

from __future__ import annotations

import pytest

from .conftest import Connect
from .judge import Judge
from .life import Life
from .run import MARKS, Simulator

SEEDS = 400
#: Where further seeds begin: a branch that one run in some hundreds meets may need more than those.
FURTHER = 100_000


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("kind", "start"), [("redis", 0), ("redis", SEEDS), ("redis", 2 * SEEDS), ("valkey", 3 * SEEDS)]
)
def test_no_promise_is_broken(kind: str, start: int, connect: Connect) -> None:
    simulator = Simulator(connect(kind))
    for seed in (*range(start, start + SEEDS), *range(FURTHER + start, FURTHER + start + 4 * SEEDS)):
        if seed >= FURTHER and simulator.marks >= MARKS:
            break
        failure = simulator.seed(seed)
        assert failure is None, f"\n{failure}"
    assert not MARKS - simulator.marks, "these branches were never reached, so nothing was shown about them"


@pytest.mark.parametrize("mode", ["both", "damage", "clock", "model"])
def test_a_seed_is_the_same_run_each_time(mode: str, connect: Connect) -> None:
    simulator = Simulator(connect("valkey"), mode=mode)
    first, again = simulator.trace(11), simulator.trace(11)
    assert len(first[1]) > 50
    assert first == again


def test_the_servers_and_the_model_are_one_run(connect: Connect) -> None:
    """What a seed meets does not depend on the server."""
    traces = [Simulator(connect(kind), mode="both").trace(12) for kind in ("redis", "valkey")]
    assert traces[0] == traces[1]


def test_an_occurrence_of_which_nothing_is_left_comes_again_when_the_clock_was_set_back_before_it() -> None:
    """Seed 5345 of an older version: one that ran in a jump ahead, and whose tombstone lapsed in it."""
    judge = Judge(lambda mark: None)
    judge.lives = {
        f"s@{n}": Life(state, fire, 1, 0, "") for n, (state, fire) in enumerate((("g", 9), ("d", 9), ("g", 7)))
    }
    judge.occurrences = set(judge.lives)
    judge.set_back(8_000)
    assert judge.occurrences == {"s@1", "s@2"}
