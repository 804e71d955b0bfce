"""Crontabs: what their lines say, and what of them cannot be carried over.

Lines are read as Vixie's cron and its heirs on Debian, Red Hat and the BSDs read them. What none of them would run, or
what a worker would run otherwise, is refused with its line and the reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from zwheel.errors import InvalidInput, InvalidTime
from zwheel.schedules.kinds import kind_from_text
from zwheel.schedules.zones import zone

_BLANKS = " \t"
_WORD_GAP = re.compile(r"[ \t]+")
_VARIABLE = re.compile(r"(?:\"([^\"]+)\"|'([^']+)'|([^\s=]+?))[ \t]*=[ \t]*(.*)\Z", re.DOTALL)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_USER = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.@+-]*\$?)(?::[\w.+-]+)?(?:/[\w.+-]+)?\Z", re.ASCII)
_DAY = "(?:SUN|MON|TUE|WED|THU|FRI|SAT|JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC)"
#: What can only be one more field of times: no program is called like that.
_FIELD = re.compile(rf"[*?\d][\d*?/,-]*\Z|{_DAY}(?:[-,/](?:{_DAY}|\d+))*\Z", re.ASCII)
_WHOLE_DAY = (
    "(?:(?:SUN|MON|TUES|WEDNES|THURS|FRI|SATUR)DAY|"
    "JANUARY|FEBRUARY|MARCH|APRIL|JUNE|JULY|AUGUST|SEPTEMBER|OCTOBER|NOVEMBER|DECEMBER)"
)
#: What a field of times is made of, or is meant to be.
_TIMES = re.compile(rf"(?:[*?~\d,/()#HLW-]|{_DAY}|{_WHOLE_DAY})+\Z", re.ASCII | re.IGNORECASE)
_FLAGS = re.compile(r"-([nqs]+)\Z")
_SHELL = re.compile(r"/\S+\Z")
_SHELLS = frozenset({"sh", "bash", "dash", "ksh", "zsh"})
#: Names of FreeBSD for what other words say here.
_OTHER_NAMES = {"@every_minute": "* * * * *", "@every_second": "@every 1s"}
#: Cron's own settings: a command gets them only when it names them.
_SETTINGS = frozenset({"CRON_TZ", "MAILTO", "MAILFROM", "RANDOM_DELAY", "CONTENT_TYPE", "CONTENT_TRANSFER_ENCODING"})
#: These change every command, whether it names them or not.
_FELT = frozenset({"SHELL", "HOME", "PATH", "TZ", "CRON_TZ", "BASH_ENV", "ENV"})
_MOST_LINES = 100_000
#: The longest variable that Linux hands to a program, bytes.
_MOST_VALUE = 131_000
_MISSING = "it has only {} of the 5 fields before its command: one of them, or the space before the command, is missing"
_ANACRON = "it is a line of an anacrontab, with a delay and a name before its command: write a line of a crontab for it"
_MAIL = "output is not mailed: it goes to the worker's log, and to the record of a job that fails"


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
    single: bool = False
    """Whether it is left out while the one before runs (the flag -s of OpenBSD)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that cannot be carried over, or only in part."""

    line: int
    text: str
    reason: str
    lost: bool = True
    """Whether the line is left out; else it is carried over, and this is worth knowing."""
    command: str | None = None
    """What a line that is left out would run, as far as that can be read; None: it is no line that runs anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crontab:
    """A crontab, read."""

    entries: tuple[Entry, ...]
    problems: tuple[Problem, ...]


def crontab_text(raw: bytes) -> str:
    """Decode a crontab. Bytes that are no UTF-8 become lone surrogates, by which their line is refused."""
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return raw.decode("utf-16", "replace")
    return raw.decode("utf-8-sig", "surrogateescape")


def crontab_lines(text: str) -> list[str]:
    """Part a crontab into lines as cron does, with line feeds only; the returns of Windows are taken off."""
    return [line.rstrip("\r").strip(_BLANKS) for line in text.split("\n")]


def variable(line: str) -> tuple[str, str] | None:
    """The name and the value of a line that sets a variable; None for any other."""
    found = _VARIABLE.match(line)
    if found is None:
        return None
    value = found[4].strip()
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
        value = value[1:-1]
    return found[1] or found[2] or found[3], value


def words_of(line: str) -> tuple[str, str]:
    """Part a line into when it runs and the rest; what is missing is ''."""
    given = line.removeprefix("-")
    count = 5
    if given.startswith("@"):
        count = 2 if re.match(r"@every[ \t]", given, re.IGNORECASE) else 1
    parts = _WORD_GAP.split(given.strip(_BLANKS), count)
    return (" ".join(parts[:count]), parts[count]) if len(parts) > count else (" ".join(parts), "")


def user_of(word: str) -> str | None:
    """The user that a word of the system format names, as in root, root:wheel or root/daemon; None: it names none."""
    found = _USER.match(word)
    return found[1] if found else None


