"""A server with damaged contents, and a damaged history: each is judged, or refused in a sentence. G11 for the checker."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.lua.shard import record
from tests.servers import RedisServer
from tests.workers.harness import one_kind
from zwheel import SyncWheel
from zwheel.broker.store import SyncStore
from zwheel.calls import Session
from zwheel.errors import BrokerRefused
from zwheel.keys import ShardKeys
from zwheel.times import day_of
from zwheel.verify import BadHistory, Report, check, read, take_snapshot

from .book import Book, on_wheel

KEYS = ShardKeys.of("zw", "default")
AT = 1_700_000_000_000
DAY = day_of(AT)
MEGABYTE = "m" * 1_000_000
Damage = Callable[[Any], object]


def on_the_wheel(client: Any, job: str | bytes, score: float, raw: bytes | None = None) -> None:
    client.hset(KEYS.jobs, job, record(fire=AT) if raw is None else raw)
    client.zadd(KEYS.wheel(DAY), {job: score})
    client.zadd(KEYS.days, {DAY: int(DAY)})


def listed(client: Any, key: str, state: str, score: float) -> None:
    client.hset(
        KEYS.jobs, "x", record(state, attempt=1, worker="w1234567", failures=b'{"at":5,"attempt":1,"reason":"error"}\n')
    )
    client.zadd(key, {"x": score})


def text(client: Any, key: str) -> None:
    client.delete(key)
    client.set(key, "text")


INF = float("inf")
#: What was damaged -> how, and the promises that the checker calls broken for it.
DAMAGES: dict[str, tuple[Damage, set[str]]] = {
    "a lease that never ends": (lambda c: listed(c, KEYS.processing, "p", INF), set()),
    "a lease before all time": (lambda c: listed(c, KEYS.processing, "p", -INF), set()),
    "a death beyond the calendar": (lambda c: listed(c, KEYS.dead, "x", 1e300), set()),
    "a fire time of inf": (lambda c: on_the_wheel(c, "x", INF), {"I10"}),
    "a fire time beyond the calendar": (lambda c: on_the_wheel(c, "x", 1e300), {"I10"}),
    "a fire time before 1970": (lambda c: on_the_wheel(c, "x", -5), {"I10"}),
    "an id that is no text": (lambda c: on_the_wheel(c, b"\xff\xfe", AT), set()),
    "an id of 1 MB": (lambda c: on_the_wheel(c, MEGABYTE, AT), set()),
    "a record of 1 MB that is none": (lambda c: on_the_wheel(c, "x", AT, b"\xff" * 1_000_000), set()),
    "a record of nothing": (lambda c: on_the_wheel(c, "x", AT, b""), set()),
    "a job without a record": (lambda c: c.zadd(KEYS.dead, {"x": 5}), {"I9"}),
    "a record in no set": (lambda c: c.hset(KEYS.jobs, b"\xff", record()), {"I9"}),
    "a reason of 1 MB": (lambda c: listed_for(c, b'{"at":5,"attempt":1,"reason":"' + b"r" * 90_000 + b'"}\n'), set()),
    "days that are none": (lambda c: c.zadd(KEYS.days, {b"\xff": 1, "abc": 2, MEGABYTE: 3}), {"I10"}),
    "a day that no calendar has": (lambda c: c.zadd(f"{KEYS.tag}:wheel:20261399", {"good": AT}), {"I9", "I10"}),
    "a dedup key of 1 MB": (lambda c: c.hset(KEYS.dedup, MEGABYTE, b"\xff"), {"I11"}),
    "a window that never ends": (lambda c: c.zadd(KEYS.dedup_expiry, {b"\xff": INF}), {"I11"}),
    "fields of meta that are no text": (lambda c: c.hset(KEYS.meta, mapping={b"\xff": b"\xfe", MEGABYTE: MEGABYTE}), set()),
    "counters that are no numbers": (lambda c: c.hset(KEYS.meta, "trimmed", "9" * 5_000), set()),
    "queues that are no names": (lambda c: c.hset("zw:queues", mapping={b"\xff": 1, "a}{b": 1, MEGABYTE: 1}), {"I20"}),
    "a key that nobody knows": (lambda c: c.set(f"{KEYS.tag}:{MEGABYTE}", "x"), {"I20"}),
    "a key that is no text": (lambda c: c.set(KEYS.tag.encode() + b":\xff", "x"), {"I20"}),
    "processing of another type": (lambda c: text(c, KEYS.processing), {"I20"}),
    "days of another type": (lambda c: text(c, KEYS.days), {"I10", "I20"}),
    "a large body of nobody": (lambda c: c.hset(KEYS.bodies, b"\xff", MEGABYTE), {"I9"}),
    "a large body that is gone": (lambda c: on_the_wheel(c, "x", AT, record(fire=AT, apart=9_000)), {"I9"}),
    "bodies of another type": (lambda c: text(c, KEYS.bodies), {"I20"}),
    "jobs of another type": (lambda c: text(c, KEYS.jobs), {"I9", "I20"}),
    "meta of another type": (lambda c: text(c, KEYS.meta), {"I20"}),
    "wake of another type": (lambda c: text(c, KEYS.wake), {"I20"}),
    "dedup of another type": (lambda c: text(c, KEYS.dedup), {"I20"}),
    "a bucket of another type": (lambda c: text(c, KEYS.wheel(DAY)), {"I20"}),
}  # fmt: skip


def listed_for(client: Any, failures: bytes) -> None:
    client.hset(KEYS.jobs, "x", record("x", failures=failures))
    client.zadd(KEYS.dead, {"x": 5})


@pytest.fixture
def client(fresh: RedisServer) -> Iterator[redis.Redis]:
    """A plain client; one good job is there."""
    with fresh.client() as made:
        with SyncWheel(fresh.url, namespace="zw") as wheel:
            wheel.enqueue("t", id="good", delay=3600)
        yield made


def snapshot(url: str, path: Path, queues: list[str] | None = None) -> list[str]:
    """Write the snapshot of a server down. Returns its lines."""
    store = SyncStore(url, Session("zw"))
    try:
        lines = [json.dumps(line) for line in take_snapshot(store, queues)]
    finally:
        store.close()
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return lines


@one_kind
@pytest.mark.raw_keys
@pytest.mark.parametrize(("damage", "broken"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_server_is_written_down_and_judged(
    fresh: RedisServer, client: redis.Redis, tmp_path: Path, damage: Damage, broken: set[str]
) -> None:
    damage(client)
    lines = snapshot(fresh.url, tmp_path / "final.jsonl")
    assert all(len(line) < 5_000 for line in lines)
    assert '"id": "good"' in "".join(lines)
    for line in lines:
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    report = check(read([tmp_path]))
    assert {verdict.number for verdict in report.broken} == broken
    assert all(len(str(clue)) < 2_000 for v in report.verdicts for b in v.breaches for clue in b.clues)


@one_kind
@pytest.mark.raw_keys
def test_a_list_of_queues_that_cannot_be_read_is_said_and_named_queues_are_written_down(
    fresh: RedisServer, client: redis.Redis, tmp_path: Path
) -> None:
    text(client, "zw:queues")
    with pytest.raises(BrokerRefused, match="another program"):
        snapshot(fresh.url, tmp_path / "all.jsonl")
    assert '"id": "good"' in "".join(snapshot(fresh.url, tmp_path / "one.jsonl", ["default"]))


@one_kind
@pytest.mark.raw_keys
def test_large_records_are_read_a_few_at_a_time(fresh: RedisServer, client: redis.Redis, tmp_path: Path) -> None:
    pipe = client.pipeline(transaction=False)
    for number in range(60):
        on_the_wheel(pipe, f"large{number:02d}", AT, record(fire=AT, body=b"x" * 1_000_000))
    pipe.execute()
    client.config_resetstat()
    snapshot(fresh.url, tmp_path / "final.jsonl")
    calls = client.info("commandstats")["cmdstat_hmget"]["calls"]
    assert 60 // 8 <= calls <= 60 // 8 + 3
    assert not check(read([tmp_path])).broken


#: What stands in the place of a value of a history.
ODD: tuple[Any, ...] = (
    None, "", "x", "inf", -1, 10**400, 10**30, 1e308, float("inf"), float("nan"), True, [], [None], [[]], {}, {"a": None},
    "\ud800", ["x", "y", "z"], [["wheel:x", "y"]], "9" * 5_000,
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each value of a line."""
    if path:
        yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in pairs:
        yield from places(part, (*path, key))


