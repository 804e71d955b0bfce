"""`zwheel schedule import`: crontabs."""

from __future__ import annotations

import re
import shlex
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zwheel.errors import InvalidInput

from .app import command
from .context import Context
from .exits import ExitCode
from .output import Column, Row
from .schedule_show import following, in_zone
from .show import iso, now_ms
from .when import human_count

if TYPE_CHECKING:
    from zwheel.schedules.crontab import Crontab, Entry
    from zwheel.schedules.definition import Definition

_SYSTEM_PLACES = ("/etc/cron.d/", "/etc/crontab")
_MOST_BYTES = 10_000_000


async def import_(
    ctx: Context,
    path: Annotated[str, typer.Argument(metavar="CRONTAB", help="The file; - reads it from stdin.")],
    system: Annotated[
        bool | None,
        typer.Option("--system/--user", help="Lines have a user before the command, or have none; else by their look."),
    ] = None,
    queue: Annotated[
        str | None, typer.Option("--queue", "-q", metavar="NAME", help="The queue of its jobs; else default.")
    ] = None,
    zone: Annotated[
        str | None, typer.Option("--zone", metavar="ZONE", help="For lines without CRON_TZ; default UTC.")
    ] = None,
    prefix: Annotated[
        str | None, typer.Option("--prefix", metavar="TEXT", help="What the names begin with; else the file's name.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and show everything, change nothing.")] = False,
) -> None:
    """Make schedules of a crontab's lines; done again, it changes, adds and removes what the file does.

    Understood are user crontabs, the format of /etc/cron.d, CRON_TZ, RANDOM_DELAY, MAILTO, `%` and comments. What
    cannot be carried over is listed with its line; then the exit code is 5. The commands run on workers started with
    --allow-shell.
    """
    from zwheel.schedules.crontab import looks_like_system, read_crontab

    text = _read(path)
    if system is None:
        system = path.startswith(_SYSTEM_PLACES) or looks_like_system(text)
    found = read_crontab(text, system=system)
    stem = Path(path).name if path != "-" else "stdin"
    named = _named(found, _slug(prefix or stem) or "cron")
    definitions = [_definition(name, entry, queue, zone or "UTC") for name, entry in named]
    report: dict[str, Any] = {}
    if not dry_run:
        async with ctx.wheel() as wheel:
            done = await wheel.sync_schedules(definitions, owner=f"crontab:{stem}")
        report = {"added": done.added, "changed": done.changed, "removed": done.removed, "unchanged": done.unchanged}
    _tell(ctx, found, named, definitions, report, zone)
    if any(problem.lost for problem in found.problems):
        raise ctx.fail(ExitCode.PARTLY)


def _read(path: str) -> str:
    raw = sys.stdin.buffer.read(_MOST_BYTES + 1) if path == "-" else Path(path).read_bytes()
    if len(raw) > _MOST_BYTES:
        raise InvalidInput(f"{path}: a crontab of more than 10 MB is none")
    return raw.decode("utf-8", "surrogateescape").encode("utf-8", "replace").decode()


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")[:40]


def _named(found: Crontab, prefix: str) -> list[tuple[str, Entry]]:
    """Name each entry after its program; a second one of the same program gets a number."""
    counts: dict[str, int] = {}
    named = []
    for entry in found.entries:
        name = f"{prefix}-{_slug(_program(entry.command)) or 'command'}"
        counts[name] = counts.get(name, 0) + 1
        named.append((name if counts[name] == 1 else f"{name}-{counts[name]}", entry))
    return named


def _program(line: str) -> str:
    """The first program of a shell line that is not a part of the shell: what the line is about."""
    for word in re.split(r"[\s;&|()]+", line):
        name = word.strip("'\"").rpartition("/")[2]
        if name and name not in ("test", "[", "cd", "exec", "command", "nice", "if", "then") and name[0].isalpha():
            return name
    return ""


def _definition(name: str, entry: Entry, queue: str | None, zone: str) -> Definition:
    from zwheel.codec import DEFAULT
    from zwheel.declare import make_definition
    from zwheel.shell import SHELL_TASK, shell_kwargs

    environment = dict(entry.environment)
    shell = environment.pop("SHELL", "/bin/sh")
    options: dict[str, Any] = {"queue": queue} if queue else {}
    return make_definition(
        {}, DEFAULT, name, entry.when, SHELL_TASK, (),
        shell_kwargs(line=entry.command, stdin=entry.stdin, env=environment, shell=shell),
        tz=entry.zone or zone, retries=0, jitter=timedelta(milliseconds=entry.jitter_ms),
        description=entry.description, **options,
    )  # fmt: skip


def _tell(
    ctx: Context, found: Crontab, named: list[tuple[str, Entry]], definitions: list[Definition],
    report: dict[str, Any], zone: str | None,
) -> None:  # fmt: skip
    now = now_ms(ctx)
    next_of = []
    for definition in definitions:
        runs = following(definition, definition.rhythm(now), now, 1)
        next_of.append(runs[0].at_ms if runs else None)
    if ctx.json:
        for (name, entry), definition, at in zip(named, definitions, next_of, strict=True):
            ctx.out.value(
                {"line": entry.line, "schedule": name, "when": entry.when, "words": definition.when(),
                 "zone": definition.tz, "next": iso(at), "command": entry.command}
            )  # fmt: skip
        for problem in found.problems:
            ctx.out.tell_json(
                {"line": problem.line, "text": problem.text, "reason": problem.reason, "lost": problem.lost}
            )
        return
    rows: list[Row] = [
        [
            str(entry.line), name, definition.when(), "-" if at is None else in_zone(at, ctx.tz_name or definition.tz),
            entry.command,
        ]
        for (name, entry), definition, at in zip(named, definitions, next_of, strict=True)
    ]  # fmt: skip
    columns = [
        Column("line", right=True), Column("name"), Column("fires", flexible=True), Column("next", drop=1),
        Column("command", flexible=True),
    ]  # fmt: skip
    ctx.out.table(columns, rows, empty="no line of it runs a command")
    for problem in found.problems:
        left_out = "left out: " if problem.lost else ""
        ctx.out.note(f"line {problem.line}: {left_out}{problem.reason}")
    lost = sum(problem.lost for problem in found.problems)
    ctx.out.line(f"{human_count(len(named), 'line')} carried over, {lost} left out")
    if report:
        ctx.out.line(", ".join(f"{len(names)} {what}" for what, names in report.items()))
    else:
        ctx.out.note("nothing was changed")
    if zone is None and any(entry.zone is None for _, entry in named):
        ctx.out.note("note: lines without CRON_TZ were read in UTC; --zone says otherwise")
    if named:
        names = sorted({variable for _, entry in named for variable in entry.environment} - {"SHELL", "TZ", "LANG"})
        wanted = [*(f"{variable}=" for variable in names), *(entry.command for _, entry in named[:3])]
        allowed = " ".join(f"--allow {shlex.quote(text)}" for text in wanted)
        more = " ..." if len(named) > 3 else ""
        ctx.out.note(f"run them with: zwheel worker --allow-shell {allowed}{more}")


def add_to(app: typer.Typer) -> None:
    """Register the command in the group."""
    command(
        app,
        "import",
        examples=[
            "zwheel schedule import /etc/cron.d/backup --zone Europe/Berlin --dry-run",
            "crontab -l | zwheel schedule import - --prefix ann --zone Europe/Berlin",
        ],
    )(import_)
