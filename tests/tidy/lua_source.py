"""Scripts as the tidy tests see them: the header taken apart, the includes put in, the bytecode read.

The bytecode comes from Lua 5.1 itself (lupa), so globals are found as the compiler sees them, not by a pattern.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lupa import lua51  # type: ignore[import-untyped]

from zwheel.calls.scripts import script as load

from .tree import ROOT

LUA = ROOT / "lua"
SECTIONS = ("KEYS", "ARGV", "Returns", "Cost", "Keeps")
_TOKEN = re.compile(r"--[^\n]*|'(?:\\.|[^'\\\n])*'|\"(?:\\.|[^\"\\\n])*\"|\[\[.*?\]\]", re.DOTALL)
_INCLUDE = re.compile(r"^--#include (\w+)$", re.MULTILINE)
_ENTRY = re.compile(r"(?:^|\s{2,})(\d+)(\.\.)?\s+(?=\S)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """What a header says about KEYS or ARGV."""

    named: dict[int, str]
    """Position -> what stands there, for each fixed one."""
    more: bool
    """Whether a number of further ones follows, as in `10.. buckets` or `then for each job`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """One file of lua/, read."""

    name: str
    flags: frozenset[str]
    """What the `#!lua` line asks for."""
    sections: dict[str, str]
    """The header: 'summary' and each of SECTIONS, on one line."""
    includes: tuple[str, ...]
    code: str
    """The script as it is sent, its includes in it, without comments."""
    own: str
    """The script's own part of it."""

    def places(self, section: str) -> Places:
        """Read KEYS or ARGV of the header."""
        text = self.sections[section]
        found: list[re.Match[str]] = []
        for entry in _ENTRY.finditer(text):
            if int(entry[1]) == len(found) + 1:
                found.append(entry)
        ends = [entry.start() for entry in found[1:]] + [len(text)]
        named = {
            int(entry[1]): text[entry.end() : end].strip()
            for entry, end in zip(found, ends, strict=True)
            if not entry[2]
        }
        more = any(entry[2] for entry in found) or re.search(r"\bthen\b", text) is not None
        return Places(named=named, more=more)


def without_comments(source: str) -> str:
    """Drop comments, keeping what stands in quotes and the line numbers."""
    return _TOKEN.sub(lambda found: "" if found[0].startswith("--") else found[0], source)


def without_strings(code: str) -> str:
    """Empty every string literal, so that only the program's own words are left."""
    return _TOKEN.sub("''", code)


def scripts() -> list[Path]:
    """List the scripts."""
    return sorted(LUA.glob("*.lua"))


def include_files() -> list[Path]:
    """List the shared functions."""
    return sorted((LUA / "include").glob("*.lua"))


def included(source: str) -> tuple[str, ...]:
    """List the includes a source asks for, in order."""
    return tuple(_INCLUDE.findall(source))


@cache
def read(path: Path) -> Script:
    """Read one script and its header, the includes put in by the loader that production uses."""
    source = path.read_text(encoding="utf-8")
    first, _, rest = source.partition("\n")
    return Script(
        name=path.stem,
        flags=frozenset(first.partition("flags=")[2].split(",")) - {""},
        sections=header(rest),
        includes=included(rest),
        code=without_comments(load(path.stem).source.partition("\n")[2]),
        own=without_comments(rest),
    )


def header(text: str) -> dict[str, str]:
    """Take the leading comment apart: lines that start further in go on with the section before."""
    sections: dict[str, str] = {}
    current = "summary"
    for line in text.splitlines():
        if not line.startswith("-- "):
            break
        word, _, tail = line[3:].partition(" ")
        if word in SECTIONS:
            current = word
            sections[current] = tail.strip()
        elif current in sections:
            sections[current] += "  " + line[3:].strip()
        else:
            sections[current] = line[3:].strip()
    return sections


@dataclass(frozen=True, slots=True)
class Globals:
    """The global names a chunk reads and writes, functions inside it included."""

    read: frozenset[str]
    written: frozenset[str]


def globals_of(code: str) -> Globals:
    """Compile for Lua 5.1 and read the bytecode; raises SyntaxError when it does not compile."""
    runtime = lua51.LuaRuntime(encoding=None, unpack_returned_tuples=True, register_eval=False)
    dump: Any = runtime.eval(
        b"function(code) local f, e = loadstring(code, '=script') if f then return string.dump(f) end return nil, e end"
    )
    result = dump(code.encode())
    if isinstance(result, tuple):
        raise SyntaxError(result[1].decode())
    reader = _Bytecode(result)
    reader.function()
    return Globals(frozenset(reader.read), frozenset(reader.written))


class _Bytecode:
    """Walks a Lua 5.1 dump: `lundump.c` in that release is the format's description."""

    GET_GLOBAL, SET_GLOBAL = 5, 7
    HEADER = 12

    def __init__(self, dump: bytes) -> None:
        # Signature, version 5.1, format 0, little endian, int 4, size_t 8, instruction 4, number 8, not integral.
        assert dump[: self.HEADER] == b"\x1bLua\x51\x00\x01\x04\x08\x04\x08\x00", "an unknown build of Lua 5.1"
        self.dump = dump
        self.at = self.HEADER
        self.read: set[str] = set()
        self.written: set[str] = set()

    def take(self, layout: str) -> Any:
        value = struct.unpack_from("<" + layout, self.dump, self.at)
        self.at += struct.calcsize("<" + layout)
        return value[0] if len(value) == 1 else value

    def text(self) -> str:
        size = self.take("Q")
        piece = self.dump[self.at : self.at + size]
        self.at += size
        return piece[:-1].decode("utf-8", "replace")

    def constant(self) -> object:
        kind = self.take("B")
        if kind == 4:
            return self.text()
        return None if kind == 0 else self.take("?" if kind == 1 else "d")

    def function(self) -> None:
        self.text()
        self.take("iiBBBB")
        code = [self.take("I") for _ in range(self.take("i"))]
        constants = [self.constant() for _ in range(self.take("i"))]
        for instruction in code:
            opcode, operand = instruction & 0x3F, instruction >> 14
            if opcode == self.GET_GLOBAL:
                self.read.add(str(constants[operand]))
            elif opcode == self.SET_GLOBAL:
                self.written.add(str(constants[operand]))
        for _ in range(self.take("i")):
            self.function()
        lines = self.take("i")
        self.at += 4 * lines
        for _ in range(self.take("i")):
            self.text()
            self.take("ii")
        for _ in range(self.take("i")):
            self.text()
