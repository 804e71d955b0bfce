"""Schedules under faults: workers that die while they advance, two at once, outages, edits in the moment: K-15, K-16, T-09 to T-14."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.faults.witness import server_ms
from tests.servers import RedisServer
from tests.workers.harness import Log, eventually, one_kind, running
from tests.workers.processes import worker_process
from tests.workers.stage import Stage
from zwheel import Calendar, InvalidTime, JobState, Retry, Wheel, current_job
from zwheel.calls import Session
from zwheel.schedules import zones
from zwheel.schedules.definition import Definition, occurrence_id
from zwheel.schedules.plan import AHEAD_MS
from zwheel.schedules.state import State, Status, Verdict, schedule_tail
from zwheel.times import to_datetime

pytestmark = [pytest.mark.anyio, one_kind]
KILLED = -signal.SIGKILL
APP = "tests.faults.app:wheel"
#: When a schedule was last looked at, in the tests of outages, before now.
LONG_AGO_MS = 1_000_000


async def rewind(wheel: Wheel, server: RedisServer, name: str, ms: int) -> None:
    """Put a schedule back to where it stood `ms` ago, as if nothing had looked at it since: due at once."""
    info = await wheel.schedule(name)
    keys = Session("zw").keys(info.queue)
    then = await server_ms(wheel) - ms
    state = State(created_ms=then, anchor_ms=then, cursor_ms=then)
    with server.client() as client:
        client.hset(keys.schedules, name, f"1a{info.stamp}{schedule_tail(state, info.definition)}")
        client.zadd(keys.schedules_due, {name: then})


async def decided(wheel: Wheel, name: str) -> Any:
    """Wait until a worker has advanced a schedule to now, and give it."""
    now = await server_ms(wheel)
    return await eventually(lambda: wheel.schedule(name), lambda info: info.state.cursor_ms >= now)


@pytest.mark.parametrize("side", ["before", "after"])
async def test_a_worker_that_dies_advancing_loses_no_occurrence_and_doubles_none(
    wheel: Wheel, stage: Stage, url: str, fresh: RedisServer, log: Log, side: str
) -> None:
    # However long the two processes take to start, nothing is too late to run.
    await wheel.add_schedule(wheel.new_schedule("s", "* * * * * *", "ring", misfire="fire_all", grace=600, keep=600))
    await wheel.pause_schedule("s")
    await rewind(wheel, fresh, "s", 0)

    @wheel.task(name="ring", keep=600)
    async def ring() -> None: ...

    begun = (await wheel.schedule("s")).state.cursor_ms
    async with worker_process(url, stage.path, wait=False, failpoints=f"advance.{side}=kill", app=APP) as doomed:
        assert await doomed.ended() == KILLED
    made = len(await wheel.jobs("default"))
    assert (made > 0) is (side == "after")
    async with running(wheel, log):
        info = await decided(wheel, "s")
        await log.until(lambda: len(log.of("done")) >= 3)
    # Not while they move: a listing reads one set after the other.
    ids = [job.id for job in await wheel.jobs("default")]
    wanted = [
        f"s@{to_datetime(at):%Y-%m-%dT%H:%M:%S}Z"
        for at in range(-(-(begun + 1) // 1000) * 1000, info.state.cursor_ms + 1, 1000)
    ]
    assert set(wanted) <= set(ids)
    assert len(ids) == len(set(ids))
    assert max(log.starts().values()) == 1


@pytest.mark.slow
async def test_two_schedulers_make_each_occurrence_once(wheel: Wheel, log: Log) -> None:
    ran: Counter[datetime] = Counter()

    @wheel.task(name="ring", keep=600)
    async def ring() -> None:
        occurrence = current_job().occurrence
        assert occurrence is not None
        ran[occurrence.nominal] += 1

    await wheel.add_schedule(wheel.new_schedule("s", "* * * * * *", ring))
    async with running(wheel, log), running(wheel, log), running(wheel, log):
        await log.seen("done", count=8, within=30)
    times = sorted(ran)
    assert set(ran.values()) == {1}
    assert [b - a for a, b in itertools.pairwise(times)] == [timedelta(seconds=1)] * (len(times) - 1)


@pytest.mark.parametrize(
    ("policy", "options", "caught_up"),
    [
        ("skip", {}, 0),
        ("skip", {"grace": 0}, 0),
        ("fire_once", {}, 0),
        ("fire_once", {"grace": 0}, 1),
        ("fire_all", {"misfire_limit": 30}, 30),
        ("fire_all", {"misfire_limit": 1000, "grace": 0}, 1000),
        ("fire_all", {"misfire_limit": 1000, "window": 60.5, "grace": 0}, 60),
    ],
)
async def test_an_outage_over_a_thousand_occurrences_follows_the_misfire_policy(
    wheel: Wheel, fresh: RedisServer, policy: str, options: dict[str, Any], caught_up: int
) -> None:
    await wheel.add_schedule(wheel.new_schedule("s", "* * * * * *", "nobody", misfire=policy, keep=600, **options))
    await wheel.pause_schedule("s")
    # Nothing is claimed, so that the jobs stay as they were put on the wheel.
    await wheel.pause("default")
    await rewind(wheel, fresh, "s", LONG_AGO_MS)
    async with running(wheel, queues=("default",)):
        info = await decided(wheel, "s")
        jobs = await wheel.jobs("default", JobState.SCHEDULED, limit=5000)
    # What is caught up fires now, and not at its nominal time.
    caught = [job for job in jobs if job.fire_at_ms != nominal(job.id)]
    assert caught_up <= len(caught) <= caught_up + ("window" in options)
    if caught:
        now = caught[0].fire_at_ms
        on_time = sum(nominal(job.id) <= now for job in jobs) - len(caught)
        assert on_time == (options.get("grace") != 0)
        newest = sorted(nominal(job.id) for job in caught)
        assert newest == list(range(newest[0], newest[-1] + 1, 1000))
        assert newest[-1] > now - 2001
    assert info.state.missed + len(caught) >= 999
    assert len({job.id for job in jobs}) == len(jobs)


def nominal(job_id: str) -> int:
    text = job_id.partition("@")[2].removesuffix(":trigger")
    return int(datetime.fromisoformat(text).timestamp() * 1000)


async def test_an_edit_in_the_moment_of_firing_leaves_one_job_of_one_definition(wheel: Wheel, log: Log) -> None:
    """Old and new fire at the same second; the schedule is edited again and again while it fires."""
    ran: dict[datetime, list[str]] = {}

    @wheel.task(name="ring", keep=600)
    async def ring(version: str) -> None:
        occurrence = current_job().occurrence
        assert occurrence is not None
        ran.setdefault(occurrence.nominal, []).append(version)

    await wheel.add_schedule(wheel.new_schedule("s", "* * * * * *", ring, args=["0"]))
    async with running(wheel, log):
        for edit in range(1, 150):
            await wheel.edit_schedule(wheel.new_schedule("s", "* * * * * *", ring, args=[str(edit)]))
            await asyncio.sleep(0.02)
        await log.seen("done", count=4)
    times = sorted(ran)
    assert all(len(versions) == 1 for versions in ran.values()), ran
    assert [b - a for a, b in itertools.pairwise(times)] == [timedelta(seconds=1)] * (len(times) - 1)
    assert len({versions[0] for versions in ran.values()}) > 1


async def test_what_has_just_started_is_not_fired_again_by_an_edit(wheel: Wheel, log: Log) -> None:
    gate = asyncio.Event()

    @wheel.task(name="ring", keep=600)
    async def ring() -> None:
        await gate.wait()

    await wheel.add_schedule(wheel.new_schedule("s", "* * * * * *", ring))
    async with running(wheel, log):
        started = await log.seen("start")
        # In the record that the edit reads, the running occurrence may still wait on the wheel.
        info = await wheel.edit_schedule(wheel.new_schedule("s", "0 0 1 1 *", ring))
        assert info.state.ahead == ()
        job = await wheel.get(started["job"])
        assert job is not None and job.state is JobState.PROCESSING
        gate.set()
        await log.seen("done")
    assert log.starts()[started["job"]] == 1
    assert await wheel.count("default", JobState.SCHEDULED) == 0


async def test_a_holiday_that_is_announced_today_holds_from_the_next_occurrence(wheel: Wheel) -> None:
    today = to_datetime(await server_ms(wheel)).date()
    await wheel.add_schedule(wheel.new_schedule("s", "* * * * * *", "t"))
    assert await wheel.count("default", JobState.SCHEDULED) >= AHEAD_MS // 1000
    days = tuple((today + timedelta(days=n)).isoformat() for n in (0, 1))
    info = await wheel.edit_schedule(wheel.new_schedule("s", "* * * * * *", "t", calendar=Calendar(dates=days)))
    assert await wheel.count("default", JobState.SCHEDULED) == 0
    assert info.next_ms is not None
    assert to_datetime(info.next_ms) == datetime(today.year, today.month, today.day, tzinfo=UTC) + timedelta(days=2)


async def test_a_line_that_never_fires_is_refused_and_short_months_are_left_out(wheel: Wheel) -> None:
    for line in ("0 0 30 2 *", "0 0 31 2,4,6 *"):
        with pytest.raises(InvalidTime, match="never fires"):
            wheel.new_schedule("s", line, "t")
    start = int(datetime(2027, 1, 1, tzinfo=UTC).timestamp() * 1000)
    leap = wheel.new_schedule("s", "0 0 29 2 *", "t").rhythm(0).between(start, start + 9 * 366 * 86_400_000, 9)
    assert [to_datetime(o.at_ms).year for o in leap] == [2028, 2032]
    last = wheel.new_schedule("s", "0 0 31 * *", "t").rhythm(0).between(start, start + 365 * 86_400_000, 99)
    assert [to_datetime(o.at_ms).month for o in last] == [1, 3, 5, 7, 8, 10, 12]


async def test_new_zone_data_moves_what_is_not_decided_and_doubles_nothing(
    wheel: Wheel, fresh: RedisServer, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The zone's offset changes by an hour while nine o'clock is near: what is on the wheel stays, the next follows."""
    at = to_datetime(await server_ms(wheel)) + timedelta(seconds=5)
    line = f"{at.second} {at.minute} {at.hour} * * *"
    await wheel.add_schedule(wheel.new_schedule("s", line, "t", tz="Etc/UTC", keep=600))
    before = await wheel.schedule("s")
    assert len(before.state.ahead) == 1

    real = zones._offset_s
    monkeypatch.setattr(zones, "_offset_s", lambda name, at_s: real(name, at_s) - 3600)
    zones.transitions.cache_clear()
    await rewind(wheel, fresh, "s", 0)
    async with running(wheel, log):
        info = await decided(wheel, "s")
    assert info.state.next_ms == before.state.ahead[0][0] + 3_600_000
    assert [nominal(job.id) for job in await wheel.jobs("default")] == [before.state.ahead[0][0]]
    monkeypatch.undo()
    zones.transitions.cache_clear()


