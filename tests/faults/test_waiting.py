"""Workers that wait for a shard die, freeze or have no room: a due job and an idle worker find each other."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
import redis

from tests.servers import RedisServer
from tests.workers.harness import Log, Running, eventually, one_kind, running
from tests.workers.processes import worker_process
from tests.workers.stage import Stage
from zwheel import JobState, Wheel
from zwheel.keys import ShardKeys

pytestmark = [pytest.mark.anyio, one_kind]
KEYS = ShardKeys.of("zw", "default")
#: What a job may be late while one process is dead, frozen or full, and what a busy machine takes on top, seconds.
LATE_S, BUSY_S = 1.0, 1.5
#: A lease as in production: a role lasts long without a further claim.
LEASE_MS = 30_000
#: A worker that died or froze: its role lasts as if it were there.
GHOST = "ghost123"


@asynccontextmanager
async def frozen_listener(client: redis.Redis, server: RedisServer) -> AsyncIterator[None]:
    """A process that listens for a token as workers do, and does nothing with it."""
    reader, writer = await asyncio.open_unix_connection(str(server.socket))
    before = blocked(client)
    writer.write(b"*3\r\n$5\r\nBLPOP\r\n$%d\r\n%s\r\n$1\r\n0\r\n" % (len(KEYS.wake), KEYS.wake.encode()))
    await waiting(client, before + 1)
    try:
        yield
    finally:
        writer.close()
        del reader


def blocked(client: redis.Redis) -> int:
    return int(client.info("clients")["blocked_clients"])


async def waiting(client: redis.Redis, count: int) -> None:
    """Wait until so many connections wait for a token."""

    async def look() -> int:
        return blocked(client)

    await eventually(look, lambda n: n == count)


async def role(client: redis.Redis, name: str, worker: str, within: float = 10.0) -> None:
    """Wait until a worker has a role."""

    async def holder() -> object:
        return client.hget(KEYS.meta, name)

    await eventually(holder, lambda found: found == worker.encode(), within)


def haunt(client: redis.Redis, name: str, fire_ms: int | None = None) -> None:
    """Give a role to a worker that is dead or frozen."""
    until = int(time.time() * 1000) + 20_000
    fields: dict[str, str | int] = {name: GHOST, f"{name}_end": until if fire_ms is None else fire_ms + 30}
    if name == "keeper":
        fields["keeper_at"] = until if fire_ms is None else fire_ms
    client.hset(KEYS.meta, mapping=fields)  # type: ignore[arg-type]


@pytest.fixture
def gate(wheel: Wheel) -> asyncio.Event:
    """Tasks: `hold` takes a place until the gate opens, `quick` ends at once."""
    opened = asyncio.Event()

    @wheel.task(name="hold")
    async def hold() -> None:
        await opened.wait()

    @wheel.task(name="quick")
    async def quick() -> None:
        pass

    return opened


@asynccontextmanager
async def one_place(wheel: Wheel, log: Log) -> AsyncIterator[Running]:
    """A worker with room for one job."""
    async with running(wheel, log, lease_ms=LEASE_MS, concurrency=1, prefetch=0) as handle:
        yield handle


async def starts_in_time(log: Log, job_id: str, fire_ms: int, late_s: float = LATE_S) -> None:
    """Wait for its start, and compare the server's clock at its claim with its fire time."""
    start = await log.seen("start", job_id, within=fire_ms / 1000 - time.time() + 30)
    late = start["token"] / 1000 - fire_ms
    assert 0 <= late <= (late_s + BUSY_S) * 1000, f"{late:.0f} ms late"


