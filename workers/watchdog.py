"""The watchdog: a thread that sees a task block the event loop, says which and where, and has the worker replaced.

While the loop is blocked no job of this worker can start, end, time out or be cancelled. From half a lease on the
heartbeat's thread settles what needs no loop (`Runner.rescue`). When the loop stays blocked, this worker is of no more
use: its jobs that still run in threads may end, the rest goes back unharmed, and the process ends. Its supervisor starts
another. The job that blocks is left to its lease: that attempt counts.

It cannot see a task that holds the GIL, since no thread of Python runs then. The renewer's process does: it has the worker
write where all its threads are (`ask_for_stacks`), and ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable

from zwheel.current import current
from zwheel.outside import escaped, fenced

from . import runner as runner_module
from .claims import Claim
from .heartbeat import Heartbeat
from .parts import PartThread
from .runner import Runner
from .settings import WorkerSettings

log = escaped("zwheel.worker")

#: How often the loop is asked to turn, and after how long its silence is said, seconds.
LOOK_S, SAY_S = 0.25, 1.0
#: A turn that took so much longer than it should is told to the history of a run, seconds.
_STALL_S = 0.1
#: A worker without work for its loop is replaced after as many leases, or later, as the settings say.
LEASES = 3
#: How long the last round trips and the last lines of the log may take, seconds.
_SETTLED_S, _SAID_S = 3.0, 1.0
_FRAMES = 20
#: Nobody else's signal, as far as can be known; a system without such signals (macOS) does without the stacks.
_STACKS: int | None = getattr(signal, "SIGRTMAX", 0) - 3 if hasattr(signal, "SIGRTMAX") else None
#: A debugger that waits for a person blocks the loop too.
_DEBUGGERS = frozenset({"pdb", "bdb", "pydevd", "IPython"})


class Watchdog(PartThread):
    """Asks the event loop to turn, again and again, and acts when it does not."""

    def __init__(self, settings: WorkerSettings, runner: Runner, heartbeat: Heartbeat) -> None:
        super().__init__("zwheel-watchdog")
        self._runner = runner
        self._heartbeat = heartbeat
        self._lease_s = settings.lease_ms / 1000
        self._limit_s = max(LEASES * self._lease_s, settings.stuck_ms / 1000)
        self._drain_s = settings.drain_ms / 1000
        self._look_s = min(LOOK_S, self._lease_s / 8)
        self._loop_thread = threading.get_ident()
        self._end = threading.Event()
        #: When the loop was asked to turn and did not yet, monotonic seconds; 0: it turned.
        self._asked_at = 0.0
        self._said: set[str] = set()
        self._kicked = False
        #: Called at each look: Python runs in this process.
        self.on_look: Callable[[], None] | None = None
        #: Called after each time in which the loop, or this whole process, did not run: from, to, monotonic seconds.
        self.on_stall: Callable[[float, float], None] | None = None
        #: Ends the process; None: nobody would start another one, so the log only says that the worker is stuck.
        self.replace: Callable[[], None] | None = None

    def work(self) -> None:
        """Look until `stop`."""
        looked = time.monotonic()
        while not self._end.is_set():
            now = time.monotonic()
            if now - looked > self._look_s + _STALL_S and not self._loop.is_closed():
                # The loop may have been blocked before that: it is asked anew below, and would tell of the rest only.
                self._loop.call_soon_threadsafe(self._stalled, self._asked_at or looked, now)
            if now - looked > 4 * self._look_s and self._asked_at:
                # This thread did not run either: the process stood still, or a task held the GIL. Count anew.
                self._asked_at = now
            looked = now
            if self.on_look is not None:
                self.on_look()
            self._ask_loop(now)
            self._end.wait(self._look_s)

    def _ask_loop(self, now: float) -> None:
        if self._asked_at:
            self._blocked(now - self._asked_at)
        elif not self._loop.is_closed():
            self._asked_at, self._kicked = now, False
            self._loop.call_soon_threadsafe(self._turned)

    def _turned(self) -> None:
        asked_at, self._asked_at = self._asked_at, 0.0
        now = time.monotonic()
        if now - asked_at > _STALL_S:
            self._stalled(asked_at, now)

    def _stalled(self, since: float, until: float) -> None:
        if self.on_stall is not None:
            self.on_stall(since, until)

    def stuck(self) -> bool:
        """Whether the loop has not turned for half a lease."""
        asked = self._asked_at
        return bool(asked) and time.monotonic() - asked > self._lease_s / 2

    def stop(self) -> None:
        """Look no more; join it afterwards."""
        self._end.set()

    def _blocked(self, seconds: float) -> None:
        if seconds > SAY_S:
            self._say(seconds)
        if not self._kicked and self.stuck():
            self._kicked = True
            self._heartbeat.kick()
        culprit = self._culprit()
        limit_s = self._limit_s
        if culprit is not None and culprit.deadline_ns:
            over_s = culprit.deadline_ns / 1e9 - self._asked_at
            limit_s = min(limit_s, max(0.0, over_s) + LEASES * self._lease_s)
        if seconds > limit_s and not self._debugged():
            self._give_up(seconds, culprit)

    def _task(self) -> asyncio.Task[object] | None:
        return asyncio.current_task(self._loop)

    def _culprit(self) -> Claim | None:
        """The claim whose task blocks the loop; None when it is something that a task left behind, or a callback."""
        task = self._task()
        for claim in list(self._runner.held):
            if task is not None and claim.running is task:
                return claim
        # A task that the job's own function started runs in a copy of its context. Python tells from 3.12 on.
        get_context = getattr(task, "get_context", None)
        holder = None if get_context is None else get_context().get(current)
        return holder if isinstance(holder, Claim) and holder in self._runner.held else None

    def _who(self) -> str:
        culprit, task = self._culprit(), self._task()
        if culprit is not None:
            return f"task {culprit.task_name}, job {culprit.job_id},"
        return "a callback" if task is None else f"{getattr(task.get_coro(), '__qualname__', 'a coroutine')}"

    def _stack(self) -> str:
        """Where the loop's thread is, from the task's own function on."""
        frame = sys._current_frames().get(self._loop_thread)
        stack = [] if frame is None else list(traceback.extract_stack(frame))
        inside = [number for number, step in enumerate(stack) if step.filename == runner_module.__file__]
        stack = stack[inside[-1] + 1 :] if inside and inside[-1] + 1 < len(stack) else stack
        return "".join(traceback.format_list(stack[-_FRAMES:])).rstrip() or "an unknown place"

    def _debugged(self) -> bool:
        frame = sys._current_frames().get(self._loop_thread)
        while frame is not None:
            if str(frame.f_globals.get("__name__", "")).partition(".")[0] in _DEBUGGERS:
                return True
            frame = frame.f_back
        return False

    def _say(self, seconds: float) -> None:
        """Say it once for each task."""
        culprit, name = self._culprit(), self._who()
        known = name if culprit is None else culprit.task_name
        if known in self._said or len(self._said) >= 1000:
            return
        stack = self._stack()
        if not self._asked_at:
            return
        self._said.add(known)
        _log(
            logging.WARNING, stack,
            "%s blocks the event loop for more than %.1f s: no other job of this worker can start, end or time out. "
            "Use a plain def, which runs in a thread, or asyncio.to_thread. It is at", name, seconds,
        )  # fmt: skip

    def _give_up(self, seconds: float, culprit: Claim | None) -> None:
        if self.replace is None:
            self._say_once_more(seconds, "nothing ends it here")
            return
        self._say_once_more(seconds, "this worker gives its jobs back and ends with exit code 1, to be replaced")
        until = time.monotonic() + self._drain_s
        while self._asked_at and time.monotonic() < until and self._heartbeat.beside.in_threads():
            self._heartbeat.kick()
            self._end.wait(self._look_s)
        if not self._asked_at:
            log.warning("the event loop turns again: this worker goes on")
            return
        self._heartbeat.beside.abandon(culprit)
        until = time.monotonic() + _SETTLED_S
        while time.monotonic() < until and not self._heartbeat.beside.settled():
            self._heartbeat.kick()
            self._end.wait(self._look_s)
        self.replace()

    def _say_once_more(self, seconds: float, what: str) -> None:
        if what in self._said:
            return
        self._said.add(what)
        name, stack = self._who(), self._stack()
        text = f"%s has blocked the event loop for %.1f s: {what}. It is at"
        # A log that blocks must not keep the worker: it may be what blocks the loop.
        said = threading.Thread(target=_log, args=(logging.ERROR, stack, text, name, seconds), daemon=True)
        said.start()
        said.join(_SAID_S)


def _log(level: int, stack: str, text: str, *about: object) -> None:
    log.log(level, text + "\n" + fenced(stack).replace("%", "%%"), *about)


def write_stacks_when_asked() -> None:
    """Write where all threads are whenever this process gets the signal for it. What writes needs no Python to run.

    It may only be asked while Python does not run: it reads what a running thread changes, and would crash the process.
    A timer in this process cannot know that. After a process was stopped (SIGSTOP) its timers are over and Python runs.
    """
    if _STACKS is not None:
        with contextlib.suppress(RuntimeError, ValueError, OSError, AttributeError):  # There is no file to write to.
            faulthandler.register(_STACKS, file=sys.stderr, all_threads=True)


def ask_for_stacks(pid: int) -> None:
    """Let a worker process in which Python does not run write where its threads are."""
    if _STACKS is not None:
        with contextlib.suppress(OSError):
            os.kill(pid, _STACKS)


def dump_after_s(lease_ms: int) -> float:
    """After how long without Python all stacks are written, seconds: a lease, and 5 s where that is shorter."""
    return max(lease_ms / 1000, 5.0)
