"""The async client: producing, sharing round trips, ids and dedup keys, caps, and the edges of its life."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import warnings
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest

from tests.endings import complete
from tests.proxy import Fault, Proxy
from tests.servers import RedisServer
from tests.workers.harness import eventually
from zwheel import (
    BadArguments,
    Codec,
    ConfigError,
    Enqueued,
    InvalidInput,
    InvalidName,
    InvalidTime,
    JobState,
    PayloadError,
    PayloadTooLarge,
    QueueFull,
    SyncWheel,
    Wheel,
)
from zwheel.broker.store import Store
from zwheel.calls import Session, claim, read_claim
from zwheel.calls.call import Lane
from zwheel.keys import ShardKeys
from zwheel.times import day_of

pytestmark = pytest.mark.anyio
KEYS = ShardKeys.of("zw", "default")


@pytest.fixture
async def wheel(url: str, anyio_backend: str) -> AsyncIterator[Wheel]:
    async with Wheel(url, namespace="zw", give_up_s=5) as made:
        yield made


def calls_of(server: RedisServer, command: str) -> int:
    with server.client() as client:
        return int(client.info("commandstats").get(f"cmdstat_{command}", {}).get("calls", 0))


async def run_out(url: str, count: int = 100) -> list[str]:
    """Claim what is due and complete it, as a worker would."""
    await anyio.sleep(0.002)  # what is due at once is due from the next ms on
    store = Store(url, Session("zw", caller="handhand"))
    session = store.session
    (reply,) = await store.send(
        [
            claim(
                KEYS, day=day_of(session.clock.now_ms()), worker="handhand", lease_ms=60_000, limit=count,
                lane=Lane("handhand", "claim", session.request()),
            )
        ]
    )  # fmt: skip
    jobs = read_claim(reply).jobs
    ends = [(jobs[i], jobs[i + 1][21:37]) for i in range(0, len(jobs), 2)]
    if ends:
        await store.send([complete(KEYS, ends, lane=Lane("handhand", "complete", session.request()))])
    await store.aclose()
    return [end[0].decode() for end in ends]


async def test_a_task_enqueues_its_call(wheel: Wheel) -> None:
    @wheel.task(name="mail.send", queue="mail", retries=4, keep=30)
    async def send(to: str, n: int = 1) -> None: ...

    answer = await send.enqueue("ada", n=2)
    job = await wheel.get(answer.job_id)
    assert job is not None
    assert (job.task, job.queue, job.max_attempts, job.keep_ms) == ("mail.send", "mail", 5, 30_000)
    assert (answer.existed, answer.queue, answer.state) == (False, "mail", JobState.SCHEDULED)
    assert answer.fire_at_ms == job.fire_at_ms
    assert wheel.codec.decode(job.body, context=f"mail.send\n{job.id}".encode())[:2] == (["ada"], {"n": 2})


async def test_what_cannot_be_right_is_refused_before_anything_is_sent(wheel: Wheel, fresh: RedisServer) -> None:
    @wheel.task(name="t")
    async def task(n: int) -> None: ...

    with pytest.raises(BadArguments):
        await task.enqueue()  # type: ignore[call-arg]
    with pytest.raises(BadArguments):
        await wheel.enqueue("t", args=[1, 2])
    with pytest.raises(InvalidTime):
        await task.options(at=datetime(2030, 1, 1)).enqueue(1)
    with pytest.raises(InvalidTime):
        await task.options(at=datetime.now(UTC), delay=1).enqueue(1)
    for delay in (-1, float("nan"), float("inf"), timedelta(days=2_920_000), timedelta(days=999_999_999)):
        with pytest.raises(InvalidTime):
            await task.options(delay=delay).enqueue(1)
        with pytest.raises(InvalidTime):
            await wheel.reschedule("any", delay=delay)
    with pytest.raises(InvalidName):
        await wheel.enqueue("t", args=[1], queue="a}{b")
    with pytest.raises(InvalidName):
        await wheel.enqueue("t", args=[1], id="no spaces")
    with pytest.raises(PayloadError):
        await wheel.enqueue("other", args=[object()])
    with pytest.raises(PayloadTooLarge):
        await wheel.enqueue("other", args=[os.urandom(300_000)])
    with pytest.raises(InvalidInput):
        await wheel.enqueue("t", args=[1], within=5)
    with pytest.raises(InvalidInput):
        await wheel.enqueue_many([], chunk=1001)
    with fresh.client() as client:
        assert client.dbsize() == 0


async def test_concurrent_enqueues_share_round_trips(wheel: Wheel, fresh: RedisServer) -> None:
    await wheel.enqueue("t", delay=60)
    before = calls_of(fresh, "evalsha")
    answers = await asyncio.gather(*(wheel.enqueue("t", args=[n], delay=60) for n in range(400)))
    assert calls_of(fresh, "evalsha") - before <= 3
    assert len({answer.job_id for answer in answers}) == 400
    assert await wheel.count("default", JobState.SCHEDULED) == 401


async def test_concurrent_enqueues_of_large_bodies_share_round_trips_of_a_bounded_size(
    wheel: Wheel, fresh: RedisServer
) -> None:
    data = os.urandom(200_000)
    with fresh.client() as client:
        await wheel.enqueue("t")
        before = client.info("commandstats")["cmdstat_evalsha"]["calls"]
        answers = await asyncio.gather(*(wheel.enqueue("t", args=[data]) for _ in range(61)))
        calls = client.info("commandstats")["cmdstat_evalsha"]["calls"] - before
    assert len({answer.job_id for answer in answers}) == 61
    # The first goes alone, then six at a time: 1.2 MB.
    assert calls == 11


async def test_each_queue_has_its_own_round_trips_and_each_caller_its_own_answer(wheel: Wheel) -> None:
    answers = await asyncio.gather(
        *(wheel.enqueue("t", id=f"{n % 10}-{n % 3}", queue=f"q{n % 3}", delay=60) for n in range(90))
    )
    for n, answer in enumerate(answers):
        assert (answer.job_id, answer.queue) == (f"{n % 10}-{n % 3}", f"q{n % 3}")
    assert sum(not answer.existed for answer in answers) == 30


async def test_a_caller_that_is_cancelled_breaks_nothing_for_the_others(wheel: Wheel, fresh: RedisServer) -> None:
    for _ in range(20):
        tasks = [asyncio.create_task(wheel.enqueue("t", delay=60)) for _ in range(20)]
        await asyncio.sleep(0)
        for n in (0, 3, 7, 19):
            tasks[n].cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert sum(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes) == 4
        stored = [outcome for outcome in outcomes if isinstance(outcome, Enqueued)]
        assert len(stored) == 16
        for answer in stored:
            assert not answer.existed
        probe = await wheel.enqueue("probe", delay=60)
        job = await wheel.get(probe.job_id)
        assert job is not None and job.task == "probe"


async def test_an_only_caller_that_is_cancelled_leaves_a_working_wheel(wheel: Wheel) -> None:
    alone = asyncio.create_task(wheel.enqueue("t", delay=60))
    await asyncio.sleep(0)
    alone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await alone
    first, second = asyncio.create_task(wheel.enqueue("t", delay=60)), asyncio.create_task(wheel.enqueue("t", delay=60))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.gather(first, second, return_exceptions=True)
    assert not (await wheel.enqueue("t", delay=60)).existed


async def test_a_caller_chosen_id_is_stored_once_and_answers_with_the_job(wheel: Wheel, url: str) -> None:
    first = await wheel.enqueue("t", args=[1], id="order-7", delay=60)
    again = await wheel.enqueue("other", args=[2], id="order-7")
    assert (first.existed, again.existed) == (False, True)
    assert (again.job_id, again.state, again.fire_at_ms) == ("order-7", JobState.SCHEDULED, first.fire_at_ms)
    job = await wheel.get("order-7")
    assert job is not None and job.task == "t"
    assert await wheel.reschedule("order-7", delay=0) == "rescheduled"
    assert await run_out(url) == ["order-7"]
    late = await wheel.enqueue("t", id="order-7")
    assert (late.existed, late.state) == (True, JobState.DONE)


async def test_sixteen_racing_producers_with_one_id_make_one_job(url: str) -> None:
    async def produce() -> list[Enqueued]:
        async with Wheel(url, namespace="zw") as own:
            return [await own.enqueue("t", id=f"id-{n}", delay=60) for n in range(30)]

    rounds = zip(*await asyncio.gather(*(produce() for _ in range(16))), strict=True)
    for answers in rounds:
        assert sum(not answer.existed for answer in answers) == 1


@pytest.mark.parametrize("within", [None, 60])
async def test_sixteen_racing_producers_with_one_dedup_key_make_one_job(url: str, within: float | None) -> None:
    async def produce() -> list[Enqueued]:
        async with Wheel(url, namespace="zw") as own:
            return [await own.enqueue("t", dedup=f"key-{n}", within=within, delay=60) for n in range(30)]

    rounds = zip(*await asyncio.gather(*(produce() for _ in range(16))), strict=True)
    for answers in rounds:
        (winner,) = [answer.job_id for answer in answers if not answer.existed]
        assert {answer.job_id for answer in answers} == {winner}


async def test_a_key_until_done_is_free_when_its_job_ended_and_a_key_with_a_window_is_not(
    wheel: Wheel, url: str
) -> None:
    until_done = await wheel.enqueue("t", dedup="a")
    window = await wheel.enqueue("t", dedup="b", within=60)
    assert (await wheel.enqueue("t", dedup="a")).job_id == until_done.job_id
    assert sorted(await run_out(url)) == sorted([until_done.job_id, window.job_id])
    assert not (await wheel.enqueue("t", dedup="a")).existed
    held = await wheel.enqueue("t", dedup="b", within=60)
    assert (held.existed, held.job_id, held.state) == (True, window.job_id, JobState.DONE)


async def test_a_short_window_ends(wheel: Wheel, url: str) -> None:
    await wheel.enqueue("t", dedup="b", within=0.05)
    await run_out(url)
    await eventually(lambda: wheel.enqueue("t", dedup="b", within=0.05), lambda answer: not answer.existed, within=5)


async def test_cancelling_frees_the_dedup_key(wheel: Wheel) -> None:
    first = await wheel.enqueue("t", dedup="k", within=3600, delay=60)
    assert (await wheel.enqueue("t", dedup="k", within=3600)).existed
    assert await wheel.cancel(first.job_id) == "cancelled"
    assert not (await wheel.enqueue("t", dedup="k")).existed


async def test_an_id_that_exists_does_not_take_a_dedup_key(wheel: Wheel) -> None:
    await wheel.enqueue("t", id="x", delay=60)
    assert (await wheel.enqueue("t", id="x", dedup="free", delay=60)).job_id == "x"
    assert not (await wheel.enqueue("t", dedup="free", delay=60)).existed


async def test_a_cap_is_exact_under_concurrent_producers(wheel: Wheel, url: str) -> None:
    await wheel.enqueue("t", delay=60)
    await wheel.set_cap("default", 100)

    async def produce(own: Wheel) -> int:
        outcomes = await asyncio.gather(*(own.enqueue("t", delay=60) for _ in range(40)), return_exceptions=True)
        assert all(isinstance(outcome, (Enqueued, QueueFull)) for outcome in outcomes)
        return sum(isinstance(outcome, Enqueued) for outcome in outcomes)

    async with Wheel(url, namespace="zw") as second, Wheel(url, namespace="zw") as third:
        stored = sum(await asyncio.gather(*(produce(own) for own in (wheel, second, third))))
    assert stored == 99
    with pytest.raises(QueueFull) as full:
        await wheel.enqueue("t", delay=60)
    assert (full.value.cap, full.value.queue) == (100, "default")
    await wheel.set_cap("default", None)
    assert not (await wheel.enqueue("t", delay=60)).existed


async def test_a_full_queue_still_answers_for_jobs_that_exist(wheel: Wheel) -> None:
    await wheel.enqueue("t", id="mine", delay=60)
    await wheel.set_cap("default", 1)
    assert (await wheel.enqueue("t", id="mine")).existed
    outcomes = await asyncio.gather(
        *(wheel.enqueue("t", id=name, delay=60) for name in ("mine", "new", "mine", "other")), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [Enqueued, QueueFull, Enqueued, QueueFull]


async def test_a_cancelled_caller_of_a_full_queue_is_no_trouble(wheel: Wheel) -> None:
    await wheel.enqueue("t", delay=60)
    await wheel.set_cap("default", 1)
    tasks = [asyncio.create_task(wheel.enqueue("t", delay=60)) for _ in range(6)]
    await asyncio.sleep(0)
    tasks[2].cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for n, outcome in enumerate(outcomes) if n != 2] == [QueueFull] * 5


async def test_one_oversized_job_does_not_take_its_neighbours_along(url: str) -> None:
    async with Wheel(url, namespace="zw") as wheel:
        job = wheel.new_job("t", delay=60)
        job.body = b"x" * 3_000_000
        big = [wheel.submit(job)]
        small = [wheel.enqueue("t", args=[n], delay=60) for n in range(4)]
        outcomes = await asyncio.gather(*small[:2], *big, *small[2:], return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Enqueued, Enqueued, PayloadTooLarge, Enqueued, Enqueued]


async def test_enqueue_many_keeps_the_order_across_chunks_and_queues(wheel: Wheel) -> None:
    jobs = [wheel.new_job("t", args=[n], queue=f"q{n % 2}", delay=60) for n in range(1203)]
    seen: list[int] = []
    answers = await wheel.enqueue_many(iter(jobs), chunk=100, progress=seen.append)
    assert [answer.job_id for answer in answers] == [job.id for job in jobs]
    assert not any(answer.existed for answer in answers)
    assert [answer.queue for answer in answers[:2]] == ["q0", "q1"]
    assert (seen, len(seen)) == ([*range(100, 1201, 100), 1203], 13)
    assert await wheel.count("q0", JobState.SCHEDULED) + await wheel.count("q1", JobState.SCHEDULED) == 1203


async def test_enqueue_many_stores_chunks_whole_and_a_repeat_completes_to_exactly_n(
    wheel: Wheel, fresh: RedisServer
) -> None:
    jobs = [wheel.new_job("t", args=[n], delay=60) for n in range(1000)]
    with Proxy(fresh.socket) as proxy:
        async with Wheel(proxy.url, namespace="zw", give_up_s=0.1) as far:
            await wheel.enqueue("warm", delay=60, queue="warm")

            def from_the_fourth_on(command: list[bytes]) -> bool:
                return proxy.passed["enqueue"] >= 3 and command[0] == b"EVALSHA"

            proxy.arm(Fault.AFTER, from_the_fourth_on, times=10_000)
            with pytest.raises(Exception, match="no answer|cannot reach"):
                await far.enqueue_many(jobs, chunk=100)
        stored = await wheel.count("default", JobState.SCHEDULED)
        assert 300 <= stored < 1000
        assert stored % 100 == 0
    answers = await wheel.enqueue_many(jobs, chunk=100)
    assert sum(answer.existed for answer in answers) == stored
    assert await wheel.count("default", JobState.SCHEDULED) == 1000


async def test_enqueue_many_over_the_cap_stores_no_part_of_a_chunk(wheel: Wheel) -> None:
    await wheel.set_cap("default", 250)
    with pytest.raises(QueueFull):
        await wheel.enqueue_many((wheel.new_job("t", delay=60) for _ in range(600)), chunk=100)
    assert await wheel.count("default", JobState.SCHEDULED) == 200


async def test_a_fault_of_the_source_of_jobs_passes_through_and_leaves_a_working_wheel(wheel: Wheel) -> None:
    def source() -> object:
        yield from (wheel.new_job("t", delay=60) for _ in range(250))
        raise RuntimeError("line 251 is no JSON")

    with pytest.raises(RuntimeError):
        await wheel.enqueue_many(source(), chunk=100)  # type: ignore[arg-type]
    assert not (await wheel.enqueue("t", delay=60)).existed


async def test_enqueue_many_of_nothing_is_nothing(wheel: Wheel, fresh: RedisServer) -> None:
    assert await wheel.enqueue_many([]) == []


async def test_a_wheel_can_be_closed_and_used_again(wheel: Wheel) -> None:
    await wheel.enqueue("t", delay=60)
    await wheel.aclose()
    await wheel.aclose()
    assert await wheel.count("default", JobState.SCHEDULED) == 1


async def test_closing_lets_what_is_under_way_end(url: str) -> None:
    wheel = Wheel(url, namespace="zw")
    tasks = [asyncio.create_task(wheel.enqueue("t", delay=60)) for _ in range(50)]
    await asyncio.sleep(0)
    await wheel.aclose()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    async with Wheel(url, namespace="zw") as other:
        stored = [outcome for outcome in outcomes if isinstance(outcome, Enqueued)]
        assert await other.count("default", JobState.SCHEDULED) >= len(stored) > 0


async def test_options_do_not_change_the_task_they_are_made_from(wheel: Wheel) -> None:
    @wheel.task
    async def task() -> None: ...

    later = task.options(delay=60, queue="q")
    both = later.options(id="x")
    assert (await both.enqueue()).queue == "q"
    assert (await task.enqueue()).queue == "default"
    assert (await later.enqueue()).job_id != "x"


def test_one_wheel_serves_two_event_loops_one_after_the_other(url: str) -> None:
    wheel = Wheel(url, namespace="zw")

    async def produce(close: bool) -> int:
        answers = await asyncio.gather(*(wheel.enqueue("t", delay=60) for _ in range(20)))
        if close:
            await wheel.aclose()
        return sum(not answer.existed for answer in answers)

    assert asyncio.run(produce(close=True)) == 20
    assert asyncio.run(produce(close=True)) == 20


def test_a_wheel_that_was_not_closed_serves_the_next_event_loop_too(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # asyncio complains about the connections of the loops that are gone; here it does so to nobody.
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    warnings.simplefilter("ignore", ResourceWarning)
    wheel = Wheel(url, namespace="zw")

    async def produce() -> int:
        return sum(not a.existed for a in await asyncio.gather(*(wheel.enqueue("t", delay=60) for _ in range(20))))

    assert [asyncio.run(produce()) for _ in range(3)] == [20, 20, 20]

    asyncio.run(wheel.aclose())
    gc.collect()


@pytest.mark.parametrize("raw", [b"", b"1", b"\xff" * 80, b"1q" + b"9" * 60], ids=range(4))
async def test_an_id_whose_record_is_damaged_is_answered_as_one_that_exists(
    wheel: Wheel, fresh: RedisServer, raw: bytes
) -> None:
    with fresh.client() as client:
        client.hset("{zw:default:0}:jobs", "x", raw)
    answer = await wheel.enqueue("t", id="x")
    assert (answer.job_id, answer.existed) == ("x", True)
    job = await wheel.get("x")
    assert job is not None
    assert job.unreadable


@pytest.mark.parametrize("holder", [b"", b"a b c", b"\xff", b"x" * 100_000], ids=range(4))
async def test_a_dedup_key_with_a_damaged_holder_is_answered(wheel: Wheel, fresh: RedisServer, holder: bytes) -> None:
    await wheel.enqueue("t", dedup="k", within=600, delay=60)
    with fresh.client() as client:
        digests: Any = client.hkeys("{zw:default:0}:dedup")
        client.hset("{zw:default:0}:dedup", digests[0], holder)
    assert (await wheel.enqueue("t", dedup="k")).existed


@pytest.mark.parametrize("kind", [Wheel, SyncWheel])
def test_a_payload_limit_that_no_script_takes_is_refused(kind: type[Wheel | SyncWheel]) -> None:
    kind("memory://", codec=Codec(limit=2_097_152))
    with pytest.raises(ConfigError, match="too large"):
        kind("memory://", codec=Codec(limit=2_097_153))


async def test_large_dead_jobs_are_redriven_in_several_calls(wheel: Wheel, fresh: RedisServer) -> None:
    body = b"x" * 200_000
    async with Wheel(fresh.url, namespace="zw", codec=Codec(compress_over=None)) as plain:
        made = [(await plain.enqueue("t", args=[body])).job_id for _ in range(30)]
    keys = ShardKeys.of("zw", "default")
    with fresh.client() as client:
        for bucket in client.scan_iter(keys.wheel("*").replace("{", "[{]")):
            client.delete(bucket)
        for job_id in made:
            raw = client.hget(keys.jobs, job_id)
            assert raw[49:52] == b"01B"
            # As a version left them that kept large bodies in the records.
            body_too = raw[64:] + client.hget(keys.bodies, job_id)
            client.hset(keys.jobs, job_id, raw[:1] + b"x" + raw[2:49] + b"00" + body_too)
            client.zadd(keys.dead, {job_id: 1})
        client.delete(keys.bodies)
    seen: list[int] = []
    assert await wheel.redrive("default", made[:15], progress=seen.append) == 15
    assert len(seen) > 1
    assert await wheel.redrive("default", task="t") == 15
    assert await wheel.count("default", JobState.DEAD) == 0
    assert await wheel.count("default", JobState.SCHEDULED) == 30
