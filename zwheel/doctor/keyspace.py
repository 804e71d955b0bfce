"""Which queues there are: those on the list, and those whose keys are there although nobody listed them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from zwheel.calls import Session
from zwheel.doctor import probe
from zwheel.doctor.finding import Finding, doctor_user, ok, problem, unseen, warning
from zwheel.errors import BrokerRefused
from zwheel.operations.read import queues
from zwheel.operations.rights import lacks
from zwheel.outside import Unreadable, shown
from zwheel.store import Steps
from zwheel.times import is_day

#: How many keys the server looks at in one step of the scan.
_SCAN = 2000
_KEY = re.compile(r"\{([A-Za-z0-9._-]+):([A-Za-z0-9._-]+):(\d+)\}:([a-z:]+?)(\d{8}|(?<=:)[0-9a-f]{16})?\Z")


@dataclass(slots=True)
class Keyspace:
    """What the keys of a server say about queues."""

    listed: list[str] = field(default_factory=list)
    """The queues on the list of this namespace."""
    buckets: dict[str, set[str]] = field(default_factory=dict)
    """Each queue of this namespace that has keys -> the days that have a bucket."""
    groups: dict[str, set[str]] = field(default_factory=dict)
    """Each queue of this namespace -> the groups of workers that something is kept for."""
    others: set[str] = field(default_factory=set)
    """Other namespaces that keep queues here."""
    strange: list[Unreadable] = field(default_factory=list)
    """What is on that list and no name of a queue."""
    closed: BrokerRefused | None = None
    """Why that list cannot be read."""
    unseen: BrokerRefused | None = None
    """Why the keys could not be seen."""

    @property
    def names(self) -> list[str]:
        """Every queue of this namespace, sorted."""
        return sorted({*self.listed, *self.buckets})

    @property
    def findings(self) -> list[Finding]:
        """What is worth a word about the keys as a whole."""
        found = []
        if self.closed and (right := lacks(self.closed)):
            text = f"the list of queues cannot be seen: this user lacks {right}; queues are looked at that are named, or that have keys"
            found.append(warning("keyspace", text, f"check as {doctor_user()}"))
        elif self.closed:
            text = f"the list of queues cannot be read, and commands that look at every queue fail: {self.closed}"
            found.append(problem("keyspace", text, "see which program wrote that key, DEL it, then enqueue or repair"))
        if self.strange:
            few = ", ".join(shown(one.name, 60) for one in self.strange[:3])
            text = f"{len(self.strange):,} entries of the list of queues are no names of queues ({few})"
            found.append(warning("keyspace", text, "see which program wrote them, and HDEL them"))
        return [*found, *self._others()]

    def _others(self) -> list[Finding]:
        if self.unseen:
            return [unseen("keyspace", "keys that nobody listed", self.unseen)]
        if self.others:
            text = f"other namespaces keep queues here too: {', '.join(sorted(self.others))}; they do not mix"
            return [ok("keyspace", text)]
        return []


def known_queues(session: Session) -> Steps[Keyspace]:
    """Find the queues of this namespace. Walks over the keys once, in bounded steps, where SCAN is allowed."""
    found = Keyspace()
    try:
        listed = yield from queues(session)
        found.listed, found.strange = [str(name) for name in listed], listed.unreadable
    except BrokerRefused as error:
        found.closed = error
    cursor = 0
    while True:
        try:
            (reply,) = yield (("SCAN", cursor, "MATCH", "{*:*:*}:*", "COUNT", _SCAN),)
        except BrokerRefused as error:
            found.unseen = error
            return found
        for raw in reply[1]:
            key = _KEY.match(probe.text(raw))
            if key is None:
                continue
            namespace, queue, _, name, day = key.groups()
            if namespace != session.namespace:
                found.others.add(namespace)
            elif name == "wheel:" and day and is_day(day):
                found.buckets.setdefault(queue, set()).add(day)
            elif name in ("offered:", "call:") and day:
                found.groups.setdefault(queue, set()).add(day)
                found.buckets.setdefault(queue, set())
            elif name in ("jobs", "meta", "days", "processing", "dead", "done"):
                found.buckets.setdefault(queue, set())
        cursor = int(reply[0])
        if cursor == 0:
            return found
