"""The worker's runtime: claims due jobs, runs them, settles how they ended, and keeps what it holds alive."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .settings import WorkerSettings
    from .worker import Worker

__all__ = ["Worker", "WorkerSettings"]

_WHERE = {"Worker": "worker", "WorkerSettings": "settings"}


def __getattr__(name: str) -> Any:
    # Loaded when asked for: what starts before the worker, or runs a task beside it, needs little of all this.
    if name in _WHERE:
        return getattr(import_module(f".{_WHERE[name]}", __package__), name)
    raise AttributeError(f"module 'zwheel.workers' has no attribute {name!r}")
