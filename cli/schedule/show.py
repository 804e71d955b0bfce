"""How a schedule is shown: the reading in words, the next runs, the next change of clocks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from zwheel.cli.output import Column, Row
from zwheel.cli.show import iso, relative, utc
from zwheel.times import MAX_MS

if TYPE_CHECKING:
    from zwheel.cli.context import Context
    from zwheel.schedules.definition import Definition
    from zwheel.schedules.occurrences import Occurrence, Rhythm

_NEXT = 5


def kind_words(definition: Definition) -> str:
    """Say as what the rhythm was read, so that nobody takes seconds for minutes."""
    from zwheel.schedules.cron import CronLine
    from zwheel.schedules.kinds import Cron, Every, Interval

    kind = definition.kind
    if isinstance(kind, Cron):
        if CronLine.parse(kind.text, definition.name).seconds:
            return "6 fields: second minute hour day-of-month month day-of-week"
        return "5 fields: minute hour day-of-month month day-of-week"
    if isinstance(kind, Every):
        return "an interval, counted from when it was added"
    return "a calendar interval" if isinstance(kind, Interval) else "given times"


def in_zone(ms: int, zone: str) -> str:
    """Write a time on the wall clock of a zone, with its offset."""
    from zwheel.schedules.occurrences import local

    when = local(ms, zone)
    fraction = f".{when.microsecond // 1000:03d}" if when.microsecond else ""
    return f"{when:%a %Y-%m-%d %H:%M:%S}{fraction} {when:%z}"


def following(definition: Definition, rhythm: Rhythm, now: int, count: int, *, skipped: bool = False) -> list[Any]:
    """The next occurrences within the schedule's start and end; with `skipped` also those that do not run."""
    begin = max(now, (definition.start_ms or 0) - 1)
    last = MAX_MS if definition.end_ms is None else definition.end_ms
    found: list[Occurrence] = []
    for occurrence in rhythm.after(begin, skipped=skipped):
        if occurrence.at_ms > last or len(found) >= count:
            break
        found.append(occurrence)
    return found


def table_of(ctx: Context, occurrences: Iterable[Occurrence], zone: str, now: int) -> None:
    """Write occurrences: local time, UTC, in how long, and why one is moved or skipped."""
    shown = ctx.tz_name or zone
    columns = [
        Column("#", right=True), Column(f"local ({shown})"), Column("UTC"), Column("", drop=1),
        Column("note", flexible=True),
    ]  # fmt: skip
    rows: list[Row] = []
    number = 0
    for occurrence in occurrences:
        number += not occurrence.skipped
        note = occurrence.note + (" (does not run)" if occurrence.skipped and "skipped" not in occurrence.note else "")
        rows.append(
            [
                "-" if occurrence.skipped else str(number), in_zone(occurrence.at_ms, shown), utc(occurrence.at_ms),
                relative(occurrence.at_ms, now), note,
            ]
        )  # fmt: skip
    ctx.out.table(columns, rows, empty="nothing of it lies ahead")


def document_of(occurrence: Occurrence, zone: str) -> dict[str, Any]:
    """One occurrence for machines."""
    return {
        "at": iso(occurrence.at_ms), "at_ms": occurrence.at_ms, "local": in_zone(occurrence.at_ms, zone), "zone": zone,
        "runs": not occurrence.skipped, "note": occurrence.note,
    }  # fmt: skip


def reading(definition: Definition, rhythm: Rhythm, now: int) -> list[tuple[str, str]]:
    """The reading in words, line by line."""
    lines = [("fires", rhythm.rhythm_words()), ("read as", kind_words(definition)), ("zone", definition.tz)]
    change = rhythm.clock_change(now)
    lines.append(("clocks", change or "they do not change there within two years"))
    ends = definition.calendar.data_ends() if definition.calendar is not None else None
    if ends is not None:
        lines.append(("calendar", f"working weekends are known up to {ends}: later ones are not announced yet"))
    return [*lines, *(("note", note) for note in definition.notes())]


def echo(ctx: Context, definition: Definition, rhythm: Rhythm, now: int) -> None:
    """Show how a schedule was read, its next runs, and what happens at the next change of clocks."""
    ctx.out.fields(reading(definition, rhythm, now))
    table_of(ctx, following(definition, rhythm, now, _NEXT), definition.tz, now)
