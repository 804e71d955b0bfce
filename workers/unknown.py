"""What becomes of a claimed job whose task is not registered here, or whose command is not allowed here.

The job is offered to workers that can run it, or, while there is none, to workers that may come; or it is dead.
"""

from __future__ import annotations

from typing import NamedTuple

from zwheel.job import Reason
from zwheel.record import write_failures

from .claims import Claim
from .failure import NotAllowed, earlier_failures
from .peers import NOBODY, Peers

#: How long a job waits before it goes round again, ms. Few lengths, so that many jobs go out in one call.
_ROUNDS_MS = (1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000)
FIRST_MS = _ROUNDS_MS[0]
#: The kinds of the failure with which a wait begins: its end is an UnknownTask.
_WAITING = ("", NotAllowed.__name__)


class Verdict(NamedTuple):
    """What is to be done with one job."""

    groups: tuple[str, ...]
    """The groups that the job is offered to: they know the task; or NOBODY, where a newcomer finds it."""
    failures: bytes
    """For them: the failures without the wait that is over; b"": as they are."""
    dead: bool
    """Nobody has known it for the whole time that it may wait."""
    fresh: bool
    """A wait begins: it is to be noted."""
    age_ms: int
    """How long nobody has known it."""
    round_ms: int
    """Where nobody knows it: when it goes round again."""

    @property
    def known(self) -> bool:
        """Whether there is a worker that can run it."""
        return self.groups != (NOBODY,)


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
    # Workers that know the task may have refused its command: for a worker that does not, the wait is not over.
    over = seen and (refused is not None or not earlier[-1].kind)
    failures = (write_failures(earlier[:-1]) or b"none") if over else b""
    return Verdict(
        groups or (NOBODY,), failures, seen and age_ms >= ttl_ms and not maybe and not groups, not seen, age_ms,
        _round_ms(age_ms, ttl_ms - age_ms),
    )  # fmt: skip


def _round_ms(age_ms: int, left_ms: int) -> int:
    """When a job goes round again: after as long as it has waited, and no later than it may be dead.

    Example: with 20 s, nobody knows it after 0, 1, 2, 4, 8, 16 and 20 s, when it is dead.
    """
    waited = max((one for one in _ROUNDS_MS if one <= age_ms), default=FIRST_MS)
    ends = next((one for one in _ROUNDS_MS if one >= left_ms), _ROUNDS_MS[-1])
    return min(waited, ends) if left_ms > 0 else waited
