"""A queue that is cut anew, again and again, while producers, workers and any number of movers go on.

What clients and movers do is run as it is (`zwheel.operations`), one command at a time, so that every other one may come
in between, each may die at any command, and copies of what was sent arrive late. Beside it stands a book of what the
scripts answered: the jobs of all shards together, and what is on its way, are what the book says.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import redis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.lua.shard import DIGEST, DIGEST2, Keyspace, Shard, digits16
from zwheel import calls
from zwheel.broker.store import Steps
from zwheel.calls import Call, Ending, NewJob, Session
from zwheel.calls.clock import ServerClock
from zwheel.errors import BrokerRefused, ZwheelError
from zwheel.job import JobId, JobState, QueueName
from zwheel.keys import ShardKeys, queues_key, shard_names
from zwheel.operations import cancel, enqueue_batch
from zwheel.operations.reshard import begin_reshard, how_far, move
from zwheel.operations.shards import read_count
from zwheel.outside import as_text
from zwheel.record import record_tail
from zwheel.times import day_of

from .entries import LARGE, SMALL
from .invariants import check_bodies, check_places, read
from .strategies import BEGIN_US, LEASE, WHY, WORKERS

QUEUE = QueueName("q")
#: Each id comes with one dedup key, or none: a job is looked for in the shard of its key, else in that of its id.
IDS = {"a": "", "b": "", "c": "", "d": DIGEST, "e": DIGEST, "f": DIGEST2, "g": DIGEST2}
COUNTS = (1, 2, 3)
ids = st.sampled_from(sorted(IDS))
#: More commands than any program sends until it ends or waits for another.
MANY = 400

Pending = Generator[Any, list[Any], Any]


class GivenClock(ServerClock):
    """A client that knows the server's time exactly."""

    def __init__(self, machine: CutsMachine) -> None:
        super().__init__()
        self._machine = machine

    def now_ms(self) -> int:
        return self._machine.given // 1000


@dataclass(slots=True)
class Program:
    """An operation in the middle: what it asks for, and the answers so far."""

    name: str
    session: Session
    steps: Pending
    asks: list[Any] = field(default_factory=list)
    replies: list[Any] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Booked:
    """A job as the answers tell it."""

    state: str
    fire: int
    digest: str
    keep: int
    token: int = 0
    asked: bool = False
    """Whether it was asked to cancel it while it ran."""


@dataclass(frozen=True, slots=True)
class Held:
    """A claim as its worker remembers it."""

    shard: str
    id: str
    token: int