async def test_the_timekeeper_is_dead_and_its_second_has_no_room(
    wheel: Wheel, log: Log, fresh: RedisServer, gate: asyncio.Event
) -> None:
    with fresh.client() as client:
        await wheel.enqueue("quick", delay=3600)
        client.delete(KEYS.wake)
        haunt(client, "keeper")
        async with one_place(wheel, log) as second:
            await role(client, "second", second.worker.id)
            await waiting(client, 1)
            async with one_place(wheel, log) as idle:
                await waiting(client, 2)
                fire_ms = int(time.time() * 1000) + 3_000
                while True:
                    haunt(client, "keeper", fire_ms)
                    # The second has listened longest and the token is its, unless the other looked just now. It was due
                    # before, so that nobody keeps time for it in between.
                    held = await wheel.enqueue("hold", at=datetime.now(UTC) - timedelta(seconds=1))
                    await log.seen("start", held.job_id)
                    if client.hget(KEYS.meta, "second") != second.worker.id.encode():
                        break
                    gate.set()
                    await log.seen("done", held.job_id)
                    gate.clear()
                    fire_ms = int(time.time() * 1000) + 3_000
                await role(client, "second", idle.worker.id)
                haunt(client, "keeper", fire_ms)
                job = await wheel.enqueue("quick", at=datetime.fromtimestamp(fire_ms / 1000, UTC))
                assert job.fire_at_ms == fire_ms
                await starts_in_time(log, job.job_id, job.fire_at_ms)
                gate.set()


async def test_the_timekeeper_and_its_second_are_dead(
    wheel: Wheel, log: Log, fresh: RedisServer, gate: asyncio.Event
) -> None:
    job = await wheel.enqueue("quick", delay=1.5)
    with fresh.client() as client:
        haunt(client, "keeper", job.fire_at_ms)
        haunt(client, "second")
        async with one_place(wheel, log) as idle:
            await eventually(lambda: _follows(idle), bool)
            # In a small fleet a follower looks every one to two seconds; a hundred look once in 20 s each.
            await starts_in_time(log, job.job_id, job.fire_at_ms, late_s=2.0)
    gate.set()


async def test_a_role_whose_holder_died_is_taken_before_the_next_fault(
    wheel: Wheel, log: Log, fresh: RedisServer, gate: asyncio.Event
) -> None:
    await wheel.enqueue("quick", delay=3600)
    with fresh.client() as client:
        client.delete(KEYS.wake)
        for left in ("second", "keeper"):
            haunt(client, "keeper")
            haunt(client, "second")
            async with one_place(wheel, log) as idle:
                await eventually(partial(_follows, idle), bool)
                # Nothing else happens: no job comes, and no token.
                client.hset(KEYS.meta, f"{left}_end", int(time.time() * 1000))
                await role(client, left, idle.worker.id, within=2.0 + BUSY_S)
    gate.set()


async def test_a_worker_that_drains_lays_its_role_down_at_once(
    wheel: Wheel, log: Log, fresh: RedisServer, gate: asyncio.Event
) -> None:
    with fresh.client() as client:
        async with running(wheel, log, lease_ms=LEASE_MS, drain_ms=30_000) as leaving:
            await role(client, "keeper", leaving.worker.id)
            held = await wheel.enqueue("hold")
            await log.seen("start", held.job_id)
            await role(client, "keeper", leaving.worker.id)
            leaving.worker.stop()
            async with one_place(wheel, log) as stays:
                await role(client, "keeper", stays.worker.id, within=LATE_S + BUSY_S)
                gate.set()
                await log.seen("done", held.job_id)


async def _follows(handle: Running) -> bool:
    return all(poller.looks.follows for poller in handle.worker.pollers)


@pytest.mark.parametrize("left", ["keeper", "second"])
async def test_a_role_that_is_laid_down_is_taken_although_a_frozen_worker_got_the_token(
    wheel: Wheel, log: Log, fresh: RedisServer, gate: asyncio.Event, left: str
) -> None:
    with fresh.client() as client:
        await wheel.enqueue("quick", delay=3600)
        client.delete(KEYS.wake)
        haunt(client, "second" if left == "keeper" else "keeper", None if left == "keeper" else 1)
        if left == "second":
            # A timekeeper for something that is long past, so that each enqueue leaves it at rest.
            client.hset(KEYS.meta, "keeper_end", int(time.time() * 1000) + 15_000)
        async with one_place(wheel, log) as full:
            await role(client, left, full.worker.id)
            await waiting(client, 1)
            async with frozen_listener(client, fresh), one_place(wheel, log) as idle:
                await waiting(client, 3)
                assert await _follows(idle)
                first = await wheel.enqueue("hold")
                client.rpush(KEYS.wake, "1")
                await log.seen("start", first.job_id)
                await role(client, left, idle.worker.id, within=LATE_S + BUSY_S)
                gate.set()