def read_crontab(text: str, *, system: bool, is_user: Callable[[str], bool] | None = None) -> Crontab:
    """Read a crontab. A line that cannot be carried over is listed, never raised.

    system: whether lines have a user's name before the command. is_user: whether there is such a user; lines with
    another one are refused then, as cron does. Raises: InvalidInput for more than 100,000 lines.
    """
    lines = crontab_lines(text)
    if len(lines) > _MOST_LINES:
        raise InvalidInput(f"a crontab of more than {_MOST_LINES:,} lines is none")
    reader = _Reader(system, is_user)
    comment: list[str] = []
    for number, line in enumerate(lines, 1):
        if line.startswith("#"):
            comment.append(line.lstrip("# ").rstrip())
            continue
        if line and not reader.sets(number, line):
            drawn = any(text.startswith("|") for text in comment)
            reader.runs(number, line, "" if drawn else " ".join(comment)[:500])
        comment = []
    return Crontab(entries=tuple(reader.entries), problems=tuple(reader.problems))


class _Reader:
    """The lines that were read so far, and the variables that hold."""

    def __init__(self, system: bool, is_user: Callable[[str], bool] | None) -> None:
        self.system = system
        self.is_user = is_user
        self.entries: list[Entry] = []
        self.problems: list[Problem] = []
        self._variables: dict[str, str] = {}
        #: Variables that no command can be given: what is wrong with each.
        self._bad: dict[str, str] = {}

    def _say(self, number: int, line: str, reason: str, *, lost: bool = True, command: str | None = None) -> None:
        shown = line[:500].encode("utf-8", "backslashreplace").decode()
        self.problems.append(Problem(line=number, text=shown, reason=reason, lost=lost, command=command))

    def sets(self, number: int, line: str) -> bool:
        """Take a line that sets a variable; False for any other."""
        found = variable(line)
        if found is None:
            return False
        name, value = found
        parts = _WORD_GAP.split(value)
        if len(parts) > 6 and all(_FIELD.match(word.upper()) for word in parts[1:6]):
            command = " ".join(parts[6:])
            self._say(
                number, line, f"{name} needs a line of its own: here all that follows is its value", command=command
            )
            return True
        self._variables.pop(name, None)
        self._bad.pop(name, None)
        reason = _unfit(name, value)
        if name == "SHELL" and value in _SHELLS:
            self._say(number, line, f"cron needs the whole path of a shell: taken for /bin/{value}", lost=False)
            value = f"/bin/{value}"
            reason = None
        if reason is not None:
            self._bad[name] = f"{name} of line {number}: {reason}"
            self._say(number, line, f"{name}: {reason}; the lines that need it are left out too")
            return True
        if name == "MAILTO" and value and not any(problem.reason == _MAIL for problem in self.problems):
            self._say(number, line, _MAIL, lost=False)
        if name == "TZ" and "CRON_TZ" not in self._variables:
            self._say(number, line, "commands are given TZ; when they run is said by CRON_TZ and --zone", lost=False)
        self._variables[name] = value
        return True

    def runs(self, number: int, line: str, description: str) -> None:
        """Take a line that is no comment and no variable."""
        when, rest = words_of(line)
        words = _WORD_GAP.split(rest)
        extra = 0
        while extra < len(words) - 1 and _FIELD.match(words[extra]) and not when.startswith("@"):
            extra += 1
        user, single = None, False
        try:
            _check_count(line, when, rest, self.system)
            rest = " ".join(words[extra:]) if extra else rest
            if self.system and not extra:
                user, rest = self._user(rest)
            if not extra:
                single, rest = _flags(rest)
            command, stdin = _split_percent(rest)
            self._check(line, when, rest, extra, command)
            kept = self._environment(rest)
        except _Unfit as error:
            self._say(number, line, str(error), command=error.command or _split_percent(rest)[0].strip())
            return
        delay = self._variables.get("RANDOM_DELAY", "")
        self.entries.append(
            Entry(
                line=number, when=_OTHER_NAMES.get(when.lower(), when), zone=self._variables.get("CRON_TZ") or None,
                command=command.strip(_BLANKS), stdin=stdin, user=user, environment=kept,
                jitter_ms=int(delay or 0) * 60_000, description=description, single=single,
            )
        )  # fmt: skip
        if re.search(r"(?<!&)&[ \t]*\Z", command):
            self._say(
                number, line, "what it leaves in the background ends with it; under cron that goes on", lost=False
            )
        if user is not None and user != "root":
            self._say(number, line, f"it runs as the worker's user, not as {user}", lost=False)

    def _user(self, rest: str) -> tuple[str, str]:
        word, *more = _WORD_GAP.split(rest, 1)
        user = user_of(word)
        if user is None or not more:
            raise _Unfit("it has no user and command, as lines of this format do; --user reads it without a user", rest)
        if self.is_user is not None and not self.is_user(user):
            raise _Unfit(f"there is no user {user} here, and cron does not run it: --system carries it over", more[0])
        return user, more[0]

    def _check(self, line: str, when: str, rest: str, extra: int, command: str) -> None:
        """Refuse what no cron runs, or what a worker would run otherwise. Raises: _Unfit."""
        if "\0" in line:
            raise _Unfit("it holds a NUL character")
        if any("\ud800" <= char <= "\udfff" for char in line):
            raise _Unfit("it has bytes that are no UTF-8: convert the file, such as with iconv -f latin1 -t utf-8")
        if extra:
            raise _Unfit(f"it has {5 + extra} fields before its command, and a line of a crontab has 5")
        if not rest:
            if line.startswith("export ") and variable(line[7:]):
                raise _Unfit(f"cron has no export: write {line[7:]}")
            short = not when.startswith("@") and len(when.split()) < 5
            raise _Unfit("it is no line of a crontab" if short else "it has no command")
        if "~" in when:
            raise _Unfit("~ draws a random time at each start: write a time, or H for one that stays")
        if re.match(r"@\d+\Z", when):
            raise _Unfit(f"{when} counts from the end of the run before: write @every {when[1:]}s for a fixed rhythm")
        try:
            kind_from_text(_OTHER_NAMES.get(when.lower(), when))
        except InvalidTime as error:
            none = not when.startswith("@") and not _TIMES.match(when.split()[0])
            raise _Unfit("it is no line of a crontab" if none else str(error)) from None
        if rest.endswith("\\") and not rest.endswith("\\\\"):
            raise _Unfit("it goes on in the next line, which cron does not do: write all of it on one line")
        if not command.strip():
            raise _Unfit("it has no command")

    def _environment(self, rest: str) -> dict[str, str]:
        """What the command is given of the variables that hold here. Raises: _Unfit when a variable that it needs is bad."""

        def named(name: str) -> bool:
            return re.search(rf"(?<![A-Za-z0-9_]){re.escape(name)}(?![A-Za-z0-9_])", rest) is not None

        for name, reason in self._bad.items():
            if name in _FELT or named(name):
                raise _Unfit(reason)
        return {name: value for name, value in self._variables.items() if name not in _SETTINGS or named(name)}


