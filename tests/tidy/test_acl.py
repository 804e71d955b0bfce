"""The table of rights is what the code sends: the scripts of each role, and the commands in the modules that it runs."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from zwheel.broker.acl import FSYNCED, NEEDS, Role, commands, commands_of, patterns, rules
from zwheel.calls.scripts import NAMES

from .tree import ROOT

#: The modules that send plain commands for a role. A module that sends one and stands nowhere here fails the test.
MODULES: dict[Role, tuple[str, ...]] = {
    Role.PRODUCER: ("zwheel/operations/former.py", "zwheel/operations/shards.py", "zwheel/calls/waits.py", "zwheel/operations/durable.py", "zwheel/operations/produce.py", "zwheel/operations/listing.py", "zwheel/operations/learn.py"),
    Role.WORKER: (
        "zwheel/operations/former.py", "zwheel/operations/reshard.py", "zwheel/operations/shards.py", "workers/worker.py", "workers/watch.py", "workers/reaper.py", "workers/aside.py", "workers/renewer.py", "workers/poller.py", "workers/ear.py", "workers/fleet.py", "workers/summons.py", "workers/cancels.py", "workers/overlap.py", "workers/lookout.py", "workers/role.py",
        "workers/peers.py", "workers/newcomer.py", "workers/cuts.py",
        "workers/scheduler.py", "workers/heartbeat.py", "zwheel/doctor/eviction.py", "zwheel/operations/listing.py", "zwheel/operations/produce.py",
        "zwheel/operations/late.py", "zwheel/operations/declared.py", "workers/occurrences.py",
        "zwheel/operations/learn.py", "zwheel/operations/publish.py", "zwheel/operations/tasks.py",
    ),
    Role.READER: (
        "zwheel/operations/former.py", "zwheel/operations/shards.py", "zwheel/operations/read.py", "zwheel/operations/overview.py", "zwheel/operations/learn.py", "zwheel/operations/tasks.py",
        "zwheel/verify/snapshot.py",
    ),
    Role.OPERATOR: (
        "zwheel/operations/former.py", "zwheel/operations/reshard.py", "zwheel/operations/act.py", "zwheel/operations/remove.py", "zwheel/calls/waits.py", "zwheel/operations/durable.py", "zwheel/operations/shards.py", "zwheel/operations/schedules.py", "zwheel/operations/past.py", "zwheel/operations/produce.py",
        "zwheel/operations/listing.py",
        "zwheel/operations/read.py", "zwheel/operations/overview.py", "zwheel/operations/learn.py", "zwheel/operations/tasks.py",
    ),
    Role.DOCTOR: (
        "zwheel/operations/shards.py", "zwheel/doctor/access.py", "zwheel/doctor/jumps.py", "zwheel/doctor/keyspace.py", "zwheel/doctor/offers.py",
        "zwheel/doctor/places.py", "zwheel/doctor/queues.py", "zwheel/doctor/workers.py",
        "zwheel/doctor/server.py", "zwheel/doctor/probe.py",
    ),
}  # fmt: skip
#: What a role needs besides: through modules that serve several roles.
BESIDES: dict[Role, frozenset[str]] = {
    # Sync at the start reads and writes the schedules of its application; it listens by the store.
    Role.WORKER: frozenset({"blpop", "hget"}),
    Role.DOCTOR: frozenset({"hgetall", "zrange"}),
}
#: Optional for a worker: a server that does not tell its settings is warned about. For who enqueues: an option of `acl`.
OPTIONAL = {
    Role.WORKER: frozenset({"config|get"}),
    **dict.fromkeys((Role.PRODUCER, Role.OPERATOR), frozenset({FSYNCED})),
}
#: They are carried by everything that sends scripts, or are no part of a role: verifying a history is a test's work.
SHARED = {
    "zwheel/broker/store.py", "zwheel/operations/rights.py", "zwheel/broker/acl.py", "zwheel/embedded/server.py", "zwheel/calls/call.py",
    "zwheel/history.py", "zwheel/broker/cluster.py", "zwheel/broker/listener.py", "zwheel/broker/sentinel.py",
}  # fmt: skip
OTHERS = {"zwheel/verify/stored.py"}
WORDS = {
    "ACL", "BLPOP", "CONFIG", "DEL", "EVALSHA", "EXISTS", "EXPIRE", "GET", "GETDEL", "HDEL", "HEXISTS", "HGET", "HGETALL",
    "HINCRBY", "HKEYS", "HLEN", "HMGET", "HSCAN", "HSET", "HSETNX", "HSTRLEN", "HVALS", "INCR", "INFO", "KEYS", "LLEN",
    "LPOP", "LPUSH", "LRANGE", "LREM", "LTRIM", "MEMORY", "PING", "PTTL", "PUBLISH", "RPOP", "RPUSH", "SADD", "SCAN",
    "SCARD", "SCRIPT", "SET", "SETNX", "SMEMBERS", "SREM", "SUBSCRIBE", "TIME", "TTL", "TYPE", "UNLINK", "WAIT", "WAITAOF", "ZADD",
    "ZCARD", "ZCOUNT", "ZMSCORE", "ZRANGE", "ZRANGEBYSCORE", "ZREM", "ZREVRANGE", "ZSCAN", "ZSCORE",
}  # fmt: skip
SUBCOMMANDS = {("CONFIG", "GET"), ("ACL", "WHOAMI"), ("ACL", "GETUSER"), ("SCRIPT", "LOAD")}


def sent(path: Path) -> set[str]:
    """The commands that a module builds: every tuple or list whose first word is one, and a first word chosen by `if`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, (ast.Tuple, ast.List)) or not node.elts:
            continue
        heads = [node.elts[0].body, node.elts[0].orelse] if isinstance(node.elts[0], ast.IfExp) else [node.elts[0]]
        for head in heads:
            if not isinstance(head, ast.Constant) or head.value not in WORDS:
                continue
            word = str(head.value)
            second = node.elts[1] if len(node.elts) > 1 else None
            pair = (word, second.value) if isinstance(second, ast.Constant) else (word, None)
            found.add("|".join(map(str, pair)).lower() if pair in SUBCOMMANDS else word.lower())
    return found


