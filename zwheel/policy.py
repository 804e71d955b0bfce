"""What is set for a task and for one of its jobs: the policy and the options, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from zwheel.errors import InvalidInput, InvalidTime
from zwheel.job import DEFAULT_QUEUE, QueueName
from zwheel.keys import check_name
from zwheel.record import MAX_ATTEMPTS
from zwheel.retry import Backoff
from zwheel.times import duration_ms

DEFAULT_RETRIES = 10
#: Headers of the job's envelope that zwheel itself reads.
TIMEOUT_HEADER = "zwheel-timeout-ms"
#: The job was made by name, and nothing was known of its task: the worker that knows it checks the arguments. Who says
#: how many attempts there are: the task, or the job.
POLICY_HEADER, BY_TASK, BY_JOB = "zwheel-policy", "task", "job"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPolicy:
    """What holds for every job of a task. Set where the task is registered."""

    queue: QueueName = DEFAULT_QUEUE
    retries: int = DEFAULT_RETRIES
    """How many attempts may follow the first; crashes count."""
    timeout_ms: int | None = None
    """How long one attempt may run, ms; None: as long as it likes."""
    keep_ms: int | None = None
    """How long an ended job leaves a tombstone, ms; None: an hour for ids of the caller's choice, else not at all."""
    backoff: Backoff = Backoff()
    give_up_on: tuple[type[BaseException], ...] = ()
    """Exceptions after which no attempt follows."""
    process: bool = False
    """Run in a process of its own instead of a thread; for functions that hold the CPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """What holds for one job. None: as the task's policy says."""

    at: datetime | None = None
    """Fire time, aware; excludes `delay`."""
    delay: timedelta | float | None = None
    """Fire that long after the server takes it in; timedelta or seconds."""
    id: str | None = None
    queue: str | None = None
    retries: int | None = None
    timeout: timedelta | float | None = None
    keep: timedelta | float | None = None
    dedup: str | None = None
    """Dedup key: while a living job of the queue holds it, further enqueues answer with that job."""
    within: timedelta | float | None = None
    """Hold the dedup key for at least that long, also when the job ended before."""
    headers: Mapping[str, str] | None = None
    replace: bool | None = None
    """Whether a done or dead job of the same id gives way to this one; a cancelled one always does."""


def check_retries(retries: int) -> None:
    """Check how many attempts may follow the first. Raises: InvalidInput."""
    if isinstance(retries, bool) or not isinstance(retries, int) or not 0 <= retries < MAX_ATTEMPTS:
        raise InvalidInput(f"retries: {retries!r} is not a whole number from 0 to {MAX_ATTEMPTS - 1}")


def timeout_ms(timeout: timedelta | float) -> int:
    """Check how long one attempt may run; ms. Raises: InvalidTime."""
    ms = duration_ms(timeout, what="timeout")
    if ms == 0:
        raise InvalidTime("timeout: must be longer than nothing")
    return ms


def make_policy(
    *,
    queue: str,
    retries: int,
    timeout: timedelta | float | None,
    keep: timedelta | float | None,
    backoff: Backoff | None,
    give_up_on: Sequence[type[BaseException]] | type[BaseException],
    process: bool,
) -> TaskPolicy:
    """Check a task's policy. Raises: InvalidInput and its kinds."""
    check_retries(retries)
    if backoff is not None and not isinstance(backoff, Backoff):
        raise InvalidInput(f"backoff: {backoff!r} is not a Backoff; write backoff=Backoff(first=1, factor=2)")
    gives_up = (give_up_on,) if isinstance(give_up_on, type) else tuple(give_up_on)
    for kind in gives_up:
        if not isinstance(kind, type) or not issubclass(kind, BaseException):
            raise InvalidInput(f"give_up_on: {kind!r} is not an exception class")
    if not isinstance(process, bool):
        raise InvalidInput(f"process: {process!r} is neither True nor False")
    return TaskPolicy(
        queue=QueueName(check_name(queue)),
        retries=retries,
        timeout_ms=None if timeout is None else timeout_ms(timeout),
        keep_ms=None if keep is None else duration_ms(keep, what="keep"),
        backoff=backoff or Backoff(),
        give_up_on=gives_up,
        process=process,
    )
