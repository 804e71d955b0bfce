"""What a client can look at and do: jobs, queues, days, dead jobs, and the edges of each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from tests.endings import bury, complete
from tests.servers import RedisServer
from zwheel import (
    BrokerRefused,
    Failure,
    InvalidInput,
    InvalidName,
    Job,
    JobNotFound,
    JobState,
    Reason,
    WaitTimeout,
    Wheel,
    operations,
)
from zwheel.broker.store import Store
from zwheel.calls import Session, claim, read_claim
from zwheel.calls.call import Lane
from zwheel.keys import ShardKeys
from zwheel.record import write_failures
from zwheel.times import day_of

pytestmark = pytest.mark.anyio


@pytest.fixture
async def wheel(url: str, anyio_backend: str) -> AsyncIterator[Wheel]:
    async with Wheel(url, namespace="zw", give_up_s=5) as made:
        yield made


class Hand:
    """Does to due jobs what a worker would, one move at a time."""

    def __init__(self, url: str, queue: str = "default") -> None:
        self.store = Store(url, Session("zw", caller="handhand"))
        self.keys = ShardKeys.of("zw", queue)
        self.tokens: dict[str, bytes] = {}

    def _lane(self, name: str) -> Lane:
        return Lane("handhand", name, self.store.session.request())

    async def claim(self, limit: int = 1000) -> list[str]:
        await asyncio.sleep(0.002)  # what was enqueued for now is due from the next whole ms on
        day = day_of(self.store.session.clock.now_ms())
        names: list[str] = []
        while True:
            call = claim(self.keys, day=day, worker="handhand", lease_ms=60_000, limit=limit, lane=self._lane("claim"))
            claimed = read_claim((await self.store.send([call]))[0])
            for i in range(0, len(claimed.jobs), 2):
                name = claimed.jobs[i].decode()
                self.tokens[name] = claimed.jobs[i + 1][21:37]
                names.append(name)
            if claimed.word != "moved" and (not claimed.jobs or len(names) >= limit):
                return names
            day = claimed.day or day

    async def complete(self, names: Sequence[str]) -> None:
        await self.store.send([complete(self.keys, [(n, self.tokens[n]) for n in names], lane=self._lane("complete"))])

    async def bury(self, names: Sequence[str], reason: Reason = Reason.ERROR) -> None:
        failures = write_failures([Failure(at_ms=1, attempt=1, reason=reason, message="as told")])
        graves = [(n, self.tokens[n], failures) for n in names]
        await self.store.send([bury(self.keys, graves, most_dead=10_000, lane=self._lane("bury"))])


@pytest.fixture
async def hand(url: str, anyio_backend: str) -> AsyncIterator[Hand]:
    made = Hand(url)
    yield made
    await made.store.aclose()


async def test_a_job_is_found_in_whatever_queue_it_is(wheel: Wheel) -> None:
    for n in range(5):
        await wheel.enqueue("t", id=f"job-{n}", queue=f"queue-{n}", delay=60)
    for n in range(5):
        job = await wheel.get(f"job-{n}")
        assert job is not None and job.queue == f"queue-{n}"
        assert await wheel.get(f"job-{n}", f"queue-{(n + 1) % 5}") is None
    assert await wheel.get("job-9") is None
    assert await wheel.queues() == [f"queue-{n}" for n in range(5)]
    with pytest.raises(InvalidName):
        await wheel.get("no such id")


async def test_an_empty_server_has_an_answer_for_everything(wheel: Wheel) -> None:
    info = await wheel.queue("nothing")
    assert (info.scheduled, info.due, info.processing, info.dead, info.done, info.workers) == (0, 0, 0, 0, 0, 0)
    assert (info.paused, info.cap, info.oldest_due_ms, info.next_fire_ms) == (False, None, None, None)
    for nothing in (await wheel.queues(), await wheel.workers(), await wheel.days("nothing")):
        assert nothing == []
    assert await wheel.jobs("nothing") == await wheel.dead("nothing") == []
    assert await wheel.get("x") is None
    assert await wheel.cancel("x") == "unknown"
    assert await wheel.reschedule("x", delay=1) == "missing"
    assert await wheel.redrive("nothing") == await wheel.purge("nothing", JobState.DEAD) == 0
    with pytest.raises(JobNotFound):
        await wheel.wait("x", timeout=1)


async def test_the_end_of_a_job_that_was_cancelled_is_known_whatever_it_is_kept_for(wheel: Wheel) -> None:
    for name, keep in (("short", 5), ("long", 7200)):
        await wheel.enqueue("t", id=name, delay=60, keep=keep)
        await wheel.cancel(name)
        job = await wheel.get(name)
        assert job is not None and job.ended_at_ms is not None and job.kept_until_ms is not None
        assert abs(time.time() * 1000 - job.ended_at_ms) < 60_000
        assert job.kept_until_ms - job.ended_at_ms == max(600, keep) * 1000


async def test_each_state_tells_what_it_knows(wheel: Wheel, hand: Hand) -> None:
    for name in ("done", "dead", "running"):
        await wheel.enqueue("t", id=name)
    await wheel.enqueue("t", id="later", delay=60)
    await wheel.enqueue("t", id="never", delay=60)
    await hand.claim()
    await hand.complete(["done"])
    await hand.bury(["dead"])
    await wheel.cancel("never")
    jobs: dict[str, Job] = {job.id: job for job in await wheel.jobs("default")}
    assert {name: job.state for name, job in jobs.items()} == {
        "running": JobState.PROCESSING, "later": JobState.SCHEDULED, "dead": JobState.DEAD, "done": JobState.DONE,
        "never": JobState.CANCELLED,
    }  # fmt: skip
    assert [job.id for job in await wheel.jobs("default")][:3] == ["running", "later", "dead"]
    assert jobs["running"].worker == "handhand"
    assert jobs["running"].lease_until_ms is not None
    assert jobs["dead"].reason == Reason.ERROR and jobs["dead"].failures[-1].message == "as told"
    now_ms = time.time() * 1000
    for name, keep_ms in (("done", 3_600_000), ("never", 3_600_000)):
        ended, kept = jobs[name].ended_at_ms, jobs[name].kept_until_ms
        assert ended is not None and kept is not None
        assert abs(now_ms - ended) < 60_000 and kept - ended == keep_ms
    assert jobs["dead"].ended_at_ms is not None and abs(now_ms - jobs["dead"].ended_at_ms) < 60_000
    assert jobs["dead"].kept_until_ms is jobs["later"].kept_until_ms is jobs["later"].ended_at_ms is None
    assert jobs["done"].ran_ms is not None and 0 <= jobs["done"].ran_ms < 60_000
    assert jobs["never"].ran_ms is jobs["running"].ran_ms is None
    assert jobs["done"].body == b"" and jobs["later"].body != b""
    info = await wheel.queue("default")
    assert (info.scheduled, info.due, info.processing, info.dead, info.done) == (1, 0, 1, 1, 2)
    assert info.next_fire_ms == jobs["later"].fire_at_ms


async def test_pages_of_jobs_are_complete_and_do_not_overlap(wheel: Wheel) -> None:
    now = datetime.now(UTC)
    jobs = [wheel.new_job("t", at=now + timedelta(hours=7 * n)) for n in range(1, 41)]
    await wheel.enqueue_many(jobs)
    for limit in (1, 7, 40, 100):
        seen: list[str] = []
        while page := await wheel.jobs("default", JobState.SCHEDULED, limit=limit, offset=len(seen)):
            assert len(page) <= limit
            seen += [job.id for job in page]
        assert seen == [job.id for job in jobs]


async def test_done_jobs_are_listed_although_newer_ones_were_cancelled(wheel: Wheel, hand: Hand) -> None:
    names = [f"done-{n}" for n in range(5)]
    for name in names:
        await wheel.enqueue("t", id=name, keep=60)
    await hand.complete(await hand.claim())
    for n in range(5):
        await wheel.enqueue("t", id=f"cancelled-{n}", delay=60, keep=3600)
        await wheel.cancel(f"cancelled-{n}")
    assert {job.id for job in await wheel.jobs("default", JobState.DONE, limit=5)} == set(names)
    assert len(await wheel.jobs("default", JobState.DONE, limit=3)) == 3
    assert len(await wheel.jobs("default", JobState.DONE, limit=3, offset=3)) == 2
    assert len(await wheel.jobs("default", JobState.CANCELLED, limit=2, offset=1)) == 2


async def test_days_and_hours_tell_what_is_on_the_wheel(wheel: Wheel) -> None:
    first = datetime(2031, 5, 6, 0, 0, tzinfo=UTC)
    for at in (first, first + timedelta(hours=5), first + timedelta(hours=5, minutes=59, seconds=59.999)):
        await wheel.enqueue("t", at=at)
    await wheel.enqueue("t", at=first + timedelta(days=1) - timedelta(milliseconds=1))
    await wheel.enqueue("t", at=first + timedelta(days=1))
    days = await wheel.days("default")
    assert [(day.day, day.jobs) for day in days] == [("20310506", 4), ("20310507", 1)]
    assert days[0].first_ms == int(first.timestamp() * 1000)
    assert days[0].last_ms == int(first.timestamp() * 1000) + 86_399_999
    hours = await wheel.hours("default", "20310506")
    assert (len(hours), hours[0], hours[5], hours[23], sum(hours)) == (24, 1, 2, 1, 4)
    assert sum(await wheel.hours("default", "20310507")) == 1
    assert sum(await wheel.hours("default", "20310508")) == 0


async def test_due_jobs_of_days_past_are_counted(wheel: Wheel) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    for days in (400, 3, 0):
        await wheel.enqueue("t", at=now - timedelta(days=days))
    await wheel.enqueue("t", delay=3600)
    info = await wheel.queue("default")
    assert (info.scheduled, info.due) == (4, 3)
    assert info.oldest_due_ms == info.next_fire_ms == int((now - timedelta(days=400)).timestamp() * 1000)


async def test_cancelling_says_what_it_met(wheel: Wheel, hand: Hand) -> None:
    for name in ("running", "ended"):
        await wheel.enqueue("t", id=name)
    await wheel.enqueue("t", id="waiting", delay=60)
    await hand.claim()
    await hand.complete(["ended"])
    assert await wheel.cancel("waiting") == "cancelled"
    assert await wheel.cancel("waiting") == "cancelled"
    assert await wheel.cancel("running") == "cancel_requested"
    assert await wheel.cancel("ended", "default") == "too_late"
    assert await wheel.cancel("nobody") == "unknown"


async def test_rescheduling_says_what_it_met_and_moves_across_days(wheel: Wheel, hand: Hand) -> None:
    await wheel.enqueue("t", id="a", delay=60)
    for at in (datetime(2099, 12, 31, 23, 59, tzinfo=UTC), datetime.now(UTC) - timedelta(days=2)):
        assert await wheel.reschedule("a", at=at) == "rescheduled"
        (day,) = await wheel.days("default")
        assert day.day == at.strftime("%Y%m%d")
    assert await hand.claim() == ["a"]
    assert await wheel.reschedule("a", delay=60) == "running"
    await hand.complete(["a"])
    assert await wheel.reschedule("a", delay=60) == "ended"
    assert await wheel.reschedule("b", delay=60) == "missing"


async def test_waiting_ends_with_the_job_with_its_time_or_with_its_absence(wheel: Wheel, hand: Hand) -> None:
    await wheel.enqueue("t", id="a", keep=60)
    await wheel.enqueue("t", id="gone", keep=0)
    waiting = asyncio.create_task(wheel.wait("a", timeout=10))
    vanishing = asyncio.create_task(wheel.wait("gone", timeout=10))
    with pytest.raises(WaitTimeout):
        await wheel.wait("a", timeout=0)
    await hand.claim()
    with pytest.raises(WaitTimeout) as late:
        await wheel.wait("a", timeout=timedelta(milliseconds=30))
    assert "processing" in str(late.value)
    await hand.complete(["a", "gone"])
    assert (await waiting).state is JobState.DONE
    with pytest.raises(JobNotFound):
        await vanishing


async def test_purging_deletes_one_state_only(wheel: Wheel, hand: Hand) -> None:
    for name in ("done", "dead", "running"):
        await wheel.enqueue("t", id=name)
    await hand.claim()
    await hand.complete(["done"])
    await hand.bury(["dead"])
    await wheel.enqueue_many(wheel.new_job("t", delay=3600 * n, dedup=f"k{n}") for n in range(1, 700))
    seen: list[int] = []
    assert await wheel.purge("default", JobState.SCHEDULED, progress=seen.append) == 699
    assert seen[-1] == 699
    assert await wheel.days("default") == []
    assert not (await wheel.enqueue("t", dedup="k1", delay=60)).existed
    for refused in (JobState.PROCESSING, JobState.CANCELLED):
        with pytest.raises(InvalidInput):
            await wheel.purge("default", refused)
    assert await wheel.count("default", JobState.DONE) == 1
    assert await wheel.purge("default", JobState.DEAD) == 1
    assert await wheel.purge("default", JobState.DONE) == 1
    assert await wheel.count("default", JobState.PROCESSING) == 1


async def test_dead_jobs_are_redriven_by_id_by_reason_by_task_or_all(wheel: Wheel, hand: Hand) -> None:
    for n in range(12):
        await wheel.enqueue("even" if n % 2 == 0 else "odd", id=f"d{n}")
    await hand.claim()
    await hand.bury([f"d{n}" for n in range(6)], Reason.TIMEOUT)
    await hand.bury([f"d{n}" for n in range(6, 12)], Reason.ERROR)
    assert await wheel.redrive("default", ["d0", "d0", "nobody"]) == 1
    assert await wheel.redrive("default", reason="timeout", task="odd") == 3
    assert await wheel.redrive("default", reason="discarded") == 0
    assert {job.id for job in await wheel.dead("default")} == {"d2", "d4", *(f"d{n}" for n in range(6, 12))}
    assert await wheel.redrive("default", task="even") == 5
    assert await wheel.redrive("default") == 3
    assert await wheel.count("default", JobState.DEAD) == 0
    again = await wheel.get("d0")
    assert again is not None and (again.attempt, again.state) == (0, JobState.SCHEDULED)
    claimed = set(await hand.claim())
    while len(claimed) < 12:  # due at the next whole ms, which may not have begun
        claimed |= set(await hand.claim())
    assert claimed == {f"d{n}" for n in range(12)}


async def test_many_dead_jobs_are_redriven_by_two_at_once_and_none_is_left(wheel: Wheel, hand: Hand, url: str) -> None:
    await wheel.enqueue_many(wheel.new_job("t") for _ in range(2600))
    names: list[str] = []
    while part := await hand.claim():
        names += part
    for start in range(0, len(names), 500):
        await hand.bury(names[start : start + 500])
    async with Wheel(url, namespace="zw") as second:
        moved = await asyncio.gather(wheel.redrive("default"), second.redrive("default"))
    assert sum(moved) == 2600
    assert await wheel.count("default", JobState.DEAD) == 0


async def test_jobs_that_someone_else_redrives_meanwhile_do_not_hide_others(wheel: Wheel, hand: Hand) -> None:
    await wheel.enqueue_many([wheel.new_job("t") for _ in range(900)])
    names = await hand.claim()
    await hand.bury(names)
    steps = operations.redrive(hand.store.session, "default", None, None, None)
    ask = next(steps)
    looked = False
    with pytest.raises(StopIteration) as end:
        while True:
            assert not isinstance(ask, (int, float))
            replies = await hand.store.send(ask)
            if not looked and "LIMIT" in ask[0]:
                looked = True
                assert await wheel.redrive("default", [name.decode() for name in replies[0][:400]]) == 400
            ask = steps.send(replies)
    assert end.value.value == 500
    assert await wheel.count("default", JobState.DEAD) == 0


async def test_a_dead_job_whose_key_another_job_holds_stays_dead_and_the_rest_is_redriven(
    wheel: Wheel, hand: Hand
) -> None:
    await wheel.enqueue("t", id="old", dedup="k")
    await wheel.enqueue_many(wheel.new_job("t") for _ in range(3))
    await hand.bury(await hand.claim())
    assert not (await wheel.enqueue("t", id="new", dedup="k", delay=60)).existed
    assert await wheel.redrive("default") == 3
    assert [job.id for job in await wheel.dead("default")] == ["old"]


async def test_dead_jobs_are_purged_by_id_by_age_or_all(wheel: Wheel, hand: Hand) -> None:
    await wheel.enqueue_many(wheel.new_job("t", id=f"d{n}") for n in range(6))
    await hand.bury(await hand.claim())
    assert await wheel.purge_dead("default", ["d0", "nobody"]) == 1
    assert await wheel.purge_dead("default", older_than_ms=3_600_000) == 0
    assert await wheel.count("default", JobState.DEAD) == 5
    assert await wheel.purge_dead("default", older_than_ms=0) == 5
    assert await wheel.get("d1") is None


async def test_a_record_of_another_version_is_shown_and_left_alone(wheel: Wheel, fresh: RedisServer) -> None:
    await wheel.enqueue("t", id="a", delay=60)
    keys = ShardKeys.of("zw", "default")
    with fresh.client() as client:
        record = client.hget(keys.jobs, "a")
        assert isinstance(record, bytes)
        client.hset(keys.jobs, "a", b"9" + record[1:])
    job = await wheel.get("a")
    assert job is not None and "version" in job.failures[0].message
    with pytest.raises(BrokerRefused):
        await wheel.cancel("a")
    with pytest.raises(BrokerRefused):
        await wheel.reschedule("a", delay=5)


async def test_a_cap_must_be_a_number_of_jobs(wheel: Wheel) -> None:
    for cap in (0, -5):
        with pytest.raises(InvalidInput):
            await wheel.set_cap("default", cap)
    await wheel.set_cap("default", 5)
    assert (await wheel.queue("default")).cap == 5
    await wheel.set_cap("default", None)
    assert (await wheel.queue("default")).cap is None
