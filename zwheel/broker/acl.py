"""Which rights each kind of Redis user needs: the one table that `zwheel acl` prints and that workers check.

What scripts run is read from the scripts themselves, and a producer's keys from the header of `enqueue`. The plain
commands beside them are listed here; a test compares them with the modules that send them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from zwheel.calls.scripts import script
from zwheel.keys import TAG, ShardKeys, check_name, queues_key, tasks_key

#: A doctor says itself what these do not show; managed servers have none of them.
_SAID_ELSEWHERE = frozenset({"acl|getuser", "acl|whoami", "config|get", "scan"})
_CALL = re.compile(r"redis\.p?call\(\s*'([A-Z]+)'")
_HEADER_KEY = re.compile(r"\d+(?:\.\.)? +([a-z:]+)")
_EVALSHA = "EVALSHA"


class Role(StrEnum):
    """A kind of Redis user."""

    PRODUCER = "producer"
    """Enqueues, one by one and in bulk."""
    WORKER = "worker"
    """Runs jobs, fires schedules, and keeps those that its application declares."""
    READER = "reader"
    """Looks at everything and changes nothing."""
    OPERATOR = "operator"
    """Looks, cancels, moves, redrives, purges, pauses, enqueues, and edits schedules."""
    DOCTOR = "doctor"
    """Checks the server and the keys, and repairs them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What one role sends."""

    scripts: tuple[str, ...]
    plain: frozenset[str]
    """The commands beside the scripts, as ACL rules name them."""
    queues: str
    """How it uses the list of queues: R, W or RW."""


_READS = frozenset(
    {
        "hget", "hgetall", "hkeys", "hmget", "hscan", "ping", "time", "zcard", "zcount", "zmscore",
        "zrange", "zrevrange", "zscore",
    }
)  # fmt: skip

NEEDS: dict[Role, Needs] = {
    # A producer that meets a new cut of its queue which is not open opens it, by two steps of `reshard`.
    Role.PRODUCER: Needs(scripts=("enqueue", "reshard"), plain=frozenset({"get", "hexists", "hget", "hkeys", "hmget", "hsetnx", "set", "wait", "zscore"}), queues="RW"),
    Role.WORKER: Needs(
        scripts=(
            "claim", "step_down", "settle", "offer", "extend", "reap", "prune",
            "advance", "define", "repair", "cancel", "depart", "arrive", "reshard",
        ),
        plain=frozenset(
            {
                "blpop", "del", "exists", "get", "hdel", "hexists", "hget", "hgetall", "hkeys", "hlen", "hmget", "hscan",
                "hset", "hsetnx", "info", "llen", "ltrim", "rpush", "set", "time", "zadd", "zcard", "zmscore", "zrange", "zrem", "zscore",
            }
        ),
        queues="RW",
    ),
    Role.READER: Needs(scripts=(), plain=_READS | {"hexists", "hstrlen", "llen", "pttl", "scan", "type"}, queues="R"),
    Role.OPERATOR: Needs(
        scripts=(
            "enqueue", "cancel", "reschedule", "redrive", "purge", "define", "depart", "arrive", "reshard",
        ),
        plain=_READS | {"del", "exists", "get", "hdel", "hexists", "hlen", "hset", "hsetnx", "rpush", "set", "wait"},
        queues="RW",
    ),
    Role.DOCTOR: Needs(
        scripts=("repair",),
        plain=frozenset(
            {
                "acl|getuser", "acl|whoami", "config|get", "exists", "hgetall", "hmget", "hscan", "hsetnx",
                "hlen", "hstrlen", "info", "llen", "ltrim", "rpush", "scan", "time", "type", "unlink", "zmscore", "zrange", "zrem", "zscan",
            }
        ),
        queues="RW",
    ),
}  # fmt: skip


#: What `durable="fsynced"` takes. Redis before 7.2 refuses all rules of a user when one names it.
FSYNCED = "waitaof"
#: What finding the server takes, for every role, by the kind of the address.
WAY = {"cluster": frozenset({"asking", "cluster|slots"}), "sentinel": frozenset({"role"})}


@cache
def commands_of(name: str) -> frozenset[str]:
    """The commands that a script may run, as ACL rules name them."""
    return frozenset(found.lower() for found in _CALL.findall(script(name).source))


def commands(role: Role) -> list[str]:
    """Every command that a role needs, sorted."""
    needs = NEEDS[role]
    found = set(needs.plain)
    for name in needs.scripts:
        found |= commands_of(name)
    if needs.scripts:
        found |= {_EVALSHA.lower(), "script|load"}
    return sorted(found)


def _keys_of_enqueue(tag: str) -> list[str]:
    section = re.search(r"KEYS (.*?)\nARGV", script("enqueue").header, re.DOTALL)
    assert section is not None
    names = {"replay": "replay:*", "bucket": "wheel:*", "buckets": "wheel:*"}
    # While the queue is cut anew it looks in `leaving` for jobs that are on their way.
    return [f"{tag}:{names.get(found, found)}" for found in [*_HEADER_KEY.findall(section[1]), "leaving"]]


def patterns(role: Role, namespace: str, queues: Sequence[str]) -> list[str]:
    """The key patterns of a role, as ACL rules; without queues those of every queue of the namespace."""
    check_name(namespace, "namespace")
    rights = "%R~" if role is Role.READER else "~"
    found = []
    for queue in queues or ("*",):
        tag = f"{{{namespace}:*}}" if queue == "*" else f"{{{namespace}:{check_name(queue)}:*}}"
        found += [f"~{key}" for key in _keys_of_enqueue(tag)] if role is Role.PRODUCER else [f"{rights}{tag}:*"]
    if role in (Role.WORKER, Role.OPERATOR) and queues:
        # A schedule's name is looked for in every queue before it is given to a new one.
        found.append(f"%R~{{{namespace}:*}}:schedules")
    use = NEEDS[role].queues
    found.append(f"{'~' if use == 'RW' else f'%{use}~'}{queues_key(namespace)}")
    found.append(f"{'~' if role is Role.WORKER else '%R~'}{tasks_key(namespace)}")
    return found


def rules(
    roles: Iterable[Role], namespace: str, queues: Sequence[str], kind: str = "", *, fsynced: bool = False
) -> list[str]:
    """The least rules of a user with these roles, ready for `ACL SETUSER`. Raises: InvalidName.

    The user's former rights end, its password and whether it is on stay. kind: that of the address, as in `Address`.
    fsynced: the server is 7.2 or newer, and who enqueues may ask whether a job is on its disk.
    """
    chosen = list(dict.fromkeys(roles))
    allowed = sorted(
        {command for role in chosen for command in commands(role)}
        | WAY.get(kind, frozenset())
        | ({FSYNCED} if fsynced else set())
    )
    keys = dict.fromkeys(pattern for role in chosen for pattern in patterns(role, namespace, queues))
    # A key with the right to read and write needs no rule of its own for reading.
    kept = [key for key in keys if not (key.startswith("%") and f"~{key.partition('~')[2]}" in keys)]
    return ["resetkeys", "resetchannels", "-@all", *(f"+{command}" for command in allowed), *kept]


def command_for(role: Role | None, namespace: str, queues: Sequence[str]) -> str:
    """The command that prints the rules that a user lacks. role: None when it is not known."""
    options = "".join(f" --queue {queue}" for queue in queues) + (
        f" --namespace {namespace}" if namespace != "zw" else ""
    )
    return f"zwheel acl{'' if role is None else f' {role}{options}'}"


#: Where several roles need a command, the first of them here is taken.
_TELLING = (Role.READER, Role.PRODUCER, Role.OPERATOR, Role.DOCTOR, Role.WORKER)
_TAG = re.compile(TAG)


def command_after(sent: str, words: Iterable[object], step: object = "") -> str:
    """The same for a command that was refused: the command tells the role, its keys tell the queue.

    sent: the name of the command, or of the script; words: its other words, the keys among them. step: of a reshard, of which
    producers need the right to `open` alone.
    """
    name = sent.lower()
    if name == FSYNCED:
        return "zwheel acl producer --fsynced"
    role = next((role for role in _TELLING if name in NEEDS[role].plain or name in NEEDS[role].scripts), None)
    if name == "reshard" and step != "open":
        role = Role.WORKER
    found = next((match for word in words if isinstance(word, str) and (match := _TAG.match(word)) is not None), None)
    return command_for(role, "zw" if found is None else found[1], () if found is None else [found[2]])


def questions(
    role: Role, namespace: str, queues: Sequence[str], *, commands_too: bool = True
) -> list[tuple[str, tuple[str, ...]]]:
    """What to ask a server about a user's rights: the rule that it is about, and a whole command that needs it.

    Whole, because Redis 7.0 dies of the question about some commands without their arguments.
    """
    asked: list[tuple[str, tuple[str, ...]]] = []
    shards = [ShardKeys.of(namespace, queue) for queue in queues]
    for keys in shards:
        for name in ("meta", "jobs", "replay:0:0", "wheel:20300101"):
            key = f"{keys.tag}:{name}"
            asked.append((f"~{keys.tag}:*", (_EVALSHA, "0" * 40, "1", key)))
    use = NEEDS[role].queues
    listing = queues_key(namespace)
    if "W" in use:
        asked.append((f"~{listing}", ("HSETNX", listing, "q", "1")))
    if "R" in use:
        asked.append((f"~{listing}", ("HMGET", listing, "q")))
    for command in commands(role) if commands_too else ():
        if command in _SAID_ELSEWHERE:
            continue
        asked += [(f"+{command}", _whole(command, keys.meta)) for keys in shards[:1]]
    return asked


def _whole(command: str, key: str) -> tuple[str, ...]:
    words = tuple(command.upper().split("|"))
    known = {
        "evalsha": (*words, "0" * 40, "1", key), "script|load": (*words, "return 1"), "config|get": (*words, "port"),
        "acl|getuser": (*words, "default"), "info": (*words, "server"), "scan": (*words, "0"), "blpop": (*words, key, "0"),
        "time": words, "ping": words, "acl|whoami": words,
    }  # fmt: skip
    return known.get(command, (*words, key))
