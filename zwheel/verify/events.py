"""What a history says, put together: events of jobs, and what is known of queues and processes."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from typing import Any

from zwheel.keys import queue_of
from zwheel.outside import whole

Span = tuple[int, int]
"""A time from, a time to, in µs of the server's clock."""

NEVER = 1 << 62
"""Later than any time, µs."""

#: The letters by which a script says that it made the change.
ACCEPTED = {
    "enqueue": "cr", "complete": "d", "retry": "r", "release": "b", "offer": "o", "bury": "x", "reap": "sxc", "cancel": "c",
    "cancelled": "c",
    "reschedule": "s", "redrive": "r", "extend": "k",
}  # fmt: skip
#: A round trip that takes longer is worth to be known, µs.
LONG_TRIP_US = 100_000
#: The scripts that end a claim, by its token.
SETTLES = frozenset({"settle", "complete", "retry", "release", "offer", "bury", "cancelled"})
#: Faults that may undo acknowledged writes: the changes in their windows may be gone.
LOSSES = frozenset({"aof_cut", "flush", "failover", "no_persistence", "eviction", "loss"})
#: Faults in whose windows nothing can be claimed of the queues that they name, or of any: the server is away.
CLOSURES = frozenset({"redis_down", "redis_stop", "slot_move"})
#: Faults of one process only: all others must go on as if nothing had happened.
PERSONAL = frozenset({"kill", "stop", "term"})


@dataclass(slots=True)
class Source:
    """Where a line stands, and who wrote it."""

    file: str
    line: int
    proc: str


class Event:
    """One change of one job: asked for, and as far as it is known, what became of it."""

    __slots__ = (
        "at",
        "attempt",
        "digest",
        "facts",
        "fire",
        "letter",
        "op",
        "rank",
        "shift",
        "since",
        "source",
        "sure",
        "token",
        "us",
    )

    def __init__(self, op: str, since: int, us: int, facts: dict[str, Any], source: Source, *, sure: bool) -> None:
        self.op = op
        #: It happened no earlier and no later than this, µs of the server's clock.
        self.since = since
        self.us = us
        #: Its place in the order of the job's events: a time, and a rank among those of the same time.
        self.at = us
        self.rank = 1 if op == "claim" else 2
        #: By how much its times are later than what the server's clock showed, which was set back before, µs.
        self.shift = 0
        self.facts = facts
        self.source = source
        #: Whether it is known to have happened.
        self.sure = sure
        self.letter: str = facts.get("letter", "")
        self.token: int = facts.get("token", 0)
        self.attempt: int = facts.get("attempt", 0)
        self.fire: int | None = facts.get("fire")
        self.digest: str = facts.get("digest", "")

    @property
    def terminal(self) -> bool:
        """Whether the job ended by it."""
        return self.op in ("complete", "bury", "cancel", "cancelled") or (self.op == "reap" and self.letter in "xc")

    @property
    def cancels(self) -> bool:
        """Whether the job was cancelled by it."""
        return self.op in ("cancel", "cancelled") or (self.op == "reap" and self.letter == "c")

    def __repr__(self) -> str:
        return f"<{self.op} {self.letter} {self.us} token={self.token}>"


