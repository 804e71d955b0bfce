"""Waiting without polling: wake-ups, roles, backstops, and how little an idle worker asks of Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from tests.servers import RedisServer
from tests.workers.harness import Log, eventually, running
from zwheel import JobState, Wheel
from zwheel.calls.scripts import NAMES, reading, script
from zwheel.keys import ShardKeys
from zwheel.workers.poller import _VAIN

pytestmark = pytest.mark.anyio
KEYS = ShardKeys.of("zw", "default")
_SCRIPTS = {script(name).sha: name for name in NAMES} | {reading("look").sha: "look"}


@asynccontextmanager
async def monitored(server: RedisServer) -> AsyncIterator[list[str]]:
    """The commands that clients send while the block lasts, by name; those inside scripts are left out."""
    reader, writer = await asyncio.open_unix_connection(str(server.socket))
    writer.write(b"MONITOR\r\n")
    assert await reader.readline() == b"+OK\r\n"
    names: list[str] = []

    async def watch() -> None:
        async for line in reader:
            where, _, command = line.decode(errors="replace").partition("] ")
            if not where.endswith("lua"):
                words = command.split()
                names.append(
                    _SCRIPTS.get(words[1].strip('"'), "EVALSHA") if "EVALSHA" in words[0].upper() else words[0]
                )

    watching = asyncio.create_task(watch())
    try:
        yield names
    finally:
        watching.cancel()
        writer.close()
        await asyncio.gather(watching, return_exceptions=True)


async def waiting_workers(wheel: Wheel, server: RedisServer, count: int) -> None:
    """Wait until so many pollers block on the wake list."""
    with server.client() as client:

        async def blocked() -> int:
            return int(client.info("clients")["blocked_clients"])

        await eventually(blocked, lambda n: n == count)


async def test_a_job_wakes_a_waiting_worker_at_once(wheel: Wheel, log: Log, fresh: RedisServer) -> None:
    @wheel.task
    async def work() -> None:
        pass

    async with running(wheel, log):
        taken = []
        for n in range(1, 21):
            await waiting_workers(wheel, fresh, 1)
            began = time.monotonic()
            await work.enqueue()
            await log.seen("start", count=n)
            taken.append(time.monotonic() - began)
    # The backstop alone would take up to a second, half a second on average.
    assert sorted(taken)[10] < 0.1, taken


async def test_a_job_that_is_due_before_the_one_waited_for_runs_first(
    wheel: Wheel, log: Log, fresh: RedisServer
) -> None:
    @wheel.task
    async def work() -> None:
        pass

    async with running(wheel, log):
        await work.options(delay=3600).enqueue()
        await waiting_workers(wheel, fresh, 1)
        soon = await work.options(delay=timedelta(milliseconds=120)).enqueue()
        await log.seen("start", soon.job_id, within=1)
    assert log.starts() == {soon.job_id: 1}


async def test_one_enqueue_wakes_one_of_many_idle_workers(wheel: Wheel, log: Log, fresh: RedisServer) -> None:
    @wheel.task
    async def work() -> None:
        pass

    many = 20
    async with AsyncExitStack() as stack:
        # A long lease and a rare reaper: nothing but the wake-ups asks Redis anything meanwhile.
        for _ in range(many):
            await stack.enter_async_context(running(wheel, log, lease_ms=60_000, reap_ms=60_000))
        await waiting_workers(wheel, fresh, many)
        async with monitored(fresh) as asked:
            for n in range(1, 11):
                await work.enqueue()
                await log.seen("done", count=n)
            await eventually(lambda: wheel.count("default", JobState.PROCESSING), lambda left: left == 0)
        # Each job: one claim that gets it and one claim that finds no more. The timekeeper and the second look once a second.
        assert asked.count("claim") <= 10 * 2 + 10, f"{asked.count('claim')} claims for 10 jobs: each woke many workers"
        assert asked.count("enqueue") >= 10


async def test_tokens_that_bring_work_are_never_slowed_down(wheel: Wheel, log: Log, fresh: RedisServer) -> None:
    @wheel.task
    async def work() -> None:
        pass

    async with running(wheel, log) as handle:
        (poller,) = handle.worker.pollers
        for n in range(1, 61):
            await waiting_workers(wheel, fresh, 1)
            await work.enqueue()
            await log.seen("done", count=n)
            assert poller._tokens < _VAIN
        with fresh.client() as client:
            client.rpush(KEYS.wake, *["1"] * 50)

        async def in_vain() -> int:
            return poller._tokens

        await eventually(in_vain, lambda count: count > _VAIN)


async def test_an_idle_worker_asks_little(wheel: Wheel, log: Log, fresh: RedisServer) -> None:
    async with running(wheel, log, lease_ms=30_000, reap_ms=5_000):
        await waiting_workers(wheel, fresh, 1)
        async with monitored(fresh) as asked:
            began = time.monotonic()
            # Four looks of the backstop.
            await eventually(_always(asked), lambda names: names.count("look") >= 4, within=10)
            passed = time.monotonic() - began
            assert len(asked) <= 3 * passed, f"{asked} in {passed:.1f} s"
            assert "claim" not in asked, "a look at an unchanged wheel is no claim"


def _always(names: list[str]) -> Callable[[], Awaitable[list[str]]]:
    async def look() -> list[str]:
        return names

    return look


async def test_a_lost_wake_up_costs_no_more_than_the_backstop(wheel: Wheel, log: Log, fresh: RedisServer) -> None:
    @wheel.task
    async def work() -> None:
        pass

    async with running(wheel, log):
        await waiting_workers(wheel, fresh, 1)
        with fresh.client() as client:
            # As if the timekeeper slept for something earlier: the enqueue leaves no token.
            ends = int(time.time() * 1000) + 15_000
            client.hset(KEYS.meta, mapping={"keeper_at": "0", "keeper_end": str(ends)})
            answer = await work.enqueue()
            assert client.llen(KEYS.wake) == 0
        await log.seen("done", answer.job_id, within=1.5)


async def test_a_job_fires_although_the_timekeeper_died(wheel: Wheel, log: Log, fresh: RedisServer) -> None:
    @wheel.task
    async def work() -> None:
        pass

    async with running(wheel, log) as first:
        await waiting_workers(wheel, fresh, 1)
        answer = await work.options(delay=0.6).enqueue()
        with fresh.client() as client:

            async def keeper() -> object:
                return client.hget(KEYS.meta, "keeper")

            await eventually(keeper, lambda name: name == first.worker.id.encode())
        async with running(wheel, log) as second:
            await waiting_workers(wheel, fresh, 2)
            await first.vanish()
            with fresh.client() as client:
                assert client.hget(KEYS.meta, "keeper") == first.worker.id.encode()
            await log.seen("start", answer.job_id, within=0.6 + 3 + 1)
            assert not second.task.done()


async def test_a_worker_that_stops_in_order_hands_its_role_on_at_once(
    wheel: Wheel, log: Log, fresh: RedisServer
) -> None:
    async with running(wheel, log) as first:
        await waiting_workers(wheel, fresh, 1)
        await first.stop()
        with fresh.client() as client:
            assert client.hget(KEYS.meta, "keeper") is None


async def test_a_paused_queue_starts_nothing_until_it_is_resumed(wheel: Wheel, log: Log, fresh: RedisServer) -> None:
    @wheel.task
    async def work() -> None:
        pass

    async with running(wheel, log, queues=("default", "other")):
        await waiting_workers(wheel, fresh, 2)
        await wheel.pause("default")
        assert (await wheel.queue("default")).paused
        held = [(await work.enqueue()).job_id for _ in range(5)]
        marker = await work.options(queue="other").enqueue()
        await log.seen("done", marker.job_id)
        assert await wheel.count("default", JobState.SCHEDULED) == 5
        began = time.monotonic()
        await wheel.resume("default")
        await log.until(lambda: set(held) <= set(log.starts()), 4)
        assert time.monotonic() - began < 3.5
    assert set(log.starts().values()) == {1}


async def test_a_worker_without_room_leaves_the_next_job_to_another(wheel: Wheel, fresh: RedisServer) -> None:
    gate = asyncio.Event()

    @wheel.task
    async def hold() -> None:
        await gate.wait()

    full, free = Log(), Log()
    async with running(wheel, full, concurrency=1), running(wheel, free, concurrency=1):
        await waiting_workers(wheel, fresh, 2)
        for n in range(1, 3):
            await hold.enqueue()
            await eventually(lambda: wheel.count("default", JobState.PROCESSING), lambda now, n=n: now == n, within=3)  # type: ignore[misc]
        # A job is claimed before its worker is told so.
        for one in (full, free):
            await one.seen("start")
        assert len(full.of("start")) == len(free.of("start")) == 1
        gate.set()


async def test_a_token_for_a_queue_whose_worker_is_full_does_not_go_round_and_round(
    wheel: Wheel, log: Log, fresh: RedisServer
) -> None:
    gate = asyncio.Event()

    @wheel.task
    async def hold() -> None:
        await gate.wait()

    async with running(wheel, log, queues=("left", "right"), concurrency=1, lease_ms=60_000, reap_ms=60_000):
        await waiting_workers(wheel, fresh, 2)
        await hold.options(queue="left").enqueue()
        await log.seen("start")
        waiting = await hold.options(queue="right").enqueue()
        right = ShardKeys.of("zw", "right")
        with fresh.client() as client:

            async def tokens() -> int:
                return int(client.llen(right.wake))

            await eventually(tokens, lambda n: n == 1, within=3)
        async with monitored(fresh) as asked:
            # Twenty round trips of our own: time enough for a token that circles to circle.
            for _ in range(20):
                await wheel.ping()
            assert asked.count('"BLPOP"') + asked.count('"RPUSH"') <= 2, asked
        gate.set()
        await log.seen("done", waiting.job_id)


async def test_jobs_across_midnight_run_each_at_their_time_and_leave_no_day_behind(
    wheel: Wheel, log: Log, fresh: RedisServer
) -> None:
    order: list[str] = []

    @wheel.task
    async def note(name: str) -> None:
        order.append(name)

    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    for name, shift in (
        ("first", timedelta(milliseconds=-1)),
        ("second", timedelta()),
        ("third", timedelta(milliseconds=1)),
    ):
        await note.options(at=midnight + shift).enqueue(name)
    assert [day.jobs for day in await wheel.days("default")] == [1, 2]
    async with running(wheel, log, concurrency=1):
        await log.seen("done", count=3)
    assert order == ["first", "second", "third"]
    assert await wheel.days("default") == []
