"""Reads a page and follows it as a newcomer would: files are written, lines are typed, what is shown is compared.

A fenced block says by its first words what a reader does with it:

    ```python app.py            write this file (any kind of file that has a name)
    ```sh                       type these lines, each must end well
    ```sh other terminal        type this in another terminal, where it goes on running until the page ends
    ```text                     what the lines before show: each line of it, in this order; `...` stands for anything
    <!-- not followed: why -->  above a block that nobody can type here, or that is only to be looked at
    <!-- app.py of README.md -->  above a block: write that file of that page first
    <!-- Ctrl-C -->             above a block: end what runs in the other terminals first

Any other block (json, ini, a dockerfile) is only to be looked at, and needs no word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
_FENCE = re.compile(r"^```(?P<info>[^`\n]*)\n(?P<text>.*?)^```\s*$", re.MULTILINE | re.DOTALL)
_FILE_OF = re.compile(r"<!-- (?P<file>\S+) of (?P<page>\S+) -->\s*\Z")
_END = re.compile(r"<!-- Ctrl-C -->\s*\Z")
_NOT_FOLLOWED = re.compile(r"<!-- not followed: (?P<why>[^\n]+?) -->\s*\Z")
#: Blocks that a reader does something with.
_TYPED = ("sh", "python", "text", "toml")


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    line: int
    """Where it begins, counted from 1."""
    kind: str
    """The first word after the fence."""
    about: str
    """The words after it: the name of a file, `other terminal`, or nothing."""
    text: str
    not_followed: str
    """Why a reader does nothing with it here; '' when they do."""
    before: str = ""
    """The text of the page above it."""

    @property
    def needs(self) -> Block | None:
        """The file of another page that is written first; None: there is no need."""
        found = _FILE_OF.search(self.before)
        if found is None:
            return None
        page = (ROOT / found["page"]).read_text(encoding="utf-8")
        return next(block for block in blocks(page) if block.about == found["file"])

    @property
    def ends_others(self) -> bool:
        """Whether what runs in other terminals is ended first."""
        return _END.search(self.before) is not None


def blocks(page: str) -> Iterator[Block]:
    """The blocks of a page, from the top."""
    for found in _FENCE.finditer(page):
        kind, _, about = found["info"].strip().partition(" ")
        reason = _NOT_FOLLOWED.search(page[: found.start()])
        yield Block(
            line=page.count("\n", 0, found.start()) + 1,
            kind=kind,
            about=about.strip(),
            text=found["text"],
            before=page[: found.start()],
            not_followed=reason["why"] if reason else ("" if kind in _TYPED else "only to be looked at"),
        )


def pages() -> list[Path]:
    """Every page for readers."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def shows(expected: str, shown: str) -> str:
    """The first expected line that is not shown, in the order of the page; '' when all are."""
    at = 0
    for line in expected.splitlines():
        wanted = re.compile(
            r"[^\n]*".join(re.escape(part.rstrip()) for part in line.split("...")) + r"[ \t]*$", re.MULTILINE
        )
        found = wanted.search(shown, at)
        if found is None:
            return line
        at = found.end()
    return ""
