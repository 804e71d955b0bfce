"""A producer process: enqueues at a steady rate until SIGTERM, in all the ways there are, and undoes a little of it.

    python -m tests.chaos.producer SEED RATE RUN SINCE [--sync]

SINCE is the time, in seconds since the epoch, from which it owes jobs: when the one before it died. What it cannot do
for a while it makes up for afterwards. Nothing that a broker error ends is asked for again, but by
the client itself: the history tells what became of it.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections import deque
from contextlib import suppress

from zwheel import NewJob, SyncWheel, Wheel, ZwheelError

from .app import NAMESPACE
from .jobs import Maker

#: How far behind its rate a producer may fall before it lets the rest go, in seconds of its rate.
_MOST_BEHIND_S = 10.0
_GIVE_UP_S = 6.0
_TIMEOUT_S = 3.0


class Pace:
    """How many jobs are owed by now."""

    def __init__(self, rate: float, since: float) -> None:
        self._rate = rate
        self._started = time.monotonic() - max(0.0, time.time() - since)
        self.made = 0

    @property
    def owed(self) -> int:
        """Jobs that should have been made and were not."""
        owed = int((time.monotonic() - self._started) * self._rate) - self.made
        most = int(_MOST_BEHIND_S * self._rate)
        self.made += max(0, owed - most)
        return min(owed, most)

    @property
    def behind(self) -> bool:
        """Whether the jobs of more than a quarter of a second are owed: time for a large batch."""
        return self.owed > self._rate / 4


class Producer:
    """The async one."""

    def __init__(self, seed: int, pace: Pace, run: str) -> None:
        self.rng = random.Random(f"producer {seed}")
        self.wheel = Wheel(namespace=NAMESPACE, timeout_s=_TIMEOUT_S, give_up_s=_GIVE_UP_S)
        self.maker = Maker(self.wheel, self.rng, run)
        self.pace = pace
        self.stopping = asyncio.Event()
        self.replicas = os.environ["ZWHEEL_URL"].startswith("redis+cluster")
        self.recent: deque[NewJob] = deque(maxlen=300)

    async def run(self) -> None:
        """Produce until told to stop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stopping.set)
        async with self.wheel:
            while not self.stopping.is_set():
                self.maker.turn = int(time.time()) % 100_000
                if self.pace.owed < 1:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(0.01):
                            await self.stopping.wait()
                    continue
                with suppress(ZwheelError):
                    await self.rng.choices(
                        (self.bulk, self.mixed, self.burst, self.single, self.chosen, self.unique, self.undo),
                        (20 if self.pace.behind else 4, 2, 3, 4, 3, 3, 3),
                    )[0]()

    async def bulk(self) -> None:
        count = min(max(self.pace.owed, 1), self.rng.randrange(300, 1200) if self.pace.behind else 100)
        self.pace.made += count
        # Where there are replicas, a part of them has receipts.
        durable = "replicated(1)" if self.replicas and self.rng.random() < 0.3 else None
        await self.wheel.enqueue_many(self.maker.plain(count), chunk=self.rng.choice((50, 250, 500)), durable=durable)

    async def mixed(self) -> None:
        jobs = self.maker.mixed(self.rng.randrange(5, 60))
        self.pace.made += len(jobs)
        await self.wheel.enqueue_many(jobs, chunk=50)

    async def burst(self) -> None:
        jobs = self.maker.plain(self.rng.randrange(5, 60))
        self.pace.made += len(jobs)
        await asyncio.gather(*(self.wheel.submit(job) for job in jobs), return_exceptions=True)

    async def single(self) -> None:
        jobs = self.maker.delayed(3)
        self.pace.made += len(jobs)
        for job in jobs:
            await self.wheel.submit(job)
            self.recent.append(job)

    async def chosen(self) -> None:
        job = self.maker.chosen()
        self.pace.made += 1
        self.recent.append(job)
        with suppress(ZwheelError):
            await self.wheel.submit(job)
        if self.rng.random() < 0.3:
            await self.wheel.submit(job)

    async def unique(self) -> None:
        job = self.maker.unique()
        self.pace.made += 1
        await self.wheel.submit(job)

    async def undo(self) -> None:
        if not self.recent:
            return
        job = self.rng.choice(self.recent)
        if self.rng.random() < 0.5:
            await self.wheel.cancel(job.id, job.queue)
        else:
            await self.wheel.reschedule(job.id, delay=self.rng.uniform(0, 3), queue=job.queue)


class SyncProducer:
    """The blocking one."""

    def __init__(self, seed: int, pace: Pace, run: str) -> None:
        self.rng = random.Random(f"producer {seed}")
        self.wheel = SyncWheel(namespace=NAMESPACE, timeout_s=_TIMEOUT_S, give_up_s=_GIVE_UP_S)
        self.maker = Maker(self.wheel, self.rng, run)
        self.pace = pace
        self.stopping = False

    def stop(self, *_: object) -> None:
        """End after what is under way."""
        self.stopping = True

    def run(self) -> None:
        """Produce until told to stop."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.stop)
        with self.wheel:
            while not self.stopping:
                self.maker.turn = int(time.time()) % 100_000
                if self.pace.owed < 1:
                    time.sleep(0.01)
                    continue
                with suppress(ZwheelError):
                    self.step()

    def step(self) -> None:
        """Ask for one thing."""
        what = self.rng.random()
        if what < 0.6:
            most = 1000 if self.pace.behind else 100
            jobs = self.maker.mixed(min(max(self.pace.owed, 1), self.rng.randrange(20, most)))
            self.pace.made += len(jobs)
            self.wheel.enqueue_many(jobs, chunk=100)
            return
        self.pace.made += 1
        job = self.maker.chosen() if what < 0.8 else self.maker.delayed(1)[0]
        self.wheel.submit(job)
        if self.rng.random() < 0.3:
            self.wheel.cancel(job.id, job.queue)


def main() -> None:
    seed, pace, run = int(sys.argv[1]), Pace(float(sys.argv[2]), float(sys.argv[4])), sys.argv[3]
    if "--sync" in sys.argv:
        SyncProducer(seed, pace, run).run()
    else:
        asyncio.run(Producer(seed, pace, run).run())


if __name__ == "__main__":
    main()
