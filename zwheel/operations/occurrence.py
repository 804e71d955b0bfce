"""How an occurrence becomes a job: its id, its record, the headers that tell the handler which occurrence it is."""

from __future__ import annotations

from collections.abc import Sequence

from zwheel.calls.advance import Advance, After, NewOccurrence
from zwheel.calls.enqueue import NewJob
from zwheel.current import (
    CATCH_UP_HEADER,
    NOMINAL_HEADER,
    PREVIOUS_HEADER,
    SCHEDULE_HEADER,
    START_BY_HEADER,
    ZONE_HEADER,
)
from zwheel.job import JobId
from zwheel.payload.codec import Codec, body_context
from zwheel.record import MAX_KEEP_MS, record_tail
from zwheel.schedules import state as records
from zwheel.schedules.definition import Definition, Overlap, occurrence_id
from zwheel.schedules.plan import Due, Outcome, Plan
from zwheel.schedules.state import ScheduleInfo

#: An ended occurrence can be read for so many of the next ones, but at least and at most so long, ms.
_KEEP_OCCURRENCES, _KEEP_LEAST_MS, _KEEP_MOST_MS = 20, 3_600_000, 100 * 86_400_000


def keep_ms(definition: Definition, at_ms: int, next_ms: int | None) -> int:
    """How long an occurrence's tombstone stays, ms. next_ms: the occurrence after it, None when there is none."""
    if definition.keep_ms is not None:
        return min(definition.keep_ms, MAX_KEEP_MS)
    gap = _KEEP_MOST_MS if next_ms is None else max(0, next_ms - at_ms)
    return max(_KEEP_LEAST_MS, min(_KEEP_OCCURRENCES * gap, _KEEP_MOST_MS))


def _record(definition: Definition, codec: Codec, job_id: str, due: Due, kept_ms: int) -> tuple[bytes, bytes]:
    """The record from the worker's field up to the body, and the body. Raises: UndecodableJob, PayloadError."""
    args, kwargs, headers = codec.decode(definition.payload, context=definition.payload_context())
    headers[SCHEDULE_HEADER] = definition.name
    headers[NOMINAL_HEADER] = str(due.at_ms)
    if definition.tz != "UTC":
        headers[ZONE_HEADER] = definition.tz
    if due.previous_ms is not None:
        headers[PREVIOUS_HEADER] = str(due.previous_ms)
    if due.catch_up:
        headers[CATCH_UP_HEADER] = "1"
    if due.by_ms is not None:
        headers[START_BY_HEADER] = f"{due.fire_ms} {due.by_ms}"
    body = codec.encode(args, kwargs, headers, context=body_context(definition.task, job_id))
    return record_tail(definition.task, max_attempts=definition.max_attempts, keep_ms=kept_ms), body


def occurrence_job(
    definition: Definition, codec: Codec, due: Due, next_ms: int | None, *, suffix: str = ""
) -> NewOccurrence:
    """Build the job of one occurrence. Raises: UndecodableJob when the stored arguments cannot be read here."""
    job_id = occurrence_id(definition.name, due.at_ms, suffix)
    tail, body = _record(definition, codec, job_id, due, keep_ms(definition, due.at_ms, next_ms))
    return NewOccurrence(job_id, due.fire_ms, tail + body)


def backfilled(definition: Definition, codec: Codec, at_ms: int, previous_ms: int | None) -> NewJob:
    """Build the job of a past occurrence that is run after all, due now. A cancelled occurrence stays cancelled."""
    job_id = occurrence_id(definition.name, at_ms)
    due = Due(at_ms, 0, True, previous_ms)
    tail, body = _record(definition, codec, job_id, due, keep_ms(definition, at_ms, None))
    return NewJob(
        job_id=JobId(job_id), queue=definition.queue, at_ms=None, delay_ms=0, tail=tail, body=body, replace=None
    )  # fmt: skip


def after_of(definition: Definition, codec: Codec, outcome: Outcome, more: Sequence[NewOccurrence] = ()) -> After:
    """What becomes of a schedule, as the scripts want it."""
    jobs = []
    for i, due in enumerate(outcome.jobs):
        following = outcome.jobs[i + 1].at_ms if i + 1 < len(outcome.jobs) else outcome.state.next_ms
        jobs.append(occurrence_job(definition, codec, due, following))
    tail = records.schedule_tail(outcome.state, definition)
    return After(outcome.state.status.letter, outcome.due_ms, tail, [*jobs, *more])


def advance_of(info: ScheduleInfo, codec: Codec, planned: Plan) -> Advance:
    """One schedule of an advance."""
    free = after_of(info.definition, codec, planned.free)
    if planned.busy is None or planned.after_ms is None:
        return Advance(info.name, info.stamp, free)
    before = occurrence_id(info.name, planned.after_ms)
    cancels = info.definition.overlap is Overlap.CANCEL_OTHER and planned.busy.state.buffered_ms is not None
    return Advance(info.name, info.stamp, free, before, after_of(info.definition, codec, planned.busy), cancels)
