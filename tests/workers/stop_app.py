"""Tasks that do not want to end, for workers that are told to."""

from __future__ import annotations

import asyncio
import ctypes
import threading
import time

from tests.workers import stage
from zwheel import Wheel

wheel = Wheel(namespace="zw")
_kept: list[asyncio.Task[None]] = []
_cancelled = threading.Event()


async def _swallow() -> None:
    while True:
        try:
            await asyncio.sleep(3600)
        except BaseException:  # noqa: S112 - that is its fault
            continue


@wheel.task(name="swallows", keep=60)
async def swallows(name: str) -> None:
    await stage.pass_by(name)
    await _swallow()


@wheel.task(name="leaves", keep=60)
async def leaves() -> None:
    """Ends at once, and leaves something in the background that does not."""
    _kept.append(asyncio.create_task(_swallow(), name="left-behind"))


@wheel.task(name="leaves_thread", keep=60)
async def leaves_thread() -> None:
    """Ends at once, and leaves the thread of some library."""
    threading.Thread(target=lambda: time.sleep(3600), name="some-library").start()


@wheel.task(name="blocks", keep=60)
async def blocks(name: str) -> None:
    """Blocks the event loop; Python still runs between its naps."""
    await stage.pass_by(name)
    while True:
        threading.Event().wait(0.05)


@wheel.task(name="tells", keep=60)
async def tells(name: str) -> None:
    """Tells of its cancellation."""
    try:
        await stage.play(name)
    finally:
        _cancelled.set()


@wheel.task(name="ends_then", keep=60)
def ends_then(name: str) -> None:
    """Ends, in its thread, when the other was cancelled."""
    stage.announce(name)
    _cancelled.wait(60)


@wheel.task(name="hogs", keep=60)
async def hogs(name: str) -> None:
    """Holds the GIL: nothing else of Python runs in this process."""
    await stage.pass_by(name)
    libc, mutex = ctypes.PyDLL(None), ctypes.create_string_buffer(128)
    for _ in range(2):
        # No signal interrupts the second one, which waits for the first.
        libc.pthread_mutex_lock(mutex)
