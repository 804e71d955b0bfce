"""A Redis for one example: private, in a temporary directory, gone at the end. An application sets ZWHEEL_URL instead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from zwheel import SyncWheel, Wheel, embedded
from zwheel.workers import Worker, WorkerSettings


@contextmanager
def private_server() -> Iterator[str]:
    """Run a server and give its URL."""
    with TemporaryDirectory(prefix="zwheel-") as directory:
        home = Path(directory) / "home"
        try:
            yield embedded.start(home).url
        finally:
            embedded.stop(home)


@asynccontextmanager
async def worker(wheel: Wheel | SyncWheel, *queues: str) -> AsyncIterator[None]:
    """Run a worker beside the block, and drain it at the end. Outside of examples: `zwheel worker app:wheel`."""
    running = Worker(wheel, WorkerSettings(queues=queues))
    task = asyncio.create_task(running.run())
    try:
        yield
    finally:
        running.stop()
        await task
