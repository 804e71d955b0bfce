"""What a worker holds: places, claims, contexts, threads. Nothing leaks, and nothing of one job reaches another."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
import time
from collections.abc import Awaitable, Callable

import pytest

from tests.servers import RedisServer
from tests.workers.hands import Hands
from tests.workers.harness import Log, eventually, running
from zwheel import Discard, JobState, Reason, Wheel, current_job
from zwheel.workers import apart
from zwheel.workers.apart import is_suspect
from zwheel.workers.claims import Claim, Slots, Stop
from zwheel.workers.supervisor import describe_exit

pytestmark = pytest.mark.anyio

colour: contextvars.ContextVar[str] = contextvars.ContextVar("colour", default="none")


async def test_what_a_job_sets_in_its_context_is_not_seen_by_the_next(wheel: Wheel, log: Log) -> None:
    seen: list[str] = []

    @wheel.task
    async def paint(n: int) -> None:
        seen.append(colour.get())
        colour.set(f"set by job {n}")

    @wheel.task
    def paint_in_a_thread(n: int) -> None:
        seen.append(colour.get())
        colour.set(f"set by thread job {n}")

    await wheel.enqueue_many(paint.job(n) for n in range(10))
    await wheel.enqueue_many(paint_in_a_thread.job(n) for n in range(10))
    async with running(wheel, log, concurrency=1):
        await log.seen("done", count=20)
    assert seen == ["none"] * 20


async def test_a_job_that_had_to_wait_for_another_does_not_inherit_its_context(wheel: Wheel) -> None:
    seen: list[str] = []

    @wheel.task(name="t")
    async def paint() -> None:
        seen.append(colour.get())
        colour.set("set by a job")

    hands = Hands(wheel, 1)
    for _ in range(3):
        hands.submit(hands.claim("t"))
    await hands.log.seen("done", count=3)
    assert seen == ["none"] * 3


async def test_places_that_a_claim_did_not_fill_go_to_the_poller_that_waits_for_them() -> None:
    slots = Slots(2, 0)
    kicks: list[str] = []
    slots.reserve(2)
    assert (slots.room(), slots.full()) == (0, False)
    slots.when_room(lambda: kicks.append("kicked"))
    slots.answered(0)
    assert kicks == []
    slots.answered(2)
    assert (kicks, slots.room()) == (["kicked"], 2)
    slots.reserve(2)
    slots.when_room(lambda: kicks.append("for good"))
    slots.answered(2, taken=2)
    assert (kicks[1:], slots.room(), slots.full()) == (["for good"], 0, True)


async def test_the_same_job_id_in_two_queues_is_two_jobs_for_one_worker(wheel: Wheel, log: Log) -> None:
    gate = asyncio.Event()

    @wheel.task(keep=60)
    async def hold() -> None:
        await gate.wait()

    async with running(wheel, log, queues=("left", "right")):
        for queue in ("left", "right"):
            await hold.options(id="same", queue=queue).enqueue()
        await log.seen("start", "same", count=2)
        # Both leases must be renewed: wait until two leases later, by what Redis holds.
        first = [await wheel.get("same", queue) for queue in ("left", "right")]
        for before in first:
            assert before is not None and before.lease_until_ms is not None
            later = before.lease_until_ms + 600
            await eventually(
                lambda queue=before.queue: wheel.get("same", queue),  # type: ignore[misc]
                lambda job, later=later: job.lease_until_ms is None or job.lease_until_ms > later,  # type: ignore[misc]
                within=5,
            )
        gate.set()
        for queue in ("left", "right"):
            job = await wheel.wait("same", queue, timeout=5)
            assert (job.state, job.attempt) == (JobState.DONE, 1)
    assert log.of("lost") == []
    assert log.starts() == {"same": 2}


async def test_a_thread_that_outlives_its_timeout_keeps_its_place_and_no_other_job_waits_behind_it(
    wheel: Wheel, log: Log
) -> None:
    gate = threading.Event()

    @wheel.task(timeout=0.1, retries=0, keep=60)
    def stuck() -> None:
        gate.wait(20)

    @wheel.task(keep=60)
    async def quick() -> None:
        pass

    try:
        async with running(wheel, log, concurrency=1) as first:
            await stuck.options(id="stuck").enqueue()
            await log.seen("buried", "stuck")
            # The only place of this worker is taken by the thread: it must leave the next job to others.
            answer = await quick.enqueue()
            async with running(wheel, Log(), concurrency=1) as second:
                await second.log.seen("done", answer.job_id, within=3)
            gate.set()
            again = await quick.enqueue()
            await first.log.seen("done", again.job_id)
    finally:
        gate.set()
    dead = await wheel.get("stuck")
    assert dead is not None
    assert dead.reason == Reason.TIMEOUT


async def test_a_claim_cancelled_before_its_first_step_is_given_back_and_frees_its_place(wheel: Wheel) -> None:
    @wheel.task(name="t")
    async def task() -> None:
        raise AssertionError("it must not run")

    hands = Hands(wheel, 2)
    claim = hands.claim("t")
    hands.submit(claim)
    hands.runner.cancel_all(Stop.DRAIN)
    await hands.log.seen("released", within=2)
    await asyncio.sleep(0)
    assert hands.waiting == ["release"]
    assert (hands.slots.running, hands.slots.held) == (0, 0)
    assert not hands.runner.held


async def test_a_lease_lost_before_the_first_step_is_dropped_without_an_outcome(wheel: Wheel) -> None:
    @wheel.task(name="t")
    async def task() -> None:
        raise AssertionError("it must not run")

    hands = Hands(wheel, 1)
    running_one, waiting_one = hands.claim("t"), hands.claim("t")
    hands.submit(running_one)
    hands.submit(waiting_one)
    for claim in (running_one, waiting_one):
        hands.runner.lost(claim)
    await hands.log.seen("lost", running_one.job_id, within=2)
    await asyncio.sleep(0)
    assert hands.waiting == []
    assert (hands.slots.running, hands.slots.held) == (0, 0)
    assert not hands.runner.held


async def test_what_was_stopped_in_a_silence_has_nothing_to_tell_once_its_lease_is_known_to_be_lost(
    wheel: Wheel,
) -> None:
    gate = asyncio.Event()

    @wheel.task(name="t")
    async def task() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await gate.wait()

    hands = Hands(wheel, 1)
    claim = hands.claim("t")
    hands.submit(claim)
    await hands.log.seen("start")
    claim.cancel(Stop.SILENT)
    await asyncio.sleep(0)
    hands.runner.lost(claim)
    gate.set()
    await eventually(_nothing_runs(hands), bool)
    assert hands.waiting == []
    assert not hands.runner.held


async def test_an_older_claim_of_the_same_job_is_still_told_that_its_lease_is_lost(wheel: Wheel) -> None:
    never = asyncio.Event()

    @wheel.task(name="t")
    async def task() -> None:
        await never.wait()

    hands = Hands(wheel, 2)
    old = hands.claim("t")
    new = Claim(old.id, old.raw.replace(b"0000000000000001", b"0000000000000009", 1), old.queue, old.leased_ns)
    hands.submit(old)
    hands.submit(new)
    await hands.log.seen("start", count=2)
    assert {claim.token for claim in hands.runner.held} == {old.token, new.token}
    hands.runner.lost(old)
    await hands.log.seen("lost")
    assert set(hands.runner.held) == {new}
    hands.runner.cancel_all(Stop.DRAIN)
    await hands.log.seen("released")


async def test_a_claim_whose_lease_ran_out_is_not_started_before_the_heartbeat_confirmed_it(wheel: Wheel) -> None:
    @wheel.task(name="t")
    async def task() -> None:
        pass

    hands = Hands(wheel, 1)
    stale = hands.claim("t", age_ms=700)
    hands.submit(stale)
    hands.runner.fill()
    assert hands.slots.running == 0
    assert stale in hands.runner.held
    stale.leased_ns = time.monotonic_ns()
    await hands.log.seen("done", within=2)


async def test_a_claim_is_held_until_its_outcome_is_acknowledged(wheel: Wheel) -> None:
    @wheel.task(name="t")
    async def task(fate: str) -> None:
        if fate == "discard":
            raise Discard
        if fate == "fail":
            raise ValueError

    hands = Hands(wheel, 10)
    claims = [hands.claim("t", args=[fate]) for fate in ("end", "discard", "fail")]
    for claim in claims:
        hands.submit(claim)
    await hands.log.until(lambda: len(hands.log.events) == 6)
    assert set(hands.runner.held) == set(claims)
    # The heartbeat may hear that such a job is gone: its outcome, which is under way, arrived.
    for claim in claims:
        hands.runner.lost(claim)
    assert set(hands.runner.held) == set(claims)
    assert hands.log.of("lost") == []
    assert hands.waiting == ["complete", "bury", "retry"]
    assert not hands.runner.held


async def test_a_claim_that_is_older_than_half_a_lease_waits_for_the_heartbeat_which_is_asked_at_once(
    wheel: Wheel,
) -> None:
    @wheel.task(name="t")
    async def task() -> None:
        pass

    hands = Hands(wheel, 1)
    asked: list[str] = []
    hands.runner.renew = lambda: asked.append("beat")
    old, fresh = hands.claim("t", age_ms=310), hands.claim("t")
    hands.submit(old)
    assert asked == ["beat"]
    # The old job waits, and no other job waits for it: they may be of another queue, whose leases are renewed.
    hands.submit(fresh)
    await hands.log.seen("done", fresh.job_id)
    assert hands.log.of("start", old.job_id) == []
    old.leased_ns = time.monotonic_ns()
    hands.runner.fill()
    await hands.log.seen("done", old.job_id)


async def test_what_needs_no_event_loop_is_handed_over_while_a_task_blocks_it(wheel: Wheel) -> None:
    stage: list[tuple[Hands, Claim, Claim]] = []

    @wheel.task(name="t", timeout=0.001, retries=0)
    async def blocks() -> None:
        hands, thread, loop = stage[0]
        while not thread.returned or time.monotonic_ns() <= loop.deadline_ns:
            time.sleep(0.001)  # noqa: ASYNC251 - it blocks the loop
        # The heartbeat's thread does this.
        rescuer = threading.Thread(target=hands.rescue)
        rescuer.start()
        rescuer.join()

    @wheel.task(name="u")
    async def unstarted() -> None:
        raise AssertionError("it must not run")

    @wheel.task(name="v")
    def in_a_thread() -> None:
        pass

    hands = Hands(wheel, 3)
    thread, loop, later, last = (hands.claim(name) for name in "vtuu")
    stage.append((hands, thread, loop))
    for claim in (thread, loop, later, last):
        hands.submit(claim)
    await hands.log.seen("released", count=2)
    assert {about["job"] for about in hands.log.of("released")} == {later.job_id, last.job_id}
    await hands.log.seen("buried", loop.job_id)
    await hands.log.seen("done", thread.job_id)
    await eventually(_nothing_runs(hands), bool)
    assert (thread.ended, loop.stop, later.running) == (True, Stop.TIMEOUT, None)
    assert sorted(hands.waiting) == ["bury", "complete", "release"]
    assert (hands.slots.running, hands.slots.held) == (0, 0)


def _nothing_runs(hands: Hands) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return hands.slots.running == 0

    return look


LAPSED, FAILED, UNKNOWN = Reason.LEASE_EXPIRED, Reason.ERROR, Reason.UNKNOWN_TASK


@pytest.mark.parametrize(
    ("attempt", "reasons", "suspect"),
    [
        (1, [], False),
        (2, [LAPSED], False),
        (3, [LAPSED, LAPSED], True),
        (3, [LAPSED, FAILED], False),
        (3, [FAILED, LAPSED], False),
        (5, [FAILED, LAPSED, LAPSED], True),
        (3, [LAPSED, LAPSED, UNKNOWN], True),
        (10, [FAILED, LAPSED], False),
        (11, [FAILED, LAPSED], True),
        (11, [LAPSED, FAILED], False),
    ],
)
async def test_whoever_ended_with_its_process_twice_or_may_do_so_for_the_last_time_is_a_suspect(
    wheel: Wheel, attempt: int, reasons: list[Reason], suspect: bool
) -> None:
    assert is_suspect(Hands(wheel, 1).claim("t", attempt=attempt, reasons=reasons)) is suspect


async def test_one_suspect_runs_at_a_time_and_starts_when_the_others_are_back_on_the_wheel(
    wheel: Wheel, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = asyncio.Event()

    @wheel.task(name="t")
    async def task() -> None:
        await gate.wait()

    monkeypatch.setattr(apart, "CLEARED_S", 0.05)
    hands = Hands(wheel, 10)
    first, second, third, other = (hands.claim("t", attempt=3, reasons=[LAPSED] * 2) for _ in range(4))
    plain = [hands.claim("t") for _ in range(2)]
    for claim in (plain[0], first, second, plain[1], third):
        hands.submit(claim)
    await hands.log.seen("start", count=2)
    # Jobs that are no suspects run; further suspects go away for a while, unharmed.
    assert hands.log.starts() == {claim.job_id: 1 for claim in plain}
    assert [about["job"] for about in hands.log.of("released")] == [second.job_id, third.job_id]
    for _ in range(5):
        await asyncio.sleep(0)
    assert hands.log.of("start", first.job_id) == []
    taken = hands.settler.take()
    delays = [job["delay"] for call, _ in taken for job in call.trace(None).jobs]
    assert len(delays) == 2
    assert all(500 <= delay <= 2000 for delay in delays)
    taken[0][1](["ok", 1, "bb"])
    await hands.log.seen("start", first.job_id)
    # A job that has run for long without harm is no suspect any more: the next suspect may start.
    await asyncio.sleep(0.06)
    hands.submit(other)
    await hands.log.seen("start", other.job_id)
    gate.set()
    await hands.log.seen("done", count=4)


async def test_the_next_suspect_starts_when_the_outcome_of_the_last_one_is_acknowledged(wheel: Wheel) -> None:
    @wheel.task(name="t")
    async def task() -> None:
        pass

    hands = Hands(wheel, 10)
    first, second, third = (hands.claim("t", attempt=3, reasons=[LAPSED] * 2) for _ in range(3))
    hands.submit(first)
    await hands.log.seen("done", first.job_id)
    hands.submit(second)
    await hands.log.seen("released", second.job_id)
    assert sorted(hands.waiting) == ["complete", "release"]
    hands.submit(third)
    await hands.log.seen("done", third.job_id)


async def test_no_claim_is_started_once_the_worker_gives_back(wheel: Wheel) -> None:
    @wheel.task(name="t")
    async def task() -> None:
        raise AssertionError("it must not run")

    hands = Hands(wheel, 2)
    hands.runner.give_back()
    hands.submit(hands.claim("t"))
    await asyncio.sleep(0)
    assert hands.waiting == ["release"]
    assert (hands.slots.running, hands.slots.held) == (0, 0)


async def test_a_job_held_for_many_leases_runs_once(wheel: Wheel, log: Log, fresh: RedisServer) -> None:
    gate = asyncio.Event()

    @wheel.task(keep=60)
    async def hold() -> int:
        await gate.wait()
        return current_job().attempt

    async with running(wheel, log), running(wheel, log):
        answer = await hold.enqueue()
        await log.seen("start")
        job = await wheel.get(answer.job_id)
        assert job is not None and job.lease_until_ms is not None
        until = job.lease_until_ms + 1200
        await eventually(
            lambda: wheel.get(answer.job_id),
            lambda now: now is not None and (now.lease_until_ms or 0) > until,
            within=6,
        )
        gate.set()
        assert (await wheel.wait(answer.job_id, timeout=5)).attempt == 1
    assert log.starts() == {answer.job_id: 1}


async def test_jobs_with_large_arguments_are_renewed_in_several_calls_of_one_beat(
    wheel: Wheel, log: Log, fresh: RedisServer
) -> None:
    """The longest script stays short, and no lease is lost by that."""
    gate = asyncio.Event()

    @wheel.task(keep=60)
    async def hold(body: bytes) -> None:
        await gate.wait()

    async with running(wheel, log, lease_ms=3000, concurrency=20):
        ids = [(await hold.enqueue(os.urandom(250_000))).job_id for _ in range(20)]
        await log.until(lambda: len(log.of("start")) == 20)
        untils = [job.lease_until_ms or 0 for job in [await wheel.get(name) for name in ids] if job is not None]

        async def renewed() -> bool:
            jobs = [await wheel.get(name) for name in ids]
            return all(job is not None and (job.lease_until_ms or 0) > max(untils) + 3000 for job in jobs)

        await eventually(renewed, bool)
        gate.set()
        await log.until(lambda: len(log.of("done")) == 20)
    assert log.starts() == dict.fromkeys(ids, 1)


async def test_a_claim_has_an_end_even_when_its_worker_keeps_beating(wheel: Wheel, log: Log) -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    task = wheel.task(retries=0)(hang)
    async with running(wheel, log, longest_ms=1000):
        answer = await task.enqueue()
        await log.seen("lost", answer.job_id, within=5)
        dead = await eventually(
            lambda: wheel.get(answer.job_id), lambda job: job is not None and job.state is JobState.DEAD, within=5
        )
    assert dead is not None
    assert dead.reason == Reason.LEASE_EXPIRED


@pytest.mark.parametrize(
    ("code", "words"),
    [(3, "exit code 3"), (-9, "SIGKILL (out of memory?)"), (-11, "SIGSEGV"), (-250, "signal 250")],
)
async def test_the_end_of_a_worker_process_is_told_in_words(code: int, words: str) -> None:
    assert describe_exit(code) == words
