"""The tasks of the worker processes that are measured."""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import time
from pathlib import Path

from zwheel import Wheel, current_job

from .bench import QUEUE

#: Where a worker process writes the lateness of each job, ms, when it ends; and where `hold` notes each start.
SAMPLES = "ZWHEEL_BENCH_SAMPLES"
STARTS = "ZWHEEL_BENCH_STARTS"

wheel = Wheel(namespace="zw")
_samples: list[float] = []


@wheel.task(name="noop", queue=QUEUE)
async def noop(text: str) -> None:
    """Do nothing."""


@wheel.task(name="late", queue=QUEUE)
async def late(text: str) -> None:
    """Note how late it starts, ms. The server and the worker read the same clock: they are on one machine."""
    _samples.append(time.time_ns() / 1e6 - current_job().fire_at_ms)


@wheel.task(name="hold", queue=QUEUE, retries=10)
async def hold() -> None:
    """Note its start, and run until it is killed."""
    with Path(os.environ[STARTS]).open("a", encoding="utf-8") as notes:  # noqa: ASYNC230 - one short line
        notes.write(f"{os.getpid()} {time.time_ns()}\n")
    await asyncio.sleep(3600)


@atexit.register
def _write() -> None:
    if _samples:
        Path(os.environ[SAMPLES]).write_text(json.dumps(_samples), encoding="utf-8")
