"""Whatever a task raises becomes an outcome of its job; the worker goes on, and so does every other job."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.servers import RedisServer
from tests.workers.harness import Log, eventually, one_kind, running
from tests.workers.test_outcomes import AT_ONCE, died
from zwheel import JobState, Reason, Wheel
from zwheel.keys import ShardKeys
from zwheel.record import MESSAGE_CHARS, TRACEBACK_CHARS

pytestmark = pytest.mark.anyio


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Endless(Exception):
    def __str__(self) -> str:
        return str(self)


class Wordless(Exception):
    def __str__(self) -> str:
        return 7  # type: ignore[return-value]


class Own(BaseException):
    pass


def deep(n: int = 0) -> int:
    return deep(n + 1) + 1


def raises(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


def exits() -> None:
    sys.exit(3)


WILD: dict[str, tuple[Callable[[], Any], str]] = {
    "SystemExit": (exits, "SystemExit"),
    "KeyboardInterrupt": (raises(KeyboardInterrupt()), "KeyboardInterrupt"),
    "BaseException": (raises(Own("mine")), "Own"),
    "GeneratorExit": (raises(GeneratorExit()), "GeneratorExit"),
    "CancelledError": (raises(asyncio.CancelledError()), "CancelledError"),
    "deep recursion": (deep, "RecursionError"),
    "a text that raises": (raises(Unspeakable()), "Unspeakable"),
    "a text without end": (raises(Endless()), "Endless"),
    "a text that is none": (raises(Wordless()), "Wordless"),
    "10 MB of text": (raises(ValueError("x" * 10_000_000)), "ValueError"),
    "a lone surrogate": (raises(ValueError("\ud800 \x1b[31m \x00")), "ValueError"),
    "a group": (raises(BaseExceptionGroup("many", [KeyboardInterrupt(), ValueError()])), "BaseExceptionGroup"),
    "MemoryError": (raises(MemoryError()), "MemoryError"),
    "TimeoutError": (raises(TimeoutError()), "TimeoutError"),
}
IN_A_THREAD = {**WILD, "StopIteration": (raises(StopIteration(1)), "StopIteration")}
IN_THE_LOOP = {**WILD, "StopIteration": (raises(StopIteration(1)), "RuntimeError")}


async def test_no_exception_of_an_async_task_ends_the_worker(wheel: Wheel, log: Log) -> None:
    @wheel.task(retries=1, backoff=AT_ONCE)
    async def wild(name: str) -> None:
        IN_THE_LOOP[name][0]()

    await _survives(wheel, log, wild, IN_THE_LOOP)


async def test_no_exception_of_a_sync_task_ends_the_worker(wheel: Wheel, log: Log) -> None:
    @wheel.task(retries=1, backoff=AT_ONCE)
    def wild(name: str) -> None:
        IN_A_THREAD[name][0]()

    await _survives(wheel, log, wild, IN_A_THREAD)


async def _survives(wheel: Wheel, log: Log, wild: Any, table: dict[str, tuple[Any, str]]) -> None:
    async with running(wheel, log, concurrency=4) as worker:
        answers = {name: await wild.enqueue(name) for name in table}
        for name, (_, kind) in table.items():
            job = await died(wheel, answers[name].job_id)
            assert (job.attempt, job.reason, job.failures[-1].kind) == (2, Reason.ERROR, kind), name
            for failure in job.failures:
                assert len(failure.message) <= MESSAGE_CHARS
                assert len(failure.traceback) <= TRACEBACK_CHARS
                assert failure.message.isprintable() or "\n" in failure.message
        assert not worker.task.done()


async def test_a_task_that_cancels_itself_is_a_failure_and_a_task_that_is_cancelled_by_a_friend_too(
    wheel: Wheel, log: Log
) -> None:
    @wheel.task(retries=0)
    async def own() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1)

    async with running(wheel, log):
        job = await died(wheel, (await own.enqueue()).job_id)
        assert job.failures[-1].kind == "CancelledError"
        again = await died(wheel, (await own.enqueue()).job_id)
    assert again.reason == Reason.ERROR


async def test_a_task_that_starts_background_tasks_and_ends_does_not_disturb_the_worker(wheel: Wheel, log: Log) -> None:
    left: list[asyncio.Task[None]] = []

    async def later() -> None:
        await asyncio.Event().wait()

    @wheel.task(keep=60)
    async def spawn() -> None:
        left.append(asyncio.get_running_loop().create_task(later()))

    async with running(wheel, log):
        assert (await wheel.wait((await spawn.enqueue()).job_id, timeout=5)).state is JobState.DONE
    left[0].cancel()


@one_kind
async def test_an_unknown_task_waits_for_a_worker_that_knows_it(wheel: Wheel, log: Log, url: str) -> None:
    answer = await wheel.enqueue("late.bloomer", args=[5], keep=60, retries=0)
    seen: list[int] = []
    async with running(wheel, log):
        await log.seen("unknown", answer.job_id)
    async with Wheel(url, namespace="zw") as other:

        @other.task(name="late.bloomer")
        async def bloom(n: int) -> None:
            seen.append(n)

        async with running(other):
            job = await wheel.wait(answer.job_id, timeout=10)
    assert seen == [5]
    # It had one attempt only, and the worker that did not know it burnt none.
    assert (job.state, job.attempt, job.max_attempts) == (JobState.DONE, 1, 1)


@one_kind
async def test_an_unknown_task_is_buried_after_its_time_and_waits_as_long_again_when_redriven(
    wheel: Wheel, log: Log
) -> None:
    answer = await wheel.enqueue("nobody.knows", retries=5)
    async with running(wheel, log, unknown_ttl_ms=50):
        job = await died(wheel, answer.job_id)
        assert (job.reason, job.attempt) == (Reason.UNKNOWN_TASK, 1)
        assert "nobody.knows" in job.failures[-1].message
        waits = len(log.of("unknown"))
        assert waits >= 1
        await asyncio.sleep(0.06)  # longer than the wait itself
        assert await wheel.redrive("default") == 1
        again = await died(wheel, answer.job_id)
        assert len(log.of("unknown")) >= waits + 1, "after the redrive it was buried without a wait"
    assert again.reason == Reason.UNKNOWN_TASK
    assert all(about["attempt"] == 1 for about in log.of("unknown"))


async def test_arguments_that_do_not_fit_are_buried_at_once(wheel: Wheel, log: Log) -> None:
    @wheel.task(name="add", retries=9)
    async def add(a: int, b: int) -> None:
        raise AssertionError("it must not run")

    with wheel_without_checks(wheel):
        answers = [await wheel.enqueue("add", args=[1]), await wheel.enqueue("add", args=[1, 2], kwargs={"c": 3})]
    async with running(wheel, log):
        for answer in answers:
            job = await died(wheel, answer.job_id)
            assert (job.reason, job.attempt) == (Reason.BAD_ARGUMENTS, 1)
            assert "add(a, b)" in job.failures[-1].message


class wheel_without_checks:
    """A producer that does not have the task's code."""

    def __init__(self, wheel: Wheel) -> None:
        self._wheel = wheel
        self._tasks = dict(wheel.tasks)

    def __enter__(self) -> None:
        self._wheel.tasks.clear()

    def __exit__(self, *_: object) -> None:
        self._wheel.tasks.update(self._tasks)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda record: record[: record.index(b"\n") + 1] + b"\x01\x00\xc1garbage",
        lambda record: record[: record.index(b"\n") + 1] + b"\x01\x00\xdd\xff\xff\xff\xff",
        lambda record: record[: record.index(b"\n") + 1],
        lambda record: record[: record.index(b"\n")],
        lambda record: record[: record.index(b"\n") + 1] + b"\x02" + record[record.index(b"\n") + 2 :],
    ],
    ids=["garbage", "a length of 4 GB", "no body", "no line", "another version"],
)
async def test_what_cannot_be_decoded_is_buried_at_once_and_the_rest_goes_on(
    wheel: Wheel, log: Log, fresh: RedisServer, spoil: Callable[[bytes], bytes]
) -> None:
    @wheel.task(retries=9, keep=60)
    async def work(n: int) -> None:
        pass

    bad = await work.options(id="bad").enqueue(1)
    good = await wheel.enqueue_many(work.job(n) for n in range(20))
    keys = ShardKeys.of("zw", "default")
    with fresh.client() as client:
        record = client.hget(keys.jobs, bad.job_id)
        assert isinstance(record, bytes)
        client.hset(keys.jobs, bad.job_id, spoil(record))
    async with running(wheel, log):
        for answer in good:
            assert (await wheel.wait(answer.job_id, timeout=5)).state is JobState.DONE
        await log.seen("buried", "bad")
        await eventually(lambda: wheel.count("default", JobState.DEAD), lambda dead: dead == 1)
        (dead,) = await wheel.dead("default")
    assert dead.id == "bad"
    assert str(dead.reason) == Reason.UNDECODABLE
    assert dead.attempt <= 1


