"""A short life of one queue by a seed: producers, workers that die or lose answers, operators; recorded, then checked.

It knows nothing of what is right: it only acts, as clients act, at times that it gives. Whether the promises held is
read off the history by the checker.
"""

from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.servers import RedisServer
from zwheel import calls
from zwheel.broker.store import Steps, SyncStore
from zwheel.calls import Call, Ending, Lane, NewJob, Session
from zwheel.calls.define import Late
from zwheel.client.backfill import backfill_jobs
from zwheel.client.declare import make_definition
from zwheel.current import NOMINAL_HEADER, SCHEDULE_HEADER
from zwheel.errors import BrokerUnavailable, OutcomeUnknown, ScheduleNotFound, ZwheelError
from zwheel.failpoints import FAILPOINTS
from zwheel.history import History, Recorder
from zwheel.job import JobId, QueueName
from zwheel.keys import queues_key
from zwheel.operations import schedules as ops
from zwheel.operations.late import give_back
from zwheel.operations.occurrence import advance_of
from zwheel.payload.codec import DEFAULT
from zwheel.record import record_tail, task_and_body
from zwheel.schedules.definition import Definition
from zwheel.schedules.plan import plan
from zwheel.schedules.state import Status, read_schedule
from zwheel.times import DAY_MS, day_of, to_datetime
from zwheel.verify import Bounds, Report, check, read, take_snapshot
from zwheel.workers.claims import Claim
from zwheel.workers.occurrences import latest_start_ms

