"""The world of one run: virtual time, one server, a network that fails, and what each execution is held against."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.model.invariants import check_bodies, check_dedup, check_places, read
from tests.simulator.decisions import Decisions
from tests.simulator.judge import Judge
from tests.simulator.life import placed, touched
from tests.simulator.mirror import Mirror, same
from tests.simulator.promise import Violation, must
from tests.simulator.wire import LATE, NOT_RUN, Backend, Command, Server
from zwheel.calls import Call, NewJob, Session, clock_us, word
from zwheel.calls.clock import ServerClock
from zwheel.errors import BrokerUnavailable, OutcomeUnknown
from zwheel.keys import ShardKeys
from zwheel.times import DAY_MS, day_of
from zwheel.workers.contact import Contact
from zwheel.workers.settings import WorkerSettings

NAMESPACE, QUEUE = "zw", "q"
KEYS = ShardKeys.of(NAMESPACE, QUEUE)
PREFIX = f"{KEYS.tag}:"
LEASE_MS = 30_000
SECOND_US = 1_000_000
LEASE_US = LEASE_MS * 1000
MIDNIGHT_US = (1_900_000_000_000 // DAY_MS + 1) * DAY_MS * 1000
NETWORK_FAULTS = ("lost", "dropped", "twice", "partial", "late", "crash before", "crash after")
#: What `drive` carries: commands for one exchange, or a pause in seconds.
Acting = Generator[Any, list[Any], None]


class Crash(Exception):
    """The process that made an exchange died at that moment."""


class SimClock(ServerClock):
    """A session's estimate of the server's clock: wrong by a constant until an answer corrects it."""

    __slots__ = ("_world", "off_us", "was_right")

    def __init__(self, world: World, off_us: int) -> None:
        super().__init__()
        self._world = world
        self.off_us = off_us
        #: What the last answer said, whatever is believed since: a jump shows by it.
        self.was_right: int | None = None

    def now_us(self) -> int:
        return self._world.time_us + self.off_us

    def error_us(self) -> int:
        return abs(self.off_us - self._world.clock_off_us)

    def correct(self, server_us: int, error_us: int) -> None:
        before, self.was_right = self.was_right, server_us - self._world.time_us
        self.off_us = self.was_right + error_us
        if before is not None and self.on_jump is not None and abs(self.was_right - before) > 500_000:
            self.on_jump(self.was_right - before)


class Entry(NamedTuple):
    """One execution, as an AOF holds it."""

    command: Command
    reply: Any


@dataclass(slots=True)
class Process:
    """What dies and pauses together. A worker process is one with claims in its hands."""

    name: str
    session: Session
    restart: Callable[[], None]
    paused_until: int = 0
    dead: bool = False
    troubled: bool = False
    """An exchange of its own failed, or it was paused, since its last heartbeat: its leases may end."""
    held: dict[tuple[str, int], Any] = field(default_factory=dict)
    took: set[tuple[str, int]] = field(default_factory=set)
    """What it ever claimed and was not told to be lost: whether it still holds that, the server knows."""
    stale: set[tuple[str, int]] = field(default_factory=set)
    """Of these, what was claimed so long ago that it may be another's, and was not renewed since."""
    pending: Any = None
    """What another process has to do again when this one dies."""
    knows_all: bool = False
    """Whether it is a worker that knows the rare task too."""
    contact: Contact | None = None
    """What it knows of its contact with the server; it reaps by it."""


@dataclass(slots=True)
class Actor:
    """One coroutine of a process."""

    name: str
    process: Process
    steps: Acting
    ready_at: int
    seat: int
    """Its place in the order of turns."""
    sending: Sequence[Command] | None = None
    begun: bool = False
    listens: bool = False
    """Whether it waits for a wake-up token; one that comes makes it ready."""