def judged(path: Path) -> Report | BadHistory:
    try:
        return check(read([path]))
    except BadHistory as error:
        return error


def test_a_history_with_any_value_damaged_is_judged_or_refused_in_a_sentence(book: Book) -> None:
    """A thousand histories, each with one value that is of another kind or beyond all bounds."""
    book.enqueue("a", digest="d" * 32, window=5_000)
    book.run("a")
    book.enqueue("b", 20)
    book.claim("b", 30)
    book.extend("b", 40, of=30)
    book.reap(1_100, ("b",))
    book.snapshot(5_000, {"b": on_wheel(1_100)})
    book.judge()
    good = [json.loads(line) for line in book.path.read_text().splitlines()]
    chance = random.Random(8)
    ways = [(number, *path) for number, line in enumerate(good) for path in places(line)]
    refused = 0
    for _ in range(1_000):
        lines = json.loads(json.dumps(good))
        number, *path, last = chance.choice(ways)
        target = lines[number]
        for key in path:
            target = target[key]
        target[last] = chance.choice(ODD)
        book.path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        answer = judged(book.path)
        refused += isinstance(answer, BadHistory)
        assert len(str(answer)) < 1_000 or isinstance(answer, Report)
    assert 100 < refused < 900


@pytest.mark.parametrize("line", ["[" * 100_000, "9" * 5_000, '{"op": "final", "phase": "ok"}', "null", "\xff", ""])
def test_a_line_that_is_none_is_refused_with_its_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(line.encode("latin-1") + b"\n{}\n")
    with pytest.raises(BadHistory, match=r"x\.jsonl, line 1: "):
        read([path])
