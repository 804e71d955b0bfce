"""Drives the model and a server side by side, at times that are given, and compares everything they hold after each step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.lua.shard import DIGEST, DIGEST2, KEYS, Shard, digits16
from zwheel import calls
from zwheel.calls import Call, Ending, Lane, NewJob, Reply
from zwheel.calls.claim import ROLE_MS
from zwheel.job import JobId, QueueName
from zwheel.record import record_tail
from zwheel.times import day_of

from .entries import LARGE, SMALL, Held, Sent, Wanted, reach, state_of
from .invariants import History, check_bodies, check_dedup, check_places, check_step, read
from .model import Model
from .stored import jobs_of, keyspace_of
from .strategies import (
    BEGIN_US,
    DEAD_AGE,
    LEASE,
    MOST_DEAD,
    WHY,
    WORKERS,
    Fate,
    due,
    endings,
    hows,
    id_lists,
    ids,
    jumps,
    lanes,
    offs,
    picks,
    travels,
    wanted,
    whens,
    workers,
)
from .waiting import Waiting

GROUP = "0123456789abcdef"


class QueueMachine(RuleBasedStateMachine):
    """Every transition, workers that die or come late, repeats, and a clock that jumps both ways."""

    shard: Shard

    def __init__(self) -> None:
        super().__init__()
        self.shard.client.flushall()
        self.model = Model()
        self.history = History()
        self.given = BEGIN_US
        #: What workers hold as far as they know, and every claim there ever was.
        self.live: list[Held] = []
        self.ever: list[Held] = []
        self.sent: dict[int, Sent] = {}
        self.requests = 0
        self.before: dict[str, Any] = {}
        self.allowed = {"redriven": False, "deletes": False, "adds": False}
        #: The ids of this step's new jobs to which an ended one gave way, and what was asked for.
        self.replaced: dict[str, bool | None] = {}

    @initialize(cap=st.sampled_from((None, None, 3)))
    def begin(self, cap: int | None) -> None:
        self.model.cap = cap
        if cap is not None:
            self.shard.put({"meta": {"cap": str(cap)}})

    @property
    def now(self) -> str:
        return str(self.given)

    @property
    def now_ms(self) -> int:
        """What a client with a perfect clock would estimate: the ms that a delay of nothing falls into."""
        return -(-self.given // 1000)

    def may(self, **allowed: bool) -> None:
        """Say what this step may do to the set of jobs."""
        self.allowed |= allowed

    def lane(self, number: int) -> Lane:
        self.requests += 1
        return Lane("model", number, str(self.requests))

    def run(self, call: Call, lane: int | None = None) -> Reply:
        reply = self.shard.run(call)
        if lane is not None:
            self.sent.pop(lane, None)
            if call.script.name != "claim" or reply[0] == b"ok":
                self.sent[lane] = Sent(call, reply[8:] if call.script.name == "claim" else [reply[0], *reply[2:]])
        return reply

    def pick(self, chosen: Sequence[tuple[str, int]]) -> list[Held]:
        """Claims to act on: live ones, ones whose job another token holds by now, and any; each job once."""
        stale = [
            held
            for held in self.ever
            if self.model.leases.get(held.id) and self.model.jobs[held.id].token != held.token
        ]
        pools = {"live": self.live, "stale": stale, "any": self.ever}
        found: dict[str, Held] = {}
        for kind, number in chosen:
            pool = pools[kind] or self.ever
            if pool:
                held = pool[number % len(pool)]
                found.setdefault(held.id, held)
        return list(found.values())

    def forget(self, claims: Sequence[Held]) -> None:
        self.live = [held for held in self.live if held not in claims]

    def someone_wakes(self, fire: int) -> None:
        """A job that comes on the wheel finds a timekeeper who wakes for it in time, or a token that wakes a worker."""
        covered = Waiting.read(self.shard).covers(fire, self.given // 1000)
        assert covered, "nobody wakes for a new job"

    @rule(batch=st.lists(wanted, min_size=1, max_size=4), lane=lanes)
    def enqueue(self, batch: list[tuple[Any, ...]], lane: int) -> None:
        self.may(adds=True)
        wants = [
            Wanted(
                id=i, at=None if offset is None else self.now_ms + offset, delay=delay if offset is None else 0,
                digest=digest, window=window if digest else None, keep=keep, most=most, replace=replace,
                large=large,
            )
            for i, offset, delay, digest, window, keep, most, replace, large in batch
        ]  # fmt: skip
        jobs = [
            NewJob(
                job_id=JobId(w.id), queue=QueueName("q"), at_ms=w.at, delay_ms=w.delay, dedup=w.digest,
                window_ms=w.window, body=LARGE if w.large else SMALL, replace=w.replace,
                tail=record_tail("mail.send", max_attempts=w.most, keep_ms=w.keep, dedup=w.digest or None),
            )
            for w in wants
        ]  # fmt: skip
        sent = calls.enqueue(KEYS, jobs, now_ms=self.now_ms, lane=self.lane(lane), now=self.now)
        reply = self.run(sent.call, lane)
        expected = self.model.enqueue(self.given, wants)
        if expected is None:
            assert reply[0] == b"full"
            return
        assert reply[0] == b"ok"
        answers = calls.read_enqueue(sent, reply)
        assert answers is not None
        for index, (answer, want) in enumerate(zip(answers, expected, strict=True)):
            assert reply[2][index : index + 1].decode() == want.letter
            assert (answer.job_id, answer.existed, answer.fire_at_ms) == (want.id, want.letter not in "cr", want.fire)
            assert (answer.state, answer.replaced) == (state_of(want.state), want.letter == "r")
            if want.letter == "r":
                self.replaced[want.id] = wants[index].replace
            if want.letter in "cr":
                self.history.enqueued(want.id)
                self.someone_wakes(want.fire)

    @rule(
        worker=workers, limit=st.integers(1, 4), lane=lanes, woken=st.booleans(), knows=st.booleans(),
        ahead=st.sampled_from((0, 5, 50)), role_ms=st.sampled_from((ROLE_MS, ROLE_MS, 0)),
    )  # fmt: skip
    def claim(
        self,
        worker: str,
        limit: int,
        lane: int,
        woken: bool,
        knows: bool = False,
        ahead: int = 0,
        role_ms: int = ROLE_MS,
    ) -> None:
        """A worker with room claims. woken: it took a token; ahead: ms for which it can hold jobs; role_ms: 0: it wants no role."""
        self.may()
        if woken:
            self.shard.client.lpop(KEYS.wake)
        day = self.model.first_day() or "20300318"
        call = calls.claim(
            KEYS, day=day, worker=worker, lease_ms=LEASE, limit=limit, lane=self.lane(lane), now=self.now,
            group=GROUP if knows else "none", ahead_ms=ahead, role_ms=role_ms,
        )  # fmt: skip
        waiting = Waiting.read(self.shard)
        claimed = calls.read_claim(self.run(call, lane))
        expected = self.model.claim(
            self.given, worker=worker, lease=LEASE, limit=limit, knows=knows, reach=claimed.ahead_ms
        )
        assert claimed.ahead_ms == reach(ahead, precise=self.model.precise)
        assert claimed.word == ("ok" if expected else "empty")
        names = [raw.decode() for raw in claimed.jobs[::2]]
        assert names == expected
        assert claimed.jobs[1::2] == [self.model.jobs[job_id].given() for job_id in names]
        assert (claimed.now_us, claimed.jumps) == (self.given, self.model.jumps)
        assert claimed.day == self.model.first_day()
        self.remember(claimed.jobs, claimed.now_us // 1000, claimed.ahead_ms)
        after = waiting.claimed(
            worker, full=len(expected) == limit, head=claimed.next_fire_ms, more=bool(claimed.day),
            now_ms=claimed.now_us // 1000, role_ms=role_ms, reach=claimed.ahead_ms,
        )  # fmt: skip
        assert (Waiting.read(self.shard), claimed.role) == after

    def remember(self, pairs: list[bytes], now_ms: int, ahead: int) -> None:
        """Note the claims that a worker was given."""
        records = dict(zip((i.decode() for i in pairs[::2]), pairs[1::2], strict=True))
        for job_id, job in read({"jobs": records}).items():
            assert job.worker is not None
            self.history.claimed(job, now_ms, LEASE, ahead)
            held = Held(job_id, job.token, job.attempt, job.max_attempts, job.worker)
            self.live.append(held)
            self.ever.append(held)

    def end(self, ends: Sequence[tuple[Held, Ending | None]], lane: int) -> None:
        """Settle claims, those without an ending well. As a worker does, a job is not retried after its last attempt."""
        ends = [(h, e) for h, e in ends if e is None or e.letter != "r" or h.attempt < h.most]
        if not ends:
            return
        self.may(deletes=True)
        claims = [h for h, e in ends if e is None] + [h for h, e in ends if e is not None]
        others = [e for _, e in ends if e is not None]
        done = [(held.id, held.token) for held in claims[: len(claims) - len(others)]]
        call = calls.settle(
            KEYS, [(job_id, digits16(token)) for job_id, token in done], others, most_dead=MOST_DEAD, now_ms=self.now_ms,
            lane=self.lane(lane), now=self.now,
        )  # fmt: skip
        letters = calls.read_letters(self.run(call, lane))
        assert letters == self.model.settle(self.given, done, others, most_dead=MOST_DEAD)
        asked = "d" * len(done) + "".join(one.letter for one in others)
        for held, letter, good in zip(claims, letters, asked, strict=True):
            if letter in (good, "c"):
                self.history.accepted(held.id, held.token, back=letter in "rb")
            if letter == good and letter in "rb":
                self.someone_wakes(self.model.jobs[held.id].fire)
        self.forget(claims)

    def ending_of(self, held: Held, how: str, when: tuple[int | None, int], failed: bool) -> Ending | None:
        """What becomes of a claim. how: a letter; d ends well."""
        offset, delay = when
        if how == "d":
            return None
        failures = WHY if how == "x" else WHY * 2 if failed else b""
        at = None if offset is None or how in "xc" else self.now_ms + offset
        return Ending(held.id, digits16(held.token), how, failures, at, 0 if how in "xc" else delay)

    @rule(chosen=picks, hows=st.lists(st.sampled_from("dxrbc"), min_size=4, max_size=4), when=whens, lane=lanes)
    def end_in_many_ways(
        self, chosen: list[tuple[str, int]], hows: list[str], when: tuple[int | None, int], lane: int
    ) -> None:
        """One batch in which each job ends in its own way."""
        if self.ever:
            claims = self.pick(chosen)
            ends = [(held, self.ending_of(held, hows[i % 4], when, lane % 2 == 0)) for i, held in enumerate(claims)]
            self.end(ends, lane)

    def extend(self, chosen: list[tuple[str, int]], lease: int = LEASE) -> None:
        self.may()
        claims = self.pick(chosen)
        pairs = [(held.id, digits16(held.token)) for held in claims]
        call = calls.extend(KEYS, pairs, lease_ms=lease, now=self.now)
        letters = calls.read_letters(self.run(call))
        expected = self.model.extend(self.given, [(held.id, held.token) for held in claims], lease=lease)
        assert letters == expected
        for held, letter in zip(claims, expected, strict=True):
            if letter == "k":
                self.history.extended(held.id, held.token, self.model.leases[held.id])
            else:
                self.forget([held])

    def reap(self, limit: int, off_us: int | None = None, jumped: int = 0, unheard: int | None = None) -> None:
        """off_us: by how much the clock is not what the caller expects. jumped: how far it saw the clock jump, ms.
        unheard: how many jumps were counted before this call that the caller does not know of; None: it knows of none."""
        self.may(deletes=True)
        expected = None if off_us is None else self.given - off_us
        jumps = None if unheard is None else self.model.jumps - unheard
        call = calls.reap(
            KEYS, limit=limit, lease_ms=LEASE, most_dead=MOST_DEAD, now_ms=self.now_ms, expected_us=expected,
            jumped_ms=jumped, jumps=jumps, now=self.now,
        )  # fmt: skip
        reaped = calls.read_reap(self.run(call))
        assert reaped is not None
        told = self.model.reap(
            self.given, lease=LEASE, limit=limit, most_dead=MOST_DEAD, expected=expected, jumped=jumped, jumps=jumps
        )
        assert (reaped.grace_ms, reaped.back, reaped.dead) == (told.grace, list(told.back), list(told.dead))
        assert reaped.cancelled == list(told.cancelled)
        assert (reaped.shortened, reaped.doubted, reaped.jumps) == (told.shortened, told.doubted, told.jumps)
        if reaped.shortened:
            self.history.shortened(reaped.now_us // 1000, self.model.lease)
        for job_id in reaped.back + reaped.dead + reaped.cancelled:
            self.history.reaped(job_id, reaped.now_us // 1000, back=job_id in reaped.back)
        if reaped.back:
            self.someone_wakes(-(-reaped.now_us // 1000))

    def cancel(self, names: list[str], other_day: bool, lane: int) -> None:
        self.may()
        names = list(dict.fromkeys(names))
        job = self.model.jobs.get(names[0])
        day = day_of(job.fire) if job and not other_day else day_of(self.now_ms)
        call = calls.cancel(KEYS, names, day=day, lane=self.lane(lane), now=self.now)
        letters = calls.read_letters(self.run(call, lane))
        assert letters == self.model.cancel(self.given, names, day=day)
        for job_id, letter in zip(names, letters, strict=True):
            self.history.cancel(job_id, letter)

    def reschedule(self, name: str, offset: int | None, delay: int, other_day: bool, lane: int) -> None:
        self.may()
        at = None if offset is None else self.now_ms + offset
        job = self.model.jobs.get(name)
        day = day_of(job.fire) if job and not other_day else day_of(self.now_ms)
        call = calls.reschedule(
            KEYS, name, day=day, at_ms=at, delay_ms=delay, now_ms=self.now_ms, lane=self.lane(lane), now=self.now
        )
        letter = calls.read_reschedule(self.run(call, lane))
        assert letter == self.model.reschedule(self.given, name, day=day, at=at, delay=delay)
        if letter == "s":
            self.someone_wakes(self.model.jobs[name].fire)

    def redrive(self, names: list[str], lane: int) -> None:
        self.may(redriven=True)
        call = calls.redrive(KEYS, names, now_ms=self.now_ms, lane=self.lane(lane), now=self.now)
        letters = calls.read_letters(self.run(call, lane))
        assert letters == self.model.redrive(self.given, names)
        for job_id, letter in zip(names, letters, strict=True):
            if letter == "r":
                self.history.lives[job_id].causes += 1
                self.someone_wakes(self.model.jobs[job_id].fire)

    def purge(self, place: str, names: list[str] | None) -> None:
        self.may(deletes=True)
        day = self.model.first_day() if place == "wheel" else ""
        if place == "wheel" and not day:
            return
        zset = KEYS.wheel(day) if day else str(getattr(KEYS, place))
        there = {
            "wheel": [job_id for fire, job_id in self.model.scheduled() if day_of(fire) == day],
            "dead": list(self.model.died),
            "done": list(self.model.kept_until),
        }[place]
        call = calls.purge(KEYS, zset, day=day, ids=names or (), now=self.now)
        gone = [job_id for job_id in there if names is None or job_id in names]
        assert calls.read_count(self.run(call)) == len(gone)
        self.model.purge(self.given, gone)

    def prune(self) -> None:
        self.may(deletes=True)
        call = calls.prune(KEYS, limit=1000, dead_age_ms=DEAD_AGE, now=self.now)
        assert calls.read_count(self.run(call)) == self.model.prune(self.given, dead_age=DEAD_AGE)

    @rule(precise=st.booleans())
    def become_precise(self, precise: bool) -> None:
        """A person wants the jobs of this queue to start at their very time, or no longer."""
        self.may()
        self.model.precise = precise
        self.shard.client.hset(KEYS.meta, "precise", "1") if precise else self.shard.client.hdel(KEYS.meta, "precise")

    @rule(by_us=travels)
    def travel(self, by_us: int) -> None:
        """The server's clock moves on, or is set back."""
        self.may()
        self.given = max(BEGIN_US - 10_000_000, self.given + by_us)

    def live_until(self, until_us: int) -> None:
        """Time goes by, with or without a worker."""
        self.given = max(self.given, until_us)

    @rule(number=st.integers(0, 9), early_us=st.sampled_from((0, 1, 1_000)))
    def travel_to_what_comes_next(self, number: int, early_us: int) -> None:
        """To the very moment at which a job is due, or a lease, a window or a tombstone ends, or just before it."""
        self.may()
        moments = [fire for fire, _ in self.model.scheduled()]
        for place in (self.model.leases, self.model.windows, self.model.kept_until):
            moments += place.values()
        ahead = sorted(moment for moment in moments if moment * 1000 > self.given)
        if ahead:
            self.given = ahead[number % len(ahead)] * 1000 - early_us

    def crash(self, worker: str) -> None:
        """A worker dies: nobody acts on its claims, but for an old message of it that is still under way."""
        self.live = [held for held in self.live if held.worker != worker]

    @precondition(lambda self: self.sent)
    @rule(lane=lanes)
    def repeat(self, lane: int) -> None:
        """The answer to the last request of a lane was lost: sent again, it is given again and changes nothing."""
        self.may()
        call, payload = self.sent[sorted(self.sent)[lane % len(self.sent)]]
        reply = self.shard.run(call._replace(args=(self.now, *call.args[1:])))
        if call.script.name != "claim":
            assert [reply[0], *reply[2:]][: len(payload)] == payload
            return
        assert reply[0] == b"ok"
        claimed = read({"jobs": dict(zip((i.decode() for i in payload[::2]), payload[1::2], strict=True))})
        first = min(job.token for job in claimed.values())
        worker = next(iter(claimed.values())).worker
        still = [
            [job_id.encode(), job.given()]
            for job_id in claimed
            if (job := self.model.jobs.get(job_id)) and job.state == "p" and job.token >= first and job.worker == worker
        ]
        assert reply[8:] == [element for pair in still for element in pair]

    @rule(batch=st.lists(due, min_size=1, max_size=4), endings=endings, worker=workers, lane=lanes)
    def work_comes(self, batch: list[tuple[Any, ...]], endings: list[Fate], worker: str, lane: int) -> None:
        """Jobs that are due at once, a worker that takes them, and what becomes of some; back ones are taken again."""
        self.enqueue(batch, lane)
        self.claim(worker, 4, lane, True)
        for chosen, how, when, again in endings:
            self.settle(chosen, how, when, lane)
            if again:
                self.claim(WORKERS[0], 2, 0, False)

    @rule(chosen=picks, how=hows, when=whens, lane=lanes, lost=st.booleans())
    def ending(
        self, chosen: list[tuple[str, int]], how: str, when: tuple[int | None, int], lane: int, lost: bool
    ) -> None:
        """A worker ends what it holds, or held; the answer may be lost."""
        self.settle(chosen, how, when, lane)
        if lost and self.sent:
            self.repeat(lane)

    def settle(self, chosen: list[tuple[str, int]], how: str, when: tuple[int | None, int], lane: int) -> None:
        if not self.ever:
            return
        if how.startswith("extend"):
            self.extend(chosen, LEASE if how == "extend" else 3 * LEASE)
        else:
            self.end([(held, self.ending_of(held, how, when, lane % 2 == 0)) for held in self.pick(chosen)], lane)

    @rule(
        late=workers, limit=st.sampled_from((1, 100)), early_us=st.sampled_from((-LEASE * 1000, 0, 1, 1_000)),
        off_us=offs, jumped=jumps, unheard=st.sampled_from((None, 0, 0, 1)),
    )  # fmt: skip
    def a_lease_ends(
        self, late: str, limit: int, early_us: int, off_us: int | None, jumped: int, unheard: int | None
    ) -> None:
        """A worker dies, and another one reaps: just before the first lease ends, just then, or a lease later."""
        self.crash(late)
        if self.model.leases:
            self.live_until(min(self.model.leases.values()) * 1000 - early_us)
        self.reap(limit, off_us, jumped, unheard)

    @rule(
        names=id_lists,
        when=whens,
        other_day=st.booleans(),
        how=st.sampled_from(("cancel", "cancel running", "reschedule", "redrive")),
    )
    def operate(self, names: list[str], when: tuple[int | None, int], other_day: bool, how: str) -> None:
        """A person changes their mind; mostly about a job to which this can be done."""
        others = {"redrive": self.model.died, "cancel running": self.model.leases}
        suited = list(others.get(how, [job_id for _, job_id in self.model.scheduled()]))
        names = list(dict.fromkeys([*suited[: len(names)], *names[:1]]))
        if how.startswith("cancel"):
            self.cancel(names, other_day, 0)
        elif how == "reschedule":
            self.reschedule(names[0], *when, other_day, 0)
        else:
            self.redrive([*names, names[0]], 0)

    @rule(how=st.sampled_from(("prune", "reap", "wheel", "dead", "done")), names=st.one_of(st.none(), id_lists))
    def clean_up(self, how: str, names: list[str] | None) -> None:
        """What the reaper does now and then, and what a person may."""
        if how == "prune":
            self.prune()
        elif how == "reap":
            self.reap(100)
        else:
            self.purge(how, names)

    @rule(name=ids, digest=st.sampled_from((DIGEST, DIGEST2)), lane=lanes)
    def a_window_ends_before_its_job(self, name: str, digest: str, lane: int) -> None:
        """The key stays with the job, and what is past its time is deleted."""
        self.enqueue([(name, None, LEASE, digest, 1, 0, 3, False, True)], lane)
        self.live_until(self.given + 2_000)
        self.prune()

    @rule()
    def the_server_starts_again(self) -> None:
        """Another process of it with the same data: the next reap gives one lease of grace."""
        self.may()
        self.shard.client.hset(KEYS.meta, "server", "f00d")
        self.model.restarted = True

    @invariant()
    def both_hold_the_same(self) -> None:
        keyspace = self.shard.keyspace()
        assert jobs_of(keyspace) == keyspace_of(self.model)
        assert len(keyspace.get("wake", [])) <= 1
        assert keyspace.get(f"offered:{GROUP}", {}) == {note: told[2] for note, told in self.model.offers.items()}
        jobs = read(keyspace)
        check_places(keyspace, jobs)
        check_bodies(keyspace, jobs)
        check_dedup(keyspace, jobs)
        check_step(self.before, jobs, replaced=self.replaced, **self.allowed)
        self.before = jobs
        self.replaced = {}
        self.allowed = {"redriven": False, "deletes": False, "adds": False}