class CutsMachine(RuleBasedStateMachine):
    """One queue, several producers that learned of it at different times, workers at every shard, and movers."""

    shard: Shard
    client: Any

    def __init__(self) -> None:
        super().__init__()
        self.client = self.shard.client
        self.client.flushall()
        # What a store would give: no answer of a command is made into something else.
        self.plain = redis.Redis(connection_pool=self.client.connection_pool)
        self.plain.response_callbacks.clear()
        self.given = BEGIN_US
        self.sessions = [self._session(f"producer{number}") for number in range(3)]
        self.programs: list[Program] = []
        self.book: dict[str, Booked] = {}
        self.held: list[Held] = []
        self.sent: list[Call] = []
        self.made = 0

    def _session(self, caller: str) -> Session:
        session = Session("zw", caller)
        session.clock = GivenClock(self)
        return session

    @initialize(count=st.sampled_from(COUNTS))
    def begin(self, count: int) -> None:
        self.client.hset(queues_key("zw"), "q", count)

    # What is sent.

    def run(self, command: Any) -> Any:
        """Carry out one command of a program; a script gets this moment's time, and its answer goes into the book."""
        if not isinstance(command, Call):
            if command[0] == "TIME":
                return [b"%d" % (self.given // 1_000_000), b"%d" % (self.given % 1_000_000)]
            return self.plain.execute_command(*command)
        self.given += 3
        call = command._replace(args=(str(self.given), *command.args[1:]))
        reply = self.shard.run(call)
        if call.script.name in ("depart", "arrive", "enqueue", "settle", "cancel"):
            self.sent.append(call)
        self.note(call, reply)
        return reply

    def note(self, call: Call, reply: Any) -> None:
        """Judge an answer, and keep it."""
        name, word = call.script.name, reply[0]
        if name == "enqueue" and word == b"ok" and len(reply) == 4:
            for job in call.trace(reply).jobs:
                self._enqueued(job)
        elif name == "cancel" and word == b"ok":
            for job in call.trace(reply).jobs:
                if job["letter"] == "c":
                    old = self.book[job["id"]]
                    assert old.state == "s", f"{job['id']} was cancelled and is {old}"
                    self.book[job["id"]] = replace(old, state="c")
                elif job["letter"] == "q":
                    self.book[job["id"]] = replace(self.book[job["id"]], asked=True)
        elif name == "arrive" and word == b"ok":
            assert b"i" not in reply[2], f"something was in both cuts: {call.trace(reply).jobs}"

    def _enqueued(self, job: Any) -> None:
        job_id, digest = job["id"], job.get("digest", "")
        old = self.book.get(job_id)
        holder = [other for other, one in self.book.items() if digest and one.digest == digest and one.state in "sp"]
        if job["letter"] == "i":
            assert old is not None, f"{job_id} exists for the script, and nobody stored it"
        elif job["letter"] == "k":
            assert holder, f"a key is held for {job_id}, by nobody"
        else:
            assert old is None or old.state in "dxc", f"{job_id} was stored twice"
            assert not holder, f"{job_id} was stored beside {holder}, which holds its key"
            self.book[job_id] = Booked("s", job["fire"], digest, job.get("keep", 0), old.token if old else 0)

    # Programs.

    def start(self, name: str, session: Session, steps: Steps[Any]) -> None:
        session.now = str(self.given)
        self.programs.append(Program(name, session, steps))
        self.step(self.programs[-1], 0)

    def step(self, program: Program, number: int) -> None:
        """Let a program carry out so many commands; 0: only begin."""
        program.session.now = str(self.given)
        try:
            if not program.asks:
                self._take(program, next(program.steps))
            while number > 0:
                number -= 1
                try:
                    program.replies.append(self.run(program.asks.pop(0)))
                except redis.ResponseError as error:
                    self._take(program, program.steps.throw(BrokerRefused(str(error))))
                    continue
                if not program.asks:
                    replies, program.replies = program.replies, []
                    self._take(program, program.steps.send(replies))
        except (StopIteration, ZwheelError):
            self.programs.remove(program)

    def _take(self, program: Program, ask: Any) -> None:
        while isinstance(ask, (int, float)):
            if ask >= 0.25:  # it waits for others: it comes back another time
                program.steps.close()
                raise StopIteration
            ask = program.steps.send([])
        program.asks, program.replies = list(ask), []

    def mover(self, session: Session) -> Steps[None]:
        for _ in range(3):
            if (yield from how_far(session, "q")).done:
                return
            yield from move(session, "q")

    @rule(
        who=st.integers(0, 2), wants=st.lists(
            st.tuples(ids, st.sampled_from((-5, 0, 700, 90_000_000))), min_size=1, max_size=2, unique_by=lambda want: want[0]
        ),
        keep=st.sampled_from((0, 60_000_000)), again=st.booleans(), large=st.booleans(), now=st.integers(0, 12),
    )  # fmt: skip
    def enqueue(self, who: int, wants: list[tuple[str, int]], keep: int, again: bool, large: bool, now: int) -> None:
        """A producer, which may have learned of the shards long ago, begins to store jobs."""
        batch = [
            NewJob(
                job_id=JobId(job_id), queue=QUEUE, at_ms=self.given // 1000 + offset, delay_ms=0, dedup=IDS[job_id],
                tail=record_tail("mail.send", max_attempts=3, keep_ms=keep, dedup=IDS[job_id] or None),
                body=LARGE if large else SMALL, replace=again,
            )
            for job_id, offset in wants
        ]  # fmt: skip
        session = self.sessions[who]
        self.start("enqueue", session, enqueue_batch(session, batch, {"q"}))
        self.step_last(now)

    @rule(who=st.integers(0, 2), job_id=ids, now=st.integers(0, 12))
    def cancel(self, who: int, job_id: str, now: int) -> None:
        self.start("cancel", self.sessions[who], cancel(self.sessions[who], job_id, "q"))
        self.step_last(now)

    @rule(count=st.sampled_from(COUNTS), now=st.integers(0, 40))
    def cut(self, count: int, now: int) -> None:
        """A person cuts the queue anew, or goes on where another died."""
        # One that was frozen in the middle while another cut came to its end is not played: it is no step of a script.
        if any(program.name in ("cut", "move") for program in self.programs) and self.former() is None:
            return
        self.made += 1
        session = self._session(f"person{self.made}")
        self.start("cut", session, begin_reshard(session, "q", count))
        self.step_last(now)

    @precondition(lambda self: self.former() is not None)
    @rule(now=st.integers(0, 40))
    def bring(self, now: int) -> None:
        """Somebody moves jobs; any number of them side by side."""
        self.made += 1
        session = self._session(f"mover{self.made}")
        self.start("move", session, self.mover(session))
        self.step_last(now)

    def step_last(self, number: int) -> None:
        if self.programs and number:
            self.step(self.programs[-1], number)

    @precondition(lambda self: self.programs)
    @rule(which=st.integers(0, 9), number=st.sampled_from((1, 1, 2, 3, 8, MANY)))
    def go_on(self, which: int, number: int) -> None:
        self.step(self.programs[which % len(self.programs)], number)

    @precondition(lambda self: self.programs)
    @rule(which=st.integers(0, 9))
    def die(self, which: int) -> None:
        self.programs.pop(which % len(self.programs)).steps.close()

    @precondition(lambda self: self.sent)
    @rule(which=st.integers(0, 30))
    def late(self, which: int) -> None:
        """A copy of something that was sent arrives, after whatever came since."""
        call = self.sent[-1 - which % len(self.sent)]
        with suppress(redis.ResponseError):  # a later request of its lane was carried out
            self.shard.run(call._replace(args=(str(self.given), *call.args[1:])))

    # Workers.

    def names(self) -> list[str]:
        """The shards of both cuts."""
        count, former = read_count(self.client.hget(queues_key("zw"), "q"))
        return [*(shard_names("q", former) if former else []), *shard_names("q", count)]

    def former(self) -> int | None:
        return read_count(self.client.hget(queues_key("zw"), "q"))[1]

    @rule(which=st.integers(0, 5), worker=st.sampled_from(WORKERS), limit=st.integers(1, 3))
    def claim(self, which: int, worker: str, limit: int) -> None:
        names = self.names()
        name = names[which % len(names)]
        keys = self.sessions[0].keys(name)
        first = self.client.zrange(keys.days, 0, 0)
        self.made += 1
        lane = calls.Lane("worker", 0, str(self.made))
        day = as_text(first[0]) if first else day_of(self.given // 1000)
        reply = self.run(
            calls.claim(
                keys,
                day=day,
                worker=worker,
                lease_ms=LEASE,
                limit=limit,
                lane=lane,
                epoch=self.client.hget(keys.meta, "epoch") or b"",
            )
        )
        jobs = calls.read_claim(reply).jobs
        found = read({"jobs": dict(zip(map(as_text, jobs[::2]), jobs[1::2], strict=True))})
        for job_id, job in found.items():
            booked = self.book.get(job_id)
            assert booked is not None and booked.state == "s", f"I2, I4: {job_id} was claimed, and is {booked}"
            assert job.fire_at_ms == booked.fire <= self.given // 1000, f"I3: {job_id} started early"
            assert job.token > booked.token, f"I6: {job_id} got the token {job.token} after {booked.token}"
            self.book[job_id] = replace(booked, state="p", token=job.token)
            self.held.append(Held(name, job_id, job.token))

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 9), how=st.sampled_from("ddxr"), delay=st.sampled_from((0, 700, 90_000_000)))
    def settle(self, which: int, how: str, delay: int) -> None:
        held = self.held.pop(which % len(self.held))
        self.made += 1
        at = self.given // 1000 + delay
        others = [] if how == "d" else [Ending(held.id, digits16(held.token), how, WHY, None if how == "x" else at, 0)]
        done = [(held.id, digits16(held.token))] if how == "d" else []
        keys, lane = self.sessions[0].keys(held.shard), calls.Lane("worker", 0, str(self.made))
        call = calls.settle(keys, done, others, most_dead=99, now_ms=self.given // 1000, lane=lane)
        letter = calls.read_letters(self.run(call))
        booked = self.book.get(held.id)
        if booked is None or (booked.state, booked.token) != ("p", held.token):
            assert letter in ("f", "m"), f"I5: {held.id} obeyed a token that is over"
            return
        if booked.asked and how != "d":
            how = "c"
        assert letter == how, f"{held.id} ended as {letter} where it runs"
        if how == "d" and not booked.keep:
            del self.book[held.id]
        else:
            state, fire = {"d": "d", "x": "x", "r": "s", "c": "c"}[how], at if how == "r" else booked.fire
            self.book[held.id] = replace(booked, state=state, fire=fire)

    @rule(ms=st.sampled_from((1, 700, LEASE, 86_400_000)))
    def travel(self, ms: int) -> None:
        """Time goes by, and leases that ended are taken back."""
        self.given += ms * 1000
        for name in self.names():
            call = calls.reap(
                self.sessions[0].keys(name), limit=99, lease_ms=LEASE, most_dead=99, now_ms=self.given // 1000
            )
            reaped = calls.read_reap(self.run(call))
            assert reaped is not None
            states = {"s": reaped.back, "x": reaped.dead, "c": reaped.cancelled}
            for state, job_id in ((state, job_id) for state, ids in states.items() for job_id in ids):
                assert (state == "c") == self.book[job_id].asked, f"I12: {job_id} was taken back as {state}"
                fire = -(-reaped.now_us // 1000) if state == "s" else self.book[job_id].fire
                self.book[job_id] = replace(self.book[job_id], state=state, fire=fire)

    # What must hold.

    def keyspaces(self) -> dict[str, Keyspace]:
        """What each shard holds, as the checks of one shard want it."""
        found: dict[str, Keyspace] = {}
        for raw in self.client.keys("{zw:q:*"):
            tag, _, name = raw.decode().partition("}:")
            kind, own = self.client.type(raw), found.setdefault(tag.rpartition(":")[2], {})
            if kind == b"hash":
                values = self.client.hgetall(raw)
                texts = name not in ("jobs", "bodies", "leaving")
                own[name] = {as_text(key): as_text(value) if texts else value for key, value in values.items()}
            elif kind == b"zset":
                own[name] = {
                    as_text(member): int(score) for member, score in self.client.zrange(raw, 0, -1, withscores=True)
                }
        return found

    @invariant()
    def all_is_where_it_belongs(self) -> None:
        shards = self.keyspaces()
        places: dict[str, list[tuple[str, str, int]]] = {}
        keys: dict[str, list[str]] = {}
        for label, keyspace in shards.items():
            jobs = read(keyspace)
            check_places(keyspace, jobs)
            check_bodies(keyspace, jobs)
            for job_id, job in jobs.items():
                letter = {JobState.DONE: "d", JobState.CANCELLED: "c", JobState.DEAD: "x", JobState.PROCESSING: "p"}
                places.setdefault(job_id, []).append((label, letter.get(job.state, "s"), job.fire_at_ms))
            for digest, owner in keyspace.get("dedup", {}).items():
                keys.setdefault(digest, []).append(owner)
            for name, value in self.on_its_way(label, keyspace, shards).items():
                if name[0] == "j":
                    places.setdefault(name[1:], []).append((f"leaving {label}", chr(value[17]), int(value[22:37])))
                else:
                    keys.setdefault(name[1:], []).append(as_text(value[15:]))
        wanted = {job_id: (one.state, one.fire) for job_id, one in self.book.items()}
        found = {job_id: [one[1:] for one in there] for job_id, there in places.items()}
        assert found == {job_id: [one] for job_id, one in wanted.items()}, f"I1, I9: {places}"
        held = {one.digest: [job_id] for job_id, one in self.book.items() if one.digest and one.state in "sp"}
        assert keys == held, "I11: each key has its living holder"

    def on_its_way(self, label: str, keyspace: Keyspace, shards: dict[str, Keyspace]) -> dict[str, bytes]:
        """What left a shard and has not arrived: jobs and dedup keys by their fields of `leaving`."""
        leaving: dict[str, bytes] = keyspace.get("leaving", {})
        count, _ = read_count(self.client.hget(queues_key("zw"), "q"))
        looking = Session("zw")
        looking.counts["q"] = count
        found = {}
        for name, value in leaving.items():
            if name[0] not in "jk":
                continue
            digest = name[1:] if name[0] == "k" else read({"jobs": {"x": value[16:]}})["x"].dedup or ""
            home = ShardKeys.of("zw", looking.shard_of("q", name[1:], digest)).label
            arrived = int(shards.get(home, {}).get("arrived", {}).get(label, 0))
            if arrived < int(leaving["#"]):
                found[name] = value
        return found

    def teardown(self) -> None:
        """Everybody ends what was begun, and the cut comes to its end: each job is in the shard of the new cut."""
        if sys.exc_info()[0] is not None:
            return  # It failed before.
        for program in list(self.programs):
            if program in self.programs:
                self.step(program, MANY)
        for program in self.programs:
            program.steps.close()
        self.programs.clear()
        for number in range(6):
            count, former = read_count(self.client.hget(queues_key("zw"), "q"))
            if former is None:
                break
            self.cut(count, MANY)
            self.travel(LEASE)
            self.bring(MANY)
            assert number < 5, "it never ends"
        self.all_is_where_it_belongs()
        looking = Session("zw")
        looking.counts["q"], former = read_count(self.client.hget(queues_key("zw"), "q"))
        assert former is None
        labels = {ShardKeys.of("zw", name).label for name in shard_names("q", looking.counts["q"])}
        for label, keyspace in self.keyspaces().items():
            assert label in labels or not keyspace.get("jobs"), "a job stayed in the former cut"
            for job_id, job in read(keyspace).items():
                home = looking.shard_of("q", job_id, job.dedup or "")
                assert ShardKeys.of("zw", home).label == label, f"{job_id} is in {label}, and is looked for in {home}"
