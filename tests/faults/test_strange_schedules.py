"""Schedule records that this version cannot read, and lists of what is due that contradict them: V-08, S-13, G11."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

import pytest

from tests.servers import RedisServer
from tests.unit.schedules.strange import STRANGE, stored
from tests.workers.harness import Log, eventually, one_kind, running
from zwheel import UndecodableJob, Wheel
from zwheel.calls import Session
from zwheel.errors import ScheduleNotFound

pytestmark = [pytest.mark.anyio, one_kind]
KEYS = Session("zw").keys("default")


@pytest.fixture
def ring(wheel: Wheel) -> Wheel:
    """A wheel with a task."""

    @wheel.task(name="ring", keep=600)
    async def ring() -> None: ...

    return wheel


async def fired(wheel: Wheel, name: str, count: int) -> None:
    """Wait until a schedule has put so many occurrences on the wheel."""
    await eventually(lambda: wheel.schedule(name), lambda info: info.state.fired >= count, 20.0)


async def test_workers_start_and_other_schedules_fire_beside_those_that_cannot_be_read(
    ring: Wheel, fresh: RedisServer, log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    await ring.add_schedule(ring.new_schedule("good", "* * * * * *", "ring", keep=600))
    records = {f"bad-{number}": record for number, record in enumerate(STRANGE.values())}
    with fresh.client() as client:
        client.hset(KEYS.schedules, mapping=records)
        client.zadd(KEYS.schedules_due, dict.fromkeys(records, 1))
        async with running(ring, log):
            await ring.enqueue("ring", id="job")
            await log.seen("done", "job")
            await fired(ring, "good", 3)
            await eventually(lambda: said(caplog), lambda lines: len(lines) >= 10)
        stored_now = client.hgetall(KEYS.schedules)
        assert {name: stored_now[name.encode()] for name in records} == records
    lines = await said(caplog)
    assert len(lines) == len(set(lines)) <= 20, "each is said once"


async def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if "bad" in r.getMessage() and r.name == "zwheel.scheduler"]


async def test_very_many_that_cannot_be_read_cost_little_and_delay_nothing(
    ring: Wheel, fresh: RedisServer, log: Log
) -> None:
    await ring.add_schedule(ring.new_schedule("good", "* * * * * *", "ring", keep=600))
    names = [f"bad-{number}" for number in range(5_000)]
    with fresh.client() as client:
        client.hset(KEYS.schedules, mapping=dict.fromkeys(names, "9a"))
        client.zadd(KEYS.schedules_due, dict.fromkeys(names, 1))

        def read_by_it() -> int:
            return int(client.info("stats")["total_net_output_bytes"])

        async with running(ring, log):
            # The good schedule is due last: once it fires, the worker knows all of them.
            await log.seen("done")
            read: list[int] = []
            # A slow machine is not yet through with them when the first job is done.
            while len(read) < 6 and min(read, default=200_000) >= 200_000:
                before, count = read_by_it(), len(log.of("done"))
                await log.seen("done", count=count + 4)
                read.append(read_by_it() - before)
            assert min(read) < 200_000, f"it reads the whole list at each look: {read}"


async def test_one_that_could_not_be_read_fires_as_soon_as_it_is_written_anew(
    ring: Wheel, fresh: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    await ring.add_schedule(ring.new_schedule("bad", "* * * * * *", "ring", keep=600))
    with fresh.client() as client:
        record = client.hget(KEYS.schedules, "bad")
        client.hset(KEYS.schedules, "bad", "9a")
        client.zadd(KEYS.schedules_due, {"bad": 1})
        async with running(ring):
            await eventually(lambda: said(caplog), lambda lines: lines)
            client.hset(KEYS.schedules, "bad", record)
            count = (await ring.schedule("bad")).state.fired
            client.zadd(KEYS.schedules_due, {"bad": 2})
            # After half a minute a worker tries a schedule again that it left to others.
            await fired(ring, "bad", count + 1)


async def test_one_in_a_queue_that_a_worker_does_not_serve_does_not_keep_it_from_starting(
    ring: Wheel, fresh: RedisServer, log: Log
) -> None:
    with fresh.client() as client:
        client.hset("zw:queues", mapping={"elsewhere": 1, "{}": 1, b"\xff": 1, "closed": 1})
        client.hset(Session("zw").keys("elsewhere").schedules, "bad", stored(queue="elsewhere", priority=5))
        client.set(Session("zw").keys("closed").schedules, "no hash")

        @ring.cron("* * * * * *", name="mine")
        async def timed() -> None: ...

        async with running(ring, log):
            await eventually(ring.schedules, lambda found: any(info.state.fired for info in found), 20.0)
        client.delete("zw:queues", Session("zw").keys("closed").schedules)
        client.hset("zw:queues", "default", 1)


async def test_what_cannot_be_read_is_listed_beside_the_rest_and_named_when_asked_for(
    ring: Wheel, fresh: RedisServer
) -> None:
    await ring.add_schedule(ring.new_schedule("good", "@daily", "ring"))
    with fresh.client() as client:
        client.hset(KEYS.schedules, mapping={"bad": stored(priority=5), b"\xff": stored()})
    found = await ring.schedules()
    assert [info.name for info in found] == ["good"]
    assert [(one.name, one.queue) for one in found.unreadable] == [("bad", "default"), ("\\xff", "default")]
    assert "priority" in found.unreadable[0].reason
    with pytest.raises(UndecodableJob, match="schedule bad of queue default cannot be read: it has priority"):
        await ring.schedule("bad")


async def test_a_sync_leaves_alone_what_it_cannot_read_and_does_the_rest(ring: Wheel, fresh: RedisServer) -> None:
    newer = stored("theirs", priority=5)
    with fresh.client() as client:
        client.hset("zw:queues", "default", 1)
        client.hset(KEYS.schedules, "theirs", newer)
        definitions = [ring.new_schedule(name, "@daily", "ring") for name in ("theirs", "mine")]
        report = await ring.sync_schedules(definitions, "app")
        assert (report.added, report.skipped) == (("mine",), ("theirs",))
        report = await ring.sync_schedules([], "app")
        assert (report.removed, report.skipped) == (("mine",), ())
        assert client.hgetall(KEYS.schedules) == {b"theirs": newer}


async def test_the_package_that_knows_holidays_is_missing_on_one_worker(
    ring: Wheel, fresh: RedisServer, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zwheel.schedules import calendars, definition

    with fresh.client() as client:
        client.hset("zw:queues", "default", 1)
        client.hset(KEYS.schedules, "bad", stored(calendar={"holidays": ["DE"]}))
        client.zadd(KEYS.schedules_due, {"bad": 1})
    monkeypatch.setitem(sys.modules, "holidays", None)
    for cached in (calendars._country, definition._parsed):
        cached.cache_clear()
    await ring.add_schedule(ring.new_schedule("good", "* * * * * *", "ring", keep=600))
    async with running(ring, log):
        await fired(ring, "good", 2)
    assert "holidays package" in (await ring.schedules()).unreadable[0].reason


#: What somebody did to the list of what is due -> what it must become: the names in it.
LISTS: dict[str, tuple[dict[Any, float], set[bytes]]] = {
    "names without a record": ({"ghost": 1, "gone": 2}, {b"good"}),
    "a name that is no text": ({b"\xff": 1}, {b"good"}),
    "no time at all": ({"good": float("inf")}, {b"good"}),
    "a time before all times": ({"good": float("-inf"), "ghost": -5}, {b"good"}),
    "one that is paused": ({"off": 1}, {b"good"}),
}


@pytest.mark.slow
@pytest.mark.parametrize(("due", "names"), LISTS.values(), ids=LISTS)
async def test_a_list_of_what_is_due_that_contradicts_the_records_is_put_right(
    ring: Wheel, fresh: RedisServer, log: Log, due: dict[Any, float], names: set[bytes]
) -> None:
    await ring.add_schedule(ring.new_schedule("good", "* * * * * *", "ring", keep=600))
    await ring.add_schedule(ring.new_schedule("off", "* * * * * *", "ring", keep=600))
    await ring.pause_schedule("off")
    with fresh.client() as client:
        async with running(ring, log):
            await fired(ring, "good", 1)
            client.zadd(KEYS.schedules_due, due)
            before = (await ring.schedule("good")).state.fired
            await fired(ring, "good", before + 6)
        assert set(client.zrange(KEYS.schedules_due, 0, -1)) == names


@pytest.mark.parametrize("when", ["before it starts", "while it runs"])
async def test_a_deleted_list_of_what_is_due_is_made_again(
    ring: Wheel, fresh: RedisServer, log: Log, when: str
) -> None:
    await ring.add_schedule(ring.new_schedule("good", "* * * * * *", "ring", keep=600))
    with fresh.client() as client:
        if when == "before it starts":
            client.delete(KEYS.schedules_due)
        async with running(ring, log):
            if when == "while it runs":
                await fired(ring, "good", 1)
                client.delete(KEYS.schedules_due)
            before = (await ring.schedule("good")).state.fired
            await fired(ring, "good", before + 1)


async def test_deleted_schedules_are_not_looked_for_again_and_again(ring: Wheel, fresh: RedisServer, log: Log) -> None:
    await ring.add_schedule(ring.new_schedule("good", "* * * * * *", "ring", keep=600))
    with fresh.client() as client:
        async with running(ring, log):
            await fired(ring, "good", 1)
            client.delete(KEYS.schedules)
            await eventually(lambda: asyncio.to_thread(client.exists, KEYS.schedules_due), lambda n: n == 0, 20.0)
            before, began = commands(client), time.monotonic()
            await ring.enqueue("ring", id="job", delay=2.0)
            await log.seen("done", "job")
            assert (commands(client) - before) / (time.monotonic() - began) < 200
    with pytest.raises(ScheduleNotFound):
        await ring.schedule("good")


def commands(client: Any) -> int:
    """How many commands the server has carried out."""
    return int(client.info("stats")["total_commands_processed"])
