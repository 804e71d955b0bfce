"""The server's checks, each against a real server that has the fault."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest
import redis

from tests.conftest import MakeServer
from tests.doctor.conftest import Doctor
from tests.servers import RedisServer, free_port
from zwheel import SyncWheel
from zwheel.broker.acl import Role, commands, rules
from zwheel.broker.store import SyncStore
from zwheel.calls import Session
from zwheel.doctor import eviction_policy, server
from zwheel.keys import ShardKeys

ALL_CHECKS = {"server", "faults", "role", "eviction", "persistence", "memory", "clock", "scripts", "access", "rights"}


def test_a_server_in_order_is_told_so_line_by_line(own_server: MakeServer, doctor: Doctor) -> None:
    own = own_server(appendonly=True)
    told = doctor(own.url)
    levels = told.levels()
    assert told.code == 0
    assert set(levels) == ALL_CHECKS
    levels.pop("faults")
    assert set(levels.values()) == {"ok"}
    family = "Valkey" if own.kind == "valkey" else "Redis"
    assert told.of("server")["text"].startswith(f"{family} ")
    assert "append-only file, synced at each write" in told.of("persistence")["text"]


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-random", "volatile-lru", "volatile-ttl"])
def test_an_eviction_policy_that_deletes_is_a_problem(fresh: RedisServer, doctor: Doctor, policy: str) -> None:
    with fresh.client() as client:
        client.config_set("maxmemory-policy", policy)
        try:
            told = doctor(fresh.url)
        finally:
            client.config_set("maxmemory-policy", "noeviction")
    assert told.code == 6
    found = told.of("eviction")
    assert found["level"] == "problem"
    assert policy in found["text"]
    assert ("time to live" if policy.startswith("volatile") else "whole queues") in found["text"]
    assert "noeviction" in found["cure"]
    assert doctor(fresh.url).code == 0


def test_no_append_only_file_is_a_warning(fresh: RedisServer, doctor: Doctor) -> None:
    told = doctor(fresh.url)
    assert told.of("persistence")["level"] == "warning"
    assert "every job;" in told.of("persistence")["text"] + ";"
    with fresh.client() as client:
        client.config_set("save", "3600 1")
        try:
            assert "last snapshot" in doctor(fresh.url).of("persistence")["text"]
        finally:
            client.config_set("save", "")


def test_an_append_only_file_that_is_never_synced_is_a_warning(own_server: MakeServer, doctor: Doctor) -> None:
    own = own_server(appendonly=True, arguments=("--appendfsync", "no"))
    assert doctor(own.url).of("persistence")["level"] == "warning"


def test_a_replica_is_a_problem(own_server: MakeServer, doctor: Doctor) -> None:
    primary = own_server(port=free_port())
    replica = own_server(arguments=("--replicaof", "127.0.0.1", str(primary.port)))
    told = doctor(replica.url)
    assert told.code == 6
    assert told.of("role")["level"] == "problem"
    assert f"127.0.0.1:{primary.port}" in told.of("role")["cure"]


def test_little_room_is_a_warning_and_none_a_problem(fresh: RedisServer, doctor: Doctor) -> None:
    with fresh.client() as client:
        used = int(client.info("memory")["used_memory"])
        try:
            client.config_set("maxmemory", used * 100)
            assert doctor(fresh.url).of("memory")["level"] == "ok"
            client.config_set("maxmemory", int(used * 1.25))
            assert doctor(fresh.url).of("memory")["level"] == "warning"
            client.config_set("maxmemory", int(used * 1.01))
            told = doctor(fresh.url)
        finally:
            client.config_set("maxmemory", 0)
    assert told.of("memory")["level"] == "problem"
    assert "maxmemory" in told.of("memory")["cure"]


@pytest.mark.parametrize(("shift", "word"), [(3600, "ahead"), (-3600, "behind")])
def test_a_clock_that_differs_is_a_warning(
    fresh: RedisServer, doctor: Doctor, monkeypatch: pytest.MonkeyPatch, shift: int, word: str
) -> None:
    true_time = time.time
    monkeypatch.setattr("zwheel.doctor.server.time.time", lambda: true_time() + shift)
    found = doctor(fresh.url).of("clock")
    assert found["level"] == "warning"
    assert "3,600 s " + word in found["text"] or "3,599 s " + word in found["text"]


@pytest.fixture
def limited(fresh: RedisServer) -> Iterator[redis.Redis]:
    """Makes users with few rights; they go afterwards."""
    with fresh.client() as client:
        yield client
        client.execute_command("ACL", "DELUSER", "limited")


def as_limited(client: redis.Redis, fresh: RedisServer, *rules: str) -> str:
    client.execute_command("ACL", "SETUSER", "limited", "reset", "on", ">pw", *rules)
    return f"unix://limited:pw@{fresh.socket}"


def test_a_server_that_refuses_config_and_acl_is_judged_by_the_rest(
    limited: redis.Redis, fresh: RedisServer, doctor: Doctor
) -> None:
    url = as_limited(limited, fresh, "~*", "&*", "+@all", "-config", "-acl")
    told = doctor(url)
    assert told.code == 0
    assert "cannot be seen" in told.of("access")["text"]
    assert told.of("eviction")["level"] == "ok", "INFO memory names the policy too"
    assert "Traceback" not in told.err
    limited.config_set("maxmemory-policy", "allkeys-lru")
    try:
        assert doctor(url).of("eviction")["level"] == "problem"
    finally:
        limited.config_set("maxmemory-policy", "noeviction")


def test_a_server_that_refuses_info_config_scan_and_acl_gives_reasons_and_no_traceback(
    limited: redis.Redis, fresh: RedisServer, doctor: Doctor
) -> None:
    url = as_limited(limited, fresh, "~*", "&*", "+@all", "-config", "-acl", "-info", "-scan")
    told = doctor(url)
    assert told.code == 0
    assert "Traceback" not in told.err
    for check in ("server", "role", "eviction", "persistence", "memory", "access", "keyspace"):
        assert told.of(check)["level"] == "warning"
        assert "cannot be seen" in told.of(check)["text"]
        assert told.of(check)["cure"]
    assert told.of("clock")["level"] == "ok"


@pytest.mark.parametrize(("rule", "right"), [("-script|load", "script|load"), ("-evalsha", "evalsha")])
def test_a_user_that_may_not_run_scripts_is_told_so_and_what_is_not_looked_at(
    limited: redis.Redis, fresh: RedisServer, doctor: Doctor, rule: str, right: str
) -> None:
    found = doctor(as_limited(limited, fresh, "~*", "&*", "+@all", rule)).of("scripts")
    assert found["level"] == "warning"
    assert f"this user lacks +{right}: whether jobs stand where their records say is not looked at" in found["text"]


def test_a_user_without_the_keys_of_a_queue_is_told_that_it_was_not_looked_at(
    limited: redis.Redis, fresh: RedisServer, doctor: Doctor
) -> None:
    limited.hset("zw:queues", "secret", "1")
    told = doctor(as_limited(limited, fresh, "~zw:queues", "&*", "+@all"))
    assert told.code == 5
    found = told.of("places")
    assert (found["queue"], found["level"]) == ("secret", "warning")
    assert found["text"].startswith("not looked at, since this user lacks ~{zw:secret:0}:*: the types of its keys, ")
    assert "zwheel acl doctor --queue secret" in found["cure"]


@pytest.mark.parametrize("role", ["producer", "worker", "reader", "operator", "doctor"])
def test_a_limited_user_hears_what_it_may_not_see_and_of_no_problem(
    limited: redis.Redis, fresh: RedisServer, doctor: Doctor, role: str
) -> None:
    """The queue is well, and the doctor must say of it no more and no less than this user was let see."""
    with SyncWheel(fresh.url) as wheel:
        wheel.enqueue("mail.send", queue="q", delay=60)
    told = doctor(as_limited(limited, fresh, *rules([Role(role)], "zw", ["q"])), "--queue", "q")
    assert "problem" not in told.levels().values()
    places = told.of("places")
    if role == "doctor":
        assert (told.code, places["level"]) == (0, "ok")
        return
    assert (told.code, places["level"]) == (5, "warning")
    missing = set(commands(Role.DOCTOR)) - set(commands(Role(role)))
    named = set(re.findall(r"\+([a-z|]+)", places["text"].partition(":")[0]))
    assert named and named <= missing
    assert "its jobs, unique keys, days and schedules" in places["text"]
    assert all("workers cannot" not in found["text"] for found in told.findings)


def test_what_a_limited_user_may_see_is_looked_at_and_told(
    limited: redis.Redis, fresh: RedisServer, doctor: Doctor
) -> None:
    limited.hset(ShardKeys.of("zw", "q").meta, "schema", "2")
    told = doctor(as_limited(limited, fresh, *rules([Role.WORKER], "zw", ["q"])), "--queue", "q")
    assert told.of("schema")["level"] == "problem"
    assert told.code == 6


def test_a_server_that_anybody_may_use_over_the_network_is_a_problem(own_server: MakeServer, doctor: Doctor) -> None:
    own = own_server(port=free_port(), arguments=("--protected-mode", "no", "--enable-debug-command", "no"))
    assert doctor(own.tcp_url).levels()["access"] == "warning", "no password, but only from this machine"
    with own.client() as client:
        client.config_set("requirepass", "secret")
    told = doctor(f"redis://:secret@127.0.0.1:{own.port}/0")
    assert told.levels()["access"] == "ok"


def test_a_server_that_is_away_is_an_error_of_its_own(doctor: Doctor, tmp_path: object) -> None:
    told = doctor(f"unix://{tmp_path}/none.sock")
    assert told.code == 3
    assert told.findings == []


def test_the_policy_can_be_read_by_the_blocking_client_too(fresh: RedisServer) -> None:
    store = SyncStore(fresh.url, Session("zw"))
    try:
        assert store.drive(eviction_policy()).name == "noeviction"
        levels = {finding.check: str(finding.level) for finding in store.drive(server.check_redis(store.session))}
        assert set(levels) == ALL_CHECKS - {"rights"}
        assert levels["access"] == levels["role"] == levels["scripts"] == "ok"
    finally:
        store.close()
