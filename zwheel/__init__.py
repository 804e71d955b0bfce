"""zwheel: a distributed job queue that fires jobs at their time, on Redis or Valkey.

Importing it is light; redis is imported when a Wheel is first looked up.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from zwheel._version import __version__

if TYPE_CHECKING:
    from zwheel.calls.enqueue import NewJob
    from zwheel.client.sync import SyncTask, SyncWheel
    from zwheel.client.wheel import Task, Wheel
    from zwheel.current import CurrentJob, CurrentOccurrence, cancel_requested, check_cancelled, current_job
    from zwheel.errors import (
        BadArguments,
        BrokerError,
        BrokerFull,
        BrokerRefused,
        BrokerUnavailable,
        ConfigError,
        EmbeddedServerError,
        HookFailed,
        InvalidInput,
        InvalidName,
        InvalidTime,
        JobCancelled,
        JobNotFound,
        LeaseLost,
        NotDurable,
        OutcomeUnknown,
        PayloadError,
        PayloadTooLarge,
        QueueExists,
        QueueFull,
        QueueInUse,
        ReshardUnderWay,
        ScheduleChanged,
        ScheduleExists,
        ScheduleNotFound,
        SchemaMismatch,
        UndecodableJob,
        UnknownTask,
        WaitTimeout,
        ZwheelError,
    )
    from zwheel.info import DayInfo, QueueInfo, ReshardProgress, WorkerInfo, WorkerState
    from zwheel.job import CancelOutcome, Durability, Enqueued, Failure, Job, JobState, Reason, RescheduleOutcome
    from zwheel.operations.schedules import SyncReport
    from zwheel.payload.codec import Cipher, Codec
    from zwheel.retry import Backoff, Discard, Retry, Snooze
    from zwheel.schedules.calendars import Calendar
    from zwheel.schedules.definition import Definition
    from zwheel.schedules.kinds import Cron, Every, Interval, Times
    from zwheel.schedules.state import Past, ScheduleInfo

_HOME = {
    "zwheel.calls.enqueue": ["NewJob"],
    "zwheel.payload": ["codec"],
    "zwheel.payload.codec": ["Cipher", "Codec"],
    "zwheel.current": ["CurrentJob", "CurrentOccurrence", "cancel_requested", "check_cancelled", "current_job"],
    "zwheel.errors": [
        "BadArguments",
        "BrokerError",
        "BrokerFull",
        "BrokerRefused",
        "BrokerUnavailable",
        "ConfigError",
        "EmbeddedServerError",
        "HookFailed",
        "InvalidInput",
        "InvalidName",
        "InvalidTime",
        "JobCancelled",
        "JobNotFound",
        "LeaseLost",
        "NotDurable",
        "OutcomeUnknown",
        "PayloadError",
        "PayloadTooLarge",
        "QueueExists",
        "ReshardUnderWay",
        "QueueFull",
        "QueueInUse",
        "ScheduleChanged",
        "ScheduleExists",
        "ScheduleNotFound",
        "SchemaMismatch",
        "UndecodableJob",
        "UnknownTask",
        "WaitTimeout",
        "ZwheelError",
    ],
    "zwheel.info": ["DayInfo", "QueueInfo", "ReshardProgress", "WorkerInfo", "WorkerState"],
    "zwheel.job": [
        "CancelOutcome",
        "Durability",
        "Enqueued",
        "Failure",
        "Job",
        "JobState",
        "Reason",
        "RescheduleOutcome",
    ],
    "zwheel.retry": ["Backoff", "Discard", "Retry", "Snooze"],
    "zwheel.operations.schedules": ["SyncReport"],
    "zwheel.schedules.calendars": ["Calendar"],
    "zwheel.schedules.definition": ["Definition"],
    "zwheel.schedules.kinds": ["Cron", "Every", "Interval", "Times"],
    "zwheel.schedules.state": ["Past", "ScheduleInfo"],
    "zwheel.client.sync": ["SyncTask", "SyncWheel"],
    "zwheel.client.wheel": ["Task", "Wheel"],
}
_WHERE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Backoff",
    "BadArguments",
    "BrokerError",
    "BrokerFull",
    "BrokerRefused",
    "BrokerUnavailable",
    "Calendar",
    "CancelOutcome",
    "Cipher",
    "Codec",
    "ConfigError",
    "Cron",
    "CurrentJob",
    "CurrentOccurrence",
    "DayInfo",
    "Definition",
    "Discard",
    "Durability",
    "EmbeddedServerError",
    "Enqueued",
    "Every",
    "Failure",
    "HookFailed",
    "Interval",
    "InvalidInput",
    "InvalidName",
    "InvalidTime",
    "Job",
    "JobCancelled",
    "JobNotFound",
    "JobState",
    "LeaseLost",
    "NewJob",
    "NotDurable",
    "OutcomeUnknown",
    "Past",
    "PayloadError",
    "PayloadTooLarge",
    "QueueExists",
    "QueueFull",
    "QueueInUse",
    "QueueInfo",
    "Reason",
    "RescheduleOutcome",
    "ReshardProgress",
    "ReshardUnderWay",
    "Retry",
    "ScheduleChanged",
    "ScheduleExists",
    "ScheduleInfo",
    "ScheduleNotFound",
    "SchemaMismatch",
    "Snooze",
    "SyncReport",
    "SyncTask",
    "SyncWheel",
    "Task",
    "Times",
    "UndecodableJob",
    "UnknownTask",
    "WaitTimeout",
    "Wheel",
    "WorkerInfo",
    "WorkerState",
    "ZwheelError",
    "__version__",
    "cancel_requested",
    "check_cancelled",
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
