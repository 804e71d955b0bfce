"""zwheel: a distributed job queue that fires jobs at their time, on Redis or Valkey.

Importing it is light; redis is imported when a Wheel is first looked up.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from zwheel._version import __version__

if TYPE_CHECKING:
    from zwheel.calls.enqueue import NewJob
    from zwheel.codec import Cipher, Codec
    from zwheel.context import CurrentJob, current_job
    from zwheel.errors import (
        BadArguments,
        BrokerError,
        BrokerFull,
        BrokerRefused,
        BrokerUnavailable,
        ConfigError,
        EmbeddedServerError,
        InvalidInput,
        InvalidName,
        InvalidTime,
        JobNotFound,
        LeaseLost,
        OutcomeUnknown,
        PayloadError,
        PayloadTooLarge,
        QueueFull,
        SchemaMismatch,
        UndecodableJob,
        UnknownTask,
        WaitTimeout,
        ZwheelError,
    )
    from zwheel.info import DayInfo, QueueInfo, WorkerInfo
    from zwheel.job import CancelOutcome, Enqueued, Failure, Job, JobState, Reason, RescheduleOutcome
    from zwheel.retry import Backoff, Discard, Retry
    from zwheel.sync import SyncTask, SyncWheel
    from zwheel.wheel import Task, Wheel

_HOME = {
    "zwheel.calls.enqueue": ["NewJob"],
    "zwheel.codec": ["Cipher", "Codec"],
    "zwheel.context": ["CurrentJob", "current_job"],
    "zwheel.errors": [
        "BadArguments",
        "BrokerError",
        "BrokerFull",
        "BrokerRefused",
        "BrokerUnavailable",
        "ConfigError",
        "EmbeddedServerError",
        "InvalidInput",
        "InvalidName",
        "InvalidTime",
        "JobNotFound",
        "LeaseLost",
        "OutcomeUnknown",
        "PayloadError",
        "PayloadTooLarge",
        "QueueFull",
        "SchemaMismatch",
        "UndecodableJob",
        "UnknownTask",
        "WaitTimeout",
        "ZwheelError",
    ],
    "zwheel.info": ["DayInfo", "QueueInfo", "WorkerInfo"],
    "zwheel.job": ["CancelOutcome", "Enqueued", "Failure", "Job", "JobState", "Reason", "RescheduleOutcome"],
    "zwheel.retry": ["Backoff", "Discard", "Retry"],
    "zwheel.sync": ["SyncTask", "SyncWheel"],
    "zwheel.wheel": ["Task", "Wheel"],
}
_WHERE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Backoff",
    "BadArguments",
    "BrokerError",
    "BrokerFull",
    "BrokerRefused",
    "BrokerUnavailable",
    "CancelOutcome",
    "Cipher",
    "Codec",
    "ConfigError",
    "CurrentJob",
    "DayInfo",
    "Discard",
    "EmbeddedServerError",
    "Enqueued",
    "Failure",
    "InvalidInput",
    "InvalidName",
    "InvalidTime",
    "Job",
    "JobNotFound",
    "JobState",
    "LeaseLost",
    "NewJob",
    "OutcomeUnknown",
    "PayloadError",
    "PayloadTooLarge",
    "QueueFull",
    "QueueInfo",
    "Reason",
    "RescheduleOutcome",
    "Retry",
    "SchemaMismatch",
    "SyncTask",
    "SyncWheel",
    "Task",
    "UndecodableJob",
    "UnknownTask",
    "WaitTimeout",
    "Wheel",
    "WorkerInfo",
    "ZwheelError",
    "__version__",
    "current_job",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        value = getattr(import_module(_WHERE[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'zwheel' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
