"""What an application does when a worker process starts and ends."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from zwheel.client.functions import described
from zwheel.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Hook:
    """One function of the application."""

    kind: str
    """on_startup | on_shutdown | lifespan."""
    name: str
    """What it is called, and where it stands."""
    call: Callable[[], Any]
    """A lifespan gives a context manager, async or not; the others may give a coroutine."""


def make_hook(kind: str, function: Callable[..., Any]) -> Hook:
    """Take a function as a hook. Raises: ConfigError, with the cure."""
    if not callable(function):
        raise ConfigError(f"{kind} stands above a function, without brackets: @wheel.{kind}")
    name = described(function)
    try:
        inspect.signature(function).bind()
    except TypeError:
        raise ConfigError(f"{name}: a worker calls what {kind} names without arguments") from None
    yields = inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function)
    if kind != "lifespan":
        if yields:
            raise ConfigError(f"{name} has a yield: name it with @wheel.lifespan, which runs both halves of it")
        return Hook(kind, name, function)
    if inspect.isasyncgenfunction(function):
        return Hook(kind, name, asynccontextmanager(function))
    if inspect.isgeneratorfunction(function):
        return Hook(kind, name, contextmanager(function))
    if hasattr(function, "__wrapped__") and not inspect.iscoroutinefunction(function):
        # Somebody made it a context manager already.
        return Hook(kind, name, function)
    raise ConfigError(f"{name} has no yield: a lifespan does the first half before its yield and the rest after it")
