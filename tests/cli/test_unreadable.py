"""What cannot be read is a row that says so, and hides nothing else: G11 for people."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from tests.cli.conftest import Shell
from tests.lua.shard import record
from tests.servers import RedisServer
from tests.unit.schedules.strange import stored
from tests.workers.harness import one_kind
from zwheel.keys import ShardKeys
from zwheel.times import day_of

pytestmark = [one_kind, pytest.mark.raw_keys]
KEYS = ShardKeys.of("zw", "default")
Damage = Callable[[Any], Any]


@pytest.fixture
def client(fresh: RedisServer, shell: Shell) -> Iterator[redis.Redis]:
    """A plain client; there is one good job, one good dead job, one good schedule, and another queue with a job."""
    with fresh.client() as made:
        shell("enqueue", "t", "--id", "good", "--in", "1h")
        shell("enqueue", "t", "--id", "fine", "--in", "1h", "--queue", "other")
        shell("schedule", "add", "s", "@daily", "t")
        made.hset(KEYS.jobs, "died", record("x"))
        made.zadd(KEYS.dead, {"died": 1_700_000_000_000})
        made.hset(KEYS.workers, "w1234567", WORKER)
        yield made


def told(**given: Any) -> str:
    """What a worker says of itself."""
    entry = {"host": "h", "pid": 1, "queues": ["default"], "concurrency": 1, "running": 1, "started": 5, "beat": 5}
    return json.dumps({**entry, "version": "1", **given})


WORKER = told()


def on_the_wheel(client: Any, job: str | bytes, score: float = 1_700_000_000_000, raw: bytes | None = None) -> None:
    day = day_of(1_700_000_000_000)
    client.hset(KEYS.jobs, job, record(fire=1_700_000_000_000) if raw is None else raw)
    client.zadd(KEYS.wheel(day), {job: score})
    client.zadd(KEYS.days, {day: int(day)})


def dead(client: Any, job: str | bytes, raw: bytes, score: float = 5) -> None:
    client.hset(KEYS.jobs, job, raw)
    client.zadd(KEYS.dead, {job: score})


#: A name that anyone can write, and how a listing ends it.
MEGABYTE, LONG = "m" * 1_000_000, "more"
FAILED = record("x", failures=b"[" * 90_000 + b"\n")
#: What was damaged -> how, the command that lists it, and a word of the row that says so.
ROWS: dict[str, tuple[Damage, str, str]] = {
    "an id that is no text": (lambda c: on_the_wheel(c, b"\xff\xfe"), "job ls", r"\\xff\\xfe"),
    "a dead id that is no text": (lambda c: dead(c, b"\xff", record("x")), "dead ls", r"\\xff"),
    "a record of another version": (lambda c: dead(c, "x", b"9what"), "dead ls", "record version"),
    "half a record": (lambda c: dead(c, "x", record("x")[:20]), "job ls", "cannot be read"),
    "a fire time beyond the calendar": (lambda c: on_the_wheel(c, "x", 9, record(fire=10**15 - 1)), "job ls", "its fire time"),
    "a task's name of 1 MB": (lambda c: dead(c, "x", record("x", task="t" * 1_000_000)), "dead ls", "its task's name is 1,000,000"),
    "failures nested deep": (lambda c: dead(c, "x", FAILED), "dead ls", "unreadable"),
    "a day that is none": (lambda c: c.zadd(KEYS.days, {"abc": 1}), "day ls", "is none"),
    "a day that is no text": (lambda c: c.zadd(KEYS.days, {b"\xff": 1}), "day ls", r"\\xff"),
    "a fire time that cannot be": (lambda c: on_the_wheel(c, "x", float("inf")), "day ls", "which cannot be"),
    "the same, of a queue": (lambda c: on_the_wheel(c, "x", float("-inf")), "queue ls", "which cannot be"),
    "a cap that is no number": (lambda c: c.hset(KEYS.meta, "cap", "abc"), "queue ls", "cap"),
    "counters that are no numbers": (lambda c: c.hset(KEYS.meta, "orphans", "x"), "queue ls", "orphans"),
    "a schema of another version": (lambda c: c.hset(KEYS.meta, "schema", b"\xff"), "queue ls", "another version"),
    "a queue that is no text": (lambda c: c.hset("zw:queues", b"\xff", 1), "queue ls", r"\\xff"),
    "a queue with braces": (lambda c: c.hset("zw:queues", "a}{b", 1), "queue ls", "no name of a queue"),
    "a worker that is no JSON": (lambda c: c.hset(KEYS.workers, "w", "[" * 100_000), "workers ls", "unreadable"),
    "a beat that cannot be": (lambda c: c.hset(KEYS.workers, "w", told(beat=float("inf"))), "workers ls", "unreadable"),
    "a start that cannot be": (lambda c: c.hset(KEYS.workers, "w", told(started=10**30)), "workers ls", "unreadable"),
    "queues that are no list": (lambda c: c.hset(KEYS.workers, "w", told(queues="abc")), "workers ls", "unreadable"),
    "10 MB about a worker": (lambda c: c.hset(KEYS.workers, "w", "x" * 10_000_000), "workers ls", "unreadable"),
    "a newer schedule": (lambda c: c.hset(KEYS.schedules, "n", stored("n", priority=5)), "schedule ls", "priority"),
    "a damaged schedule": (lambda c: c.hset(KEYS.schedules, "n", b"\xff"), "schedule ls", "cannot be read"),
    "an id of 1 MB": (lambda c: on_the_wheel(c, MEGABYTE), "job ls", LONG),
    "a dead id of 1 MB": (lambda c: dead(c, MEGABYTE, record("x")), "dead ls", LONG),
    "a day of 1 MB": (lambda c: c.zadd(KEYS.days, {MEGABYTE: 1}), "day ls", LONG),
    "a queue of 1 MB": (lambda c: c.hset("zw:queues", MEGABYTE, 1), "queue ls", LONG),
    "a queue of 1 MB that is no text": (lambda c: c.hset("zw:queues", b"\xff" * 1_000_000, 1), "queue ls", LONG),
    "a worker of 1 MB": (lambda c: c.hset(KEYS.workers, MEGABYTE, WORKER), "workers ls", LONG),
    "a schedule of 1 MB": (lambda c: c.hset(KEYS.schedules, MEGABYTE, stored(MEGABYTE)), "schedule ls", LONG),
    "a key of dead jobs of another type": (lambda c: other_type(c, KEYS.dead), "dead ls", "another program"),
    "a key of days of another type": (lambda c: other_type(c, KEYS.days), "day ls", "another program"),
    "a key of jobs of another type": (lambda c: other_type(c, KEYS.jobs), "job ls", "another program"),
    "a key of schedules of another type": (lambda c: other_type(c, KEYS.schedules), "schedule ls", "another program"),
    "a key of workers of another type": (lambda c: other_type(c, KEYS.workers), "workers ls", "another program"),
    "the dead jobs of one queue that was named": (lambda c: other_type(c, KEYS.dead), "dead ls -q default", "another program"),
    "the days of one queue that was named": (lambda c: other_type(c, KEYS.days), "day ls -q default", "another program"),
    "the jobs of one queue that was named": (lambda c: other_type(c, KEYS.jobs), "job ls -q default", "another program"),
    "a day's jobs of another type": (lambda c: other_type(c, KEYS.wheel("20231114")), "day show 2023-11-14", "another program"),
    "a meta of another type": (lambda c: other_type(c, KEYS.meta), "queue ls", "another program"),
}  # fmt: skip
#: The rest of each listing, which is still there: the damage is in queue `default`, `other` is as it was.
REST = {"queue ls": "other"}
ALL = [
    "queue ls",
    "queue show default",
    "job ls",
    "job ls --state dead",
    "day ls",
    "day show",
    "dead ls",
    "workers ls",
    "schedule ls",
]


def other_type(client: redis.Redis, key: str) -> None:
    client.delete(key)
    client.set(key, "text")


@pytest.mark.parametrize(("damage", "command", "word"), ROWS.values(), ids=ROWS)
def test_it_is_a_row_that_says_so_and_the_rest_is_there(
    shell: Shell, client: redis.Redis, damage: Damage, command: str, word: str
) -> None:
    damage(client)
    done = shell(*command.split())
    assert done.code == 0, done.err
    assert word.replace("\\\\", "\\") in done.out
    if command in REST:
        assert REST[command] in done.out
    lines = shell(*command.split(), "--json").out.splitlines()
    documents = [json.loads(line) for line in lines]
    assert (
        word.startswith("\\") or any("unreadable" in document for document in documents) or "failures" in str(documents)
    )
    assert all(len(line) < 2000 for line in (*lines, *done.out.splitlines()))


@pytest.mark.parametrize("named", [(), ("-q", "default")])
@pytest.mark.parametrize("state", ["processing", "dead", "done", "days"])
def test_jobs_in_the_other_states_are_listed_when_the_key_of_one_holds_something_else(
    shell: Shell, client: redis.Redis, state: str, named: tuple[str, ...]
) -> None:
    """`SET '{zw:dmg:0}:done' x` left no row of the queue at all."""
    before = {doc["id"]: doc["state"] for doc in listed(shell, *named)}
    assert {"scheduled", "dead"} <= set(before.values())
    other_type(client, getattr(KEYS, state))
    after = listed(shell, *named)
    gone = "scheduled" if state == "days" else state
    left = {job: was for job, was in before.items() if was != gone or job == "fine"}
    assert {doc["id"]: doc["state"] for doc in after if "unreadable" not in doc} == left
    (row,) = [doc for doc in after if "unreadable" in doc]
    assert row["id"] == f"({gone})"
    assert "another program" in row["unreadable"]
    assert "another program" in shell.ok("job", "ls", *named).out


def listed(shell: Shell, *words: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in shell.ok("job", "ls", "--json", *words).out.splitlines()]


@pytest.mark.parametrize(("damage", "command", "word"), ROWS.values(), ids=ROWS)
def test_no_other_command_fails_for_it_as_if_zwheel_were_broken(
    shell: Shell, client: redis.Redis, damage: Damage, command: str, word: str
) -> None:
    damage(client)
    for other in ALL:
        done = shell(*other.split(), "--json")
        assert done.code in (0, 6), (other, done.err)
        assert "unexpected" not in done.err
        for line in done.out.splitlines():
            json.loads(line)


def test_many_queues_are_shown_in_pages_with_their_number(shell: Shell, fresh: RedisServer) -> None:
    with fresh.client() as client:
        client.hset("zw:queues", mapping={f"q{number:05d}": 1 for number in range(30_000)})
        done = shell("queue", "ls", "--limit", "3", "--after", "q00006")
        assert [line.split()[0] for line in done.out.splitlines()[1:]] == ["q00007", "q00008", "q00009"]
        assert "29,990 more queues of 30,000: the next page begins with --after q00009" in done.err
        before = int(client.info("stats")["total_commands_processed"])
        assert len(shell("queue", "ls", "--json").out.splitlines()) == 500
        assert len(shell("job", "ls").out.splitlines()) == 0
        assert int(client.info("stats")["total_commands_processed"]) - before < 30_000


def test_strange_dead_jobs_keep_no_other_from_being_redriven_or_purged(shell: Shell, client: redis.Redis) -> None:
    now = 1_700_000_000_000
    for job, score in ((b"\xff", now), ("a b\x1b[2J", now), ("never", float("inf"))):
        dead(client, job, record("x"), score)
    ghosts: Any = {f"ghost-{number}": now for number in range(600)}
    client.zadd(KEYS.dead, ghosts)
    assert shell("dead", "redrive", "--queue", "default", "--task", "mail.send", "--yes").code == 0
    assert client.zscore(KEYS.dead, "died") is None
    dead(client, "again", record("x"), now)
    assert shell("dead", "redrive", "--queue", "default", "--yes").code == 0
    assert client.zscore(KEYS.dead, "again") is None
    assert client.zscore(KEYS.dead, b"\xff") is None
    done = shell("dead", "purge", "--queue", "default", "--yes")
    assert done.code == 0
    assert client.zcard(KEYS.dead) == 0
