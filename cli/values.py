"""Reading what a person types: task arguments, headers, days, and options that several commands share."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from zwheel.errors import BrokerRefused, InvalidInput, InvalidTime
from zwheel.keys import check_name
from zwheel.outside import Unreadable
from zwheel.plain import cut
from zwheel.published.shapes import fits
from zwheel.schedules.durations import parse_duration
from zwheel.times import to_ms

from .exits import ExitCode
from .when import human_count, parse_when

if TYPE_CHECKING:
    from zwheel.published.task import PublishedSignature

    from .context import Context

QueueOption = Annotated[
    str | None, typer.Option("--queue", "-q", metavar="NAME", help="The queue; without it, all known queues.")
]
InOption = Annotated[str | None, typer.Option("--in", metavar="DURATION", help="This long from now: 10m, 1h30m, 2d.")]
AtOption = Annotated[
    str | None,
    typer.Option("--at", metavar="TIME", help="At this time: '2026-12-01 09:00 Europe/Berlin', 'tomorrow 09:00'."),
]

_KEYWORD = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(:?=)(.*)\Z", re.DOTALL)
#: A word in a message is cut after so many characters.
_SHOWN_CHARACTERS = 100
_SECRET = re.compile(r"passw|secret|token|api_?key|credential", re.IGNORECASE)
_LONG_PAST = timedelta(days=1)
_SIZE = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)([KMGT]?)(?:i?B)?", re.ASCII | re.IGNORECASE)
#: A number, perhaps with letters behind it: a duration, or what was meant as one.
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)? *[a-z]*\Z", re.ASCII | re.IGNORECASE)
_DAY = re.compile(r"(\d{4})-?(\d{2})-?(\d{2})\Z")


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidInput(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def read_json(text: str | bytes) -> Any:
    """Parse strict JSON: UTF-8, no NaN, no Infinity. Raises: InvalidInput with what is wrong and where."""
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise InvalidInput(f"not JSON: {error.msg} at column {error.colno}") from None
    except UnicodeDecodeError as error:
        raise InvalidInput(f"not UTF-8: byte 0x{error.object[error.start]:02x} at {error.start}") from None
    except RecursionError:
        raise InvalidInput("nested too deep") from None
    except ValueError as error:
        raise InvalidInput(str(error)) from None


@dataclass(frozen=True, slots=True)
class Word:
    """One argument of a task, as it stands on a command line."""

    name: str | None
    """None: by position."""
    text: str
    value: Any = None
    """What it is as JSON, or the text itself."""
    is_text: bool = False
    """Given as `name=text`."""
    error: InvalidInput | None = None
    """Why a word without a name is no JSON: it may still be what the task asks for."""

    @property
    def is_secret(self) -> bool:
        """Whether a secret seems to stand on the command line."""
        return self.name is not None and _SECRET.search(self.name) is not None and not self.text.startswith("@")

    def read(self, signature: PublishedSignature | None, position: int) -> Any:
        """What it is to a task that takes this. Raises: InvalidInput."""
        if signature is None or (self.name is not None and not self.is_text) or self.text.startswith("@"):
            if self.error is not None:
                raise self.error
            return self.value
        if self.name is None:
            shape = signature.shape(position)
            if self.error is None and (shape is None or fits(shape, self.value)):
                return self.value
            if shape is None and self.error is not None:
                raise self.error
        return signature.from_text(position if self.name is None else self.name, self.text)


def read_words(words: Sequence[str]) -> list[Word]:
    """Read the words for a task's arguments, each file and stdin once.

    `key=value` is a text; `key:=json` and a bare word are JSON; `@FILE` in the place of JSON reads it from a file, `@-`
    from stdin. Raises: InvalidInput.
    """
    found = []
    for word in words:
        match = _KEYWORD.match(word)
        if match is not None:
            name, kind, text = match.groups()
            is_text = kind == "="
            found.append(Word(name, text, _text(text) if is_text else _json_word(text, name), is_text))
        elif word.startswith("@"):
            found.append(Word(None, word, _json_word(word)))
        else:
            try:
                found.append(Word(None, _text(word), _json_word(word)))
            except InvalidInput as error:
                found.append(Word(None, _text(word), error=error))
    return found


def task_arguments(
    words: Sequence[Word], signature: PublishedSignature | None = None
) -> tuple[list[Any], dict[str, Any]]:
    """Turn words into args and kwargs; a text becomes what the task's signature asks for. Raises: InvalidInput."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for word in words:
        if word.name is None:
            args.append(word.read(signature, len(args)))
        elif word.name in kwargs:
            raise InvalidInput(f"the argument {word.name} is given twice")
        else:
            kwargs[word.name] = word.read(signature, 0)
    return args, kwargs


