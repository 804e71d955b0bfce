"""What becomes of a claimed job whose task is not registered here: offered, put back for a while, or dead."""

from __future__ import annotations

from typing import NamedTuple

from zwheel.job import Reason
from zwheel.record import write_failures

from .claims import Claim
from .failure import earlier_failures
from .peers import Peers

#: How long a job waits before it goes round again, to a worker that may know its task, ms.
FIRST_MS, LONGEST_MS = 1_000, 60_000


class Verdict(NamedTuple):
    """What is to be done with one job."""

    groups: tuple[str, ...]
    """Who know the task: the job is offered to them."""
    failures: bytes
    """For them: the failures without the wait that is over."""
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


async def judge(peers: Peers | None, claim: Claim, task: str, now_ms: int, ttl_ms: int) -> Verdict:
    """Ask who knows the task, and decide."""
    groups, maybe = await peers.who_know(task) if peers is not None else ((), False)
    earlier = earlier_failures(claim)
    # The last failure opened this wait, unless it is of another kind, or the end of an earlier wait.
    seen = bool(earlier) and earlier[-1].reason is Reason.UNKNOWN_TASK and not earlier[-1].kind
    age_ms = now_ms - earlier[-1].at_ms if seen else 0
    failures = (write_failures(earlier[:-1]) or b"none") if seen else b""
    return Verdict(groups, failures, seen and age_ms >= ttl_ms and not maybe, not seen, age_ms)
