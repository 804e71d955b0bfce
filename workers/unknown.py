"""What becomes of a claimed job whose task is not registered here, or whose command is not allowed here.

It is offered to workers that can run it, put back for a while, or dead.
"""

from __future__ import annotations

from typing import NamedTuple

from zwheel.job import Reason
from zwheel.record import write_failures

from .claims import Claim
from .failure import NotAllowed, earlier_failures
from .peers import Peers

#: How long a job waits before it goes round again, to a worker that may know its task, ms.
FIRST_MS, LONGEST_MS = 1_000, 60_000
#: The kinds of the failure with which a wait begins: its end is an UnknownTask.
_WAITING = ("", NotAllowed.__name__)


class Verdict(NamedTuple):
    """What is to be done with one job."""

    groups: tuple[str, ...]
    """Who know the task: the job is offered to them."""
    failures: bytes
    """For them: the failures without the wait that is over; b"": as they are."""
    dead: bool
    """Nobody has known it for the whole time that it may wait."""
    fresh: bool
    """A wait begins: it is to be noted."""
    age_ms: int
    """How long nobody has known it."""

    @property
    def delay_ms(self) -> int:
        """For how long it is put back: as long as it has waited."""
        return min(LONGEST_MS, max(FIRST_MS, self.age_ms))


async def judge(
    peers: Peers | None, claim: Claim, task: str, now_ms: int, ttl_ms: int, refused: NotAllowed | None = None
) -> Verdict:
    """Ask who knows the task, or with `refused` who may run the command, and decide."""
    needs = refused.needs if refused is not None else frozenset[str]()
    groups, maybe = await peers.who_know(task, needs) if peers is not None else ((), False)
    earlier = earlier_failures(claim)
    # The last failure opened this wait, unless it is of another reason, or the end of an earlier wait.
    seen = bool(earlier) and earlier[-1].reason is Reason.UNKNOWN_TASK and earlier[-1].kind in _WAITING
    age_ms = now_ms - earlier[-1].at_ms if seen else 0
    # Those who know the task may have refused its command: for one that has not read it, the wait is not over.
    over = seen and (refused is not None or not earlier[-1].kind)
    failures = (write_failures(earlier[:-1]) or b"none") if over else b""
    return Verdict(groups, failures, seen and age_ms >= ttl_ms and not maybe, not seen, age_ms)