def _json_word(text: str, name: str = "") -> Any:
    """Read JSON. name: of the argument; '' for one without, which its own beginning stands for in a message."""
    if text.startswith("@"):
        file = text[1:]
        content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        try:
            return read_json(content)
        except InvalidInput as error:
            raise InvalidInput(f"{'stdin' if file == '-' else file}: {error}") from None
    try:
        return read_json(_text(text))
    except InvalidInput as error:
        if name:
            raise InvalidInput(f"'{name}:=...' is {error}") from None
        short = cut(text, _SHOWN_CHARACTERS)
        hint = f"write '\"{short}\"' for a text, or key={short} for a named one"
        raise InvalidInput(f"'{short}' is {error}: {hint}") from None


def _text(text: str) -> str:
    """Refuse bytes of the command line that were not valid UTF-8, which Python keeps as surrogates."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidInput("an argument is not valid UTF-8") from None
    return text


def headers(pairs: Sequence[str]) -> dict[str, str]:
    """Turn `name=value` words into headers. Raises: InvalidInput."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise InvalidInput(f"--header {pair!r}: write it as name=value")
        found[name] = _text(value)
    return found


@lru_cache(maxsize=1024)
def _milliseconds(text: str) -> timedelta:
    return timedelta(milliseconds=parse_duration(text))


def duration(text: str, what: str) -> timedelta:
    """Read a duration such as 10m. Raises: InvalidTime that names the option."""
    try:
        return _milliseconds(text)
    except InvalidTime as error:
        raise InvalidTime(f"{what}: {error}") from None


