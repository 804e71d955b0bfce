"""The scripts and the model agree after every step of random histories, and the invariants hold.

ZWHEEL_MODEL_EXAMPLES sets how many histories there are, ZWHEEL_MODEL_STEPS how long one may get; a failure prints the
steps that lead to it, the shortest that were found.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.lua.shard import Shard
from tests.servers import RedisServer

from .schedules import ScheduleMachine

EXAMPLES = int(os.environ.get("ZWHEEL_MODEL_EXAMPLES", "80"))
STEPS = int(os.environ.get("ZWHEEL_MODEL_STEPS", "50"))


@pytest.mark.timeout(60 + EXAMPLES * STEPS // 50)
def test_the_scripts_do_what_the_model_does(fresh: RedisServer) -> None:
    with fresh.client() as client:
        machine = type("Machine", (ScheduleMachine,), {"shard": Shard(client, fresh.kind)})
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=STEPS,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
