"""One shard as the script tests see it: put keys there, run a call, read the whole keyspace back."""

from __future__ import annotations

from typing import Any

import redis

from zwheel.calls import Call, Lane, Reply
from zwheel.keys import ShardKeys
from zwheel.times import DAY_MS

#: 2030-03-17T17:46:40Z: the time of the tests, ms and µs, and the days around it.
NOW = 1_900_000_000_000
NOW_US = NOW * 1000
YESTERDAY, TODAY, TOMORROW, LATER = "20300316", "20300317", "20300318", "20300319"
START = NOW - NOW % DAY_MS
MIDNIGHT = START + DAY_MS
#: An estimate so long before midnight that the next day is not named too.
EVENING = MIDNIGHT - 60_001

KEYS = ShardKeys.of("zw", "q")
WORKER = "w1234567"
OTHER_WORKER = "v7654321"
#: The digests of two dedup keys.
DIGEST, DIGEST2 = "0123456789abcdef" * 2, "fedcba9876543210" * 2
LANE = Lane("caller", 0, "request-1")
LANE2 = LANE._replace(request="request-2")

#: Short names of keys -> what they hold: HASH and ZSET a dict, LIST a list, STRING a text. None: no such key.
Keyspace = dict[str, Any]

_HASHES = {"jobs", "bodies", "dedup", "meta", "workers", "schedules", "leaving", "arrived"}
_REPLAY_S, _CHUNK_S, _ASKED_S = 300, 3600, 86400


def at(ms: int, us: int = 0) -> str:
    """A time of the server as the scripts' `now` wants it."""
    return str(ms * 1000 + us)


def digits16(token: int) -> bytes:
    """A token as the scripts want it."""
    return b"%016d" % token


def record(
    state: str = "s",
    *,
    attempt: int = 0,
    fire: int = NOW,
    token: int = NOW_US - 5_000_000,
    worker: str = "",
    most: int = 3,
    digest: str = "",
    keep: int = 0,
    failures: bytes | None = None,
    task: str = "mail.send",
    body: bytes = b"\x01\x00\xff\n",
    version: str = "2",
    more: str = "",
    apart: int = 0,
    asked: int | None = None,
) -> bytes:
    """Write a stored record by the table in `lua/include/record.lua`, without help from zwheel.

    more: other fields. apart: the size of a body that lies in `bodies`, and not here.
    """
    fields = [("B", b"%07d" % apart)] * bool(apart)
    fields += [] if asked is None else [("c", str(asked).encode())]
    fields += [("D", digest.encode())] * bool(digest)
    fields += [("k", str(keep).encode())] * bool(keep)
    fields += [(more[0], more[1:].encode())] if more else []
    fields += [] if failures is None else [("f", failures)]
    body = b"" if apart else body
    header = f"{version}{state}{attempt:04d}{fire:015d}{token:016d}{worker:8s}{most:04d}{len(fields):02x}"
    parts = (b"%s%05d%s" % (letter.encode(), len(value), value) for letter, value in fields)
    return header.encode() + b"".join(parts) + task.encode() + b"\n" + body


def record_of_1(state: str = "s", *, flags: str = "", **chosen: Any) -> bytes:
    """The same record as version 1 had it. flags: others than fit."""
    digest, keep, failures = (chosen.pop(name, None) for name in ("digest", "keep", "failures"))
    bits = (1 if digest else 0) + (2 if keep else 0) + (0 if failures is None else 4)
    kept = f"{keep:010d}" if keep else ""
    failed = b"" if failures is None else b"%05d" % len(failures) + failures
    plain = record(state, version="1", **chosen)
    return plain[:49] + f"{flags or f'{bits:02x}'}{digest or ''}{kept}".encode() + failed + plain[51:]


def held(token: int, **fields: Any) -> bytes:
    """Write the record of a job that WORKER holds by a token."""
    chosen: dict[str, Any] = {"attempt": 1, "token": token, "worker": WORKER} | fields
    return record("p", **chosen)


