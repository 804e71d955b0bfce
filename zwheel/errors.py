"""The errors a user of zwheel can meet.

ZwheelError
├── InvalidInput            a value that zwheel refuses before anything is sent
│   ├── InvalidName         a queue, task, job id or namespace outside the allowed pattern
│   ├── InvalidTime         a naive datetime, NaN, a time out of range
│   ├── PayloadError        arguments that cannot be encoded
│   │   └── PayloadTooLarge
│   ├── BadArguments        arguments that do not fit the task's signature
│   └── ScheduleExists      a schedule of that name is there already
├── UndecodableJob          a stored record or body that cannot be read
├── UnknownTask             no task of that name is registered here, or was published by a worker
├── BrokerError             Redis said no, or said nothing
│   ├── BrokerUnavailable   not reachable within the bounded time; nothing happened, or will
│   ├── OutcomeUnknown      sent, but no answer arrived: it may or may not have happened
│   ├── BrokerFull          Redis is out of memory (maxmemory, noeviction)
│   ├── BrokerRefused       authentication, permissions, a read-only replica, an unsupported server
│   └── SchemaMismatch      the keys were written by an incompatible version, or vanished under a running worker
├── QueueFull               the queue reached its length cap
├── NotDurable              the job is stored, and how safely it was to be stored was not confirmed in time
├── QueueExists             the queue exists already, with another number of shards
├── ReshardUnderWay         the queue is being cut into another number of shards
├── QueueInUse              a queue that is to be removed is served, or has jobs
├── LeaseLost               the claim is no longer valid: another worker may hold the job
├── JobNotFound             no such job
├── ScheduleNotFound        no such schedule
├── ScheduleChanged         a schedule was changed after an edit had read it
├── WaitTimeout             the awaited job did not end in time
├── ConfigError             settings that contradict each other or cannot be read
└── EmbeddedServerError     the private server could not be started or joined
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zwheel.plain import counted, cut, escape

#: No message needs to be longer, characters.
_LONGEST = 4_000


class ZwheelError(Exception):
    """Root of every error raised by zwheel. Its text is one line, whatever ids, names and answers it quotes."""

    def __str__(self) -> str:
        """The message: control characters escaped, cut when something in it is huge."""
        return escape(cut(super().__str__(), _LONGEST))


class InvalidInput(ZwheelError, ValueError):
    """A value that zwheel refuses before anything is sent."""


class InvalidName(InvalidInput):
    """A queue, task, job id or namespace outside the allowed pattern."""


class InvalidTime(InvalidInput):
    """A naive datetime, NaN, or a time outside the supported range."""


class PayloadError(InvalidInput):
    """Arguments that cannot be encoded."""


class PayloadTooLarge(PayloadError):
    """An encoded payload over the size limit, in bytes."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(
            f"the payload is {size:,} bytes, over the limit of {limit:,}: "
            "store the data elsewhere and enqueue a reference to it"
        )
        self.size = size
        self.limit = limit


class BadArguments(InvalidInput):
    """Arguments that do not fit the task's signature or its annotations."""


class ScheduleExists(InvalidInput):
    """A schedule of that name is there already: in this queue or another, or it belongs to another owner."""

    def __init__(self, name: str, queue: str, owner: str = "") -> None:
        whose = f" and belongs to {owner}" if owner else ""
        super().__init__(
            f"schedule {name} exists already in queue {queue}{whose}: replace or edit it, or take another name"
        )
        self.name = name
        self.queue = queue
        self.owner = owner


class ScheduleChanged(ZwheelError):
    """A schedule was changed after an edit had read it; the edit changed nothing."""

    def __init__(self, name: str) -> None:
        super().__init__(f"schedule {name} was changed meanwhile: read it and edit it again")
        self.name = name


class UndecodableJob(ZwheelError):
    """A stored record or body that cannot be read by this version."""


class UnknownTask(ZwheelError):
    """No task of that name is registered here, or was published by a worker."""


class BrokerError(ZwheelError):
    """Redis said no, or said nothing."""


class BrokerUnavailable(BrokerError):
    """Redis was not reachable within the bounded time; no try of the request was carried out, or will be."""


class OutcomeUnknown(BrokerError):
    """The request was sent and no answer arrived: it may or may not have happened.

    To enqueue the same job again, by the same client within five minutes, is safe: it gets the first answer. After that,
    and from another process, it is as safe as the job's tombstone lasts (`keep`).
    """


