"""Damage that anyone with a Redis client can do to one queue, under a worker of two: it costs that queue alone. G11.

For each: the other queue's job runs in time, the worker asks Redis little and says little, `doctor` names the damage,
and after `doctor --repair` the damaged queue runs jobs again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from tests.lua.shard import record, record_of_1
from tests.servers import RedisServer
from tests.unit.schedules.strange import STRANGE, stored
from tests.workers.harness import Log, eventually, one_kind, running
from zwheel import Wheel
from zwheel.doctor import Health, Level, check_queue, mend_queue
from zwheel.errors import ZwheelError
from zwheel.keys import ShardKeys
from zwheel.times import DAY_MS, day_of
from zwheel.workers.peers import group_of

pytestmark = [pytest.mark.anyio, pytest.mark.raw_keys, one_kind]
KEYS = ShardKeys.of("zw", "default")
YEAR_MS = 365 * 86_400_000
#: What the server may carry out in a second for a worker of two queues, one damaged, the commands inside of scripts
#: included (a spin is more than 20,000), and how many lines the worker may log.
MOST_COMMANDS, MOST_LINES = 3000, 12


class Damage(NamedTuple):
    """What was done to the queue, and what is right then."""

    do: Callable[[Any, int], object]
    """Takes a client and the server's time, ms."""
    found: str = ""
    """The check of `doctor` that names it; '' for what a worker has put right by itself, or what is no damage."""
    mended: bool = True
    """Whether jobs of the queue run again after a repair."""


def bucket(client: Any, now: int, job: str | bytes, score: float, raw: bytes | None = None) -> None:
    """Put a job on today's wheel with any score and any record."""
    client.hset(KEYS.jobs, job, record(fire=now) if raw is None else raw)
    client.zadd(KEYS.wheel(day_of(now)), {job: score})
    client.zadd(KEYS.days, {day_of(now): int(day_of(now))})


def held(client: Any, now: int, score: float, raw: bytes | None = None) -> None:
    client.hset(KEYS.jobs, "held", record("p", attempt=1, fire=now, worker="gone0000") if raw is None else raw)
    client.zadd(KEYS.processing, {"held": score})


def two_sets(client: Any, now: int) -> None:
    bucket(client, now, "x", now + 60_000, record(fire=now + 60_000))
    client.zadd(KEYS.dead, {"x": now - 1000})


def ghosts(client: Any, now: int) -> None:
    """Two workers that nobody knows keep the time for a year."""
    roles = {"keeper": "ghost000", "keeper_at": 0, "second": "ghost001"}
    client.hset(KEYS.meta, mapping=roles | {"keeper_end": now + YEAR_MS, "second_end": now + YEAR_MS})


def meta(**fields: Any) -> Damage:
    """Fields of meta."""
    return Damage(lambda client, now: client.hset(KEYS.meta, mapping=fields))


def ahead(*names: str) -> Damage:
    return Damage(lambda client, now: client.hset(KEYS.meta, mapping=dict.fromkeys(names, now + YEAR_MS)))


def other_type(key: str, kind: str = "text") -> Damage:
    """A key of another program under our name."""

    def do(client: Any, now: int) -> None:
        client.delete(key)
        if kind == "text":
            client.set(key, "x")
        elif kind == "list":
            client.rpush(key, "x")
        else:
            client.hset(key, "x", "y")

    return Damage(do, "places", mended=False)


def lost(key: str, found: str = "") -> Damage:
    """A key that a person deleted."""
    return Damage(lambda client, now: client.delete(key), found)


def due(**scores: float) -> Damage:
    return Damage(lambda client, now: client.zadd(KEYS.schedules_due, scores))


def schedule(name: str, found: str = "versions") -> Damage:
    """A schedule that cannot be read, and is due."""

    def do(client: Any, now: int) -> None:
        client.hset(KEYS.schedules, "bad", STRANGE[name])
        client.zadd(KEYS.schedules_due, {"bad": 1})

    return Damage(do, found)