async def test_new_zone_data_that_moves_a_time_forward_is_noticed_when_a_worker_starts(
    wheel: Wheel, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nine o'clock comes an hour sooner than it did when the schedule was written."""
    await wheel.add_schedule(wheel.new_schedule("s", "0 0 1 1 *", "t", tz="Etc/UTC"))
    before = await wheel.schedule("s")
    real = zones._offset_s
    monkeypatch.setattr(zones, "_offset_s", lambda name, at_s: real(name, at_s) + 3600)
    zones.transitions.cache_clear()
    async with running(wheel, log):
        after = await eventually(lambda: wheel.schedule("s"), lambda info: info.stamp != before.stamp)
        assert before.next_ms is not None
        assert after.next_ms == before.next_ms - 3_600_000
        assert after.state.fired == 0
    monkeypatch.undo()
    zones.transitions.cache_clear()


async def test_a_buffered_occurrence_starts_when_the_one_before_ends(wheel: Wheel, log: Log) -> None:
    gates: dict[str, asyncio.Event] = {}

    @wheel.task(name="ring", keep=600)
    async def ring() -> None:
        gates[current_job().id] = asyncio.Event()
        await gates[current_job().id].wait()

    await wheel.add_schedule(wheel.new_schedule("s", "* * * * * *", ring, overlap="buffer_one"))
    async with running(wheel, log):
        first = (await log.seen("start"))["job"]
        await eventually(lambda: wheel.schedule("s"), lambda info: info.state.skipped >= 1)
        assert len(log.of("start")) == 1
        gates[first].set()
        second = (await log.seen("start", count=2))["job"]
        history = {past.job_id: past for past in await wheel.schedule_history("s")}
        assert history[second].verdict is Verdict.BUFFERED
        gates[second].set()
        assert max(log.starts().values()) == 1


async def test_the_next_occurrence_cancels_the_one_before_and_never_runs_beside_it(wheel: Wheel, log: Log) -> None:
    active, most = 0, 0

    @wheel.task(name="ring", keep=600)
    async def ring() -> None:
        nonlocal active, most
        active += 1
        most = max(most, active)
        try:
            await asyncio.sleep(600)
        finally:
            await asyncio.sleep(0.1)
            active -= 1

    await wheel.add_schedule(wheel.new_schedule("s", "* * * * * *", ring, overlap="cancel_other"))
    async with running(wheel, log):
        await log.seen("start", count=4)
        ends = [await wheel.wait(about["job"], timeout=60) for about in log.of("start")[:3]]
        await wheel.remove_schedule("s")
        assert [job.state for job in ends] == [JobState.CANCELLED] * 3
        assert (most, max(log.starts().values())) == (1, 1)
        for job in await wheel.jobs("default", JobState.PROCESSING):
            await wheel.cancel(job.id)


async def test_an_occurrence_that_goes_on_all_the_same_is_asked_once(
    wheel: Wheel, log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    gate = asyncio.Event()

    @wheel.task(name="ring", keep=600)
    async def ring() -> None:
        while not gate.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await gate.wait()

    caplog.set_level("INFO", "zwheel.scheduler")
    await wheel.add_schedule(wheel.new_schedule("s", "* * * * * *", ring, overlap="cancel_other"))
    async with running(wheel, log):
        first = (await log.seen("start"))["job"]
        await eventually(lambda: wheel.schedule("s"), lambda info: info.state.skipped >= 2)
        assert len(log.of("start")) == 1
        asked = [r.getMessage() for r in caplog.records if "is to end" in r.getMessage()]
        assert len(asked) == 1
        assert first in asked[0]
        await wheel.remove_schedule("s")
        gate.set()
        assert (await wheel.wait(first, timeout=60)).state is JobState.DONE


async def test_an_occurrence_that_waits_for_a_retry_is_cancelled_by_the_next(wheel: Wheel, log: Log) -> None:
    @wheel.task(name="ring", keep=600)
    async def ring() -> None:
        raise Retry(delay=3600)

    await wheel.add_schedule(wheel.new_schedule("s", "* * * * * *", ring, overlap="cancel_other"))
    async with running(wheel, log):
        await log.seen("start", count=3)
        jobs = [await wheel.wait(about["job"], timeout=60) for about in log.of("start")[:2]]
        assert [job.state for job in jobs] == [JobState.CANCELLED] * 2


async def test_an_occurrence_that_waits_outlasts_an_edit_and_a_pause(wheel: Wheel, log: Log) -> None:
    gate = asyncio.Event()
    ran: list[tuple[str, int]] = []

    @wheel.task(name="ring", keep=600)
    async def ring(version: int) -> None:
        ran.append((current_job().id, version))
        await gate.wait()

    def version(n: int) -> Definition:
        return wheel.new_schedule("s", "* * * * * *" if n == 1 else "0 0 1 1 *", ring, args=[n], overlap="buffer_one")

    await wheel.add_schedule(version(1))
    async with running(wheel, log):
        await log.seen("start")
        waits = await eventually(lambda: wheel.schedule("s"), lambda info: info.state.buffered_ms is not None)
        await wheel.edit_schedule(version(2))
        paused = await wheel.pause_schedule("s")
        assert paused.state.buffered_ms == waits.state.buffered_ms
        gate.set()
        await log.seen("done")
        resumed = await wheel.resume_schedule("s")
        assert resumed.state.buffered_ms == waits.state.buffered_ms
        await log.seen("done", count=2)
    assert [n for _, n in ran] == [1, 2]
    assert ran[1][0] == occurrence_id("s", waits.state.buffered_ms or 0)


async def test_a_skipped_occurrence_leaves_no_job(wheel: Wheel, log: Log) -> None:
    gate = asyncio.Event()

    @wheel.task(name="ring", keep=600)
    async def ring() -> None:
        await gate.wait()

    await wheel.add_schedule(wheel.new_schedule("s", "* * * * * *", ring, overlap="skip"))
    async with running(wheel, log):
        await log.seen("start")
        info = await eventually(lambda: wheel.schedule("s"), lambda found: found.state.skipped >= 2)
        assert info.state.fired == 1
        gate.set()
        await log.seen("start", count=2)


@pytest.mark.slow
async def test_an_occurrence_that_must_not_overlap_is_on_the_wheel_ahead_of_its_time_alone(
    wheel: Wheel, log: Log
) -> None:
    await wheel.pause("default")  # so that it stays there
    await wheel.add_schedule(wheel.new_schedule("s", "@every 6s", "nobody", overlap="skip"))
    async with running(wheel, log):
        info = await eventually(lambda: wheel.schedule("s"), lambda found: found.state.fired == 1)
        assert info.state.ahead == ((info.state.last_ms, info.state.last_ms),), "it was put there before its time"
        after = await eventually(lambda: wheel.schedule("s"), lambda found: found.state.skipped == 1, within=20)
        assert int(after.stamp) // 1000 >= (info.state.last_ms or 0) + 6000, "the next one was decided at its time"
        (job,) = await wheel.jobs("default", JobState.SCHEDULED)
    assert (job.id, job.fire_at_ms) == (occurrence_id("s", info.state.last_ms or 0), info.state.last_ms)


async def test_an_occurrence_knows_its_time_and_the_one_before(wheel: Wheel, log: Log) -> None:
    seen: list[Any] = []

    @wheel.task(name="ring", keep=600, retries=0)
    async def ring() -> None:
        seen.append(current_job().occurrence)
        if len(seen) == 1:
            raise ValueError("the first one fails")

    await wheel.add_schedule(wheel.new_schedule("s", "* * * * * *", ring, tz="Asia/Kathmandu"))
    async with running(wheel, log):
        await log.until(lambda: len(seen) >= 3)
    first, second, third = seen[:3]
    assert (first.previous, first.previous_outcome, first.catch_up) == (None, None, False)
    assert (second.previous, second.previous_outcome) == (first.nominal, JobState.DEAD)
    assert (third.previous, third.previous_outcome) == (second.nominal, JobState.DONE)
    assert first.schedule == "s"
    assert str(first.nominal.utcoffset()) == "5:45:00"


async def test_a_schedule_that_this_version_cannot_read_stays_and_the_others_go_on(
    wheel: Wheel, fresh: RedisServer, log: Log
) -> None:
    keys = Session("zw").keys("default")

    @wheel.task(name="ring", keep=600)
    async def ring() -> None: ...

    await wheel.add_schedule(wheel.new_schedule("s", "* * * * * *", ring))
    await rewind(wheel, fresh, "s", 0)
    with fresh.client() as client:
        client.hset(keys.schedules, mapping={f"bad{n}": "2a\n" for n in range(30)})
        client.zadd(keys.schedules_due, {f"bad{n}": 0 for n in range(30)})
    async with running(wheel, log):
        await log.seen("done", count=2)
    with fresh.client() as client:
        assert client.hlen(keys.schedules) == 31


async def test_what_an_application_declares_is_synced_when_its_worker_starts(wheel: Wheel, log: Log) -> None:
    @wheel.cron("* * * * * *", name="mine")
    @wheel.task(name="ring", keep=600)
    async def ring() -> None: ...

    wheel.owner = "my:app"
    await wheel.sync_schedules([wheel.new_schedule("old", "* * * * * *", ring)], "my:app")
    await wheel.add_schedule(wheel.new_schedule("by-hand", "0 0 1 1 *", ring))
    async with running(wheel, log):
        await log.seen("done")
        assert [info.name for info in await wheel.schedules()] == ["by-hand", "mine"]
    assert all(about["job"].startswith("mine@") for about in log.of("start"))


async def test_a_finished_schedule_fires_no_more(wheel: Wheel, log: Log) -> None:
    @wheel.task(name="ring", keep=600)
    async def ring() -> None: ...

    await wheel.add_schedule(wheel.new_schedule("s", "* * * * * *", ring, max_count=2, overlap="skip"))
    async with running(wheel, log):
        await log.seen("done", count=2)
        info = await eventually(lambda: wheel.schedule("s"), lambda found: found.status is Status.FINISHED)
    assert info.state.fired == 2
    assert len(log.starts()) == 2


async def test_paused_and_caught_up(wheel: Wheel, log: Log) -> None:
    caught: list[bool] = []

    @wheel.task(name="ring", keep=600)
    async def ring() -> None:
        occurrence = current_job().occurrence
        assert occurrence is not None
        caught.append(occurrence.catch_up)

    await wheel.add_schedule(wheel.new_schedule("s", "* * * * * *", ring, misfire="fire_all", misfire_limit=5, grace=0))
    paused = await wheel.pause_schedule("s")
    async with running(wheel, log):
        await eventually(lambda: server_ms(wheel), lambda now: now > paused.state.cursor_ms + 3000)
        assert log.of("start") == []
        await wheel.resume_schedule("s", catch_up=True)
        await log.until(lambda: sum(caught) >= 3)
