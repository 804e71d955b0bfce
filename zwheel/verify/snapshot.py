"""Writes down the whole state of queues: the last lines of a history, taken when nothing runs any more.

It reads with plain commands, one after the other, SCAN among them: nothing for a busy server. Whatever anyone wrote
there becomes a line all the same, for the checker to name.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from zwheel.broker.cluster import next_node, place_of
from zwheel.broker.store import SyncStore
from zwheel.errors import BrokerError, BrokerRefused, BrokerUnavailable, OutcomeUnknown, UndecodableJob
from zwheel.job import JobId, QueueName
from zwheel.keys import TAG, ShardKeys, namespace_keys
from zwheel.operations.read import queues as listed_queues
from zwheel.operations.shards import shards_of
from zwheel.outside import as_text, flat, score_ms, shown
from zwheel.record import read_record

#: So many jobs are read in one round trip, and so many bytes of their records, or one record.
_PART, _PART_BYTES = 500, 8 << 20
#: A text from the server is cut after so many characters: no name and no number of ours is longer.
_CHARACTERS = 300
_STATES = {"scheduled": "s", "processing": "p", "done": "d", "dead": "x", "cancelled": "c"}
#: The keys of a shard that stay, and their types.
_LASTING = {
    "jobs": "hash", "bodies": "hash", "days": "zset", "processing": "zset", "dead": "zset", "done": "zset", "dedup": "hash",
    "dedup:expiry": "zset", "wake": "list", "meta": "hash", "workers": "hash", "schedules": "hash",
    "schedules:due": "zset", "leaving": "hash", "asked": "zset", "arrived": "hash",
}  # fmt: skip
#: Of these, one that goes when nobody writes it for long.
_TIMED = frozenset({"asked"})
_BUCKET = re.compile(r"wheel:[0-9]{8}")
#: Whom jobs are offered to: hints, which hold no job and may outlast it.
_HINTS = re.compile(r"(offered|call):[0-9a-f]{16}")


class _Away:
    """What gave no answer, so that nobody waits for the same node of a cluster again and again."""

    def __init__(self) -> None:
        self.shards: list[str] = []
        self.nodes: set[object] = set()
        #: The places of such nodes in a SCAN.
        self.places: set[int] = set()


def take_snapshot(store: SyncStore, queues: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Give the `final` lines of these queues, of all queues when none is named. Raises: BrokerError.

    What lies on a node of a cluster that gives no answer is left out; the last line names the shards.
    """
    session = store.session
    listed = store.drive(listed_queues(session), give_up_s=0) if queues is None else None
    number, away = secrets.token_hex(4), _Away()
    shards = [shard for name in queues or listed or () for shard in store.drive(shards_of(session, name), give_up_s=0)]
    owners = {shard: store.node_of(session.keys(shard).meta) for shard in shards}
    for shard in shards:
        lines = _queue(store, session.keys(shard), number, away)
        yield from _answered(lines, shard, owners[shard], away) if store.in_parts else lines
    strange = [] if listed is None else [shown(one.name, _CHARACTERS) for one in listed.unreadable]
    found = {"strange": strange, **_keyspace(store, session.namespace, away)}
    left_out = {"away": away.shards} if away.shards else {}
    yield _line(None, _clock(store), {"part": "keys", **found, **left_out}, [])


def _answered(lines: Iterator[dict[str, Any]], shard: str, node: object, away: _Away) -> list[dict[str, Any]]:
    """All lines of a shard, or none: half of them would tell of jobs that are lost."""
    if node not in away.nodes:
        try:
            return list(lines)
        except (BrokerUnavailable, OutcomeUnknown):
            away.nodes.add(node)
    away.shards.append(shard)
    return []


