"""Clocks that are wrong, and a server's clock that jumps ahead and back under running workers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.jumps import Door
from tests.servers import RedisServer
from tests.workers.harness import Log, define_hold, eventually, one_kind, running
from zwheel import JobState, Retry, Wheel, current_job
from zwheel.broker.store import Store, SyncStore
from zwheel.calls import Session
from zwheel.history import History
from zwheel.verify import Bounds, check, read, take_snapshot

pytestmark = [pytest.mark.anyio, one_kind]

HOUR_S = 3600.0
YEARS_S = 10 * 365 * 86_400.0
LEASE_MS, REAP_MS = 900, 200
SETTINGS: dict[str, Any] = {"lease_ms": LEASE_MS, "reap_ms": REAP_MS, "concurrency": 4}
#: What a busy machine may take on top of a promised time, seconds.
BUSY_S = 6.0


@pytest.fixture
def url(door: Door) -> str:
    """The URL of the server behind the door."""
    return door.url


def store_of(wheel: Wheel) -> Store:
    return wheel._connect().store


async def held_for(log: Log, seconds: float) -> None:
    """Let leases end, if they do, while nobody looks at a job."""
    until = time.monotonic() + seconds
    await log.until(lambda: time.monotonic() > until or log.of("reaped"), within=seconds + 5)


async def tick(log: Log) -> None:
    """Events that make a log look again."""
    while True:
        await asyncio.sleep(0.05)
        log("tick", {})


@pytest.fixture
async def ticking(log: Log, anyio_backend: str) -> AsyncIterator[Log]:
    task = asyncio.create_task(tick(log))
    yield log
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("off_s", [HOUR_S, -HOUR_S, YEARS_S / 10, -YEARS_S / 10])
async def test_a_producers_wrong_clock_makes_no_delay_early_or_late(wheel: Wheel, log: Log, off_s: float) -> None:
    @wheel.task(keep=60)
    async def work() -> None:
        pass

    async with running(wheel, log, **SETTINGS):
        clock = store_of(wheel).session.clock
        clock._offset_us += int(off_s * 1_000_000)
        clock._known = None
        began = time.monotonic()
        answer = await work.options(delay=0.5).enqueue()
        await wheel.wait(answer.job_id, timeout=10)
        assert 0.45 <= time.monotonic() - began <= 0.5 + BUSY_S


async def test_a_jump_of_the_workers_own_clock_changes_no_timeout(
    wheel: Wheel, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, real_ns = time.time, time.time_ns

    @wheel.task(keep=60, timeout=5)
    async def work() -> str:
        monkeypatch.setattr(time, "time", lambda: real() + HOUR_S)
        monkeypatch.setattr(time, "time_ns", lambda: real_ns() + int(HOUR_S * 1e9))
        await asyncio.sleep(2 * LEASE_MS / 1000)
        return "whole"

    async with running(wheel, log, **SETTINGS):
        job = await wheel.wait((await work.enqueue()).job_id, timeout=10)
    assert (job.state, job.attempt) == (JobState.DONE, 1)


async def test_a_history_with_a_step_back_is_judged_by_what_happened(
    url: str, door: Door, ticking: Log, tmp_path: Path
) -> None:
    async with Wheel(url, namespace="zw", history=tmp_path) as wheel:

        @wheel.task(name="work", retries=3)
        async def work(good_from: int) -> None:
            if current_job().attempt < good_from:
                raise Retry("again", delay=0.1)

        async with running(wheel, ticking, **SETTINGS):
            for step, ahead_s in enumerate((0.0, -3.0, 0.0, -6.0)):
                door.ahead_s = ahead_s
                for n in range(12):
                    await work.options(delay=0.2 * (n % 2)).enqueue(1 + n % 3)
                await ticking.seen("done", count=12 * (step + 1), within=10 + BUSY_S)
        store = SyncStore(url, Session("zw", "snapshot"))
        History.of(tmp_path).write(list(take_snapshot(store)))
        store.close()
    runs = read([tmp_path])
    assert 8.9 <= runs.back_us / 1e6 <= 9.1 + BUSY_S
    report = check(runs, Bounds(reap_ms=REAP_MS, slack_ms=int(BUSY_S * 1000), drained=True))
    assert [(verdict.number, verdict.breaches) for verdict in report.broken] == []
    assert report.summary["starts"] == 4 * (4 + 8 + 12)


async def test_a_step_back_makes_nothing_early_and_tokens_still_rise(
    wheel: Wheel, door: Door, ticking: Log, caplog: pytest.LogCaptureFixture
) -> None:
    tokens: list[int] = []

    @wheel.task(keep=60)
    async def work() -> None:
        tokens.append(current_job().token)

    with caplog.at_level(logging.WARNING, "zwheel.worker"):
        async with running(wheel, ticking, **SETTINGS):
            await wheel.wait((await work.enqueue()).job_id, timeout=10)
            answer = await work.options(delay=1.5).enqueue()
            began = time.monotonic()
            door.ahead_s = -2.0
            await ticking.seen("start", answer.job_id, within=3.5 + BUSY_S)
            assert time.monotonic() - began >= 3.4, "it started before its time by the clock as it is"
            await ticking.seen("jumped")
            await wheel.wait(answer.job_id, timeout=10)
    assert tokens == sorted(tokens)
    assert len(set(tokens)) == 2
    assert any("jumped back by 2.0 s" in record.message for record in caplog.records)


@pytest.mark.parametrize("back", [False, True], ids=["that lasts", "and back again"])
async def test_no_worker_that_lives_loses_a_job_by_a_jump_ahead_of_an_hour(
    wheel: Wheel, door: Door, ticking: Log, caplog: pytest.LogCaptureFixture, back: bool
) -> None:
    gate = asyncio.Event()

    @wheel.task(keep=600)
    async def hold() -> None:
        await gate.wait()

    with caplog.at_level(logging.WARNING, "zwheel.worker"):
        async with running(wheel, ticking, **SETTINGS), running(wheel, ticking, **SETTINGS):
            held = [await hold.enqueue() for _ in range(4)]
            await ticking.seen("start", count=4)
            door.ahead_s = HOUR_S
            await ticking.seen("jumped", count=2)
            if back:
                door.ahead_s = 0.0
            async with running(wheel, ticking, **SETTINGS):
                await held_for(ticking, 4 * LEASE_MS / 1000)
            gate.set()
            for answer in held:
                assert (await wheel.wait(answer.job_id, timeout=10)).attempt == 1
    assert ticking.of("lost") == []
    assert set(ticking.starts().values()) == {1}
    assert any("jumped ahead by 3600.0 s" in record.message for record in caplog.records)


@pytest.mark.parametrize(
    "jumps",
    [(-HOUR_S,), (-HOUR_S, -2 * HOUR_S, -HOUR_S), (HOUR_S, -HOUR_S), (-YEARS_S, HOUR_S, -30.0)],
    ids=["back", "back twice", "ahead and back", "years back, ahead and back"],
)
async def test_a_lease_that_was_renewed_in_another_time_is_not_taken_when_the_clock_is_right_again(
    wheel: Wheel, door: Door, ticking: Log, fresh: RedisServer, tmp_path: Path, jumps: tuple[float, ...]
) -> None:
    """One worker meets the server only while its clock is wrong, the other only while it is right: so it sees no jump."""
    gate, order = asyncio.Event(), list[str]()
    with Door(fresh.socket, tmp_path / "d.sock") as right, fresh.client() as client:

        async def renewed(ahead_s: float) -> None:
            """Wait until the job's lease was renewed by a clock that is as far ahead."""

            async def ends_in_s() -> float:
                (_, end), *_ = client.zrange("{zw:default:0}:processing", 0, 0, withscores=True)
                return float(end) / 1000 - time.time()

            await eventually(ends_in_s, lambda ends_in_s: abs(ends_in_s - ahead_s) <= 5)

        async with Wheel(right.url, namespace="zw") as other:
            define_hold(wheel, "the first", gate, order)
            define_hold(other, "the second", gate, order)
            async with running(wheel, ticking, **SETTINGS) as holder:
                held = await wheel.enqueue("hold")
                await ticking.seen("start", held.job_id)
                async with running(other, ticking, **SETTINGS):
                    await held_for(ticking, 2 * LEASE_MS / 1000)
                    for ahead_s in jumps:
                        door.ahead_s = ahead_s
                        await renewed(ahead_s)
                        await held_for(ticking, 3 * LEASE_MS / 1000)
                    door.ahead_s = 0.0
                    await held_for(ticking, 2 * LEASE_MS / 1000)
                    assert (order, ticking.of("reaped")) == (["the first starts"], [])
                    await holder.vanish()
                    await ticking.until(lambda: "the second starts" in order, 4 * LEASE_MS / 1000 + BUSY_S)
                    gate.set()


