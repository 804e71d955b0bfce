"""`zwheel schedule import`: crontabs."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zwheel.cli.app import command
from zwheel.cli.context import Context
from zwheel.cli.exits import ExitCode
from zwheel.cli.output import Column, Row
from zwheel.cli.show import iso, now_ms
from zwheel.cli.when import find_zone, human_count
from zwheel.errors import BrokerUnavailable, InvalidInput, InvalidTime
from zwheel.keys import check_name
from zwheel.shell import DEFAULT_SHELL

from .crontab_source import Source
from .owner import make_those
from .show import following, in_zone

if TYPE_CHECKING:
    from zwheel import Wheel
    from zwheel.operations.schedules import SyncReport
    from zwheel.outside import Listing
    from zwheel.schedules.crontab import Crontab, Entry, Problem
    from zwheel.schedules.crontab_names import Line
    from zwheel.schedules.definition import Definition
    from zwheel.schedules.state import ScheduleInfo


async def import_(
    ctx: Context,
    path: Annotated[str, typer.Argument(metavar="CRONTAB", help="The file; - reads it from stdin.")],
    system: Annotated[
        bool | None,
        typer.Option("--system/--user", help="Lines have a user before the command, or have none."),
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
    owner: Annotated[
        str | None,
        typer.Option("--owner", metavar="NAME", help="Whose schedules they are; else the file's whole path."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show everything, also what would be removed; change nothing.")
    ] = False,
) -> None:
    """Make schedules of a crontab's lines; done again, it changes, adds and removes what the file does.

    Lines have a user before the command in /etc/crontab, in /etc/cron.d, and where each of them names a user of this
    machine; what crontab -l shows has none. Where both can be, you are asked, or say it with an option below.
    What cannot be carried over is listed with its line, and keeps the schedule that it had; then the exit code is 5.
    To remove more than a third of what the file had asks too, or needs --yes. The commands run on workers started with
    --allow-shell.
    """
    from zwheel.schedules.crontab import read_crontab

    find_zone(zone or "UTC")
    check_name(queue or "default")
    source = Source(path)
    if system is None:
        system, users = source.is_system(ctx), source.users
    else:
        users = None
    found = read_crontab(source.text, system=system, is_user=users)
    whose = owner or source.owner(prefix)
    taken = _Carried(found, prefix or ("stdin" if source.stdin else Path(path).name), queue, zone or "UTC")
    report = None
    try:
        async with ctx.wheel() as wheel:
            report = await _sync(ctx, wheel, taken, whose, dry_run)
    except BrokerUnavailable as error:
        if not dry_run:
            raise
        taken.choose([], whose)
        ctx.out.note(f"note: what would change is not known: {error}")
    _tell(ctx, taken, whose, report, dry_run)
    _hint(ctx, taken, queue, zone)
    if any(problem.lost for problem in taken.problems):
        raise ctx.fail(ExitCode.PARTLY)


async def _sync(ctx: Context, wheel: Wheel, taken: _Carried, whose: str, dry_run: bool) -> SyncReport:
    """Make the schedules those of the file. Raises: Refused when too much would be removed and nobody agrees."""
    listed = await wheel.schedules()
    taken.choose(listed, whose)
    definitions = [one.definition for one in taken.lines]
    return await make_those(ctx, wheel, definitions, whose, listed, keep=taken.kept, dry_run=dry_run)


@dataclass(frozen=True, slots=True)
class _Named:
    """A line that is carried over."""

    entry: Entry
    definition: Definition


class _Carried:
    """What a crontab becomes: named schedules, and what is said about the rest."""

    def __init__(self, found: Crontab, prefix: str, queue: str | None, zone: str) -> None:
        from zwheel.schedules.crontab_names import slug

        self.problems: list[Problem] = list(found.problems)
        self.lines: list[_Named] = []
        #: Schedules of the last import that stay although no line is theirs: an unreadable line may be.
        self.kept: set[str] = set()
        #: What those run.
        self.kept_commands: list[str] = []
        #: Lines that another source carried over too: its number, name and owner.
        self.twice: list[tuple[int, str, str]] = []
        self._prefix = slug(prefix) or "cron"
        for entry in found.entries:
            try:
                self.lines.append(_Named(entry, _definition(entry, queue, zone)))
            except (InvalidInput, InvalidTime) as error:
                self._refuse(entry, str(error).removeprefix("schedule line: "))

    def _refuse(self, entry: Entry, reason: str) -> None:
        from zwheel.schedules.crontab import Problem

        self.problems.append(Problem(line=entry.line, text=entry.command, reason=reason, command=entry.command))
        self.problems.sort(key=lambda problem: problem.line)

    def choose(self, listed: Listing[ScheduleInfo] | list[ScheduleInfo], whose: str) -> None:
        """Name the lines as the last import of this source did, new ones as nobody is called yet."""
        from zwheel.schedules.crontab_names import Line, name_lines

        known = {info.name: _line(info.definition) for info in listed if info.owner == whose}
        lines = [Line(one.entry.command, one.entry.stdin, one.definition.kind) for one in self.lines]
        unread = [
            Line(problem.command, exact=problem.text.lstrip("-").lower().startswith("@reboot"))
            for problem in self.problems if problem.lost and problem.command is not None
        ]  # fmt: skip
        taken = {info.name for info in listed} | {one.name for one in getattr(listed, "unreadable", [])}
        names, self.kept = name_lines(self._prefix, lines, unread, known, taken)
        self.kept_commands = [known[name].command for name in sorted(self.kept)]
        self.lines = [
            _Named(one.entry, _renamed(one, name)) for one, name in zip(self.lines, names, strict=True)
        ]  # fmt: skip
        others = {
            _line(info.definition): info for info in listed if info.owner != whose and info.owner[:8] == "crontab:"
        }
        for one, line in zip(self.lines, lines, strict=True):
            if line in others:
                self.twice.append((one.entry.line, others[line].name, others[line].owner))


def _line(definition: Definition) -> Line:
    """What a schedule runs, as far as it runs a line of a shell."""
    from zwheel.errors import ZwheelError
    from zwheel.payload.codec import DEFAULT
    from zwheel.schedules.crontab_names import Line
    from zwheel.shell import SHELL_TASK

    kwargs: dict[str, Any] = {}
    if definition.task == SHELL_TASK:
        try:
            _, kwargs, _ = DEFAULT.decode(definition.payload, context=definition.payload_context())
        except ZwheelError:
            kwargs = {}
    return Line(str(kwargs.get("line", "")), str(kwargs.get("stdin", "")), definition.kind)


def _definition(entry: Entry, queue: str | None, zone: str, name: str = "line") -> Definition:
    from zwheel.client.declare import make_definition
    from zwheel.payload.codec import DEFAULT
    from zwheel.shell import SHELL_TASK, shell_kwargs

    environment = dict(entry.environment)
    shell = environment.pop("SHELL", DEFAULT_SHELL)
    options: dict[str, Any] = {"queue": queue} if queue else {}
    if entry.single:
        options["overlap"] = "skip"
    return make_definition(
        {}, DEFAULT, name, entry.when, SHELL_TASK, (),
        shell_kwargs(line=entry.command, stdin=entry.stdin, env=environment, shell=shell, home=True),
        tz=entry.zone or zone, retries=0, jitter=timedelta(milliseconds=entry.jitter_ms),
        description=entry.description, **options,
    )  # fmt: skip


def _renamed(one: _Named, name: str) -> Definition:
    """The same schedule with the name it gets. Its arguments may be bound to the name, so that they are encoded anew."""
    return _definition(one.entry, one.definition.queue, one.definition.tz, name)


def _tell(ctx: Context, taken: _Carried, whose: str, report: SyncReport | None, dry_run: bool) -> None:
    now = now_ms(ctx)
    next_of = []
    for one in taken.lines:
        runs = following(one.definition, one.definition.rhythm(now), now, 1)
        next_of.append(runs[0].at_ms if runs else None)
    if ctx.json:
        _tell_json(ctx, taken, next_of, report)
        return
    rows: list[Row] = [
        [
            str(one.entry.line), one.definition.name, one.definition.when(),
            "-" if at is None else in_zone(at, ctx.tz_name or one.definition.tz),
            _as_written(one.entry),
        ]
        for one, at in zip(taken.lines, next_of, strict=True)
    ]  # fmt: skip
    columns = [
        Column("line", right=True), Column("name"), Column("fires", flexible=True), Column("next", drop=1),
        Column("command", flexible=True),
    ]  # fmt: skip
    ctx.out.table(columns, rows, empty="no line of it runs a command")
    for problem in taken.problems:
        left_out = "left out: " if problem.lost else ""
        ctx.out.note(f"line {problem.line}: {left_out}{problem.reason}")
    for line, name, other in taken.twice:
        ctx.out.note(f"line {line}: it runs twice: it is schedule {name} of {other} too")
    for other in sorted({other for _, _, other in taken.twice}):
        ctx.out.note(
            f"note: if this is the same crontab, --owner {shlex.quote(other)} goes on with its schedules; to remove them: "
            f"zwheel schedule import /dev/null --owner {shlex.quote(other)} --yes"
        )
    lost = sum(problem.lost for problem in taken.problems)
    ctx.out.line(f"{human_count(len(taken.lines), 'line')} carried over, {lost} left out")
    if report is not None:
        for name in report.removed:
            ctx.out.line(f"removed {name}")
        for name in report.kept:
            ctx.out.line(f"kept    {name}: a line that cannot be read may be its own; it goes on running")
        ctx.out.line(", ".join(f"{len(names)} {what}" for what, names in _parts(report).items()))
        ctx.out.note(f"their owner is {whose}")
    if dry_run:
        ctx.out.note("nothing was changed")


def _parts(report: SyncReport) -> dict[str, tuple[str, ...]]:
    return {what: getattr(report, what) for what in ("added", "changed", "removed", "unchanged")}


def _tell_json(ctx: Context, taken: _Carried, next_of: list[int | None], report: SyncReport | None) -> None:
    changes = {} if report is None else {name: what for what, names in _parts(report).items() for name in names}
    for one, at in zip(taken.lines, next_of, strict=True):
        name = one.definition.name
        ctx.out.value(
            {"line": one.entry.line, "schedule": name, "when": one.entry.when, "words": one.definition.when(),
             "zone": one.definition.tz, "next": iso(at), "command": one.entry.command, "stdin": one.entry.stdin,
             "allow": _allow(one.entry), "change": changes.get(name)}
        )  # fmt: skip
    for word in ("removed", "kept"):
        for name in () if report is None else getattr(report, word):
            ctx.out.value({"schedule": name, "change": word})
    for problem in taken.problems:
        ctx.out.tell_json({"line": problem.line, "text": problem.text, "reason": problem.reason, "lost": problem.lost})


def _hint(ctx: Context, taken: _Carried, queue: str | None, zone: str | None) -> None:
    """Say what the schedules still need."""
    entries = [one.entry for one in taken.lines]
    if zone is None and any(entry.zone is None for entry in entries):
        ctx.out.note("note: lines without CRON_TZ were read in UTC; --zone says otherwise")
    if entries:
        wanted = dict.fromkeys(text for entry in entries for text in _allow(entry))
        wanted |= dict.fromkeys(taken.kept_commands)
        serving = f" --queue {queue}" if queue else ""
        words = [
            f"run them with: zwheel worker --allow-shell{serving}",
            *(f"  --allow {shlex.quote(text)}" for text in wanted),
        ]
        for word in words[:-1]:
            ctx.out.note(f"{word} \\")
        ctx.out.note(words[-1])


def _allow(entry: Entry) -> list[str]:
    """What a worker must allow to run a line."""
    from zwheel.shell import needed

    environment = dict(entry.environment)
    shell = environment.pop("SHELL", DEFAULT_SHELL)
    return list(needed(None, entry.command, environment, shell))


def _as_written(entry: Entry) -> str:
    """The command with its input, as a crontab has them."""
    return entry.command + ("%" + entry.stdin.removesuffix("\n").replace("\n", "%") if entry.stdin else "")


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
