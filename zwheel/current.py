"""What a running task can know about its job."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol
from zoneinfo import ZoneInfo

from zwheel.errors import JobCancelled, ZwheelError
from zwheel.job import JobId, JobState, QueueName
from zwheel.times import to_datetime

#: Headers of an occurrence's envelope: its schedule, its nominal time and that of the one before it in ms, whether it is
#: run after it was missed, the zone of its schedule, and the fire time that it was given with the latest time at which it
#: may start, both ms.
SCHEDULE_HEADER, NOMINAL_HEADER, PREVIOUS_HEADER = "zwheel-schedule", "zwheel-nominal-ms", "zwheel-previous-ms"
CATCH_UP_HEADER, ZONE_HEADER = "zwheel-catch-up", "zwheel-zone"
START_BY_HEADER = "zwheel-start-by"


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrentOccurrence:
    """Which occurrence of a schedule a job is."""

    schedule: str
    nominal: datetime
    """The time it stands for, in the schedule's zone; the job may start later."""
    previous: datetime | None
    """The nominal time of the occurrence before it; None for the first."""
    previous_outcome: JobState | None
    """State of the previous occurrence when this one started: done, dead, cancelled, or still scheduled or processing.
    None: there is no previous occurrence, or its job is not kept any more."""
    catch_up: bool
    """Whether it was missed and is run afterwards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrentJob:
    """The job that runs now, as the task that runs it sees it."""

    id: JobId
    task: str
    queue: QueueName
    attempt: int
    """Which attempt this is, counted from 1."""
    max_attempts: int
    fire_at_ms: int
    """When it was due, ms since the epoch, UTC; a retry has a new fire time."""
    token: int
    """The fencing token of this claim: larger than that of any earlier claim of the job. Store it with an effect, and
    refuse an effect whose token is smaller than the stored one: then a worker that lost its lease changes nothing."""
    headers: Mapping[str, str] = field(default_factory=dict)
    previous_outcome: JobState | None = None
    """For an occurrence: the state of the previous occurrence when this one started."""

    @property
    def occurrence(self) -> CurrentOccurrence | None:
        """Which occurrence of which schedule it is; None for a job that no schedule made."""
        schedule = self.headers.get(SCHEDULE_HEADER)
        if schedule is None:
            return None
        zone = ZoneInfo(self.headers.get(ZONE_HEADER, "UTC"))
        previous = self.headers.get(PREVIOUS_HEADER)
        return CurrentOccurrence(
            schedule=schedule,
            nominal=to_datetime(int(self.headers[NOMINAL_HEADER])).astimezone(zone),
            previous=None if previous is None else to_datetime(int(previous)).astimezone(zone),
            previous_outcome=self.previous_outcome,
            catch_up=CATCH_UP_HEADER in self.headers,
        )

    @property
    def fire_at(self) -> datetime:
        """When it was due, as an aware UTC datetime."""
        return to_datetime(self.fire_at_ms)


class Holder(Protocol):
    """The holder of a running job: describes the job only when asked, so that a job that never asks pays nothing."""

    @property
    def asked(self) -> bool:
        """Whether it was asked to cancel the job."""
        ...

    def current(self) -> CurrentJob:
        """Describe the job."""
        ...


current: ContextVar[Holder] = ContextVar("zwheel_current_job")


def current_job() -> CurrentJob:
    """Return the job this code runs for. Raises: ZwheelError outside of a job."""
    try:
        return current.get().current()
    except LookupError:
        raise ZwheelError("current_job(): no job is running here") from None


def cancel_requested() -> bool:
    """Whether it was asked to cancel the job that this code runs for. False outside of a job."""
    holder = current.get(None)
    return holder is not None and holder.asked


def check_cancelled() -> None:
    """Raise JobCancelled when it was asked to cancel the job that this code runs for, else do nothing.

    For tasks that are plain functions: they run in a thread, which nothing can stop from outside. Call it between the steps of
    long work. A coroutine is cancelled where it awaits and need not ask.
    """
    if cancel_requested():
        raise JobCancelled("it was asked to cancel this job")
