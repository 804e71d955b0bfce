"""A task may fork: the child has no part in the worker's signals, sockets and pipes, and the worker goes on."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator

import pytest

from tests.workers.fork_app import WAYS
from tests.workers.harness import one_kind
from tests.workers.processes import worker_process
from tests.workers.stage import Stage
from zwheel import JobState, Wheel

pytestmark = [pytest.mark.anyio, one_kind]


@pytest.fixture
async def stage(tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> AsyncIterator[Stage]:
    async with Stage(tmp_path_factory.mktemp("s") / "stage") as made:
        yield made


@pytest.mark.parametrize("task", ["in_thread", "in_loop", "in_to_thread", "in_process"])
async def test_a_task_may_fork_in_any_way_and_its_worker_goes_on(
    wheel: Wheel, stage: Stage, url: str, task: str
) -> None:
    # Forking blocks the event loop in some of the ways; a lease that outlasts that keeps the test to its point.
    async with worker_process(url, stage.path, app="tests.workers.fork_app:wheel", lease="20s") as worker:
        for _ in range(3):
            # Its connections are made by then: a socket that is connecting in that moment may reach a child.
            first = await wheel.enqueue("quick", keep=60)
            await wheel.wait(first.job_id, timeout=10)
        for way in WAYS:
            answer = await wheel.enqueue(task, args=[way], keep=60, retries=0)
            job = await wheel.wait(answer.job_id, timeout=30)
            assert (job.state, [failure.message for failure in job.failures]) == (JobState.DONE, []), way
            quick = await wheel.enqueue("quick", keep=60)
            assert (await wheel.wait(quick.job_id, timeout=10)).state is JobState.DONE, way
        assert len(await wheel.workers()) == 1
        assert not [line for line in worker.lines if "draining" in line]
        worker.signal(signal.SIGTERM)
        assert await worker.ended() == 0
