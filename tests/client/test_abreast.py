"""A batch for a queue with several shards: their parts go out side by side, and each has an outcome of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from tests.client.test_told import Client, both
from tests.proxy import Fault, Proxy
from tests.servers import RedisServer
from zwheel import BrokerRefused, BrokerUnavailable, JobState, NewJob, OutcomeUnknown, QueueFull, SyncWheel, Wheel
from zwheel.broker.store import Apart, Span, Steps, Store, SyncStore
from zwheel.calls import Call, Session
from zwheel.keys import ShardKeys, shard_names, shard_number
from zwheel.operations.gather import gather

pytestmark = pytest.mark.anyio
SHARDS = 4
KEYS = [ShardKeys.of("zw", name) for name in shard_names("orders", SHARDS)]
PING, TIME = ("PING",), ("TIME",)


@pytest.fixture
def proxy(fresh: RedisServer) -> Iterator[Proxy]:
    with SyncWheel(fresh.url) as wheel:
        wheel.create_queue("orders", shards=SHARDS)
    with Proxy(fresh.socket) as made:
        yield made


def jobs(wheel: Wheel | SyncWheel, count: int) -> list[NewJob]:
    return [wheel.new_job("t", args=[n], queue="orders", id=f"job-{n}") for n in range(count)]


def stored(server: RedisServer) -> set[str]:
    with server.client() as client:
        return {job_id.decode() for keys in KEYS for job_id in client.hkeys(keys.jobs)}


def asks(*commands: tuple[str, ...]) -> Steps[Any]:
    return (yield list(commands))


def waits(*pauses: float) -> Steps[Any]:
    for pause in pauses:
        assert (yield pause) == []
    return "waited"


def test_what_operations_ask_for_at_a_time_goes_out_together() -> None:
    def two() -> Steps[Any]:
        first = yield [PING]
        second = yield [TIME, PING]
        return [*first, *second]

    steps = gather([two(), asks(TIME), waits(0.1)])
    sent = next(steps)
    assert (type(sent), sent) == (Apart, [PING, TIME])
    assert steps.send(["a", "b"]) == [TIME, PING]
    assert steps.send(["c", "d"]) == 0.1
    with pytest.raises(StopIteration) as end:
        steps.send([])
    assert end.value.value == [["a", "c", "d"], ["b"], "waited"]


def test_an_error_is_for_the_operation_that_asked_and_the_others_go_on() -> None:
    def bears() -> Steps[str]:
        try:
            yield [TIME]
        except BrokerRefused as error:
            (reply,) = yield [PING]
            return f"{error}, {reply}"
        raise AssertionError("nothing was refused")

    steps = gather([bears(), asks(PING), asks(PING, TIME)])
    next(steps)
    no = BrokerRefused("no", "NOPERM")
    assert steps.send([no, "pong", BrokerUnavailable("gone"), "now"]) == [PING]
    with pytest.raises(OutcomeUnknown, match="gone; other commands of the request were carried out"):
        steps.send(["pong"])
    steps = gather([asks(PING), asks(TIME)])
    next(steps)
    with pytest.raises(BrokerRefused) as refused:
        steps.send([no, "now"])
    assert refused.value is no
    steps = gather([asks(PING), asks(TIME)])
    next(steps)
    with pytest.raises(OutcomeUnknown):
        steps.send([no, OutcomeUnknown("lost")])
    steps = gather([asks(PING), asks(TIME)])
    next(steps)
    with pytest.raises(BrokerUnavailable, match="down"):
        steps.throw(BrokerUnavailable("down"))


def test_operations_that_are_given_up_are_closed() -> None:
    closed: list[int] = []

    def one(number: int) -> Steps[None]:
        try:
            yield [PING]
        finally:
            closed.append(number)

    steps = gather([one(1), one(2)])
    next(steps)
    steps.close()
    assert closed == [1, 2]


@pytest.mark.parametrize("shell", [Store, SyncStore])
async def test_of_several_commands_each_that_had_no_answer_stays_in_doubt(url: str, shell: Callable[..., Any]) -> None:
    """The first node's answer was lost; in the next try that node is gone, which says nothing of the first one."""
    work = shell(url, Session("zw"))._persisting(Apart([PING, PING, TIME]), 0.2)
    next(work)
    lost, gone, now = OutcomeUnknown("lost"), BrokerUnavailable("gone"), ["1", "2"]
    with pytest.raises(StopIteration) as end:
        work.send([lost, gone, now])
        while True:
            work.send([])  # the pause is over
            work.send([gone, gone, now])
    replies = end.value.value
    assert isinstance(replies[0], OutcomeUnknown)
    assert "an earlier try had no answer" in str(replies[0])
    assert isinstance(replies[1], BrokerUnavailable)
    work = shell(url, Session("zw"))._persisting(Apart([PING, TIME]), 60)
    next(work)
    work.send([OutcomeUnknown("lost"), ["1", "2"]])
    work.send([])
    with pytest.raises(OutcomeUnknown):
        work.throw(BrokerRefused("no", "NOPERM"))


