"""What a worker does on a Redis that is not fit for jobs: it refuses or waits, says why, and never falls over."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
import redis

from tests.conftest import MakeServer
from tests.servers import RedisServer, free_port
from tests.workers.harness import Log, eventually, running
from zwheel import Wheel
from zwheel.errors import BrokerFull, BrokerRefused, SchemaMismatch
from zwheel.job import JobState
from zwheel.keys import ShardKeys

pytestmark = pytest.mark.anyio

KEYS = ShardKeys.of("zw", "default")
#: A primary sends its data to a replica at once, not after the usual 5 s.
AT_ONCE = ("--repl-diskless-sync-delay", "0")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A halted queue is looked at every few ms, so that no test waits for the usual seconds."""
    from zwheel.workers import poller

    monkeypatch.setattr(poller, "HALTED_BACKSTOP_S", (0.02, 0.03))


def make_wheel(url: str) -> Wheel:
    made = Wheel(url, namespace="zw", give_up_s=0.5)

    @made.task(name="work", retries=2, keep=60)
    async def work() -> None:
        pass

    return made


@pytest.fixture
async def wheel(url: str, anyio_backend: str) -> AsyncIterator[Wheel]:
    """A wheel with one task, on an empty server."""
    async with make_wheel(url) as made:
        yield made


@pytest.fixture
def client(fresh: RedisServer) -> object:
    """A plain client; the server's settings are as before afterwards."""
    made = fresh.client()
    yield made
    made.config_set("maxmemory-policy", "noeviction")
    made.config_set("maxmemory", 0)
    made.close()


async def runs(wheel: Wheel) -> bool:
    """Whether a job that is enqueued now ends."""
    answer = await wheel.enqueue("work", keep=60)
    return (await wheel.wait(answer.job_id, "default", timeout=5)).state is JobState.DONE


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-lru"])
async def test_a_worker_refuses_a_redis_that_may_delete_queue_keys(
    wheel: Wheel, client: redis.Redis, policy: str
) -> None:
    client.config_set("maxmemory-policy", policy)
    with pytest.raises(BrokerRefused) as refused:
        async with running(wheel):
            pass
    text = str(refused.value)
    assert policy in text
    assert "CONFIG SET maxmemory-policy noeviction" in text
    assert "--accept-data-loss" in text
    assert "\n" not in text


async def test_a_worker_refuses_it_also_where_config_is_not_allowed(
    wheel: Wheel, client: redis.Redis, fresh: RedisServer
) -> None:
    client.config_set("maxmemory-policy", "allkeys-lru")
    client.execute_command("ACL", "SETUSER", "limited", "reset", "on", ">pw", "~*", "&*", "+@all", "-config")
    try:
        async with make_wheel(f"unix://limited:pw@{fresh.socket}") as limited:
            with pytest.raises(BrokerRefused, match="allkeys-lru"):
                async with running(limited):
                    pass
            client.execute_command("ACL", "SETUSER", "limited", "-info")
            with pytest.raises(BrokerRefused, match="(?i)info"):
                async with running(limited):
                    pass
    finally:
        client.execute_command("ACL", "DELUSER", "limited")


