"""What schedules did: their newest decided occurrences, and what their jobs tell."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from zwheel.broker.store import Steps
from zwheel.calls import Session
from zwheel.errors import UndecodableJob
from zwheel.job import JobId
from zwheel.operations.former import schedule_keys
from zwheel.operations.schedules import schedule
from zwheel.outside import score_ms
from zwheel.record import STATES, read_fields
from zwheel.schedules.definition import occurrence_id
from zwheel.schedules.state import Past, ScheduleInfo, Verdict


def schedule_history(session: Session, name: str, queue: str | None) -> Steps[list[Past]]:
    """Tell of the newest decided occurrences, newest first, with what their jobs tell."""
    info = yield from schedule(session, name, queue)
    return (yield from history_of(session, info))


def history_of(session: Session, info: ScheduleInfo) -> Steps[list[Past]]:
    """Tell of a schedule's newest decided occurrences, newest first."""
    keys = yield from schedule_keys(session, info.queue, info.name)
    decided = list(reversed(info.state.recent))
    ids = [
        occurrence_id(info.name, d.at_ms, ":trigger" if d.verdict is Verdict.TRIGGERED else "") for d in decided
    ]  # fmt: skip
    if not ids:
        return []
    raws, kept, died = yield (
        ("HMGET", keys.jobs, *ids), ("ZMSCORE", keys.done, *ids), ("ZMSCORE", keys.dead, *ids),
    )  # fmt: skip
    result = []
    for d, job_id, raw, until, death in zip(decided, ids, raws, kept, died, strict=True):
        ran = d.verdict not in (Verdict.MISSED, Verdict.SKIPPED)
        past = Past(at_ms=d.at_ms, job_id=JobId(job_id) if ran else None, verdict=d.verdict, fire_ms=d.fire_ms)
        if ran and raw is not None:
            past = _past(past, raw, until, death)
        result.append(past)
    return result


def _past(past: Past, raw: bytes, until: Any, death: Any) -> Past:
    """Add what a record tells: its token is the µs of its last claim, its tombstone's end less its keep its own end."""
    try:
        attempt = int(raw[2:6])
        ended, kept_until = score_ms(death), score_ms(until)
        keep = read_fields(raw)[0].get("k")
        if kept_until is not None and keep is not None:
            ended = max(0, kept_until - int(keep))
        return replace(
            past, state=str(STATES.get(chr(raw[1]), "")), attempt=attempt, ended_ms=ended,
            started_ms=int(raw[21:37]) // 1000 if attempt else None,
        )  # fmt: skip
    except (ValueError, IndexError, UndecodableJob):
        return past  # another version wrote that job's record, or it is damaged
