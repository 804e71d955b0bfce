"""The supervisor of `--processes N`: starts worker processes, starts them again when they die, and asks them to stop."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Sequence

from zwheel.outside import escaped

from .asks import AT_ONCE_S, STOP_SIGNALS, Asks
from .lifeline import Lifeline

log = escaped("zwheel.supervisor")

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 10.0
#: A child that lived this long was healthy: the pause before its next start begins anew.
_HEALTHY_S = 10.0
#: Exit codes of a process that would refuse again: wrong settings, or a Redis that it must not or may not use.
_REFUSALS = frozenset({2, 6})


def describe_exit(code: int) -> str:
    """Say how a process ended: its exit code, or the signal that killed it."""
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"{name} (out of memory?)" if name == "SIGKILL" else name


class Supervisor:
    """Keeps `count` worker processes running. It holds no connection and no job: killing it loses nothing."""

    def __init__(
        self, command: Sequence[str], count: int, drain_ms: int, *, burst: bool = False, renews: bool = False
    ) -> None:
        """burst: a process that ended well is not started again. renews: it is, at once: it took its jobs."""
        self._burst, self._renews = burst, renews
        self._command = command
        self._count = count
        self._drain_s = drain_ms / 1000
        self._children: dict[int, asyncio.subprocess.Process] = {}
        self._lines: dict[int, Lifeline] = {}
        self._stopping = asyncio.Event()
        self._asks = Asks()
        self._failed = 0
        self._refused = 0

    async def run(self) -> int:
        """Supervise until SIGTERM, SIGINT or SIGHUP. Returns the exit code: 1 when a child ended badly while draining,
        that of a child which refused to work.
        """
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._on_signal, number)
        async with asyncio.TaskGroup() as group:
            for place in range(self._count):
                group.create_task(self._keep(place))
        return self._refused or (1 if self._failed else 0)

    async def _start(self, place: int) -> asyncio.subprocess.Process:
        """Start a worker process with a line to it. Raises: OSError when none can be started now."""
        line = Lifeline()
        try:
            child = await asyncio.create_subprocess_exec(
                *self._command,
                env={**os.environ, **line.environment()},
                pass_fds=(line.descriptor,),
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        except BaseException:
            line.close()
            raise
        line.started()
        self._lines[place] = line
        return child

    async def _keep(self, place: int) -> None:
        pause = _FIRST_PAUSE_S
        while not self._stopping.is_set():
            try:
                child = await self._start(place)
            except OSError as error:
                # No process or no memory is left at this moment: the next one may be luckier.
                log.error("cannot start a worker process (%s); trying again in %.1f s", error, pause)
                pause = await self._rest(pause)
                continue
            started = time.monotonic()
            self._children[place] = child
            log.info("worker process %d started", child.pid)
            if self._stopping.is_set():
                self._ask(place)
            code = await child.wait()
            del self._children[place]
            self._lines.pop(place).close()
            if self._stopping.is_set():
                # A process that such a signal ended was not listening yet, so it held no job: that is no failure.
                self._failed += code != 0 and -code not in STOP_SIGNALS
                return
            if code in _REFUSALS:
                log.error("worker process %d refused to work (%s); starting no other", child.pid, describe_exit(code))
                self._refused = code
                self._end()
                return
            if code == 0 and self._burst:
                return
            if code == 0 and self._renews:
                log.info("worker process %d took its jobs and ended; starting another", child.pid)
                continue
            if time.monotonic() - started > _HEALTHY_S:
                pause = _FIRST_PAUSE_S
            log.error("worker process %d ended: %s; starting another in %.1f s", child.pid, describe_exit(code), pause)
            pause = await self._rest(pause)

    async def _rest(self, pause: float) -> float:
        """Wait before the next start, unless there will be none. Returns how long the pause after this one is."""
        try:
            async with asyncio.timeout(pause):
                await self._stopping.wait()
        except TimeoutError:
            pass
        return min(_LONGEST_PAUSE_S, pause * 2)

    def _on_signal(self, number: signal.Signals) -> None:
        if not self._asks.signal(number):
            return
        self._stopping.set()
        count = self._asks.count
        log.info("%s: passing it on to the worker processes (%d)", number.name, len(self._children))
        if count > 2:
            self._kill()
            return
        for place in self._children:
            self._ask(place)
        asyncio.get_running_loop().call_later(self._drain_s + 15 if count == 1 else AT_ONCE_S + 0.5, self._kill)

    def _ask(self, place: int) -> None:
        self._lines[place].ask(self._children[place].terminate)

    def _end(self) -> None:
        """What one process refused all refuse: end the others too."""
        self._stopping.set()
        for place in self._children:
            self._ask(place)

    def _kill(self) -> None:
        for child in self._children.values():
            log.error("worker process %d did not end in time: killing it", child.pid)
            child.kill()
