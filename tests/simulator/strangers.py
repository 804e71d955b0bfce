"""Workers that do not know every task: what becomes of a job that one of them claims is decided as the real ones do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.simulator.life import ALL, RARE
from tests.simulator.promise import must
from zwheel.job import Failure, Reason
from zwheel.record import failures_of, write_failures
from zwheel.workers.claims import Claim
from zwheel.workers.unknown import judge

if TYPE_CHECKING:
    from tests.simulator.actors import Hands
    from tests.simulator.world import World

TTL_MS = 20_000


class _Neighbours:
    """Who knows a task, by a list of workers in which a dead one stands for a while."""

    def __init__(self, world: World) -> None:
        self._world = world

    @property
    def living(self) -> bool:
        return any(actor.process.knows_all for actor in self._world.actors)

    async def who_know(self, task: str, _needs: frozenset[str]) -> tuple[tuple[str, ...], bool]:
        known = task == RARE and (self.living or self._world.time_us < self._world.known_until)
        return ((ALL,) if known else ()), False


def hand_on(hands: Hands, claim: Claim) -> None:
    """Settle a claim of the rare task by a worker that does not know it."""
    world, neighbours = hands.world, _Neighbours(hands.world)
    peers: Any = neighbours
    now_ms = hands.process.session.clock.now_ms()
    found = _now(judge(peers, claim, RARE, now_ms, TTL_MS))
    noted = Failure(at_ms=max(0, now_ms), attempt=claim.attempt, reason=Reason.UNKNOWN_TASK, kind="", message="")
    if found.known:
        hands.settler.offer(claim, found.groups, found.failures)
    elif found.dead:
        must(not neighbours.living, f"I25: {claim.job_id} is dead as unknown while a worker that knows it lives")
        world.mark("dead as unknown")
        ended = Failure(at_ms=max(0, now_ms), attempt=claim.attempt, reason=Reason.UNKNOWN_TASK, kind="U", message="no")
        hands.settler.bury(claim, write_failures([*failures_of(claim.raw), ended]))
    else:
        world.mark("goes round")
        failures = write_failures([*failures_of(claim.raw), noted]) if found.fresh else b""
        # Nobody comes later here who would look for what is offered to nobody.
        hands.settler.release(claim, found.round_ms, failures)


def _now(coroutine: Any) -> Any:
    """The result of a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits")
