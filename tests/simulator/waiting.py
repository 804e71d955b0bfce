"""Waiting in virtual time: real pollers, runners and scripts, several queues, workers with different tasks and little room.

One process at a time dies or freezes, and many are full; what is judged is I25: a due job and an idle worker that can run
it are never together for longer than a second. The loop's clock jumps to the next thing that happens, so a minute of a
fleet takes a second.
"""

from __future__ import annotations

import asyncio
import json
import random
import selectors
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from tests.simulator.promise import Violation
from tests.simulator.run import silent
from tests.simulator.wire import Command, Server
from zwheel import calls
from zwheel.calls import Call, NewJob, Session
from zwheel.calls.clock import ServerClock
from zwheel.client.tasks import BaseTask
from zwheel.job import JobId, QueueName
from zwheel.keys import ShardKeys, queue_of, shard_names
from zwheel.payload.codec import DEFAULT
from zwheel.policy import make_policy
from zwheel.record import record_tail
from zwheel.times import day_of
from zwheel.workers import poller as poller_module
from zwheel.workers import timer
from zwheel.workers.claims import Slots
from zwheel.workers.ear import Ear, own_list
from zwheel.workers.lookout import Lookout
from zwheel.workers.newcomer import Newcomer
from zwheel.workers.peers import Peers, about_tasks, group_of
from zwheel.workers.poller import Poller
from zwheel.workers.runner import Runner
from zwheel.workers.settings import WorkerSettings

