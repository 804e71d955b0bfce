"""Waiting in virtual time: real pollers, runners and scripts, several queues, workers with different tasks and little room.

One process at a time dies or freezes, and many are full; what is judged is I25: a due job and an idle worker that can run
it are never together for longer than a second. The loop's clock jumps to the next thing that happens, so a minute of a
fleet takes a second.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from tests.simulator.promise import Violation
from tests.simulator.run import silent
from tests.simulator.virtual import Times, in_virtual_time
from tests.simulator.wire import Command, Server
from zwheel import calls
from zwheel.broker.listener import Token
from zwheel.calls import Call, NewJob, Session
from zwheel.calls.clock import ServerClock
from zwheel.client.tasks import BaseTask
from zwheel.job import JobId, QueueName
from zwheel.keys import ShardKeys, queue_of, shard_names
from zwheel.outside import as_text
from zwheel.payload.codec import DEFAULT
from zwheel.policy import make_policy
from zwheel.record import record_tail
from zwheel.times import day_of
from zwheel.workers import fleet, rounds
from zwheel.workers import poller as poller_module
from zwheel.workers.claims import Slots
from zwheel.workers.ear import Ear, own_list
from zwheel.workers.lookout import BEAT_S, Lookout
from zwheel.workers.newcomer import Newcomer
from zwheel.workers.peers import Peers, about_tasks, group_of
from zwheel.workers.poller import Poller
from zwheel.workers.rounds import Rounds
from zwheel.workers.runner import Runner
from zwheel.workers.settings import WorkerSettings

TRIP_S = 0.0004
#: A queue for a fleet that spares.
MANY = shard_names("b", 8)
#: How long a due job and an idle worker may be together; when those that keep time die in the same moment; and what a
#: look every few ms takes on top.
LIMIT_S, BOTH_S, SLACK_S = 1.0, 2.2, 0.1
#: The same for a fleet that spares, where all that wait for a shard may be full, and whoever sees to it calls others or is the
#: one that died; and where it calls nobody: a worker comes round to each in its turn.
CALLS_S = 5.0
ROUNDS_S = len(MANY) * (rounds.BEATS + 1) * BEAT_S
LOOK_S = 0.05
#: From one fault to the next: roles of the dead have lapsed by then.
CALM_S = 24.0
#: The same where a fleet spares: until then the dead are out of the ranking too; and until those that are new are in it.
SPARE_CALM_S, SPARE_KNOWN_S = 60.0, 30.0
BEAT_EVERY_S = 10.0
#: More exchanges in a second than this fleet has a use for, for each shard.
BUSY = 300
LASTS_S = 60.0
#: Two queues; in some runs the second has two shards.
QUEUES, CUT = ("a", "b"), ("a", *shard_names("b", 2))
TASKS = ("red", "blue")
GROUPS = (TASKS, TASKS[:1], TASKS[1:])


class _Clock(ServerClock):
    __slots__ = ("_times",)

    def __init__(self, times: Times) -> None:
        super().__init__()
        self._times = times

    def now_us(self) -> int:
        return self._times.us

    def error_us(self) -> int:
        return 0


@dataclass(eq=False)
class Waiter:
    """A process that is blocked on lists, in the order in which the server serves them."""

    worker: SimWorker
    keys: Sequence[str]
    heard: asyncio.Future[Token]


class World:
    """One server, its blocked clients, and every job there is."""

    def __init__(self, server: Server, times: Times, rng: random.Random) -> None:
        self.server = server
        self.times = times
        self.rng = rng
        self.waiters: list[Waiter] = []
        self.workers: list[SimWorker] = []
        #: Of whoever enqueues, and the task of each job; since when each due job waits beside an idle worker.
        self.session = Session("zw", "producer")
        self.tasks: dict[str, str] = {}
        self.since: dict[str, float] = {}
        self.limit_s = LIMIT_S
        self.queues: tuple[str, ...] = QUEUES
        #: Whether the shards lie on a cluster, where a fleet spares.
        self.in_parts = False
        self.marks: set[str] = set()
        #: Exchanges since the last full second.
        self.asked = 0
        self.second = 0
        server.reset()

    def execute(self, commands: Sequence[Command]) -> list[Any]:
        """Have the server carry out commands now, and serve those that are blocked."""
        stamped = [c._replace(args=(self.times.us, *c.args[1:])) if isinstance(c, Call) else c for c in commands]
        keys = list(dict.fromkeys(key for waiter in self.waiters for key in waiter.keys))
        replies = self.server.run([*stamped, *(("LLEN", key) for key in keys)])
        self.asked += 1
        left = {key: count for key, count in zip(keys, replies[len(stamped) :], strict=True) if count}
        for waiter in list(self.waiters) if left else ():
            for key in waiter.keys:
                if left.get(key, 0):
                    left[key] -= 1
                    (says,) = self.server.plain([("LPOP", key)])
                    token = Token(key, as_text(says))
                    self.waiters.remove(waiter)
                    self.marks.add("called" if ":call:" in key else "woken")
                    if not waiter.worker.frozen.is_set():
                        self.marks.add("a frozen worker got a token")
                        waiter.worker.unread.append((waiter.heard, token))
                    elif not waiter.heard.done():
                        waiter.heard.set_result(token)
                    break
        return replies[: len(stamped)]

    def listening(self) -> AbstractContextManager[object]:
        """Let pollers listen here, and not at a server."""
        return patch.object(
            poller_module, "Listener", lambda name: _Listener(self, next(w for w in self.workers if w.name == name))
        )

    def look(self) -> None:
        """I25. Raises: Violation."""
        now = self.times.now
        if int(now) != self.second:
            if self.asked > BUSY * len(self.queues):
                raise Violation(f"{self.asked} exchanges in a second: somebody spins")
            self.second, self.asked = int(now), 0
        waiting = self._due()
        for job in list(self.since):
            if job not in waiting:
                del self.since[job]
        for job, queue in waiting.items():
            idle = [worker.name for worker in self.workers if worker.can_run(queue, self.tasks[job])]
            if not idle:
                self.since.pop(job, None)
                continue
            since = self.since.setdefault(job, now)
            if now - since > self.limit_s + SLACK_S:
                raise Violation(f"I25: {job} of {queue} was due for {now - since:.2f} s beside {', '.join(idle)}")

    def _due(self) -> dict[str, str]:
        """Each job that may be claimed now, and its queue."""
        now_ms = self.times.us // 1000
        shards = [ShardKeys.of("zw", queue) for queue in self.queues]
        replies = iter(self.server.plain([ask for keys in shards for ask in _due_asks(keys, now_ms)]))
        due: dict[str, str] = {}
        noted: dict[bytes, tuple[ShardKeys, bytes]] = {}
        for keys in shards:
            due.update((raw.decode(), keys.name) for raw in next(replies))
            for _ in GROUPS:
                noted.update((raw.split()[0], (keys, raw.split()[2])) for raw in next(replies))
        # A note whose job somebody took meanwhile is void.
        records = self.server.plain([("HGET", keys.jobs, job) for job, (keys, _) in noted.items()])
        for (job, (keys, token)), record in zip(noted.items(), records, strict=True):
            if record is not None and record[1:2] == b"s" and record[21:37] == token:
                due[job.decode()] = keys.name
        return due


def _due_asks(keys: ShardKeys, now_ms: int) -> list[tuple[Any, ...]]:
    wheel = keys.wheel(day_of(now_ms))
    offered = (("ZRANGE", keys.offered(group_of(known)), 0, 50) for known in GROUPS)
    return [("ZRANGE", wheel, "-inf", now_ms, "BYSCORE", "LIMIT", 0, 50), *offered]


class _Store:
    """The store of one process: its commands arrive a little later, and not while it is frozen."""

    def __init__(self, world: World, worker: SimWorker) -> None:
        self.url = worker.name
        self.session = worker.session
        self.in_parts = world.in_parts
        self._world = world
        self._worker = worker

    def node_of(self, key: str) -> object:
        """All keys lie on one."""
        return None

    async def send(self, commands: Sequence[Command], *, each: bool = False) -> list[Any]:
        await asyncio.sleep(TRIP_S / 2)
        await self._worker.frozen.wait()
        replies = self._world.execute(commands)
        await asyncio.sleep(TRIP_S / 2)
        await self._worker.frozen.wait()
        return replies


class _Listener:
    def __init__(self, world: World, worker: SimWorker) -> None:
        self._world = world
        self._worker = worker

    async def listen(self, keys: Sequence[str], timeout_s: float) -> Token | None:
        waiter = Waiter(self._worker, keys, asyncio.get_running_loop().create_future())
        self._world.waiters.append(waiter)
        self._world.execute([])
        try:
            async with asyncio.timeout(timeout_s):
                return await waiter.heard
        except TimeoutError:
            return None
        finally:
            if waiter in self._world.waiters:
                self._world.waiters.remove(waiter)

    def interrupt(self) -> None:
        """Nothing to end: the connections of this world do not break."""

    async def aclose(self) -> None:
        """Nothing to close."""


@dataclass(eq=False)
class SimWorker:
    """A worker process: the real pollers of its queues and its real runner."""

    world: World
    name: str
    queues: tuple[str, ...]
    knows: tuple[str, ...]
    concurrency: int
    #: Set while it runs; clear while it is frozen.
    frozen: asyncio.Event = field(default_factory=asyncio.Event)
    dead: bool = False
    #: Tokens that came while it was frozen.
    unread: list[tuple[asyncio.Future[Token], Token]] = field(default_factory=list)

    def thaw(self) -> None:
        """Let it run again: it reads what came meanwhile."""
        self.frozen.set()
        while self.unread:
            heard, token = self.unread.pop()
            if not heard.done():
                heard.set_result(token)

    def start(self) -> None:
        self.frozen.set()
        self.session = Session("zw", self.name)
        self.session.clock = _Clock(self.world.times)
        store: Any = _Store(self.world, self)
        settings = WorkerSettings(
            queues=tuple(map(queue_of, self.queues)),
            concurrency=self.concurrency,
            prefetch=0,
            lease_ms=3_600_000,
            unknown_ttl_ms=1,
        )
        self.slots = Slots(self.concurrency, 0)
        group = group_of(self.knows)
        keys = {QueueName(queue): ShardKeys.of("zw", queue) for queue in self.queues}
        peers = {queue: Peers(store, shard, self.name, group) for queue, shard in keys.items()}
        self.runner = Runner(
            {name: _task(name) for name in self.knows}, DEFAULT, self.session, self.slots, self.name, 600_000,
            settings.lease_ms, peers=peers.get,
        )  # fmt: skip
        cut = next((shard for shard in keys.values() if shard.name != shard.queue and not self.world.in_parts), None)
        listener: Any = _Listener(self.world, self)
        self.ear = ear = None if cut is None else Ear(store, listener, cut.call(own_list()))
        self.lookout = Lookout(store, self.name, group)
        self.pollers = [
            Poller(
                store, shard, settings, self.name, self.slots, self.runner, group=group,
                ear=None if shard.name == shard.queue else ear, lookout=self.lookout,
            )
            for shard in keys.values()
        ]  # fmt: skip
        self._lists = list(dict.fromkeys(shard.workers for shard in keys.values()))
        self._beat()
        newcomers = [Newcomer(store, p.keys, self.name, self.knows, group, p.claim) for p in self.pollers]
        self.loops = [asyncio.create_task(poller.run()) for poller in self.pollers]
        self.loops += [asyncio.create_task(newcomer.run()) for newcomer in newcomers]
        self.loops.append(asyncio.create_task(self._beats()))
        if self.world.in_parts:
            rounds = Rounds(store, self.lookout, lambda: self.pollers, self.slots.full)
            looks = {poller.keys.name: poller.look for poller in self.pollers}
            for poller in self.pollers:
                poller.on_summons = lambda shard: looks[shard]()
            self.loops.append(asyncio.create_task(rounds.run()))

    def _beat(self) -> None:
        row = {"beat": self.world.times.us // 1000, "lease": 30_000, **about_tasks(self.knows)}
        self.world.execute([("HSET", key, self.name, json.dumps(row)) for key in self._lists])

    async def _beats(self) -> None:
        while True:
            await asyncio.sleep(BEAT_EVERY_S)
            await self.frozen.wait()
            self._beat()

    def can_run(self, queue: str, task: str) -> bool:
        """Whether it is idle, as far as anyone can see, and knows the task."""
        able = not self.dead and self.frozen.is_set() and queue in self.queues and task in self.knows
        return able and self.slots.room() > 0

    async def die(self) -> None:
        """As by SIGKILL: nothing it holds is given back, and nobody is told."""
        self.dead = True
        for waiter in [waiter for waiter in self.world.waiters if waiter.worker is self]:
            self.world.waiters.remove(waiter)
        for loop in self.loops:
            loop.cancel()
        for claim in list(self.runner.held):
            if claim.running is not None:
                claim.running.cancel()
        await asyncio.gather(*self.loops, return_exceptions=True)
        await self.lookout.aclose()
        if self.ear is not None:
            await self.ear.aclose()

    def stop(self) -> None:
        self.runner.close()


def _task(name: str) -> BaseTask[Any, Any]:
    async def work(seconds: float) -> None:
        await asyncio.sleep(seconds)

    policy = make_policy(
        queue="a", retries=3, timeout=None, keep=None, backoff=None, give_up_on=(), process=False
    )  # fmt: skip
    return BaseTask(work, name, policy, DEFAULT)


async def producer(world: World) -> None:
    """Enqueues jobs, some for later, short ones and long ones that fill workers."""
    rng, number = world.rng, 0
    while True:
        await asyncio.sleep(rng.choice((0.05, 0.4, 1.5)))
        for _ in range(rng.choice((1, 1, 1, 3))):
            queue, task = rng.choice(world.queues), rng.choice(TASKS)
            number += 1
            world.tasks[f"job-{number:04d}"] = task
            delay_ms, lasts_s = rng.choice((0, 0, 300, 2_000, 6_000)), rng.choice((0.01, 0.01, 0.5, 4.0))
            enqueue(world, f"job-{number:04d}", queue, delay_ms, lasts_s, task)


def enqueue(world: World, name: str, queue: str, delay_ms: int, lasts_s: float, task: str = TASKS[0]) -> None:
    job = NewJob(
        job_id=JobId(name), queue=QueueName(queue), at_ms=None, delay_ms=delay_ms,
        tail=record_tail(task, max_attempts=4), body=DEFAULT.encode([lasts_s], {}, context=b""),
    )  # fmt: skip
    with world.session.lane() as lane:
        sent = calls.enqueue(ShardKeys.of("zw", queue), [job], now_ms=world.times.us // 1000, lane=lane)
    world.execute([sent.call])


async def trouble(world: World, make: Callable[[], SimWorker], both: bool) -> None:
    """One process dies, or freezes for a while; then all is calm for longer than a role lasts."""
    while True:
        await asyncio.sleep(world.rng.uniform(2.0, 6.0) + (SPARE_KNOWN_S if world.in_parts else 0.0))
        alive = [worker for worker in world.workers if not worker.dead]
        if both:
            keys = ShardKeys.of("zw", world.rng.choice(world.queues))
            (names,) = world.server.plain([("HMGET", keys.meta, "keeper", "second")])
            named = {name.decode() for name in names if name}
            victims = [worker for worker in alive if worker.name in named]
        else:
            victims = [world.rng.choice(alive)]
        kills = both or world.rng.random() < 0.5
        for victim in victims:
            world.marks.add("killed" if kills else "frozen")
            if kills:
                await victim.die()
            else:
                victim.frozen.clear()
        await asyncio.sleep(SPARE_CALM_S if world.in_parts else CALM_S)
        for victim in victims:
            victim.thaw()
            if kills:
                world.workers.remove(victim)
                make().start()


async def _run(world: World, both: bool, roomy: bool) -> None:
    rng, count = world.rng, 0

    def make() -> SimWorker:
        nonlocal count
        knows = TASKS if count == 0 else rng.choice((TASKS, TASKS, TASKS[:1], TASKS[1:]))
        worker = SimWorker(
            world,
            f"worker{count:02d}",
            world.queues
            if world.in_parts
            else rng.choice((world.queues, world.queues, world.queues[:1], world.queues[1:])),
            knows,
            50 if roomy else rng.choice((1, 1, 2)),
        )
        count += 1
        world.workers.append(worker)
        return worker

    for queue in QUEUES if rng.random() < 0.5 else ():
        world.server.plain([("HSET", ShardKeys.of("zw", queue).meta, "precise", "1")])
    for _ in range(rng.randint(4, 7)):
        make().start()
    others = [asyncio.create_task(producer(world)), asyncio.create_task(trouble(world, make, both))]
    try:
        end = world.times.now + (4 * LASTS_S if world.in_parts else LASTS_S)
        while world.times.now < end:
            await asyncio.sleep(LOOK_S)
            world.look()
            for task in others:
                if task.done():
                    task.result()
    finally:
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        for worker in world.workers:
            worker.frozen.set()
            await worker.die()
            worker.stop()


def run(
    server: Server,
    seed: int,
    *,
    both: bool = False,
    roomy: bool = False,
    spares: bool = False,
    marks: set[str] | None = None,
) -> Violation | None:
    """Run one seed; the promise that was broken, if one was. both: the timekeeper and its second die together. roomy: no
    worker is ever full, and so two watch each shard beside those two. spares: the shards lie on a cluster, and not everybody
    waits for each.
    """
    times, rng = Times(), random.Random(seed)
    with silent(), in_virtual_time(times, rng) as loop:
        world = World(server, times, rng)
        world.limit_s = BOTH_S if both and not roomy else LIMIT_S
        world.queues = CUT if seed % 4 == 3 else QUEUES
        if spares:
            world.queues, world.in_parts = tuple(MANY), True
            world.limit_s = LIMIT_S if roomy else CALLS_S
        with world.listening(), patch.object(fleet, "ALL_WAIT", 1 if spares else fleet.ALL_WAIT):
            try:
                loop.run_until_complete(_run(world, both, roomy))
            except Violation as violation:
                return violation
            finally:
                if marks is not None:
                    marks |= world.marks
    return None
