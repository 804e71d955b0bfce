"""What is stored, returned, raised or named is hostile: P-04, P-06, P-07, P-10."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.witness import found
from tests.lua.shard import KEYS, NOW, NOW_US, Shard, at, held, record
from tests.servers import RedisServer
from tests.workers.harness import Log, one_kind, running
from zwheel import Discard, InvalidInput, InvalidName, JobState, Wheel, calls
from zwheel.calls import Session
from zwheel.record import MESSAGE_CHARS

pytestmark = [pytest.mark.anyio, one_kind]


def test_a_record_that_cannot_be_read_does_not_hold_up_a_hundred_others(fresh: RedisServer) -> None:
    ids = [f"job-{n:03d}" for n in range(100)]
    bad = {"bad-1": record("p", version="9"), "bad-2": b"", "bad-3": b"1p"}
    with fresh.client() as client:
        shard = Shard(client, fresh.kind)
        shard.put(
            {
                "jobs": {**{name: held(NOW_US - 60_000_000) for name in ids}, **bad},
                "processing": dict.fromkeys([*bad, *ids], NOW - 1),
            }
        )
        call = calls.reap(KEYS, limit=103, lease_ms=30_000, most_dead=100, now_ms=NOW, now=at(NOW))
        reaped = calls.read_reap(shard.run(call))
        assert reaped is not None
        assert sorted(reaped.back) == ids
        left = shard.keyspace()
    assert sorted(left["dead"]) == sorted(bad)
    assert {name: left["jobs"][name] for name in bad} == bad
    assert "processing" not in left


@pytest.mark.parametrize(
    "result",
    [lambda: object(), lambda: "x" * 10_000_000, lambda: {1: {2: float("nan")}}, lambda: iter(range(3))],
    ids=["object", "huge", "odd", "iterator"],
)
async def test_what_a_task_returns_cannot_make_it_fail(wheel: Wheel, log: Log, result: Callable[[], Any]) -> None:
    @wheel.task(keep=60, retries=3)
    async def work() -> Any:
        return result()

    @wheel.task(keep=60, retries=3)
    def in_thread() -> Any:
        return result()

    async with running(wheel, log):
        for task in (work, in_thread):
            job = await wheel.wait((await task.enqueue()).job_id, timeout=15)
            assert (job.state, job.attempt, job.failures) == (JobState.DONE, 1, ())


async def test_the_text_of_an_exception_is_bounded_and_printable(wheel: Wheel, log: Log, fresh: RedisServer) -> None:
    @wheel.task(retries=0)
    async def long() -> None:
        raise ValueError("y" * 10_000_000)

    @wheel.task(retries=0)
    async def steers() -> None:
        raise Discard("\x1b[2J\x1b]0;gotcha\x07 \u202eright to left\x00\r\n")

    async with running(wheel, log):
        first = await wheel.wait((await long.enqueue()).job_id, timeout=15)
        second = await wheel.wait((await steers.enqueue()).job_id, timeout=15)
    assert len(first.failures[0].message) <= MESSAGE_CHARS
    text = second.failures[0].message + second.failures[0].traceback
    assert all(c.isprintable() or c in "\n\t" for c in text)
    assert r"\x1b" in text
    with fresh.client() as client:
        assert client.hstrlen(Session("zw").keys("default").jobs, first.id) < 20_000


ODD = ["", " ", "a b", 'a"b', "a'b", "a\nb", "a}b", "a{b", "a}{b", "*", "a?", "[a]", "é", "🎡", "\x00", "x" * 10_240]


@pytest.mark.parametrize("name", ODD, ids=lambda name: ascii(name)[:12])
async def test_a_name_outside_the_pattern_is_refused_everywhere(wheel: Wheel, fresh: RedisServer, name: str) -> None:
    with pytest.raises(InvalidName):
        await wheel.enqueue(name)
    with pytest.raises(InvalidName):
        await wheel.enqueue("t", queue=name)
    if name:
        with pytest.raises(InvalidName):
            await wheel.enqueue("t", id=name)
    for ask in (wheel.queue, wheel.pause, wheel.days):
        with pytest.raises(InvalidName):
            await ask(name)
    with fresh.client() as client:
        assert client.dbsize() == 0
    if len(name) > 1024 or not name:
        with pytest.raises(InvalidInput):
            await wheel.enqueue("t", dedup=name)
    else:
        # A dedup key may be any short text: only its digest is stored.
        first = await wheel.enqueue("t", dedup=name, delay=60)
        again = await wheel.enqueue("t", dedup=name, delay=60)
        assert (again.existed, again.job_id) == (True, first.job_id)
        job = await found(wheel, first.job_id)
        assert job.state is JobState.SCHEDULED
