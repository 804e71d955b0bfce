"""Redis loses the end of its file, all of it, its time or its room: S-03 to S-05, S-14 to S-17."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections import Counter
from functools import partial
from operator import le
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.conftest import MakeServer
from tests.faults.witness import found
from tests.servers import RedisServer
from tests.skew.hand import Hand
from tests.workers.harness import Log, eventually, one_kind, running
from zwheel import BrokerError, JobState, Wheel

pytestmark = pytest.mark.anyio
LEASE_MS = 600


def tail_of(server: RedisServer) -> Path:
    """The file that the server appends to."""
    (path,) = (server.directory / "appendonlydir").glob("*.incr.aof")
    return path


def cut(server: RedisServer, size: int) -> None:
    """Lose what lies beyond `size` bytes of the file while the server is down."""
    with tail_of(server).open("r+b") as file:
        file.truncate(size)


@pytest.mark.parametrize("lost", [1, 7, 150, 1000])
def test_a_torn_tail_loses_whole_scripts_only(own_server: MakeServer, lost: int) -> None:
    """Each call enqueues three jobs, then one claim and one completion: cut anywhere, calls are there or are not."""
    server = own_server(appendonly=True, arguments=("--auto-aof-rewrite-percentage", "0"))
    hand = Hand(server.url, "worker-1")
    for number in range(40):
        hand.enqueue(*(f"{number}-{part}" for part in range(3)), dedup=f"{number:032x}" if number % 4 == 0 else "")
        if number % 5 == 4:
            assert set(hand.complete(hand.claim(4))) == {"d"}
    hand.store.close()
    server.kill()
    cut(server, tail_of(server).stat().st_size - lost)
    server.start()
    with server.client() as client:
        keys = hand.keys
        records = client.hkeys(keys.jobs)
        members = [
            member
            for day in client.zrange(keys.days, 0, -1)
            for member in client.zrange(keys.wheel(day.decode()), 0, -1)
        ]
        processing, done = client.zrange(keys.processing, 0, -1), client.zrange(keys.done, 0, -1)
        assert sorted(records) == sorted([*members, *processing, *done])
        days = client.zrange(keys.days, 0, -1)
        assert {keys.wheel(day.decode()).encode() for day in days} == set(client.scan_iter(match="*wheel:*"))
        # Of a batch all three are there, or as many as were claimed since are not; never a part that was just stored.
        batches = Counter(member.split(b"-")[0] for member in [*members, *processing])
        newest = max(int(number) for number in batches)
        assert batches[str(newest).encode()] in (1, 3) if newest % 4 == 0 else batches[str(newest).encode()] == 3
        assert newest >= 39 - lost // 150
    after = Hand(server.url, "worker-2")
    left = len(members)
    taken = after.claim(200)
    assert len(taken) == left
    assert set(after.complete(taken)) == {"d"}
    after.store.close()


def test_a_token_of_a_lost_claim_is_never_given_again(own_server: MakeServer) -> None:
    server = own_server(appendonly=True, arguments=("--auto-aof-rewrite-percentage", "0"))
    first = Hand(server.url, "worker-1")
    first.enqueue("a", "b", "c")
    size = tail_of(server).stat().st_size
    held = first.claim()
    assert len(held) == 3
    server.kill()
    cut(server, size)
    server.start()
    second = Hand(server.url, "worker-2")
    again = second.claim()
    assert set(again) == set(held)
    assert all(int(again[job]) > int(held[job]) for job in held)
    # The first worker's claims were lost with the file: it is refused, and the second one's end counts.
    assert first.complete(held) == "fff"
    assert second.complete(again) == "ddd"
    first.store.close()
    second.store.close()


@one_kind
async def test_a_redis_without_persistence_comes_back_empty_and_workers_go_on(own_server: MakeServer, log: Log) -> None:
    server = own_server()
    async with Wheel(server.url, namespace="zw", give_up_s=15) as wheel:

        @wheel.task(keep=60)
        async def work() -> None:
            pass

        async with running(wheel, log) as worker:
            await wheel.wait((await work.enqueue()).job_id, timeout=15)
            lost = await wheel.enqueue_many(work.options(delay=600).job() for _ in range(20))
            server.restart()
            # The worker may not know yet that its queue is gone, and wait until it is founded anew.
            answer = await eventually(work.enqueue, lambda made: made is not None)
            assert (await wheel.wait(answer.job_id, "default", timeout=15)).attempt == 1
            assert [await wheel.get(job.job_id, "default") for job in lost] == [None] * 20
            assert not worker.task.done()


@one_kind
async def test_a_loading_redis_is_waited_for_and_costs_no_attempt(own_server: MakeServer, log: Log) -> None:
    # Loading is made slow: each key of the snapshot takes 30 ms, and the server answers in between.
    slow = ("--key-load-delay", "30000", "--loading-process-events-interval-bytes", "1024")
    server = own_server(appendonly=True, arguments=slow)
    gate = asyncio.Event()
    async with Wheel(server.url, namespace="zw", give_up_s=20) as wheel:

        @wheel.task(keep=60)
        async def hold() -> None:
            await gate.wait()

        async with running(wheel, log, lease_ms=LEASE_MS):
            held = [await hold.enqueue() for _ in range(3)]
            await log.seen("start", count=3)
            with server.client() as client:
                client.mset({f"filler-{n}": os.urandom(1024) for n in range(60)})
                client.execute_command("BGREWRITEAOF")

                await eventually(lambda: rewriting(client), lambda busy: not busy)
            server.kill()
            starting = asyncio.create_task(asyncio.to_thread(server.start))
            met = asyncio.create_task(asyncio.to_thread(meets_loading, server))
            enqueued = await hold.enqueue()
            await starting
            assert await met, "the server was never seen to load"
            gate.set()
            jobs = [await wheel.wait(answer.job_id, timeout=20) for answer in [*held, enqueued]]
    assert [(job.state, job.attempt) for job in jobs] == [(JobState.DONE, 1)] * 4
    assert set(log.starts().values()) == {1}
    assert log.of("lost") == []


async def rewriting(client: redis.Redis) -> int:
    """Whether the server rewrites its file, or is about to."""
    about = client.info("persistence")
    return int(about["aof_rewrite_in_progress"]) + int(about["aof_rewrite_scheduled"])


def meets_loading(server: RedisServer) -> bool:
    """Ask until the server answers; whether it said once that it is loading."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(5)
                connection.connect(str(server.socket))
                connection.sendall(b"GET x\r\n")
                answer = connection.recv(64)
        except OSError:
            continue
        if answer.startswith(b"-LOADING"):
            return True
        if answer:
            return False
    return False


