"""The jobs of a schedule's past occurrences, to be run after all."""

from __future__ import annotations

from datetime import datetime

from zwheel.calls import NewJob
from zwheel.errors import InvalidInput
from zwheel.operations.occurrence import backfilled
from zwheel.payload.codec import Codec
from zwheel.schedules.state import ScheduleInfo
from zwheel.times import to_ms

#: How many occurrences one backfill may run.
LIMIT = 10_000


def backfill_jobs(info: ScheduleInfo, codec: Codec, start: datetime, end: datetime) -> list[NewJob]:
    """Build a job for each occurrence from `start` to `end`, both included. Raises: InvalidInput when too many."""
    first, last = to_ms(start), to_ms(end)
    if last < first:
        raise InvalidInput("backfill: the end is before the start")
    times = [o.at_ms for o in info.rhythm().between(first - 1, last, LIMIT + 1)]
    if len(times) > LIMIT:
        raise InvalidInput(f"backfill: there are more than {LIMIT:,} occurrences: take a shorter time")
    return [
        backfilled(info.definition, codec, at, times[i - 1] if i else None) for i, at in enumerate(times)
    ]  # fmt: skip
