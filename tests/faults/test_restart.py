"""A dead fleet is no outage of Redis: what the last worker held comes back when another starts, and no later."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from tests.conftest import MakeServer
from tests.faults.witness import server_ms
from tests.workers.harness import Log, eventually, one_kind, running
from zwheel import Wheel, current_job
from zwheel.calls import Session

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


async def test_the_grace_after_a_restart_of_redis_begins_at_once_although_no_lease_ran_out(
    own_server: MakeServer, log: Log
) -> None:
    """Of two workers the one with the shorter lease may reap first: the longer one's grace has begun by then."""
    server = own_server(appendonly=True)
    gate = asyncio.Event()
    async with Wheel(server.url, namespace="zw", give_up_s=15) as wheel:

        @wheel.task(keep=60)
        async def hold() -> None:
            await gate.wait()

        async with running(wheel, log, lease_ms=LEASE_MS), running(wheel, log, lease_ms=30_000):
            answer = await hold.enqueue()
            await log.seen("start", answer.job_id)
            keys = Session("zw").keys("default")

            async def told() -> bytes | None:
                with server.client() as client:
                    grace: bytes | None = client.hget(keys.meta, "grace")
                    return grace

            async def noted() -> bool:
                with server.client() as client:
                    return bool(client.hexists(keys.meta, "server"))

            await eventually(noted, bool)
            server.restart()
            grace = int(await eventually(told, bool) or 0)
            assert await server_ms(wheel) < grace <= await server_ms(wheel) + 30_000
            gate.set()
            assert (await wheel.wait(answer.job_id, "default", timeout=15)).attempt == 1
    assert log.of("reaped") == []
