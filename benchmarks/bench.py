"""What every benchmark is given: the settings of the run, a fresh server, and worker processes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from zwheel import Wheel

from .figures import Figure
from .machine import Cluster, Placement, Server, end, spawn

QUEUE = "bench"
#: The argument of every job: 100 bytes of text; its encoded body is 107 bytes.
PAYLOAD = "x" * 100
_READY_S = 60.0
_OPTIONS = ("--quiet", "--queue", QUEUE, "--log-level", "error")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """The settings of one run."""

    program: Path
    placement: Placement
    unix: bool
    rounds: int
    full: bool
    short: bool
    """Little of everything, to see that a benchmark works: its figures say nothing."""
    say: Callable[[str], None]

    def amount(self, usual: int, short: int) -> int:
        """How much to measure."""
        return short if self.short else usual

    @contextmanager
    def server(self, *arguments: str) -> Iterator[Server]:
        """Start a server of its own for one benchmark. arguments: more of them for the server."""
        with Server(self.program, self.placement.server, unix=self.unix, arguments=arguments) as server:
            yield server

    @asynccontextmanager
    async def workers(
        self, server: Server | Cluster, wheel: Wheel, *, processes: int = 1, cpus: frozenset[int] | None = None,
        env: dict[str, str] | None = None, settings: tuple[str, ...] = (), count: int = 1,
    ) -> AsyncIterator[list[subprocess.Popen[bytes]]]:  # fmt: skip
        """Start `zwheel worker` processes, wait until all have signed on, and stop them at the end.

        count: more than one puts so many Workers into each process. settings: options of `zwheel worker`.
        """
        started = []
        before = len(await wheel.workers(QUEUE))
        try:
            for index in range(processes):
                command = [sys.executable, "-m", "benchmarks.fleet", str(count)]
                if count == 1:
                    command = [
                        sys.executable,
                        "-m",
                        "zwheel.cli",
                        "worker",
                        "benchmarks.app:wheel",
                        *_OPTIONS,
                        *settings,
                    ]
                where = self.placement.one(index, processes) if cpus is None else cpus
                started.append(
                    spawn(
                        command,
                        where,
                        env=os.environ | {"ZWHEEL_URL": server.url} | (env or {}),
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                    )
                )
            async with asyncio.timeout(_READY_S):
                while len(await wheel.workers(QUEUE)) < before + processes * count:
                    if any(process.poll() is not None for process in started):
                        raise RuntimeError("a worker process ended before it was ready")
                    await asyncio.sleep(0.05)
            yield started
        finally:
            await asyncio.gather(*(asyncio.to_thread(end, process) for process in started))


Benchmark = Callable[[Bench], Awaitable[list[Figure]]]
