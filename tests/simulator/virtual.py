"""An event loop whose clock jumps to the next thing that happens, so that a minute takes as long as what is done in it."""

from __future__ import annotations

import asyncio
import random
import selectors
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from zwheel.workers import timer

#: Noon of a day, so that no run meets midnight.
BEGIN_US = (1_900_000_000_000 // 86_400_000 * 86_400_000 + 43_200_000) * 1000


class Times:
    """The time that all processes of a run share, seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def monotonic_ns(self) -> int:
        return int(self.now * 1e9)

    @property
    def us(self) -> int:
        """The server's clock."""
        return BEGIN_US + int((self.now - 1000.0) * 1e6)


class _Jumping(selectors.SelectSelector):
    """Waits for nothing: what a loop would sleep, the clock moves on."""

    def __init__(self, times: Times) -> None:
        super().__init__()
        self._times = times

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "nothing is left to happen"
        self._times.now += max(0.0, timeout)
        return super().select(0)


async def _ended(tasks: set[asyncio.Task[Any]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def in_virtual_time(times: Times, rng: random.Random) -> Iterator[asyncio.AbstractEventLoop]:
    """A loop whose sleeps take no time, and the same jitter in each run of a seed."""
    loop = asyncio.SelectorEventLoop(_Jumping(times))
    state = random.getstate()
    random.seed(rng.random())
    try:
        with (
            patch.object(time, "monotonic", times.monotonic), patch.object(time, "monotonic_ns", times.monotonic_ns),
            # A timer of the system knows nothing of virtual time: those of the event loop do.
            patch.object(timer, "_create", side_effect=OSError),
        ):  # fmt: skip
            yield loop
            # What still runs ends with the loop.
            rest = asyncio.all_tasks(loop)
            for task in rest:
                task.cancel()
            loop.run_until_complete(_ended(rest))
    finally:
        random.setstate(state)
        loop.close()