class JobLine:
    """Everything about one job, in the order of the server's clock."""

    __slots__ = (
        "carried",
        "ends",
        "extends",
        "id",
        "kept",
        "maybe",
        "moved",
        "moves",
        "queue",
        "refused",
        "shaky",
        "starts",
    )

    def __init__(self, queue: str, job_id: str) -> None:
        self.queue = queue
        self.id = job_id
        #: Changes that are known to have happened, extensions apart.
        self.moves: list[Event] = []
        #: Renewals of its leases that are known to have happened.
        self.extends: list[Event] = []
        #: Changes that may have happened: no answer arrived.
        self.maybe: list[Event] = []
        #: Changes that were refused.
        self.refused: list[Event] = []
        self.starts: list[Event] = []
        self.ends: list[Event] = []
        #: Whether a change lies in a window in which the server lost confirmed writes.
        self.shaky = False
        #: Whether it is listed by a snapshot before anything was heard of it.
        self.kept = False
        #: When it was on its way to another shard of its queue, as far as is known.
        self.carried: list[Span] = []
        #: Whether it was in shards of several cuts of its queue: it has no place in the times of one of them.
        self.moved = False

    def settle(self) -> None:
        """Sort what was gathered."""
        repeated = [e for e in (*self.moves, *self.extends) if e.since < e.us]
        if repeated:
            claims = sorted((move for move in self.moves if move.op == "claim"), key=lambda move: move.us)
            for event in repeated:
                _place(event, claims)
        for events in (self.moves, self.extends, self.maybe, self.refused, self.starts, self.ends):
            if len(events) > 1:
                events.sort(key=_order)
        if any(event.op == "repair" for event in self.maybe):
            self._leave_out_what_was_set_aside()

    def _leave_out_what_was_set_aside(self) -> None:
        """A reap by a version that cannot read a job says that the job is dead, and only sets it aside.

        A later version takes the job back by a repair, or off the dead set where it went on meanwhile: that reap changed
        nothing of it.
        """
        back = [event.us for event in self.maybe if event.op == "repair" and event.letter in ("e", "f", "o")]
        reaps = [move for move in self.moves if move.op == "reap" and move.letter == "x"]
        for reap in reaps:
            again = min((other.us for other in reaps if other.us > reap.us), default=NEVER)
            if any(reap.since <= us <= again for us in back):
                self.moves.remove(reap)

    def generation(self, event: Event) -> list[Event]:
        """The moves since the enqueue that the event belongs to, up to the next one."""
        moves = self.moves
        at = moves.index(event)
        first = at
        while first > 0 and moves[first].op != "enqueue":
            first -= 1
        last = at + 1
        while last < len(moves) and moves[last].op != "enqueue":
            last += 1
        return moves[first:last]

    def may_have(self, ops: frozenset[str] | set[str], until: int, token: int = 0) -> bool:
        """Whether a change of unknown outcome, of one of these kinds, may have happened by `until`."""
        return any(e.op in ops and e.since <= until and (not token or e.token == token) for e in self.maybe)

    def may_be_anew(self, since: int, until: int) -> bool:
        """Whether an occurrence may have gone back to its schedule in that time, and been put on the wheel once more."""
        ops = {e.op for e in self.maybe if e.since <= until and e.us >= since}
        return "purge" in ops and "enqueue" in ops


def _order(event: Event) -> tuple[int, int, int]:
    return (event.at if event.at < NEVER else event.since, event.rank, event.token)


def _place(event: Event, claims: list[Event]) -> None:
    """Find the place of a change whose answer came to a repeat: it took effect somewhere between first sending and answer.

    The claim of the same token came before it. Where another claim follows before the answer, the change made that claim
    possible.
    """
    for claim in claims:
        if claim.token == event.token:
            event.since = min(event.us, max(event.since, claim.us))
        elif event.since < claim.us <= event.us and claim.token > event.token:
            event.at, event.rank = claim.us, 0
            return


@dataclass(slots=True)
class CallLine:
    """One call on a queue that was answered, or that may have happened."""

    op: str
    word: str
    since: int
    us: int
    args: dict[str, Any]
    source: Source
    taken: int = 0
    asked: int = 0
    """When it was first sent, also without success, µs."""
    heard: int = 0
    """When its answer arrived, µs."""
    shift: int = 0
    """By how much its times are later than what the server's clock showed, µs."""
    jobs: list[dict[str, Any]] = field(default_factory=list)
    """The jobs of a change of schedules."""


