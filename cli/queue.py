"""`zwheel queue`: whole queues."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from zwheel.errors import InvalidInput
from zwheel.info import QueueInfo, ReshardProgress
from zwheel.job import JobState
from zwheel.job import QueueName as Name
from zwheel.keys import check_name, shard_names
from zwheel.plain import cut

from .app import command, group
from .context import Context
from .exits import ExitCode
from .output import Cell, Column, Row
from .show import iso, moment, now_ms, relative, shorten, unreadable_document, unreadable_row
from .values import known_queues, note_unknown
from .when import human_count

if TYPE_CHECKING:
    from zwheel import Wheel

app = group("List, show, create, cut into shards, pause, resume, limit, purge and remove queues.")

#: So many shards that gave no answer are named.
_NAMED = 8

QueueName = Annotated[str, typer.Argument(metavar="QUEUE", help="The queue's name.")]
QueueNames = Annotated[list[str], typer.Argument(metavar="QUEUE", help="The queues' names.")]
Create = Annotated[bool, typer.Option("--create", help="Also for a queue that does not exist yet: make it.")]


class Purgeable(StrEnum):
    """What can be purged: a processing job belongs to its worker."""

    SCHEDULED = "scheduled"
    DONE = "done"
    """Cancelled jobs are kept with the done ones and go with them."""
    DEAD = "dead"


class Timing(StrEnum):
    """Whether a queue is precise."""

    ON = "on"
    OFF = "off"


def queue_document(info: QueueInfo) -> dict[str, object]:
    """Give what is known about a queue as JSON."""
    return {
        "queue": info.name,
        "scheduled": info.scheduled,
        "due": info.due,
        "processing": info.processing,
        "dead": info.dead,
        "done": info.done,
        "paused": info.paused,
        "oldest_due": iso(info.oldest_due_ms),
        "oldest_due_ms": info.oldest_due_ms,
        "next_fire": iso(info.next_fire_ms),
        "next_fire_ms": info.next_fire_ms,
        "workers": info.workers,
        "workers_silent": info.workers_silent,
        "workers_dead": info.workers_dead,
        "cap": info.cap,
        "precise": info.precise,
        "trimmed": info.trimmed,
        "shards": info.shards,
        **({} if info.former is None else {"former_shards": info.former}),
        **({"unreadable": info.unreadable} if info.unreadable else {}),
    }


@command(
    app,
    "ls",
    examples=[
        "zwheel queue ls",
        "zwheel queue ls --json | jq 'select(.due > 100)'",
        "zwheel queue ls --limit 1000 --after emails",
    ],
)
async def ls(
    ctx: Context,
    limit: Annotated[int, typer.Option("--limit", min=1, metavar="N", help="Show at most so many queues.")] = 500,
    after: Annotated[str, typer.Option("--after", metavar="NAME", help="Begin behind this name: the next page.")] = "",
) -> None:
    """List the queues with what is in them, by name.

    When there are more than --limit, it says how many, and from which name on the next page begins. Exit code 5 when a node
    of a cluster gives no answer: what lies there is not counted.
    """
    async with ctx.wheel() as wheel:
        listed = await wheel.queues()
        names = [name for name in listed if name > after]
        infos = await wheel.queue_infos(names[:limit])
        unserved = await _unserved(wheel, infos)
    strange = listed.unreadable[:limit] if not after else []
    if ctx.json:
        for info in infos:
            more = {"unserved": unserved[info.name]} if info.name in unserved else {}
            ctx.out.value(queue_document(info) | more)
        for one in strange:
            ctx.out.value(unreadable_document(one, "queue"))
        _tell_more(ctx, names, limit, len(listed))
        _tell_unanswered(ctx, infos)
        return
    now = now_ms(ctx)
    numbers = ("scheduled", "due", "processing", "done", "dead", "workers")
    rows: list[Row] = [
        [
            info.name,
            *(f"{getattr(info, name):,}" for name in numbers),
            "-" if info.next_fire_ms is None else relative(info.next_fire_ms, now),
            _remark(info, unserved.get(info.name, "")),
        ]
        for info in infos
    ]
    counts = (Column(name, right=True, drop=2 if name == "done" else 0) for name in numbers)
    columns = [Column("queue"), *counts, Column("next", drop=1), Column("")]
    rows += [unreadable_row(columns, one) for one in strange]
    ctx.out.table(columns, rows, empty="no queues yet: the first enqueue makes one")
    _tell_more(ctx, names, limit, len(listed))
    _tell_unanswered(ctx, infos)


async def _unserved(wheel: Wheel, infos: Sequence[QueueInfo]) -> dict[str, str]:
    """Say of each queue whose first job no worker would run why: nobody serves it, or nobody knows the task."""
    tasks = await wheel.next_tasks(infos)
    serving = await wheel.serving(tasks.items())
    found = {}
    for (queue, task), served in serving.items():
        if served.nobody:
            found[queue] = f"no live worker knows {cut(task, 60)}" if served.workers else "no live worker"
    for info in infos:
        # The list of workers is in the first shard.
        unknown = info.unanswered[:1] in ((info.name,), (shard_names(info.name, info.shards)[0],))
        if info.processing and not info.workers + info.workers_silent and not unknown:
            found[info.name] = "no live worker"  # Nobody takes back what those held that are gone.
    return found


def _remark(info: QueueInfo, unserved: str) -> str | Cell:
    """What stands behind a queue's numbers."""
    remarks = ["paused"] if info.paused else []
    if unserved:
        remarks.append(unserved)
    if info.cap is not None and info.scheduled + info.processing >= info.cap:
        remarks.append(f"full: it takes {info.cap:,}")
    if missing := _missing(info):
        remarks.append(f"workers: {', '.join(missing)}")
    if info.unreadable:
        return Cell(shorten("; ".join([*remarks, f"unreadable: {info.unreadable}"]), 400), "red")
    return Cell("; ".join(remarks), "yellow") if remarks else ""


