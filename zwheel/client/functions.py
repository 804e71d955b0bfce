"""Which callables can be tasks, which of them are async, and what is left to do with what one returned."""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from zwheel.errors import ConfigError


def check_function(function: Callable[..., Any]) -> None:
    """Refuse a callable whose body would not run when a worker calls it. Raises: ConfigError, with the cure."""
    name = getattr(function, "__qualname__", repr(function))
    called = _called(function)
    if hasattr(function, "policy") and hasattr(function, "signature"):
        raise ConfigError(
            f"{name} is a task already: put @wheel.task below the decorator that takes a task, such as cron"
        )
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


def check_process(function: Callable[..., Any]) -> None:
    """Refuse what another process could not find by its module and name. Raises: ConfigError."""
    if not inspect.isfunction(function) or "<" in function.__qualname__:
        raise ConfigError(f"{described(function)}: process=True needs a function at the top of a module")


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine, and does so at once: a worker then calls it in its event loop."""
    return inspect.iscoroutinefunction(_called(function))


def rest_of(result: object) -> Awaitable[object] | None:
    """The awaitable that a task's function returned; None: the function has run to its end.

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


def module_of(function: Callable[..., Any]) -> str:
    """The name of the module a function is in, also where that module is the program that runs.

    `python -m shop.jobs` and `python shop/jobs.py` both run `shop.jobs`, if `shop` is a package with an `__init__.py`.
    """
    name: str = getattr(function, "__module__", None) or type(function).__module__
    if name != "__main__":
        return name
    main = sys.modules["__main__"]
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    if spec is not None and spec.name != "__main__":
        return str(spec.name)
    return module_of_file(Path(file))[1] if file else "main"


def module_of_file(path: Path) -> tuple[Path, str]:
    """The folder from which a file of Python can be imported, and the name by which: its packages included."""
    path = path.absolute()
    folder, name = path.parent, path.stem
    while (folder / "__init__.py").is_file() and folder.name.isidentifier():
        folder, name = folder.parent, f"{folder.name}.{name}"
    return folder, name


def same_function(one: Callable[..., Any], other: Callable[..., Any]) -> bool:
    """Whether two are one function, or the same lines of code: a module may be imported twice, under two names.

    In an interactive session a function that is typed again takes the place of the earlier one.
    """
    if one is other:
        return True
    if not (inspect.isfunction(one) and inspect.isfunction(other)) or one.__qualname__ != other.__qualname__:
        return False
    if one.__module__ == other.__module__ == "__main__" and not hasattr(sys.modules["__main__"], "__file__"):
        return True
    here, there = one.__code__, other.__code__
    if (here.co_filename, here.co_firstlineno) != (there.co_filename, there.co_firstlineno):
        return False
    # Code that is in no file has no lines that could tell it from other code.
    known = not here.co_filename.startswith("<") or (one.__module__ == other.__module__ and here == there)
    return known and "<locals>" not in one.__qualname__


def described(function: Callable[..., Any]) -> str:
    """A function as a person finds it: its module, name, file and line."""
    name = f"{module_of(function)}.{getattr(function, '__qualname__', type(function).__qualname__)}"
    code = getattr(_called(function), "__code__", None)
    return name if code is None else f"{name} ({os.path.basename(code.co_filename)}:{code.co_firstlineno})"


def _called(function: Any) -> Any:
    """The function whose body runs: that of a partial, or an object's `__call__`."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isroutine(function) or inspect.isclass(function):
        return function
    return type(function).__call__ if callable(function) else function


def _last(name: str) -> str:
    return name.rpartition(".")[2]
