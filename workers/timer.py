"""A timer that is as exact as the system: asyncio's own waits whole milliseconds, rounded up, since epoll counts in those.

On Linux it is a timerfd, which the event loop watches like a connection; elsewhere, and where the system refuses one, it
is a timer of the event loop. Both go by the monotonic clock, so that setting the system's clock moves neither.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import time
from collections.abc import Callable

_NS = 1_000_000_000
#: A time further ahead than this rings then, and whoever waits sets it again, seconds.
_FARTHEST_S = 86_400.0
_TIMER_ABSTIME = 1
#: For Python before 3.13, which has no timerfd of its own; a `long` of 8 bytes is what a `time_t` is.
_WITH_LIBC = sys.platform == "linux" and not hasattr(os, "timerfd_create") and ctypes.sizeof(ctypes.c_long) == 8
_libc = ctypes.CDLL(None, use_errno=True) if _WITH_LIBC else None
_open: set[int] = set()


def timer_descriptors() -> list[int]:
    """The descriptors of all timers of this process."""
    return list(_open)


class _Spec(ctypes.Structure):
    """`struct itimerspec`: seconds and ns of the interval, then of the time."""

    _fields_ = tuple((name, ctypes.c_long) for name in ("every_s", "every_ns", "at_s", "at_ns"))


def _create() -> int:
    """Make a timerfd of the monotonic clock. Raises: OSError, AttributeError where there is none."""
    flags = os.O_CLOEXEC | os.O_NONBLOCK
    if _libc is None:
        made: int = os.timerfd_create(time.CLOCK_MONOTONIC, flags=flags)  # type: ignore[attr-defined]
        return made
    made = _libc.timerfd_create(time.CLOCK_MONOTONIC, flags)
    if made < 0:
        raise OSError(ctypes.get_errno(), "timerfd_create")
    return made


def _set(descriptor: int, at_ns: int) -> None:
    """Let it ring at that monotonic time; 0: never."""
    if _libc is None:
        os.timerfd_settime_ns(descriptor, flags=_TIMER_ABSTIME, initial=at_ns)  # type: ignore[attr-defined]
    else:
        _libc.timerfd_settime(descriptor, _TIMER_ABSTIME, ctypes.byref(_Spec(0, 0, at_ns // _NS, at_ns % _NS)), None)


class Timer:
    """Rings once for each time that it is set to. Belongs to the running event loop."""

    def __init__(self, ring: Callable[[], None]) -> None:
        """ring: called in the event loop, at the time or right after it, and never before."""
        self._ring = ring
        self._loop = asyncio.get_running_loop()
        self._is_set = False
        #: The timerfd, which is made when it is needed first; -1: the system refused one.
        self._descriptor: int | None = None
        self._handle: asyncio.TimerHandle | None = None

    def set(self, at: float) -> None:
        """Ring at that monotonic time, in seconds, at once when it is past; and not at the time that was set before."""
        at = min(at, time.monotonic() + _FARTHEST_S)
        self._is_set = True
        if self._descriptor is None:
            self._descriptor = self._opened()
        if self._descriptor >= 0:
            _set(self._descriptor, max(1, int(at * _NS)))
        else:
            self._cancel_handle()
            self._handle = self._loop.call_at(at, self._rings)

    def cancel(self) -> None:
        """Do not ring."""
        if not self._is_set:
            return
        self._is_set = False
        if self._descriptor is not None and self._descriptor >= 0:
            _set(self._descriptor, 0)
        self._cancel_handle()

    def close(self) -> None:
        """Do not ring, and give the descriptor back."""
        self.cancel()
        if self._descriptor is not None and self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            _open.discard(self._descriptor)
            self._descriptor = None

    def _opened(self) -> int:
        try:
            descriptor = _create()
        except (OSError, AttributeError):
            return -1
        try:
            self._loop.add_reader(descriptor, self._rings)
        except (OSError, NotImplementedError):
            os.close(descriptor)
            return -1
        _open.add(descriptor)
        return descriptor

    def _rings(self) -> None:
        if self._descriptor is not None and self._descriptor >= 0:
            try:
                os.read(self._descriptor, 8)
            except BlockingIOError:
                return  # It was set anew, or cancelled, since the event loop saw it ring.
        if self._is_set:
            self._is_set = False
            self._ring()

    def _cancel_handle(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
