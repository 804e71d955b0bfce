"""When a reaper takes nothing back although a lease ran out: it was cut off, or it knows of a jump that is not told yet."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.lua.shard import WORKER, held
from tests.servers import RedisServer
from tests.workers.harness import Log, one_kind
from zwheel.broker.store import Store
from zwheel.calls import Session
from zwheel.logs import FIELDS
from zwheel.workers.contact import Contact
from zwheel.workers.reaper import Reaper
from zwheel.workers.settings import WorkerSettings

pytestmark = [pytest.mark.anyio, one_kind]
SETTINGS = WorkerSettings(lease_ms=30_000, reap_ms=50)
HOUR_MS = 3_600_000


class Stage:
    """One reaper, one job whose lease ran out, and a contact at a time that is given."""

    def __init__(self, server: RedisServer, log: Log) -> None:
        self.now_s = 100.0
        self.contact = Contact(SETTINGS, now_ns=lambda: int(self.now_s * 1e9))
        # A claim told so.
        self.contact.count(0)
        self.store = Store(server.url, Session("zw", "w1"))
        self.keys = self.store.session.keys("default")
        self.reaper = Reaper(self.store, self.keys, SETTINGS, log, self.contact)
        self.client = server.client()
        seconds, _ = self.client.time()
        self.client.hset(self.keys.jobs, "a", held(int(seconds) * 1_000_000))
        self.client.zadd(self.keys.processing, {"a": (int(seconds) - 1) * 1000})

    def steady(self) -> None:
        """So long in contact that it may reap."""
        for _ in range(8):
            self.contact.heard(int(self.now_s * 1e9))
            self.now_s += SETTINGS.beat_ms / 1000

    @property
    def is_held(self) -> bool:
        return self.client.zscore(self.keys.processing, "a") is not None


@pytest.fixture
async def stage(fresh: RedisServer, log: Log, anyio_backend: str) -> AsyncIterator[Stage]:
    made = Stage(fresh, log)
    yield made
    made.client.close()
    await made.store.aclose()


async def test_a_lease_that_ran_out_is_taken_back_in_steady_contact(stage: Stage, log: Log) -> None:
    stage.steady()
    await stage.reaper._reap()
    assert not stage.is_held
    assert log.of("reaped") == [{"back": ["a"], "dead": []}]


async def test_each_job_that_dies_of_its_last_lease_has_a_record_of_its_own_up_to_twenty(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    for n in range(25):
        stage.client.hset(stage.keys.jobs, f"d{n:02}", held(1, task="shop.remind", attempt=3, most=3))
        stage.client.zadd(stage.keys.processing, {f"d{n:02}": 1})
    stage.client.hset(stage.keys.jobs, "d01", b"not a record")
    stage.steady()
    await stage.reaper._reap()
    told = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [vars(record).get("job_id") for record in told] == [*(f"d{n:02}" for n in range(20)), None]
    first, damaged, *_, last = told
    assert first.getMessage() == f"job d00 (shop.remind): dead after 3 attempts: lease_expired, its worker was {WORKER}"
    fields = {name: vars(first)[name] for name in FIELDS}
    assert fields == {"job_id": "d00", "job_task": "shop.remind", "job_queue": "default", "job_attempt": 3}
    assert damaged.getMessage() == "job d01 (?): dead: its record cannot be read"
    assert last.getMessage() == "queue default: more dead jobs than are named: 5; see zwheel dead ls"


async def test_one_that_was_cut_off_takes_nothing_and_says_so(stage: Stage, log: Log) -> None:
    stage.steady()
    stage.contact.lost()
    await stage.reaper._reap()
    assert stage.is_held
    assert log.of("held") == [{"queue": "default"}]


async def test_nothing_is_taken_for_one_lease_after_a_jump_that_only_others_saw(stage: Stage, log: Log) -> None:
    """The clock was set back, a worker renewed by it, and it is right again: here a lease seems to have ended."""
    stage.steady()
    stage.client.hset(stage.keys.meta, "jumps", 1)
    await stage.reaper._reap()
    assert stage.is_held
    await stage.reaper._reap()
    assert stage.is_held
    assert log.of("held") == [{"queue": "default"}]
    stage.steady()
    await stage.reaper._reap()
    assert not stage.is_held


async def test_nothing_is_taken_before_a_jump_was_told_and_one_lease_of_grace_follows(stage: Stage, log: Log) -> None:
    """The heartbeat sees the jump, and the estimate is the new one already, when the reaper's turn comes."""
    stage.steady()
    stage.contact.jumped(HOUR_MS * 1000)
    await stage.reaper._reap()
    assert stage.is_held
    await stage.reaper._tell()
    assert log.of("jumped") == [{"queue": "default", "by_ms": HOUR_MS}]
    await stage.reaper._reap()
    assert stage.is_held, "one lease of grace"
    assert stage.client.hget(stage.keys.meta, "jumps") == b"1"


