"""The parts that a worker cannot do without: when one ends unasked, the worker ends too, loudly."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Mapping
from typing import Any

from zwheel.errors import ZwheelError
from zwheel.outside import escaped

log = escaped("zwheel.worker")

#: Parts without which running jobs cannot end well; without any other one they may take their time.
_VITAL = ("heartbeat", "watch over leases", "watchdog", "poller")
#: How often tasks are cancelled that do not end, and how long each time they have for it, seconds.
_CANCELS, _CANCEL_S = 5, 0.2


class PartEnded(ZwheelError):
    """A part of a worker ended by a fault of its own: without it jobs would be lost or stand still, unseen."""

    #: Whether running jobs go back at once: nobody keeps their leases, or settles them.
    at_once = False


class PartThread(threading.Thread):
    """A thread of a worker. It tells the event loop when it ends, for whatever reason."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._loop = asyncio.get_running_loop()
        #: Done when the thread ended, with its error if it has one.
        self.ended: asyncio.Future[None] = self._loop.create_future()

    def work(self) -> None:
        """What it does until it is told to stop."""
        raise NotImplementedError

    def run(self) -> None:
        """Work, and tell of the end."""
        error: BaseException | None = None
        try:
            self.work()
        except BaseException as fault:
            error = fault
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._tell_end, error)

    def _tell_end(self, error: BaseException | None) -> None:
        if self.ended.done():
            return
        if error is None:
            self.ended.set_result(None)
        else:
            self.ended.set_exception(RuntimeError(repr(error)) if isinstance(error, StopIteration) else error)
            self.ended.exception()  # Asked for here, so that nobody else has to.


def failed_part(parts: Mapping[str, asyncio.Future[Any]]) -> PartEnded | None:
    """The failure of the first part that ended, said with its traceback; None while all work."""
    for name, part in parts.items():
        if part.done():
            error = None if part.cancelled() else part.exception()
            failure = PartEnded(f"its {name} failed ({error!r}): this worker ends, to be replaced")
            failure.__cause__ = error
            failure.at_once = name.startswith(_VITAL)
            log.error("%s", failure, exc_info=error)
            return failure
    return None


async def end_parts(parts: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait for their end; once more what swallowed its cancellation, and not for ever."""
    left = set(parts)
    if not left:
        return
    for _ in range(_CANCELS):
        for part in left:
            part.cancel()
        ended, left = await asyncio.wait(left, timeout=_CANCEL_S)
        for part in ended:
            if not part.cancelled() and part.exception() is not None:
                log.info("a part of this worker ended with %r", part.exception())
        if not left:
            return
    log.warning("the worker ends, although parts of it do not: %d", len(left))
