"""What a caller was told stays true: errors say no more than is known, and asking again gets the first answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.faults.witness import bury_all
from tests.proxy import Fault, Proxy, name_of
from tests.servers import RedisServer
from zwheel import (
    BrokerError,
    BrokerFull,
    BrokerRefused,
    BrokerUnavailable,
    Enqueued,
    JobState,
    NewJob,
    OutcomeUnknown,
    QueueFull,
    SyncWheel,
    Wheel,
)
from zwheel.broker.store import Store, SyncStore
from zwheel.calls import Call, Session
from zwheel.keys import ShardKeys
from zwheel.operations import enqueue_batch

pytestmark = pytest.mark.anyio
KEYS = ShardKeys.of("zw", "q")
PING = [("PING",)]


@pytest.fixture
def proxy(fresh: RedisServer) -> Iterator[Proxy]:
    with Proxy(fresh.socket) as made:
        yield made


def forget(server: RedisServer, *job_ids: str) -> None:
    """As if the jobs had run and left nothing."""
    with server.client() as client:
        client.hdel(KEYS.jobs, *job_ids)
        for day in client.zrange(KEYS.days, 0, -1):
            client.zrem(KEYS.wheel(day.decode()), *job_ids)
            if not client.exists(KEYS.wheel(day.decode())):
                client.zrem(KEYS.days, day)


def stored(server: RedisServer) -> set[str]:
    with server.client() as client:
        return {job_id.decode() for job_id in client.hkeys(KEYS.jobs)}


def jobs(wheel: Wheel | SyncWheel, count: int) -> list[NewJob]:
    return [wheel.new_job("t", args=[n], queue="q") for n in range(count)]


@pytest.mark.parametrize("blocking", [False, True], ids=["async", "sync"])
async def test_a_call_that_may_have_been_carried_out_is_never_said_not_to_be(
    fresh: RedisServer, proxy: Proxy, blocking: bool
) -> None:
    """The first try is carried out and its answer lost; after that nobody can log in."""
    client = Client(proxy.url, blocking, give_up_s=0.4)
    await client.submit(jobs(client.any, 1)[0])
    before = stored(fresh)
    (job,) = jobs(client.any, 1)
    proxy.arm(Fault.AFTER, "enqueue")
    proxy.arm(Fault.BEFORE, "CLIENT", times=10_000)
    with pytest.raises(OutcomeUnknown, match="may or may not"):
        await client.submit(job)
    assert stored(fresh) - before == {job.id}
    await client.close()


@pytest.mark.parametrize("shell", [Store, SyncStore])
@pytest.mark.parametrize("last", [BrokerUnavailable("gone"), BrokerFull("full"), BrokerRefused("no", "NOPERM")])
async def test_a_certain_no_after_a_try_without_an_answer_is_no_certain_no(
    url: str, shell: Callable[..., Any], last: BrokerError
) -> None:
    work = shell(url, Session("zw"))._persisting(PING, 60)
    next(work)
    assert isinstance(work.throw(OutcomeUnknown("lost")), float)
    assert work.send([])[0] is PING
    if isinstance(last, BrokerUnavailable):
        work.throw(last)
        work.send([])
        last = BrokerFull("full")
    with pytest.raises(OutcomeUnknown, match="an earlier try had no answer"):
        work.throw(last)


@pytest.mark.parametrize("shell", [Store, SyncStore])
async def test_a_no_alone_stays_what_it_is(url: str, shell: Callable[..., Any]) -> None:
    work = shell(url, Session("zw"))._persisting(PING, 60)
    next(work)
    work.throw(BrokerUnavailable("gone"))
    work.send([])
    with pytest.raises(BrokerFull):
        work.throw(BrokerFull("full"))


class Client:
    """Either client, blocking or not, behind one door."""

    def __init__(self, url: str, blocking: bool, give_up_s: float = 0.0) -> None:
        self.sync = SyncWheel(url, give_up_s=give_up_s, timeout_s=5) if blocking else None
        self.wheel = None if blocking else Wheel(url, give_up_s=give_up_s, timeout_s=5)

    @property
    def any(self) -> Wheel | SyncWheel:
        found = self.sync or self.wheel
        assert found is not None
        return found

    async def submit(self, job: NewJob) -> Enqueued:
        if self.sync is not None:
            return self.sync.submit(job)
        assert self.wheel is not None
        return await self.wheel.submit(job)

    async def many(self, batch: list[NewJob], chunk: int) -> list[Enqueued]:
        if self.sync is not None:
            return self.sync.enqueue_many(batch, chunk=chunk)
        assert self.wheel is not None
        return await self.wheel.enqueue_many(batch, chunk=chunk)

    async def purge(self, queue: str, state: JobState) -> int:
        if self.sync is not None:
            return self.sync.purge(queue, state)
        assert self.wheel is not None
        return await self.wheel.purge(queue, state)

    async def close(self) -> None:
        if self.sync is not None:
            self.sync.close()
        if self.wheel is not None:
            await self.wheel.aclose()


both = pytest.mark.parametrize("blocking", [False, True], ids=["async", "sync"])


@both
@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER], ids=["not carried out", "carried out"])
async def test_an_enqueue_without_an_answer_is_asked_for_again_and_made_once(
    fresh: RedisServer, proxy: Proxy, blocking: bool, fault: Fault
) -> None:
    client = Client(proxy.url, blocking)
    await client.submit(jobs(client.any, 1)[0])
    (job,) = jobs(client.any, 1)
    proxy.arm(fault, "enqueue")
    with pytest.raises(OutcomeUnknown):
        await client.submit(job)
    carried_out = fault is Fault.AFTER
    assert (job.id in stored(fresh)) == carried_out
    if carried_out:
        forget(fresh, job.id)
    answer = await client.submit(job)
    assert (answer.job_id, answer.existed) == (job.id, False)
    assert (job.id in stored(fresh)) != carried_out, "it ran already, or it is made now"
    forget(fresh, job.id)
    assert not (await client.submit(job)).existed, "once answered, the same id is a new job"
    assert job.id in stored(fresh)
    await client.close()


@both
async def test_after_a_cancel_the_first_answer_is_no_answer_to_a_new_enqueue_of_the_id(
    fresh: RedisServer, proxy: Proxy, blocking: bool
) -> None:
    client = Client(proxy.url, blocking)
    await client.submit(jobs(client.any, 1)[0])
    job = client.any.new_job("t", queue="q", id="a", delay=60)
    proxy.arm(Fault.AFTER, "enqueue")
    with pytest.raises(OutcomeUnknown):
        await client.submit(job)
    if client.sync is not None:
        client.sync.cancel("a", "q")
    else:
        assert client.wheel is not None
        await client.wheel.cancel("a", "q")
    answer = await client.submit(job)
    assert (answer.existed, answer.replaced) == (False, True)
    with fresh.client() as admin:
        assert admin.hget(KEYS.jobs, "a")[:2] == b"2s"
    await client.close()


@both
@pytest.mark.parametrize("state", [JobState.SCHEDULED, JobState.DEAD])
async def test_after_a_purge_the_first_answer_is_no_answer_to_a_new_enqueue_of_the_id(
    fresh: RedisServer, proxy: Proxy, blocking: bool, state: JobState
) -> None:
    client = Client(proxy.url, blocking)
    await client.submit(jobs(client.any, 1)[0])
    gone, ended = (client.any.new_job("t", queue="q", id=job_id) for job_id in ("gone", "ended"))
    for job in gone, ended:
        proxy.arm(Fault.AFTER, "enqueue")
        with pytest.raises(OutcomeUnknown):
            await client.submit(job)
    forget(fresh, "ended")
    if state is JobState.DEAD:
        bury_all(fresh.url, 2, "q")
    assert await client.purge("q", state) == 2
    assert not (await client.submit(gone)).existed
    assert not (await client.submit(ended)).existed
    assert stored(fresh) == {"gone"}, "the other one ran already, and was not purged"
    await client.close()


@both
async def test_that_a_job_existed_is_no_answer_to_one_who_wants_it_replaced(
    fresh: RedisServer, proxy: Proxy, blocking: bool
) -> None:
    client = Client(proxy.url, blocking)
    await client.submit(client.any.new_job("t", queue="q", id="a"))
    with fresh.client() as admin:
        admin.hset(KEYS.jobs, "a", b"2x" + admin.hget(KEYS.jobs, "a")[2:])
    proxy.arm(Fault.AFTER, "enqueue")
    with pytest.raises(OutcomeUnknown):
        await client.submit(client.any.new_job("t", queue="q", id="a"))
    wanted = client.any.new_job("t", queue="q", id="a", replace=True)
    assert (await client.submit(wanted)).replaced
    proxy.arm(Fault.AFTER, "enqueue")
    with pytest.raises(OutcomeUnknown):
        await client.submit(wanted)
    assert (await client.submit(wanted)).existed, "it lives by now"
    await client.close()


@both
@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER], ids=["not carried out", "carried out"])
@pytest.mark.parametrize("doubted", ["a", "b", "all"])
async def test_of_two_that_ask_for_one_id_at_a_time_only_the_first_is_told_that_it_made_the_job(
    fresh: RedisServer, proxy: Proxy, blocking: bool, fault: Fault, doubted: str
) -> None:
    client = Client(proxy.url, blocking)
    await client.submit(jobs(client.any, 1)[0])
    first, second = (client.any.new_job("t", args=[n], queue="q", id="a") for n in range(2))
    other = client.any.new_job("t", queue="q", id="b")
    proxy.arm(fault, "enqueue")
    with pytest.raises(OutcomeUnknown):
        if doubted == "all":
            await client.many([first, other, second], chunk=3)
        await client.submit(first if doubted == "a" else other)
    answers = await client.many([first, other, second], chunk=3)
    assert [(one.job_id, one.existed) for one in answers] == [("a", False), ("b", False), ("a", True)]
    with fresh.client() as admin:
        assert admin.hget(KEYS.jobs, "a").endswith(first.body)
    await client.close()


async def test_jobs_that_shared_a_batch_are_asked_for_one_by_one(fresh: RedisServer, proxy: Proxy) -> None:
    async with Wheel(proxy.url, give_up_s=0.0) as wheel:
        await wheel.submit(jobs(wheel, 1)[0])
        for fault in (Fault.AFTER, Fault.BEFORE):
            batch = jobs(wheel, 12)
            before = stored(fresh)
            proxy.arm(fault, "enqueue", times=2)
            told = await asyncio.gather(*(wheel.submit(job) for job in batch), return_exceptions=True)
            assert {type(error) for error in told} == {OutcomeUnknown}
            carried_out = fault is Fault.AFTER
            assert stored(fresh) - before == ({job.id for job in batch} if carried_out else set())
            if carried_out:
                forget(fresh, *(job.id for job in batch))
            again = [await wheel.submit(job) for job in batch[3:6]]
            again += await wheel.enqueue_many(batch[8:])
            assert [answer.job_id for answer in again] == [job.id for job in (*batch[3:6], *batch[8:])]
            assert not any(answer.existed for answer in again)
            made = set() if carried_out else {job.id for job in (*batch[3:6], *batch[8:])}
            assert stored(fresh) - before == made, "those that nobody asked for again stay as they are"


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("room", range(1, 5))
async def test_the_first_answer_outlives_a_refusal_of_those_that_are_asked_for_with_it(
    fresh: RedisServer, proxy: Proxy, place: int, room: int
) -> None:
    async with Wheel(proxy.url, give_up_s=0.0) as wheel:
        await wheel.submit(jobs(wheel, 1)[0])
        mine, *others = jobs(wheel, 5)
        proxy.arm(Fault.AFTER, "enqueue")
        with pytest.raises(OutcomeUnknown):
            await wheel.submit(mine)
        forget(fresh, mine.id)
        await wheel.set_cap("q", room)
        batch = [*others[:place], mine, *others[place:]]
        told = await asyncio.gather(*(wheel.submit(job) for job in batch), return_exceptions=True)
        answer = told[place]
        assert isinstance(answer, Enqueued) and not answer.existed, "it was stored, and has run"
        assert mine.id not in stored(fresh), "it is not made again"
        made = {job.id for job, one in zip(batch, told, strict=True) if isinstance(one, Enqueued)} - {mine.id}
        assert made == stored(fresh) & {job.id for job in others} and len(made) == room - 1
        assert all(isinstance(one, (Enqueued, QueueFull)) for one in told)


@both
async def test_a_doubt_that_stays_a_doubt_still_makes_each_job_once(
    fresh: RedisServer, proxy: Proxy, blocking: bool
) -> None:
    """A chunk without an answer; one of its jobs asked for, without an answer again; then the whole chunk."""
    client = Client(proxy.url, blocking)
    batch = jobs(client.any, 6)
    await client.submit(jobs(client.any, 1)[0])
    before = stored(fresh)
    proxy.arm(Fault.BEFORE, "enqueue")
    with pytest.raises(OutcomeUnknown):
        await client.many(batch, 6)
    proxy.arm(Fault.AFTER, "enqueue")
    with pytest.raises(OutcomeUnknown):
        await client.submit(batch[2])
    forget(fresh, batch[2].id)
    answers = await client.many(batch, 6)
    assert [answer.job_id for answer in answers] == [job.id for job in batch]
    assert stored(fresh) - before == {job.id for job in batch} - {batch[2].id}
    await client.close()


async def test_a_late_copy_of_what_was_asked_for_again_is_not_carried_out(fresh: RedisServer) -> None:
    store = Store(fresh.url, Session("zw", "c"))
    store.session.counts["q"] = 1
    (job,) = jobs(SyncWheel(fresh.url), 1)
    steps = enqueue_batch(store.session, [job], {"q"})
    asked = next(steps)
    assert not isinstance(asked, float)
    (late,) = asked
    assert isinstance(late, Call)
    with pytest.raises(OutcomeUnknown):
        steps.throw(OutcomeUnknown("lost"))
    await store.drive(enqueue_batch(store.session, [job], {"q"}))
    forget(fresh, job.id)
    await store.send([late])
    assert stored(fresh) == set()
    await store.aclose()


@both
async def test_a_bulk_that_raised_half_way_does_not_make_its_ended_jobs_again(
    fresh: RedisServer, blocking: bool
) -> None:
    client = Client(fresh.url, blocking)
    batch = jobs(client.any, 30)
    with fresh.client() as redis:
        redis.hset(KEYS.meta, "cap", 15)
        with pytest.raises(QueueFull):
            await client.many(batch, 10)
        first = stored(fresh)
        assert len(first) == 10, "one chunk, whole; two are under way at a time"
        forget(fresh, *first)
        redis.hdel(KEYS.meta, "cap")
    answers = await client.many(batch, 10)
    assert [answer.job_id for answer in answers] == [job.id for job in batch]
    # A chunk that was cancelled before its answer came gets its first answer now: that it was made.
    assert {answer.job_id for answer in answers if answer.existed} <= first
    assert stored(fresh) == {job.id for job in batch} - first
    await client.close()


@both
async def test_another_process_may_complete_a_bulk(fresh: RedisServer, blocking: bool) -> None:
    first, second = Client(fresh.url, blocking), Client(fresh.url, blocking)
    batch, same = (
        [client.any.new_job("t", args=[n], id=f"order-{n}", keep=0, queue="q") for n in range(20)]
        for client in (first, second)
    )
    with fresh.client() as redis:
        redis.hset(KEYS.meta, "cap", 10)
        with pytest.raises(QueueFull):
            await first.many(batch, 10)
        ended = stored(fresh)
        assert len(ended) == 10
        forget(fresh, *ended)
        redis.hdel(KEYS.meta, "cap")
    await second.many(same, 10)
    assert stored(fresh) == {job.id for job in batch} - ended
    await first.close()
    await second.close()


@both
async def test_a_new_round_of_the_same_jobs_is_no_repeat(fresh: RedisServer, blocking: bool) -> None:
    client = Client(fresh.url, blocking)
    for _ in range(3):
        batch = [client.any.new_job("t", id=f"user-{n}", keep=0, queue="q") for n in range(20)]
        answers = await client.many(batch, 10)
        assert not any(answer.existed for answer in answers)
        assert len(stored(fresh)) == 20
        forget(fresh, *stored(fresh))
    with fresh.client() as redis:
        assert [key for key in redis.keys("*:replay:chunk:*") if redis.pttl(key) > 1000] == []
    await client.close()


@both
@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER], ids=["not carried out", "carried out"])
async def test_a_bulk_that_names_an_id_in_two_chunks_makes_no_other_job_twice(
    fresh: RedisServer, proxy: Proxy, blocking: bool, fault: Fault
) -> None:
    client = Client(proxy.url, blocking)
    await client.submit(jobs(client.any, 1)[0])
    ids = "a", "x", "y", "a", "z"
    batch = [client.any.new_job("t", args=[n], id=job_id, keep=0, queue="q") for n, job_id in enumerate(ids)]
    proxy.arm(fault, lambda command: name_of(command) == "enqueue" and b"z" in command)
    with pytest.raises(OutcomeUnknown):
        await client.many(batch, 3)
    forget(fresh, *ids)
    answers = await client.many(batch, 3)
    assert [answer.job_id for answer in answers] == list(ids)
    assert not {"x", "y"} & stored(fresh), "they ran already"
    assert ("z" in stored(fresh)) == (fault is Fault.BEFORE), "it ran already, or it is made now"
    forget(fresh, *ids)
    assert sum(answer.existed for answer in await client.many(batch, 3)) == 1, "a new round is no repeat"
    assert stored(fresh) >= set(ids)
    await client.close()