def _line(queue: str | None, us: int, args: dict[str, Any], jobs: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "seq": 0,
        "proc": f"{socket.gethostname()}:{os.getpid()}:snapshot",
        "op": "final",
        "phase": "ok",
        "queue": queue,
        "redis_us": us,
        "mono_ns": time.monotonic_ns(),
        "args": args,
        "jobs": jobs,
    }


def _clock(store: SyncStore) -> int:
    if store.session.now:
        return int(store.session.now)
    ((seconds, micros),) = store.send([("TIME",)])
    return int(seconds) * 1_000_000 + int(micros)


def _text(value: object) -> str:
    return shown(value, _CHARACTERS)


def _score(value: object) -> int | str:
    """A score as whole ms; as text when it is no time."""
    at = score_ms(value)
    return _text(value) if at is None else at


def _ask(store: SyncStore, asks: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Read several keys. One of another type holds nothing here: the line about the keys names it. Raises: BrokerError."""
    replies = store.send(asks, each=True)
    for i, reply in enumerate(replies):
        if isinstance(reply, BrokerRefused) and reply.code == "WRONGTYPE":
            replies[i] = []
        elif isinstance(reply, Exception):
            raise reply
    return replies


def _queue(store: SyncStore, keys: ShardKeys, number: str, away: _Away) -> Iterator[dict[str, Any]]:
    buckets = [key for key in _scan(store, keys.tag, away) if _BUCKET.fullmatch(key.removeprefix(f"{keys.tag}:"))]
    places: dict[bytes, list[tuple[str, int | str]]] = {}
    for key in (*sorted(buckets), keys.processing, keys.dead, keys.done):
        name = key.removeprefix(f"{keys.tag}:")
        (members,) = _ask(store, [("ZRANGE", key, 0, -1, "WITHSCORES")])
        for member, score in flat(members):
            places.setdefault(member, []).append((name, _score(score)))
    days, owners, ends, meta, wake, leaving = _ask(store, [
        ("ZRANGE", keys.days, 0, -1), ("HGETALL", keys.dedup), ("ZRANGE", keys.dedup_expiry, 0, -1, "WITHSCORES"),
        ("HGETALL", keys.meta), ("LLEN", keys.wake),
        ("HKEYS", keys.leaving),
    ])  # fmt: skip
    until = {_text(digest): _score(end) for digest, end in flat(ends)}
    holders = {_text(digest): _text(owner) for digest, owner in flat(owners)}
    us = _clock(store)
    head = {
        "part": "queue", "snapshot": number, "days": [_text(day) for day in days], "wake": int(wake or 0),
        "dedup": [[d, holders.get(d), until.get(d)] for d in sorted({*holders, *until})],
        "leaving": [_text(name)[1:] for name in leaving if name[:1] == b"j"],
        "meta": {_text(name): _text(value) for name, value in flat(meta)},
    }  # fmt: skip
    yield _line(keys.name, us, head, [])
    ids, apart = _ask(store, [("HKEYS", keys.jobs), ("HKEYS", keys.bodies)])
    bodies = set(apart)
    for part in _parts(store, keys, sorted({*places, *ids, *bodies})):
        (records,) = _ask(store, [("HMGET", keys.jobs, *part)])
        large = [job_id for job_id in part if job_id in bodies]
        sizes = dict(zip(large, _ask(store, [("HSTRLEN", keys.bodies, job_id) for job_id in large]), strict=True))
        jobs = [
            {"id": _text(job_id), **_facts(keys, _text(job_id), raw, sizes.get(job_id)), "in": places.get(job_id, [])}
            for job_id, raw in zip(part, records or [None] * len(part), strict=True)
        ]
        yield _line(keys.name, us, {"part": "jobs", "snapshot": number}, jobs)


def _parts(store: SyncStore, keys: ShardKeys, ids: Sequence[bytes]) -> Iterable[list[bytes]]:
    """Jobs whose records are read in one round trip: not too many, and not too many bytes."""
    part: list[bytes] = []
    total = 0
    for start in range(0, len(ids), _PART):
        some = ids[start : start + _PART]
        for job_id, size in zip(some, _ask(store, [("HSTRLEN", keys.jobs, job_id) for job_id in some]), strict=True):
            if part and (len(part) == _PART or total + (size or 0) > _PART_BYTES):
                yield part
                part, total = [], 0
            part.append(job_id)
            total += size or 0
    if part:
        yield part


def _facts(keys: ShardKeys, job_id: str, raw: bytes | None, there: int | None) -> dict[str, Any]:
    """What a record says. there: the size of the body that lies apart, None where there is none."""
    if raw is None:
        return {"state": None} if there is None else {"state": None, "body": [0, there]}
    try:
        job = read_record(JobId(job_id), QueueName(keys.queue), raw)
    except UndecodableJob as error:
        return {"state": "?", "reason": str(error)[:200]}
    body = {} if there is None and not job.bytes_apart else {"body": [job.bytes_apart, there or 0]}
    return {
        "state": _STATES[job.state], "attempt": job.attempt, "most": job.max_attempts, "fire": job.fire_at_ms,
        "token": job.token, "digest": job.dedup, "reason": shown(job.failures[-1].reason) if job.failures else "",
        **body,
    }  # fmt: skip


def _scan(store: SyncStore, prefix: str, away: _Away) -> Iterator[str]:
    pattern = re.sub(r"([\\*?\[\]])", r"\\\1", prefix) + "*"
    cursor: Any = 0
    seen = set()
    while True:
        while place_of(int(cursor)) in away.places:
            cursor = next_node(int(cursor))
        try:
            ((cursor, keys),) = store.send([("SCAN", cursor, "MATCH", pattern, "COUNT", 1000)])
        except (BrokerUnavailable, OutcomeUnknown):
            if not store.in_parts:
                raise
            away.places.add(place_of(int(cursor)))
            cursor, keys = next_node(int(cursor)), ()
        for key in map(as_text, keys):
            if key not in seen:
                seen.add(key)
                yield key
        if int(cursor) == 0:
            return


def _keyspace(store: SyncStore, namespace: str, away: _Away) -> dict[str, list[str]]:
    """Sort the keys below the prefix that ought not to be, or not as they are."""
    tagged = re.compile(f"{TAG}:(.+)", re.DOTALL)
    found: dict[str, list[str]] = {"unknown": [], "no_ttl": [], "ttl": [], "type": []}
    own = namespace_keys(namespace)
    keys = [*_scan(store, f"{{{namespace}:", away), *_scan(store, f"{namespace}:", away)]
    for start in range(0, len(keys), _PART):
        part = keys[start : start + _PART]
        ttls = store.send([("PTTL", key) for key in part], each=store.in_parts)
        kinds = store.send([("TYPE", key) for key in part], each=store.in_parts)
        for key, ttl, kind in zip(part, ttls, kinds, strict=True):
            if isinstance(kind, BrokerError) or isinstance(ttl, BrokerError):
                continue  # Its node went away meanwhile.
            match = tagged.fullmatch(key)
            name = match[4] if match and match[1] == namespace else ""
            right = "hash" if key in own else _type_of(name)
            if not right:
                found["unknown"].append(_text(key))
            elif as_text(kind) not in (right, "none"):
                found["type"].append(_text(key))
            elif (right == "string" or name in _TIMED) and ttl == -1:
                found["no_ttl"].append(_text(key))
            elif right != "string" and name not in _TIMED and ttl >= 0:
                found["ttl"].append(_text(key))
    return found


def _type_of(name: str) -> str:
    """The type of a shard's key, by the name behind its tag; '' for a key that no version declares."""
    if _BUCKET.fullmatch(name):
        return "zset"
    if (hint := _HINTS.fullmatch(name)) is not None:
        return "zset" if hint[1] == "offered" else "list"
    return "string" if name.startswith("replay:") else _LASTING.get(name, "")
