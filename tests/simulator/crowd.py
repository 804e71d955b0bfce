"""A crowd that waits: ten thousand workers and a thousand shards, by the rules of who waits in which role, in virtual time.

`waiting.py` runs the real pollers and scripts, of a few workers. Here is only what decides who looks when: the roles of
`include/roles.lua`, the tokens of `include/wake.lua`, the rests of `workers/looks.py`. Workers always have room, and a
job ends at once: so a job that is late found nobody awake. That both agree is a test (`test_crowd.py`).

    python -m tests.simulator.crowd --workers 10000 --queues 50 --shards 1000
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from zwheel.calls.claim import LONGEST_ROLE_MS, ROLE_MS
from zwheel.workers import looks
from zwheel.workers.fleet import FEW, KEPT, LISTENERS, NEAREST, WATCHERS
from zwheel.workers.lookout import BEAT_S as LOOK_BEAT_S
from zwheel.workers.rounds import BEATS, TOGETHER_S
from zwheel.workers.settings import WorkerSettings

TRIP_S = 0.0004
#: A timekeeper that did not claim this long after its time has lost its role (`LATE` in `include/roles.lua`), seconds.
LATE_S = 0.03
BEAT_S = WorkerSettings().beat_ms / 1000
CONFIRM_S = min(BEAT_S, LONGEST_ROLE_MS / 2000)
ROLE_S = min(LONGEST_ROLE_MS, max(ROLE_MS, 2 * BEAT_S * 1000)) / 1000
#: How late a job may be before a look takes it for missed, seconds.
OVERDUE_S = looks._OVERDUE_S
DELAYS_S = (0.0, 0.0, 0.3, 2.0, 6.0, 30.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is simulated."""

    workers: int
    shards: int
    queues: int = 1
    """How many queues these shards belong to. A worker serves one of them."""
    waits: int
    """On how many shards a worker waits; on all of its queue where there are no more. Today's workers wait on all."""
    jobs_s: float
    """Jobs enqueued each second, over all shards."""
    spares: bool = False
    """Whether they spare, as a large fleet on a cluster does: few listen to a shard, and one sees to it."""
    seconds: float = 120.0
    kill_at_s: float = 60.0
    kill_part: float = 0.01
    seed: int = 1


@dataclass(slots=True)
class Shard:
    """Who waits for it in which role, and its jobs."""

    #: The living workers that wait for it.
    waiting: list[int] = field(default_factory=list)
    #: Those of them that come first for it in the ranking on which all agree.
    first: list[int] = field(default_factory=list)
    #: Who sees to it where a fleet spares.
    sees_to: int = -1
    keeper: int = -1
    keeper_at: float = 0.0
    keeper_end: float = 0.0
    second: int = -1
    second_end: float = 0.0
    #: The last rest of the timekeeper and of the second; one that ended earlier counts no more.
    rest: dict[str, int] = field(default_factory=dict)
    token: bool = False
    jobs: list[float] = field(default_factory=list)
    #: When its earliest job was last another one.
    changed: float = 0.0


@dataclass(slots=True)
class Found:
    """What a run showed."""

    commands: Counter[str] = field(default_factory=Counter)
    """How often each kind of exchange was sent."""
    late: list[float] = field(default_factory=list)
    """Of each job that came due before the kill: how late it was claimed, seconds."""
    late_after: list[float] = field(default_factory=list)
    """Of each after the kill."""
    fewest: int = 0
    """The fewest workers that waited for one shard, after the kill."""
    unserved: int = 0
    """Jobs that are overdue at the end."""


