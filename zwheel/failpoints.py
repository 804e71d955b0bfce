"""Named places where a test can make this process die, stop or fail. Nothing happens unless ZWHEEL_FAILPOINTS names one.

    ZWHEEL_FAILPOINTS="complete.before=kill@3,claim.after=stop"

A name is a transition with `before` (not sent yet) or `after` (answered, the answer not used yet); `complete`, `retry`,
`release` or `bury` for a `settle` by which a job ends so; or `handler` around a task's function. `@3` waits for the third time a place is reached; then the place is spent.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping

from zwheel.calls.scripts import NAMES
from zwheel.calls.settle import ENDS
from zwheel.errors import ConfigError, OutcomeUnknown

PLACES = frozenset({f"{name}.{side}" for name in (*NAMES, *ENDS.values(), "handler") for side in ("before", "after")})


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _lose() -> None:
    raise OutcomeUnknown("a failpoint dropped the answer")


ACTIONS: Mapping[str, Callable[[], None]] = {"kill": _kill, "stop": _stop, "lose": _lose}


class Failpoints:
    """The places that are armed in this process."""

    def __init__(self, text: str = "") -> None:
        """Read `place=action[@count]`, separated by commas. Raises: ConfigError."""
        self._lock = threading.Lock()
        self._armed: dict[str, tuple[str, int]] = {}
        self.active = False
        for word in filter(None, (part.strip() for part in text.split(","))):
            place, _, action = word.partition("=")
            action, _, count = action.partition("@")
            self.arm(place, action, int(count) if count.isdigit() else 1)

    def arm(self, place: str, action: str, count: int = 1) -> None:
        """Let `action` (kill, stop, lose) happen when `place` is reached for the `count`-th time."""
        if place not in PLACES or action not in ACTIONS:
            raise ConfigError(f"failpoint {place}={action}: no such place or action")
        with self._lock:
            self._armed[place] = (action, count)
            self.active = True

    def reach(self, place: str) -> None:
        """Say that a place was reached."""
        with self._lock:
            armed = self._armed.get(place)
            if armed is None:
                return
            action, count = armed
            if count > 1:
                self._armed[place] = (action, count - 1)
                return
            del self._armed[place]
            self.active = bool(self._armed)
        ACTIONS[action]()


FAILPOINTS = Failpoints(os.environ.get("ZWHEEL_FAILPOINTS", ""))