@dataclass(slots=True)
class QueueLine:
    """What is known of a queue beyond its jobs."""

    name: str
    answered: list[int] = field(default_factory=list)
    """When workers' calls were answered, µs, sorted."""
    refused: list[int] = field(default_factory=list)
    """When workers asked and nothing happened: Redis was not there. µs, sorted."""
    unheard: list[int] = field(default_factory=list)
    """When workers asked and got no answer: Redis may have heard them. µs, sorted."""
    claims: list[CallLine] = field(default_factory=list)
    looks: dict[str, list[Span]] = field(default_factory=dict)
    """Looks of waiting workers at the wheel, by process: from asking to the answer, in order."""
    asking: dict[str, int] = field(default_factory=dict)
    """Since when a claim or an outcome of a process was never answered, µs."""
    trips: dict[str, list[Span]] = field(default_factory=dict)
    """Round trips of pollers that took long, by process: from asking, also without success, to the answer."""
    unknown: dict[str, list[Span]] = field(default_factory=dict)
    """Calls of unknown outcome that name no job, by kind: when they may have happened."""
    purges: list[CallLine] = field(default_factory=list)
    prunes: list[CallLine] = field(default_factory=list)
    schedules: list[CallLine] = field(default_factory=list)
    """Changes of schedules that were carried out: `define` and `advance`."""
    graces: list[Span] = field(default_factory=list)
    reaps: list[tuple[str, int, bool]] = field(default_factory=list)
    """Process, time, and whether it held itself back, of each reap."""
    holds: list[Span] = field(default_factory=list)
    """When a worker took nothing back, since it had been cut off, or had only just begun."""
    jumps: list[Span] = field(default_factory=list)
    """Jumps ahead of the server's clock that a worker reported: its time before, as far as is known, and after."""
    pauses: list[Span] = field(default_factory=list)
    resumes: list[int] = field(default_factory=list)
    began: int = NEVER
    """The first answer heard, µs."""
    lease_ms: int = 0
    """The longest lease that its workers used."""

    def may_have(self, op: str, since: int, until: int) -> bool:
        """Whether a call of unknown outcome may have happened in that time."""
        return any(first <= until and last >= since for first, last in self.unknown.get(op, ()))

    def heard(self, since: int, until: int) -> bool:
        """Whether a worker's call was answered in that time."""
        return bisect_right(self.answered, until) > bisect_left(self.answered, since)


@dataclass(slots=True)
class Fault:
    """Something that was done to the run on purpose."""

    kind: str
    span: Span
    args: dict[str, Any]
    source: Source


@dataclass(slots=True)
class Snapshot:
    """The whole state of one queue at one time."""

    queue: str
    us: int
    number: str
    head: dict[str, Any] = field(default_factory=dict)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    source: Source | None = None
    shift: int = 0
    """By how much `us` is later than what the server's clock showed, µs."""


class Times:
    """Times that are asked about very often: none of its parts touches another, and they are in order."""

    def __init__(self, spans: list[Span]) -> None:
        self.parts: list[Span] = []
        for first, last in sorted(spans):
            if self.parts and first <= self.parts[-1][1]:
                self.parts[-1] = self.parts[-1][0], max(last, self.parts[-1][1])
            else:
                self.parts.append((first, last))
        self._ends = [last for _, last in self.parts]

    def touch(self, since: int, until: int) -> bool:
        """Whether any moment from `since` to `until` belongs to them."""
        at = bisect_left(self._ends, since)
        return at < len(self.parts) and self.parts[at][0] <= until