def _missing(info: QueueInfo) -> list[str]:
    """The workers that do not beat, in words."""
    counts = ((info.workers_silent, "silent"), (info.workers_dead, "dead"))
    return [f"{count:,} {word}" for count, word in counts if count]


def _tell_more(ctx: Context, names: list[Name], limit: int, count: int) -> None:
    if len(names) > limit:
        ctx.out.note(
            f"{human_count(len(names) - limit, 'more queue')} of {count:,}: the next page begins with "
            f"--after {names[limit - 1]}"
        )


def _tell_unanswered(ctx: Context, infos: Sequence[QueueInfo]) -> None:
    """Say what is not in the numbers, and end with the code of a partial answer, when a node of a cluster is silent."""
    if names := [name for info in infos for name in info.unanswered]:
        more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
        ctx.out.error(f"a node of the cluster gives no answer; not counted: {', '.join(names[:_NAMED])}{more}")
        raise ctx.fail(ExitCode.PARTLY)


@command(app, "show", examples=["zwheel queue show emails"])
async def show(ctx: Context, queue: QueueName) -> None:
    """Show one queue in detail. A queue that does not exist is shown as empty, with a note.

    Exit code 5 when a node of a cluster gives no answer: what lies there is not counted.
    """
    async with ctx.wheel() as wheel:
        await note_unknown(ctx, wheel, queue)
        info = await wheel.queue(check_name(queue))
        unserved = (await _unserved(wheel, [info])).get(info.name, "")
    if ctx.json:
        ctx.out.value(queue_document(info) | ({"unserved": unserved} if unserved else {}))
        _tell_unanswered(ctx, [info])
        return
    oldest, following = info.oldest_due_ms, info.next_fire_ms
    ctx.out.fields(
        [
            ("queue", info.name),
            ("state", Cell("paused", "yellow") if info.paused else Cell("open", "green")),
            ("scheduled", f"{info.scheduled:,}"),
            ("of these due", f"{info.due:,}" if oldest is None else f"{info.due:,}, the oldest {moment(ctx, oldest)}"),
            ("next", "-" if following is None else moment(ctx, following)),
            ("processing", f"{info.processing:,}"),
            ("done, kept", f"{info.done:,}"),
            ("dead", Cell(f"{info.dead:,}", "red" if info.dead else "")),
            ("dead, deleted", f"{info.trimmed:,} so far, since they were too many or too old"),
            ("workers", ", ".join([f"{info.workers:,}", *_missing(info)])),
            *([("shards", _shards(info))] if info.shards > 1 or info.former else []),
            *([("first job", Cell(f"{unserved}: it waits until one does", "yellow"))] if unserved else []),
            ("cap", "none" if info.cap is None else human_count(info.cap, "job")),
            ("timing", "precise: jobs are claimed a few ms ahead and held" if info.precise else "when jobs are due"),
            *([("unreadable", Cell(info.unreadable, "red"))] if info.unreadable else []),
        ]
    )
    _tell_unanswered(ctx, [info])


def _shards(info: QueueInfo) -> str:
    moving = "" if info.former is None else f"; jobs of its former {human_count(info.former, 'shard')} are on their way"
    return f"{info.shards:,}{moving}"


