"""What is set for a task and for one of its jobs: the policy and the options, checked."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypedDict, Unpack

from zwheel.errors import InvalidInput, InvalidTime
from zwheel.job import DEFAULT_QUEUE, Durability, QueueName
from zwheel.keys import check_name
from zwheel.record import MAX_ATTEMPTS
from zwheel.retry import Backoff
from zwheel.times import duration_ms, to_ms

Duration = timedelta | float
"""A timedelta, or seconds."""

DEFAULT_RETRIES = 10
#: Headers of the job's envelope that zwheel itself reads.
TIMEOUT_HEADER = "zwheel-timeout-ms"
#: Until when an attempt may start: ms since the epoch, or `+` and how many ms after its fire time.
EXPIRES_HEADER = "zwheel-expires"
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
    durable: Durability | None = None
    """How safely a job is to be stored before its enqueue returns; None: as the wheel is set. Known where the code is."""


class PolicyOptions(TypedDict, total=False):
    """What may be set for a task where it is registered; what is left out has the default of TaskPolicy."""

    queue: str
    retries: int
    """How many attempts may follow the first; crashes count."""
    timeout: Duration | None
    """How long one attempt may run."""
    keep: Duration | None
    """How long an ended job can still be read; None: an hour when the caller chose its id, else not at all."""
    backoff: Backoff | None
    """Delays between attempts."""
    give_up_on: Sequence[type[BaseException]] | type[BaseException]
    """Exceptions after which the job is dead at once."""
    process: bool
    """Run the function in a process of its own."""
    durable: str | None
    """How safely a job is to be stored before its enqueue returns; who enqueues by name says it himself."""


class JobOptions(TypedDict, total=False):
    """What may be set for one job. What is left out, or None, is as the task's policy says."""

    at: datetime | None
    """Fire time, aware; excludes `delay`."""
    delay: Duration | None
    """Fire that long after the server takes it in."""
    id: str | None
    """At most one living job of the queue has it. Of a queue with several shards that holds only for jobs without `dedup`:
    the key decides in which shard a job is, and there another job may have the same id."""
    queue: str | None
    retries: int | None
    timeout: Duration | None
    keep: Duration | None
    dedup: str | None
    """Dedup key: while a living job of the queue holds it, further enqueues answer with that job."""
    within: Duration | None
    """Hold the dedup key for at least that long, also when the job ended before."""
    expires: datetime | Duration | None
    """Until when it may start: a time, aware, or how long after its fire time. An attempt that did not start by then does not
    start, and the job is dead with the reason `expired`."""
    headers: Mapping[str, str] | None
    durable: str | None
    """How safely it is to be stored before the answer: `fsynced`, `replicated(N)` or `memory`."""
    replace: bool | None
    """Whether a done or dead job of the same id gives way to this one; a cancelled one always does."""


_POLICY_OPTIONS = PolicyOptions.__annotations__.keys()
_JOB_OPTIONS = JobOptions.__annotations__.keys()


def check_options(options: JobOptions) -> JobOptions:
    """Give the options back. Raises: TypeError for an option that does not exist."""
    if not options.keys() <= _JOB_OPTIONS:
        raise _no_option(options.keys(), _JOB_OPTIONS)
    return options


def _no_option(given: Collection[str], known: Collection[str]) -> TypeError:
    from difflib import get_close_matches

    name = next(name for name in given if name not in known)
    near = get_close_matches(name, known, n=1)
    return TypeError(f"there is no option {name}={': did you mean ' + near[0] + '=?' if near else ''}")


def check_retries(retries: int) -> None:
    """Check how many attempts may follow the first. Raises: InvalidInput."""
    if isinstance(retries, bool) or not isinstance(retries, int) or not 0 <= retries < MAX_ATTEMPTS:
        raise InvalidInput(f"retries: {retries!r} is not a whole number from 0 to {MAX_ATTEMPTS - 1}")


def timeout_ms(timeout: Duration) -> int:
    """Check how long one attempt may run; ms. Raises: InvalidTime."""
    ms = duration_ms(timeout, what="timeout")
    if ms == 0:
        raise InvalidTime("timeout: must be longer than nothing")
    return ms


def expires_text(expires: datetime | Duration, at_ms: int | None, delay_ms: int) -> str:
    """The header of a job that expires. at_ms, delay_ms: its fire time, as given. Raises: InvalidTime for a time before that."""
    if not isinstance(expires, datetime):
        ms = duration_ms(expires, what="expires")
        if ms == 0:
            raise InvalidTime(
                "expires: must be longer than nothing, for no job starts in the very moment that it is due"
            )
        return f"+{ms}"
    ms = to_ms(expires)
    fire_ms = time.time_ns() // 1_000_000 + delay_ms if at_ms is None else at_ms
    if ms <= fire_ms:
        raise InvalidTime(f"expires: {expires.isoformat()} is not after the job's fire time: it would never start")
    return str(ms)


def expires_ms(headers: Mapping[str, str], fire_at_ms: int) -> int | None:
    """Until when an attempt that is due then may start, ms; None: without end, or what the header says cannot be read."""
    text = headers.get(EXPIRES_HEADER, "")
    digits = text.removeprefix("+")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 16):
        return None
    return int(digits) + (fire_at_ms if text.startswith("+") else 0)


def make_policy(**options: Unpack[PolicyOptions]) -> TaskPolicy:
    """Check a task's policy. Raises: InvalidInput and its kinds; TypeError for an option that there is not."""
    if not options.keys() <= _POLICY_OPTIONS:
        raise _no_option(options.keys(), _POLICY_OPTIONS)
    retries = options.get("retries", DEFAULT_RETRIES)
    check_retries(retries)
    backoff = options.get("backoff")
    if backoff is not None and not isinstance(backoff, Backoff):
        raise InvalidInput(f"backoff: {backoff!r} is not a Backoff; write backoff=Backoff(first=1, factor=2)")
    give_up_on = options.get("give_up_on", ())
    gives_up = (give_up_on,) if isinstance(give_up_on, type) else tuple(give_up_on)
    for kind in gives_up:
        if not isinstance(kind, type) or not issubclass(kind, BaseException):
            raise InvalidInput(f"give_up_on: {kind!r} is not an exception class")
    process = options.get("process", False)
    if not isinstance(process, bool):
        raise InvalidInput(f"process: {process!r} is neither True nor False")
    timeout, keep, durable = options.get("timeout"), options.get("keep"), options.get("durable")
    return TaskPolicy(
        queue=QueueName(check_name(options.get("queue", DEFAULT_QUEUE))),
        retries=retries,
        timeout_ms=None if timeout is None else timeout_ms(timeout),
        keep_ms=None if keep is None else duration_ms(keep, what="keep"),
        backoff=backoff or Backoff(),
        give_up_on=gives_up,
        process=process,
        durable=None if durable is None else Durability.of(durable),
    )