class Crowd:
    """One run."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.rng = random.Random(plan.seed)
        self.found = Found()
        self.now = 0.0
        self.shards = [Shard() for _ in range(plan.shards)]
        self.alive = set(range(plan.workers))
        #: When each worker's looks have a beat.
        self._phases = [self.rng.uniform(0, LOOK_BEAT_S) for _ in range(plan.workers)]
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._join()

    def _join(self) -> None:
        """Each worker waits on shards of its queue."""
        for queue in range(self.plan.queues):
            if self.plan.spares:
                self._share_out(
                    self.shards[queue :: self.plan.queues], range(queue, self.plan.workers, self.plan.queues)
                )
                continue
            shards, workers = self.shards[queue :: self.plan.queues], range(queue, self.plan.workers, self.plan.queues)
            if self.plan.waits >= len(shards):
                everyone = list(workers)
                for shard in shards:
                    shard.waiting = everyone
                continue
            for worker in workers:
                for shard in self.rng.sample(shards, self.plan.waits):
                    shard.waiting.append(worker)

    def _share_out(self, shards: Sequence[Shard], workers: Sequence[int]) -> None:
        """As the rankings do: one sees to each shard, two others listen to it, and each worker listens to some."""
        for shard in shards:
            shard.sees_to, *shard.waiting = self.rng.sample(workers, 1 + LISTENERS)
        for worker in workers:
            near = self.rng.sample(shards, min(NEAREST, len(shards)))
            for shard in near:
                if worker not in (shard.sees_to, *shard.waiting):
                    shard.waiting.append(worker)
            self._come_round(worker, shards)

    def _come_round(self, worker: int, shards: Sequence[Shard]) -> None:
        """It looks at one shard more every few beats."""
        turn_s = max(BEATS * LOOK_BEAT_S, TOGETHER_S * self.plan.workers / self.plan.shards)

        def act() -> None:
            if worker in self.alive:
                self._follower_looks(worker, self.rng.choice(shards), self.now)
                self._at(self.now + turn_s, act)

        self._at(self.now + self.rng.uniform(0, turn_s), act)

    def run(self) -> Found:
        """Run it to its end."""
        plan = self.plan
        for shard in self.shards:
            # All have just come, and each claims once: the first are timekeeper and second.
            for worker in shard.waiting[:2]:
                self._at(self.rng.uniform(0, 0.5), self._claiming(worker, shard))
            if plan.spares:
                self._see_to(shard)
                continue
            self._followers_look(shard)
            few = len(shard.waiting) <= FEW
            shard.first = list(shard.waiting) if few else self.rng.sample(shard.waiting, KEPT)
            for worker in shard.first:
                self._watch(worker, shard)
        self._at(0.5, self._produce)
        self._at(plan.kill_at_s, self._kill)
        while self._events and self._events[0][0] < plan.seconds:
            self.now, _, act = heapq.heappop(self._events)
            act()
        self.now = plan.seconds
        self.found.unserved = sum(
            sum(due < self.now - 1 for due in shard.jobs) for shard in self.shards if len(shard.waiting)
        )
        self.found.fewest = min(len(shard.waiting) for shard in self.shards)
        return self.found

    def _at(self, when: float, act: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._events, (when, self._number, act))

    def _claiming(self, worker: int, shard: Shard) -> Callable[[], None]:
        return lambda: self._claim(worker, shard)

    def _produce(self) -> None:
        """One job comes on the wheel; a token calls somebody when no timekeeper wakes for it in time."""
        shard = self.rng.choice(self.shards)
        due = self.now + self.rng.choice(DELAYS_S)
        self.found.commands["enqueue"] += 1
        if not shard.jobs or due < shard.jobs[0]:
            shard.changed = self.now
        heapq.heappush(shard.jobs, due)
        if not (self._lasts(shard.keeper_end) and shard.keeper_at <= due):
            self._push_token(shard)
        self._at(self.now + self.rng.expovariate(self.plan.jobs_s), self._produce)

    def _push_token(self, shard: Shard) -> None:
        if shard.token or not shard.waiting:
            shard.token = True
            return
        self.found.commands["token"] += 1
        self._at(self.now + TRIP_S, self._claiming(self.rng.choice(shard.waiting), shard))

    def _lasts(self, end: float) -> bool:
        return self.now < end

    def _claim(self, worker: int, shard: Shard) -> None:
        """Take what is due and then a role, as `claim.lua` does; the worker rests in it."""
        if worker not in self.alive:
            return
        self.found.commands["claim"] += 1
        taken = 0
        while shard.jobs and shard.jobs[0] <= self.now:
            due = heapq.heappop(shard.jobs)
            kill_at = self.plan.kill_at_s
            (self.found.late if due < kill_at - 1 else self.found.late_after).append(self.now - due)
            taken += 1
        if taken:
            shard.changed = self.now
            self.found.commands["settle"] += 1
        wanted = shard.jobs[0] if shard.jobs else math.inf
        if worker == shard.sees_to:
            # It wants no role, and calls another where one is free.
            if not (self._lasts(shard.keeper_end) and shard.keeper_at <= wanted and self._lasts(shard.second_end)):
                self._push_token(shard)
            return
        if shard.keeper == worker or not self._lasts(shard.keeper_end) or shard.keeper_at > wanted:
            if shard.second == worker:
                shard.second, shard.second_end = -1, 0.0
                self._push_token(shard)
            shard.keeper, shard.keeper_at = worker, wanted
            shard.keeper_end = min(wanted + LATE_S, self.now + ROLE_S)
            self._rest(worker, shard, self.now, wanted, later=False)
        elif shard.second == worker or not self._lasts(shard.second_end):
            shard.second, shard.second_end = worker, self.now + ROLE_S
            self._rest(worker, shard, self.now, wanted, later=True)

    def _rest(self, worker: int, shard: Shard, answered: float, wanted: float, *, later: bool) -> None:
        """Wait as the timekeeper or, `later`, as its second: until the next job, or for the next look."""
        wait = CONFIRM_S if self.plan.spares else min(looks.BACKSTOP_S, CONFIRM_S)
        until = wanted + (self.rng.uniform(*looks.SECOND_LATER_S) if later else 0.0)
        role = "second" if later else "keeper"
        shard.rest[role] = number = shard.rest.get(role, 0) + 1

        def act() -> None:
            if worker not in self.alive or shard.rest[role] != number or getattr(shard, role) != worker:
                return
            if self.now >= min(until, answered + CONFIRM_S - 1e-9) or self._other_head(shard, wanted):
                self._claim(worker, shard)
            else:
                self.found.commands["look"] += 1
                self._rest(worker, shard, answered, wanted, later=later)

        self._at(max(self.now, min(until, self.now + self._until_beat(worker, wait))), act)

    def _until_beat(self, worker: int, within: float) -> float:
        """How long until the last beat of a worker's looks within a time, as `workers/lookout.py` says."""
        phase = self._phases[worker]
        until = phase + math.floor((self.now + within - phase) / LOOK_BEAT_S) * LOOK_BEAT_S - self.now
        return until if until > 0 else within

    def _watchers(self, shard: Shard) -> list[int]:
        """Who looks on each beat beside those that keep time. The dead stay among them until the list is read again."""
        others = [worker for worker in shard.first if worker not in (shard.keeper, shard.second)]
        return others if len(shard.waiting) <= FEW else others[:WATCHERS]

    def _see_to(self, shard: Shard) -> None:
        """One worker looks on each beat; when it died another sees to the shard once the list of workers is read again."""

        def act() -> None:
            if shard.sees_to in self.alive:
                self._follower_looks(shard.sees_to, shard, self.now - LOOK_BEAT_S)
            self._see_to(shard)

        self._at(self.now + self._until_beat(shard.sees_to, LOOK_BEAT_S), act)

    def _watch(self, worker: int, shard: Shard) -> None:
        """One of the first of a shard looks on each beat while it is a watcher."""

        def act() -> None:
            if worker in self.alive and worker in self._watchers(shard):
                self._follower_looks(worker, shard, self.now - LOOK_BEAT_S)
            self._watch(worker, shard)

        self._at(self.now + self._until_beat(worker, LOOK_BEAT_S), act)

    def _follower_looks(self, worker: int, shard: Shard, before: float) -> None:
        """Claim when things are not as they were before."""
        self.found.commands["follower's look"] += 1
        overdue = bool(shard.jobs) and shard.jobs[0] < self.now - OVERDUE_S
        roles = self._lasts(shard.keeper_end) and self._lasts(shard.second_end)
        if overdue or shard.changed > before or not roles:
            self._claim(worker, shard)

    def _other_head(self, shard: Shard, wanted: float) -> bool:
        head = shard.jobs[0] if shard.jobs else math.inf
        return head != wanted or head < self.now - OVERDUE_S

    def _followers_look(self, shard: Shard) -> None:
        """The other followers of a shard together: each looks at a moment of its own, so that their looks are spread evenly."""
        count = max(1, len(shard.waiting))
        least, most = looks.FOLLOWER_BACKSTOP_S
        # It looks on the last beat before its time.
        each = min(most, max(least, looks.FOLLOWERS_LOOK_S * count)) - LOOK_BEAT_S / 2

        def act() -> None:
            if shard.waiting:
                worker = self.rng.choice(shard.waiting)
                if worker not in (shard.keeper, shard.second, *self._watchers(shard)):
                    self._follower_looks(worker, shard, self.now - each * self.rng.uniform(2 / 3, 4 / 3))
            self._followers_look(shard)

        self._at(self.now + self.rng.expovariate(count / each), act)

    def _kill(self) -> None:
        """Some workers die at once."""
        dead = set(self.rng.sample(sorted(self.alive), round(len(self.alive) * self.plan.kill_part)))
        self.alive -= dead
        lists = {id(shard.waiting): shard.waiting for shard in self.shards}
        for waiting in lists.values():
            waiting[:] = [worker for worker in waiting if worker not in dead]


