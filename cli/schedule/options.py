"""The options that say how a schedule behaves, shared by `schedule add` and `schedule edit`, and what they mean."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, tzinfo
from enum import StrEnum
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from zwheel.cli.values import duration
from zwheel.cli.when import find_zone, human_duration, parse_when
from zwheel.errors import InvalidInput, InvalidTime

if TYPE_CHECKING:
    from zwheel.cli.context import Context
    from zwheel.schedules.calendars import Calendar
    from zwheel.schedules.definition import Definition
    from zwheel.schedules.kinds import Kind

#: What takes an option back: no window, no end, no blocked days.
NOTHING = "none"
#: What gives the choice of how long ended jobs are kept back to zwheel.
AUTO = "auto"


class GapChoice(StrEnum):
    """As zwheel.schedules.zones.Gap, without what it imports."""

    RUN_AFTER = "run_after"
    SKIP = "skip"


class FoldChoice(StrEnum):
    """As zwheel.schedules.zones.Fold."""

    FIRST = "first"
    SECOND = "second"
    BOTH = "both"


class MisfireChoice(StrEnum):
    """As zwheel.schedules.definition.Misfire."""

    SKIP = "skip"
    FIRE_ONCE = "fire_once"
    FIRE_ALL = "fire_all"


class OverlapChoice(StrEnum):
    """As zwheel.schedules.definition.Overlap."""

    ALLOW = "allow"
    SKIP = "skip"
    BUFFER_ONE = "buffer_one"
    CANCEL_OTHER = "cancel_other"


class BlockedChoice(StrEnum):
    """As zwheel.schedules.calendars.OnBlocked."""

    SKIP = "skip"
    NEXT = "next"
    PREVIOUS = "previous"


def _text(name: str, metavar: str, help: str) -> Any:
    return typer.Option(name, metavar=metavar, help=help)


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """The options of the command line; None or empty: not given."""

    zone: Annotated[
        str | None, _text("--zone", "ZONE", "The zone whose wall clock it follows, such as Europe/Berlin; default UTC.")
    ] = None
    gap: Annotated[
        GapChoice | None, typer.Option("--gap", help="For a time that a change of clocks skips; default run_after.")
    ] = None
    fold: Annotated[
        FoldChoice | None, typer.Option("--fold", help="For a time that a change of clocks repeats; default first.")
    ] = None
    misfire: Annotated[
        MisfireChoice | None,
        typer.Option("--misfire", help="For runs that were missed while no worker ran; default fire_once, the newest."),
    ] = None
    misfire_limit: Annotated[
        int | None,
        typer.Option("--misfire-limit", min=1, metavar="N", help="With fire_all, at most so many; default 100."),
    ] = None
    grace: Annotated[
        str | None,
        _text(
            "--grace",
            "DURATION",
            "A run that would start later than this counts as missed, and so do all but the newest of an outage; "
            "default 1m.",
        ),
    ] = None
    window: Annotated[
        str | None, _text("--window", "DURATION", "Leave out missed runs that are older than this; by default, none.")
    ] = None
    overlap: Annotated[
        OverlapChoice | None, typer.Option("--overlap", help="When the run before still waits or runs; default allow.")
    ] = None
    jitter: Annotated[
        str | None,
        _text("--jitter", "DURATION", "Fire up to this much later, always the same for one run; default on time."),
    ] = None
    holidays: Annotated[
        list[str] | None, _text("--holidays", "CODE", "Block public holidays: DE, DE-BE, CN. Repeatable.")
    ] = None
    block_date: Annotated[
        list[str] | None, _text("--block-date", "DAY", "Block a day, such as 2026-12-24. Repeatable.")
    ] = None
    open_date: Annotated[
        list[str] | None, _text("--open-date", "DAY", "Open a day whatever else blocks it. Repeatable.")
    ] = None
    block_day: Annotated[
        list[str] | None, _text("--block-day", "WEEKDAY", "Block a day of the week, such as sat. Repeatable.")
    ] = None
    block_time: Annotated[
        list[str] | None, _text("--block-time", "FROM-TO", "Block a time of day, such as 22:00-06:00. Repeatable.")
    ] = None
    on_blocked: Annotated[
        BlockedChoice | None,
        typer.Option("--on-blocked", help="On a blocked day or time: skip, or move to another day; default skip."),
    ] = None
    start: Annotated[
        str | None,
        _text("--start", "TIME", "No run before this; without a zone it is read in --tz, else in --zone."),
    ] = None
    end: Annotated[str | None, _text("--end", "TIME", "No run after this.")] = None
    max_count: Annotated[str | None, _text("--max-count", "N", "Finish after so many runs.")] = None
    retries: Annotated[
        int | None,
        typer.Option("--retries", min=0, metavar="N", help="How often a job is tried again after a failure."),
    ] = None
    timeout: Annotated[
        str | None, _text("--timeout", "DURATION", "How long one attempt may run; by default, without a limit.")
    ] = None
    keep: Annotated[
        str | None, _text("--keep", "DURATION", "How long ended jobs can still be seen; auto: for 20 occurrences.")
    ] = None
    description: Annotated[str | None, _text("--description", "TEXT", "What it is for.")] = None

    @property
    def anything(self) -> bool:
        """Whether any option was given."""
        return any(value not in (None, (), []) for value in (getattr(self, f.name) for f in fields(self)))


def takes_options(function: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """Give a command all options of `Given`; it takes them as its keyword argument `given`."""
    hints = get_type_hints(Given, include_extras=True)
    own = inspect.signature(function, eval_str=True)
    added = [
        inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hints[f.name])
        for f in fields(Given)
    ]
    names = list(own.parameters)
    parameters = [own.parameters[name] for name in names if name != "given"]
    parameters[names.index("given") : names.index("given")] = added

    @wraps(function)
    async def call(*args: Any, **values: Any) -> None:
        given = Given(**{f.name: values.pop(f.name) for f in fields(Given)})
        await function(*args, **values, given=given)

    call.__dict__["__signature__"] = own.replace(parameters=parameters)
    return call


def keywords(ctx: Context, given: Given, *, zone: str | None, calendar: Calendar | None = None) -> dict[str, Any]:
    """Turn what was given into keywords of `new_schedule`, and nothing else.

    zone: in which --start and --end are read when they name none and --tz is not given; None: they are refused then.
    calendar: what the options of the calendar change. Raises: InvalidInput, InvalidTime that name the option.
    """
    found: dict[str, Any] = {}
    if given.zone is not None:
        found["tz"] = _zone(given.zone)
    for name in ("gap", "fold", "misfire", "overlap", "on_blocked"):
        if (choice := getattr(given, name)) is not None:
            found[name] = str(choice)
    for name in ("misfire_limit", "retries", "description"):
        if (plain := getattr(given, name)) is not None:
            found[name] = plain
    for name in ("grace", "jitter"):
        if (text := getattr(given, name)) is not None:
            found[name] = duration(text, f"--{name}")
    for name, nothing in (("window", NOTHING), ("timeout", NOTHING), ("keep", AUTO)):
        if (text := getattr(given, name)) is not None:
            found[name] = None if text == nothing else duration(text, f"--{name}")
    for name in ("start", "end"):
        if (text := getattr(given, name)) is not None:
            found[name] = None if text == NOTHING else _time(ctx, text, f"--{name}", zone)
    if given.max_count is not None:
        found["max_count"] = None if given.max_count == NOTHING else _count(given.max_count)
    blocked = _calendar(given, calendar)
    if blocked is not None:
        found["calendar"] = blocked if blocked.blocks or blocked.open_dates else None
    return found


def unquoted(first: str) -> InvalidInput:
    """Say what to do about a WHEN that the shell took apart. first: its first word."""
    return InvalidInput(f"{first[:80]!r} is only a part of when it fires: put all of it in quotes, as in '0 9 * * *'")


def _zone(name: str) -> str:
    """Check the name of a zone. Raises: InvalidTime with names that come close."""
    try:
        find_zone(name)
    except InvalidTime as error:
        raise InvalidTime(f"--zone: {error}") from None
    return name


def _time(ctx: Context, text: str, what: str, zone: str | None) -> datetime:
    default: tzinfo | None = ctx.tz if ctx.tz is not None or zone is None else find_zone(zone)
    try:
        return parse_when(text, now=ctx.now(), default_tz=default)
    except InvalidTime as error:
        raise InvalidTime(f"{what}: {error}") from None


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 10:
        raise InvalidInput(f"--max-count: {text!r} is not a whole number, or none")
    return int(text)


def _calendar(given: Given, before: Calendar | None) -> Calendar | None:
    """The calendar before, changed by the options; None when none of them was given."""
    from dataclasses import replace

    from zwheel.schedules.calendars import Calendar

    changed: dict[str, Any] = {}
    for field, option in (
        ("holidays", given.holidays), ("dates", given.block_date), ("open_dates", given.open_date),
        ("weekdays", given.block_day), ("windows", given.block_time),
    ):  # fmt: skip
        if option:
            words = _words(option)
            changed[field] = tuple(word.lower() for word in words) if field == "weekdays" else words
    return replace(before or Calendar(), **changed) if changed else None


def _words(given: Sequence[str]) -> tuple[str, ...]:
    words = dict.fromkeys(word.strip() for text in given for word in text.split(",") if word.strip())
    return () if NOTHING in words else tuple(words)


#: Option of `new_schedule` -> field of a definition.
_FIELDS = {
    "tz": "tz", "gap": "gap", "fold": "fold", "misfire": "misfire", "misfire_limit": "misfire_limit",
    "grace": "grace_ms", "window": "window_ms", "overlap": "overlap", "jitter": "jitter_ms", "calendar": "calendar",
    "on_blocked": "on_blocked", "start": "start_ms", "end": "end_ms", "max_count": "max_count",
    "retries": "max_attempts", "keep": "keep_ms", "description": "description",
}  # fmt: skip


def changed(before: Definition, options: dict[str, Any], *, when: str | None, task: str | None) -> Definition:
    """A definition with only the given options changed; its stored arguments stay as they are. Raises: InvalidInput."""
    from dataclasses import replace

    from zwheel.client.declare import make_definition
    from zwheel.payload.codec import DEFAULT
    from zwheel.schedules.foreign import split_zone

    rhythm = before.kind if when is None else when
    zone = None if when is None else split_zone(when)[1]
    if zone is not None:
        options = {"tz": zone, **options}
    given = {"tz": before.tz, **options}
    made = make_definition({}, DEFAULT, before.name, rhythm, task or before.task, (), None, **given)
    values = {field: getattr(made, field) for option, field in _FIELDS.items() if option in options}
    return replace(before, kind=made.kind, task=made.task, **values)


def facts(definition: Definition) -> dict[str, tuple[Any, str]]:
    """What a definition says, by the names of the options: as JSON, and in words for a person."""
    from zwheel.cli.output import to_json
    from zwheel.cli.show import iso, utc
    from zwheel.schedules.kinds import Cron

    kind = definition.kind
    found: dict[str, tuple[Any, str]] = {
        "when": (kind_document(kind), kind.text if isinstance(kind, Cron) else definition.when()),
        "task": (definition.task, definition.task),
        **arguments(definition),
    }

    def length(ms: int | None, nothing: str) -> tuple[Any, str]:
        return ms, nothing if ms is None else human_duration(ms)

    def moment(ms: int | None) -> tuple[Any, str]:
        return iso(ms), NOTHING if ms is None else utc(ms)

    calendar = None if definition.calendar is None else definition.calendar.to_json()
    found["zone"] = (definition.tz, definition.tz)
    for name in ("gap", "fold", "misfire", "misfire_limit"):
        found[name] = (getattr(definition, name), str(getattr(definition, name)))
    found["grace_ms"] = length(definition.grace_ms, NOTHING)
    found["window_ms"] = length(definition.window_ms, NOTHING)
    found["overlap"] = (definition.overlap, str(definition.overlap))
    found["jitter_ms"] = length(definition.jitter_ms, NOTHING)
    found["calendar"] = (calendar, NOTHING if calendar is None else to_json(calendar))
    found["on_blocked"] = (definition.on_blocked, str(definition.on_blocked))
    found["start"], found["end"] = moment(definition.start_ms), moment(definition.end_ms)
    found["max_count"] = (definition.max_count, str(definition.max_count or NOTHING))
    found["retries"] = (definition.max_attempts - 1, str(definition.max_attempts - 1))
    found["keep_ms"] = length(definition.keep_ms, AUTO)
    found["description"] = (definition.description, definition.description or NOTHING)
    return found


def kind_document(kind: Kind) -> dict[str, Any]:
    """A rhythm for machines: as it is stored, with the units in the names."""
    from zwheel.schedules.kinds import kind_to_json

    return {
        {"every": "every_ms", "times": "times_ms"}.get(key, key): value for key, value in kind_to_json(kind).items()
    }


def arguments(definition: Definition) -> dict[str, tuple[Any, str]]:
    """The stored arguments, headers and timeout as JSON and in words; only a word that they cannot be read here."""
    from zwheel.cli.output import to_json
    from zwheel.cli.show import SHOWN_CHARACTERS, plain, shorten
    from zwheel.errors import UndecodableJob
    from zwheel.payload.codec import DEFAULT
    from zwheel.policy import POLICY_HEADER, TIMEOUT_HEADER

    try:
        args, kwargs, headers = DEFAULT.decode(definition.payload, context=definition.payload_context())
    except UndecodableJob:
        return {"arguments": ("unreadable", "cannot be read here")}
    timeout = headers.pop(TIMEOUT_HEADER, "")
    headers.pop(POLICY_HEADER, None)
    ms = int(timeout) if timeout.isascii() and timeout.isdigit() else None
    found: dict[str, tuple[Any, str]] = {"timeout_ms": (ms, NOTHING if ms is None else human_duration(ms))}
    for name, value in (("args", args), ("kwargs", kwargs), ("headers", headers)):
        found[name] = (plain(value), shorten(to_json(plain(value)), SHOWN_CHARACTERS))
    return found


def differences(old: Definition, new: Definition) -> dict[str, tuple[tuple[Any, str], tuple[Any, str]]]:
    """What two definitions say differently: name -> old, new."""
    before, after = facts(old), facts(new)
    nothing = (None, NOTHING)
    names = dict.fromkeys([*before, *after])
    return {
        name: (before.get(name, nothing), after.get(name, nothing))
        for name in names
        if before.get(name, nothing)[0] != after.get(name, nothing)[0]
    }
