"""Logging for workers and for the applications they run: which job a line belongs to, and lines as text or JSON.

    handler.addFilter(zwheel.logs.JobFilter())
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(job)s%(message)s"))

The filter gives each record `job_id`, `job_task`, `job_queue` and `job_attempt`, '' and 0 outside of a job, and `job`,
which says them in one word: '[01j… shop.remind 1] ', or '' outside of a job. It belongs on a handler: a logger's filter
sees only what is logged through that very logger.
"""

from __future__ import annotations

import json
import logging
import time
from typing import Any

from zwheel.current import CurrentJob, current
from zwheel.job import Job
from zwheel.outside import RECORD_CHARACTERS, TRACEBACK_CHARACTERS, cut, escape

#: What the filter adds to a record.
FIELDS = ("job_id", "job_task", "job_queue", "job_attempt")
_NONE = ("", "", "", 0)


class JobFilter(logging.Filter):
    """Adds to each record the job that its line belongs to; it drops none."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the fields, unless the record brings them."""
        if not hasattr(record, "job_id"):
            values: tuple[object, ...] = _NONE
            holder = current.get(None)
            if holder is not None:
                values = _values(holder.current())
            record.__dict__.update(zip(FIELDS, values, strict=True))
        if not hasattr(record, "job"):
            about: Any = record
            record.job = f"[{about.job_id} {about.job_task} {about.job_attempt}] " if about.job_id else ""
        return True


def job_fields(job: CurrentJob | Job) -> dict[str, object]:
    """The same fields for one record, as its `extra`: for lines about a job that are logged elsewhere."""
    return dict(zip(FIELDS, _values(job), strict=True))


def _values(job: CurrentJob | Job) -> tuple[object, ...]:
    return str(job.id), job.task, str(job.queue), job.attempt


class TextLines(logging.Formatter):
    """One record a line, its time in UTC: what tasks and libraries log may have several lines, and forges none."""

    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__(
            "%(asctime)s.%(msecs)03dZ %(levelname)-7s %(process)d %(name)s: %(job)s%(message)s",
            "%Y-%m-%dT%H:%M:%S",
            defaults={"job": ""},
        )

    def format(self, record: logging.LogRecord) -> str:
        """Indent all lines but the first, and escape each."""
        if record.name == "zwheel.worker":
            # Its message names the job.
            record = logging.makeLogRecord({**record.__dict__, "job": ""})
        lines = cut(super().format(record), RECORD_CHARACTERS).split("\n")
        return "\n    ".join(escape(line) for line in lines)


class JsonLines(logging.Formatter):
    """One record a line of JSON.

    Its fields: time (UTC), level, logger, process, message, and where there are any: job_id, job_task, job_queue,
    job_attempt, exception, stack.
    """

    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        """Write one record as JSON, ASCII only."""
        seconds = self.formatTime(record, "%Y-%m-%dT%H:%M:%S")
        document: dict[str, object] = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
            "message": cut(record.getMessage(), RECORD_CHARACTERS),
        }
        if getattr(record, "job_id", ""):
            document.update({name: getattr(record, name, None) for name in FIELDS})
        exception = record.exc_text or (self.formatException(record.exc_info) if record.exc_info else "")
        if exception:
            document["exception"] = cut(exception, TRACEBACK_CHARACTERS)
        if record.stack_info:
            document["stack"] = cut(self.formatStack(record.stack_info), TRACEBACK_CHARACTERS)
        return json.dumps(document, default=str)
