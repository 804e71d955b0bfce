"""Tasks: a registered function, its policy, and how a call of it becomes a job."""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Generic, ParamSpec, Self, TypeVar, Unpack, cast

from zwheel.calls import NewJob
from zwheel.client.functions import check_function, check_process, described, is_async, module_of
from zwheel.errors import ConfigError, InvalidInput, InvalidTime
from zwheel.ids import new_job_id
from zwheel.job import Durability, JobId, QueueName
from zwheel.keys import check_job_id, check_name, check_task
from zwheel.payload.arguments import Signature
from zwheel.payload.codec import DEFAULT, Codec, body_context
from zwheel.payload.travel import check_travel
from zwheel.policy import (
    EXPIRES_HEADER,
    TIMEOUT_HEADER,
    JobOptions,
    TaskPolicy,
    check_options,
    check_retries,
    expires_text,
    timeout_ms,
)
from zwheel.record import MAX_KEEP_MS, record_tail
from zwheel.times import DAY_MS, check_ms, duration_ms, to_ms

P = ParamSpec("P")
R = TypeVar("R")

#: A job with an id of the caller's choice leaves a tombstone this long, so that the same id is not run twice, ms.
KEEP_CHOSEN_ID_MS = 3_600_000
DEDUP_KEY_LIMIT = 1024


def dedup_digest(key: str) -> str:
    """Hash a dedup key to the 32 characters that reach Redis: half of its SHA-256, in hex. Raises: InvalidInput."""
    if not isinstance(key, str) or not 0 < len(key) <= DEDUP_KEY_LIMIT:
        raise InvalidInput(f"a dedup key is a text of 1 to {DEDUP_KEY_LIMIT} characters")
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def _tail(task: str, retries: int, keep_ms: int, digest: str | None = None) -> bytes:
    check_retries(retries)
    if keep_ms > MAX_KEEP_MS:
        raise InvalidTime(f"keep: {keep_ms} ms is longer than the limit of 115 days")
    return record_tail(check_task(task), max_attempts=retries + 1, keep_ms=keep_ms, dedup=digest)


_cached_tail = functools.lru_cache(maxsize=4096)(_tail)


def make_job(
    task: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    options: JobOptions | None,
    policy: TaskPolicy,
    codec: Codec = DEFAULT,
    job_id: JobId | None = None,
) -> NewJob:
    """Check and encode one job. Raises: InvalidInput and its kinds, before anything is sent.

    job_id: of a job that is made again; its options say whether it is of the caller's choice.
    """
    if options is None:
        job_id = new_job_id()
        return NewJob(
            job_id=job_id, queue=policy.queue, at_ms=None, delay_ms=0,
            tail=_cached_tail(task, policy.retries, policy.keep_ms or 0),
            body=codec.encode(args, kwargs, context=body_context(task, job_id) if codec.binds else b""),
            durable=policy.durable,
        )  # fmt: skip
    at_ms, delay_ms = fire_time(options.get("at"), options.get("delay"))
    chosen_id, keep, retries, queue = (
        options.get("id"),
        options.get("keep"),
        options.get("retries"),
        options.get("queue"),
    )
    keep_ms = policy.keep_ms if keep is None else duration_ms(keep, what="keep")
    if keep_ms is None:
        keep_ms = KEEP_CHOSEN_ID_MS if chosen_id is not None else 0
    dedup, within, durable = options.get("dedup"), options.get("within"), options.get("durable")
    digest = "" if dedup is None else dedup_digest(dedup)
    window_ms = None
    if within is not None:
        if not digest:
            raise InvalidInput("within= needs a dedup key: pass dedup=")
        window_ms = duration_ms(within, what="within")
    headers, timeout = dict(options.get("headers") or {}), options.get("timeout")
    if timeout is not None:
        headers[TIMEOUT_HEADER] = str(timeout_ms(timeout))
    if (expires := options.get("expires")) is not None:
        headers[EXPIRES_HEADER] = expires_text(expires, at_ms, delay_ms)
    retries = policy.retries if retries is None else retries
    if job_id is None:
        job_id = new_job_id() if chosen_id is None else JobId(check_job_id(chosen_id))
    if (replace := bool(options.get("replace"))) and chosen_id is None:
        raise InvalidInput("replace= needs the id of the job to replace: pass id=")
    return NewJob(
        job_id=job_id,
        queue=policy.queue if queue is None else QueueName(check_name(queue)),
        at_ms=at_ms,
        delay_ms=delay_ms,
        tail=_tail(task, retries, keep_ms, digest) if digest else _cached_tail(task, retries, keep_ms),
        body=codec.encode(args, kwargs, headers or None, context=body_context(task, job_id)),
        dedup=digest,
        window_ms=window_ms,
        replace=replace,
        durable=policy.durable if durable is None else Durability.of(durable),
    )


