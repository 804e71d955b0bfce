"""Redis dies, comes back, runs full, forgets its scripts and its clients: work goes on, and nothing starts twice."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeServer
from tests.servers import RedisServer
from tests.workers.harness import Log, eventually, one_kind, running
from tests.workers.processes import worker_process
from zwheel import Backoff, BrokerFull, BrokerUnavailable, JobState, Reason, Wheel

pytestmark = pytest.mark.anyio
LEASE_MS = 500


async def test_nothing_starts_twice_when_redis_dies_for_five_leases_under_running_workers(
    own_server: MakeServer, log: Log
) -> None:
    server = own_server(appendonly=True)
    gate, early = asyncio.Event(), asyncio.Event()
    async with Wheel(server.url, namespace="zw", give_up_s=10) as wheel:

        @wheel.task(keep=600)
        async def hold(kind: str) -> None:
            await (early if kind == "early" else gate).wait()

        settings: dict[str, Any] = {"lease_ms": LEASE_MS, "concurrency": 5}
        async with running(wheel, log, **settings), running(wheel, log, **settings), running(wheel, log, **settings):
            kinds = ["early"] * 5 + ["long"] * 10
            held = await wheel.enqueue_many(hold.job(kind) for kind in kinds)
            await log.seen("start", count=15)
            behind = await wheel.enqueue_many(hold.options(delay=n / 10).job("early") for n in range(10))
            server.kill()
            # Some jobs end while there is nobody to tell, and some become due while there is nobody to fire them.
            early.set()
            await asyncio.sleep(5 * LEASE_MS / 1000)
            server.start()
            for answer in [*held[:5], *behind]:
                assert (await wheel.wait(answer.job_id, timeout=15)).attempt == 1
            for answer in held[5:]:
                job = await wheel.get(answer.job_id)
                assert job is not None
                assert (job.state, job.attempt) == (JobState.PROCESSING, 1)
            gate.set()
            for answer in held:
                assert (await wheel.wait(answer.job_id, timeout=15)).state is JobState.DONE
    assert log.starts() == Counter({answer.job_id: 1 for answer in [*held, *behind]})
    assert log.of("lost") == []


async def test_what_was_acknowledged_survives_a_killed_redis(own_server: MakeServer) -> None:
    server = own_server(appendonly=True)
    async with Wheel(server.url, namespace="zw") as wheel:
        stored = await wheel.enqueue_many(wheel.new_job("t", args=[n], delay=3600) for n in range(300))
        single = await asyncio.gather(*(wheel.enqueue("t", delay=3600) for _ in range(100)))
        server.restart()
        assert await wheel.count("default", JobState.SCHEDULED) == 400
        assert all([await wheel.get(answer.job_id, "default") for answer in [*stored[::50], *single[::20]]])


async def test_a_worker_waits_for_a_redis_that_is_not_there_and_says_so(
    own_server: MakeServer, log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    server = own_server()
    server.kill()
    async with Wheel(server.url, namespace="zw", give_up_s=10) as wheel:

        @wheel.task(keep=60)
        async def work() -> None:
            pass

        with caplog.at_level(logging.WARNING, "zwheel.worker"):
            async with running(wheel, log, wait=False) as worker:

                async def said() -> list[str]:
                    return [record.message for record in caplog.records if "waiting for Redis" in record.message]

                await eventually(said, bool)
                assert not worker.worker.ready.is_set()
                server.start()
                await worker.ready()
                assert (await wheel.wait((await work.enqueue()).job_id, timeout=10)).state is JobState.DONE


async def test_a_worker_that_waits_for_redis_can_be_stopped(own_server: MakeServer, log: Log) -> None:
    server = own_server()
    server.kill()
    async with Wheel(server.url, namespace="zw") as wheel, running(wheel, log, wait=False) as worker:
        await worker.stop(within=2)


async def test_a_worker_whose_redis_is_gone_can_be_stopped(own_server: MakeServer, log: Log) -> None:
    server = own_server()
    async with Wheel(server.url, namespace="zw") as wheel, running(wheel, log) as worker:
        server.kill()
        await worker.stop(within=5)


async def test_no_error_reaches_anyone_when_the_scripts_are_flushed(wheel: Wheel, log: Log, fresh: RedisServer) -> None:
    @wheel.task(keep=60)
    async def work() -> None:
        pass

    async with running(wheel, log):
        with fresh.client() as client:
            for n in range(30):
                client.script_flush()
                answer = await work.enqueue()
                if n % 3 == 0:
                    client.script_flush()
                assert (await wheel.wait(answer.job_id, timeout=5)).attempt == 1
                client.script_flush()
                assert await wheel.cancel(answer.job_id) == "too_late"
    assert set(log.starts().values()) == {1}


async def test_killing_all_connections_again_and_again_loses_and_doubles_nothing(
    wheel: Wheel, log: Log, fresh: RedisServer
) -> None:
    @wheel.task(keep=600)
    async def work() -> None:
        await asyncio.sleep(0.002)

    async with running(wheel, log, concurrency=20, lease_ms=2000), running(wheel, log, concurrency=20, lease_ms=2000):
        stored: list[str] = []

        async def produce() -> None:
            for _ in range(25):
                stored.extend(a.job_id for a in await asyncio.gather(*(work.enqueue() for _ in range(20))))

        producing = asyncio.create_task(produce())
        with fresh.client() as client:
            for n in range(25):
                client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                await log.until(lambda n=n: producing.done() or len(log.of("done")) >= 20 * n)  # type: ignore[misc]
            await producing
            await log.until(lambda: len(log.of("done")) >= 500, 20)
            for job_id in stored[::25]:
                assert (await wheel.wait(job_id, "default", timeout=10)).attempt == 1
    assert log.starts() == Counter(dict.fromkeys(stored, 1))


async def test_a_full_redis_refuses_new_jobs_while_those_at_work_are_kept_and_settled(
    own_server: MakeServer, log: Log
) -> None:
    server = own_server(maxmemory="100mb")
    gate = asyncio.Event()
    async with Wheel(server.url, namespace="zw") as wheel:

        @wheel.task(keep=60)
        async def hold() -> None:
            await gate.wait()

        @wheel.task(retries=1, backoff=Backoff(first=0.01, factor=1, longest=0.01))
        async def fail() -> None:
            raise ValueError

        held = [await hold.enqueue() for _ in range(3)]
        later = await hold.options(delay=0.5).enqueue()
        failing = await fail.options(delay=0.5).enqueue()
        with server.client() as client:
            async with running(wheel, log):
                await log.seen("start", count=3)
                client.config_set("maxmemory", "1")
                with pytest.raises(BrokerFull):
                    await hold.enqueue()
                with pytest.raises(BrokerFull):
                    await wheel.enqueue_many(hold.job() for _ in range(10))
                # A worker may start now as well, and take part.
                async with running(wheel, log):
                    assert (await wheel.wait(failing.job_id, timeout=10)).reason == Reason.ERROR
                    job = await wheel.get(held[0].job_id)
                    assert job is not None and job.lease_until_ms is not None
                    until = job.lease_until_ms + 800
                    await eventually(
                        lambda: wheel.get(held[0].job_id),
                        lambda now: now is not None and (now.lease_until_ms or 0) > until,
                    )
                    gate.set()
                    for answer in [*held, later]:
                        assert (await wheel.wait(answer.job_id, timeout=10)).attempt == 1
                client.config_set("maxmemory", "0")
                assert not (await hold.enqueue()).existed
    assert log.of("lost") == []


async def test_a_redis_that_is_loading_is_waited_for(own_server: MakeServer, log: Log) -> None:
    server = own_server(appendonly=True)
    async with Wheel(server.url, namespace="zw", give_up_s=20) as wheel:

        @wheel.task(keep=60)
        async def work() -> None:
            pass

        await wheel.enqueue_many(wheel.new_job("other", delay=3600, queue="big") for _ in range(2000))
        with server.client() as client:
            client.config_set("key-load-delay", "0")
        async with running(wheel, log):
            first = await work.enqueue()
            assert (await wheel.wait(first.job_id, timeout=5)).attempt == 1
            server.restart()
            again = await work.enqueue()
            assert (await wheel.wait(again.job_id, timeout=10)).attempt == 1


async def test_a_producer_gets_a_typed_error_in_a_bounded_time(own_server: MakeServer) -> None:
    server = own_server()
    async with Wheel(server.url, namespace="zw", give_up_s=0.3, timeout_s=0.3) as wheel:
        await wheel.ping()
        server.kill()
        async with asyncio.timeout(2):
            with pytest.raises(BrokerUnavailable) as raised:
                await wheel.enqueue("t")
        assert str(server.socket) in str(raised.value)
        async with asyncio.timeout(2):
            outcomes = await asyncio.gather(*(wheel.enqueue("t") for _ in range(50)), return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {BrokerUnavailable}
        server.start()
        assert not (await wheel.enqueue("t")).existed


@one_kind
@pytest.mark.parametrize("drain", ["1s", "3s"])
async def test_a_worker_without_jobs_ends_within_its_drain_although_redis_is_frozen(
    own_server: MakeServer, drain: str, tmp_path: Path
) -> None:
    server = own_server()
    async with worker_process(server.url, tmp_path / "stage", drain=drain) as worker:
        server.freeze()
        try:
            # It claims or looks every 200 ms: the answer to one of these never comes.
            await asyncio.sleep(0.5)
            began = time.monotonic()
            worker.signal(signal.SIGTERM)
            assert await worker.ended(within=15) == 0
            assert time.monotonic() - began < int(drain[0]) + 5
        finally:
            server.thaw()
