"""The operator's process: pauses and resumes queues, redrives dead jobs, purges a few, tends schedules, until SIGTERM.

python -m tests.chaos.operate SEED
"""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from contextlib import suppress

from zwheel import Definition, JobState, Wheel, ZwheelError

from .app import CUTS, NAMESPACE, QUEUES


class Operator:
    """One person with a shell and bad nerves."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(f"operator {seed}")
        self.wheel = Wheel(namespace=NAMESPACE, timeout_s=3.0, give_up_s=6.0)
        self.stopping = asyncio.Event()

    async def run(self) -> None:
        """Act every now and then."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stopping.set)
        async with self.wheel:
            with suppress(ZwheelError):
                # What an operator that was killed left behind.
                await self.resume_all()
            for queue in QUEUES:
                with suppress(ZwheelError):
                    await self.wheel.add_schedule(self.written(queue))
            while not self.stopping.is_set():
                with suppress(ZwheelError):
                    act = self.rng.choices(
                        (
                            self.pause,
                            self.redrive_some,
                            self.redrive_all,
                            self.purge_few,
                            self.purge_done,
                            self.rewrite,
                            self.stop_and_go,
                            self.trigger,
                            self.remove_and_add,
                            self.reshard,
                        ),
                        (5, 5, 1, 3, 1, 4, 3, 2, 2, 4),
                    )[0]
                    await act(self.rng.choice(QUEUES))
                await self.rest(self.rng.uniform(0.2, 1.5))

    async def rest(self, seconds: float) -> None:
        """Wait, or until told to stop."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.stopping.wait()

    async def resume_all(self) -> None:
        for queue in QUEUES:
            await self.wheel.resume(queue)

    async def pause(self, queue: str) -> None:
        await self.wheel.pause(queue)
        await self.rest(self.rng.uniform(0.1, 0.8))
        await self.wheel.resume(queue)

    async def reshard(self, _: str) -> None:
        """Cut the queue that has several shards into another number; also go on where another operator died."""
        queue = QUEUES[1]
        info = await self.wheel.queue(queue)
        if info.shards > 1:
            await self.wheel.reshard_queue(
                queue, shards=info.shards if info.former else self.rng.choice(CUTS), wait=self.rng.random() < 0.3
            )

    async def redrive_some(self, queue: str) -> None:
        dead = await self.wheel.dead(queue, limit=30)
        if dead:
            await self.wheel.redrive(queue, [job.id for job in self.rng.sample(dead, min(len(dead), 10))])

    async def redrive_all(self, queue: str) -> None:
        await self.wheel.redrive(queue, reason=self.rng.choice(("error", "timeout", "discarded", "bad_arguments")))

    async def purge_few(self, queue: str) -> None:
        dead = await self.wheel.dead(queue, limit=30)
        if dead:
            await self.wheel.purge_dead(queue, [job.id for job in self.rng.sample(dead, min(len(dead), 3))])

    async def purge_done(self, queue: str) -> None:
        await self.wheel.purge(queue, JobState.DONE)

    def written(self, queue: str) -> Definition:
        """A schedule of a queue, at random: it fires every second or so, and may overlap or not."""
        return self.wheel.new_schedule(
            f"tick-{queue}", self.rng.choice(("* * * * * *", "*/2 * * * * *", "@every 1500ms")), "quick", args=[1],
            queue=queue, overlap=self.rng.choice(("allow", "allow", "skip", "buffer_one", "cancel_other")), keep=600, retries=25,
            misfire=self.rng.choice(("skip", "fire_once", "fire_all")), grace=self.rng.choice((0, 1, 60)),
        )  # fmt: skip

    async def rewrite(self, queue: str) -> None:
        await self.wheel.add_schedule(self.written(queue), replace=True)

    async def stop_and_go(self, queue: str) -> None:
        await self.wheel.pause_schedule(f"tick-{queue}")
        await self.rest(self.rng.uniform(0.1, 2.0))
        await self.wheel.resume_schedule(f"tick-{queue}", catch_up=self.rng.random() < 0.5)

    async def trigger(self, queue: str) -> None:
        await self.wheel.trigger_schedule(f"tick-{queue}")

    async def remove_and_add(self, queue: str) -> None:
        await self.wheel.remove_schedule(f"tick-{queue}")
        await self.wheel.add_schedule(self.written(queue))


if __name__ == "__main__":
    asyncio.run(Operator(int(sys.argv[1])).run())
