"""Schedules: jobs that fire again and again, without a scheduler process.

    python examples/06_schedules.py

Two workers run side by side, and each second has one occurrence all the same. One schedule is declared in code; another
one is added, edited and removed while everything runs.
"""

from __future__ import annotations

import asyncio
from collections import Counter

from playground import private_server

from zwheel import Wheel, current_job
from zwheel.workers import Worker, WorkerSettings

wheel = Wheel()
runs: Counter[str] = Counter()


@wheel.cron("* * * * * *", tz="Europe/Berlin", overlap="skip")
@wheel.task(name="pulse", keep=60)
async def pulse() -> None:
    """Tell which occurrence this is."""
    occurrence = current_job().occurrence
    assert occurrence is not None
    runs[occurrence.nominal.isoformat()] += 1
    print(f"pulse of {occurrence.nominal:%H:%M:%S}, the one before: {occurrence.previous_outcome}")


@wheel.task(name="note", keep=60)
async def note(text: str) -> None:
    """Say something."""
    print(text)


async def run() -> None:
    """Run two workers for a few seconds."""
    workers = [Worker(wheel, WorkerSettings()) for _ in range(2)]
    running = [asyncio.create_task(worker.run()) for worker in workers]
    await asyncio.gather(*(worker.ready.wait() for worker in workers))
    async with wheel:
        await wheel.add_schedule(wheel.new_schedule("notes", "@every 1s", note, args=["first text"]))
        await asyncio.sleep(2.2)
        await wheel.edit_schedule(wheel.new_schedule("notes", "@every 1s", note, args=["second text"]))
        await asyncio.sleep(2.2)
        for info in await wheel.schedules():
            print(f"{info.name} fires {info.rhythm().rhythm_words()}")
            await wheel.remove_schedule(info.name)
    for worker in workers:
        worker.stop()
    await asyncio.gather(*running)
    print(f"seconds that ran twice: {sum(runs.values()) - len(runs)}")


def main() -> None:
    with private_server() as url:
        wheel.configure(url=url)
        asyncio.run(run())


if __name__ == "__main__":
    main()
