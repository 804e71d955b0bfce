"""A fault in one Lua file: how it is described, how it is put into the text, and how the scripts are loaded with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files

from zwheel.calls.scripts import NAMES, OVERRIDES, Script, script


@contextmanager
def standing_in(file: str, text: str) -> Iterator[None]:
    """Load scripts with this text in place of a file below `lua/`, as long as the block lasts."""
    OVERRIDES[file] = text
    script.cache_clear()
    try:
        yield
    finally:
        del OVERRIDES[file]
        script.cache_clear()


@dataclass(frozen=True, slots=True)
class Fault:
    """One text of one file, replaced by another. Each table of mutants adds what is to notice it."""

    name: str
    """What is wrong, in words."""
    file: str
    """The file below `lua/`."""
    old: str
    """What stands there, exactly once."""
    new: str
    only: tuple[str, ...] = ()
    """The scripts that get the fault; empty: all that the file is part of."""

    def text(self) -> str:
        """The file with the fault in it. Raises: LookupError when the text to replace is not there exactly once."""
        source = (files("zwheel.lua") / self.file).read_text(encoding="utf-8")
        if (count := source.count(self.old)) != 1:
            raise LookupError(f"{self.name}: {self.old!r} is {count} times in lua/{self.file}, not once")
        return source.replace(self.old, self.new)

    def made(self) -> dict[str, Script]:
        """The faulty scripts by name. Raises: LookupError when the file is no part of one of them."""
        right = {name: script(name) for name in self.only or NAMES}
        with standing_in(self.file, self.text()):
            made = {name: script(name) for name in right if script(name) != right[name]}
        if len(made) < len(self.only or "1"):
            raise LookupError(f"{self.name}: lua/{self.file} is no part of {', '.join(sorted(right.keys() - made))}")
        return made