def test_every_script_belongs_to_a_role() -> None:
    assert {name for needs in NEEDS.values() for name in needs.scripts} == set(NAMES)


def test_every_module_that_sends_a_command_belongs_to_a_role() -> None:
    named = {name for modules in MODULES.values() for name in modules} | SHARED | OTHERS
    files = [*(ROOT / "zwheel").rglob("*.py"), *(ROOT / "workers").glob("*.py"), *(ROOT / "cli").glob("*.py")]
    inside = [
        path for path in files if path.relative_to(ROOT).parts[:2] not in (("zwheel", "cli"), ("zwheel", "workers"))
    ]
    senders = {str(path.relative_to(ROOT)) for path in inside if sent(path)}
    assert senders - named == set()


@pytest.mark.parametrize("role", Role)
def test_the_plain_commands_of_a_role_are_those_of_its_modules(role: Role) -> None:
    found = {command for name in MODULES[role] for command in sent(ROOT / name)} - {"evalsha", "script|load"}
    wanted = found | BESIDES.get(role, frozenset())
    assert set(NEEDS[role].plain) == wanted - OPTIONAL.get(role, frozenset())


def test_the_commands_of_a_script_are_read_from_it() -> None:
    assert {"time", "hmget", "get", "zadd", "hset", "set", "llen", "rpush"} <= commands_of("enqueue")
    assert commands_of("extend") == {"time", "hmget", "hset", "zadd"} | (commands_of("extend") & {"hget"})


@pytest.mark.parametrize("role", Role)
def test_the_rules_grant_no_category_and_name_every_key(role: Role) -> None:
    made = rules([role], "zw", ["emails"])
    assert made[:3] == ["resetkeys", "resetchannels", "-@all"]
    assert [rule for rule in made if "@" in rule] == ["-@all"]
    assert {rule[1:] for rule in made if rule.startswith("+")} == set(commands(role))
    assert all("zw" in pattern for pattern in patterns(role, "zw", ["emails"]))
    assert not {"flushall", "keys", "debug", "config|set", "script|flush", "eval"} & set(commands(role))


def test_several_roles_have_the_rights_of_all() -> None:
    both = rules([Role.READER, Role.PRODUCER], "zw", ["a", "b"])
    assert {rule[1:] for rule in both if rule[0] == "+"} == {*commands(Role.READER), *commands(Role.PRODUCER)}
    assert "%R~{zw:a:*}:*" in both and "~{zw:b:*}:wheel:*" in both and "~zw:queues" in both
    assert "%R~{zw:a:*}:*" not in rules([Role.READER, Role.WORKER], "zw", ["a"])


def test_without_a_queue_the_rules_are_for_the_namespace() -> None:
    assert "~{shop:*}:*" in rules([Role.WORKER], "shop", [])
    assert "~{shop:*}:replay:*" in rules([Role.PRODUCER], "shop", [])