@command(app, "create", examples=["zwheel queue create orders --shards 8"])
async def create(
    ctx: Context,
    queue: QueueName,
    shards: Annotated[
        int,
        typer.Option(
            "--shards",
            metavar="N",
            help="How many shards it has, up to 1024: independent parts, which a cluster spreads.",
        ),
    ] = 1,
) -> None:
    """Make a queue before its first job. Without this, the first job makes it, with one shard.

    The same again changes nothing. Exit code 6 when it exists with another number of shards.
    """
    async with ctx.wheel() as wheel:
        await wheel.create_queue(check_name(queue), shards=shards)
    if ctx.json:
        ctx.out.value({"queue": queue, "shards": shards})
    else:
        ctx.out.line(f"{queue} has {human_count(shards, 'shard')}")


@command(app, "reshard", examples=["zwheel queue reshard orders --shards 16"])
async def reshard(
    ctx: Context,
    queue: QueueName,
    shards: Annotated[int, typer.Option("--shards", metavar="N", help="How many shards it is to have, up to 1024.")],
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait also for jobs that run: they end in their former shards.")
    ] = True,
) -> None:
    """Cut a queue into another number of shards, while producers and workers go on. No job is lost, doubled or early.

    Stopped in the middle, workers go on with it, and so does the same command again. Exit code 4 when there is no such
    queue, 6 when it is being cut into another number of shards.
    """
    began = time.monotonic()
    async with ctx.wheel() as wheel:
        await known_queues(wheel, [check_name(queue)])
        info, begun = await wheel.queue(queue), False
        with ctx.out.progress(f"reshard {queue}", None) as report:

            def tell(at: ReshardProgress) -> None:
                nonlocal begun
                begun = True
                report(at.moved, _on_its_way(queue, at))

            try:
                moved = await wheel.reshard_queue(queue, shards=shards, wait=wait, progress=tell)
            except (KeyboardInterrupt, asyncio.CancelledError):
                if begun:
                    ctx.out.note(
                        f"{queue} is still being cut: workers go on with it, and so does the same command again"
                    )
                raise
    changed = info.shards != shards or info.former is not None
    took_s = time.monotonic() - began
    if ctx.json:
        ctx.out.value(
            {
                "queue": queue, "shards": shards, "changed": changed, "moved": moved.moved, "left": moved.left,
                "done": moved.done,
            }
        )  # fmt: skip
    elif not changed:
        ctx.out.line(f"{queue} has {human_count(shards, 'shard')} already")
    else:
        ctx.out.line(
            f"{queue} has {human_count(shards, 'shard')}; {human_count(moved.moved, 'job')} moved in {took_s:.1f} s"
        )
        if not moved.done:
            ctx.out.note(
                f"{human_count(moved.left, 'job')} in the former shards, {moved.running:,} running: workers move the rest"
            )


def _on_its_way(queue: str, at: ReshardProgress) -> str:
    if at.left and at.left == at.running:
        return f"reshard {queue}: waiting for {human_count(at.running, 'running job')}"
    return f"reshard {queue}: {human_count(at.left, 'job')} to go"


@command(app, "rm", examples=["zwheel queue rm old-orders", "zwheel queue rm old-orders --yes"])
async def remove(ctx: Context, queue: QueueName) -> None:
    """Remove a queue: its jobs and schedules, its settings, and its place in the list of queues.

    Counts first what is in it and asks; without a terminal it needs --yes, else exit code 6. Exit code 6 also while workers
    serve it or jobs run, 4 when there is no such queue.
    """
    async with ctx.wheel() as wheel:
        await known_queues(wheel, [queue])
        info = await wheel.queue(queue)
        schedules = len(await wheel.schedules(queue))
        count = info.scheduled + info.dead + info.done
        if count or schedules:
            also = f" and {human_count(schedules, 'schedule')}" if schedules else ""
            ctx.confirm(f"delete {queue} with {human_count(count, 'job')}{also}", count)
        with ctx.out.progress(f"remove {queue}", count) as report:
            deleted = await wheel.remove_queue(queue, jobs=bool(count or schedules), progress=report)
    if ctx.json:
        ctx.out.value({"queue": queue, "jobs": deleted, "schedules": schedules})
    else:
        ctx.out.line(f"{queue} removed" + (f", with {human_count(deleted, 'job')}" if deleted else ""))


