"""`zwheel schedule show`, `next`, `explain` and `history`: one schedule, looked at closely."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from zwheel.cli.app import command
from zwheel.cli.context import Context
from zwheel.cli.output import Column, Row, state_cell
from zwheel.cli.show import iso, moment, now_ms, relative, utc
from zwheel.cli.values import QueueOption
from zwheel.cli.when import human_duration

from .options import Given, facts, keywords, takes_options, unquoted
from .show import document_of, echo, following, in_zone, reading, table_of

if TYPE_CHECKING:
    from zwheel.schedules.definition import Definition
    from zwheel.schedules.state import Past

Name = Annotated[str, typer.Argument(metavar="NAME", help="The schedule's name.")]
Count = Annotated[int, typer.Option("--count", min=1, max=10_000, metavar="N", help="So many of them.")]


async def show(ctx: Context, name: Name, queue: QueueOption = None) -> None:
    """Show all of a schedule: its policies in words, the next five runs, the last five.

    Exit code 4 when there is no such schedule.
    """
    async with ctx.wheel() as wheel:
        info = await wheel.schedule(name, queue)
        past = await wheel.schedule_history(name, info.queue)
    definition, state, now = info.definition, info.state, now_ms(ctx)
    rhythm = info.rhythm()
    if ctx.json:
        document = {field: value for field, (value, _) in facts(definition).items()}
        document |= {
            "name": info.name, "queue": info.queue, "status": str(info.status), "owner": info.owner,
            "words": rhythm.rhythm_words(), "notes": definition.notes(), "next": iso(info.next_ms), "next_ms": info.next_ms, "fired": state.fired,
            "skipped": state.skipped, "missed": state.missed, "waiting": iso(state.buffered_ms),
            "created": iso(state.created_ms),
            "runs": [document_of(o, definition.tz) for o in following(definition, rhythm, now, 5)],
            "past": [_past_document(p) for p in past[:5]],
        }  # fmt: skip
        ctx.out.value(document)
        return
    lines = [("name", info.name), ("queue", str(info.queue)), ("status", str(info.status))]
    lines += reading(definition, rhythm, now)
    shown = {"name", "queue", "tz", "owner"}
    lines += [(field.removesuffix("_ms"), text) for field, (_, text) in facts(definition).items() if field not in shown]
    lines += [
        ("owner", info.owner or "nobody: it was added by hand"),
        ("added", moment(ctx, state.created_ms)),
        ("fired", f"{state.fired:,}, skipped {state.skipped:,}, missed {state.missed:,}"),
    ]
    if state.buffered_ms is not None:
        lines.append(("waiting", f"{in_zone(state.buffered_ms, definition.tz)}, until the one before it has ended"))
    ctx.out.fields(lines)
    if str(info.status) == "active":
        table_of(ctx, following(definition, rhythm, now, 5), definition.tz, now)
    _history_table(ctx, definition, past[:5])


async def next_(
    ctx: Context,
    name: Name,
    queue: QueueOption = None,
    count: Count = 10,
    everything: Annotated[bool, typer.Option("--all", help="Show also those that do not run, and why.")] = False,
) -> None:
    """Show the next runs of a schedule, in local time and UTC, and why any was moved or skipped.

    Exit code 4 when there is no such schedule.
    """
    async with ctx.wheel() as wheel:
        info = await wheel.schedule(name, queue)
    now = now_ms(ctx)
    found = following(info.definition, info.rhythm(), now, count, skipped=everything)
    if ctx.json:
        for occurrence in found:
            ctx.out.value(document_of(occurrence, info.definition.tz))
        return
    table_of(ctx, found, info.definition.tz, now)
    if str(info.status) != "active":
        ctx.out.note(f"note: it is {info.status}: these would be its times")


@takes_options
async def explain(
    ctx: Context,
    words: Annotated[list[str], typer.Argument(metavar="WHEN", help="What `schedule add` takes, in quotes.")],
    *,
    given: Given,
    count: Count = 5,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="The schedule's name, from which H is drawn.")
    ] = None,
) -> None:
    """Say in words when something fires, show the next runs, and what happens at the next change of clocks.

    The zone is that of --zone, or else of --tz, or else UTC. Needs no Redis.
    """
    from zwheel.client.declare import make_definition
    from zwheel.payload.codec import DEFAULT
    from zwheel.schedules.foreign import split_zone

    when = words[0]
    if len(words) > 1:
        raise unquoted(when)
    named = given.zone or split_zone(when)[1] or ctx.tz_name
    options = keywords(ctx, given, zone=named or "UTC")
    if named:
        options.setdefault("tz", named)
    definition = make_definition({}, DEFAULT, name or "explained", when, "nothing", **options)
    if name is None and any(note.startswith("H ") for note in definition.notes()):
        ctx.out.note("note: give --name NAME to see the numbers that H draws for that schedule")
    now, zone = now_ms(ctx), definition.tz
    rhythm = definition.rhythm(now)
    found = following(definition, rhythm, now, count, skipped=True)
    if ctx.json:
        read = {what.replace(" ", "_"): text for what, text in reading(definition, rhythm, now)}
        document: dict[str, object] = {what: text for what, text in read.items() if what != "note"}
        document["notes"] = definition.notes()
        ctx.out.value(document | {"runs": [document_of(o, zone) for o in found]})
        return
    if count == 5 and not any(o.skipped for o in found):
        echo(ctx, definition, rhythm, now)
        return
    ctx.out.fields(reading(definition, rhythm, now))
    table_of(ctx, found, zone, now)


async def history(ctx: Context, name: Name, queue: QueueOption = None) -> None:
    """Show what became of the newest occurrences, at most 20, newest first.

    A job's end is shown as long as the job is kept. Exit code 4 when there is no such schedule.
    """
    async with ctx.wheel() as wheel:
        info = await wheel.schedule(name, queue)
        past = await wheel.schedule_history(name, info.queue)
    if ctx.json:
        for one in past:
            ctx.out.value(_past_document(one))
        return
    _history_table(ctx, info.definition, past)


def _past_document(past: Past) -> dict[str, object]:
    started, ended = past.started_ms, past.ended_ms
    return {
        "at": iso(past.at_ms), "at_ms": past.at_ms, "verdict": str(past.verdict), "job": past.job_id,
        "state": past.state or None, "fire_ms": past.fire_ms or None, "started_ms": started, "ended_ms": ended,
        "lateness_ms": None if started is None else started - past.fire_ms, "attempt": past.attempt,
    }  # fmt: skip


def _history_table(ctx: Context, definition: Definition, past: list[Past]) -> None:
    zone = ctx.tz_name or definition.tz
    now = now_ms(ctx)
    columns = [
        Column(f"local ({zone})"), Column("UTC", drop=2), Column("", drop=1), Column("verdict"), Column("state"),
        Column("late", right=True), Column("took", right=True), Column("attempt", right=True, drop=3),
    ]  # fmt: skip
    rows: list[Row] = []
    for one in past:
        started, ended = one.started_ms, one.ended_ms
        late = "-" if started is None else f"{max(0, started - one.fire_ms):,} ms"
        took = "-" if started is None or ended is None else human_duration(max(0, ended - started))
        rows.append(
            [
                in_zone(one.at_ms, zone), utc(one.at_ms), relative(one.at_ms, now), str(one.verdict),
                state_cell(one.state or "-"), late, took, str(one.attempt or "-"),
            ]
        )  # fmt: skip
    ctx.out.table(columns, rows, empty="it has not run yet")


def add_to(app: typer.Typer) -> None:
    """Register the commands in the group."""
    command(app, "show", examples=["zwheel schedule show report", "zwheel schedule show report --tz Asia/Tokyo"])(show)
    command(app, "next", examples=["zwheel schedule next report --count 20 --all"])(next_)
    command(
        app,
        "explain",
        examples=[
            "zwheel schedule explain '0 0 * * *' --tz Asia/Shanghai",
            "zwheel schedule explain '30 2 * * *' --zone Europe/Berlin --gap skip",
            "zwheel schedule explain 'H 3 * * *' --name report",
            "zwheel schedule explain '0 9 * * MON-FRI' --zone Europe/Berlin --holidays DE --on-blocked next",
        ],
    )(explain)
    command(app, "history", examples=["zwheel schedule history report", "zwheel schedule history report --json"])(
        history
    )
