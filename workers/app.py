"""Finds the wheel that a command line names as `module:attribute`."""

from __future__ import annotations

import importlib
import os
import sys
import sysconfig
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import zwheel
from zwheel.client.functions import module_of_file
from zwheel.client.registry import Registry
from zwheel.errors import AppError, ConfigError, ZwheelError

#: Where the modules of zwheel and of the import system are: their frames say nothing about an application.
_OWN = (*(os.path.dirname(os.path.abspath(file)) + os.sep for file in (zwheel.__file__, __file__)), importlib.__file__)


def add_to_path(directory: str) -> None:
    """Make a directory importable: after Python's own modules, before what is installed."""
    stdlib = sysconfig.get_path("stdlib")
    own = {os.path.realpath(path) for path in (stdlib, os.path.join(stdlib, "lib-dynload"))}
    # Where it stands before them, as `python -m` puts it there, it moves.
    entries = [entry for entry in sys.path if entry not in ("", directory)]
    after = max((n for n, entry in enumerate(entries, 1) if os.path.realpath(entry) in own), default=0)
    sys.path[:] = [*entries[:after], directory, *entries[after:]]


def load_app(name: str, include: Sequence[str] = ()) -> Registry:
    """Import `module:attribute` (or `module`, then its attribute `wheel`) and return the wheel found there.

    The current directory is importable; a path such as `examples/app.py` stands for its module. The files there never
    take the place of one of Python's own modules: a `secrets.py` beside the app is not Python's `secrets`.
    include: further modules whose tasks belong to it, beside the modules that the wheel names itself.
    Raises: ConfigError in one sentence, AppError for whatever a module raises when it is imported.
    """
    module_name, _, attribute = name.partition(":")
    attribute = attribute or "wheel"
    add_to_path(os.getcwd())
    if module_name.endswith(".py"):
        folder, module_name = module_of_file(Path(module_name).resolve())
        add_to_path(str(folder))
    module = import_named(module_name, "name the app as module:attribute")
    found: object = module
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, Registry):
        wheels = [key for key, value in vars(module).items() if isinstance(value, Registry)]
        hint = f"; did you mean {module_name}:{wheels[0]}?" if wheels else ""
        raise ConfigError(f"{module_name}:{attribute} is not a Wheel{hint}")
    found.app = f"{module_name}:{attribute}"
    for more in dict.fromkeys((*found.include, *include)):
        import_named(more, "an included module is named as it is imported, such as shop.jobs")
    return found


def module_of(app: str) -> str:
    """The module of an app as `load_app` names it; '' when a program runs its worker itself."""
    return "" if app.startswith("code:") else app.partition(":")[0]


def import_named(name: str, cure: str) -> ModuleType:
    """Import a module of the application. Raises: ConfigError when there is none, AppError for what it raises."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise ConfigError(f"there is no module {name!r} here: {cure}") from None
        raise _failed(name, error) from error
    except (Exception, SystemExit) as error:
        raise _failed(name, error) from error


def _failed(name: str, error: BaseException) -> AppError:
    """Say what a module raised and where; frames of the import system and of zwheel are left out."""
    told = traceback.TracebackException.from_exception(error)
    own = [frame for frame in told.stack if not frame.filename.startswith((*_OWN, "<frozen "))]
    # Without a stack no heading stands above what follows.
    told.stack = traceback.StackSummary.from_list(own) if own else None  # type: ignore[assignment]
    if isinstance(error, SyntaxError):
        where = f"{error.filename}, line {error.lineno}"
    else:
        where = f"{own[-1].filename}, line {own[-1].lineno}" if own else "nowhere to be seen"
    what = (
        str(error) if isinstance(error, ZwheelError) else "".join(told.format_exception_only()).strip().split("\n")[-1]
    )
    return AppError(
        f"the app cannot be imported, {name} raised: {what} ({where})",
        "" if isinstance(error, ZwheelError) else "".join(told.format()),
    )
