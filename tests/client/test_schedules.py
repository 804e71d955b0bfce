"""Schedules through the clients: written, read, changed and removed, on a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.servers import RedisServer
from tests.skew.hand import QUEUE, Hand
from zwheel import (
    InvalidInput,
    InvalidTime,
    JobState,
    ScheduleChanged,
    ScheduleExists,
    ScheduleNotFound,
    SyncWheel,
    Wheel,
)
from zwheel.calls import Session
from zwheel.errors import ConfigError, InvalidName
from zwheel.schedules.definition import occurrence_id
from zwheel.schedules.plan import AHEAD_MS
from zwheel.schedules.state import ScheduleInfo, Status, Verdict
from zwheel.times import to_datetime

pytestmark = pytest.mark.anyio
FAR = "0 0 1 1 *"


@pytest.fixture
async def wheel(url: str, anyio_backend: str) -> AsyncIterator[Wheel]:
    async with Wheel(url, namespace="zw", give_up_s=5) as made:
        yield made


@pytest.fixture
def blocking(url: str) -> Iterator[SyncWheel]:
    with SyncWheel(url, namespace="zw", give_up_s=5) as made:
        yield made


def due_score(server: RedisServer, name: str) -> float | None:
    with server.client() as client:
        score: float | None = client.zscore(Session("zw").keys("default").schedules_due, name)
        return score


async def on_the_wheel(wheel: Wheel, queue: str = "default") -> list[str]:
    return [job.id for job in await wheel.jobs(queue, JobState.SCHEDULED)]


async def test_a_schedule_is_written_and_read_back(wheel: Wheel, fresh: RedisServer) -> None:
    definition = wheel.new_schedule(
        "report", "0 9 * * MON-FRI", "send", args=[1], tz="Europe/Berlin", overlap="skip", description="daily"
    )
    added = await wheel.add_schedule(definition)
    found = await wheel.schedule("report")
    assert found.definition == added.definition == definition
    assert (found.status, found.queue, found.owner) == (Status.ACTIVE, "default", "")
    assert found.next_ms == next(found.rhythm().after(found.state.created_ms)).at_ms
    assert [info.name for info in await wheel.schedules()] == ["report"]
    assert await wheel.schedules("other") == []
    assert found.next_ms is not None
    assert 0 < found.next_ms - (due_score(fresh, "report") or 0) <= AHEAD_MS // 2


async def test_what_is_due_soon_is_on_the_wheel_when_add_returns(wheel: Wheel) -> None:
    info = await wheel.add_schedule(wheel.new_schedule("tick", "* * * * * *", "t"))
    jobs = await wheel.jobs("default", JobState.SCHEDULED)
    assert len(jobs) in (AHEAD_MS // 1000, AHEAD_MS // 1000 + 1)
    assert [job.fire_at_ms for job in jobs] == [at for at, _ in info.state.ahead]
    first = to_datetime(jobs[0].fire_at_ms)
    assert jobs[0].id == f"tick@{first:%Y-%m-%dT%H:%M:%S}Z"
    assert {job.max_attempts for job in jobs} == {11}


async def test_a_name_is_taken_once(wheel: Wheel) -> None:
    await wheel.add_schedule(wheel.new_schedule("s", FAR, "t"))
    with pytest.raises(ScheduleExists):
        await wheel.add_schedule(wheel.new_schedule("s", FAR, "t"))
    with pytest.raises(ScheduleExists, match="queue default"):
        await wheel.add_schedule(wheel.new_schedule("s", FAR, "t", queue="other"), replace=True)
    replaced = await wheel.add_schedule(wheel.new_schedule("s", "0 0 2 1 *", "t"), replace=True)
    assert (await wheel.schedule("s")).definition == replaced.definition


async def test_what_is_not_there_is_said(wheel: Wheel) -> None:
    with pytest.raises(ScheduleNotFound):
        await wheel.schedule("nobody")
    with pytest.raises(ScheduleNotFound):
        await wheel.edit_schedule(wheel.new_schedule("nobody", FAR, "t"))
    for act in (wheel.pause_schedule, wheel.resume_schedule, wheel.remove_schedule, wheel.trigger_schedule):
        with pytest.raises(ScheduleNotFound):
            await act("nobody")


@pytest.mark.parametrize(
    ("when", "options", "error"),
    [
        ("0 0 30 2 *", {}, InvalidTime),
        ("@reboot", {}, InvalidTime),
        ("@every 1ms", {}, InvalidTime),
        (FAR, {"tz": "+02:00"}, InvalidTime),
        (FAR, {"overlap": "perhaps"}, InvalidInput),
        (FAR, {"misfire_limit": 100_000, "misfire": "fire_all"}, InvalidInput),
        (FAR, {"grace": -1}, InvalidTime),
        (FAR, {"max_count": 0}, InvalidInput),
        (FAR, {"colour": "red"}, InvalidInput),
        (FAR, {"start": datetime(2030, 1, 1)}, InvalidTime),
        (FAR, {"start": datetime(2030, 1, 2, tzinfo=UTC), "end": datetime(2030, 1, 1, tzinfo=UTC)}, InvalidInput),
    ],
)
async def test_what_cannot_be_right_is_refused_before_anything_is_sent(
    wheel: Wheel, fresh: RedisServer, when: str, options: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        wheel.new_schedule("s", when, "t", **options)  # type: ignore[arg-type]
    with pytest.raises(InvalidName):
        wheel.new_schedule("a b", FAR, "t")
    with fresh.client() as client:
        assert client.dbsize() == 0


async def test_a_paused_schedule_leaves_nothing_on_the_wheel_and_goes_on_from_now(
    wheel: Wheel, fresh: RedisServer
) -> None:
    await wheel.add_schedule(wheel.new_schedule("tick", "* * * * * *", "t"))
    paused = await wheel.pause_schedule("tick")
    assert (paused.status, await on_the_wheel(wheel), due_score(fresh, "tick")) == (Status.PAUSED, [], None)
    assert paused.next_ms is None
    assert (await wheel.pause_schedule("tick")).status is Status.PAUSED
    resumed = await wheel.resume_schedule("tick")
    assert resumed.status is Status.ACTIVE
    assert resumed.state.missed == 0
    assert len(await on_the_wheel(wheel)) >= AHEAD_MS // 1000
    assert due_score(fresh, "tick") is not None


async def test_an_edit_takes_back_what_the_old_definition_put_there(wheel: Wheel) -> None:
    old = await wheel.add_schedule(wheel.new_schedule("tick", "* * * * * *", "old"))
    edited = await wheel.edit_schedule(wheel.new_schedule("tick", "*/2 * * * * *", "new", args=["n"]))
    jobs = await wheel.jobs("default", JobState.SCHEDULED)
    assert {job.task for job in jobs} == {"new"}
    assert all(job.fire_at_ms % 2000 == 0 for job in jobs)
    assert [job.fire_at_ms for job in jobs] == [at for at, _ in edited.state.ahead]
    assert edited.state.anchor_ms == old.state.anchor_ms
    assert edited.state.fired == len(jobs)


async def test_an_edit_leaves_alone_what_a_person_did_to_an_occurrence(wheel: Wheel) -> None:
    made = await wheel.add_schedule(wheel.new_schedule("tick", "* * * * * *", "old"))
    waiting = sorted(await wheel.jobs("default", JobState.SCHEDULED), key=lambda job: job.fire_at_ms)
    cancelled, moved = waiting[-3:-1]
    assert await wheel.cancel(cancelled.id) == "cancelled"
    assert await wheel.reschedule(moved.id, delay=3600) == "rescheduled"
    there = await wheel.get(moved.id)
    edited = await wheel.edit_schedule(replace(made.definition, task="new"))
    jobs = {job.id: job for job in await wheel.jobs("default", JobState.SCHEDULED)}
    assert cancelled.id not in jobs
    assert jobs.pop(moved.id) == there
    assert {job.task for job in jobs.values()} == {"new"}
    assert waiting[-1].id in jobs
    assert edited.state.fired == len(jobs) + 2


async def test_what_is_gone_by_now_is_not_put_there_again_by_an_edit(wheel: Wheel) -> None:
    made = await wheel.add_schedule(wheel.new_schedule("tick", "* * * * * *", "t"))
    # As it is, too, when each one ran and its tombstone was pruned before the schedule is looked at again.
    assert await wheel.purge("default", JobState.SCHEDULED) == len(made.state.ahead)
    await wheel.edit_schedule(replace(made.definition, description="said better"))
    decided = {occurrence_id("tick", at) for at, _ in made.state.ahead}
    assert not decided & set(await on_the_wheel(wheel))
    await wheel.edit_schedule(replace(made.definition, description="and better"))
    assert not decided & set(await on_the_wheel(wheel))


async def test_an_edit_made_from_another_definition_is_refused(wheel: Wheel) -> None:
    read = await wheel.add_schedule(wheel.new_schedule("s", FAR, "old"))
    await wheel.edit_schedule(replace(read.definition, tz="Asia/Tokyo"), before=read.definition)
    with pytest.raises(ScheduleChanged, match="read it and edit it again"):
        await wheel.edit_schedule(replace(read.definition, jitter_ms=5), before=read.definition)
    assert (await wheel.schedule("s")).definition == replace(read.definition, tz="Asia/Tokyo")


async def test_a_name_in_two_queues_is_told_apart_by_the_queue(wheel: Wheel, fresh: RedisServer) -> None:
    await wheel.add_schedule(wheel.new_schedule("s", FAR, "t", queue="one"))
    await wheel.add_schedule(wheel.new_schedule("other", FAR, "t", queue="two"))
    # As two leave it that add the same name to two queues in the same moment.
    with fresh.client() as client:
        raw = client.hget(Session("zw").keys("one").schedules, "s")
        assert raw is not None
        client.hset(Session("zw").keys("two").schedules, "s", raw.replace(b'"queue":"one"', b'"queue":"two"'))
    with pytest.raises(InvalidInput, match="in several queues: say which of one, two"):
        await wheel.pause_schedule("s")
    assert (await wheel.pause_schedule("s", "two")).queue == "two"
    assert (await wheel.schedule("s", "one")).status is Status.ACTIVE


async def test_a_removed_schedule_leaves_nothing(wheel: Wheel, fresh: RedisServer) -> None:
    await wheel.add_schedule(wheel.new_schedule("tick", "* * * * * *", "t"))
    await wheel.remove_schedule("tick")
    assert (await wheel.schedules(), await on_the_wheel(wheel)) == ([], [])
    with fresh.client() as client:
        keys = Session("zw").keys("default")
        assert client.exists(keys.schedules, keys.schedules_due, keys.jobs, keys.days) == 0


async def test_a_trigger_runs_now_and_leaves_the_rhythm_alone(wheel: Wheel) -> None:
    before = await wheel.add_schedule(wheel.new_schedule("s", FAR, "t"))
    fired = await wheel.trigger_schedule("s")
    job = await wheel.get(fired.job_id)
    assert job is not None
    assert job.id.startswith("s@") and job.id.endswith("Z:trigger")
    after = await wheel.schedule("s")
    assert (after.next_ms, after.state.last_ms) == (before.next_ms, None)
    assert [d.verdict for d in after.state.recent] == [Verdict.TRIGGERED]
    await wheel.pause_schedule("s")
    await wheel.trigger_schedule("s")
    assert (await wheel.schedule("s")).status is Status.PAUSED


async def test_a_backfill_runs_each_past_occurrence_once(wheel: Wheel) -> None:
    await wheel.add_schedule(wheel.new_schedule("s", "0 0 * * *", "t"))
    start, end = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 10, tzinfo=UTC)
    made = await wheel.backfill_schedule("s", start, end)
    assert [answer.existed for answer in made] == [False] * 10
    assert made[0].job_id == "s@2026-01-01T00:00:00Z"
    again = await wheel.backfill_schedule("s", start, end + timedelta(days=1))
    assert [answer.existed for answer in again] == [True] * 10 + [False]
    with pytest.raises(InvalidInput, match="10,000"):
        await wheel.backfill_schedule("s", datetime(1990, 1, 1, tzinfo=UTC), end)
    with pytest.raises(InvalidInput, match="before"):
        await wheel.backfill_schedule("s", end, start)


async def test_an_occurrence_that_was_cancelled_comes_back_by_nothing_but_a_person(wheel: Wheel) -> None:
    made = await wheel.add_schedule(wheel.new_schedule("s", "* * * * * *", "old"))
    cancelled = sorted(await wheel.jobs("default", JobState.SCHEDULED), key=lambda job: job.fire_at_ms)[-1]
    assert await wheel.cancel(cancelled.id) == "cancelled"
    await wheel.edit_schedule(replace(made.definition, task="new"))
    await wheel.pause_schedule("s")
    await wheel.resume_schedule("s", catch_up=True)
    (again,) = await wheel.backfill_schedule("s", cancelled.fire_at, cancelled.fire_at)
    assert (again.existed, again.state) == (True, JobState.CANCELLED)
    assert (await wheel.enqueue("old", id=cancelled.id, at=cancelled.fire_at)).replaced


async def test_a_sync_changes_what_its_owner_declares_and_nothing_else(wheel: Wheel) -> None:
    await wheel.add_schedule(wheel.new_schedule("by-hand", FAR, "t"))
    mine = [wheel.new_schedule(name, FAR, "t") for name in ("a", "b", "c")]
    await wheel.sync_schedules([wheel.new_schedule("theirs", FAR, "t")], "other:app")
    report = await wheel.sync_schedules(mine, "my:app")
    assert (report.added, report.changed, report.removed, report.unchanged) == (("a", "b", "c"), (), (), ())
    changed = [mine[0], wheel.new_schedule("b", "0 0 2 1 *", "t"), wheel.new_schedule("d", FAR, "t")]
    dry = await wheel.sync_schedules(changed, "my:app", dry_run=True)
    assert [info.name for info in await wheel.schedules()] == ["a", "b", "by-hand", "c", "theirs"]
    assert await wheel.sync_schedules(changed, "my:app") == dry
    assert (dry.added, dry.changed, dry.removed, dry.unchanged) == (("d",), ("b",), ("c",), ("a",))
    assert [info.name for info in await wheel.schedules()] == ["a", "b", "by-hand", "d", "theirs"]
    with pytest.raises(ScheduleExists, match="other:app"):
        await wheel.sync_schedules([wheel.new_schedule("theirs", FAR, "t")], "my:app")
    assert len(await wheel.schedules()) == 5


async def test_an_edit_by_hand_stays_until_its_owner_changes_the_schedule(wheel: Wheel) -> None:
    declared = wheel.new_schedule("s", FAR, "t")
    await wheel.sync_schedules([declared], "my:app")
    await wheel.pause_schedule("s")
    await wheel.resume_schedule("s")
    await wheel.edit_schedule(replace(wheel.new_schedule("s", "0 0 3 1 *", "t"), owner="my:app"))
    assert (await wheel.sync_schedules([declared], "my:app")).unchanged == ("s",)
    assert "3 1" in str((await wheel.schedule("s")).definition.kind)
    assert (await wheel.sync_schedules([wheel.new_schedule("s", "0 0 4 1 *", "t")], "my:app")).changed == ("s",)
    assert "4 1" in str((await wheel.schedule("s")).definition.kind)


async def test_an_edit_by_hand_stays_when_its_owner_changes_the_description_alone(wheel: Wheel) -> None:
    await wheel.sync_schedules([wheel.new_schedule("s", FAR, "t", description="one")], "my:app")
    edited = wheel.new_schedule("s", FAR, "t", misfire="skip", description="one")
    await wheel.edit_schedule(replace(edited, owner="my:app"))
    declared = wheel.new_schedule("s", FAR, "t", description="two")
    for expected in (("s",), ()):
        assert (await wheel.sync_schedules([declared], "my:app")).changed == expected
        found = (await wheel.schedule("s")).definition
        assert (found.misfire, found.description) == ("skip", "two")
    await wheel.sync_schedules([wheel.new_schedule("s", "0 0 4 1 *", "t", description="two")], "my:app")
    assert (await wheel.schedule("s")).definition.misfire == "fire_once"


async def test_a_paused_schedule_stays_paused_when_its_owner_changes_it(wheel: Wheel) -> None:
    await wheel.sync_schedules([wheel.new_schedule("s", FAR, "t")], "my:app")
    await wheel.pause_schedule("s")
    await wheel.sync_schedules([wheel.new_schedule("s", "* * * * * *", "t")], "my:app")
    assert (await wheel.schedule("s")).status is Status.PAUSED
    assert await on_the_wheel(wheel) == []


async def test_a_schedule_moves_to_another_queue_with_its_owner(wheel: Wheel) -> None:
    await wheel.sync_schedules([wheel.new_schedule("s", "* * * * * *", "t")], "my:app")
    report = await wheel.sync_schedules([wheel.new_schedule("s", "* * * * * *", "t", queue="other")], "my:app")
    assert report.changed == ("s",)
    assert [(info.name, info.queue) for info in await wheel.schedules()] == [("s", "other")]
    assert await on_the_wheel(wheel) == []
    assert len(await on_the_wheel(wheel, "other")) >= 9


async def test_start_end_and_count_bound_a_schedule(wheel: Wheel) -> None:
    now = datetime.now(UTC)
    later = await wheel.add_schedule(
        wheel.new_schedule("later", "* * * * * *", "t", start=now + timedelta(days=1), end=now + timedelta(days=2))
    )
    assert later.next_ms is not None
    assert to_datetime(later.next_ms) >= now + timedelta(days=1)
    three = await wheel.add_schedule(wheel.new_schedule("three", "* * * * * *", "t", max_count=3))
    assert (three.status, three.state.fired) == (Status.FINISHED, 3)
    assert len(await on_the_wheel(wheel)) == 3
    over = await wheel.add_schedule(wheel.new_schedule("over", "* * * * * *", "t", end=now - timedelta(days=1)))
    assert over.status is Status.FINISHED


async def test_a_declared_schedule_is_checked_where_it_stands(wheel: Wheel) -> None:
    @wheel.cron("@every 90s", name="often", args=["a"])
    @wheel.cron("0 9 * * *", tz="Europe/Berlin", args=["b"])
    @wheel.task(name="mail", queue="mails", retries=2)
    async def mail(to: str) -> None: ...

    assert sorted(wheel.declared) == ["mail", "often"]
    definition = wheel.declared["often"]
    assert (definition.queue, definition.task, definition.max_attempts) == ("mails", "mail", 3)
    with pytest.raises(ConfigError):
        wheel.cron("0 9 * * *", args=["c"])(mail)
    with pytest.raises(InvalidInput):
        wheel.cron("0 9 * * *", name="none")(mail)

    @wheel.cron("@daily")
    def plain() -> None: ...

    assert wheel.declared[plain.name].task == plain.name  # type: ignore[attr-defined]


async def test_the_blocking_client_does_the_same(blocking: SyncWheel) -> None:
    blocking.add_schedule(blocking.new_schedule("s", "* * * * * *", "t"))
    assert blocking.pause_schedule("s").status is Status.PAUSED
    assert blocking.resume_schedule("s").status is Status.ACTIVE
    assert blocking.edit_schedule(blocking.new_schedule("s", FAR, "t")).state.ahead == ()
    blocking.trigger_schedule("s")
    assert [past.verdict for past in blocking.schedule_history("s")] == [Verdict.TRIGGERED]
    assert len(blocking.backfill_schedule("s", datetime(2020, 1, 1, tzinfo=UTC), datetime(2022, 1, 1, tzinfo=UTC))) == 3
    assert blocking.sync_schedules([], "nobody").removed == ()
    assert isinstance(blocking.schedule("s"), ScheduleInfo)
    assert len(blocking.schedules()) == 1
    blocking.remove_schedule("s")
    assert blocking.schedules() == []


async def test_the_history_tells_when_an_occurrence_ended(wheel: Wheel, fresh: RedisServer) -> None:
    await wheel.add_schedule(wheel.new_schedule("s", FAR, "t", queue=QUEUE, keep=3_600))
    await wheel.trigger_schedule("s")
    hand = Hand(fresh.url, "aaaaaaaa")
    held = hand.claim()
    before = hand.now_ms()
    assert hand.complete(held) == "d"
    (past,) = await wheel.schedule_history("s")
    assert past.state == "done" and past.ended_ms is not None and before <= past.ended_ms <= hand.now_ms()
    hand.store.close()
