"""The tasks of the worker processes that are measured."""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from zwheel import Wheel, current_job
from zwheel.wheel import Task

from .bench import QUEUE

#: Where a worker process writes the lateness of each job, ms, when it ends; and where `hold` notes each start.
SAMPLES = "ZWHEEL_BENCH_SAMPLES"
STARTS = "ZWHEEL_BENCH_STARTS"

wheel = Wheel(namespace="zw")
_samples: list[float] = []


async def _noop(text: str) -> None:
    """Do nothing."""


def noop_task(owner: Wheel) -> Task[[str], Coroutine[Any, Any, None]]:
    """The task of an empty job, registered with a wheel."""
    return owner.task(name="noop", queue=QUEUE)(_noop)


noop_task(wheel)


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
