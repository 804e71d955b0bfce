"""Tasks with `process=True` that do what such tasks do to the process they run in."""

from __future__ import annotations

import ctypes
import logging
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime

from tests.workers import stage
from zwheel import Backoff, Discard, Retry, Snooze, Wheel, current_job

wheel = Wheel(namespace="zw")
AT_ONCE = Backoff(first=0.001, factor=1, longest=0.001)


class Api(Exception):
    """Cannot be made again from its `args`."""

    def __init__(self, code: int, body: str) -> None:
        super().__init__(f"API said {code}: {body}")
        self.callback = lambda: None


@dataclass
class Order:
    number: int
    due: datetime


@wheel.task(name="speaks", keep=60, process=True)
def speaks() -> None:
    subprocess.run(["echo", "a program speaks"], check=True)
    os.write(1, b"a C library speaks\n")
    print("stdout \x1b[31mspeaks")  # noqa: T201
    print("stderr speaks", file=sys.stderr)  # noqa: T201
    logging.getLogger("some.library").warning("a logger speaks\nin two lines")
    logging.getLogger("some.library").debug("not at this level")
    assert subprocess.run(["cat"], capture_output=True, timeout=5, check=True).stdout == b"", "stdin is empty"


@wheel.task(name="floods", keep=60, process=True)
def floods() -> None:
    for _ in range(500):
        os.write(2, b"much is said here\n" * 1_000)
    os.write(1, b"x" * 1_000_000)


@wheel.task(name="raises", keep=60, process=True, backoff=AT_ONCE, give_up_on=(ZeroDivisionError,))
def raises(what: str) -> None:
    if current_job().attempt > 1:
        return
    if what == "own":
        raise Api(503, "busy")
    if what == "give up":
        raise ZeroDivisionError
    if what == "discard":
        raise Discard("never again")
    if what == "retry":
        raise Retry("later", delay=0.3)
    if what == "exit":
        sys.exit(3)
    os._exit(0)


@wheel.task(name="takes", keep=60, process=True)
def takes(order: Order, *, at: datetime, parts: tuple[int, ...]) -> None:
    job = current_job()
    assert (order.number, order.due, at, parts) == (7, at, at, (1, 2)), (order, at, parts)
    assert (job.task, job.attempt, job.headers["who"]) == ("takes", 1, "ann")


@wheel.task(name="hogs", keep=60, process=True)
def hogs(name: str) -> None:
    """Holds the GIL: nothing else of Python runs in this process."""
    stage.play_blocking(f"pass {name}")
    libc, mutex = ctypes.PyDLL(None), ctypes.create_string_buffer(128)
    for _ in range(2):
        libc.pthread_mutex_lock(mutex)


@wheel.task(name="held", keep=60, process=True)
def held(name: str) -> None:
    stage.play_blocking(name)


@wheel.task(name="sleeps", keep=60, process=True)
def sleeps(seconds: float) -> None:
    time.sleep(seconds)


@wheel.task(name="snoozes", keep=60, process=True)
def snoozes() -> None:
    raise Snooze(3600)


@wheel.task(name="naps", keep=0, process=True)
def naps() -> None:
    time.sleep(0.02)
    print("napped")  # noqa: T201


@wheel.task(name="needs_none", keep=60)
async def needs_none() -> None:
    """Runs in the worker's own process."""
