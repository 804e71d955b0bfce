"""What becomes of a claimed occurrence before it starts: it learns of the one before it, or it is too late.

An occurrence that is claimed past the latest time at which it may start goes back to its schedule.
The worker's estimate of the server's clock raises the question, the server's own clock answers it, in the script that
takes the job away: it is the worker's no more, and the schedule's misfire policy decides, at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from zwheel.broker.store import Store, pause_s
from zwheel.calls.define import Late
from zwheel.current import NOMINAL_HEADER, PREVIOUS_HEADER, SCHEDULE_HEADER, START_BY_HEADER
from zwheel.errors import BrokerError, BrokerFull, ScheduleNotFound, UndecodableJob
from zwheel.job import Reason
from zwheel.operations.late import GivenBack, give_back
from zwheel.outside import escaped
from zwheel.record import STATES, failures_of
from zwheel.schedules.definition import occurrence_id

from .claims import Claim

log = escaped("zwheel.worker")


class Occurrences:
    """The occurrences that one worker claims. Occurrences of one schedule that are late together go back together."""

    def __init__(self, store: Store, kick: Callable[[str], None]) -> None:
        self._store = store
        #: Called with a queue in which a schedule has something to decide.
        self._kick = kick
        self._waiting: dict[tuple[str, str], dict[int, Claim]] = {}
        self._batches: dict[tuple[str, str], asyncio.Task[GivenBack]] = {}

    async def may_start(self, claim: Claim) -> bool:
        """Whether it may start; then its claim knows how the previous occurrence stood. Else its schedule has it again.

        Raises: NO_WAY_BACK, when it is too late and cannot go back.
        """
        await self._look_back(claim)
        # Nothing is waited for between this and the start: Redis may have been slow until now, or this process frozen.
        return not (self.is_late(claim) and await self.give_back(claim))

    async def _look_back(self, claim: Claim) -> None:
        """Learn how the occurrence before this one stands; it stays unknown when Redis does not answer."""
        schedule, previous = claim.headers[SCHEDULE_HEADER], claim.headers.get(PREVIOUS_HEADER, "")
        if not schedule or not previous.isdigit():
            return
        try:
            keys = self._store.session.keys(claim.queue)
            (raw,) = await self._store.send([("HGET", keys.jobs, occurrence_id(schedule, int(previous)))])
        except BrokerError:
            return
        claim.previous_outcome = STATES.get(chr(raw[1])) if raw and len(raw) > 1 else None

    def is_late(self, claim: Claim) -> bool:
        """Whether a claimed occurrence may not start any more, as it seems here."""
        by = latest_start_ms(claim)
        return by is not None and max(self._store.session.clock.now_ms(), int(claim.token) // 1000) > by

    async def give_back(self, claim: Claim) -> bool:
        """Give a late one back; False when it may start after all.

        Raises: BrokerFull, UndecodableJob or ScheduleNotFound, when there is no way back.
        """
        name, at = claim.headers[SCHEDULE_HEADER], int(claim.headers[NOMINAL_HEADER])
        key = (claim.queue, name)
        self._waiting.setdefault(key, {})[at] = claim
        if key not in self._batches:
            self._batches[key] = asyncio.create_task(self._batch(key))
        given = await asyncio.shield(self._batches[key])
        if not given.schedule:
            raise ScheduleNotFound(name)
        if at not in given.gone and at not in given.early:
            return await self.give_back(claim)  # it came when the others were under way
        self._kick(claim.queue)
        if at in given.gone:
            log.warning("job %s: no worker started it in time; its schedule decides what becomes of it", claim.job_id)
        return at in given.gone

    async def _batch(self, key: tuple[str, str]) -> GivenBack:
        queue, name = key
        await asyncio.sleep(0)  # occurrences that were claimed together join one batch
        held = self._waiting.pop(key)
        late = {at: Late(claim.job_id, claim.token.decode(), latest_start_ms(claim) or 0) for at, claim in held.items()}
        failures = 0
        try:
            while True:
                try:
                    return await self._store.drive(give_back(self._store.session, queue, name, late))
                except BrokerFull:
                    raise
                except BrokerError as error:
                    failures += 1
                    if all(claim.stop is not None for claim in held.values()):
                        raise
                    log.info("schedule %s: its late occurrences wait for Redis: %s", name, error)
                    await asyncio.sleep(pause_s(failures))
        finally:
            del self._batches[key]


#: Errors after which a late occurrence cannot go back to its schedule: it becomes a dead job, where people see it.
NO_WAY_BACK = (BrokerError, ScheduleNotFound, UndecodableJob)


def latest_start_ms(claim: Claim) -> int | None:
    """The latest time at which it may start; None when any time is good, since it has begun before.

    An occurrence that was handed on unstarted, or that a person moved, has as long after its new fire time.
    """
    try:
        fire, by = map(int, claim.headers[START_BY_HEADER].split(" "))
        int(claim.headers[NOMINAL_HEADER])
    except (ValueError, KeyError):
        return None
    if claim.attempt > 1:
        return by if _never_in_time(claim, by) else None
    return None if claim.fire_at_ms < fire else by + claim.fire_at_ms - fire


def begun_at_ms(claim: Claim) -> int | None:
    """The fire time with which an occurrence goes back that has begun, so that it is not late any more whenever it begins
    again: a ms before its own. None when it goes back as any job does.
    """
    if not claim.began_ns or START_BY_HEADER not in claim.headers:
        return None
    return min(claim.fire_at_ms, int(claim.headers[START_BY_HEADER].partition(" ")[0]) - 1)


def _never_in_time(claim: Claim, by_ms: int) -> bool:
    """Whether it was claimed before, too late each time, by workers that died before they gave it back."""
    failures = failures_of(claim.raw)
    return bool(failures) and all(
        f.reason is Reason.LEASE_EXPIRED and f.claimed_ms is not None and f.claimed_ms > by_ms for f in failures
    )
