"""`zwheel day`: what is on the wheel."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from zwheel.errors import BrokerRefused
from zwheel.outside import Unreadable
from zwheel.times import day_of, day_start_ms

from .app import command, group
from .context import Context
from .output import Cell, Column, Row
from .show import iso, local, now_ms, time_cells, time_columns, unreadable_document, unreadable_row
from .values import QueueOption, day_name, queue_names, refused_queue
from .when import human_count

app = group("See what is on the wheel, per UTC day and hour.")

HOUR_MS = 3_600_000


@command(app, "ls", examples=["zwheel day ls", "zwheel day ls --queue emails --json"])
async def ls(
    ctx: Context,
    queue: QueueOption = None,
    limit: Annotated[int, typer.Option("--limit", min=1, metavar="N", help="Show at most so many days.")] = 31,
) -> None:
    """List the days that have scheduled jobs.

    Each with its first and its last job, by the UTC day of the fire time. A day in the past holds jobs that are overdue.
    """
    jobs: dict[str, dict[str, int]] = {}
    ends: dict[str, tuple[int, int]] = {}
    strange: list[Unreadable] = []
    async with ctx.wheel() as wheel:
        for name in await queue_names(ctx, wheel, queue):
            try:
                found = await wheel.days(name)
            except BrokerRefused as error:
                strange.append(refused_queue(error, name, queue))
                continue
            strange += found.unreadable
            for day in found:
                jobs.setdefault(day.day, {})[name] = day.jobs
                first, last = ends.get(day.day, (day.first_ms, day.last_ms))
                ends[day.day] = (min(first, day.first_ms), max(last, day.last_ms))
    days = sorted(jobs)
    if ctx.json:
        for name in days[:limit]:
            first, last = ends[name]
            document = {"day": _dashed(name), "jobs": sum(jobs[name].values()), "queues": jobs[name]}
            ctx.out.value({**document, "first": iso(first), "first_ms": first, "last": iso(last), "last_ms": last})
        for one in strange:
            ctx.out.value(unreadable_document(one, "day"))
        return
    today = day_of(now_ms(ctx))
    most = max((sum(counts.values()) for counts in jobs.values()), default=0)
    rows: list[Row] = [
        [
            Cell(_dashed(name), "red" if name < today else "bold" if name == today else ""),
            f"{sum(jobs[name].values()):,}",
            *time_cells(ctx, ends[name][0]),
            *time_cells(ctx, ends[name][1]),
            Cell("", "cyan", share=sum(jobs[name].values()) / most),
        ]
        for name in days[:limit]
    ]
    columns = [Column("day"), Column("jobs", right=True), *time_columns(ctx, "first", drop=1)]
    columns += [*time_columns(ctx, "last", drop=3), Column("", flexible=True)]
    rows += [unreadable_row(columns, one) for one in strange]
    ctx.out.table(columns, rows, empty="nothing is on the wheel")
    if len(days) > limit:
        ctx.out.note(f"{human_count(len(days) - limit, 'later day')} not shown, see --limit")


@command(app, "show", examples=["zwheel day show", "zwheel day show 2026-12-01 --queue emails --tz Europe/Berlin"])
async def show(
    ctx: Context,
    day: Annotated[str, typer.Argument(metavar="DAY", help="A UTC day: 2026-12-01, today, tomorrow.")] = "today",
    queue: QueueOption = None,
) -> None:
    """Show the jobs of each hour of a UTC day."""
    name = day_name(ctx, day)
    total = [0] * 24
    strange: list[Unreadable] = []
    async with ctx.wheel() as wheel:
        for each in await queue_names(ctx, wheel, queue):
            try:
                hours = await wheel.hours(each, name)
            except BrokerRefused as error:
                strange.append(refused_queue(error, each, queue))
                continue
            total = [before + count for before, count in zip(total, hours, strict=True)]
    start = day_start_ms(name)
    if ctx.json:
        for hour, count in enumerate(total):
            from_ms = start + hour * HOUR_MS
            ctx.out.value({"day": _dashed(name), "hour": hour, "from": iso(from_ms), "from_ms": from_ms, "jobs": count})
        for one in strange:
            ctx.out.value(unreadable_document(one, "day"))
        return
    this_hour = (now_ms(ctx) - start) // HOUR_MS
    rows: list[Row] = [
        [
            Cell(f"{hour:02d}:00", "bold" if hour == this_hour else ""),
            *([local(ctx, start + hour * HOUR_MS)] if ctx.tz is not None else []),
            f"{count:,}",
            Cell("", "cyan", share=count / max(1, *total)),
        ]
        for hour, count in enumerate(total)
    ]
    zone = [Column(f"local ({ctx.tz_name})")] if ctx.tz is not None else []
    columns = [Column(f"{_dashed(name)} UTC"), *zone, Column("jobs", right=True), Column("", flexible=True)]
    rows += [unreadable_row(columns, replace(one, name=one.queue)) for one in strange]
    ctx.out.table(columns, rows, empty="")
    ctx.out.note(f"{human_count(sum(total), 'job')} on this day")


def _dashed(day: str) -> str:
    return f"{day[:4]}-{day[4:6]}-{day[6:]}"