def worker_says(value: str) -> Damage:
    return Damage(lambda client, now: client.hset(KEYS.workers, "junk", value))


#: The group of the worker here, and notes of jobs that are not there or name no job.
GROUP = group_of(["t"])
NOTES = (f"a {1:015d} {1:016d}", "a", "a b c", f"a {1:015d} {1:016d} more", "x" * 100_000)


def notes(*texts: str | bytes) -> Damage:
    """Notes of offers, which stand for a while."""

    def do(client: Any, now: int) -> None:
        for at in range(0, len(texts), 1000):
            client.zadd(KEYS.offered(GROUP), dict.fromkeys(texts[at : at + 1000], now + 50_000))

    return Damage(do)


INF = float("inf")


def everywhere(client: Any, now: int) -> None:
    """One job that is due, held, dead and done at once, and a task's name that no program wrote."""
    for number, name in enumerate(("a", "b")):
        bucket(client, now, name, now + number, record(fire=now + number, task="t" * 1_000_000 if number else "t"))
        for key in (KEYS.processing, KEYS.dead, KEYS.done):
            client.zadd(key, {name: now - 5})


def with_an_end(client: Any, now: int) -> None:
    """Another program gave every key an end, which comes while the worker works."""
    for key in (KEYS.jobs, KEYS.days, KEYS.processing, KEYS.wake, KEYS.workers, KEYS.wheel(day_of(now))):
        client.pexpire(key, 200)


def two_at_once(client: Any, now: int) -> None:
    """A stream for the dead, and a clock, a role and a bucket that cannot be."""
    client.delete(KEYS.dead)
    client.xadd(KEYS.dead, {"a": "b"})
    client.hset(KEYS.meta, mapping={"clock": "inf", "keeper": "ghost000", "keeper_end": "9" * 400, "cap": "-0.0"})
    bucket(client, now, b"\xff\n", -INF, b"\xff" * 60)


