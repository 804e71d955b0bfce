"""Which queues there are: those on the list, and those whose keys are there although nobody listed them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from zwheel.broker.store import Steps
from zwheel.calls import Session
from zwheel.doctor import probe
from zwheel.doctor.finding import Finding, doctor_user, ok, problem, unseen, warning
from zwheel.errors import BrokerError, BrokerRefused
from zwheel.keys import namespace_keys, queue_of, shard_named
from zwheel.operations.read import is_away, queues
from zwheel.operations.rights import lacks
from zwheel.outside import Unreadable, shown
from zwheel.plain import counted
from zwheel.times import is_day

#: How many keys the server looks at in one step of the scan, and after how many steps the scan ends.
_SCAN, _MOST_STEPS = 2000, 5000
#: So many other namespaces are named.
_NAMED = 5
#: So many keys of no known kind are counted.
_MOST_UNKNOWN = 10_000
_NAME = r"([A-Za-z0-9][A-Za-z0-9._-]{0,127})"
_KEY = re.compile(rf"\{{{_NAME}:{_NAME}:(0|\d+of\d+)\}}:([a-z:]+?)(\d{{8}}|(?<=:)[0-9a-f]{{16}})?\Z")
_REPLAY = re.compile(rf"\{{{_NAME}:{_NAME}:(?:0|\d+of\d+)\}}:replay:[^:]+:[^:]+\Z")
#: Keys whose queue is known by them, and those that say nothing about it.
_TELLING = frozenset({"jobs", "meta", "days", "processing", "dead", "done", "leaving"})
_OTHERS = frozenset(
    {"bodies", "dedup", "dedup:expiry", "wake", "workers", "schedules", "schedules:due", "asked", "arrived"}
)


@dataclass(slots=True)
class Keyspace:
    """What the keys of a server say about queues."""

    listed: list[str] = field(default_factory=list)
    """The queues on the list of this namespace."""
    shards: dict[str, list[str]] = field(default_factory=dict)
    """Each of them -> the names of its shards."""
    buckets: dict[str, set[str]] = field(default_factory=dict)
    """Each shard of this namespace that has keys -> the days that have a bucket."""
    metas: set[str] = field(default_factory=set)
    """Each shard that has a `meta`, also where it has nothing else."""
    groups: dict[str, set[str]] = field(default_factory=dict)
    """Each shard of this namespace -> the groups of workers that something is kept for."""
    others: set[str] = field(default_factory=set)
    """Other namespaces that keep queues here."""
    strange: list[Unreadable] = field(default_factory=list)
    """What is on that list and no name of a queue."""
    unknown: set[str] = field(default_factory=set)
    """Keys under the prefix of this namespace that are of no kind which this version knows; many are cut short."""
    cut: bool = False
    """Whether there are so many keys that not all were looked at."""
    closed: BrokerError | None = None
    """Why that list cannot be read."""
    unseen: BrokerError | None = None
    """Why the keys could not be seen."""

    @property
    def in_full(self) -> bool:
        """Whether every queue on the list and every node was looked at."""
        return self.closed is None and not is_away(self.unseen)

    @property
    def names(self) -> list[str]:
        """Every shard of every queue of this namespace, sorted."""
        # Of a queue with several shards, what stands under its own name holds no job; but while it is cut anew one that
        # has, or had, one shard.
        cut = {queue for queue, shards in self.shards.items() if queue not in shards}
        listed = {shard for shards in self.shards.values() for shard in shards}
        # A shard of an earlier cut keeps its `meta`, which sends whoever still believes in that to the present one.
        alone = {shard for shard in self.metas if queue_of(shard) not in self.shards}
        return sorted((listed | alone | {*self.buckets}) - cut)

    @property
    def findings(self) -> list[Finding]:
        """What is worth a word about the keys as a whole."""
        found = []
        if is_away(self.closed):
            text = f"the list of queues cannot be read, only queues are looked at that are named: {self.closed}"
            found.append(warning("keyspace", text, "see why that node of the cluster gives no answer"))
        elif isinstance(self.closed, BrokerRefused) and (right := lacks(self.closed)):
            text = f"the list of queues cannot be seen: this user lacks {right}; queues are looked at that are named, or that have keys"
            found.append(warning("keyspace", text, f"check as {doctor_user()}"))
        elif self.closed:
            text = f"the list of queues cannot be read, and commands that look at every queue fail: {self.closed}"
            found.append(problem("keyspace", text, "see which program wrote that key, DEL it, then enqueue or repair"))
        if self.strange:
            few = ", ".join(shown(one.name, 60) for one in self.strange[:3])
            text = f"in the list of queues, {counted(len(self.strange), 'name')} that no queue can have ({few})"
            found.append(warning("keyspace", text, "see which program wrote them, and HDEL them"))
        if is_away(self.unseen):
            text = f"keys that nobody listed cannot be seen: {self.unseen}"
            found.append(warning("keyspace", text, "see why that node of the cluster gives no answer"))
        elif self.unseen:
            found.append(unseen("keyspace", "keys that nobody listed", self.unseen))
        if self.cut:
            text = (
                f"only {_SCAN * _MOST_STEPS:,} keys of this server were looked at: what nobody listed may not be seen"
            )
            found.append(ok("keyspace", text))
        if self.others:
            few = ", ".join(sorted(self.others)[:_NAMED])
            more = f" and {len(self.others) - _NAMED:,} more" if len(self.others) > _NAMED else ""
            text = f"other namespaces keep queues here too: {few}{more}; they do not mix"
            found.append(ok("keyspace", text))
        if self.unknown:
            more = "or more " if len(self.unknown) >= _MOST_UNKNOWN else ""
            few = ", ".join(shown(name, 100) for name in sorted(self.unknown)[:3])
            text = (
                f"{len(self.unknown):,} {more}keys under this namespace's prefix are of no kind that this version knows "
                f"({few}): a typo, a leftover, or a later version's; zwheel does not touch them"
            )
            found.append(ok("keyspace", text))
        return found

    def see(self, key: str, namespace: str) -> None:
        """Take a key of the server."""
        match = _KEY.match(key)
        whose, queue, shard, name, tail = match.groups() if match is not None else ("", "", "", "", "")
        if whose and whose != namespace:
            self.others.add(whose)
        elif shard and name == "wheel:" and tail and is_day(tail):
            self.buckets.setdefault(shard_named(queue, shard), set()).add(tail)
        elif shard and name in ("offered:", "call:") and tail:
            self.groups.setdefault(shard_named(queue, shard), set()).add(tail)
            self.buckets.setdefault(shard_named(queue, shard), set())
        elif shard and name == "meta" and not tail:
            self.metas.add(shard_named(queue, shard))
        elif shard and name in _TELLING and not tail:
            self.buckets.setdefault(shard_named(queue, shard), set())
        elif (shard and name in _OTHERS and not tail) or key in namespace_keys(namespace) or _REPLAY.match(key):
            return
        elif key.startswith((f"{{{namespace}:", f"{namespace}:")) and len(self.unknown) < _MOST_UNKNOWN:
            self.unknown.add(key)


def known_queues(session: Session) -> Steps[Keyspace]:
    """Find the queues of this namespace. Walks over the keys once, in steps and so many at the most, where SCAN is allowed.

    A node of a cluster that gives no answer hides what lies there. Raises: BrokerUnavailable, OutcomeUnknown, when no node
    gives any.
    """
    found = Keyspace()
    try:
        listed = yield from queues(session)
        found.listed, found.strange = [str(name) for name in listed], listed.unreadable
        found.shards = {name: session.shards(name) for name in found.listed}
    except BrokerError as error:
        if isinstance(error, BrokerRefused) and not lacks(error) and error.code != "WRONGTYPE":
            raise
        found.closed = error
    cursor = 0
    # Keys with a hash tag, and those that begin as this namespace does.
    pattern = f"[{{{session.namespace[0]}]*:*"
    for _ in range(_MOST_STEPS):
        try:
            (reply,) = yield (("SCAN", cursor, "MATCH", pattern, "COUNT", _SCAN),)
        except BrokerError as error:
            if is_away(error) and is_away(found.closed):
                raise
            found.unseen = error
            return found
        for raw in reply[1]:
            found.see(probe.text(raw), session.namespace)
        cursor = int(reply[0])
        if cursor == 0:
            return found
    found.cut = True
    return found