async def test_a_record_of_a_newer_version_is_set_aside_and_the_rest_goes_on(
    wheel: Wheel, log: Log, fresh: RedisServer
) -> None:
    @wheel.task(keep=60)
    async def work() -> None:
        pass

    newer = await work.options(id="newer").enqueue()
    other = await work.enqueue()
    keys = ShardKeys.of("zw", "default")
    with fresh.client() as client:
        record = client.hget(keys.jobs, newer.job_id)
        assert isinstance(record, bytes)
        client.hset(keys.jobs, newer.job_id, b"3" + record[1:])
    async with running(wheel, log):
        assert (await wheel.wait(other.job_id, timeout=5)).state is JobState.DONE
        (dead,) = await wheel.dead("default")
    assert dead.id == "newer"
    assert "newer" not in log.starts()
    with fresh.client() as client:
        assert client.hget(keys.jobs, "newer") == b"3" + record[1:]


async def test_an_entry_without_a_record_is_cleared_away_and_counted(
    wheel: Wheel, log: Log, fresh: RedisServer
) -> None:
    @wheel.task(keep=60)
    async def work() -> None:
        pass

    lost = await work.options(id="lost").enqueue()
    other = await work.enqueue()
    with fresh.client() as client:
        client.hdel(ShardKeys.of("zw", "default").jobs, lost.job_id)
    async with running(wheel, log):
        assert (await wheel.wait(other.job_id, timeout=5)).state is JobState.DONE
        assert (await wheel.queue("default")).orphans == 1