class Exchanges:
    """Keeps how many enqueues each exchange had."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def invoke(self, commands: Sequence[Call | tuple[Any, ...]]) -> Span:
        size = sum(isinstance(command, Call) and command.script.name == "enqueue" for command in commands)
        if size:
            self.sizes.append(size)
        return self

    def ended(self, replies: Sequence[Any], error: BaseException | None = None) -> None:
        pass

    def observe(self, event: str, facts: Mapping[str, Any]) -> None:
        pass


async def test_the_parts_of_a_chunk_go_out_in_one_round_trip(fresh: RedisServer) -> None:
    async with Wheel(fresh.url) as wheel:
        await wheel.create_queue("orders", shards=SHARDS)
        await wheel.create_queue("many", shards=40)
        seen = wheel._connect().store.recorder = Exchanges()
        answers = await wheel.enqueue_many(jobs(wheel, 100), chunk=50)
        assert [answer.job_id for answer in answers] == [f"job-{n}" for n in range(100)]
        assert seen.sizes == [SHARDS, SHARDS]
        seen.sizes.clear()
        await wheel.enqueue_many([wheel.new_job("t", queue="many", id=f"m-{n}") for n in range(400)], chunk=400)
        assert seen.sizes == [16, 16, 8]
    assert len(stored(fresh)) == 100


@both
async def test_a_full_shard_refuses_its_own_part(fresh: RedisServer, proxy: Proxy, blocking: bool) -> None:
    client = Client(fresh.url, blocking)
    batch = jobs(client.any, 60)
    full = {job.id for job in batch if shard_number(job.id, SHARDS) == 2}
    with fresh.client() as redis:
        redis.hset(KEYS[2].meta, "cap", 1)
        with pytest.raises(QueueFull):
            await client.many(batch, 60)
        assert stored(fresh) == {job.id for job in batch} - full
        redis.hdel(KEYS[2].meta, "cap")
    answers = await client.many(batch, 60)
    assert [answer.job_id for answer in answers] == [job.id for job in batch]
    assert stored(fresh) == {job.id for job in batch}
    await client.close()


@both
@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER, Fault.MIDDLE])
@pytest.mark.parametrize("patient", [True, False])
async def test_parts_without_an_answer_are_asked_for_again_and_made_once(
    fresh: RedisServer, proxy: Proxy, blocking: bool, fault: Fault, patient: bool
) -> None:
    client = Client(proxy.url, blocking, give_up_s=10 if patient else 0)
    await client.many(jobs(client.any, 60), 60)
    batch = [client.any.new_job("t", args=[n], queue="orders", id=f"next-{n}") for n in range(60)]
    proxy.arm(fault, "enqueue")
    if patient:
        answers = await client.many(batch, 60)
        assert not any(answer.existed for answer in answers)
    else:
        with pytest.raises(OutcomeUnknown):
            await client.many(batch, 60)
        made = {job_id for job_id in stored(fresh) if job_id.startswith("next")}
        assert len(made) == (0 if fault is Fault.BEFORE else 60)
        with fresh.client() as redis:  # as if they had run and left nothing
            for keys in KEYS:
                for day in redis.zrange(keys.days, 0, -1):
                    redis.zrem(keys.wheel(day.decode()), "gone", *made)
                redis.hdel(keys.jobs, "gone", *made)
        answers = await client.many(batch, 60)
        assert not any(answer.existed for answer in answers)
        assert {job_id for job_id in stored(fresh) if job_id.startswith("next")} == {job.id for job in batch} - made
    assert [answer.job_id for answer in answers] == [job.id for job in batch]
    await client.close()


@both
async def test_a_bulk_that_meets_a_queue_cut_anew_is_cut_anew(fresh: RedisServer, proxy: Proxy, blocking: bool) -> None:
    """The client believes in four shards. By now there are none of these, so each part of its chunk is refused."""
    client = Client(fresh.url, blocking)
    await client.many(jobs(client.any, 40), 40)
    with SyncWheel(fresh.url) as other:
        other.reshard_queue("orders", shards=7)
        other.reshard_queue("orders", shards=3)
    more = [client.any.new_job("t", args=[n], queue="orders", id=f"next-{n}") for n in range(100)]
    answers = await client.many(more, 100)
    assert [answer.job_id for answer in answers] == [job.id for job in more]
    assert not any(answer.existed for answer in answers)
    with SyncWheel(fresh.url) as other:
        assert other.count("orders", JobState.SCHEDULED) == 140
    await client.close()
