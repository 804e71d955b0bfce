"""The exit codes of the command line, and which error ends with which."""

from __future__ import annotations

from enum import IntEnum

from zwheel.errors import (
    BrokerError,
    BrokerUnavailable,
    ConfigError,
    EmbeddedServerError,
    InvalidInput,
    JobNotFound,
    LeaseLost,
    NotDurable,
    OutcomeUnknown,
    QueueExists,
    QueueFull,
    QueueInUse,
    ReshardUnderWay,
    ScheduleChanged,
    ScheduleExists,
    ScheduleNotFound,
    UndecodableJob,
    UnknownTask,
    WaitTimeout,
    ZwheelError,
)


class ExitCode(IntEnum):
    """What a script can rely on. Never renumbered."""

    OK = 0
    UNEXPECTED = 1
    """A fault of zwheel itself, which `--debug` shows; or a start-up hook of the application failed, which the log tells."""
    USAGE = 2
    """An option, a value or a setting that zwheel refuses before anything is sent."""
    UNREACHABLE = 3
    """Redis did not answer: not reachable, or no answer arrived to what was sent."""
    NOT_FOUND = 4
    PARTLY = 5
    """A bulk command did some of its work; the rest is listed. Or a job was stored, and not confirmed as `--durable` asks."""
    REFUSED = 6
    """Wrong state, an id that has a job, a held unique key, a full queue, a missing `--yes`, permissions, a read-only server, a record that
    cannot be read."""
    TIMED_OUT = 7
    """The awaited job did not end in time."""
    JOB_FAILED = 8
    """The awaited job ended dead or cancelled."""
    BROKEN_PROMISE = 9
    """`zwheel verify` found a promise that did not hold in the history."""
    INTERRUPTED = 130
    BROKEN_PIPE = 141
    """The reader of the output went away; said by the code alone."""
    TERMINATED = 143


_BY_ERROR: tuple[tuple[type[ZwheelError], ExitCode], ...] = (
    (ScheduleExists, ExitCode.REFUSED),
    (ScheduleChanged, ExitCode.REFUSED),
    (InvalidInput, ExitCode.USAGE),
    (ConfigError, ExitCode.USAGE),
    (BrokerUnavailable, ExitCode.UNREACHABLE),
    (OutcomeUnknown, ExitCode.UNREACHABLE),
    (EmbeddedServerError, ExitCode.UNREACHABLE),
    (JobNotFound, ExitCode.NOT_FOUND),
    (ScheduleNotFound, ExitCode.NOT_FOUND),
    (UnknownTask, ExitCode.NOT_FOUND),
    (WaitTimeout, ExitCode.TIMED_OUT),
    (QueueExists, ExitCode.REFUSED),
    (ReshardUnderWay, ExitCode.REFUSED),
    (QueueFull, ExitCode.REFUSED),
    (QueueInUse, ExitCode.REFUSED),
    (LeaseLost, ExitCode.REFUSED),
    (NotDurable, ExitCode.PARTLY),
    (BrokerError, ExitCode.REFUSED),
    (UndecodableJob, ExitCode.REFUSED),
)


def exit_code(error: BaseException) -> ExitCode:
    """Give the code an error ends the command with; UNEXPECTED for an error that no command should meet."""
    for kind, code in _BY_ERROR:
        if isinstance(error, kind):
            return code
    return ExitCode.INTERRUPTED if isinstance(error, KeyboardInterrupt) else ExitCode.UNEXPECTED