#: Noon of a day, so that no run meets midnight.
BEGIN_US = (1_900_000_000_000 // 86_400_000 * 86_400_000 + 43_200_000) * 1000
TRIP_S = 0.0004
#: How long a due job and an idle worker may be together; when those that keep time die in the same moment; and what a
#: look every few ms takes on top.
LIMIT_S, BOTH_S, SLACK_S = 1.0, 2.2, 0.1
LOOK_S = 0.05
#: From one fault to the next: roles of the dead have lapsed by then.
CALM_S = 24.0
#: More exchanges in a second than this fleet has a use for, for each shard.
BUSY = 300
LASTS_S = 60.0
#: Two queues; in some runs the second has two shards.
QUEUES, CUT = ("a", "b"), ("a", *shard_names("b", 2))
TASKS = ("red", "blue")


class Times:
    """The time that all processes of a run share, seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def monotonic_ns(self) -> int:
        return int(self.now * 1e9)

    @property
    def us(self) -> int:
        """The server's clock."""
        return BEGIN_US + int((self.now - 1000.0) * 1e6)


class _Jumping(selectors.SelectSelector):
    """Waits for nothing: what a loop would sleep, the clock moves on."""

    def __init__(self, times: Times) -> None:
        super().__init__()
        self._times = times

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "nothing is left to happen"
        self._times.now += max(0.0, timeout)
        return super().select(0)


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
    heard: asyncio.Future[str]


class World:
    """One server, its blocked clients, and every job there is."""

    def __init__(self, server: Server, times: Times, rng: random.Random) -> None:
        self.server = server
        self.times = times
        self.rng = rng
        self.waiters: list[Waiter] = []
        self.workers: list[SimWorker] = []
        self.tasks: dict[str, str] = {}
        self.since: dict[str, float] = {}
        self.limit_s = LIMIT_S
        self.queues: tuple[str, ...] = QUEUES
        self.marks: set[str] = set()
        #: Exchanges since the last full second.
        self.asked = 0
        self.second = 0
        server.reset()

    def execute(self, commands: Sequence[Command]) -> list[Any]:
        """Have the server carry out commands now, and serve those that are blocked."""
        stamped = [c._replace(args=(self.times.us, *c.args[1:])) if isinstance(c, Call) else c for c in commands]
        replies = self.server.run(stamped)
        self.asked += 1
        keys = list(dict.fromkeys(key for waiter in self.waiters for key in waiter.keys))
        tokens = self.server.plain([("LLEN", key) for key in keys]) if keys else []
        left = {key: count for key, count in zip(keys, tokens, strict=True) if count}
        for waiter in list(self.waiters) if left else ():
            for key in waiter.keys:
                if left.get(key, 0):
                    left[key] -= 1
                    self.server.plain([("LPOP", key)])
                    self.waiters.remove(waiter)
                    self.marks.add("called" if ":call:" in key else "woken")
                    if not waiter.worker.frozen.is_set():
                        self.marks.add("a frozen worker got a token")
                        waiter.worker.unread.append((waiter.heard, key))
                    elif not waiter.heard.done():
                        waiter.heard.set_result(key)
                    break
        return replies

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
        waiting = {job: queue for queue in self.queues for job in self._due(queue)}
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

    def _due(self, queue: str) -> list[str]:
        keys, now_ms = ShardKeys.of("zw", queue), self.times.us // 1000
        asks: list[tuple[Any, ...]] = [
            ("ZRANGE", keys.wheel(day_of(now_ms)), "-inf", now_ms, "BYSCORE", "LIMIT", 0, 50),
            *(("ZRANGE", keys.offered(group_of(known)), 0, 50) for known in (TASKS, TASKS[:1], TASKS[1:])),
        ]
        due, *offered = self.server.plain(asks)
        # A note whose job somebody took meanwhile is void.
        noted = {raw.split()[0]: raw.split()[2] for notes in offered for raw in notes}
        records = self.server.plain([("HMGET", keys.jobs, *noted)])[0] if noted else []
        for (job, token), record in zip(noted.items(), records, strict=True):
            if record is not None and record[1:2] == b"s" and record[21:37] == token:
                due.append(job)
        return [raw.decode() for raw in due]


class _Store:
    """The store of one process: its commands arrive a little later, and not while it is frozen."""

    def __init__(self, world: World, worker: SimWorker) -> None:
        self.url = worker.name
        self.session = worker.session
        self._world = world
        self._worker = worker

    #: It is one server.
    in_parts = False

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

    async def listen(self, keys: Sequence[str], timeout_s: float) -> str:
        waiter = Waiter(self._worker, keys, asyncio.get_running_loop().create_future())
        self._world.waiters.append(waiter)
        self._world.execute([])
        try:
            async with asyncio.timeout(timeout_s):
                return await waiter.heard
        except TimeoutError:
            return ""
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
    unread: list[tuple[asyncio.Future[str], str]] = field(default_factory=list)

    def thaw(self) -> None:
        """Let it run again: it reads what came meanwhile."""
        self.frozen.set()
        while self.unread:
            heard, key = self.unread.pop()
            if not heard.done():
                heard.set_result(key)

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
        cut = next((shard for shard in keys.values() if shard.name != shard.queue), None)
        listener: Any = _Listener(self.world, self)
        self.ear = ear = None if cut is None else Ear(store, listener, cut.call(own_list()))
        self.lookout = Lookout(store)
        self.pollers = [
            Poller(
                store, shard, settings, self.name, self.slots, self.runner, group=group,
                ear=None if shard.name == shard.queue else ear, lookout=self.lookout,
            )
            for shard in keys.values()
        ]  # fmt: skip
        row = {"beat": self.world.times.us // 1000, "lease": settings.lease_ms, **about_tasks(self.knows)}
        self.world.execute([("HSET", shard.workers, self.name, json.dumps(row)) for shard in keys.values()])
        newcomers = [Newcomer(store, p.keys, self.name, self.knows, group, p.claim) for p in self.pollers]
        self.loops = [asyncio.create_task(poller.run()) for poller in self.pollers]
        self.loops += [asyncio.create_task(newcomer.run()) for newcomer in newcomers]

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
    session, rng, number = Session("zw", "producer"), world.rng, 0
    while True:
        await asyncio.sleep(rng.choice((0.05, 0.4, 1.5)))
        for _ in range(rng.choice((1, 1, 1, 3))):
            queue, task = rng.choice(world.queues), rng.choice(TASKS)
            number += 1
            job_id = JobId(f"job-{number:04d}")
            world.tasks[job_id] = task
            body = DEFAULT.encode([rng.choice((0.01, 0.01, 0.5, 4.0))], {}, context=b"")
            job = NewJob(
                job_id=job_id, queue=QueueName(queue), at_ms=None, delay_ms=rng.choice((0, 0, 300, 2_000, 6_000)),
                tail=record_tail(task, max_attempts=4), body=body,
            )  # fmt: skip
            with session.lane() as lane:
                sent = calls.enqueue(ShardKeys.of("zw", queue), [job], now_ms=world.times.us // 1000, lane=lane)
            world.execute([sent.call])


async def trouble(world: World, make: Callable[[], SimWorker], both: bool) -> None:
    """One process dies, or freezes for a while; then all is calm for longer than a role lasts."""
    while True:
        await asyncio.sleep(world.rng.uniform(2.0, 6.0))
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
        await asyncio.sleep(CALM_S)
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
            rng.choice((world.queues, world.queues, world.queues[:1], world.queues[1:])),
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
        end = world.times.now + LASTS_S
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
    server: Server, seed: int, *, both: bool = False, roomy: bool = False, marks: set[str] | None = None
) -> Violation | None:
    """Run one seed; the promise that was broken, if one was. both: the timekeeper and its second die together. roomy: no
    worker is ever full, and so two watch each shard beside those two.
    """
    times, rng = Times(), random.Random(seed)
    with silent(), in_virtual_time(times, rng) as loop:
        world = World(server, times, rng)
        world.limit_s = BOTH_S if both and not roomy else LIMIT_S
        world.queues = CUT if seed % 4 == 3 else QUEUES
        with world.listening():
            try:
                loop.run_until_complete(_run(world, both, roomy))
            except Violation as violation:
                return violation
            finally:
                if marks is not None:
                    marks |= world.marks
    return None


async def _ended(tasks: set[asyncio.Task[Any]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def in_virtual_time(times: Times, rng: random.Random) -> Iterator[asyncio.AbstractEventLoop]:
    """A loop whose sleeps take no time, and the same jitter in each run of a seed."""
    loop = asyncio.SelectorEventLoop(_Jumping(times))
    state = random.getstate()
    random.seed(rng.random())
    try:
        with (
            patch.object(time, "monotonic", times.monotonic), patch.object(time, "monotonic_ns", times.monotonic_ns),
            # A timer of the system knows nothing of virtual time: those of the event loop do.
            patch.object(timer, "_create", side_effect=OSError),
        ):  # fmt: skip
            yield loop
            # What still runs ends with the loop.
            rest = asyncio.all_tasks(loop)
            for task in rest:
                task.cancel()
            loop.run_until_complete(_ended(rest))
    finally:
        random.setstate(state)
        loop.close()