async def test_after_ten_years_ahead_and_back_all_is_as_if_they_had_not_been(
    wheel: Wheel, door: Door, ticking: Log, fresh: RedisServer
) -> None:
    gate = asyncio.Event()

    @wheel.task(keep=600, retries=5)
    async def hold() -> None:
        await gate.wait()

    @wheel.task(keep=600)
    async def work() -> None:
        pass

    async with running(wheel, ticking, **SETTINGS) as dying, running(wheel, ticking, **SETTINGS):
        answer = await hold.enqueue()
        await ticking.seen("start", answer.job_id)
        later = await work.options(delay=600).enqueue()
        door.ahead_s = YEARS_S
        await ticking.seen("jumped", count=2)
        door.ahead_s = 0.0
        began = time.monotonic()
        soon = await work.options(delay=0.5).enqueue()
        await wheel.wait(soon.job_id, timeout=10)
        assert 0.45 <= time.monotonic() - began <= 0.5 + BUSY_S
        # Whichever worker holds it, its lease ends within one lease from now: when the worker dies the job comes back.
        holder = ticking.of("start", answer.job_id)[-1]
        assert holder
        await dying.vanish()
        gate.set()
        done = await wheel.wait(answer.job_id, timeout=4 * LEASE_MS / 1000 + BUSY_S)
        assert done.state is JobState.DONE
        assert done.attempt <= 2
        assert (await wheel.get(later.job_id)) is not None, "it waits, or it started in the jump: it is not lost"
    with fresh.client() as client:
        jumps = client.hget("{zw:default:0}:meta", "jumps")
        assert jumps is not None
        assert int(jumps) >= 2


