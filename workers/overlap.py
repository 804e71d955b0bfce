"""What an overlap policy asks for beside the plan: `cancel_other` ends the occurrence before, so that the next one may run."""

from __future__ import annotations

from zwheel.broker.store import Store
from zwheel.calls.advance import Advance
from zwheel.errors import BrokerError
from zwheel.job import CancelOutcome
from zwheel.operations.act import cancel
from zwheel.outside import escaped

log = escaped("zwheel.scheduler")


async def cancel_other(store: Store, queue: str, one: Advance) -> bool:
    """Cancel the occurrence before, which is still active. Returns whether it has ended by that.

    Whoever looks at the schedule while another occurrence waits asks again: a worker that dies here leaves nothing undone.
    """
    try:
        outcome = await store.drive(cancel(store.session, one.before, queue))
    except BrokerError as error:
        log.info("schedule %s: its job %s is cancelled at the next look: %s", one.name, one.before, error)
        return False
    log.info("schedule %s: the next occurrence is due, its job %s is to end: %s", one.name, one.before, outcome)
    return outcome is not CancelOutcome.CANCEL_REQUESTED
