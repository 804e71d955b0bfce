"""A fleet that waits in virtual time: nothing that is due waits beside an idle worker, and what breaks that is found."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import pytest

from zwheel.workers import looks, peers
from zwheel.workers.fleet import Fleet
from zwheel.workers.poller import Poller
from zwheel.workers.summons import Summons

from .conftest import Connect
from .full import all_but_one_full
from .mutants import Mutant
from .waiting import LIMIT_S, ROUNDS_S, SLACK_S, run

SEEDS, SPARE_SEEDS, MUTANT_SEEDS = 20, 8, 120


def _nobody(fleet: Fleet, shard: str, worker: bytes, keepers: object) -> bool:
    """Nobody watches beside those that keep time."""
    return False


#: What is wrong in a script, and the second look that would make up for it: each alone costs less than a second.
MUTANTS: tuple[tuple[Mutant, tuple[tuple[Any, str, Any], ...]], ...] = (
    (Mutant("a worker without room keeps its role", "include/roles.lua", "local keeps, seconds = roles.keeper == worker, roles.second == worker", "local keeps, seconds = false, false", ("claim", "step_down"), promises=("I25",)), ((Fleet, "watches", _nobody), (looks, "FOLLOWER_BACKSTOP_S", (4.0, 15.0)))),
    (Mutant("a new job calls nobody", "include/wake.lua", "redis.call('RPUSH', list, '1')", "local _ = list", ("enqueue",), promises=("I25",)), ((looks, "BACKSTOP_S", 4.0),)),
    (Mutant("what is offered calls nobody", "offer.lua", "push_token(KEYS[k + 1])", "local _ = k", promises=("I25",)), ((peers, "_LOOK_S", (20.0,)),)),
)  # fmt: skip


def test_a_due_job_and_an_idle_worker_find_each_other_while_one_process_is_in_trouble(connect: Connect) -> None:
    server, marks = connect("valkey"), set[str]()
    for seed in range(SEEDS):
        assert run(server, seed, marks=marks) is None, f"seed {seed}"
    assert marks == {"called", "woken", "killed", "frozen", "a frozen worker got a token"}


def test_they_do_so_too_when_the_timekeeper_and_its_second_die_together(connect: Connect) -> None:
    server = connect("valkey")
    for seed in range(SEEDS // 2):
        assert run(server, seed, both=True) is None, f"seed {seed}"


def test_a_shard_that_nobody_keeps_time_for_any_more_is_found_within_a_second(connect: Connect) -> None:
    server = connect("valkey")
    for seed in range(SEEDS):
        assert run(server, seed, both=True, roomy=True) is None, f"seed {seed}"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("both", [False, True])
def test_where_a_fleet_spares_a_due_job_is_found_within_a_second_too(connect: Connect, both: bool) -> None:
    server = connect("valkey")
    for seed in range(SPARE_SEEDS):
        assert run(server, seed, both=both, roomy=True, spares=True) is None, f"seed {seed}"


@pytest.mark.timeout(300)
def test_where_a_fleet_spares_a_worker_with_room_is_called_to_the_shards_of_the_full(connect: Connect) -> None:
    server = connect("valkey")
    for seed in range(SPARE_SEEDS):
        assert run(server, seed, spares=True) is None, f"seed {seed}"


@pytest.mark.timeout(300)
def test_it_is_not_when_nobody_watches_beside_those_that_keep_time(connect: Connect) -> None:
    server = connect("valkey")
    # The others look as seldom as in a large fleet.
    with patch.object(Fleet, "watches", _nobody), patch.object(looks, "FOLLOWER_BACKSTOP_S", (4.0, 15.0)):
        found = (run(server, seed, both=True, roomy=True) for seed in range(MUTANT_SEEDS))
        assert str(next((broken for broken in found if broken), None)).startswith("I25")


@pytest.mark.timeout(300)
def test_it_is_not_when_nobody_sees_to_the_shards_of_a_fleet_that_spares(connect: Connect) -> None:
    server = connect("valkey")
    with patch.object(Fleet, "sees_to", lambda fleet, shard: False):
        found = (run(server, seed, both=True, roomy=True, spares=True) for seed in range(MUTANT_SEEDS))
        assert str(next((broken for broken in found if broken), None)).startswith("I25")


@pytest.mark.parametrize("makes_rounds", [True, False])
def test_the_one_worker_that_has_room_finds_each_shard_although_all_others_are_full_for_an_hour(
    connect: Connect, *, makes_rounds: bool
) -> None:
    nobody_calls = patch.object(Summons, "turn", lambda summons, pollers: None)
    with nobody_calls, patch.object(Poller, "look", Poller.look if makes_rounds else lambda poller: None):
        late = all_but_one_full(connect("valkey"))
    assert (max(late) < ROUNDS_S) is makes_rounds, late
    if makes_rounds:
        # Once it met a shard whose others are full it looks at ever more of them.
        assert sorted(late)[len(late) // 2] < ROUNDS_S / 4


def test_the_full_that_see_to_a_shard_call_the_one_that_has_room_within_a_second(connect: Connect) -> None:
    late = all_but_one_full(connect("valkey"))
    assert max(late) < LIMIT_S + SLACK_S, late


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("mutant", "patches"), MUTANTS, ids=lambda made: getattr(made, "name", "").replace(" ", "-"))
def test_a_fault_is_found(mutant: Mutant, patches: tuple[tuple[Any, str, Any], ...], connect: Connect) -> None:
    server = connect("valkey", mutant.made())
    with ExitStack() as stack:
        for module, name, value in patches:
            stack.enter_context(patch.object(module, name, value))
        found = next((broken for seed in range(MUTANT_SEEDS) if (broken := run(server, seed))), None)
    assert found is not None
    assert mutant.known_by(str(found))


def test_a_follower_that_only_peeks_is_found(connect: Connect) -> None:
    server = connect("valkey")
    with patch.object(looks, "_OVERDUE_S", 1e9), patch.object(looks, "lasts", lambda ends, clock: True):
        found = next((broken for seed in range(MUTANT_SEEDS) if (broken := run(server, seed, both=True))), None)
        assert str(found).startswith("I25")
        assert str(found) == str(next(b for seed in range(MUTANT_SEEDS) if (b := run(server, seed, both=True))))