async def test_a_server_that_took_over_with_a_clock_behind_gives_no_token_twice(
    wheel: Wheel, door: Door, ticking: Log, fresh: RedisServer
) -> None:
    tokens: list[int] = []
    gate = asyncio.Event()

    @wheel.task(keep=60, retries=3)
    async def work() -> None:
        tokens.append(current_job().token)
        if len(tokens) == 1:
            await gate.wait()

    async with running(wheel, ticking, **SETTINGS):
        held = await work.enqueue()
        await ticking.seen("start", held.job_id)
        with fresh.client() as client:
            client.hset("{zw:default:0}:meta", "server", "the primary before")
        door.ahead_s = -5.0
        await ticking.seen("jumped")
        await held_for(ticking, 2 * LEASE_MS / 1000)
        gate.set()
        assert (await wheel.wait(held.job_id, timeout=10)).attempt == 1
        await wheel.wait((await work.enqueue()).job_id, timeout=10)
    assert tokens == sorted(set(tokens))


async def test_a_worker_that_was_told_says_a_jump_that_it_did_not_see(
    wheel: Wheel, ticking: Log, fresh: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    @wheel.task(keep=60)
    async def work() -> None:
        pass

    with caplog.at_level(logging.WARNING, "zwheel.worker"):
        async with running(wheel, ticking, **SETTINGS):
            await wheel.wait((await work.enqueue()).job_id, timeout=10)
            with fresh.client() as client:
                client.hset("{zw:default:0}:meta", mapping={"jumps": "1", "jump": "1 1 1"})

            async def said() -> bool:
                await wheel.wait((await work.enqueue()).job_id, timeout=10)
                return any("saw the server's clock jump" in record.message for record in caplog.records)

            await eventually(said, bool)


async def test_the_jump_of_one_server_is_no_matter_to_the_queues_of_another(
    wheel: Wheel, door: Door, ticking: Log, own_server: Any
) -> None:
    other = own_server()
    async with Wheel(other.url, namespace="zw") as healthy:

        @healthy.task(keep=60)
        async def work() -> None:
            pass

        await wheel.enqueue("any", delay=60)
        door.ahead_s = YEARS_S
        await wheel.enqueue("any", delay=60)
        with fresh_meta(other) as client:
            client.hset("{zw:poisoned:0}:meta", "clock", "4000000000000000")
        await healthy.enqueue("any", queue="poisoned", delay=60)
        async with running(healthy, ticking, **SETTINGS):
            began = time.monotonic()
            await healthy.wait((await work.options(delay=0.3).enqueue()).job_id, timeout=10)
            assert 0.25 <= time.monotonic() - began <= 0.3 + BUSY_S
    assert abs(store_of(wheel).session.clock.now_us() - door.now_us()) < 1_000_000


def fresh_meta(server: RedisServer) -> Any:
    return server.client()
