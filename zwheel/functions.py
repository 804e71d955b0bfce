"""Which callables can be tasks, which of them are async, and what is left to do with what one returned."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from zwheel.errors import ConfigError


def check_function(function: Callable[..., Any]) -> None:
    """Refuse a callable whose body would not run when a worker calls it. Raises: ConfigError, with the cure."""
    name = getattr(function, "__qualname__", repr(function))
    called = _called(function)
    if inspect.isclass(function):
        raise ConfigError(f"{name} is a class: a task is a function, or a method of an object")
    if isinstance(function, classmethod):
        raise ConfigError(f"{name}: register a class method by its class: task(TheClass.{_last(name)})")
    if inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called):
        raise ConfigError(f"{name} is a generator: a worker would call it and never run its body; remove the yield")
    owner = name.rpartition(".")[0]
    if inspect.isfunction(function) and owner and not owner.endswith("<locals>"):
        first = next(iter(inspect.signature(function).parameters), "")
        if first in ("self", "cls"):
            raise ConfigError(
                f"{name} is a method without its object: register it from one, task(the_object.{_last(name)}), "
                "or write a function"
            )


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine, and does so at once: a worker then calls it in its event loop."""
    return inspect.iscoroutinefunction(_called(function))


def rest_of(result: object) -> Awaitable[object] | None:
    """What is left to be awaited of what a task's function returned; None: it has run to its end.

    A decorator that knows nothing of async functions returns their coroutines. Raises: TypeError for a generator.
    """
    if inspect.isawaitable(result):
        return result
    if inspect.isgenerator(result) or inspect.isasyncgen(result):
        raise TypeError("the task returned a generator: its body did not run, since nobody iterates over it")
    return None


async def finish(result: object) -> None:
    """Await what a task's function returned, and what that returns, until nothing is left. Raises: what it raises."""
    while result is not None and (rest := rest_of(result)) is not None:
        result = await rest


def _called(function: Any) -> Any:
    """The function whose body runs: that of a partial, or an object's `__call__`."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isroutine(function) or inspect.isclass(function):
        return function
    return type(function).__call__ if callable(function) else function


def _last(name: str) -> str:
    return name.rpartition(".")[2]
