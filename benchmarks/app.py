"""The tasks of the worker processes that are measured."""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import time
from array import array
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from zwheel import Wheel, current_job
from zwheel.client.wheel import Task

from .bench import QUEUE

#: Where a worker process writes the lateness of each job, ms, when it ends; and where `hold` notes each start.
SAMPLES = "ZWHEEL_BENCH_SAMPLES"
STARTS = "ZWHEEL_BENCH_STARTS"
#: Where a worker process writes how many jobs of a flood it ran, and how many of them started before an older one.
ORDER = "ZWHEEL_BENCH_ORDER"
#: The directory in which each worker process notes how late its jobs of a steady rate started.
RATES = "ZWHEEL_BENCH_RATES"
#: The directory in which each worker process notes the occurrences it ran.
OCCURRENCES = "ZWHEEL_BENCH_OCCURRENCES"
#: The queue beside a flood.
TICKS = "ticks"

wheel = Wheel(namespace="zw")
_samples: list[float] = []
_rates = array("f")
_occurrences: list[str] = []
_order = {"started": 0, "out_of_order": 0}
_last = (0, "")


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


@wheel.task(name="steady", queue=QUEUE)
async def steady(text: str) -> None:
    """Note how late it starts, ms, like `late`: 4 bytes a job, so that notes do not count as memory of the worker."""
    _rates.append(time.time_ns() / 1e6 - current_job().fire_at_ms)


@wheel.task(name="hold", queue=QUEUE, retries=10)
async def hold() -> None:
    """Note its start, and run until it is killed."""
    with Path(os.environ[STARTS]).open("a", encoding="utf-8") as notes:  # noqa: ASYNC230 - one short line
        notes.write(f"{os.getpid()} {time.time_ns()}\n")
    await asyncio.sleep(3600)


@wheel.task(name="flood", queue=QUEUE)
async def flood(text: str) -> None:
    """Note whether it starts after every job that is older."""
    global _last
    job = current_job()
    mine = (job.fire_at_ms, job.id)
    _order["started"] += 1
    _order["out_of_order"] += mine < _last
    _last = max(mine, _last)


@wheel.task(name="tick", queue=TICKS)
async def tick() -> None:
    """Note how late it starts, ms, like `late`, in a queue of its own."""
    _samples.append(time.time_ns() / 1e6 - current_job().fire_at_ms)


@wheel.task(name="occurs", queue=QUEUE)
async def occurs() -> None:
    """Note its nominal time and when it starts, by the clock that all processes share, whatever they think the time is."""
    started = time.monotonic_ns()
    occurrence = current_job().occurrence
    if occurrence is not None:
        _occurrences.append(f"{round(occurrence.nominal.timestamp() * 1000)} {started}\n")


@atexit.register
def _write() -> None:
    if _occurrences:
        Path(os.environ[OCCURRENCES], f"occurrences.{os.getpid()}").write_text("".join(_occurrences), encoding="ascii")
    if _rates:
        Path(os.environ[RATES], f"rates.{os.getpid()}").write_bytes(_rates.tobytes())
    if _order["started"]:
        Path(os.environ[ORDER]).write_text(json.dumps(_order), encoding="utf-8")
    if _samples:
        Path(os.environ[SAMPLES]).write_text(json.dumps(_samples), encoding="utf-8")