def fire_time(at: datetime | None, delay: timedelta | float | None) -> tuple[int | None, int]:
    """Turn `at` or `delay` into (fire time in ms or None, delay in ms). Raises: InvalidTime."""
    if at is not None:
        if delay is not None:
            raise InvalidTime("pass either at= or delay=, not both")
        if not isinstance(at, datetime):
            raise InvalidTime(f"at: {at!r} is not a datetime")
        return to_ms(at), 0
    if delay is None:
        return None, 0
    delay_ms = duration_ms(delay, what="delay")
    check_ms(time.time_ns() // 1_000_000 + delay_ms + DAY_MS)
    return None, delay_ms


def default_name(function: Callable[..., Any]) -> str:
    """Name a task after its function: `module.function`. Raises: ConfigError for what has no name of its own."""
    name = getattr(function, "__qualname__", "<")
    if "<" in name.replace(".<locals>", ""):
        raise ConfigError(f"{described(function)} has no name of its own: register it with name=")
    return check_task(f"{module_of(function)}.{name}".replace(".<locals>", ""))


class BaseTask(Generic[P, R]):
    """A registered function. Calling it runs it here and now; `job` and `enqueue` make it run on a worker."""

    __slots__ = ("_codec", "_options", "admit", "function", "is_async", "name", "policy", "signature")

    def __init__(self, function: Callable[P, R], name: str | None, policy: TaskPolicy, codec: Codec) -> None:
        check_function(function)
        if policy.process:
            check_process(function)
        self.function = function
        self.name = check_task(name) if name else default_name(function)
        self.policy = policy
        self.signature = Signature(function)
        self.is_async = is_async(function)
        #: Called by a worker before a job starts, with its arguments; it raises what says that this worker may not run such a job.
        self.admit: Callable[..., None] | None = None
        self._codec = codec
        self._options: JobOptions | None = None
        _cached_tail(self.name, policy.retries, policy.keep_ms or 0)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function here and now."""
        return self.function(*args, **kwargs)

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Raise BadArguments when it cannot be called so, or the arguments would not arrive as they are."""
        self.signature.check(args, kwargs)
        check_travel(self.signature, args, kwargs)

    def job(self, *args: P.args, **kwargs: P.kwargs) -> NewJob:
        """Check and encode one call, for `enqueue_many`. Raises: BadArguments, PayloadError, InvalidTime."""
        self.signature.check(args, kwargs)
        job = make_job(self.name, args, kwargs, self._options, self.policy, self._codec)
        if not self.signature.plain:
            check_travel(self.signature, args, kwargs)
        return job

    def options(self, **options: Unpack[JobOptions]) -> Self:
        """Give the same task with options for the jobs made from it; see JobOptions. The task itself stays as it is."""
        given = {name: value for name, value in check_options(options).items() if value is not None}
        return self._with(cast(JobOptions, {**(self._options or {}), **given}))

    def _with(self, options: JobOptions) -> Self:
        copy = object.__new__(type(self))
        for cls in type(self).__mro__:
            for slot in getattr(cls, "__slots__", ()):
                if hasattr(self, slot):
                    object.__setattr__(copy, slot, getattr(self, slot))
        copy._options = options
        return copy

    def __repr__(self) -> str:
        return f"<task {self.name}>"
