"""Loads the Lua scripts: includes put in, hashed by content, so that two versions of a fleet never replace each other's."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

_INCLUDE = re.compile(r"^--#include ([a-z]+)\n", re.MULTILINE)

NAMES = (
    "enqueue", "claim", "step_down", "settle", "offer", "extend", "reap",
    "cancel", "reschedule", "redrive", "purge", "prune", "repair", "advance", "define",
    "depart", "arrive", "reshard",
)  # fmt: skip
"""Every transition: each has a file in `lua/` and a module in `zwheel/calls/`."""


#: Texts that stand in for files below `lua/`, by path. Only tests put something here, before a script is loaded.
OVERRIDES: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Script:
    """One transition's Lua, ready to be sent."""

    name: str
    source: str
    """Whole text with its includes."""
    sha: str
    """SHA-1 in hex, as EVALSHA wants it."""

    @property
    def header(self) -> str:
        """The comment at its top: the contract."""
        lines = self.source.splitlines()[1:]
        return "\n".join(line for line in _leading_comment(lines))

    @property
    def plain(self) -> Script:
        """The same for fakeredis, which does not know the `#!lua` line: commented out, so that every line keeps its number."""
        return _plain(self)


def _leading_comment(lines: list[str]) -> list[str]:
    taken = []
    for line in lines:
        if not line.startswith("-- ") or line.startswith("--#"):
            break
        taken.append(line[3:])
    return taken


@cache
def script(name: str) -> Script:
    """Load one script by its transition's name. Raises: FileNotFoundError for an unknown one."""
    return _made(name, _INCLUDE.sub(lambda match: _text(f"include/{match[1]}.lua"), _text(f"{name}.lua")))


def _text(path: str) -> str:
    """Read a file below `lua/`, or what a test put in its place."""
    given = OVERRIDES.get(path)
    return (files("zwheel.lua") / path).read_text(encoding="utf-8") if given is None else given


@cache
def reading(name: str) -> Script:
    """Load a script that only reads, and so is no transition."""
    return _made(name, _text(f"reading/{name}.lua"))


@cache
def _plain(original: Script) -> Script:
    return _made(original.name, "--" + original.source)


def _made(name: str, source: str) -> Script:
    return Script(name, source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


def all_scripts() -> list[Script]:
    """Load every script."""
    return [script(name) for name in NAMES]
