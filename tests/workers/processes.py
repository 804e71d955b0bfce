"""Real worker processes: started, told things by signals, and read by what they log."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.workers.stage import PATH

ROOT = Path(__file__).parent.parent.parent
_READY = re.compile(r"worker \w{8}: \d+ tasks?")
_STARTED = re.compile(r"worker process (\d+) started")


class Process:
    """A `zwheel worker` in a process of its own."""

    def __init__(self, child: asyncio.subprocess.Process) -> None:
        self.child = child
        self.lines: list[str] = []
        self._changed = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    @property
    def pid(self) -> int:
        return self.child.pid

    async def _read(self) -> None:
        assert self.child.stderr is not None
        async for line in self.child.stderr:
            self.lines.append(line.decode(errors="replace").rstrip())
            self._changed.set()
        self._changed.set()

    async def says(self, text: str, *, count: int = 1, within: float = 15.0) -> list[str]:
        """Wait until `count` lines of its log match."""
        pattern = re.compile(text)
        try:
            async with asyncio.timeout(within):
                while len(found := [line for line in self.lines if pattern.search(line)]) < count:
                    assert not self._reading.done(), f"it ended without saying {text!r}:\n" + "\n".join(self.lines)
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"it did not say {text!r}:\n" + "\n".join(self.lines)) from None
        return found

    async def ready(self, count: int = 1) -> None:
        """Wait until `count` workers claim."""
        await self.says(_READY.pattern, count=count)

    async def children(self, count: int) -> list[int]:
        """The process ids of the first `count` children that a supervisor started."""
        found = await self.says(_STARTED.pattern, count=count)
        return [int(_STARTED.findall(line)[0]) for line in found]

    def signal(self, number: signal.Signals) -> None:
        self.child.send_signal(number)

    async def ended(self, within: float = 15.0) -> int:
        """Wait for its end and give its exit code, negative for a signal."""
        async with asyncio.timeout(within):
            code = await self.child.wait()
            await self._reading
        return code

    async def close(self) -> None:
        """Kill it, if it still runs, and its children with it."""
        pids = [int(pid) for line in self.lines for pid in _STARTED.findall(line)]
        for pid in [self.child.pid, *pids]:
            with contextlib.suppress(ProcessLookupError):
                if pid != self.child.pid or self.child.returncode is None:
                    os.kill(pid, signal.SIGCONT)
                    os.kill(pid, signal.SIGKILL)
        await self.child.wait()
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        # What it left behind may still hold its end of stderr.
        transport: asyncio.SubprocessTransport = self.child._transport  # type: ignore[attr-defined]
        transport.close()


@asynccontextmanager
async def worker_process(
    url: str,
    stage: Path,
    *options: str,
    lease: str = "600ms",
    reap: str = "100ms",
    drain: str = "3s",
    wait: bool = True,
    app: str = "tests.workers.app:wheel",
    failpoints: str = "",
    module: str = "zwheel.cli",
    cwd: Path = ROOT,
) -> AsyncIterator[Process]:
    """Run `zwheel worker`; it is killed at the end of the block if it still runs. failpoints: where it dies or stops.

    module: what runs instead of the command line. cwd: the folder in which the app is.
    """
    words = ["worker", app, "--lease", lease, "--reap", reap, "--drain", drain, *options]
    environment = {**os.environ, "ZWHEEL_URL": url, PATH: str(stage), "PYTHONUNBUFFERED": "1"}
    environment["ZWHEEL_FAILPOINTS"] = failpoints
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *words),
        cwd=cwd, env=environment, stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    process = Process(child)
    try:
        if wait:
            await process.ready()
        yield process
    finally:
        await process.close()
