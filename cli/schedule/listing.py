"""`zwheel schedule ls`, with the strip of the coming day."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from zwheel.cli.app import command
from zwheel.cli.context import Context
from zwheel.cli.output import Cell, Column, Row
from zwheel.cli.show import iso, now_ms, relative, unreadable_document, unreadable_row
from zwheel.cli.values import QueueOption, note_unknown
from zwheel.cli.when import human_count
from zwheel.errors import BrokerRefused, ScheduleNotFound, UndecodableJob

from .options import kind_document
from .show import in_zone

if TYPE_CHECKING:
    from zwheel import Wheel
    from zwheel.schedules.state import Past, ScheduleInfo

#: With more schedules than this their outcomes are left out: each takes a round trip.
_MOST_DOTS = 200
_SLOT_MS = 1_800_000
_SLOTS = 48
_MOST_RUNS = 200_000
_BARS = " ▁▂▃▄▅▆▇█"
_PLAIN_BARS = " .:-=+*#@"


async def ls(
    ctx: Context,
    queue: QueueOption = None,
    chart: Annotated[
        bool, typer.Option("--chart", help="Draw the runs of the next 24 hours, a column for each half hour.")
    ] = False,
) -> None:
    """List schedules: when they fire, what comes next, and how the last ones ended.

    A dot for each of the newest occurrences, the newest last: ● done, ✗ dead, ▶ running, ◌ waiting, ○ skipped,
    · missed or not kept any more.
    """
    async with ctx.wheel() as wheel:
        await note_unknown(ctx, wheel, queue)
        found = await wheel.schedules(queue)
        past: dict[tuple[str, str], list[Past]] = {}
        if len(found) <= _MOST_DOTS:
            for info in found:
                past[info.queue, info.name] = await _past(wheel, info)
    if ctx.json:
        for info in found:
            ctx.out.value(_document(info, now_ms(ctx)))
        for one in found.unreadable:
            ctx.out.value(unreadable_document(one, "name"))
        return
    now = now_ms(ctx)
    if chart:
        _chart(ctx, found, now)
        return
    columns = [
        Column("name"), Column("fires", flexible=True), Column("zone", drop=2), Column("next", drop=1), Column(""),
        Column("last" if past else ""), Column("status"), Column("queue", drop=3),
        Column("owner", flexible=True, drop=4),
    ]  # fmt: skip
    rows: list[Row] = [
        [
            info.name,
            info.rhythm().rhythm_words(),
            info.definition.tz,
            "-" if (at := info.next_after(now)) is None else in_zone(at, ctx.tz_name or info.definition.tz),
            "-" if at is None else relative(at, now),
            dots(ctx, past.get((info.queue, info.name), []), now),
            Cell(str(info.status), {"active": "green", "paused": "yellow"}.get(str(info.status), "dim")),
            info.queue,
            info.owner or "-",
        ]
        for info in found
    ]
    rows += [[*unreadable_row(columns[:-1], one), ""] for one in found.unreadable]
    ctx.out.table(columns, rows, empty="no schedules")


async def _past(wheel: Wheel, info: ScheduleInfo) -> list[Past]:
    """The newest occurrences of a schedule; none when it changed or was damaged since it was listed."""
    try:
        return await wheel.schedule_history(info.name, info.queue)
    except (BrokerRefused, ScheduleNotFound, UndecodableJob):
        return []


def dots(ctx: Context, past: list[Past], now: int) -> str:
    """One sign for each of the newest ten that are decided and due, the newest last."""
    due = [p for p in past if p.at_ms <= now][:10]
    signs = "●✗▶◌○·" if ctx.out.unicode else "ox>~-."
    kinds = {"done": 0, "dead": 1, "processing": 2, "scheduled": 3, "cancelled": 4}
    return "".join(
        signs[4 if str(p.verdict) == "skipped" else kinds.get(p.state, 5)] for p in reversed(due)
    )  # fmt: skip


def _document(info: ScheduleInfo, now: int) -> dict[str, Any]:
    definition, following = info.definition, info.next_after(now)
    return {
        "name": info.name, "queue": info.queue, "task": definition.task, "status": str(info.status),
        "when": kind_document(definition.kind), "words": info.rhythm().rhythm_words(), "zone": definition.tz, "next": iso(following),
        "next_ms": following, "owner": info.owner, "fired": info.state.fired, "skipped": info.state.skipped,
        "missed": info.state.missed, "description": definition.description,
    }  # fmt: skip


def _chart(ctx: Context, found: list[ScheduleInfo], now: int) -> None:
    """Draw how many runs each half hour of the coming day has."""
    start = now - now % _SLOT_MS
    counts = [0] * _SLOTS
    left = _MOST_RUNS
    for info in found:
        if str(info.status) != "active":
            continue
        runs = info.rhythm().between(max(now, info.state.cursor_ms - 1), start + _SLOTS * _SLOT_MS - 1, max(left, 1))
        left -= len(runs)
        for at, _ in info.state.ahead:
            counts[min(_SLOTS - 1, max(0, at - start) // _SLOT_MS)] += at > now
        for run in runs:
            if run.at_ms > info.state.cursor_ms:
                counts[(run.at_ms - start) // _SLOT_MS] += 1
    most = max(counts)
    bars = _BARS if ctx.out.unicode else _PLAIN_BARS
    zone = ctx.tz_name or "UTC"
    strip = "".join(bars[-(-n * (len(bars) - 1) // most) if most else 0] for n in counts)
    hours = "".join(f"{in_zone(start + i * _SLOT_MS, zone).split()[2][:2]:<6}" for i in range(0, _SLOTS, 6))
    ctx.out.verbatim(strip)
    ctx.out.verbatim(hours.rstrip())
    peak = counts.index(most)
    ctx.out.line(
        f"{human_count(sum(counts), 'run')} in the next 24 hours, hours of {zone}"
        + (f"; most at {in_zone(start + peak * _SLOT_MS, zone)}: {most:,} in half an hour" if most else "")
    )
    if left <= 0:
        ctx.out.note(f"note: only the first {_MOST_RUNS:,} runs are drawn")


def add_to(app: typer.Typer) -> None:
    """Register the command in the group."""
    command(
        app, "ls", examples=["zwheel schedule ls", "zwheel schedule ls --chart", "zwheel schedule ls --json | jq .next"]
    )(ls)
