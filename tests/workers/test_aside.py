"""What a worker takes back out of the dead set: jobs that a version which could not read their records set aside there."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.lua.shard import held, record
from tests.servers import RedisServer
from tests.workers.harness import Log, Running, eventually, one_kind, published, running
from tests.workers.processes import worker_process
from zwheel import JobState, Wheel
from zwheel.broker.store import Store
from zwheel.calls import Call, Session
from zwheel.times import DAY_MS, day_of
from zwheel.workers.aside import PAGE, READS, Aside
from zwheel.workers.contact import Contact
from zwheel.workers.reaper import Reaper
from zwheel.workers.settings import WorkerSettings

pytestmark = [pytest.mark.anyio, one_kind]


class Counting(Store):
    """A store that counts the records which scripts were asked to look at."""

    looked_at = 0

    async def send(self, commands: Any, **more: Any) -> list[Any]:
        for command in commands:
            if isinstance(command, Call):
                self.looked_at += sum(
                    str(word, "utf-8").startswith("job") for word in command.args if isinstance(word, bytes)
                )
        return await super().send(commands, **more)


class Stage:
    """A shard whose dead set holds what the test puts there."""

    def __init__(self, server: RedisServer) -> None:
        self.store = Counting(server.url, Session("zw", "w1"))
        self.keys = self.store.session.keys("default")
        self.aside = Aside(self.store, self.keys)
        self.client = server.client()
        self.store.session.clock.observe(self.now_ms * 1000, 0, 0)

    @property
    def now_ms(self) -> int:
        seconds, micros = self.client.time()
        return int(seconds) * 1000 + int(micros) // 1000

    def put(self, jobs: dict[str, bytes], at_ms: float | None = None) -> None:
        """Records whose jobs were set aside."""
        for name, raw in jobs.items():
            self.client.hset(self.keys.jobs, name, raw)
        self.client.zadd(self.keys.dead, dict.fromkeys(jobs, self.now_ms if at_ms is None else at_ms))

    def dead(self) -> set[bytes]:
        found: Any = self.client.zrange(self.keys.dead, 0, -1)
        return set(found)

    def bucket(self, ms: int) -> dict[bytes, float]:
        found: Any = self.client.zrange(self.keys.wheel(day_of(ms)), 0, -1, withscores=True)
        return dict(found)


@pytest.fixture
async def stage(fresh: RedisServer, anyio_backend: str) -> AsyncIterator[Stage]:
    made = Stage(fresh)
    yield made
    made.client.close()
    await made.store.aclose()


async def test_each_job_returns_to_where_its_record_says_and_never_earlier(stage: Stage) -> None:
    now = stage.now_ms
    fires = {"job-due": now - 5_000, "job-old": now - 9 * DAY_MS, "job-far": now + 40 * DAY_MS}
    records = {name: record(fire=fire) for name, fire in fires.items()}
    stage.put(records | {"job-runs": held(now * 1000), "job-dead": record("x"), "job-newer": record(more="Lx")})
    assert await stage.aside.look() == 4
    assert stage.dead() == {b"job-dead", b"job-newer"}
    for name, fire in fires.items():
        assert stage.bucket(fire)[name.encode()] == fire
    until = stage.client.zscore(stage.keys.processing, "job-runs")
    assert until is not None
    assert until <= stage.now_ms, "the next reap takes it"
    assert stage.client.hget(stage.keys.jobs, "job-runs") == held(now * 1000 + 1), "and its holder is fenced"
    assert stage.client.hget(stage.keys.jobs, "job-due") == records["job-due"]


async def test_what_was_seen_is_not_looked_at_again(stage: Stage) -> None:
    stage.put({f"job-{n}": record("x") for n in range(30)}, stage.now_ms - 5_000)
    assert await stage.aside.look() == 0
    assert stage.store.looked_at == 30
    for _ in range(3):
        assert await stage.aside.look() == 0
    assert stage.store.looked_at == 30
    stage.put({"job-new": record(fire=stage.now_ms)})
    assert await stage.aside.look() == 1
    assert stage.store.looked_at == 31


async def test_one_look_is_bounded_and_the_next_ones_go_on_also_among_deaths_of_one_ms(stage: Stage) -> None:
    at_ms = stage.now_ms - 5_000
    stage.put({f"job-{n:04}": record("x") for n in range(2_300)}, at_ms)
    stage.put({"zzz": record(fire=at_ms)}, at_ms)
    assert [await stage.aside.look() for _ in range(3)] == [0, 0, 1]
    assert stage.store.looked_at == 2_300
    assert PAGE * 10 == 1_000


async def test_a_death_at_a_time_that_cannot_be_hides_no_other(stage: Stage) -> None:
    stage.put({"job-odd": record("x")}, float("inf"))
    assert await stage.aside.look() == 0
    stage.put({"job-new": record(fire=stage.now_ms)})
    assert await stage.aside.look() == 1


async def test_after_a_jump_of_the_clock_all_of_it_is_looked_at_again(stage: Stage) -> None:
    contact = Contact(WorkerSettings())
    looked: list[bool] = []
    reaper = Reaper(stage.store, stage.keys, WorkerSettings(), Log(), contact, taken_back=lambda: looked.append(True))
    stage.put({"job-x": record("x")})
    await reaper._take_back()
    stage.put({"job-a": record(fire=stage.now_ms)}, stage.now_ms - 3_600_000)
    await reaper._take_back()
    assert (len(stage.dead()), looked) == (2, []), "it came in a time that the clock went back to"
    contact.count(1)
    await reaper._take_back()
    assert (len(stage.dead()), looked) == (1, [True]), "and the poller looks at once"


@pytest.mark.parametrize("mixed", [False, True])
async def test_what_went_on_while_it_was_aside_leaves_the_dead_set_where_versions_are_mixed(
    stage: Stage, mixed: bool
) -> None:
    now = stage.now_ms
    raw = record(fire=now + 60_000)
    stage.put({"job-a": raw})
    stage.client.zadd(stage.keys.wheel(day_of(now + 60_000)), {"job-a": now + 60_000})
    assert await stage.aside.look(mixed=mixed) == mixed
    assert stage.dead() == (set() if mixed else {b"job-a"}), "else it is damage, which a person is told of"
    assert stage.bucket(now + 60_000) == {b"job-a": now + 60_000}


def row(**more: object) -> str:
    return json.dumps({"beat": 1, "version": "0.1.0", **more})


@pytest.mark.parametrize(
    ("keeper", "left"),
    [
        (row(reads=READS), True),
        (row(reads=READS + "Q"), False),
        (row(reads=READS[:1]), False),
        (row(), False),
        ("[no row]", False),
        (None, False),
    ],
)
async def test_an_idle_worker_leaves_it_to_a_timekeeper_that_reads_the_same(
    stage: Stage, keeper: str | None, left: bool
) -> None:
    busy = False
    settings = WorkerSettings()
    reaper = Reaper(stage.store, stage.keys, settings, Log(), Contact(settings), follows=lambda: not busy)
    lasts_ms = stage.now_ms + 15_000
    stage.client.hset(stage.keys.meta, mapping={"schema": 1, "keeper": "w2", "keeper_end": lasts_ms})
    if keeper is not None:
        stage.client.hset(stage.keys.workers, "w2", keeper)
    for name in ("job-a", "job-b"):
        stage.put({name: record(fire=stage.now_ms)})
        await reaper._reap()
        await reaper._take_back()
        assert bool(stage.dead()) is left
    if left:
        stage.client.hset(stage.keys.meta, "keeper_end", stage.now_ms - 1)
        await reaper._reap()
        await reaper._take_back()
        assert stage.dead() == set(), "nobody keeps time"
        stage.client.hset(stage.keys.meta, "keeper_end", lasts_ms)
        stage.put({"job-c": record(fire=stage.now_ms)})
        await reaper._reap()
        await reaper._take_back()
        assert stage.dead() == set(), "for a minute after it found some it looks itself"
        reaper._mixed_until, busy = 0.0, True
        stage.put({"job-d": record(fire=stage.now_ms)})
        await reaper._reap()
        await reaper._take_back()
        assert stage.dead() == set(), "it is not idle"


@pytest.mark.parametrize("second", ["lives", "is dead too"])
async def test_what_was_set_aside_comes_back_although_the_timekeeper_was_killed(
    wheel: Wheel, log: Log, url: str, fresh: RedisServer, tmp_path: Path, second: str
) -> None:
    keys = Session("zw").keys("default")
    with fresh.client() as client:
        job = await wheel.enqueue("later", delay=3600)

        async def holders() -> list[bytes | None]:
            found: Any = client.hmget(keys.meta, ["keeper", "second"])
            return list(found)

        async with AsyncExitStack() as stack:
            doomed = [await stack.enter_async_context(worker_process(url, tmp_path))]
            (keeper, _) = await eventually(holders, lambda found: found[0])
            if second == "is dead too":
                doomed.append(await stack.enter_async_context(worker_process(url, tmp_path)))
                await eventually(holders, all)
            handle = await stack.enter_async_context(running(wheel, log))
            # The worker of this test has looked at the dead set when it began.
            await published(fresh, len(doomed) + 1)
            if second == "lives":
                await eventually(holders, lambda found: found[1] == handle.worker.id.encode())
            else:
                await eventually(partial(_follows, handle), bool)
            assert (await holders())[0] == keeper
            for process in doomed:
                process.signal(signal.SIGKILL)
                await process.ended()
            client.zrem(keys.wheel(day_of(job.fire_at_ms)), job.job_id)
            client.zadd(keys.dead, {job.job_id: int(time.time() * 1000)})

            async def dead() -> int:
                return int(client.zcard(keys.dead))

            await eventually(dead, lambda count: not count)
            assert await wheel.count("default", JobState.SCHEDULED) == 1


async def _follows(handle: Running) -> bool:
    return all(poller.looks.follows for poller in handle.worker.pollers)
