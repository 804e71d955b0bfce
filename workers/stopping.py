"""Ends a worker process when it is asked to: by a drain, at once the second time, and by force when neither helps.

Signals are taken by plain handlers, which Python runs between two instructions, also while a task blocks the event loop.
A thread ends the process when its time is over. For a task that holds the GIL there is the renewer: signals reach it
through the wake-up descriptor, without Python's help.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import signal
import sys
import threading
import time
import traceback
from types import FrameType

from zwheel.outside import escaped

from .asks import STOP_SIGNALS, Asks, time_left_s
from .worker import Worker

log = escaped("zwheel.worker")

_FRAMES = 6


class Stopper:
    """Tells the worker what it is asked, and ends the process when that does not help."""

    def __init__(self, worker: Worker, drain_ms: int) -> None:
        self._worker = worker
        self._drain_s = drain_ms / 1000
        self._asks = Asks()
        self._loop: asyncio.AbstractEventLoop | None = None
        #: When the process has to be gone, monotonic seconds. This kind of queue may be used in a signal handler.
        self._deadlines: queue.SimpleQueue[float] = queue.SimpleQueue()
        threading.Thread(target=self._watch, name="zwheel-stopper", daemon=True).start()

    def listen(self, wake_up: int) -> None:
        """Take the signals from now on. In the main thread, with the loop running. wake_up: gets each one's number."""
        self._loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            signal.signal(number, self._on_signal)
        before = signal.set_wakeup_fd(wake_up, warn_on_full_buffer=False)
        if before != -1:
            # A loop that needs it for itself (uvloop does): the renewer does without.
            signal.set_wakeup_fd(before)

    def parent_asked(self) -> None:
        """The parent asked over its line."""
        if self._asks.parent():
            self._asked("the supervisor")

    def parent_gone(self) -> None:
        """The parent is gone."""
        log.warning("the supervisor is gone: draining")
        self._deadlines.put(time.monotonic() + time_left_s(1, self._drain_s))
        self._worker.stop()

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if self._asks.signal(number):
            self._asked(signal.Signals(number).name)

    def _asked(self, by: str) -> None:
        """Do what is safe in a signal handler; the loop does the rest."""
        count = self._asks.count
        self._deadlines.put(time.monotonic() + time_left_s(count, self._drain_s))
        if self._loop is not None:
            try:
                self._loop.call_soon_threadsafe(self._tell, by, count)
            except RuntimeError:
                return  # The loop is closed: the process is ending.

    def _tell(self, by: str, count: int) -> None:
        if count == 1:
            log.info("%s: draining for up to %g s; again to stop at once", by, self._drain_s)
            self._worker.stop()
        else:
            log.warning("%s: stopping at once", by)
            self._worker.abort()

    def _watch(self) -> None:
        deadline = self._deadlines.get()
        while (left := deadline - time.monotonic()) > 0:
            try:
                deadline = min(deadline, self._deadlines.get(timeout=left))
            except queue.Empty:
                continue
        log.error("this process did not end in time: ending it; its main thread is at %s", _where())
        end_now(1)


def _where() -> str:
    """Where the main thread is, its innermost call first."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    calls = traceback.extract_stack(frame)[: -_FRAMES - 1 : -1]
    return ", called from ".join(f"{call.filename}:{call.lineno} in {call.name}" for call in calls)


def end_now(code: int) -> None:
    """End this process without waiting for anybody."""
    logging.shutdown()
    os._exit(code)
