"""`zwheel schedule sync`: the schedules of a file, and those of the server made the same."""

from __future__ import annotations

import inspect
import re
import shlex
import sys
from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zwheel.cli.app import command
from zwheel.cli.context import Context
from zwheel.cli.serving import described, say, say_here, troubles
from zwheel.cli.values import duration
from zwheel.cli.when import find_zone, human_count, parse_when
from zwheel.errors import ConfigError, InvalidInput, InvalidTime, ScheduleExists

from .owner import make_those, owner_of

if TYPE_CHECKING:
    from zwheel.published.task import PublishedTask
    from zwheel.schedules.calendars import Calendar
    from zwheel.schedules.definition import Definition

_DAYS = "a list of days such as 2026-12-24"
_TEXTS = 'a list of texts such as ["a", "b"]'
_DURATION = 'a duration such as "10m"'
_TIME = 'a time such as 2026-12-01T09:00:00+01:00 or "2026-12-01 09:00 Europe/Berlin"'
#: The keys of a schedule, and what stands there.
_KEYS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "when": (str, 'a text such as "0 9 * * MON-FRI"'),
    "task": (str, "the name of a task"),
    "shell": (str, "a line for the shell, instead of a task"),
    "args": (list, "a list"),
    "kwargs": (dict, "a table"),
    "tz": (str, 'the name of a zone such as "Europe/Berlin"'),
    "gap": (str, '"run_after" or "skip"'),
    "fold": (str, '"first", "second" or "both"'),
    "misfire": (str, '"skip", "fire_once" or "fire_all"'),
    "misfire_limit": (int, "a whole number"),
    "grace": (str, _DURATION),
    "window": (str, _DURATION),
    "overlap": (str, '"allow", "skip", "buffer_one" or "cancel_other"'),
    "jitter": (str, _DURATION),
    "calendar": (dict, "a table"),
    "on_blocked": (str, '"skip", "next" or "previous"'),
    "start": ((datetime, str), _TIME),
    "end": ((datetime, str), _TIME),
    "max_count": (int, "a whole number"),
    "queue": (str, "the name of a queue"),
    "retries": (int, "a whole number"),
    "timeout": (str, _DURATION),
    "keep": (str, _DURATION),
    "headers": (dict, "a table of texts"),
    "description": (str, "a text"),
}
#: What the same is called on the command line, or elsewhere.
_MEANT = {
    "zone": "tz", "timezone": "tz", "cron": "when", "schedule": "when", "command": "shell", "cmd": "shell",
    "max_retries": "retries",
}  # fmt: skip
_CALENDAR: dict[str, tuple[type | tuple[type, ...], str]] = {
    "holidays": (list, 'a list of countries or their parts such as ["DE", "DE-BE"]'),
    "dates": (list, _DAYS),
    "open_dates": (list, _DAYS),
    "weekdays": (list, 'a list of weekdays such as ["sat", "sun"]'),
    "windows": (list, 'a list of times of day such as ["22:00-06:00"]'),
}
#: What a file may look like; the end of the command's help.
EXAMPLE = """\b
A file:
  [schedules.report]
  when = "0 9 * * MON-FRI"      # or "@every 90s", "every month on last at 08:00"
  tz = "Europe/Berlin"          # without it, UTC
  task = "reports.build"
  kwargs = { to = "ann@example.com" }
  overlap = "skip"
  window = "2h"                 # durations as text
  start = 2026-12-01T00:00:00+01:00

\b
  [schedules.report.calendar]
  holidays = ["DE-BE"]
  dates = [2026-12-24]

\b
Further keys: shell instead of task, args, gap, fold, misfire, misfire_limit, grace, jitter, on_blocked, end,
max_count, queue, retries, timeout, keep, headers, description; in the calendar
open_dates, weekdays, windows."""


