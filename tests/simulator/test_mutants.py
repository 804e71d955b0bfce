"""The simulator can fail: each changed script is found within a bounded number of seeds, by the promise it breaks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest

from zwheel.calls.doubts import Doubts
from zwheel.workers.ahead import Ahead
from zwheel.workers.contact import Contact
from zwheel.workers.settler import Settler

from .__main__ import MUTANT_SEEDS
from .conftest import Connect
from .decisions import Decisions, Schedule, shrink
from .mutants import MUTANTS, Mutant
from .run import Simulator


@pytest.mark.timeout(120)
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_a_changed_script_is_found(mutant: Mutant, connect: Connect) -> None:
    simulator = Simulator(connect("valkey", mutant.made()), mode=mutant.mode)
    for seed in range(MUTANT_SEEDS):
        failure = simulator.seed(seed, shrink_s=0)
        if failure is not None:
            assert mutant.known_by(failure.error), f"\n{failure}"
            return
    pytest.fail(f"{MUTANT_SEEDS} seeds did not find it")


@pytest.mark.timeout(120)
def test_a_claim_that_is_given_up_before_its_outcome_is_acknowledged_is_found(connect: Connect) -> None:
    simulator = Simulator(connect("valkey"), mode="judge")

    def forgets(method: Callable[..., None]) -> Callable[..., None]:
        def ends(settler: Any, claim: Any, *more: Any) -> None:
            method(settler, claim, *more)
            settler._settled([claim])

        return ends

    take = Settler.take

    def take_in_the_loop(settler: Settler, lanes: str = "") -> list[Any]:
        return [] if lanes else take(settler)

    done, dead = forgets(Settler.complete), forgets(Settler.bury)
    with patch.multiple(Settler, take=take_in_the_loop, complete=done, bury=dead):
        found = (simulator.seed(seed, shrink_s=0) for seed in range(MUTANT_SEEDS))
        failure = next((failure for failure in found if failure is not None), None)
    assert failure is not None
    assert failure.error.startswith("I26")


@pytest.mark.timeout(120)
def test_a_job_that_starts_when_it_is_claimed_ahead_of_its_time_is_found(connect: Connect) -> None:
    simulator = Simulator(connect("valkey"), mode="judge")
    with patch.object(Ahead, "due", Ahead.all):
        found = (simulator.seed(seed, shrink_s=0) for seed in range(MUTANT_SEEDS))
        failure = next((failure for failure in found if failure is not None), None)
    assert failure is not None
    assert failure.error.startswith("I3")


@pytest.mark.timeout(120)
def test_a_reaper_that_goes_on_at_once_after_a_jump_that_others_saw_is_found(connect: Connect) -> None:
    simulator = Simulator(connect("valkey"), mode="clock")
    with patch.object(Contact, "_hold", lambda contact, ns: None):
        found = (simulator.seed(seed, shrink_s=0) for seed in range(MUTANT_SEEDS))
        failure = next((failure for failure in found if failure is not None), None)
    assert failure is not None
    assert failure.error.startswith("I26")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("forgets", ["keep", "take"])
def test_a_client_that_forgets_what_it_is_in_doubt_about_is_found(forgets: str, connect: Connect) -> None:
    simulator = Simulator(connect("valkey"), mode="judge")
    with patch.object(Doubts, forgets, lambda *_: None):
        found = (simulator.seed(seed, shrink_s=0) for seed in range(MUTANT_SEEDS))
        failure = next((failure for failure in found if failure is not None), None)
    assert failure is not None
    assert failure.error.startswith("K-02")


def test_a_failure_is_shrunk_to_the_few_steps_that_matter(connect: Connect) -> None:
    mutant = next(m for m in MUTANTS if m.name == "cancel takes running jobs")
    simulator = Simulator(connect("valkey", mutant.made()), mode=mutant.mode)
    found = (simulator.seed(seed, shrink_s=6) for seed in range(MUTANT_SEEDS))
    failure = next(failure for failure in found if failure is not None)
    assert len(failure.schedule) <= 60
    text = str(failure)
    assert text.startswith(f"seed {failure.seed} (judge): I12: cancel of")
    assert text.splitlines()[-3].startswith("broken: I12: cancel of")
    again, lines = simulator.replay(failure.seed, failure.schedule)
    assert str(again) == failure.error
    assert lines == failure.trace


def test_shrinking_keeps_what_the_failure_needs() -> None:
    """A run that fails when a step chose 3 after one that chose 2 shrinks to these two, and to nothing but them."""

    def used(schedule: Schedule) -> Schedule | None:
        decisions = Decisions(0, schedule)
        chosen = []
        while decisions.left > 0:
            decisions.next_step()
            chosen.append([decisions.choose(5) for _ in range(3)][1])
        seen = [c for c in chosen if c in (2, 3)]
        return decisions.taken if 2 in seen and 3 in seen[seen.index(2) :] else None

    drawn = Decisions(7)
    for _ in range(60):
        drawn.next_step()
        for _ in range(3):
            drawn.choose(5)
    assert used(drawn.taken) is not None
    assert shrink(drawn.taken, used, 5.0) == [[], [0, 2, 0], [0, 3, 0]]