#: Half a second before midnight: days change at once.
BEGIN_MS = (1_900_000_000_000 // DAY_MS + 1) * DAY_MS - 500
LEASE = 1_000
DIGESTS = ("a" * 32, "b" * 32)
WHY = b'{"at":1,"attempt":1,"reason":"error"}\n'
HOUR_MS = 3_600_000
#: No clock runs here between the calls, so that only the order of things is judged, not their pace.
BOUNDS = Bounds(reap_ms=DAY_MS * 100, idle_ms=DAY_MS * 100)


class Held(NamedTuple):
    """A claim as its worker remembers it."""

    id: str
    token: int
    fire: int
    worker: int
    last: bool
    """Whether no attempt is left after this one."""


class Life:
    """One queue, one producer, two workers."""

    def __init__(self, server: RedisServer, directory: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.history = History(directory)
        self.now_us = BEGIN_MS * 1000
        self.stores = [self._store(server.url, name) for name in ("producer", "w1111111", "w2222222")]
        self.keys = self.stores[0].session.keys("q")
        self.claims: list[Held] = []
        self.requests = 0
        self.shots = directory / "final.jsonl"
        self.stores[0].send([("HSETNX", queues_key("zw"), "q", 1)])

    def _store(self, url: str, caller: str) -> SyncStore:
        store = SyncStore(url, Session("zw", caller), timeout_s=5)
        store.recorder = Recorder(self.history, store.session)
        return store

    def close(self) -> None:
        for store in self.stores:
            store.close()
        self.history.close()

    @property
    def now(self) -> str:
        return str(self.now_us)

    @property
    def now_ms(self) -> int:
        return -(-self.now_us // 1000)

    def pass_ms(self, ms: float) -> None:
        self.now_us += int(ms * 1000)
        for store in self.stores:
            store.session.now = self.now

    def lane(self, name: str, caller: int) -> Lane:
        self.requests += 1
        return Lane(self.stores[caller].session.caller, name, str(self.requests))

    def send(self, call: Call, caller: int, *, may_lose: bool = True) -> Any:
        """Send it; now and then the answer is lost, and sometimes it is sent again, as a worker would."""
        store = self.stores[caller]
        lost = may_lose and self.random.random() < 0.12
        if lost:
            FAILPOINTS.arm(f"{call.script.name}.{self.random.choice(('before', 'after', 'after'))}", "lose")
        try:
            return store.send([self._stamped(call)])[0]
        except OutcomeUnknown:
            if self.random.random() < 0.3:
                return None
            return store.send([self._stamped(call)])[0]

    def _stamped(self, call: Call) -> Call:
        """The call at a time of its own: a script takes a few µs."""
        self.pass_ms(0.003)
        return call._replace(args=(self.now, *call.args[1:]))

    def enqueue(self) -> None:
        pick = self.random
        batch = []
        for _ in range(pick.randint(1, 4)):
            digest = pick.choice(("", "", *DIGESTS))
            delay = pick.choice((0, 0, 1, 300, LEASE, DAY_MS, 3 * DAY_MS))
            batch.append(
                NewJob(
                    job_id=JobId(f"j{pick.randrange(14)}"), queue=QueueName("q"),
                    at_ms=self.now_ms + delay if pick.random() < 0.3 else None, delay_ms=delay,
                    tail=record_tail("t", max_attempts=pick.randint(1, 3), keep_ms=pick.choice((0, 700)), dedup=digest or None),
                    body=b"\x01" * (1500 if self.requests % 2 else 1), dedup=digest, window_ms=pick.choice((None, 900, DAY_MS)) if digest else None,
                    replace=self.requests % 3 == 0,
                )
            )  # fmt: skip
        lane = self.lane("e", 0)
        sent = calls.enqueue(self.keys, batch, now_ms=self.now_ms, lane=lane, now=self.now)
        self.send(sent.call, 0)

    def claim(self) -> None:
        worker = self.random.randint(1, 2)
        day = self._first_day() if self.random.random() < 0.9 else day_of(self.now_ms)
        caller = self.stores[worker].session.caller
        call = calls.claim(
            self.keys, day=day, worker=caller, lease_ms=LEASE, limit=self.random.randint(1, 4),
            lane=self.lane("claim", worker), now=self.now,
        )  # fmt: skip
        reply = self.send(call, worker)
        if reply is None:
            return
        jobs = calls.read_claim(reply).jobs
        recorder = self.stores[worker].recorder
        assert recorder is not None
        for i in range(0, len(jobs), 2):
            raw = jobs[i + 1]
            last = int(raw[2:6]) >= int(raw[45:49])
            held = Held(jobs[i].decode(), int(raw[21:37]), int(raw[6:21]), worker, last)
            if self._goes_back(held, raw):
                continue
            self.claims.append(held)
            facts = {"job": held.id, "queue": "q", "token": held.token, "attempt": int(raw[2:6]), "fire": held.fire}
            recorder.observe("start", facts)

    def _goes_back(self, held: Held, raw: bytes) -> bool:
        """Give an occurrence that was claimed too late back to its schedule, as a worker does, or bury it."""
        claim = Claim(held.id.encode(), raw, QueueName("q"), 0)
        if "@" in held.id:
            _, _, claim.headers = DEFAULT.decode(task_and_body(raw)[1])
        by_ms = latest_start_ms(claim)
        if by_ms is None or self.now_ms <= by_ms:
            return False
        at_ms, late = int(claim.headers[NOMINAL_HEADER]), Late(held.id, f"{held.token:016d}", by_ms)
        found = self.drive(
            give_back(self.stores[held.worker].session, "q", claim.headers[SCHEDULE_HEADER], {at_ms: late})
        )
        if found is None or not found.schedule:
            self.claims.append(held)
        return True

    def _first_day(self) -> str:
        (days,) = self.stores[0].send([("ZRANGE", self.keys.days, 0, 0)])
        return days[0].decode() if days else day_of(self.now_ms)

    def _some_claims(self) -> tuple[int, list[Held]]:
        """Claims of one worker, mostly recent ones, now and then a stale one; each job once."""
        if not self.claims:
            return 1, []
        recent = self.claims[-6:] if self.random.random() < 0.7 else self.claims[-30:]
        worker = self.random.choice(recent).worker
        found = {held.id: held for held in self.random.sample(recent, len(recent)) if held.worker == worker}
        return worker, list(found.values())[: self.random.randint(1, 3)]

    def settle(self) -> None:
        worker, mine = self._some_claims()
        if not mine:
            return
        kinds = (
            self.random.choices("ddxrb", k=len(mine))
            if self.random.random() < 0.5
            else [self.random.choice("ddxrb")] * 3
        )
        done: list[tuple[str, bytes]] = []
        others: list[Ending] = []
        for held, kind in zip(mine, kinds, strict=False):
            token = b"%016d" % held.token
            if kind == "d":
                done.append((held.id, token))
            elif kind == "x" or (kind == "r" and held.last):
                others.append(Ending(held.id, token, "x", WHY))
            elif kind == "r":
                others.append(Ending(held.id, token, "r", WHY, None, self.random.choice((0, 5, 400, DAY_MS))))
            else:
                # An occurrence that has begun goes back to a time of its own: it is not late any more.
                others.append(Ending(held.id, token, "b", b"", held.fire - ("@" in held.id)))
        lane = self.lane("settle", worker)
        call = calls.settle(self.keys, done, others, most_dead=4, now_ms=self.now_ms, lane=lane, now=self.now)
        self.send(call, worker)

    def extend(self) -> None:
        worker, mine = self._some_claims()
        pairs = [(held.id, b"%016d" % held.token) for held in mine]
        self.send(calls.extend(self.keys, pairs, lease_ms=LEASE, now=self.now), worker)

    def reap(self) -> None:
        worker = self.random.randint(1, 2)
        call = calls.reap(self.keys, limit=50, lease_ms=LEASE, most_dead=4, now_ms=self.now_ms, now=self.now)
        self.send(call, worker)

    def _known(self) -> list[tuple[str, int]]:
        """The jobs that are stored, with their fire times."""
        (reply,) = self.stores[0].send([("HGETALL", self.keys.jobs)])
        pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)
        return sorted((name.decode(), int(raw[6:21])) for name, raw in pairs)

    def cancel(self) -> None:
        known = self._known()
        if known:
            job, fire = self.random.choice(known)
            call = calls.cancel(self.keys, [job], day=day_of(fire), lane=self.lane("c", 0), now=self.now)
            self.send(call, 0)

    def reschedule(self) -> None:
        known = self._known()
        if known:
            job, fire = self.random.choice(known)
            call = calls.reschedule(
                self.keys, job, day=day_of(fire), at_ms=None, delay_ms=self.random.choice((1, 500, DAY_MS)),
                now_ms=self.now_ms, lane=self.lane("s", 0), now=self.now,
            )  # fmt: skip
            self.send(call, 0)

    def redrive(self) -> None:
        known = [job for job, _ in self._known()]
        if known:
            some = self.random.sample(known, min(3, len(known)))
            self.send(calls.redrive(self.keys, some, now_ms=self.now_ms, lane=self.lane("r", 0), now=self.now), 0)

    def purge(self) -> None:
        known = self._known()
        if known:
            job, fire = self.random.choice(known)
            day = day_of(fire)
            zset, day = self.random.choice(((self.keys.wheel(day), day), (self.keys.dead, ""), (self.keys.done, "")))
            self.send(calls.purge(self.keys, zset, day=day, ids=[job], now=self.now), 0)

    def prune(self) -> None:
        self.send(calls.prune(self.keys, limit=50, dead_age_ms=20 * LEASE, now=self.now), 1)

    def drive(self, steps: Steps[Any]) -> Any:
        """Carry an operation through at this life's time, losing answers now and then: then it gives None."""
        try:
            ask = next(steps)
            while True:
                assert not isinstance(ask, (int, float))
                replies = []
                for command in ask:
                    if command == ("TIME",):
                        replies.append([str(self.now_us // 1_000_000), str(self.now_us % 1_000_000)])
                    elif isinstance(command, Call):
                        reply = self.send(command, 0)
                        if reply is None:
                            return None
                        replies.append(reply)
                    else:
                        replies += self.stores[0].send([command])
                ask = steps.send(replies)
        except StopIteration as end:
            return end.value

    def _definition(self, name: str) -> Definition:
        return make_definition(
            {}, DEFAULT, name, self.random.choice(("* * * * * *", "*/2 * * * * *", "@every 1500ms")), "t",
            overlap=self.random.choice(("allow", "allow", "skip", "buffer_one")), queue="q", retries=2,
            misfire=self.random.choice(("skip", "fire_once", "fire_all")), misfire_limit=20,
            grace=self.random.choice((0, 1)), keep=7200, jitter=self.random.choice((0, 0, 3)),
        )  # fmt: skip

    def tend(self) -> None:
        """Write a schedule, or stop it, or let it go on, or delete it."""
        session, name = self.stores[0].session, self.random.choice(("s0", "s1"))
        acts = (
            ops.add_schedule(session, DEFAULT, self._definition(name), True),
            ops.add_schedule(session, DEFAULT, self._definition(name), True),
            ops.pause_schedule(session, DEFAULT, name, "q"),
            ops.resume_schedule(session, DEFAULT, name, "q", self.random.random() < 0.5),
            ops.remove_schedule(session, name, "q"),
        )  # fmt: skip
        with suppress(ScheduleNotFound):
            self.drive(self.random.choice(acts))

    def advance(self) -> None:
        """Advance every schedule, one of two workers after the other, both from what they read at the same time."""
        (entries,) = self.stores[1].send([("HGETALL", self.keys.schedules)])
        pairs = entries.items() if isinstance(entries, dict) else zip(entries[::2], entries[1::2], strict=True)
        infos = [read_schedule(raw) for _, raw in sorted(pairs)]
        batch = [
            advance_of(info, DEFAULT, plan(info.definition, info.state, self.now_ms))
            for info in infos
            if info.status is Status.ACTIVE or self.random.random() < 0.2
        ]
        for worker in (1, 2):
            if batch:
                self.send(calls.advance(self.keys, batch, now=self.now), worker)
            if self.random.random() < 0.5:
                break

    def backfill(self) -> None:
        """Run what a schedule had to run, and what it has to run in a moment, before it does."""
        (entries,) = self.stores[0].send([("HVALS", self.keys.schedules)])
        if entries:
            info = read_schedule(self.random.choice(sorted(entries)))
            start, end = (to_datetime(self.now_ms + ms) for ms in (-2_000, 1_500))
            jobs = backfill_jobs(info, DEFAULT, start, end)
            sent = calls.enqueue(self.keys, jobs, now_ms=self.now_ms, lane=self.lane("e", 0), now=self.now)
            self.send(sent.call, 0)

    def gap(self) -> None:
        """Redis answers nobody for five leases although a worker lives and tries; it starts again, and another reaps."""
        self.claim()
        worker, mine = self._some_claims()
        pairs = [(held.id, b"%016d" % held.token) for held in mine]
        for _ in range(20):
            self.pass_ms(LEASE / 4)
            call = calls.extend(self.keys, pairs, lease_ms=LEASE, now=self.now)
            with pytest.raises(BrokerUnavailable):
                self._nowhere(worker).send([call])
        self.pass_ms(10)
        self.stores[0].send([("HSET", self.keys.meta, "server", "the process before")])
        self._others_reap(worker, pairs)

    def jump(self) -> None:
        """The server's clock jumps ahead by an hour under a worker that lives; another one saw it, tells, and reaps."""
        self.claim()
        worker, mine = self._some_claims()
        pairs = [(held.id, b"%016d" % held.token) for held in mine]
        self.send(calls.extend(self.keys, pairs, lease_ms=LEASE, now=self.now), worker, may_lose=False)
        self.pass_ms(HOUR_MS)
        self._others_reap(worker, pairs, HOUR_MS)

    def _others_reap(self, worker: int, pairs: list[tuple[str, bytes]], jumped_ms: int = 0) -> None:
        call = calls.reap(
            self.keys, limit=50, lease_ms=LEASE, most_dead=4, now_ms=self.now_ms, jumped_ms=jumped_ms, now=self.now
        )
        self.send(call, 3 - worker, may_lose=False)
        call = calls.extend(self.keys, pairs, lease_ms=LEASE, now=self.now)
        self.send(call, worker, may_lose=False)

    def _nowhere(self, worker: int) -> SyncStore:
        """A store of the same worker that reaches nobody."""
        store = SyncStore("unix:///nowhere/r.sock", self.stores[worker].session)
        store.recorder = self.stores[worker].recorder
        return store

    def look(self) -> None:
        """Add the state as it is now to the history."""
        import json

        with self.shots.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in take_snapshot(self.stores[0], ["q"]))

    def live(self, steps: int) -> None:
        acts = {
            self.enqueue: 22, self.claim: 24, self.settle: 24, self.extend: 14, self.reap: 9, self.cancel: 4,
            self.reschedule: 3, self.redrive: 4, self.purge: 2, self.prune: 2, self.gap: 1, self.jump: 1,
            self.tend: 4, self.advance: 10, self.backfill: 1,
        }  # fmt: skip
        self.pass_ms(0)
        for number in range(steps):
            self.random.choices(list(acts), list(acts.values()))[0]()
            if self.random.random() < 0.7:
                self.pass_ms(self.random.choice((0.25, 1, 7, 120, 450, LEASE // 2 + 1)))
            if self.random.random() < 0.02:
                self.pass_ms(DAY_MS)
            if number % 12 == 11:
                self.look()
        self.look()


def play(server: RedisServer, directory: Path, *, seed: int = 1, steps: int = 240) -> Report:
    """Live through it on an empty server and have its history checked."""
    with server.client() as client:
        client.flushall()
    life = Life(server, directory, seed)
    try:
        life.live(steps)
    except ZwheelError as error:
        raise AssertionError(f"a client was refused: {error}") from error
    finally:
        life.close()
    return check(read([directory]), BOUNDS)
