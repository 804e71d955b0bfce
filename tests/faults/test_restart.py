"""A dead fleet is no outage of Redis: what the last worker held comes back when another starts, and no later."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from tests.faults.witness import server_ms
from tests.workers.harness import Log, one_kind, running
from zwheel import Wheel, current_job

pytestmark = [pytest.mark.anyio, one_kind]
LEASE_MS, REAP_MS, BUSY_MS = 900, 300, 4_000


@pytest.mark.parametrize("after", [0.3, 0.7, 1.5, 4.0], ids=lambda after: f"{after} leases")
async def test_the_job_of_a_single_worker_that_died_is_back_when_it_starts_again_or_its_lease_ends(
    wheel: Wheel, log: Log, after: float
) -> None:
    tokens: list[int] = []
    gate = asyncio.Event()

    @wheel.task(keep=60, retries=9)
    async def hold() -> None:
        tokens.append(current_job().token)
        await gate.wait()

    async with running(wheel, log, lease_ms=LEASE_MS, reap_ms=REAP_MS) as first:
        answer = await hold.enqueue()
        await log.seen("start", answer.job_id)
        await first.vanish()
    job = await wheel.get(answer.job_id)
    assert job is not None
    assert job.lease_until_ms is not None
    await asyncio.sleep(after * LEASE_MS / 1000)
    started_ms = await server_ms(wheel)
    async with running(wheel, log, lease_ms=LEASE_MS, reap_ms=REAP_MS):
        await log.seen("start", answer.job_id, count=2)
        back_ms = tokens[1] // 1000
        gate.set()
    earliest = max(started_ms, job.lease_until_ms)
    assert earliest <= back_ms <= earliest + REAP_MS * 1.1 + BUSY_MS


async def test_deaths_in_a_row_add_no_grace_to_each_other(wheel: Wheel, log: Log) -> None:
    """A job that kills worker after worker: each time it is back after lease and reaping interval."""
    tokens: list[int] = []
    gate = asyncio.Event()

    @wheel.task(keep=60, retries=9)
    async def hold() -> None:
        tokens.append(current_job().token)
        await gate.wait()

    answer = await hold.enqueue()
    for death in range(1, 5):
        async with running(wheel, log, lease_ms=LEASE_MS, reap_ms=REAP_MS) as worker:
            await log.seen("start", answer.job_id, count=death)
            await worker.vanish()
    gaps = [(later - earlier) // 1000 for earlier, later in itertools.pairwise(tokens)]
    assert all(LEASE_MS <= gap <= LEASE_MS * 4 / 3 + REAP_MS * 1.1 + BUSY_MS for gap in gaps), gaps
