"""Occurrences that nothing started in time, since they were on the wheel when the workers died: T-11."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

import pytest

from tests.faults.witness import server_ms
from tests.servers import RedisServer
from tests.workers.harness import Log, eventually, one_kind, running
from zwheel import JobState, Wheel, current_job
from zwheel.broker.store import Steps, SyncStore
from zwheel.calls import Session
from zwheel.client.declare import make_definition
from zwheel.operations import schedules as ops
from zwheel.payload.codec import DEFAULT
from zwheel.schedules.definition import occurrence_id
from zwheel.schedules.state import ScheduleInfo, Status, Verdict
from zwheel.times import to_datetime
from zwheel.workers.occurrences import Occurrences
from zwheel.workers.scheduler import Scheduler

pytestmark = [pytest.mark.anyio, one_kind]
T = TypeVar("T")
DAY_MS = 86_400_000
#: How many occurrences of every second are on the wheel at most.
ON_THE_WHEEL = 10


def at_a_time(server: RedisServer, now_ms: int, steps: Steps[T]) -> T:
    """Carry an operation through as if it were that time."""
    store = SyncStore(server.url, Session("zw", "c"), timeout_s=5)
    store.session.now = str(now_ms * 1000)
    try:
        ask = next(steps)
        while True:
            assert not isinstance(ask, (int, float))
            time = [str(now_ms // 1000), str(now_ms % 1000 * 1000)]
            ask = steps.send([time if command == ("TIME",) else store.send([command])[0] for command in ask])
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        store.close()


def left_on_the_wheel(server: RedisServer, then_ms: int, ended: bool = True, **options: Any) -> ScheduleInfo:
    """What a fleet leaves that dies at `then_ms` with ten seconds on the wheel; with `ended` there is nothing more."""
    then_ms -= then_ms % 1000
    if ended:
        options["end"] = to_datetime(then_ms + ON_THE_WHEEL * 1000)
    definition = make_definition({}, DEFAULT, "s", "* * * * * *", "ring", keep=600, **options)
    store = Session("zw", "c")
    info = at_a_time(server, then_ms, ops.add_schedule(store, DEFAULT, definition, False))
    assert len(info.state.ahead) == ON_THE_WHEEL
    return info


class Rings:
    """What ran: nominal ms and whether it says that it is caught up."""

    def __init__(self, wheel: Wheel) -> None:
        self.ran: list[tuple[int, bool]] = []

        @wheel.task(name="ring", keep=600)
        async def ring() -> None:
            occurrence = current_job().occurrence
            assert occurrence is not None
            self.ran.append((round(occurrence.nominal.timestamp() * 1000), occurrence.catch_up))


async def all_decided(wheel: Wheel) -> ScheduleInfo:
    """Wait until each occurrence that was on the wheel ran or was missed."""

    async def probe() -> tuple[ScheduleInfo, int]:
        ran = await wheel.count("default", JobState.DONE)
        info = await wheel.schedule("s")
        return info, ran + info.state.missed

    info, _ = await eventually(probe, lambda seen: seen[1] == ON_THE_WHEEL and seen[0].status is Status.FINISHED)
    return info


@pytest.mark.parametrize("way", ["both", "claims", "scheduler"])
@pytest.mark.parametrize(
    ("policy", "options", "runs"),
    [
        ("skip", {}, 0),
        ("skip", {"grace": 0}, 0),
        ("fire_once", {}, 1),
        ("fire_once", {"window": 60}, 0),
        ("fire_all", {"misfire_limit": 3}, 3),
        ("fire_all", {"misfire_limit": 1000}, ON_THE_WHEEL),
    ],
)
async def test_what_was_on_the_wheel_when_the_workers_died_follows_the_misfire_policy(
    wheel: Wheel, fresh: RedisServer, log: Log, monkeypatch: pytest.MonkeyPatch, policy: str, options: dict[str, Any],
    runs: int, way: str,
) -> None:  # fmt: skip
    """Three days later, whether a claim notices first, or a worker that looks at the schedule."""
    rings = Rings(wheel)
    keys = Session("zw").keys("default")
    info = left_on_the_wheel(fresh, await server_ms(wheel) - 3 * DAY_MS, misfire=policy, **options)
    nominal = [at for at, _ in info.state.ahead]
    if way == "claims":
        monkeypatch.setattr(Scheduler, "_gave_back", lambda *_: asyncio.sleep(0, False))
    if way == "scheduler":
        monkeypatch.setattr(Occurrences, "is_late", lambda *_: False)
        await wheel.pause("default")
        with fresh.client() as client:  # as if more of it were to come
            raw = client.hget(keys.schedules, "s")
            client.hset(keys.schedules, "s", raw.replace(b"1f", b"1a", 1))
            client.zadd(keys.schedules_due, {"s": 1})
    async with running(wheel, log):
        if way == "scheduler":
            await eventually(lambda: wheel.schedule("s"), lambda now: now.status is Status.FINISHED)
            await wheel.resume("default")
        left = await all_decided(wheel)
    assert len(rings.ran) == runs
    assert all(catch_up for _, catch_up in rings.ran)
    if way != "claims" or policy == "fire_once":
        assert sorted(at for at, _ in rings.ran) == nominal[ON_THE_WHEEL - runs :]
    assert (left.state.fired, left.state.missed) == (runs, ON_THE_WHEEL - runs)
    verdicts = {past.at_ms: past.verdict for past in await wheel.schedule_history("s")}
    ran = {at for at, _ in rings.ran}
    assert verdicts == {at: Verdict.CATCH_UP if at in ran else Verdict.MISSED for at in nominal}


async def test_after_days_without_workers_a_schedule_that_skips_starts_nothing_late(
    wheel: Wheel, fresh: RedisServer, log: Log
) -> None:
    rings = Rings(wheel)
    begun = await server_ms(wheel)
    left_on_the_wheel(fresh, begun - 3 * DAY_MS, ended=False, misfire="skip", grace=0)
    async with running(wheel, log), running(wheel, log):
        await log.until(lambda: len(rings.ran) >= 3)
    assert min(at for at, _ in rings.ran) >= begun - 1000
    assert not any(catch_up for _, catch_up in rings.ran)
    assert (await wheel.schedule("s")).state.missed > 1000


async def test_one_that_is_late_within_its_grace_runs_as_if_nothing_had_been(
    wheel: Wheel, fresh: RedisServer, log: Log
) -> None:
    rings = Rings(wheel)
    left_on_the_wheel(fresh, await server_ms(wheel) - 60_000, misfire="skip", grace=3600)
    async with running(wheel, log):
        await log.until(lambda: len(rings.ran) == ON_THE_WHEEL)
    assert not any(catch_up for _, catch_up in rings.ran)
    assert (await wheel.schedule("s")).state.missed == 0


async def test_what_a_person_moved_starts_whenever_that_is(wheel: Wheel, fresh: RedisServer, log: Log) -> None:
    rings = Rings(wheel)
    info = left_on_the_wheel(fresh, await server_ms(wheel) - 3 * DAY_MS, misfire="skip")
    moved = info.state.ahead[0][0]
    await wheel.reschedule(occurrence_id("s", moved), delay=0)
    async with running(wheel, log):
        await log.until(lambda: rings.ran)
        await eventually(lambda: wheel.schedule("s"), lambda now: now.state.missed == ON_THE_WHEEL - 1)
    assert rings.ran == [(moved, False)]


async def test_one_that_began_in_time_is_not_late_when_its_worker_stops(
    wheel: Wheel, fresh: RedisServer, log: Log
) -> None:
    began: list[int] = []
    stays = asyncio.Event()

    @wheel.task(name="ring", keep=600)
    async def ring() -> None:
        began.append(current_job().attempt)
        await stays.wait()

    left_on_the_wheel(fresh, await server_ms(wheel) - 60_000, misfire="skip", grace=3600)
    async with running(wheel, log, drain_ms=0):
        await log.until(lambda: len(began) == ON_THE_WHEEL)
    stays.set()
    keys = Session("zw").keys("default")
    with fresh.client() as client:
        ids = [job.id for job in await wheel.jobs("default", JobState.SCHEDULED)]
        raws = client.hmget(keys.jobs, ids)
        assert len(ids) == ON_THE_WHEEL
        # As if all that time had passed since they were put on the wheel: their latest start is over.
        client.hset(keys.jobs, mapping={i: _earlier(raw) for i, raw in zip(ids, raws, strict=True)})
    async with running(wheel, log):
        await log.until(lambda: len(began) == 2 * ON_THE_WHEEL)
    assert (await wheel.schedule("s")).state.missed == 0


def _earlier(raw: bytes) -> bytes:
    """The same record with a latest start that is over."""
    head, mark, rest = raw.partition(b"zwheel-start-by")
    return head + mark + rest.replace(rest[15:28], b"1000000000000", 1)


async def test_a_late_one_whose_schedule_is_gone_is_parked_where_it_can_be_seen(
    wheel: Wheel, fresh: RedisServer, log: Log
) -> None:
    rings = Rings(wheel)
    left_on_the_wheel(fresh, await server_ms(wheel) - 3 * DAY_MS, misfire="fire_all")
    keys = Session("zw").keys("default")
    with fresh.client() as client:
        client.delete(keys.schedules)
    async with running(wheel, log):
        await eventually(lambda: wheel.count("default", JobState.DEAD), lambda dead: dead == ON_THE_WHEEL)
    assert rings.ran == []
    assert {job.reason for job in await wheel.jobs("default", JobState.DEAD)} == {"missed"}


async def test_a_worker_that_dies_before_it_gives_a_late_one_back_changes_nothing(
    wheel: Wheel, fresh: RedisServer, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    rings = Rings(wheel)
    left_on_the_wheel(fresh, await server_ms(wheel) - 3 * DAY_MS, misfire="skip")
    monkeypatch.setattr(Scheduler, "_gave_back", lambda *_: asyncio.sleep(0, False))
    stuck = asyncio.Event()
    reached = asyncio.Event()

    async def never(self: Occurrences, claim: Any) -> bool:
        reached.set()
        return await stuck.wait()

    with monkeypatch.context() as patch:
        patch.setattr(Occurrences, "give_back", never)
        async with running(wheel, log, lease_ms=1000, reap_ms=200) as doomed:
            await asyncio.wait_for(reached.wait(), 20)
            await doomed.vanish()
    async with running(wheel, log, lease_ms=1000, reap_ms=200):
        left = await all_decided(wheel)
    assert (rings.ran, left.state.missed) == ([], ON_THE_WHEEL)