def read_schedules(content: bytes, name: str, published: Mapping[str, PublishedTask] | None = None) -> list[Definition]:
    """Read the schedules of a TOML file. Raises: InvalidInput that names the file, the schedule and the key.

    published: what workers publish of the tasks, as far as they do.
    """
    import tomllib

    try:
        document = tomllib.loads(content.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{name}: it is not TOML: {error}") from None
    _known(document, ["schedules"], name)
    if "schedules" not in document:
        raise InvalidInput(
            f"{name}: it has no table [schedules.NAME]; to have none, write [schedules] with nothing below"
        )
    tables = document["schedules"]
    if not isinstance(tables, dict):
        raise InvalidInput(f"{name}: schedules must hold tables, [schedules.NAME]")
    found = []
    for schedule, table in tables.items():
        where = f"{name}: schedules.{schedule}"
        if not isinstance(table, dict):
            near = f": write [schedules.NAME] above {schedule}" if schedule in _KEYS else ""
            raise InvalidInput(f"{where} is not a table{near}")
        try:
            found.append(_definition(schedule, table, published or {}))
        except (InvalidInput, ConfigError) as error:
            raise InvalidInput(f"{where}: {str(error).removeprefix(f'schedule {schedule}: ')}") from None
    return found


def _known(table: Mapping[str, Any], keys: list[str], where: str) -> None:
    """Refuse keys that mean nothing here."""
    for key in table:
        if key not in keys:
            from difflib import get_close_matches

            near = [meant for meant in [_MEANT.get(key)] if meant in keys] or get_close_matches(key, keys, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(keys)}"
            raise InvalidInput(f"{where + ': ' if where else ''}there is no key {key}, {hint}")


def _typed(table: Mapping[str, Any], keys: Mapping[str, tuple[type | tuple[type, ...], str]], where: str) -> None:
    _known(table, list(keys), where)
    for key, value in table.items():
        kind, words = keys[key]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise InvalidInput(f"{where + ': ' if where else ''}{key} must be {words}")


def _definition(name: str, table: dict[str, Any], published: Mapping[str, PublishedTask]) -> Definition:
    from zwheel.client.declare import make_definition
    from zwheel.payload.codec import DEFAULT
    from zwheel.shell import SHELL_TASK, shell_kwargs

    _typed(table, _KEYS, "")
    if "when" not in table:
        raise InvalidInput("the key when is missing")
    if ("task" in table) == ("shell" in table):
        raise InvalidInput("it needs either the key task or the key shell")
    options = dict(table)
    when, task = options.pop("when"), options.pop("task", SHELL_TASK)
    args, kwargs = options.pop("args", []), options.pop("kwargs", {})
    if "shell" in options:
        if args or kwargs:
            raise InvalidInput("args and kwargs go with task, not with shell")
        kwargs = shell_kwargs(line=options.pop("shell"))
        options.setdefault("retries", 0)
    for key in ("grace", "window", "jitter", "timeout", "keep"):
        if key in options:
            options[key] = duration(options[key], key)
    for key in ("start", "end"):
        if key in options:
            options[key] = _time(options[key], key, table.get("tz"))
    if "calendar" in options:
        options["calendar"] = _calendar(options["calendar"])
    return make_definition(published, DEFAULT, name, when, task, args, kwargs, **options)


def _time(given: datetime | str, key: str, zone: str | None) -> datetime:
    """Read a time that means the same whenever the file is read."""
    if isinstance(given, datetime):
        if given.tzinfo is not None:
            return given
        given = given.isoformat()
    if not _FIXED.match(given.strip()):
        raise InvalidTime(f"{key}: {given!r} does not name a day: write {_TIME}")
    try:
        # Nothing in it is counted from now.
        return parse_when(given, now=_EPOCH, default_tz=None if zone is None else find_zone(zone))
    except InvalidTime as error:
        raise InvalidTime(f"{key}: {str(error).replace('give --tz', 'give the schedule a tz')}") from None


_FIXED = re.compile(r"@|\d{4}-")
_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


def _calendar(table: dict[str, Any]) -> Calendar:
    from zwheel.schedules.calendars import Calendar

    _typed(table, _CALENDAR, "calendar")
    fields: dict[str, tuple[str, ...]] = {}
    for key, values in table.items():
        texts = [v.isoformat() if isinstance(v, date) and not isinstance(v, datetime) else v for v in values]
        if not all(isinstance(text, str) for text in texts):
            raise InvalidInput(f"calendar: {key} must be {_CALENDAR[key][1]}")
        fields[key] = tuple(texts)
    return Calendar(**fields)


def _content(file: str) -> tuple[str, bytes]:
    if file == "-":
        return "stdin", sys.stdin.buffer.read()
    path = Path(file)
    return path.name, path.read_bytes()


async def sync(
    ctx: Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="A TOML file, as above; - reads it from stdin.")],
    owner: Annotated[
        str | None,
        typer.Option("--owner", metavar="NAME", help="Whose schedules they are; else file: and the file's whole path."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change, change nothing.")] = False,
) -> None:
    """Make the schedules of one owner exactly those of a file: add, change and remove.

    Schedules of other owners, and those added by hand, stay as they are; a name that one of them has is exit code 6.
    A schedule that was edited by hand keeps the edit until its table in the file changes. To remove more than a third of
    what the owner had asks, or needs --yes. Where the file's path changes, as with a directory per release, name the owner.
    """
    if owner is None and file == "-":
        raise InvalidInput("what comes from stdin has no path: say whose schedules they are with --owner NAME")
    name, content = _content(file)
    tasks = {one.task for one in read_schedules(content, name)}
    whose = owner or owner_of("file", file)
    say_here()
    async with ctx.wheel() as wheel:
        await wheel.learn(*tasks)
        definitions = read_schedules(content, name, wheel.catalogue.known(tasks))
        found = await troubles(wheel, [(one.queue, one.task) for one in definitions])
        try:
            report = await make_those(ctx, wheel, definitions, whose, await wheel.schedules(), dry_run=dry_run)
        except ScheduleExists as error:
            if owner is None and error.owner.startswith("file:"):
                again = f"--owner {shlex.quote(error.owner)}"
                ctx.out.note(f"note: if this is the same file, moved or copied, {again} goes on with its schedules")
            raise
    parts = {word: list(getattr(report, word)) for word in ("added", "changed", "removed", "unchanged")}
    if ctx.json:
        ctx.out.value({"owner": whose, "dry_run": dry_run, **parts, **described(found)})
        return
    say(ctx, found, strict=False)
    for word in ("added", "changed", "removed"):
        for name in parts[word]:
            ctx.out.line(f"{word:<7} {name}")
    counts = ", ".join(f"{len(names):,} {word}" for word, names in parts.items())
    ctx.out.note(f"{human_count(len(definitions), 'schedule')} of {whose}: {counts}")
    if dry_run:
        ctx.out.note("nothing was changed")


sync.__doc__ = f"{inspect.getdoc(sync)}\n\n{EXAMPLE}"


def add_to(app: typer.Typer) -> None:
    """Register the command in the group."""
    command(
        app,
        "sync",
        examples=[
            "zwheel schedule sync schedules.toml --dry-run",
            "zwheel schedule sync deploy/schedules.toml --owner billing",
        ],
    )(sync)
