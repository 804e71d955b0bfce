"""Finds the wheel that a command line names as `module:attribute`."""

from __future__ import annotations

import importlib
import os
import sys
import sysconfig
from pathlib import Path

from zwheel.errors import ConfigError
from zwheel.functions import module_of_file
from zwheel.registry import Registry


def add_to_path(directory: str) -> None:
    """Make a directory importable: after Python's own modules, before what is installed."""
    stdlib = sysconfig.get_path("stdlib")
    own = {os.path.realpath(path) for path in (stdlib, os.path.join(stdlib, "lib-dynload"))}
    # Where it stands before them, as `python -m` puts it there, it moves.
    entries = [entry for entry in sys.path if entry not in ("", directory)]
    after = max((n for n, entry in enumerate(entries, 1) if os.path.realpath(entry) in own), default=0)
    sys.path[:] = [*entries[:after], directory, *entries[after:]]


def load_app(name: str) -> Registry:
    """Import `module:attribute` (or `module`, then its attribute `wheel`) and return the wheel found there.

    The current directory is importable; a path such as `examples/app.py` stands for its module. What lies there never
    takes the place of one of Python's own modules: a `secrets.py` beside the app is not Python's `secrets`.
    Raises: ConfigError in one sentence; an exception of the module itself passes through.
    """
    module_name, _, attribute = name.partition(":")
    attribute = attribute or "wheel"
    add_to_path(os.getcwd())
    if module_name.endswith(".py"):
        folder, module_name = module_of_file(Path(module_name).resolve())
        add_to_path(str(folder))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise ConfigError(f"there is no module {module_name!r} here: name the app as module:attribute") from None
        raise
    found: object = module
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, Registry):
        wheels = [key for key, value in vars(module).items() if isinstance(value, Registry)]
        hint = f"; did you mean {module_name}:{wheels[0]}?" if wheels else ""
        raise ConfigError(f"{module_name}:{attribute} is not a Wheel{hint}")
    found.owner = f"{module_name}:{attribute}"
    return found