class BrokerFull(BrokerError):
    """Redis is out of memory and refuses writes that grow; nothing was stored."""


class BrokerRefused(BrokerError):
    """Redis refused: authentication, permissions, a read-only replica, an unsupported server."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        #: The first word of the server's answer, such as NOPERM or READONLY; '' when it was zwheel that refused.
        self.code = code


class SchemaMismatch(BrokerError):
    """The stored keys were written by a version this one cannot work with, or vanished under a running worker."""


class QueueFull(ZwheelError):
    """The queue reached its length cap; nothing was stored."""

    def __init__(self, queue: str, cap: int, shard: str = "") -> None:
        """cap: of the queue or, where it has several shards, the part of this shard."""
        if shard in ("", queue):
            told = f"queue {queue!r} is full: its cap is {counted(cap, 'job')}"
        else:
            told = f"shard {shard!r} is full: its part of the cap is {counted(cap, 'job')}"
        super().__init__(f"{told}; enqueue again later or raise the cap")
        self.queue = queue
        self.cap = cap


class QueueExists(ZwheelError):
    """The queue exists already, with another number of shards; nothing was changed."""

    def __init__(self, queue: str, shards: int) -> None:
        super().__init__(f"queue {queue!r} exists already, with {counted(shards, 'shard')}")
        self.queue = queue
        self.shards = shards


class ReshardUnderWay(ZwheelError):
    """The queue is being cut anew already, into another number of shards; nothing was changed."""

    def __init__(self, queue: str, shards: int) -> None:
        super().__init__(
            f"queue {queue!r} is being cut into {counted(shards, 'shard')}: wait until that is done, or bring it to its end with "
            f"`zwheel queue reshard {queue} --shards {shards}`"
        )
        self.queue = queue
        self.shards = shards


class NotDurable(ZwheelError):
    """Jobs are stored, and the server did not confirm in time that they are stored as safely as was asked (`durable`).

    Nothing is lost so far, and nothing is taken back. To enqueue such a job again with the same id is as safe as after
    OutcomeUnknown: it makes no second job, and asks the server once more.
    """

    def __init__(self, message: str, answers: Sequence[Any]) -> None:
        super().__init__(message)
        self.answers = list(answers)
        """The answers (`Enqueued`) to all jobs of the call, or of its chunk; `receipt` says what was reached."""

    @property
    def job_id(self) -> str:
        """The id of the job, or of the first job of the chunk."""
        return str(self.answers[0].job_id)


class QueueInUse(ZwheelError):
    """A queue that is to be removed is served by workers, or has jobs or schedules; it stays."""

    def __init__(self, queue: str, why: str) -> None:
        super().__init__(f"queue {queue!r} is not removed: {why}")
        self.queue = queue


class JobCancelled(ZwheelError):
    """It was asked to cancel the job that this code runs for. Raised by `check_cancelled`; let it end the task."""


class LeaseLost(ZwheelError):
    """The claim is no longer valid: its lease ran out, and another worker may hold the job."""

    def __init__(self, job_id: str, token: int) -> None:
        super().__init__(
            f"job {job_id}: the lease of token {token} is lost; stop working on it, another worker may run it"
        )
        self.job_id = job_id
        self.token = token


class JobNotFound(ZwheelError):
    """No such job: it never existed, or it ended and was not kept."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"no job {job_id}: it never existed, or it ended and was not kept")
        self.job_id = job_id


class ScheduleNotFound(ZwheelError):
    """No such schedule: it was never added, or it was removed."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no schedule {name}: it was never added, or it was removed")
        self.name = name


class WaitTimeout(ZwheelError):
    """The awaited job did not end in time."""

    def __init__(self, message: str, job_id: str = "") -> None:
        super().__init__(message)
        self.job_id = job_id


class ConfigError(ZwheelError):
    """Settings that contradict each other or cannot be read."""


class AppError(ConfigError):
    """The application cannot be imported: a fault of its own, told with its own frames."""

    def __init__(self, message: str, report: str = "") -> None:
        super().__init__(message)
        self.report = report
        """Where it was raised, as Python tells it, from the application's first frame on; '' where the message says it."""


class HookFailed(ZwheelError):
    """A start-up hook of the application failed: the worker process ends without having claimed anything."""


class EmbeddedServerError(ZwheelError):
    """The private server could not be started or joined."""
