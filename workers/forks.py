"""What a process that a task forks has of its worker: nothing.

`multiprocessing` forks by default on Linux. Such a child would take SIGTERM for its worker, wake the worker's event loop,
keep the worker's connections open, and hide the worker's end from the processes that watch its pipes.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

from .asks import STOP_SIGNALS


class Forks:
    """Cuts a forked child off from the process it comes from."""

    def __init__(self) -> None:
        #: Whether this process was forked by a task.
        self.forked = False
        self._descriptors: Callable[[], Iterable[int]] | None = None
        self._handlers: dict[signal.Signals, Any] = {}
        self._local = threading.local()

    def guard(self, descriptors: Callable[[], Iterable[int]]) -> None:
        """From now on no child has a part in these descriptors, nor the signal handlers that are set after this.

        Call it once, in the main thread. descriptors: gives the descriptors that are open at the moment of a fork.
        """
        self._descriptors = descriptors
        self._handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
        os.register_at_fork(before=self._before, after_in_parent=self._in_parent, after_in_child=self._in_child)

    def _before(self) -> None:
        # A signal for the child must not find the handlers of the worker there.
        self._local.mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)

    def _in_parent(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._local.mask)

    def _in_child(self) -> None:
        self.forked = True
        signal.set_wakeup_fd(-1)
        for number, handler in self._handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if self._descriptors is not None:
            _make_void(self._descriptors())
        signal.pthread_sigmask(signal.SIG_SETMASK, self._local.mask)

    def end_child(self, error: BaseException | None) -> None:
        """End this process when it is a forked child that comes back from its task's code: it is no second worker."""
        if self.forked:
            _leave(error)


def _leave(error: BaseException | None) -> NoReturn:
    code = 0
    if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
        code = error.code or 0
    elif error is not None:
        traceback.print_exception(error)
        code = 1
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            continue
    os._exit(code)


def _make_void(descriptors: Iterable[int]) -> None:
    """Let descriptors lead nowhere. They stay open: objects that the child inherited may still close them."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in descriptors:
        if descriptor >= 0:
            os.dup2(nowhere, descriptor, inheritable=False)
    os.close(nowhere)


def loop_descriptors(loop: Any) -> list[int]:
    """The descriptors of an event loop: what it waits with, and the pair of sockets that wakes it."""
    parts = (getattr(loop, name, None) for name in ("_selector", "_ssock", "_csock"))
    return [part.fileno() for part in parts if part is not None]


class Threads(ThreadPoolExecutor):
    """Threads for tasks: a child forked in one of them ends with what it was to do."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """As that of its base."""
        return super().submit(_then_leave, fn, *args, **kwargs)


def _then_leave(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    try:
        result = function(*args, **kwargs)
    except BaseException as error:
        FORKS.end_child(error)
        raise
    FORKS.end_child(result if isinstance(result, BaseException) else None)
    return result


FORKS = Forks()
