"""The tasks of the worker processes in tests; the URL comes from the environment."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import time

from tests.workers import stage
from zwheel import Backoff, Discard, Retry, Wheel, current_job

wheel = Wheel(namespace="zw")
AT_ONCE = Backoff(first=0.001, factor=1, longest=0.001)


@wheel.task(name="play", keep=60, backoff=AT_ONCE)
async def play(name: str) -> None:
    await stage.play(name)


@wheel.task(name="block", keep=60)
async def block(name: str) -> None:
    stage.play_blocking(name)


@wheel.task(name="quick", keep=60)
async def quick(fate: str = "") -> None:
    """Ends without giving the event loop a turn."""
    if fate == "fail":
        raise Retry(fate, delay=3600)
    if fate == "discard":
        raise Discard(fate)


@wheel.task(name="clutch", keep=60, retries=0)
def clutch(name: str) -> None:
    """Appears, and holds the GIL for longer than any test lasts."""
    stage.announce(name)
    ctypes.PyDLL(None).sleep(600)


@wheel.task(name="thread", keep=60)
def thread(name: str) -> None:
    stage.play_blocking(name)


@wheel.task(name="isolated", keep=60, process=True, retries=1, backoff=AT_ONCE)
def isolated(name: str, fate: str = "") -> None:
    if fate == "exit":
        os._exit(7)
    if fate == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if fate == "raise":
        raise ValueError(f"{name} of {current_job().id}")
    stage.play_blocking(name)


@wheel.task(name="stubborn", keep=60)
async def stubborn(name: str) -> None:
    """Sits in a thread that nothing can stop, in the loop's own pool of threads."""
    await asyncio.to_thread(stage.play_blocking, name)


@wheel.task(name="unready", keep=60)
async def unready(name: str) -> None:
    """Answers its cancellation with another exception."""
    try:
        await stage.play(name)
    except asyncio.CancelledError:
        raise RuntimeError("the connection broke") from None


@wheel.task(name="kill", retries=2, backoff=AT_ONCE)
async def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@wheel.task(name="poison")
async def poison(seconds: float) -> None:
    """Takes its process along, a little later than it began."""
    await asyncio.sleep(seconds)
    os.kill(os.getpid(), signal.SIGKILL)


@wheel.task(name="pass", keep=60)
async def pass_by(name: str) -> None:
    await stage.pass_by(name)


@wheel.task(name="nap", keep=60)
def nap(seconds: float) -> None:
    time.sleep(seconds)