async def test_one_that_was_cut_off_holds_back_for_the_longest_lease_that_the_queue_knows(
    stage: Stage, log: Log
) -> None:
    stage.client.hset(stage.keys.meta, "lease", 3 * SETTINGS.lease_ms)
    stage.steady()
    await stage.reaper._something_lapsed()
    stage.contact.lost()
    stage.contact.heard(int(stage.now_s * 1e9))
    assert stage.contact.wait_s() == 3 * SETTINGS.lease_ms / 1000


@pytest.mark.parametrize(("known", "given"), [("other", True), ("same", False), (None, False)])
async def test_the_grace_after_a_restart_begins_when_the_server_answers_again(
    stage: Stage, log: Log, known: str | None, given: bool
) -> None:
    """It does not wait until the worker that was cut off may reap: two leases would go by, one after the other."""
    run = str(stage.client.info("server")["run_id"])
    stage.client.hset(stage.keys.meta, mapping={"schema": 1, "lease": SETTINGS.lease_ms})
    if known is not None:
        stage.client.hset(stage.keys.meta, "server", run if known == "same" else "another")
    stage.steady()
    stage.contact.lost()
    stage.contact.heard(int(stage.now_s * 1e9), 1)
    await stage.reaper._tell()
    assert stage.contact.wait_s() > 0
    assert stage.is_held
    grace = stage.client.hget(stage.keys.meta, "grace")
    assert (grace is not None) is given
    assert stage.client.hget(stage.keys.meta, "server") == run.encode()
    # The same process answers again: its grace is as long as it was.
    await stage.reaper._tell()
    stage.contact.heard(int(stage.now_s * 1e9), 2)
    await stage.reaper._tell()
    assert stage.client.hget(stage.keys.meta, "grace") == grace


async def test_a_queue_that_somebody_emptied_is_not_written_to(stage: Stage) -> None:
    stage.client.flushall()
    stage.contact.heard(int(stage.now_s * 1e9), 1)
    await stage.reaper._tell()
    assert stage.client.keys() == []


async def test_a_queue_that_nobody_uses_yet_is_asked_once_and_meets_the_server_when_it_is_founded(stage: Stage) -> None:
    def asked() -> int:
        stats: Any = stage.client.info("commandstats")
        return int(stats["cmdstat_info"]["calls"])

    stage.client.flushall()
    stage.contact.heard(int(stage.now_s * 1e9), 1)
    await stage.reaper._tell()
    before = asked()
    for _ in range(3):
        await stage.reaper._something_lapsed()
        await stage.reaper._tell()
    assert asked() == before + 1, "which is the question of this test"
    stage.client.hset(stage.keys.meta, "schema", 1)
    await stage.reaper._something_lapsed()
    await stage.reaper._tell()
    assert stage.client.hget(stage.keys.meta, "server") == str(stage.client.info("server")["run_id"]).encode()
