"""Writes down the whole state of queues: the last lines of a history, taken when nothing runs any more.

It reads with plain commands, one after the other, SCAN among them: nothing for a busy server.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any

from zwheel.errors import UndecodableJob
from zwheel.job import JobId, QueueName
from zwheel.keys import ShardKeys, queues_key
from zwheel.record import read_record
from zwheel.store import SyncStore

_PART = 500
_STATES = {"scheduled": "s", "processing": "p", "done": "d", "dead": "x", "cancelled": "c"}
_LASTING = frozenset(
    {
        "jobs",
        "days",
        "processing",
        "dead",
        "done",
        "dedup",
        "dedup:expiry",
        "wake",
        "meta",
        "workers",
        "schedules",
        "schedules:due",
    }
)
_BUCKET = re.compile(r"wheel:\d{8}")
#: Whom jobs are offered to: hints, which hold no job and may outlast it.
_HINTS = re.compile(r"(?:offered|call):[0-9a-f]{16}")


def take_snapshot(store: SyncStore, queues: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Give the `final` lines of these queues, of all queues when none is named. Raises: BrokerError."""
    session = store.session
    (known,) = store.send([("HKEYS", queues_key(session.namespace))])
    names = sorted(name.decode() for name in known) if queues is None else list(queues)
    number = secrets.token_hex(4)
    for name in names:
        yield from _queue(store, session.keys(name), number)
    yield _line(None, _clock(store), {"part": "keys", **_keyspace(store, session.namespace)}, [])


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


def _text(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _pairs(reply: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(reply, dict):
        yield from ((_text(key), value) for key, value in reply.items())
        return
    flat: list[Any] = []
    for item in reply:
        flat += item if isinstance(item, (list, tuple)) else [item]
    yield from zip(map(_text, flat[::2]), flat[1::2], strict=True)


def _queue(store: SyncStore, keys: ShardKeys, number: str) -> Iterator[dict[str, Any]]:
    buckets = [key for key in _scan(store, keys.tag) if _BUCKET.fullmatch(key.removeprefix(f"{keys.tag}:"))]
    places: dict[str, list[tuple[str, int]]] = {}
    for key in (*sorted(buckets), keys.processing, keys.dead, keys.done):
        name = key.removeprefix(f"{keys.tag}:")
        (members,) = store.send([("ZRANGE", key, 0, -1, "WITHSCORES")])
        for member, score in _pairs(members):
            places.setdefault(member, []).append((name, int(float(score))))
    days, owners, ends, meta, wake = store.send([
        ("ZRANGE", keys.days, 0, -1), ("HGETALL", keys.dedup), ("ZRANGE", keys.dedup_expiry, 0, -1, "WITHSCORES"),
        ("HGETALL", keys.meta), ("LLEN", keys.wake),
    ])  # fmt: skip
    until = {digest: int(float(end)) for digest, end in _pairs(ends)}
    holders = {digest: _text(owner) for digest, owner in _pairs(owners)}
    us = _clock(store)
    head = {
        "part": "queue", "snapshot": number, "days": [_text(day) for day in days], "wake": int(wake),
        "dedup": [[d, holders.get(d), until.get(d)] for d in sorted({*holders, *until})],
        "meta": {name: _text(value) for name, value in _pairs(meta)},
    }  # fmt: skip
    yield _line(keys.queue, us, head, [])
    (ids,) = store.send([("HKEYS", keys.jobs)])
    every = sorted({*places, *map(_text, ids)})
    for start in range(0, len(every), _PART):
        part = every[start : start + _PART]
        (records,) = store.send([("HMGET", keys.jobs, *part)])
        jobs = [
            {"id": job_id, **_facts(keys, job_id, raw), "in": places.get(job_id, [])}
            for job_id, raw in zip(part, records, strict=True)
        ]
        yield _line(keys.queue, us, {"part": "jobs", "snapshot": number}, jobs)


def _facts(keys: ShardKeys, job_id: str, raw: bytes | None) -> dict[str, Any]:
    if raw is None:
        return {"state": None}
    try:
        job = read_record(JobId(job_id), QueueName(keys.queue), raw)
    except UndecodableJob as error:
        return {"state": "?", "reason": str(error)[:200]}
    return {
        "state": _STATES[job.state], "attempt": job.attempt, "most": job.max_attempts, "fire": job.fire_at_ms,
        "token": job.token, "digest": job.dedup, "reason": str(job.failures[-1].reason) if job.failures else "",
    }  # fmt: skip


def _scan(store: SyncStore, prefix: str) -> Iterator[str]:
    pattern = re.sub(r"([\\*?\[\]])", r"\\\1", prefix) + "*"
    cursor: Any = 0
    seen = set()
    while True:
        ((cursor, keys),) = store.send([("SCAN", cursor, "MATCH", pattern, "COUNT", 1000)])
        for key in map(_text, keys):
            if key not in seen:
                seen.add(key)
                yield key
        if int(cursor) == 0:
            return


def _keyspace(store: SyncStore, namespace: str) -> dict[str, list[str]]:
    """Sort the keys below the prefix that ought not to be, or not as they are."""
    tagged = re.compile(rf"\{{{re.escape(namespace)}:[^{{}}:]+:\d+\}}:(.+)", re.DOTALL)
    unknown, stays, goes = [], [], []
    keys = [*_scan(store, f"{{{namespace}:"), *_scan(store, f"{namespace}:")]
    for start in range(0, len(keys), _PART):
        part = keys[start : start + _PART]
        for key, ttl in zip(part, store.send([("PTTL", key) for key in part]), strict=True):
            found = tagged.fullmatch(key)
            name = found[1] if found else ""
            declared = name in _LASTING or _BUCKET.fullmatch(name) or _HINTS.fullmatch(name)
            lasting = key == queues_key(namespace) or bool(declared)
            if not lasting and not name.startswith("replay:"):
                unknown.append(key)
            elif lasting and ttl >= 0:
                goes.append(key)
            elif not lasting and ttl == -1:
                stays.append(key)
    return {"unknown": unknown, "no_ttl": stays, "ttl": goes}