async def test_a_worker_that_was_told_to_accept_data_loss_works(
    wheel: Wheel, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    client.config_set("maxmemory-policy", "allkeys-lru")
    async with running(wheel, accept_data_loss=True):
        assert await runs(wheel)
    assert any("as was accepted" in record.message for record in caplog.records)


async def test_a_policy_that_turns_bad_under_a_worker_is_said_as_an_error_and_the_work_goes_on(
    wheel: Wheel, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    log = Log()
    async with running(wheel, log, watch_ms=50):
        await log.seen("policy")
        client.config_set("maxmemory-policy", "allkeys-random")
        await log.until(lambda: any(about["deletes"] for about in log.of("policy")))
        assert await runs(wheel)
        errors = [r.message for r in caplog.records if r.levelno == logging.ERROR]
        assert any("jobs are in danger" in text and "allkeys-random" in text for text in errors)
        client.config_set("maxmemory-policy", "noeviction")
        await log.until(lambda: not log.of("policy")[-1]["deletes"])


async def test_a_worker_notices_that_its_queue_was_emptied_and_goes_on_with_the_next_enqueue(
    wheel: Wheel, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    log = Log()
    async with running(wheel, log) as worker:
        assert await runs(wheel)
        old = client.hget(KEYS.meta, "epoch")
        client.flushall()
        await wheel.resume("default")  # a token wakes the worker
        await log.seen("halted")
        error = worker.worker.halted["default"]  # type: ignore[index]
        assert isinstance(error, SchemaMismatch)
        assert "all its keys are gone (FLUSHALL or DEL by a person, or Redis started without its data)" in str(error)
        assert client.hget(KEYS.meta, "schema") is None, "a worker does not found a queue"
        assert await runs(wheel)
        assert worker.worker.halted == {}
        assert client.hget(KEYS.meta, "epoch") not in (None, old)
    assert [name for name, _ in log.events if name in ("halted", "refounded", "resumed")] == [
        "halted", "refounded", "resumed",
    ]  # fmt: skip
    assert any("FLUSHALL" in r.message and r.levelno == logging.ERROR for r in caplog.records)


async def test_a_queue_that_was_emptied_and_enqueued_to_at_once_is_reported_all_the_same(
    wheel: Wheel, client: redis.Redis
) -> None:
    log = Log()
    async with running(wheel, log):
        assert await runs(wheel)
        client.flushall()
        assert await runs(wheel)
        assert await wheel.queues() == ["default"], "it is on the list again"
    assert log.of("refounded") == [{"queue": "default"}]


async def test_a_worker_claims_nothing_while_the_meta_of_its_queue_is_gone_until_a_person_repaired_it(
    wheel: Wheel, client: redis.Redis
) -> None:
    log = Log()
    async with running(wheel, log) as worker:
        assert await runs(wheel)
        await wheel.pause("default")
        answer = await wheel.enqueue("work", keep=60)
        client.delete(KEYS.meta)
        await wheel.enqueue("work", keep=60)
        await log.seen("halted")
        error = worker.worker.halted["default"]  # type: ignore[index]
        assert "zwheel doctor --repair --queue default" in str(error)
        job = await wheel.get(answer.job_id)
        assert job is not None
        assert (job.state, job.attempt) == (JobState.SCHEDULED, 0), "the pause is lost, and still nothing runs"
        await mend(wheel)
        await log.seen("resumed")
        assert (await wheel.wait(answer.job_id, timeout=5)).state is JobState.DONE


async def mend(wheel: Wheel) -> None:
    """What `zwheel doctor --repair` does."""
    from zwheel.broker.store import Store
    from zwheel.calls import Session
    from zwheel.doctor import check_queue, mend_queue

    store = Store(wheel.resolve()[0], Session("zw"))
    try:
        health = await store.drive(check_queue(store.session, "default"))
        assert health.vanished
        assert await store.drive(mend_queue(store.session, health)) >= 1
    finally:
        await store.aclose()


async def test_a_worker_that_starts_on_a_queue_without_meta_claims_nothing(wheel: Wheel, client: redis.Redis) -> None:
    answer = await wheel.enqueue("work", keep=60)
    client.delete(KEYS.meta)
    log = Log()
    async with running(wheel, log):
        await log.seen("halted")
        await mend(wheel)
        assert (await wheel.wait(answer.job_id, timeout=5)).state is JobState.DONE


async def test_a_queue_of_another_schema_is_left_alone_while_the_others_go_on(
    wheel: Wheel, client: redis.Redis
) -> None:
    await wheel.enqueue("work", queue="theirs", id="theirs")
    client.hset(ShardKeys.of("zw", "theirs").meta, "schema", "2")
    log = Log()
    async with running(wheel, log, queues=("theirs", "default")) as worker:
        await log.seen("halted")
        assert "schema 2" in str(worker.worker.halted["theirs"])  # type: ignore[index]
        assert await runs(wheel)
    job = await wheel.get("theirs", "theirs")
    assert job is not None
    assert job.state is JobState.SCHEDULED


async def test_a_full_redis_refuses_new_jobs_by_name_and_lets_the_others_end(wheel: Wheel, client: redis.Redis) -> None:
    gate, started = asyncio.Event(), asyncio.Event()

    @wheel.task(name="held", keep=60)
    async def held() -> None:
        started.set()
        await gate.wait()

    running_one = await held.enqueue()
    waiting = [await wheel.enqueue("work", keep=60, delay=0.2) for _ in range(5)]
    log = Log()
    async with running(wheel, log, lease_ms=2400) as worker:
        async with asyncio.timeout(5):
            await started.wait()
        client.config_set("maxmemory", 1)
        with pytest.raises(BrokerFull, match="maxmemory"):
            await wheel.enqueue("work")
        for answer in waiting:
            assert (await wheel.wait(answer.job_id, timeout=5)).state is JobState.DONE

        async def beats() -> float:
            score = client.zscore(KEYS.processing, running_one.job_id)
            return float(score or 0)

        first = await beats()
        await eventually(beats, lambda lease: lease > first)
        gate.set()
        assert (await wheel.wait(running_one.job_id, timeout=5)).state is JobState.DONE
        client.config_set("maxmemory", 0)
        assert await runs(wheel)
        assert not worker.task.done()
    assert max(log.starts().values()) == 1


async def test_a_worker_that_starts_on_a_full_redis_works_off_what_is_there(wheel: Wheel, client: redis.Redis) -> None:
    answer = await wheel.enqueue("work", keep=60)
    client.config_set("maxmemory", 1)
    async with running(wheel):
        assert (await wheel.wait(answer.job_id, timeout=5)).state is JobState.DONE


async def test_a_worker_on_a_replica_waits_until_it_is_promoted(
    own_server: MakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    primary = own_server(port=free_port(), arguments=AT_ONCE)
    replica = own_server(port=free_port(), arguments=(*AT_ONCE, "--replicaof", "127.0.0.1", str(primary.port)))
    async with make_wheel(primary.url) as producer, make_wheel(replica.url) as behind:
        answer = await producer.enqueue("work", keep=60)
        with replica.client() as other:

            async def there() -> bool:
                return bool(other.exists(KEYS.jobs))

            await eventually(there, bool)
            with pytest.raises(BrokerRefused) as refused:
                await behind.enqueue("work")
            assert refused.value.code == "READONLY"
            assert "connect to the primary" in str(refused.value)
            async with running(behind, wait=False) as worker:

                async def said() -> bool:
                    return any("waiting for Redis" in r.message and "primary" in r.message for r in caplog.records)

                await eventually(said, bool)
                assert not worker.worker.ready.is_set()
                assert not worker.task.done()
                other.execute_command("REPLICAOF", "NO", "ONE")
                await worker.ready()
                job = await behind.wait(answer.job_id, timeout=5)
    assert (job.state, job.attempt) == (JobState.DONE, 1)


async def test_a_primary_that_becomes_a_replica_under_a_worker_costs_no_attempt(
    own_server: MakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    first = own_server(port=free_port(), arguments=AT_ONCE)
    second = own_server(port=free_port(), arguments=(*AT_ONCE, "--replicaof", "127.0.0.1", str(first.port)))
    log = Log()
    async with make_wheel(first.url) as wheel, running(wheel, log) as worker:
        assert await runs(wheel)
        later = await wheel.enqueue("work", keep=60, delay=0.3)
        with first.client() as one, second.client() as two:

            async def copied() -> bool:
                return bool(two.hexists(KEYS.jobs, later.job_id))

            await eventually(copied, bool)
            two.execute_command("REPLICAOF", "NO", "ONE")
            one.execute_command("REPLICAOF", "127.0.0.1", str(second.port))

            async def said() -> bool:
                return any("READONLY" in r.message or "replica" in r.message for r in caplog.records)

            await eventually(said, bool)
            assert not worker.task.done()
            one.execute_command("REPLICAOF", "NO", "ONE")
        job = await wheel.wait(later.job_id, timeout=5)
    assert (job.state, job.attempt) == (JobState.DONE, 1)
    assert log.starts()[later.job_id] == 1
