"""Tasks that fork, in the ways in which people do."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from zwheel import Wheel

wheel = Wheel(namespace="zw")


def _square(number: int) -> int:
    return number * number


def _wait() -> None:
    time.sleep(600)


def _pool(method: str) -> None:
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(_square, range(4)) == [0, 1, 4, 9]


def _terminate() -> None:
    for pause in (0.0, 0.05):
        child = multiprocessing.get_context("fork").Process(target=_wait)
        child.start()
        time.sleep(pause)
        child.terminate()
        child.join(20)
        assert child.exitcode == -15, child.exitcode


def _executor() -> None:
    with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
        assert list(pool.map(_square, range(3))) == [0, 1, 4]


def _fork(child_ends: str) -> None:
    """Fork as a C program would, and let the child come back from the task's function."""
    child = os.fork()
    if child == 0:
        if child_ends == "exit":
            sys.exit(5)
        if child_ends == "raise":
            raise ValueError("in the child")
        if child_ends == "exec":
            os.execv("/bin/sh", ["sh", "-c", "exit 5"])  # noqa: S606 - that is what is tried
        return
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == {"exit": 5, "exec": 5, "raise": 1, "return": 0}[child_ends]


def _links() -> set[str]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:
            continue
    return {link for link in found if link.startswith(("socket:", "pipe:", "anon_inode:"))}


def _shared() -> None:
    """What a forked child has in common with its worker, beside stdin, stdout and stderr.

    The first of the ways: `multiprocessing` has pipes of its own, which its children are to have.
    """
    standard = {os.readlink(f"/proc/self/fd/{n}") for n in range(3)}
    mine = _links()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, json.dumps(sorted((_links() & mine) - standard)).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        shared = json.load(pipe)
    os.waitpid(child, 0)
    assert mine - standard, "the worker has connections"
    assert shared == [], shared


WAYS: dict[str, Callable[[], None]] = {
    "shared": _shared,
    "fork_pool": partial(_pool, "fork"),
    "spawn_pool": partial(_pool, "spawn"),
    "terminate": _terminate,
    "executor": _executor,
    **{end: partial(_fork, end) for end in ("exit", "raise", "exec", "return")},
}


@wheel.task(name="in_thread", keep=60)
def in_thread(way: str) -> None:
    WAYS[way]()


@wheel.task(name="in_loop", keep=60)
async def in_loop(way: str) -> None:
    WAYS[way]()


@wheel.task(name="in_to_thread", keep=60)
async def in_to_thread(way: str) -> None:
    await asyncio.to_thread(WAYS[way])


@wheel.task(name="in_process", keep=60, process=True)
def in_process(way: str) -> None:
    WAYS[way]()


@wheel.task(name="quick", keep=60)
async def quick() -> None:
    """Shows that the worker still serves."""
