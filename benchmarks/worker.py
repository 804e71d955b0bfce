"""A worker process: `python -m benchmarks.worker`, with one Worker or, for the idle benchmark, many on one event loop."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal

from zwheel.workers import Worker, WorkerSettings

from .app import wheel
from .bench import QUEUE


async def _run(count: int, settings: WorkerSettings) -> None:
    workers = [Worker(wheel, settings) for _ in range(count)]
    loop = asyncio.get_running_loop()

    def stop() -> None:
        for worker in workers:
            worker.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    await asyncio.gather(*(worker.run() for worker in workers))


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=1)
    for name in ("concurrency", "prefetch", "lease-ms", "reap-ms", "drain-ms"):
        parser.add_argument(f"--{name}", type=int, default=argparse.SUPPRESS)
    given = vars(parser.parse_args())
    count = given.pop("count")
    logging.basicConfig(level=logging.ERROR)
    asyncio.run(_run(count, WorkerSettings(queues=(QUEUE,), **given)))


if __name__ == "__main__":
    _main()
