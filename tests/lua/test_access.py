"""Every script run as a Redis user that may touch only the keys that very call declares, and no dangerous command."""

from __future__ import annotations

import hashlib

import pytest
import redis

from tests.servers import RedisServer
from zwheel.calls import Call
from zwheel.calls.scripts import NAMES, Script

from .batches import prepare
from .shard import KEYS, Shard

USER = "probe"


def pattern(key: str) -> str:
    """The ACL pattern that matches this key and no other."""
    special = str.maketrans({char: f"\\{char}" for char in "*?[]\\^-"})
    return "~" + key.translate(special)


def as_user(server: RedisServer, keys: list[str], call: Call) -> object:
    """Run a call as a user with these keys."""
    with server.client() as admin:
        admin.execute_command(
            "ACL",
            "SETUSER",
            USER,
            "reset",
            "on",
            "nopass",
            "+@all",
            "-@dangerous",
            "-@admin",
            "+info",
            *map(pattern, keys),
        )
        admin.script_load(call.script.source)
    with redis.Redis(unix_socket_path=str(server.socket), username=USER, password="any") as client:
        return client.execute_command(*call.command())


@pytest.mark.parametrize("size", [1, 60])
@pytest.mark.parametrize("name", NAMES)
def test_a_script_touches_only_the_keys_its_call_declares(
    real_shard: Shard, fresh: RedisServer, name: str, size: int
) -> None:
    expected = real_shard.run(prepare(name, real_shard, size))
    after = real_shard.keyspace()
    real_shard.client.flushall()
    call = prepare(name, real_shard, size)
    reply = as_user(fresh, list(call.keys), call)
    assert reply == expected
    real_shard.leaves(after)


@pytest.mark.parametrize("name", NAMES)
def test_a_repeat_touches_only_the_keys_its_call_declares(real_shard: Shard, fresh: RedisServer, name: str) -> None:
    call = prepare(name, real_shard, 20)
    real_shard.run(call)
    reply = as_user(fresh, list(call.keys), call)
    assert isinstance(reply, list)
    others = {"claim": b"empty", "depart": b"again", "reshard": b"other"}
    assert reply[0] in (b"ok", others.get(name))


@pytest.mark.parametrize("touch", ["redis.call('HGET', '{}', 'clock')", "redis.call('HSET', '{}', 'clock', '1')"])
def test_a_script_that_touches_a_key_it_did_not_declare_is_caught(
    real_shard: Shard, fresh: RedisServer, touch: str
) -> None:
    source = f"#!lua\nredis.call('HGET', KEYS[1], 'a') return {touch.format(KEYS.meta)}"
    sneaky = Script("sneaky", source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())
    assert as_user(fresh, [KEYS.jobs, KEYS.meta], Call(sneaky, [KEYS.jobs], [])) in (None, 1)
    with pytest.raises(redis.exceptions.ResponseError, match="(?i)permission|can't access"):
        as_user(fresh, [KEYS.jobs], Call(sneaky, [KEYS.jobs], []))


def test_patterns_match_their_own_key_only(real_shard: Shard, fresh: RedisServer) -> None:
    with fresh.client() as admin:
        admin.execute_command("ACL", "SETUSER", USER, "reset", "on", "nopass", "+@all", pattern(KEYS.jobs))
    with redis.Redis(unix_socket_path=str(fresh.socket), username=USER, password="any") as client:
        assert client.hget(KEYS.jobs, "a") is None
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.hget(KEYS.meta, "a")