@dataclass(slots=True)
class Runs:
    """A history, read."""

    jobs: dict[tuple[str, str], JobLine] = field(default_factory=dict)
    aliases: dict[tuple[str, str], JobLine] = field(default_factory=dict)
    """The same jobs by the shards where they were before their queue was cut anew."""
    cuts: dict[str, tuple[int, int]] = field(default_factory=dict)
    """When each queue was last cut anew, µs, and into how many shards; only of queues that were."""
    queues: dict[str, QueueLine] = field(default_factory=dict)
    procs: dict[str, list[int]] = field(default_factory=dict)
    """When each process wrote a line, µs of the server's clock, sorted."""
    stalls: dict[str, list[Span]] = field(default_factory=dict)
    """When the event loop of each process did not turn, as it noticed itself."""
    faults: list[Fault] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)
    keyspaces: list[tuple[dict[str, Any], Source]] = field(default_factory=list)
    receipts: list[tuple[str, dict[str, Any], Source]] = field(default_factory=list)
    """Enqueues whose receipt claims more than memory."""
    lost: Times = field(default_factory=lambda: Times([]))
    """When confirmed writes may have been lost."""
    disturbances: Times = field(default_factory=lambda: Times([]))
    """When something was done to the server, the network or the whole run."""
    receipts_seen: int = 0
    lines: int = 0
    files: int = 0
    infos: dict[str, int] = field(default_factory=dict)
    """How many calls of each kind have an unknown outcome."""
    torn: int = 0
    """Last lines that were cut off."""
    last_us: int = 0
    """The last reading of the server's clock."""
    back_us: int = 0
    """How far the server's clock was set back in all, µs: times after that are read as so much later."""
    backs: list[int] = field(default_factory=list)
    """When it was set back, µs."""

    def job(self, queue: str, job_id: str) -> JobLine:
        """The line of a job, made when it is new."""
        key = (queue, job_id)
        found = self.jobs.get(key)
        if found is None:
            found = self.jobs[key] = JobLine(queue, job_id)
        return found

    def known(self, queue: str, job_id: str) -> JobLine | None:
        """The line of a job by a shard where it is or was; None when nothing was heard of it."""
        return self.jobs.get((queue, job_id)) or self.aliases.get((queue, job_id))

    def queue(self, name: str) -> QueueLine:
        """The line of a queue, made when it is new."""
        found = self.queues.get(name)
        if found is None:
            found = self.queues[name] = QueueLine(name)
        return found

    def final(self, queue: str) -> Snapshot | None:
        """The last snapshot of a queue."""
        found = [snapshot for snapshot in self.snapshots if snapshot.queue == queue]
        return max(found, key=lambda snapshot: snapshot.us) if found else None

    def finals(self, queue: str) -> list[Snapshot]:
        """The last snapshots of all shards of a queue, also of its former cuts, by their times."""
        known = sorted(self.snapshots, key=lambda snapshot: snapshot.us)
        last = {s.queue: s for s in known if queue_of(s.queue) == queue_of(queue)}
        return sorted(last.values(), key=lambda snapshot: snapshot.us)

    def trimmed(self, job: JobLine) -> int:
        """How many dead jobs were deleted, by the last snapshot, where this one was: there were too many."""
        heads = [s.head for s in self.finals(job.queue) if job.moved or s.queue == job.queue]
        return sum(whole(head.get("meta", {}).get("trimmed")) or 0 for head in heads)

    def losses(self, queue: str, since: int, until: int) -> list[Fault]:
        """The faults for which confirmed writes of that time may be gone. queue: its name, or that of its shard."""
        if not self.lost.touch(since, until):
            return []
        return [
            f for f in self.faults
            if f.kind in LOSSES and f.span[0] <= until and f.span[1] >= since and queue in f.args.get("queues", (queue,))
        ]  # fmt: skip

    def closed(self, queue: str) -> list[Span]:
        """When nothing could be claimed of a queue, whoever asked: its server was away, or its slot was on its way."""
        return [
            f.span for f in self.faults
            if f.kind in CLOSURES and queue in f.args.get("queues", () if f.kind == "slot_move" else (queue,))
        ]  # fmt: skip

    def disturbed(self) -> list[Span]:
        """When something was done to the server, the network or the whole run, each after the one before."""
        return self.disturbances.parts

    def settle_faults(self) -> None:
        """Put the times of the faults together, when all are known."""
        self.lost = Times([fault.span for fault in self.faults if fault.kind in LOSSES])
        lasting = [fault for fault in self.faults if fault.span[1] > fault.span[0]]
        self.disturbances = Times([fault.span for fault in lasting if fault.kind not in PERSONAL])


def overlap(spans: list[Span], since: int, until: int) -> int:
    """How many µs of a time lie in the spans, which may overlap each other."""
    total = 0
    at = since
    for first, last in sorted(spans):
        low, high = max(first, at), min(last, until)
        if high > low:
            total += high - low
            at = high
    return total