@command(app, "pause", examples=["zwheel queue pause emails", "zwheel queue pause reports --create"])
async def pause(
    ctx: Context,
    queues: QueueNames,
    create: Create = False,
) -> None:
    """Stop handing out jobs of these queues. What runs, runs on; enqueueing goes on.

    Exit code 4 when one of the queues does not exist; then none is paused.
    """
    await _switch(ctx, queues, paused=True, create=create)


@command(app, "resume", examples=["zwheel queue resume emails"])
async def resume(ctx: Context, queues: QueueNames) -> None:
    """Hand out jobs of these queues again.

    Exit code 4 when one of the queues does not exist; then none is resumed.
    """
    await _switch(ctx, queues, paused=False)


async def _switch(ctx: Context, queues: list[str], *, paused: bool, create: bool = False) -> None:
    names = [check_name(name) for name in dict.fromkeys(queues)]
    async with ctx.wheel() as wheel:
        if not create:
            await known_queues(wheel, names)
        for name in names:
            await (wheel.pause(name) if paused else wheel.resume(name))
            if ctx.json:
                ctx.out.value({"queue": name, "paused": paused})
            else:
                ctx.out.line(f"{name} {'paused' if paused else 'resumed'}")


@command(app, "cap", examples=["zwheel queue cap emails 10000", "zwheel queue cap emails none"])
async def cap(
    ctx: Context,
    queue: QueueName,
    most: Annotated[str, typer.Argument(metavar="N", help="The most living jobs it takes; none: no limit.")],
    create: Create = False,
) -> None:
    """Limit how many living jobs a queue takes: an enqueue beyond it is refused, with exit code 6.

    What is there already stays, and a redrive goes beyond it. Exit code 4 when there is no such queue.
    """
    limit = None if most == "none" else int(most[:20]) if most.isascii() and most.isdigit() else 0
    if limit == 0:
        raise InvalidInput(f"{cut(most, 40)!r} is no limit: give a whole number from 1 on, or none")
    async with ctx.wheel() as wheel:
        if not create:
            await known_queues(wheel, [queue])
        await wheel.set_cap(check_name(queue), limit)
        shards = (await wheel.queue(queue)).shards
    if ctx.json:
        ctx.out.value({"queue": queue, "cap": limit})
    else:
        ctx.out.line(
            f"{queue} takes {'any number of jobs' if limit is None else human_count(limit, 'living job') + ' at the most'}"
            + (
                f", {human_count(-(-limit // shards), 'job')} in each of its {shards} shards"
                if limit and shards > 1
                else ""
            )
        )


@command(app, "precise", examples=["zwheel queue precise bids on", "zwheel queue precise bids off"])
async def precise(
    ctx: Context,
    queue: QueueName,
    timing: Annotated[Timing, typer.Argument(metavar="on|off", help="Turn it on or off.")],
    create: Create = False,
) -> None:
    """Start the jobs of a queue within a millisecond of their time: workers claim them a few ms ahead and hold them.

    No job starts early. A job that is held counts as running: it cannot be cancelled or moved any more. Exit code 4 when
    there is no such queue.
    """
    on = timing is Timing.ON
    async with ctx.wheel() as wheel:
        if not create:
            await known_queues(wheel, [queue])
        await wheel.set_precise(check_name(queue), on)
    if ctx.json:
        ctx.out.value({"queue": queue, "precise": on})
    else:
        ctx.out.line(f"{queue} {'is precise: jobs are claimed a few ms ahead and held' if on else 'is not precise'}")


@command(
    app,
    "purge",
    examples=["zwheel queue purge emails --state scheduled", "zwheel queue purge emails --state done --yes"],
)
async def purge(
    ctx: Context,
    queue: QueueName,
    which: Annotated[
        Purgeable, typer.Option("--state", help="Delete the jobs in this state; cancelled ones are kept with the done.")
    ],
) -> None:
    """Delete all jobs of a queue in one state, for ever.

    Counts them first and asks; without a terminal it needs --yes, else exit code 6. Exit code 4 when there is no such
    queue.
    """
    check_name(queue)
    state = JobState(which)
    async with ctx.wheel() as wheel:
        await known_queues(wheel, [queue])
        count = await wheel.count(queue, state)
        if count:
            ctx.confirm(f"delete {human_count(count, f'{state} job')} of {queue}", count)
        with ctx.out.progress(f"purge {queue}", count) as report:
            purged = await wheel.purge(queue, state, progress=report) if count else 0
    if ctx.json:
        ctx.out.value({"queue": queue, "state": str(state), "purged": purged})
    else:
        ctx.out.line(f"{human_count(purged, f'{state} job')} of {queue} deleted")
