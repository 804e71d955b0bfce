"""The tasks of a chaos run: most are quick, and each way in which a task can end is among them."""

from __future__ import annotations

import asyncio
import os
import signal
import time

from zwheel import Backoff, Discard, Retry, Wheel, current_job
from zwheel.workers import fleet

QUEUES = ("orders", "mail", "reports")
#: How many shards a queue has, where it has several.
SHARDS = {"mail": 3}
#: Into how many shards such a queue is cut anew.
CUTS = (2, 3, 4)
NAMESPACE = "zw"
SOON = Backoff(first=0.05, factor=2, longest=1.0)

if os.environ.get("ZWHEEL_URL", "").startswith("redis+cluster"):
    # A fleet as small as this one spares too, so that not every worker waits for each shard.
    fleet.NEAREST, fleet.ALL_WAIT = 1, 4

wheel = Wheel(namespace=NAMESPACE)


@wheel.task(name="quick", retries=25, backoff=SOON)
async def quick(n: int) -> None:
    """Do nothing."""


@wheel.task(name="nap", retries=25, backoff=SOON)
async def nap(seconds: float) -> None:
    await asyncio.sleep(seconds)


@wheel.task(name="thread", retries=25, backoff=SOON)
def thread(seconds: float) -> None:
    time.sleep(seconds)


@wheel.task(name="flaky", retries=25, backoff=SOON)
async def flaky(good_from: int) -> None:
    if current_job().attempt < good_from:
        raise ConnectionError("not yet")


@wheel.task(name="failing", retries=1, backoff=SOON)
async def failing(text: str) -> None:
    raise ValueError(text)


@wheel.task(name="given_up", retries=5, backoff=SOON, give_up_on=(KeyError,))
def given_up(key: str) -> None:
    raise KeyError(key)


@wheel.task(name="again", retries=25)
async def again(seconds: float) -> None:
    if current_job().attempt == 1:
        raise Retry("once more", delay=seconds)


@wheel.task(name="discarded", retries=5)
async def discarded() -> None:
    raise Discard("not wanted any more")


@wheel.task(name="overdue", retries=1, timeout=0.15, backoff=SOON)
async def overdue() -> None:
    await asyncio.sleep(60)


@wheel.task(name="overdue_thread", retries=1, timeout=0.15, backoff=SOON)
def overdue_thread() -> None:
    time.sleep(0.5)


@wheel.task(name="blocking", retries=25, backoff=SOON)
async def blocking(seconds: float) -> None:
    """Hold the event loop, as code does that forgot to await."""
    time.sleep(seconds)  # noqa: ASYNC251


@wheel.task(name="crash", retries=1, backoff=SOON)
async def crash() -> None:
    """Take the whole process along, as a fault in native code does."""
    os.kill(os.getpid(), signal.SIGKILL)