class Shard:
    """The keys of one shard on one server. Every key in the database has to be one of them."""

    def __init__(self, client: redis.Redis, kind: str) -> None:
        self.client = client
        self.kind = kind
        self._run_id = ""

    def put(self, keyspace: Keyspace) -> None:
        """Write keys as `keyspace` names them."""
        pipe = self.client.pipeline(transaction=False)
        for name, value in keyspace.items():
            key = f"{KEYS.tag}:{name}"
            if value is None or not value:
                continue
            if isinstance(value, str):
                pipe.set(key, value, ex=_REPLAY_S)
            elif isinstance(value, list):
                pipe.rpush(key, *value)
            elif name in _HASHES:
                pipe.hset(key, mapping=value)
            else:
                pipe.zadd(key, value)
        pipe.execute()

    def keyspace(self) -> Keyspace:
        """Read every key of the database. A replay must have its time to live, everything else must have none."""
        pipe = self.client.pipeline(transaction=False)
        found_keys: Any = self.client.keys("*")
        keys = sorted(key.decode() for key in found_keys)
        for key in keys:
            name = key.removeprefix(f"{KEYS.tag}:")
            assert name != key, f"{key} is not a key of this shard"
            pipe.ttl(key)
            if name.startswith("replay:"):
                pipe.get(key)
            elif name == "wake" or name.startswith("call:"):
                pipe.lrange(key, 0, -1)
            elif name in _HASHES:
                pipe.hgetall(key)
            else:
                pipe.zrange(key, 0, -1, withscores=True)
        values = pipe.execute()
        found: Keyspace = {}
        for key, ttl, value in zip(keys, values[::2], values[1::2], strict=True):
            name = key.removeprefix(f"{KEYS.tag}:")
            found[name] = _readable(name, value)
            if name == "meta" and found[name].get("server") == self.run_id():
                # Which process of the server was seen last: not the same in any two runs.
                del found[name]["server"]
            longest = _CHUNK_S if name.startswith("replay:chunk:") else _REPLAY_S
            longest = _ASKED_S if name == "asked" else longest
            ends = name.startswith("replay:") or (name == "asked" and ttl != -1)
            assert 0 < ttl <= longest if ends else ttl == -1, f"{name} has the time to live {ttl}"
        return found

    def run_id(self) -> str:
        """The name of this process of the server."""
        if not self._run_id:
            info: Any = {} if self.kind == "memory" else self.client.info("server")
            self._run_id = str(info.get("run_id", "none"))
        return self._run_id

    def run(self, call: Call) -> Reply:
        """Run a call. A script that the server does not know is loaded first."""
        script = call.script.plain if self.kind == "memory" else call.script
        words = Call(script, call.keys, call.args).command()
        try:
            reply: Reply = self.client.execute_command(*words)
        except redis.exceptions.NoScriptError:
            self.client.script_load(script.source)
            reply = self.client.execute_command(*words)
        return reply

    def leaves(self, keyspace: Keyspace) -> None:
        """Assert that the whole keyspace is this; names with None are absent."""
        wanted = {name: value for name, value in keyspace.items() if value is not None}
        assert self.keyspace() == wanted


def refused(word: str, detail: str = "", request: str = LANE.request) -> Keyspace:
    """What a refusal leaves: its answer, for a late copy."""
    return {"replay:caller:0": f"{request} !{word} {detail}"}


def _readable(name: str, value: Any) -> Any:
    if name.startswith("replay:"):
        return value.decode()
    if name == "wake" or name.startswith("call:"):
        return [token.decode() for token in value]
    if name in ("jobs", "bodies", "leaving"):
        return {job_id.decode(): raw for job_id, raw in value.items()}
    if name in _HASHES:
        return {field.decode(): text.decode() for field, text in value.items()}
    return {member.decode(): int(score) for member, score in value}


def meta(now_us: int = NOW_US, *, beat: bool = False, **fields: Any) -> dict[str, str]:
    """What `meta` holds after a call: the clock, for a worker's call its beat, with a lease when it was used, and more."""
    if "lease" in fields:
        fields = {"leased": NOW} | fields
    return {
        "clock": str(now_us),
        **({"beat": str(now_us)} if beat else {}),
        **{name: str(value) for name, value in fields.items()},
    }
