"""What an overlap policy asks for beside the plan: `cancel_other` ends the occurrence before, so that the next one may run."""

from __future__ import annotations

import time

from zwheel.broker.store import Store
from zwheel.calls.advance import Advance
from zwheel.errors import BrokerError
from zwheel.job import CancelOutcome
from zwheel.operations.act import cancel
from zwheel.outside import escaped

log = escaped("zwheel.scheduler")


#: A running job is asked again to end after so long, seconds.
_AGAIN_S = 30.0


class Others:
    """Which occurrences one worker asked to end. It is not state: another worker asks for itself."""

    def __init__(self, store: Store, queue: str) -> None:
        self._store = store
        self._queue = queue
        #: By schedule, which job was asked, and when, monotonic seconds.
        self._asked: dict[str, tuple[str, float]] = {}

    async def cancel(self, one: Advance) -> bool:
        """Cancel the occurrence before, which is still active. Returns whether it has ended by that.

        Whoever looks at the schedule while another occurrence waits asks as well: a worker that dies here leaves nothing undone.
        """
        job_id, asked_at = self._asked.get(one.name, ("", 0.0))
        if job_id == one.before and time.monotonic() - asked_at < _AGAIN_S:
            return False
        try:
            outcome = await self._store.drive(cancel(self._store.session, one.before, self._queue))
        except BrokerError as error:
            log.info("schedule %s: its job %s is cancelled at the next look: %s", one.name, one.before, error)
            return False
        self._asked[one.name] = one.before, time.monotonic()
        log.info("schedule %s: the job of the occurrence before, %s, is to end: %s", one.name, one.before, outcome)
        return outcome is not CancelOutcome.CANCEL_REQUESTED