async def _held_through(wheel: Wheel, log: Log, fault: Any, *, lease_ms: int) -> None:
    """Three jobs run on two workers while a fault happens; afterwards each has run once and none was lost."""
    gate = asyncio.Event()

    @wheel.task(keep=60)
    async def hold() -> None:
        await gate.wait()

    async with running(wheel, log, lease_ms=lease_ms), running(wheel, log, lease_ms=lease_ms):
        held = [await hold.enqueue() for _ in range(6)]
        await log.seen("start", count=6)
        await asyncio.to_thread(fault)
        late = await hold.enqueue()
        gate.set()
        jobs = [await wheel.wait(answer.job_id, timeout=20) for answer in [*held, late]]
    assert [(job.state, job.attempt) for job in jobs] == [(JobState.DONE, 1)] * 7
    assert set(log.starts().values()) == {1}
    assert log.of("lost") == []
    assert log.of("reaped") == []


@one_kind
async def test_a_foreign_script_that_blocks_redis_doubles_nothing(own_server: MakeServer, log: Log) -> None:
    server = own_server(arguments=("--busy-reply-threshold", "100"))

    def block() -> None:
        # Three leases long. It writes nothing, so that the server could be freed with SCRIPT KILL, and is not.
        with server.client() as client:
            client.eval(
                "local t = redis.call('TIME') local e = t[1] * 1000 + t[2] / 1000 + tonumber(ARGV[1])"
                " repeat t = redis.call('TIME') until t[1] * 1000 + t[2] / 1000 > e",
                0, 3 * LEASE_MS,
            )  # fmt: skip

    async with Wheel(server.url, namespace="zw", give_up_s=15) as wheel:
        await _held_through(wheel, log, block, lease_ms=LEASE_MS)


@one_kind
async def test_a_stall_shorter_than_a_lease_costs_nothing(own_server: MakeServer, log: Log) -> None:
    server = own_server()

    def stall() -> None:
        with server.client() as client:
            client.execute_command("DEBUG", "SLEEP", "1.5")

    async with Wheel(server.url, namespace="zw", give_up_s=15) as wheel:
        await _held_through(wheel, log, stall, lease_ms=3000)


@one_kind
async def test_a_rewrite_of_the_append_only_file_under_load_loses_and_doubles_nothing(
    own_server: MakeServer, log: Log
) -> None:
    server = own_server(appendonly=True)
    async with Wheel(server.url, namespace="zw", give_up_s=15) as wheel:

        @wheel.task(keep=60)
        async def work() -> None:
            pass

        async with running(wheel, log, lease_ms=3000, concurrency=50):
            stored = []
            with server.client() as client:
                for _ in range(5):
                    stored += await wheel.enqueue_many(work.job() for _ in range(100))
                    client.execute_command("BGREWRITEAOF")
                    await eventually(lambda: wheel.count("default", JobState.DONE), partial(le, len(stored)), 20)
                    await eventually(lambda: rewriting(client), lambda busy: not busy)
            server.restart()
            for answer in stored[::25]:
                assert (await wheel.wait(answer.job_id, "default", timeout=20)).attempt == 1
    assert log.starts() == Counter(dict.fromkeys((answer.job_id for answer in stored), 1))


@one_kind
async def test_a_redis_without_room_for_clients_keeps_those_it_has(own_server: MakeServer, log: Log) -> None:
    server = own_server()
    gate = asyncio.Event()
    with server.client() as client:
        async with Wheel(server.url, namespace="zw", give_up_s=15) as wheel:

            @wheel.task(keep=60)
            async def hold() -> None:
                await gate.wait()

            async with running(wheel, log, lease_ms=LEASE_MS):
                answer = await hold.enqueue()
                await log.seen("start", answer.job_id)
                job = await found(wheel, answer.job_id)
                assert job.lease_until_ms is not None
                until = job.lease_until_ms + 2 * LEASE_MS
                client.config_set("maxclients", client.info("clients")["connected_clients"])
                async with Wheel(server.url, namespace="zw", give_up_s=0.3) as stranger:
                    with pytest.raises(BrokerError):
                        await stranger.ping()
                    await eventually(
                        lambda: found(wheel, answer.job_id),
                        lambda now: (now.lease_until_ms or 0) > until,
                    )
                    assert not (await hold.enqueue()).existed
                    client.config_set("maxclients", 10_000)
                    assert await stranger.ping() >= 0
                gate.set()
                assert (await wheel.wait(answer.job_id, timeout=15)).attempt == 1
    assert log.of("lost") == []
