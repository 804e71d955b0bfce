"""The supervisor of `--processes N` and `--max-rss`: starts worker processes, starts them again when they die, puts others in
the place of those that use too much memory, and asks them to stop.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from zwheel.outside import escaped

from .asks import AT_ONCE_S, STOP_SIGNALS, Asks
from .lifeline import Lifeline
from .memory import HAS_PROC, Memory

log = escaped("zwheel.supervisor")

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 10.0
#: A child that lived this long was healthy: the pause before its next start begins anew.
_HEALTHY_S = 10.0
#: How often to look at the memory of the processes, seconds.
_LOOK_S = 0.05 if HAS_PROC else 1.0
#: How long a process takes to start where that is not known yet; another one is started so many times as long before memory runs
#: out, and may take so long to be ready, seconds.
_START_S, _EARLIER, _READY_S = 3.0, 2.0, 60.0
#: A process that would use more than it may after so long claims no more jobs, although no other is ready yet, seconds.
_BRAKE_S = 0.3
#: After another process could not take its place, the next try for one is so much later, seconds.
_AGAIN_S = 30.0
#: So long after the drain a process is killed, seconds.
_KILL_S = 15.0
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


@dataclass(slots=True, eq=False)
class _Child:
    """One worker process."""

    process: asyncio.subprocess.Process
    line: Lifeline
    memory: Memory
    started: float
    """Monotonic seconds."""
    ready_s: float = _START_S
    """How long it took until it claimed jobs."""
    asked: bool = False
    """Whether it was asked to stop since another took its place."""

    @property
    def pid(self) -> int:
        return self.process.pid

    def ask(self) -> None:
        """Ask it to stop, once more."""
        self.line.ask(self.process.terminate)

    async def until_ready(self) -> None:
        """Wait until it claims jobs; for ever when it ends before."""
        await self.line.until_ready()
        self.ready_s = time.monotonic() - self.started


class Supervisor:
    """Keeps `count` worker processes running. It holds no connection and no job: killing it loses nothing."""

    def __init__(
        self,
        command: Sequence[str],
        count: int,
        drain_ms: int,
        *,
        burst: bool = False,
        renews: bool = False,
        max_rss: int = 0,
    ) -> None:
        """burst: a process that ended well is not started again. renews: it is, at once: it took its jobs. max_rss: how much
        memory each process may use, bytes; 0: as much as it likes.
        """
        self._burst, self._renews, self._max_rss = burst, renews, max_rss
        self._command = command
        self._count = count
        self._drain_s = drain_ms / 1000
        #: All that run, also those that another took the place of and that have not ended yet.
        self._children: set[_Child] = set()
        self._leaving: set[asyncio.Task[None]] = set()
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
            for _ in range(self._count):
                group.create_task(self._keep())
        await asyncio.gather(*self._leaving)
        return self._refused or (1 if self._failed else 0)

    async def _start(self) -> _Child:
        """Start a worker process with a line to it. Raises: OSError when none can be started now."""
        line = Lifeline()
        try:
            process = await asyncio.create_subprocess_exec(
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
        child = _Child(process, line, Memory(process.pid, self._max_rss), time.monotonic())
        self._children.add(child)
        log.info("worker process %d started", child.pid)
        if self._stopping.is_set():
            child.ask()
        return child

    async def _ended(self, child: _Child) -> int:
        """Wait for the end of a process; its exit code."""
        code = await child.process.wait()
        self._children.discard(child)
        child.line.close()
        return code

    async def _keep(self) -> None:
        pause = _FIRST_PAUSE_S
        child: _Child | None = None
        while child is not None or not self._stopping.is_set():
            if child is None:
                try:
                    child = await self._start()
                except OSError as error:
                    # No process or no memory is left at this moment: the next one may be luckier.
                    log.error("cannot start a worker process (%s); trying again in %.1f s", error, pause)
                    pause = await self._rest(pause)
                    continue
            code, following = await self._see_it_through(child)
            if following is not None:
                child = following
                continue
            pid, started, child = child.pid, child.started, None
            if self._stopping.is_set():
                # A process that such a signal ended was not listening yet, so it held no job: that is no failure.
                self._failed += code != 0 and -code not in STOP_SIGNALS
                return
            if code in _REFUSALS:
                log.error("worker process %d refused to work (%s); starting no other", pid, describe_exit(code))
                self._refused = code
                self._end()
                return
            if code == 0 and self._burst:
                return
            if code == 0 and self._renews:
                log.info("worker process %d took its jobs and ended; starting another", pid)
                continue
            if time.monotonic() - started > _HEALTHY_S:
                pause = _FIRST_PAUSE_S
            log.error("worker process %d ended: %s; starting another in %.1f s", pid, describe_exit(code), pause)
            pause = await self._rest(pause)

    async def _see_it_through(self, child: _Child) -> tuple[int, _Child | None]:
        """Wait for the end of a process, or until another took its place. Returns its exit code, and the other one."""
        ended = asyncio.ensure_future(self._ended(child))
        if not self._max_rss:
            return await ended, None
        ready = asyncio.ensure_future(child.until_ready())
        fresh, again_at = True, 0.0
        try:
            while not ended.done():
                await asyncio.wait([ended], timeout=_LOOK_S)
                child.memory.look()
                if ended.done() or self._stopping.is_set() or not ready.done() or time.monotonic() < again_at:
                    continue
                if fresh and child.memory.is_over:
                    log.error(
                        "worker process %d uses %s when it has just started, more than --max-rss: give it more",
                        child.pid, megabytes(child.memory.now),
                    )  # fmt: skip
                    again_at = time.monotonic() + _AGAIN_S
                elif child.memory.is_over_in(_EARLIER * child.ready_s):
                    following = await self._follow(child, ended)
                    if following is not None:
                        self._let_go(child, ended)
                        return 0, following
                    again_at = time.monotonic() + _AGAIN_S
                fresh = False
            return await ended, None
        finally:
            ready.cancel()

    async def _follow(self, child: _Child, ended: asyncio.Future[int]) -> _Child | None:
        """Start another process, and wait until it claims jobs; None when it cannot, or all are to stop."""
        log.info(
            "worker process %d uses %s: starting another, which takes its place", child.pid, megabytes(child.memory.now)
        )
        try:
            other = await self._start()
        except OSError as error:
            log.error("cannot start a worker process (%s); %d goes on", error, child.pid)
            return None
        ready, gone = asyncio.ensure_future(other.until_ready()), asyncio.ensure_future(other.process.wait())
        try:
            deadline = time.monotonic() + _READY_S
            while not (ready.done() or gone.done() or self._stopping.is_set()) and time.monotonic() < deadline:
                await asyncio.wait([ready, gone], timeout=_LOOK_S, return_when=asyncio.FIRST_COMPLETED)
                child.memory.look()
                if child.memory.is_over_in(_BRAKE_S) and not child.asked and not ended.done():
                    # It may not grow on: it ends its jobs, and others have to wait for the other process.
                    child.asked = True
                    child.ask()
            if ready.done() and not gone.done():
                return other
            if self._stopping.is_set():
                return other
            how = describe_exit(gone.result()) if gone.done() else f"it does not claim jobs after {_READY_S:.0f} s"
            log.error("worker process %d cannot take the place of %d: %s", other.pid, child.pid, how)
            if not gone.done():
                other.process.kill()
            await self._ended(other)
            return other if child.asked else None
        finally:
            ready.cancel()
            gone.cancel()

    def _let_go(self, child: _Child, ended: asyncio.Future[int]) -> None:
        """Ask a process to end its jobs and itself: another has its place."""
        if not child.asked and not ended.done() and not self._stopping.is_set():
            child.asked = True
            child.ask()

        async def wait() -> None:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._drain_s + _KILL_S):
                    await asyncio.shield(ended)
            if not ended.done():
                log.error("worker process %d did not end in time: killing it", child.pid)
                child.process.kill()
            code = await ended
            if code != 0 and -code not in STOP_SIGNALS:
                self._failed += self._stopping.is_set()
                log.error("worker process %d, whose place another has, ended: %s", child.pid, describe_exit(code))

        task = asyncio.create_task(wait())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

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
        for child in self._children:
            # One that is leaving was asked before: only a second signal is to hurry it.
            if not (child.asked and count == 1):
                child.ask()
        asyncio.get_running_loop().call_later(self._drain_s + _KILL_S if count == 1 else AT_ONCE_S + 0.5, self._kill)

    def _end(self) -> None:
        """What one process refused all refuse: end the others too."""
        self._stopping.set()
        for child in self._children:
            child.ask()

    def _kill(self) -> None:
        for child in self._children:
            log.error("worker process %d did not end in time: killing it", child.pid)
            child.process.kill()


def megabytes(size: int) -> str:
    """A size for a person. Example: 104857600 -> '100 MiB'."""
    return f"{size / (1 << 20):.0f} MiB"
