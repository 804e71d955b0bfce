"""Keeps jobs apart that may kill their process: a job that does takes all along that run beside it.

Redis says of each of them only that its lease ran out. Those it says it of twice are suspects, and so is one whose next
attempt is its last. A process starts one suspect at a time, when every other one is back on the wheel: if it was the
culprit, no other suspect loses an attempt. A suspect that ran for a minute is none any more.

Example: a job kills its worker each time, ten run beside it. All eleven lose two attempts, then each of the ten ends in
a process where no other suspect runs, and only the culprit goes on losing attempts.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable

from zwheel.errors import UndecodableJob
from zwheel.job import Reason
from zwheel.record import failures_of

from .claims import Claim

#: After how long a running suspect is none any more, seconds.
CLEARED_S = 60.0
#: How long a suspect stays away that met another one, ms.
_AWAY_MS = (500, 2_000)


def is_suspect(claim: Claim) -> bool:
    """Whether a job may have killed its process: by its last two failures, or by the last one before its last attempt."""
    if claim.plain:
        return False
    try:
        failures = [f.reason for f in failures_of(claim.raw) if f.reason != Reason.UNKNOWN_TASK]
    except (ValueError, UndecodableJob):
        return False
    if failures[-1:] != [Reason.LEASE_EXPIRED]:
        return False
    return failures[-2:] == [Reason.LEASE_EXPIRED] * 2 or claim.attempt >= claim.max_attempts


class Apart:
    """The one suspect that a process holds, and the other suspects that it sends away meanwhile."""

    def __init__(self, loop: asyncio.AbstractEventLoop, again: Callable[[], None]) -> None:
        """again: looks once more at what may start."""
        self._loop = loop
        self._again = again
        #: The suspect that this process holds.
        self.suspect: Claim | None = None
        #: Whether the batch that brought the suspect is not yet looked through.
        self._looking = False
        self._leaving: set[Claim] = set()

    def admit(self, claim: Claim) -> bool:
        """Take a suspect in, to be started when `waits` says so; False: there is one, send this one away."""
        if self.suspect is not None:
            self._leaving.add(claim)
            return False
        self.suspect = claim
        self._looking = True
        self._loop.call_soon(self._looked)
        return True

    @staticmethod
    def away_ms() -> int:
        """How long a suspect that was sent away stays away, ms."""
        return random.randint(*_AWAY_MS)

    def _looked(self) -> None:
        self._looking = False
        self._again()

    def waits(self, claim: Claim) -> bool:
        """Whether a claim is the suspect and Redis has not yet taken back all others."""
        return claim is self.suspect and (self._looking or bool(self._leaving))

    def started(self, claim: Claim) -> None:
        """The suspect starts; after a while it is none any more."""
        self._loop.call_later(CLEARED_S, self._cleared, claim)

    def _cleared(self, claim: Claim) -> None:
        if claim is self.suspect:
            self.suspect = None

    def gone(self, claims: Iterable[Claim]) -> None:
        """These are not held any more."""
        if self.suspect is not None and self.suspect in claims:
            self.suspect = None
        if self._leaving:
            self._leaving.difference_update(claims)
            if not self._leaving:
                self._again()