def summary(plan: Plan, found: Found) -> dict[str, object]:
    """The figures of a run."""

    def ms(values: list[float], part: float) -> float:
        ordered = sorted(values) or [0.0]
        return round(ordered[min(len(ordered) - 1, int(part * len(ordered)))] * 1000, 2)

    return {
        "workers": plan.workers, "queues": plan.queues, "shards": plan.shards,
        "waits": "spares" if plan.spares else min(plan.waits, plan.shards // plan.queues), "jobs_s": plan.jobs_s,
        "a second": {kind: round(count / plan.seconds, 1) for kind, count in sorted(found.commands.items())},
        "jobs": len(found.late) + len(found.late_after), "fewest waiting": found.fewest, "unserved": found.unserved,
        "late before, ms": {"p99": ms(found.late, 0.99), "max": ms(found.late, 1.0)},
        "late after, ms": {"p99": ms(found.late_after, 0.99), "max": ms(found.late_after, 1.0)},
    }  # fmt: skip


def main() -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulator.crowd")
    parser.add_argument("--workers", type=int, default=10_000)
    parser.add_argument("--shards", type=int, default=1_000)
    parser.add_argument("--queues", type=int, default=50, help="the shards belong to so many queues")
    parser.add_argument(
        "--waits", type=int, default=1_024, help="on how many shards of its queue a worker waits at the most"
    )
    parser.add_argument("--spares", action="store_true", help="they spare, as a large fleet on a cluster does")
    parser.add_argument("--jobs", type=float, default=2_000.0, help="jobs a second")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--kill", type=float, default=0.01, help="the part of the workers that die half way")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    plan = Plan(
        workers=given.workers, queues=given.queues, shards=given.shards, waits=given.waits, spares=given.spares, jobs_s=given.jobs, seconds=given.seconds,
        kill_at_s=given.seconds / 2, kill_part=given.kill, seed=given.seed,
    )  # fmt: skip
    sys.stdout.write(json.dumps(summary(plan, Crowd(plan).run()), indent=2) + "\n")


if __name__ == "__main__":
    main()