def _check_count(line: str, when: str, rest: str, system: bool) -> None:
    """Refuse a line with too few fields of times. Raises: _Unfit, with the command that stands behind them."""
    if when.startswith("@"):
        if re.match(r"\d+[ \t]", rest):
            raise _Unfit(_ANACRON)
        return
    fields = when.split()
    count = next((i for i, field in enumerate(fields) if not _TIMES.match(field)), len(fields))
    if count in (0, 5):
        return
    try:
        kind_from_text(when)
    except InvalidTime:
        *_, command = _WORD_GAP.split(f"{line.removeprefix('-').strip(_BLANKS)} ", count)
        if system:
            command = _WORD_GAP.split(command, 1)[-1]
        raise _Unfit(_MISSING.format(count), _split_percent(command)[0].strip()) from None


class _Unfit(Exception):
    """Why a line is left out, and its command when more than that was read."""

    def __init__(self, reason: str, command: str = "") -> None:
        super().__init__(reason)
        self.command = command


def _unfit(name: str, value: str) -> str | None:
    """Why a variable cannot be carried over; None: it can."""
    if not _NAME.match(name):
        return f"{name!a} is no name of a variable"
    if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
        return "it has bytes that are no UTF-8: convert the file, such as with iconv -f latin1 -t utf-8"
    if len(value.encode()) > _MOST_VALUE:
        return "it is too long for a program"
    if value.endswith("\\"):
        return "it goes on in the next line, which cron does not do: write all of it on one line"
    if name == "SHELL" and not _SHELL.match(value):
        return f"{ascii(value)[:100]} is not the whole path of a shell, such as /bin/bash"
    if name == "RANDOM_DELAY" and not re.match(r"\d{0,5}\Z", value, re.ASCII):
        return f"{ascii(value)[:100]} is no number of minutes"
    if name == "CRON_TZ" and value:
        try:
            zone(value)
        except InvalidTime as error:
            return str(error)
    return None


def _flags(rest: str) -> tuple[bool, str]:
    """Take the flags of the BSDs off a command: -n and -q are about mail and log, -s means one at a time."""
    single = False
    while rest.startswith("-"):
        word, *more = _WORD_GAP.split(rest, 1)
        found = _FLAGS.match(word)
        if found is None or not more:
            raise _Unfit(f"{word} is no flag that is known before a command: those are -n, -q and -s", rest)
        single = single or "s" in found[1]
        rest = more[0]
    return single, rest


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
    given = "\n".join(parts[1:])
    return parts[0], given if not given or given.endswith("\n") else given + "\n"
