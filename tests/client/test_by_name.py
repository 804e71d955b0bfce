"""Enqueueing by name: what workers publish of a task stands for its code."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import pytest

from tests.proxy import Fault, Proxy
from tests.servers import RedisServer
from tests.workers.harness import eventually
from zwheel import BadArguments, BrokerUnavailable, CancelOutcome, ConfigError, InvalidInput, JobState, SyncWheel, Wheel
from zwheel.errors import InvalidName, UnknownTask
from zwheel.keys import tasks_key
from zwheel.policy import POLICY_HEADER
from zwheel.published import catalogue as module
from zwheel.published.task import row_of

pytestmark = pytest.mark.anyio
TASKS = tasks_key("zw")


def publish(server: RedisServer, name: str = "shop.charge", **policy: Any) -> None:
    """Publish a task as a worker would."""

    def charge(card: str, cents: int = 100) -> None: ...

    task = Wheel(server.url).task(name=name, **{"queue": "money", "retries": 0, "keep": 60, **policy})(charge)
    with server.client() as client:
        client.hset(TASKS, name, row_of(task, "shop:wheel", 1_790_000_000_000))


@pytest.fixture
def published(fresh: RedisServer) -> RedisServer:
    """A server on which a task is published."""
    publish(fresh)
    return fresh


@pytest.fixture
async def wheel(url: str, anyio_backend: str) -> AsyncIterator[Wheel]:
    async with Wheel(url, namespace="zw", give_up_s=5) as made:
        yield made


@pytest.fixture
def sync(url: str) -> Iterator[SyncWheel]:
    with SyncWheel(url, namespace="zw", give_up_s=5) as made:
        yield made


def calls_of(server: RedisServer, *commands: str) -> int:
    with server.client() as client:
        stats = client.info("commandstats")
    return sum(int(stats.get(f"cmdstat_{command}", {}).get("calls", 0)) for command in commands)


async def test_the_published_queue_and_policy_hold(published: RedisServer, wheel: Wheel, sync: SyncWheel) -> None:
    for answer in (
        await wheel.enqueue("shop.charge", args=["4242"]),
        sync.enqueue("shop.charge", args=["4242"]),
        (await wheel.enqueue_many([wheel.new_job("shop.charge", args=["4242"])]))[0],
        await wheel.submit(Wheel().new_job("shop.charge", args=["4242"])),
        sync.submit(SyncWheel().new_job("shop.charge", args=["4242"])),
        sync.enqueue_many([SyncWheel().new_job("shop.charge", args=["4242"])])[0],
    ):
        job = await wheel.get(answer.job_id)
        assert job is not None
        assert (job.queue, job.max_attempts, job.keep_ms) == ("money", 1, 60_000)
        assert wheel.codec.decode(job.body, context=f"shop.charge\n{job.id}".encode()) == (["4242"], {}, {})


async def test_what_the_caller_says_comes_first(published: RedisServer, wheel: Wheel) -> None:
    answer = await wheel.enqueue(
        "shop.charge", args=["4242"], queue="own", retries=3, keep=5, headers={"a": "b"}, timeout=2
    )
    job = await wheel.get(answer.job_id)
    assert job is not None and (job.queue, job.max_attempts, job.keep_ms) == ("own", 4, 5_000)
    # Also where the job was made before its task was known.
    early = Wheel().new_job("shop.charge", args=["4242"], queue="own", retries=3, keep=5, headers={"a": "b"}, timeout=2)
    (other,) = await wheel.enqueue_many([early])
    again = await wheel.get(other.job_id)
    assert again is not None and (again.queue, again.max_attempts, again.keep_ms) == ("own", 4, 5_000)
    decoded = [wheel.codec.decode(one.body, context=f"shop.charge\n{one.id}".encode()) for one in (job, again)]
    assert decoded[0] == decoded[1] == (["4242"], {}, {"a": "b", "zwheel-timeout-ms": "2000"})


async def test_a_call_that_the_task_would_refuse_is_refused_here(
    published: RedisServer, wheel: Wheel, sync: SyncWheel
) -> None:
    for args, kwargs in (([], {}), ([1], {}), (["4242", "ten"], {}), (["4242"], {"euros": 1})):
        with pytest.raises(BadArguments, match=r"shop\.charge\(card, cents=\.\.\.\)"):
            await wheel.enqueue("shop.charge", args=args, kwargs=kwargs)
        with pytest.raises(BadArguments):
            sync.enqueue("shop.charge", args=args, kwargs=kwargs)
        with pytest.raises(BadArguments):
            await wheel.enqueue_many([Wheel().new_job("shop.charge", args=args, kwargs=kwargs)])
    assert await wheel.queues() == []


async def test_the_ids_of_jobs_that_are_made_again_stay(published: RedisServer, wheel: Wheel) -> None:
    made = [Wheel().new_job("shop.charge", args=[str(n)], id=f"c-{n}" if n % 2 else None) for n in range(500)]
    answers = await wheel.enqueue_many(made, chunk=100)
    assert [answer.job_id for answer in answers] == [job.id for job in made]
    assert await wheel.count("money", JobState.SCHEDULED) == 500


async def test_arguments_that_change_before_the_job_is_sent_are_sent_as_they_were(
    published: RedisServer, wheel: Wheel
) -> None:
    shared: dict[str, Any] = {}
    made = []
    for n in range(3):
        shared["card"] = str(n)
        made.append(Wheel().new_job("shop.charge", kwargs=shared))
    answers = await wheel.enqueue_many(made)
    jobs = [await wheel.get(answer.job_id, "money") for answer in answers]
    decoded = [wheel.codec.decode(job.body, context=f"shop.charge\n{job.id}".encode())[1] for job in jobs if job]
    assert decoded == [{"card": "0"}, {"card": "1"}, {"card": "2"}]


async def test_a_known_task_costs_no_round_trip_more(published: RedisServer, wheel: Wheel, sync: SyncWheel) -> None:
    reads = ("hmget", "hget", "hkeys", "hgetall", "hscan")
    await wheel.enqueue("shop.charge", args=["1"])
    sync.enqueue("shop.charge", args=["1"])
    before = calls_of(published, *reads), calls_of(published, "evalsha")
    for _ in range(50):
        await wheel.enqueue("shop.charge", args=["1"])
        sync.enqueue("shop.charge", args=["1"])
    await wheel.enqueue_many([wheel.new_job("shop.charge", args=["1"]) for _ in range(1000)])
    scripts = calls_of(published, "evalsha") - before[1]
    # A script reads with HMGET too: one of the queue's facts, and one of the ids.
    assert calls_of(published, *reads) - before[0] <= 2 * scripts
    assert scripts <= 105


async def test_callers_of_one_task_share_one_look(published: RedisServer, wheel: Wheel) -> None:
    before = calls_of(published, "hmget")
    answers = await asyncio.gather(*(wheel.enqueue("shop.charge", args=["1"], queue="money") for _ in range(400)))
    scripts = calls_of(published, "evalsha")
    assert {answer.queue for answer in answers} == {"money"}
    assert calls_of(published, "hmget") - before <= 1 + 2 * scripts


async def test_what_is_not_published_goes_to_default_and_its_own_retries_hold_on_the_worker(wheel: Wheel) -> None:
    answer = await wheel.enqueue("shop.charge", args=[1])
    job = await wheel.get(answer.job_id)
    assert job is not None and (job.queue, job.max_attempts) == ("default", 11)
    assert wheel.codec.decode(job.body, context=f"shop.charge\n{job.id}".encode())[2] == {POLICY_HEADER: "task"}
    said = await wheel.enqueue("shop.charge", args=[1], retries=10)
    job = await wheel.get(said.job_id)
    assert job is not None
    assert wheel.codec.decode(job.body, context=f"shop.charge\n{job.id}".encode())[2] == {POLICY_HEADER: "job"}


async def test_a_slip_is_logged_once_with_the_name_that_may_be_meant(
    published: RedisServer, wheel: Wheel, sync: SyncWheel, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "zwheel.client"):
        for _ in range(3):
            await wheel.enqueue("shop.chrage", args=["1"])
            sync.enqueue("charge", args=["1"], queue="money")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "no worker has published a task shop.chrage: did you mean shop.charge? Its jobs go to the queue default, and wait there "
            "for a worker that serves it."),
        ("WARNING", "no worker has published a task charge: did you mean shop.charge?"),
    ]  # fmt: skip


async def test_a_strict_wheel_refuses_what_no_worker_has_published(published: RedisServer, url: str) -> None:
    async with Wheel(url, namespace="zw", strict=True) as wheel:
        with pytest.raises(UnknownTask, match=r"did you mean shop\.charge"):
            await wheel.enqueue("shop.chrage", args=["1"])
        with pytest.raises(UnknownTask):
            await wheel.enqueue_many([wheel.new_job("shop.chrage", args=["1"])])
        with pytest.raises(UnknownTask):
            await wheel.submit(wheel.new_job("nothing.like.it"))
        assert await wheel.queues() == []
        await wheel.enqueue("shop.charge", args=["1"])
    with SyncWheel(url, namespace="zw", strict=True) as blocking, pytest.raises(UnknownTask):
        blocking.enqueue("shop.chrage", args=["1"])


async def test_what_was_unknown_is_looked_for_again(
    fresh: RedisServer, wheel: Wheel, sync: SyncWheel, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await wheel.enqueue("shop.charge", args=["1"])).queue == "default"
    assert sync.enqueue("shop.charge", args=["1"]).queue == "default"
    publish(fresh)
    monkeypatch.setattr(module, "ABSENT_S", 0.0)
    assert (await wheel.enqueue("shop.charge", args=["1"])).queue == "money"
    assert sync.enqueue("shop.charge", args=["1"]).queue == "money"


async def test_a_change_is_learnt_beside_the_next_calls(
    published: RedisServer, wheel: Wheel, monkeypatch: pytest.MonkeyPatch
) -> None:
    await wheel.enqueue("shop.charge", args=["1"])
    publish(published, queue="cash")
    monkeypatch.setattr(module, "FRESH_S", 0.0)
    # The call that finds it old goes on with what it has.
    assert (await wheel.enqueue("shop.charge", args=["1"])).queue == "money"
    await eventually(lambda: wheel.enqueue("shop.charge", args=["1"]), lambda answer: answer.queue == "cash")


async def test_a_task_that_is_registered_here_is_not_looked_up(published: RedisServer, wheel: Wheel) -> None:
    @wheel.task(name="shop.charge", queue="here")
    async def charge(anything: object) -> None: ...

    before = calls_of(published, "hmget")
    assert (await wheel.enqueue("shop.charge", args=[1])).queue == "here"
    assert calls_of(published, "hmget") - before <= 3
    assert wheel.catalogue.get("shop.charge") is None


async def test_a_schedule_by_name_takes_the_published_queue_and_policy(
    published: RedisServer, wheel: Wheel, sync: SyncWheel
) -> None:
    await wheel.learn("shop.charge")
    sync.learn("shop.charge")
    for one in (wheel, sync):
        made = one.new_schedule("pay", "@daily", "shop.charge", args=["1"])
        assert (made.queue, made.max_attempts, made.keep_ms) == ("money", 1, 60_000)
        with pytest.raises(BadArguments):
            one.new_schedule("pay", "@daily", "shop.charge")


@pytest.mark.parametrize("value", [b"", b"{}", b"\xff\x00", b"[" * 5000, b'{"queue": "a}{b"}'])
async def test_a_damaged_row_is_no_row(fresh: RedisServer, wheel: Wheel, sync: SyncWheel, value: bytes) -> None:
    with fresh.client() as client:
        client.hset(TASKS, mapping={b"shop.charge": value, b"\xff": value})
    assert (await wheel.enqueue("shop.charge", args=["1"])).queue == "default"
    assert sync.enqueue("shop.charge", args=["1"]).queue == "default"
    tasks = await wheel.published_tasks()
    assert tasks == [] and {one.name for one in tasks.unreadable} == {"shop.charge", r"\xff"}


async def test_another_programs_key_in_its_place_costs_nobody_a_job(
    fresh: RedisServer, wheel: Wheel, sync: SyncWheel
) -> None:
    with fresh.client() as client:
        client.set(TASKS, "mine")
    assert (await wheel.enqueue("shop.charge", args=["1"])).queue == "default"
    assert sync.enqueue("shop.charge", args=["1"]).queue == "default"


async def test_a_name_that_cannot_be_is_refused_before_anything_is_asked(wheel: Wheel, sync: SyncWheel) -> None:
    for name in ("", "a b", "a" * 200, "x}{y"):
        with pytest.raises(InvalidName):
            await wheel.enqueue(name)
        with pytest.raises(InvalidName):
            sync.enqueue(name)


async def test_without_redis_a_call_by_name_fails_within_its_time() -> None:
    async with Wheel("redis://127.0.0.1:1", give_up_s=0.2) as wheel:
        outcomes = await asyncio.gather(*(wheel.enqueue("shop.charge") for _ in range(20)), return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {BrokerUnavailable}


@pytest.mark.parametrize("fault", Fault)
async def test_a_look_that_is_cut_off_is_made_again(published: RedisServer, fault: Fault) -> None:
    with Proxy(published.socket) as proxy:
        async with Wheel(proxy.url, namespace="zw", give_up_s=10) as wheel:
            cut = proxy.arm(fault, "HMGET")
            assert (await wheel.enqueue("shop.charge", args=["1"])).queue == "money"
        assert cut.is_set()


async def test_a_caller_that_is_cancelled_while_it_looks_leaves_the_others_alone(
    published: RedisServer, wheel: Wheel
) -> None:
    for _ in range(20):
        wheel.catalogue = module.Catalogue()
        client = wheel._connect()
        client._catalogue = wheel.catalogue
        tasks = [asyncio.create_task(wheel.enqueue("shop.charge", args=["1"])) for _ in range(10)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        tasks[5].cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert sum(isinstance(one, asyncio.CancelledError) for one in outcomes) == 2
        assert {one.queue for one in outcomes if not isinstance(one, BaseException)} == {"money"}


async def test_a_task_of_another_wheel_brings_its_own_policy(fresh: RedisServer, wheel: Wheel, sync: SyncWheel) -> None:
    @Wheel().task(name="shop.pay", queue="money", retries=0)
    async def pay(order: int) -> None: ...

    for answer in (await wheel.enqueue(pay, args=[1]), sync.enqueue(pay, args=[1])):
        job = await wheel.get(answer.job_id)
        assert job is not None and (job.queue, job.max_attempts) == ("money", 1)
    made = wheel.new_schedule("pay", "@daily", pay, args=[1])
    assert (made.queue, made.max_attempts) == ("money", 1)
    with pytest.raises(BadArguments):
        await wheel.enqueue(pay)


async def test_of_two_jobs_with_one_id_the_one_that_lives_is_meant(wheel: Wheel, sync: SyncWheel) -> None:
    for queue in ("a", "b"):
        await wheel.enqueue("t", id="same", queue=queue, delay=60)
    for work in (wheel.cancel("same"), wheel.reschedule("same", delay=5)):
        with pytest.raises(InvalidInput, match="job same lives in several queues, a, b: name the queue"):
            await work
    assert await wheel.cancel("same", "a") is CancelOutcome.CANCELLED
    job = await wheel.get("same")
    assert job is not None and (job.queue, job.state) == ("b", JobState.SCHEDULED)
    assert sync.cancel("same") is CancelOutcome.CANCELLED
    assert await wheel.cancel("same") is CancelOutcome.CANCELLED


async def test_a_wheel_that_is_connected_is_not_configured_elsewhere(wheel: Wheel, sync: SyncWheel, url: str) -> None:
    await wheel.ping()
    sync.ping()
    for one in (wheel, sync):
        one.configure(url=url, namespace="zw")
        for other in ({"url": "redis://127.0.0.1:1"}, {"namespace": "other"}):
            with pytest.raises(ConfigError, match="close it before you configure it anew"):
                one.configure(**other)
    await wheel.aclose()
    sync.close()
    for one in (wheel, sync):
        one.configure(namespace="zw")
    assert (await wheel.enqueue("t", queue="q")).queue == "q" == sync.enqueue("t", queue="q").queue


def test_a_slip_in_a_decorator_is_said_where_it_is_made() -> None:
    wheel = Wheel()

    async def report() -> None: ...

    with pytest.raises(ConfigError, match="cron takes the rhythm first"):
        wheel.cron(report)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="is a task already"):
        wheel.task(wheel.task(name="report")(report))
    for rhythm in (300, timedelta(seconds=300)):
        with pytest.raises(InvalidInput, match="write it as text"):
            wheel.new_schedule("s", rhythm, "t")  # type: ignore[arg-type]