def size(text: str, what: str) -> int:
    """Read a size such as 300M or 1.5GiB, in bytes: units of 1,024. Raises: InvalidInput that names the option."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise InvalidInput(f"{what}: {text!r} is not a size; write 300M or 1.5G")
    return int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " "))


def seconds_or_duration(text: str, what: str) -> timedelta:
    """Read `30` as seconds, else a duration. Raises: InvalidTime."""
    return timedelta(seconds=int(text)) if text.isascii() and text.isdigit() else duration(text, what)


def fire_time(
    ctx: Context, in_: str | None, at: str | None, names: tuple[str, str] = ("--in", "--at")
) -> tuple[datetime | None, timedelta | None]:
    """Read --in and --at, or the keys of a line: at most one of `at` and `delay` is not None. Raises: InvalidTime."""
    if in_ is not None and at is not None:
        raise InvalidTime(f"{names[0]} and {names[1]} contradict each other: give one of them")
    if at is None:
        return None, None if in_ is None else duration(in_, names[0])
    try:
        when = parse_when(at, now=ctx.now(), default_tz=ctx.tz)
        to_ms(when)
    except InvalidTime as error:
        raise InvalidTime(f"{names[1]}: {error}") from None
    return when, None


def moment_or_duration(ctx: Context, text: str, what: str) -> datetime | timedelta:
    """Read a duration such as 10m, else a time. Raises: InvalidTime."""
    given = text.strip()
    try:
        return _milliseconds(text)
    except InvalidTime as error:
        if _NUMBER.match(given):
            raise InvalidTime(f"{what}: {error}") from None
    if given.lower() in ("", "now") or not any(c.isdigit() for c in given):
        raise InvalidTime(
            f"{what}: {text!r} is neither a duration such as 10m nor a time such as '2030-12-01 09:00 UTC'"
        )
    try:
        when = parse_when(text, now=ctx.now(), default_tz=ctx.tz)
        to_ms(when)
    except InvalidTime as error:
        raise InvalidTime(f"{what}: {error}") from None
    return when


def note_past(ctx: Context, when: datetime | None) -> None:
    """Say of a fire time that lies a day or more back: a slip in the year looks the same as a job for now."""
    if when is not None and ctx.now() - when > _LONG_PAST:
        ctx.out.note("note: that time is long past: the job is due at once")


def day_name(ctx: Context, text: str) -> str:
    """Read a UTC day: 2026-12-01, 20261201, today, tomorrow. Gives `yyyymmdd`. Raises: InvalidTime."""
    today = ctx.now().date()
    named = {"today": today, "tomorrow": today + timedelta(days=1), "yesterday": today - timedelta(days=1)}
    day = named.get(text.lower())
    if day is not None:
        return day.strftime("%Y%m%d")
    match = _DAY.match(text)
    try:
        if match is None:
            raise ValueError
        date(int(match[1]), int(match[2]), int(match[3]))
    except ValueError:
        raise InvalidTime(f"{text!r} is not a day: write 2026-12-01, today or tomorrow") from None
    return f"{match[1]}{match[2]}{match[3]}"


#: So many known queues are named where one is not known, the most alike first.
_SHOWN_QUEUES = 8
#: A command that looks into each known queue stops after so many; a queue can be named.
MOST_QUEUES = 1000


async def queue_names(ctx: Context, wheel: Any, queue: str | None) -> list[str]:
    """Give the one queue that was named, or all known ones, sorted, and say when there are too many.

    Raises: InvalidName.
    """
    if queue is not None:
        await note_unknown(ctx, wheel, queue)
        return [check_name(queue)]
    names = await wheel.queues()
    if names.unreadable:
        ctx.out.note(
            f"in the list of queues, {human_count(len(names.unreadable), 'name')} that no queue can have: zwheel queue ls shows all"
        )
    if len(names) > MOST_QUEUES:
        ctx.out.note(f"only the first {MOST_QUEUES:,} of {len(names):,} queues are looked at: name one with --queue")
    return list(names[:MOST_QUEUES])


def refused_queue(error: BrokerRefused, name: str, queue: str | None) -> Unreadable:
    """The entry of a listing for a queue that cannot be looked at, or that may not be, among others.

    Raises: it, when that queue was asked for and may not be looked at.
    """
    if queue is not None and error.code != "WRONGTYPE":
        raise error
    return Unreadable(name="(all)", queue=name, reason=str(error))


async def unknown_queue(wheel: Any, named: Iterable[str]) -> str | None:
    """Say which of these queues do not exist, and which ones do; None when all do, or when the list cannot be read.

    Raises: InvalidName.
    """
    wanted = [check_name(name) for name in named]
    try:
        known = await wheel.queues()
    except BrokerRefused:
        return None
    missing = [name for name in wanted if name not in known]
    if not missing:
        return None
    which = f"queue {missing[0]}" if len(missing) == 1 else f"queues {', '.join(missing)}"
    from difflib import get_close_matches

    near = get_close_matches(missing[0], known[:MOST_QUEUES], n=_SHOWN_QUEUES, cutoff=0)
    more = f" and {len(known) - len(near):,} more, see zwheel queue ls" if len(known) > len(near) else ""
    there = f"known queues: {', '.join(near)}{more}" if near else "there are no queues yet"
    return f"{which}: nobody has put a job there, and no worker serves it; {there}"


async def known_queues(wheel: Any, named: Iterable[str]) -> None:
    """Refuse a command that would act on a queue that does not exist. Raises: Refused, InvalidName."""
    from .context import Refused

    sentence = await unknown_queue(wheel, named)
    if sentence is not None:
        raise Refused(sentence, ExitCode.NOT_FOUND)


async def note_unknown(ctx: Context, wheel: Any, queue: str | None) -> None:
    """Say on stderr when a queue does not exist whose name was given to a command that only looks."""
    sentence = None if queue is None else await unknown_queue(wheel, [queue])
    if sentence is not None:
        ctx.out.note(f"note: {sentence}")


def say_cut(ctx: Context, queues: list[str], limit: int, offset: int) -> None:
    """Say of which queues a list shows only a part, with --json too."""
    if not queues:
        return
    page = f"--offset {offset + limit} shows the next ones, --limit more of them"
    note = f"of {', '.join(queues)} there are more than these {limit:,}: {page}"
    if ctx.json:
        ctx.out.tell_json({"note": note, "queues": queues, "limit": limit})
    else:
        ctx.out.note(f"note: {note}")
