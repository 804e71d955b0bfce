"""The names of schedules that are made of commands: they show no secret, and they stay from import to import."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass

from zwheel.schedules.kinds import Kind

_PUNCTUATION = ";|&()<>\n"
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\[[^\]]*\])?\+?=")
#: Words of the shell before a command.
_BEFORE = frozenset({"if", "then", "else", "elif", "while", "until", "do", "!", "{", "time"})
#: Commands that only prepare for the command that a line is about.
_PREPARING = frozenset({
    "cd", "export", "source", ".", "set", "test", "[", "[[", "sleep", "umask", "ulimit", "true", ":", "for", "unset",
    "read", "eval", "fi", "done", "}",
})  # fmt: skip
#: Commands that most often feed another one, and may be all that a line is about.
_SAYING = frozenset({"echo", "printf"})
#: Programs that run the program behind them.
_WRAPPERS = frozenset({"exec", "command", "nice", "ionice", "nohup", "env", "sudo", "chronic", "setsid"})


@dataclass(frozen=True, slots=True)
class Line:
    """What a line of a crontab runs and when; of a line that cannot be read, the command alone."""

    command: str
    stdin: str = ""
    kind: Kind | None = None
    exact: bool = False
    """Whether it is known to be another line than any that was carried over with another command."""


def slug(text: str) -> str:
    """The letters and digits of a text, for a name."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")[:40].rstrip("-")


def program(command: str) -> str:
    """The program that a shell line is about; '' when it cannot be told. Never an argument, which may be a secret."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars=_PUNCTUATION)
    lexer.whitespace_split, lexer.commenters = True, ""
    wrapper, looking = "", True
    try:
        for word in lexer:
            if word and all(char in _PUNCTUATION for char in word):
                # Behind < and > stands no command.
                looking = not set(word) & {"<", ">"}
            elif not looking or _ASSIGNMENT.match(word) or word in _BEFORE:
                continue
            elif (name := word.rpartition("/")[2]) in _WRAPPERS:
                wrapper = name
            elif word in _SAYING:
                wrapper, looking = word, False
            elif word.startswith("-") or word in _PREPARING or not slug(name):
                if wrapper and word.startswith("-"):
                    return wrapper
                looking = False
            else:
                return name
    except ValueError:
        pass  # a quote is not closed: the shell will say so
    return wrapper


def base_name(prefix: str, command: str) -> str:
    """What the name of a command's schedule begins with."""
    return f"{prefix}-{slug(program(command)) or 'command'}"


def name_lines(
    prefix: str, lines: Sequence[Line], unread: Sequence[Line], known: dict[str, Line], taken: Collection[str]
) -> tuple[list[str], set[str]]:
    """Name each line, as the last import did where it is the same one; also tell which known names stay without one.

    Args:
        prefix: What the names begin with.
        lines: The lines that are carried over.
        unread: Lines that cannot be read any more: schedules that may be theirs stay.
        known: What the source's schedules run by now, by name.
        taken: Names that others have.
    """
    left = {name: line for name, line in known.items() if name.startswith(f"{prefix}-")}
    chosen: dict[int, str] = {}
    kept: set[str] = set()

    def claim(key: Callable[[Line], Hashable], wanted: Collection[int], of: Sequence[Line]) -> dict[int, str]:
        names: dict[Hashable, list[str]] = {}
        for name, line in left.items():
            names.setdefault(key(line), []).append(name)
        found = {i: names[key(of[i])].pop(0) for i in wanted if names.get(key(of[i]))}
        for name in found.values():
            del left[name]
        return found

    def program_of(line: Line) -> Hashable:
        return base_name(prefix, line.command)

    def open_lines() -> list[int]:
        return [i for i in range(len(lines)) if i not in chosen]

    chosen |= claim(lambda line: (line.command, line.stdin, line.kind), open_lines(), lines)
    chosen |= claim(lambda line: (line.command, line.stdin), open_lines(), lines)
    same = claim(lambda line: line.command, range(len(unread)), unread)
    kept |= set(same.values())
    vague = [i for i, line in enumerate(unread) if i not in same and not line.exact]
    kept |= set(claim(program_of, vague, unread).values())
    # A line that changed takes its schedule before one of which nothing can be read keeps the rest: else both would run.
    chosen |= claim(program_of, open_lines(), lines)
    if any(not program(unread[i].command) for i in vague):
        kept |= set(left)
    used = {*taken, *known}
    numbers: dict[str, int] = {}
    for i in open_lines():
        base = name = base_name(prefix, lines[i].command)
        number = numbers.get(base, 0)
        while name in used or not number:
            number += 1
            name = base if number == 1 else f"{base}-{number}"
        chosen[i] = name
        numbers[base] = number
        used.add(name)
    return [chosen[i] for i in range(len(lines))], kept