class World:
    """Runs commands for actors at the server's time, and loses, doubles and delays them as decided."""

    def __init__(
        self,
        decisions: Decisions,
        server: Server | None,
        *,
        mirrored: bool,
        damage: bool,
        clock: bool,
        marks: set[str],
        traced: bool,
    ) -> None:
        self.decisions = decisions
        self.mirror = Mirror(PREFIX) if mirrored else None
        backend: Backend | None = server or self.mirror
        assert backend is not None
        self.backend = backend
        self.backend.reset()
        self.damage = damage
        self.clock = clock
        self.marks = marks
        self.lines: list[str] | None = [] if traced else None
        #: Time as processes feel it, and how far the server's clock is ahead of it, µs.
        self.time_us = MIDNIGHT_US
        self.clock_off_us = 0
        self.away_until = 0
        self.calm_at = 0
        #: Who meets the server only while its clock is wrong, until when, and by how much, µs.
        self.slip: tuple[Process | None, int, int] = (None, 0, 0)
        #: When the server lost power last, by its own clock, µs.
        self.lost_us = 0
        self.judge = Judge(self.mark)
        self.log: list[Entry] = []
        self.late: list[tuple[int, list[Command]]] = []
        self.actors: list[Actor] = []
        #: Ids that an enqueue was answered for, and those that a cut took away again.
        self.acked: set[str] = set()
        self.cut_away: set[str] = set()
        #: Ids of batches that somebody may enqueue again.
        self.open: set[str] = set()
        #: Claims of processes that died, and every claim that was ever given: what zombies act with.
        self.graves: list[tuple[bytes, bytes]] = []
        self.ever: list[tuple[bytes, bytes]] = []
        self.unfinished: list[tuple[list[NewJob], bool]] = []
        self.ids: list[str] = []
        #: Until when dead workers that knew the rare task are believed to live, µs.
        self.known_until = 0
        self.fault_rate = 0.0
        self.faults: list[str] = []

    def mark(self, name: str) -> None:
        self.marks.add(name)

    def say(self, who: str, text: str) -> None:
        if self.lines is not None:
            self.lines.append(f"{(self.time_us - MIDNIGHT_US) / 1e6:12.4f} s  {who:10s} {text}")

    @property
    def server_us(self) -> int:
        """The server's clock."""
        return self.time_us + self.clock_off_us

    def session(self, caller: str, off_us: int = 0) -> Session:
        session = Session(NAMESPACE, caller)
        session.may_list = True  # A server in a model has no users.
        session.clock = SimClock(self, self.clock_off_us + off_us)
        return session

    def contact(self, process: Process) -> Contact:
        """What a process knows of its contact: the worker's own, told by this world's clock."""
        contact = Contact(WorkerSettings(lease_ms=LEASE_MS), now_ns=lambda: self.time_us * 1000)
        process.session.clock.on_jump = contact.jumped
        process.contact = contact
        return contact

    def exchange(self, actor: Actor, commands: Sequence[Command]) -> list[Any]:
        """Send commands for an actor. Raises: BrokerUnavailable, OutcomeUnknown, Crash."""
        self.time_us += 200
        if self.time_us < self.away_until:
            self.mark("server away")
            self.say(actor.name, f"{_names(commands)}: nobody answers")
            raise BrokerUnavailable("connection refused")
        process, until, by_us = self.slip
        if actor.process is process and self.time_us < until:
            # The clock jumps just before this exchange, and again right after it: nobody else sees it.
            self.clock_off_us += by_us
            try:
                return self._exchange(actor, commands)
            finally:
                self.clock_off_us -= by_us
        return self._exchange(actor, commands)

    def _exchange(self, actor: Actor, commands: Sequence[Command]) -> list[Any]:
        fault = self.decisions.pick(self.faults) if self.faults and self.decisions.chance(self.fault_rate) else ""
        if fault:
            self.mark(fault)
            self.say(actor.name, f"{_names(commands)}: {fault}")
        if fault == "crash before":
            raise Crash
        if fault == "lost":
            actor.process.troubled = True
            raise OutcomeUnknown("lost before it arrived")
        if fault == "partial":
            commands = commands[: self.decisions.choose(len(commands))]
        if fault == "late":
            self._post(commands)
            actor.process.troubled = True
            raise OutcomeUnknown("no answer in time")
        if fault == "twice":
            self.execute(commands, actor.name)
        replies = self.execute(commands, actor.name) if commands else []
        if fault == "crash after":
            raise Crash
        if fault in ("dropped", "partial"):
            actor.process.troubled = True
            raise OutcomeUnknown("the answer was lost")
        self._observe(actor.process.session, commands, replies)
        return replies

    def _post(self, commands: Sequence[Command]) -> None:
        """Bytes that arrive after their sender gave up, and maybe after what it sent later."""
        calls: list[Command] = [command for command in commands if isinstance(command, Call)]
        if calls:
            self.late.append((self.time_us + self.decisions.pick((1_000, SECOND_US, 2 * LEASE_US)), calls))

    def hand_on(self, batch: list[NewJob], bulk: bool) -> None:
        """Leave a batch to whoever asks for it next. Only its own process is promised that asking again makes nothing twice:
        the lane that knows the first answer is in its hands, and a job that ended without `keep` leaves nothing behind."""
        self.unfinished.append((batch, bulk))
        self.judge.promised -= {str(job.id) for job in batch}

    def on_their_way(self) -> set[str]:
        """Ids of jobs whose enqueue may still arrive once more."""
        sent = [command for _, post in self.late for command in post if isinstance(command, Call)]
        return {job["id"] for call in sent if call.script.name == "enqueue" for job in call.trace(None).jobs}

    def _observe(self, session: Session, commands: Sequence[Command], replies: list[Any]) -> None:
        clock = session.clock
        assert isinstance(clock, SimClock)
        for command, reply in zip(commands, replies, strict=True):
            if isinstance(command, Call):
                clock.correct(clock_us(reply), 0)
        if self.decisions.chance(0.15):
            clock.off_us += self.decisions.pick(
                (0, 1_500, -1_500, SECOND_US, -SECOND_US, DAY_MS * 1000, -DAY_MS * 1000)
            )

    def execute(self, commands: Sequence[Command], who: str) -> list[Any]:
        """Have the server carry out commands now, and hold each answer against the promises."""
        listeners = [actor for actor in self.actors if actor.listens]
        todo = [*enumerate(commands), *([(-1, ("LPOP", KEYS.wake))] if listeners else [])]
        replies: list[Any] = [None] * len(commands)
        while todo:
            stamped = [self._stamped(command) for _, command in todo]
            unknown = []
            for (place, first), command, reply in zip(todo, stamped, self.backend.run(stamped), strict=True):
                if reply is NOT_RUN:
                    unknown.append((place, first))
                    continue
                if reply is LATE and isinstance(command, Call):
                    must(who == "late", f"{command.script.name} of {who} is said to be late")
                    self.judge.overtaken(command)
                    self._compare(command, reply)
                    continue
                self._carried_out(command, reply, who)
                if place >= 0:
                    replies[place] = reply
                elif reply is not None:
                    self.mark("woken by a token")
                    listener = self.decisions.pick(listeners)
                    listener.listens, listener.ready_at = False, self.time_us
            if unknown:
                # As the shells do: what the server does not know is loaded and sent again, after all else.
                self.mark("script loaded again")
                self.backend.load([command.script for _, command in unknown if isinstance(command, Call)])
            todo = unknown
        return replies

    def _stamped(self, command: Command) -> Command:
        self.time_us += 7
        return command._replace(args=(self.server_us, *command.args[1:])) if isinstance(command, Call) else command

    def _carried_out(self, command: Command, reply: Any, who: str) -> None:
        self.log.append(Entry(command, reply))
        if self.lines is not None and (reply is not None or command[0] != "LPOP"):
            self.say(who, _told(command, reply))
        if isinstance(command, Call):
            self._look(command, reply)
        else:
            self.judge.command(command)
        self._compare(command, reply)

    def _compare(self, command: Command, reply: Any) -> None:
        if self.mirror is None or self.backend is self.mirror:
            return
        if isinstance(command, Call):
            expected = self.mirror.call(command)
            must(same(reply, expected), f"{command.script.name} answered {reply}, the model {expected}")
        elif command[0] in ("HSET", "HDEL", "SET"):
            self.mirror.command(command)

    def _look(self, call: Call, reply: Any) -> None:
        name, answer = call.script.name, word(reply)
        if answer in ("moved", "grace", "doubt", "flushed", "stale", "started"):
            self.mark(f"{answer} answer to {name}")
        elif name == "step_down":
            self.mark("stepped down")
        if name == "claim" and answer in ("ok", "empty") and reply[4] not in (b"none", "none"):
            self.mark(f"role {reply[4].decode() if isinstance(reply[4], bytes) else reply[4]}")
        reaped = []
        if name == "reap":
            reaped = [job["id"] for job in call.trace(reply).jobs]
        told = call.trace(reply)
        if name == "repair":
            if placed(self.judge.lives, told, clock_us(reply)):
                self.mark("taken back from aside")
            return
        touched(self.judge.lives, name, told, clock_us(reply))
        held = [(i, self.judge.lives[i].token) for i in reaped if i in self.judge.lives]
        self.judge.call(call, reply)
        for pair in held:
            for process in {id(a.process): a.process for a in self.actors}.values():
                if (
                    pair in process.took
                    and pair not in process.stale
                    and not (process.troubled or process.paused_until > self.time_us)
                ):
                    raise Violation(f"I26: {pair[0]} was reaped while {process.name} lives and beats")

    def cut(self, count: int) -> None:
        """The server lost power: the last `count` executions are gone, whole, and it is back."""
        last = clock_floor(self.log)
        if self.server_us <= last or self.judge.floor >= self.server_us:
            # Its clock stands behind what it said before: a token could come again. That is not promised.
            return
        kept, lost, self.lost_us = self.log[:-count], self.log[-count:], self.server_us
        self.mark("cut")
        self.say("server", f"restarts without {_names([entry.command for entry in lost])}")
        for entry in lost:
            if isinstance(entry.command, Call) and entry.command.script.name == "enqueue":
                self.cut_away |= {job["id"] for job in entry.command.trace(entry.reply).jobs}
        self.backend.reset()
        if self.mirror is not None:
            self.mirror.reset()
        highest, promised = self.judge.tokens, self.judge.promised
        self.judge = Judge(self.mark)
        self.judge.promised = promised
        for start in range(0, len(kept), 100):
            part = kept[start : start + 100]
            replies = self.backend.run([entry.command for entry in part])
            for entry, reply in zip(part, replies, strict=True):
                must(
                    str(reply) == str(entry.reply), f"played again, {entry.command} answers {reply}, not {entry.reply}"
                )
                if isinstance(entry.command, Call):
                    self.judge.call(entry.command, reply)
                else:
                    self.judge.command(entry.command)
                self._compare(entry.command, reply)
        self.log = kept
        for job_id, token in highest.items():
            self.judge.tokens[job_id] = max(token, self.judge.tokens.get(job_id, 0))
        for process in {id(a.process): a.process for a in self.actors}.values():
            process.troubled = True
            # What it had told the outcome of may be held by it again, for all the server knows.
            process.took &= set(process.held)

    def flush(self) -> None:
        """A person empties the database: what was in it is gone, and must not come back."""
        self.say("person", "FLUSHALL")
        self.mark("flush")
        self.cut_away |= set(self.judge.lives)
        self.backend.run([("FLUSHALL",)])
        self.judge = Judge(self.mark)

    def look(self) -> None:
        """A snapshot: places, index, dedup keys, undeclared keys, and the states that the answers told."""
        fires = {life.fire for life in self.judge.lives.values() if life.state == "s"}
        held = self.backend.keyspace(PREFIX, [f"wheel:{day_of(fire)}" for fire in sorted(fires)])
        must(not held.pop("?", None), "I20: a key of no shard")
        damaged = {job_id for job_id, life in self.judge.lives.items() if life.damaged}
        if damaged:
            return self._look_at_damage(held, damaged)
        unknown = [
            n
            for n in held
            if not n.startswith(("wheel:", "offered:", "call:")) and not hasattr(KEYS, n.replace(":", "_"))
        ]
        must(not unknown, f"I20: the keys {unknown} are not declared")
        jobs = read(held)
        told = {job_id: life.state for job_id, life in self.judge.lives.items() if life.state != "g"}
        stored = {job_id: raw[1:2].decode() for job_id, raw in held.get("jobs", {}).items()}
        must(
            stored == told, f"I1: Redis holds {_difference(stored, told)}, the answers said {_difference(told, stored)}"
        )
        check_places(held, jobs)
        check_bodies(held, jobs)
        check_dedup(held, jobs)
        if self.mirror is not None:
            differs = self.mirror.differs(held)
            must(differs is None, f"{differs}")
        return None

    def _look_at_damage(self, held: Any, damaged: set[str]) -> None:
        """I19: what cannot be read stands in the dead set, what has no record is counted; nothing stays in the way."""
        on_wheel = {i for n, jobs in held.items() if n.startswith("wheel:") or n == "processing" for i in jobs}
        if not damaged & on_wheel:
            jobs = held.get("jobs", {})
            for job_id in damaged:
                if job_id in jobs and jobs[job_id][:1] == b"3":
                    must(job_id in held.get("dead", {}), f"I19: unreadable {job_id} is in no place")
                    self.mark("unreadable set aside")
                elif job_id not in jobs and int(held.get("meta", {}).get("orphans", 0)):
                    self.mark("orphan counted")


