"""What a running task can know about its job."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from zwheel.errors import ZwheelError
from zwheel.job import JobId, QueueName
from zwheel.times import to_datetime


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

    @property
    def fire_at(self) -> datetime:
        """When it was due, as an aware UTC datetime."""
        return to_datetime(self.fire_at_ms)


class Holder(Protocol):
    """Whoever runs a job: describes it only when asked, so that a job that never asks pays nothing."""

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
