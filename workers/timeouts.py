"""Tells how long an attempt of a job may run, from its headers or else its task's policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zwheel.client.tasks import BaseTask
from zwheel.errors import UndecodableJob
from zwheel.payload.codec import Codec, body_context
from zwheel.policy import TIMEOUT_HEADER
from zwheel.record import task_and_body


def timeout_of(headers: Mapping[str, str], otherwise: int | None) -> int | None:
    """The timeout in a job's headers, ms; `otherwise` when there is none that can be read."""
    text = headers.get(TIMEOUT_HEADER, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 and int(text) > 0 else otherwise


class Timeouts:
    """Reads timeouts from stored records, for the renewer: it has no claims, only what Redis holds."""

    def __init__(self, tasks: Mapping[str, BaseTask[Any, Any]], codec: Codec) -> None:
        self._tasks = tasks
        self._codec = codec

    def of(self, job_id: bytes, record: bytes) -> int | None:
        """The timeout of a job, ms; None: it has none, or cannot be read here."""
        try:
            name, body = task_and_body(record)
            task = self._tasks.get(name.decode())
            if task is None:
                return None
            context = body_context(task.name, job_id.decode()) if self._codec.binds else b""
            _, _, headers = self._codec.decode(body, context=context)
        except (ValueError, UndecodableJob):
            return None
        return timeout_of(headers, task.policy.timeout_ms)
