"""Many workers in one process, for the idle benchmark: `python -m benchmarks.fleet COUNT`. Each has its own connections."""

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
    parser.add_argument("count", type=int)
    logging.basicConfig(level=logging.ERROR)
    asyncio.run(_run(parser.parse_args().count, WorkerSettings(queues=(QUEUE,))))


if __name__ == "__main__":
    _main()
