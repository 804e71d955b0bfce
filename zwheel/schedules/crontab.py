"""Crontabs: what their lines say, and what of them cannot be carried over."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from zwheel.errors import InvalidTime
from zwheel.schedules.cron import CronLine
from zwheel.schedules.zones import zone

_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)\Z")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}\$?\Z")
_MOST_LINES = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line that runs a command."""

    line: int
    when: str
    """Five fields, or an alias."""
    zone: str | None
    """CRON_TZ in force at the line; None: none was."""
    command: str
    stdin: str
    """What stood behind the first unescaped %; further ones are line feeds."""
    user: str | None
    """Of the system format."""
    environment: dict[str, str] = field(default_factory=dict)
    jitter_ms: int = 0
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that cannot be carried over, or only in part."""

    line: int
    text: str
    reason: str
    lost: bool = True
    """Whether the line is left out; else it is carried over, and this is worth knowing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crontab:
    """A crontab, read."""

    entries: tuple[Entry, ...]
    problems: tuple[Problem, ...]


def looks_like_system(text: str) -> bool:
    """Whether the lines have a user's name before the command, as in /etc/crontab and /etc/cron.d."""
    votes = [0, 0]
    for raw in text.splitlines()[:_MOST_LINES]:
        line = raw.strip()
        if not line or line.startswith("#") or _VARIABLE.match(line):
            continue
        words = line.split(None, 2 if line.startswith("@") else 6)
        at = 1 if line.startswith("@") else 5
        if len(words) > at:
            votes[bool(_USER.match(words[at])) and len(words) > at + 1] += 1
    return votes[1] > votes[0]


def read_crontab(text: str, *, system: bool) -> Crontab:
    """Read a crontab. A line that cannot be carried over is listed, never raised.

    system: whether lines have a user's name before the command.
    """
    entries: list[Entry] = []
    problems: list[Problem] = []
    environment: dict[str, str] = {}
    mailed = False
    comment: list[str] = []
    for number, raw in enumerate(text.splitlines()[:_MOST_LINES], 1):
        line = raw.strip()
        if not line:
            comment = []
            continue
        if line.startswith("#"):
            comment.append(line.lstrip("# ").rstrip())
            continue
        if found := _VARIABLE.match(line):
            name, value = found[1], _unquoted(found[2])
            environment[name] = value
            if name == "MAILTO" and value and not mailed:
                mailed = True
                text_of = "output is not mailed: it goes to the worker's log, and to the record of a job that fails"
                problems.append(Problem(line=number, text=line, reason=text_of, lost=False))
            comment = []
            continue
        made = _entry(number, line, system, environment, " ".join(comment)[:500])
        comment = []
        if isinstance(made, Problem):
            problems.append(made)
            continue
        entries.append(made)
        if made.user is not None and made.user != "root":
            reason = f"it runs as the worker's user, not as {made.user}"
            problems.append(Problem(line=number, text=line, reason=reason, lost=False))
    return Crontab(entries=tuple(entries), problems=tuple(problems))


def _unquoted(value: str) -> str:
    value = value.strip()
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1]
    return value


def _entry(number: int, line: str, system: bool, environment: dict[str, str], description: str) -> Entry | Problem:
    """Read one line that is no comment and no variable."""

    def problem(reason: str) -> Problem:
        return Problem(line=number, text=line[:500], reason=reason)

    if "\0" in line:
        return problem("it holds a NUL character")
    quiet = line.startswith("-")
    words = (line[1:] if quiet else line).split(None, 1 if line.startswith("@") else 5)
    at = 1 if line.startswith("@") else 5
    if len(words) <= at:
        return problem("it has no command" if len(words) == at else "it is no line of a crontab")
    when, rest = " ".join(words[:at]), words[at]
    if "~" in when:
        return problem("~ draws a random time at each start: write a time, or H for one that stays")
    try:
        CronLine.parse(when)
    except InvalidTime as error:
        return problem(str(error))
    user = None
    if system:
        parts = rest.split(None, 1)
        if len(parts) < 2 or not _USER.match(parts[0]):
            return problem("it has no user and command, as lines of this format do")
        user, rest = parts
    command, stdin = _split_percent(rest)
    if not command.strip():
        return problem("it has no command")
    at_zone = environment.get("CRON_TZ")
    if at_zone is not None:
        try:
            zone(at_zone)
        except InvalidTime as error:
            return problem(f"CRON_TZ: {error}")
    delay = environment.get("RANDOM_DELAY", "")
    jitter = int(delay) * 60_000 if delay.isascii() and delay.isdigit() and len(delay) < 5 else 0
    kept = {k: v for k, v in environment.items() if k not in ("CRON_TZ", "MAILTO", "MAILFROM", "RANDOM_DELAY")}
    return Entry(
        line=number, when=when, zone=at_zone, command=command.strip(), stdin=stdin, user=user, environment=kept,
        jitter_ms=jitter, description=description,
    )  # fmt: skip


def _split_percent(text: str) -> tuple[str, str]:
    r"""Part a command from its input: the first % that is not written \% ends the command, later ones are line feeds."""
    parts = [""]
    escaped = False
    for char in text:
        if escaped:
            parts[-1] += char if char == "%" else "\\" + char
            escaped = False
        elif char == "\\":
            escaped = True
        elif char == "%":
            parts.append("")
        else:
            parts[-1] += char
    if escaped:
        parts[-1] += "\\"
    return parts[0], "\n".join(parts[1:]) + ("\n" if len(parts) > 1 else "")