def clock_floor(log: Sequence[Entry]) -> int:
    """The latest time that a server gave to a script."""
    return max((clock_us(entry.reply) for entry in log if isinstance(entry.command, Call)), default=0)


def _difference(first: dict[str, str], second: dict[str, str]) -> dict[str, str]:
    return {job_id: state for job_id, state in first.items() if second.get(job_id) != state}


def _names(commands: Sequence[Command]) -> str:
    return " + ".join(c.script.name if isinstance(c, Call) else str(c[0]) for c in commands) or "nothing"


def _told(command: Command, reply: Any) -> str:
    if isinstance(command, Call):
        return f"{_call_text(command)} -> {_reply_text(command, reply)}"
    return f"{' '.join(map(str, command))[:80]} -> {str(reply)[:60]}"


def _call_text(call: Call) -> str:
    told = call.trace(None)
    jobs = " ".join(
        job["id"] + "".join(f" {k}={job[k]}" for k in ("at", "delay", "token", "digest", "window", "keep") if k in job)
        for job in told.jobs
    )
    facts = " ".join(f"{k}={v}" for k, v in told.args.items())
    return " ".join(part for part in (call.script.name, facts, jobs) if part)


def _reply_text(call: Call, reply: Any) -> str:
    told = call.trace(reply)
    jobs = " ".join(job["id"] + "".join(f" {job[k]}" for k in ("letter", "token") if k in job) for job in told.jobs)
    clock = f"clock {(clock_us(reply) - MIDNIGHT_US) / 1e6:.6f}"
    extra = f"count={told.args['count']}" if "count" in told.args else ""
    return " ".join(part for part in (told.word, clock, extra, jobs) if part)
