"""Runs a task's function in a process of its own: for functions that hold the CPU, or that may take the process down."""

from __future__ import annotations

import importlib
from typing import Any

from anyio import CapacityLimiter, to_process

from zwheel.context import CurrentJob, current
from zwheel.errors import ConfigError
from zwheel.tasks import BaseTask


class _Fixed:
    """Answers `current_job` in the child with what the parent sent."""

    def __init__(self, job: CurrentJob) -> None:
        self._job = job

    def current(self) -> CurrentJob:
        return self._job


def _call(module: str, name: str, args: Any, kwargs: dict[str, Any], job: CurrentJob) -> None:
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    function = found.function if isinstance(found, BaseTask) else found
    current.set(_Fixed(job))
    function(*args, **kwargs)


async def call_isolated(
    task: BaseTask[Any, Any], args: Any, kwargs: dict[str, Any], job: CurrentJob, limiter: CapacityLimiter
) -> None:
    """Run it, killing the process when this is cancelled. The function is found by the registry's module and name."""
    module, name = task.function.__module__, task.function.__qualname__
    if "<locals>" in name:
        raise ConfigError(f"task {task.name}: process=True needs a function at the top of a module")
    await to_process.run_sync(_call, module, name, args, kwargs, job, cancellable=True, limiter=limiter)