async def test_a_claim_that_fills_its_worker_hides_nothing(
    wheel: Wheel, log: Log, fresh: RedisServer, gate: asyncio.Event
) -> None:
    async with one_place(wheel, log), one_place(wheel, log), one_place(wheel, log):
        with fresh.client() as client:
            await waiting(client, 3)
        late: list[float] = []
        # A busy machine may be slow now and then; a job that is hidden waits for the next look each time.
        while not late or (min(late) > 250 and len(late) < 4):
            now, soon = await wheel.enqueue_many([wheel.new_job("hold"), wheel.new_job("quick", delay=0.3)])
            await starts_in_time(log, now.job_id, now.fire_at_ms)
            start = await log.seen("start", soon.job_id)
            late.append(start["token"] / 1000 - soon.fire_at_ms)
            gate.set()
            await log.seen("done", now.job_id)
            gate.clear()
        assert min(late) < 250, "an idle worker keeps time for it"
        gate.set()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_the_timekeeper_process_is_killed_or_stopped_while_another_runs_a_job(
    wheel: Wheel, stage: Stage, url: str, fresh: RedisServer, number: signal.Signals
) -> None:
    room = ("--concurrency", "1", "--prefetch", "0")
    async with AsyncExitStack() as stack:
        made = [worker_process(url, stage.path, *room, lease="30s", wait=False) for _ in range(3)]
        processes = [await stack.enter_async_context(process) for process in made]
        for process in processes:
            await process.ready()
        with fresh.client() as client:
            await waiting(client, 3)
            job = await wheel.enqueue("pass", args=["pass"], delay=3, keep=60)
            await wheel.enqueue("play", args=["busy"])
            await stage.nth(1)
            keeper = await eventually(lambda: _keeper(client), bool)
        for process in processes:
            if any(f"worker {keeper}:" in line for line in process.lines):
                process.signal(number)
        ended = await wheel.wait(job.job_id, timeout=30)
        assert ended.attempt == 1
        late = stage.actors[-1].token / 1000 - job.fire_at_ms
        assert 0 <= late <= (LATE_S + BUSY_S) * 1000, f"{late:.0f} ms late"


async def _keeper(client: redis.Redis) -> str:
    return (client.hget(KEYS.meta, "keeper") or b"").decode()  # type: ignore[union-attr]


async def test_a_queue_whose_keys_are_refused_takes_no_room_from_another(
    wheel: Wheel, log: Log, fresh: RedisServer
) -> None:
    @wheel.task(name="left", queue="left")
    async def left() -> None:
        pass

    @wheel.task(name="right", queue="right")
    async def right() -> None:
        pass

    with fresh.client() as client:
        user = ("ACL", "SETUSER", "limited")
        client.execute_command(*user, "reset", "on", ">pw", "~*", "&*", "+@all")
        async with Wheel(f"unix://limited:pw@{fresh.socket}", namespace="zw") as its_own:
            its_own.tasks.update(wheel.tasks)
            queues = ("left", "right")
            async with running(its_own, log, queues=queues, concurrency=2, prefetch=0, lease_ms=2_000):
                await waiting(client, 2)
                await log.seen("done", (await wheel.enqueue("left", queue="left")).job_id)
                # The claim that comes at its time is refused, and sent again and again.
                refused = await wheel.enqueue("left", queue="left", delay=0.5)
                left_meta = ShardKeys.of("zw", "left").meta
                await eventually(lambda: _field(client, left_meta, "keeper_at"), lambda at: at == refused.fire_at_ms)
                client.execute_command(*user, "resetkeys", "~{zw:right:0}:*", "~zw:queues")
                await eventually(lambda: _refused_claims(client), lambda count: count >= 2)
                jobs = [await wheel.enqueue("right", queue="right") for _ in range(10)]
                for job in jobs:
                    await log.seen("done", job.job_id, within=LATE_S + BUSY_S)
                client.execute_command(*user, "allkeys")
                await log.seen("done", refused.job_id)
                assert await wheel.count("left", JobState.SCHEDULED) == 0
        client.execute_command("ACL", "DELUSER", "limited")


async def _field(client: redis.Redis, key: str, name: str) -> int:
    return int(client.hget(key, name) or 0)


async def _refused_claims(client: redis.Redis) -> int:
    """How many calls of scripts were refused."""
    stats: Any = client.info("commandstats")
    return int(stats["cmdstat_evalsha"]["rejected_calls"])