DAMAGE: dict[str, Damage] = {
    "nothing": Damage(lambda client, now: None),
    "jobs that are everywhere at once": Damage(everywhere),
    "keys that end by themselves": Damage(with_an_end),
    "a stream, and three values that cannot be": Damage(two_at_once, "places", mended=False),
    "a fire time that never comes": Damage(lambda c, now: bucket(c, now, "x", INF)),
    "a fire time before all times": Damage(lambda c, now: bucket(c, now, "x", -INF)),
    "a fire time below nothing": Damage(lambda c, now: bucket(c, now, "x", -5)),
    "a fire time with a fraction": Damage(lambda c, now: bucket(c, now, "x", now + 0.5)),
    "a fire time of another day": Damage(lambda c, now: bucket(c, now, "x", 1e300)),
    "a record that fires in the year 33658": Damage(lambda c, now: bucket(c, now, "x", now, record(fire=10**15 - 1))),
    "an id that is no text": Damage(lambda c, now: bucket(c, now, b"\xff\xfe", now)),
    "an id with spaces and lines": Damage(lambda c, now: bucket(c, now, "a b\nc\x1b[31m", now)),
    "an id of 1 MB": Damage(lambda c, now: bucket(c, now, "i" * 1_000_000, now)),
    "an empty id": Damage(lambda c, now: bucket(c, now, "", now)),
    "an empty record": Damage(lambda c, now: bucket(c, now, "x", now, b"")),
    "half a record": Damage(lambda c, now: bucket(c, now, "x", now, record()[:30])),
    "a record without a task": Damage(lambda c, now: bucket(c, now, "x", now, record(fire=now)[:51])),
    "a record in an unknown state": Damage(lambda c, now: bucket(c, now, "x", now, record("q", fire=now))),
    "a record of a newer version": Damage(lambda c, now: bucket(c, now, "x", now, record(version="3", fire=now))),
    "a record that says it is done": Damage(lambda c, now: bucket(c, now, "x", now, record("d", keep=60))),
    "failures longer than the record": Damage(
        lambda c, now: bucket(c, now, "x", now, record_of_1(fire=now, flags="04")[:51] + b"99999x\n")
    ),
    "a body of random bytes": Damage(lambda c, now: bucket(c, now, "x", now, record(fire=now, body=b"\xc1" * 999))),
    "the largest token": Damage(lambda c, now: bucket(c, now, "x", now, record(fire=now, token=10**16 - 1))),
    "an id without a record": Damage(lambda c, now: c.zadd(KEYS.wheel(day_of(now)), {"ghost": 1})),
    "a record in no set": Damage(lambda c, now: c.hset(KEYS.jobs, "x", record(fire=now)), "places"),
    "a job in two sets": Damage(two_sets, "places"),
    "days that are none": Damage(lambda c, now: c.zadd(KEYS.days, {"abc": 1, b"\xff": 2, "20269999": 3, "-1": 4})),
    "30,000 days that are none": Damage(lambda c, now: c.zadd(KEYS.days, {f"d{n}": n for n in range(30_000)})),
    "a day with another score": Damage(lambda c, now: c.zadd(KEYS.days, {day_of(now + 86_400_000): -INF})),
    "a lease that never ends": Damage(lambda c, now: held(c, now, INF)),
    "a lease that ends in a year": Damage(lambda c, now: held(c, now, now + YEAR_MS)),
    "a lease that ended before all times": Damage(lambda c, now: held(c, now, -INF)),
    "a held job without a record": Damage(lambda c, now: c.zadd(KEYS.processing, {"ghost": 1})),
    "a held job of a newer version": Damage(lambda c, now: held(c, now, 1, record("p", version="3"))),
    "a death that never was": Damage(
        lambda c, now: (c.hset(KEYS.jobs, "d", record("x")), c.zadd(KEYS.dead, {"d": INF})), "times"
    ),
    "a tombstone that never goes": Damage(
        lambda c, now: (c.hset(KEYS.jobs, "d", record("d", keep=60, body=b"")), c.zadd(KEYS.done, {"d": 1e300})),
        "times",
    ),
    "a clock that never was": meta(clock="inf"),
    "a clock that is no number": meta(clock="abc"),
    "a clock of the next year": Damage(lambda c, now: c.hset(KEYS.meta, "clock", (now + YEAR_MS) * 1000), "meta"),
    "a grace that never ends": meta(grace="inf"),
    "a grace of a year": ahead("grace"),
    "words for numbers": meta(beat="abc", grace="abc", lease="abc", keeper_at="abc", keeper_end="abc", second_end="x"),
    "no numbers at all": meta(beat="nan", grace="nan", lease="nan", keeper_at="nan", keeper_end="nan"),
    "bytes for numbers": meta(beat=b"\xff", grace=b"\xff", lease=b"\xff"),
    "a lease of a century": meta(lease=str(100 * YEAR_MS)),
    "ghosts that keep the time for a year": Damage(ghosts),
    "counters that are no numbers": meta(orphans="x", trimmed=b"\xff", jumps="1e9999"),
    "a cap that is no number": meta(cap="abc"),
    "an epoch that is no text": meta(epoch=b"\xff\x00 \n"),
    "another epoch": meta(epoch="5"),
    "a schema that is no text": meta(schema=b"\xff\x1b[31m")._replace(found="schema", mended=False),
    "a schema of a newer version": meta(schema="2")._replace(found="schema", mended=False),
    "a thousand tokens": Damage(lambda c, now: c.rpush(KEYS.wake, *["1"] * 1000)),
    "a token of 10 MB": Damage(lambda c, now: c.rpush(KEYS.wake, b"x" * 10_000_000)),
    "a dedup key that points nowhere": Damage(lambda c, now: c.hset(KEYS.dedup, "f" * 32, "nobody"), "dedup"),
    "a dedup key that is no text": Damage(lambda c, now: c.hset(KEYS.dedup, b"\xff", b"\xfe"), "dedup"),
    "a window that never ends": Damage(lambda c, now: c.zadd(KEYS.dedup_expiry, {"f" * 32: INF}), "dedup"),
    "10 MB about a worker": worker_says("x" * 10_000_000),
    "a worker nested deep": worker_says("[" * 100_000),
    "a worker that beats at no time": worker_says('{"beat":1e999}'),
    "names that are due without a record": due(ghost=1, other=-5),
    "a schedule that is due at no time": due(ghost=-INF, never=INF),
    "a name that is no text and due": Damage(lambda c, now: c.zadd(KEYS.schedules_due, {b"\xff": 1})),
    "a paused schedule that is due": Damage(
        lambda c, now: (c.hset(KEYS.schedules, "off", stored("off", head="1p")), c.zadd(KEYS.schedules_due, {"off": 1}))
    ),
    "a schedule of a newer version": schedule("a field of a newer version"),
    "a schedule that is no text": schedule("no text"),
    "a schedule nested deep": schedule("nested deep"),
    "a schedule whose arguments are damaged": schedule("arguments that cannot be decoded", ""),
    "jobs deleted": lost(KEYS.jobs),
    "days deleted": lost(KEYS.days),
    "meta deleted": lost(KEYS.meta, "schema"),
    "workers deleted": lost(KEYS.workers),
    "jobs of another type": other_type(KEYS.jobs),
    "days of another type": other_type(KEYS.days),
    "processing of another type": other_type(KEYS.processing, "list"),
    "dead of another type": other_type(KEYS.dead, "hash"),
    "done of another type": other_type(KEYS.done),
    "dedup of another type": other_type(KEYS.dedup, "list"),
    "wake of another type": other_type(KEYS.wake),
    "meta of another type": other_type(KEYS.meta),
    "workers of another type": other_type(KEYS.workers, "list"),
    "schedules of another type": other_type(KEYS.schedules),
    "notes of offers of another type": other_type(KEYS.offered(GROUP))._replace(found="offers"),
    "calls of another type": other_type(KEYS.call(GROUP), "hash")._replace(found="offers"),
    "a thousand calls": Damage(lambda c, now: c.rpush(KEYS.call(GROUP), *["1"] * 1000)),
    "calls that nobody hears": Damage(lambda c, now: c.rpush(KEYS.call("0" * 16), *["1"] * 1000)),
    "notes that name nothing": notes(*NOTES),
    "30,000 notes that name nothing": notes(*(f"gone{n} {1:015d} {1:016d}" for n in range(30_000))),
    "notes that are no text": notes(b"\xff\xfe", b"", b"\x00 \x1b[31m 1", b"\xff " + NOTES[0].encode()[2:]),
    "the list of what is due of another type": other_type(KEYS.schedules_due, "hash"),
}


