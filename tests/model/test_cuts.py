"""A queue is cut anew in random histories: no job is lost, doubled or early, and each ends up where it is looked for."""

from __future__ import annotations

import os
from importlib import import_module
from itertools import product

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.lua.shard import Shard
from tests.servers import RedisServer
from zwheel.client.declare import make_definition
from zwheel.operations.schedules import add_schedule
from zwheel.payload.codec import DEFAULT

from .cuts import MANY, CutsMachine

EXAMPLES = int(os.environ.get("ZWHEEL_MODEL_EXAMPLES", "80"))
STEPS = int(os.environ.get("ZWHEEL_MODEL_STEPS", "50"))


@pytest.fixture
def machine(fresh: RedisServer, monkeypatch: pytest.MonkeyPatch) -> type[CutsMachine]:
    """The machine on a server; its batches are of two, so that so few jobs have many of them."""
    monkeypatch.setattr(import_module("zwheel.operations.reshard"), "DEPART_LIMIT", 2)
    return type("Machine", (CutsMachine,), {"shard": Shard(fresh.client(), fresh.kind)})


@pytest.mark.timeout(60 + EXAMPLES * STEPS // 20)
def test_jobs_survive_every_cut(machine: type[CutsMachine]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


def test_a_producer_that_looks_in_the_former_cut_before_that_is_closed_stores_no_job_twice(
    machine: type[CutsMachine],
) -> None:
    """It finds nothing; another one, which knows of no cut, stores the job there; then the shards are closed and opened."""
    for commands in range(1, 40):
        for looked in range(1, 8):
            made = machine()
            made.begin(1)
            made.enqueue(0, [("b", 90_000_000)], 0, False, False, MANY)
            made.cut(3, commands)
            if not made.programs:
                assert commands > 10, "the cut was tried at each of its commands"
                return
            made.enqueue(1, [("a", 0)], 0, False, False, looked)
            made.enqueue(0, [("a", 0)], 0, False, False, MANY)
            for program in list(made.programs):
                made.step(program, MANY)
            made.teardown()


def test_a_schedule_is_added_once_while_its_queue_is_cut(machine: type[CutsMachine]) -> None:
    """One who adds it read the list of queues before the cut; another looks in the former cut in the middle of it."""
    definition = make_definition({}, DEFAULT, "s", "@every 1h", "t", queue="q")
    for early, commands, looked in product(range(2, 6), range(6, 14), range(1, 8)):
        made = machine()
        made.begin(1)
        made.enqueue(0, [("b", 90_000_000)], 0, False, False, MANY)
        for who, number in ((0, early), (2, commands), (1, looked)):
            if who == 2:
                made.cut(3, number)
                continue
            made.start("add", made.sessions[who], add_schedule(made.sessions[who], DEFAULT, definition, False))
            made.step_last(number)
        for program in list(made.programs):
            if program in made.programs:
                made.step(program, MANY)
        stored = [label for label, keyspace in made.keyspaces().items() if keyspace.get("schedules")]
        assert len(stored) == 1


def test_a_dedup_key_is_held_while_its_job_is_on_its_way(machine: type[CutsMachine]) -> None:
    """One who asks for it finds its holder in the former cut; then that leaves, before it is read."""
    for looked, moved in product(range(1, 10), range(8, 36)):
        made = machine()
        made.begin(1)
        made.enqueue(0, [("d", 90_000_000)], 0, False, False, MANY)
        made.cut(3, MANY)
        made.bring(0)
        made.enqueue(1, [("e", 90_000_000)], 0, False, False, looked)
        mover, *others = made.programs
        made.step(mover, moved)
        for program in others:
            made.step(program, MANY)
        made.all_is_where_it_belongs()
        made.teardown()
        assert sorted(made.book) == ["d"]
