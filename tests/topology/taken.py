"""Tests of other modules, to be run on a cluster."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

#: Who asks for one of these looks into the one server by itself.
_OF_ONE_SERVER = {"fresh", "server", "own_server", "door", "proxy", "blocking"}


def taken(*modules: ModuleType, without: tuple[str, ...] = ()) -> dict[str, Callable[..., Any]]:
    """The tests of these modules that know Redis by its URL alone."""
    return {
        f"{name}_of_{module.__name__.rpartition('_')[2]}": test
        for module in modules
        for name, test in vars(module).items()
        if name.startswith("test_")
        and name not in without
        and not _OF_ONE_SERVER & set(inspect.signature(test).parameters)
    }