async def stands(wheel: Wheel) -> Health:
    """How `doctor` sees the damaged queue."""
    return await wheel._drive(lambda session: check_queue(session, "default"))


@pytest.mark.parametrize("what", DAMAGE)
async def test_damage_to_one_queue_costs_that_queue_alone(
    wheel: Wheel, log: Log, fresh: RedisServer, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    damage = DAMAGE[what]

    @wheel.task(name="t")
    async def nothing() -> None: ...

    with fresh.client() as client:
        async with running(wheel, log, queues=("default", "other"), concurrency=50):
            for queue in ("default", "other"):
                await wheel.enqueue("t", queue=queue, id=f"before-{queue}")
                await log.seen("done", f"before-{queue}")
            seconds, micros = client.time()
            caplog.clear()
            damage.do(client, seconds * 1000 + micros // 1000)
            began, before = time.monotonic(), commands(client)
            # Its time comes when the damage was met several times.
            await wheel.enqueue("t", queue="other", id="beside", delay=0.6)
            await log.seen("done", "beside")
            rate = (commands(client) - before) / (time.monotonic() - began)
            assert rate < MOST_COMMANDS
            told = [r for r in caplog.records if r.name.startswith("zwheel")]
            assert len(told) <= MOST_LINES, [r.getMessage() for r in told][-5:]
            assert all(len(r.getMessage()) < 6000 and "\x1b" not in r.getMessage() for r in told)
            health = await stands(wheel)
            bad = {f.check for f in health.findings if f.level is not Level.OK}
            assert not damage.found or damage.found in bad, [f.text for f in health.findings]
            if damage.mended:
                await eventually(lambda: mended(wheel), lambda left: not left, 5.0)
                await runs_again(wheel, log)
        assert [r.getMessage() for r in caplog.records if r.exc_info and "Unread" in r.getMessage()] == []


async def mended(wheel: Wheel) -> list[str]:
    """Repair what there is to repair; what is still wrong then."""
    health = await stands(wheel)
    if health.to_mend:
        await wheel._drive(lambda session: mend_queue(session, health))
    return [f.text for f in (await stands(wheel)).findings if f.level is Level.PROBLEM]


async def runs_again(wheel: Wheel, log: Log) -> None:
    async def enqueued() -> bool:
        try:
            await wheel.enqueue("t", queue="default", id="after")
        except ZwheelError:
            return False
        return True

    await eventually(enqueued, bool)
    await log.seen("done", "after")


def commands(client: Any) -> int:
    """How many commands the server has carried out."""
    return int(client.info("stats")["total_commands_processed"])


HIDING: dict[str, Callable[[Any, int], object]] = {
    "entries without a record": lambda client, now: client.zadd(
        KEYS.wheel(day_of(now)), {f"gone{n}": now - 4_000 + n for n in range(4_000)}
    ),
    "days whose buckets are gone": lambda client, now: client.zadd(
        KEYS.days, {day_of(now - n * DAY_MS): int(day_of(now - n * DAY_MS)) for n in range(400)}
    ),
}


@pytest.mark.parametrize("what", HIDING)
async def test_a_job_behind_much_that_is_gone_starts_soon(
    wheel: Wheel, log: Log, fresh: RedisServer, what: str
) -> None:
    """Claims that only take such entries off are slowed down no more than any: at one a second these took minutes."""

    @wheel.task(name="t")
    async def nothing() -> None: ...

    with fresh.client() as client:
        await wheel.enqueue("t", id="behind", delay=0.3)
        seconds, micros = client.time()
        HIDING[what](client, seconds * 1000 + micros // 1000)
        async with running(wheel, log, concurrency=5):
            await log.seen("done", "behind", within=20)
        assert client.zcard(KEYS.days) <= 1


async def test_the_log_is_one_line_a_record_whatever_ids_say(
    wheel: Wheel, log: Log, fresh: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    @wheel.task(name="boom", retries=0)
    async def boom() -> None:
        raise ValueError("x\n10:00:00 ERROR forged")

    evil = "x\n12:00:00.000Z ERROR   1 FORGED\x1b[31m\u202e" + "y" * 100_000
    with fresh.client() as client:
        async with running(wheel, log):
            await wheel.enqueue("boom", id="plain")
            await log.seen("buried", "plain")
            seconds, _ = client.time()
            raw = record(fire=seconds * 1000, most=1, task="boom", body=b"\x01\x00\x93\x90\x80\x80")
            bucket(client, seconds * 1000, evil, 1, raw)
            bucket(client, seconds * 1000, "unknown", 1, record(fire=seconds * 1000, task="evil\x1b]0;pwn\x07"))
            await wheel.enqueue("boom", id="kick")
            await log.until(lambda: len(log.of("buried")) >= 3)
    lines = [r.getMessage() for r in caplog.records if r.name.startswith("zwheel")]
    assert any("FORGED" in line for line in lines)
    assert all(line.isprintable() and len(line) < 6000 for line in lines)
    json.dumps(lines)
