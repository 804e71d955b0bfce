"""What a task may be: whatever is registered runs to its end, or is refused where it is registered."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from tests.workers.harness import Log, running
from zwheel import Backoff, JobState, SyncWheel, Wheel, current_job
from zwheel.errors import ConfigError, InvalidInput


def timed(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that knows nothing of async functions."""

    @functools.wraps(function)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return inner


def bridged(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that makes a sync function of an async one."""

    @functools.wraps(function)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return asyncio.run(function(*args, **kwargs))

    return inner


class Sender:
    async def __call__(self, to: list[str], name: str) -> None:
        await asyncio.sleep(0)
        to.append(name)

    async def method(self, to: list[str], name: str) -> None:
        await self(to, name)


async def send(to: list[str], name: str) -> None:
    await asyncio.sleep(0)
    to.append(name)


def _kinds(ran: list[str]) -> dict[str, Callable[..., Any]]:
    async def plain() -> None:
        await send(ran, "plain")

    async def coroutine_of_coroutine() -> Any:
        return send(ran, "twice")

    return {
        "plain": plain,
        "decorated": timed(functools.partial(send, ran, "decorated")),
        "bridged": bridged(functools.partial(send, ran, "bridged")),
        "object": functools.partial(Sender(), ran, "object"),
        "method": functools.partial(Sender().method, ran, "method"),
        "lambda": lambda: send(ran, "lambda"),
        "partial": functools.partial(send, ran, "partial"),
        "both": functools.partial(timed(send), ran, "both"),
        "sync": lambda: ran.append("sync"),
        "twice": coroutine_of_coroutine,
        "future": lambda: _later(ran),
    }


class _later:
    """An object that can be awaited, and is no coroutine."""

    def __init__(self, ran: list[str]) -> None:
        self.ran = ran

    def __await__(self) -> Iterator[Any]:
        yield from asyncio.sleep(0).__await__()
        self.ran.append("future")


@pytest.mark.anyio
async def test_whatever_is_done_has_run_to_its_end(wheel: Wheel, log: Log) -> None:
    ran: list[str] = []
    kinds = _kinds(ran)
    for name, function in kinds.items():
        wheel.task(name=name, keep=600)(function)
    async with running(wheel, log):
        for name in kinds:
            answer = await wheel.enqueue(name)
            job = await wheel.wait(answer.job_id, "default", timeout=10)
            assert job.state is JobState.DONE, (name, job.failures)
            assert ran == [name]
            ran.clear()


@pytest.mark.anyio
async def test_a_coroutine_from_a_thread_runs_in_the_loop_for_its_job_and_within_its_timeout(
    wheel: Wheel, log: Log
) -> None:
    seen: list[Any] = []

    @wheel.task(keep=600)
    @timed
    async def work() -> None:
        seen.append((threading.current_thread() is threading.main_thread(), current_job().task))

    @wheel.task(keep=600, retries=0, timeout=0.2)
    @timed
    async def endless() -> None:
        await asyncio.sleep(60)

    async with running(wheel, log):
        await wheel.wait((await work.enqueue()).job_id, "default", timeout=10)
        late = await wheel.wait((await endless.enqueue()).job_id, "default", timeout=10)
    assert seen == [(True, work.name)]
    assert (late.state, str(late.reason)) == (JobState.DEAD, "timeout")


@pytest.mark.anyio
@pytest.mark.parametrize("through", ["thread", "loop"])
async def test_a_generator_that_is_returned_fails_its_job(wheel: Wheel, log: Log, through: str) -> None:
    def rows() -> Iterator[int]:
        yield 1

    async def in_loop() -> Any:
        return rows()

    wheel.task(name="rows", retries=0)(rows_of := (lambda: rows()) if through == "thread" else in_loop)
    assert callable(rows_of)
    async with running(wheel, log):
        job = await wheel.wait((await wheel.enqueue("rows", retries=0)).job_id, "default", timeout=10)
    assert job.state is JobState.DEAD
    assert "its body did not run" in job.failures[-1].message


def _generator() -> Iterator[int]:
    yield 1


async def _async_generator() -> AsyncIterator[int]:
    yield 1


class _Rows:
    def __call__(self) -> Iterator[int]:
        yield 1

    def run(self, order: int) -> None:
        """A method that needs its object."""

    @classmethod
    def of_class(cls) -> None:
        """A method of the class."""


@pytest.mark.parametrize("make", [Wheel, SyncWheel])
@pytest.mark.parametrize(
    ("function", "says"),
    [
        (_generator, "is a generator"),
        (_async_generator, "is a generator"),
        (functools.partial(_generator), "is a generator"),
        (_Rows(), "is a generator"),
        (_Rows.run, "is a method without its object"),
        (_Rows.__dict__["of_class"], "register a class method by its class"),
        (_Rows, "is a class"),
    ],
)
def test_what_a_worker_would_call_in_vain_is_refused_where_it_is_registered(
    make: Any, function: Any, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        make("redis://127.0.0.1:1").task(name="task")(function)


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ({"backoff": 5}, "backoff: 5 is not a Backoff"),
        ({"backoff": "exponential"}, "backoff: 'exponential' is not a Backoff"),
        ({"backoff": Backoff}, "is not a Backoff"),
        ({"give_up_on": (ValueError, "KeyError")}, "give_up_on: 'KeyError' is not an exception class"),
        ({"give_up_on": int}, "is not an exception class"),
        ({"retries": 2.5}, "retries: 2.5 is not a whole number"),
        ({"process": "yes"}, "process: 'yes' is neither True nor False"),
    ],
)
def test_a_policy_of_the_wrong_type_is_refused_where_it_is_written(policy: Any, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        Wheel("redis://127.0.0.1:1").task(name="task", **policy)(lambda: None)


def test_one_exception_class_may_stand_alone() -> None:
    task = Wheel("redis://127.0.0.1:1").task(name="task", give_up_on=ValueError)(lambda: None)
    assert task.policy.give_up_on == (ValueError,)


def test_a_method_of_an_object_is_a_task() -> None:
    task = Wheel("redis://127.0.0.1:1").task(name="task")(_Rows().run)
    task.signature.check([7], {})
