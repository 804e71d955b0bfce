"""`zwheel dead`: jobs that will not run again unless a person redrives them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from zwheel.errors import BrokerRefused, InvalidInput, InvalidName, JobNotFound
from zwheel.job import Job, JobState, Reason
from zwheel.keys import check_job_id, check_name
from zwheel.outside import Listing

from .app import command, group
from .context import Context, Refused
from .exits import ExitCode
from .output import Column, Row
from .show import (
    error_line,
    job_document,
    job_fields,
    listed,
    now_ms,
    relative,
    shorten,
    time_cells,
    time_columns,
    unreadable_document,
    unreadable_row,
)
from .values import QueueOption, duration, known_queues, queue_names, refused_queue, say_cut
from .when import human_count

if TYPE_CHECKING:
    from zwheel import Wheel

app = group("List, show, redrive and purge dead jobs.")

#: How many dead jobs are read or acted on in one call.
PAGE = 500
#: So many queues are named in the question.
_NAMED_QUEUES = 8

ReasonOption = Annotated[
    str | None, typer.Option("--reason", metavar="WORD", help="Only those dead for this reason, such as timeout.")
]
TaskOption = Annotated[str | None, typer.Option("--task", metavar="NAME", help="Only jobs of this task.")]
OlderOption = Annotated[
    str | None, typer.Option("--older-than", metavar="DURATION", help="Only those dead for longer, such as 7d.")
]
SomeIds = Annotated[list[str] | None, typer.Argument(metavar="ID", help="Only these jobs.")]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which dead jobs are meant."""

    reason: str | None
    task: str | None
    older_than_ms: int | None
    """Only jobs that have been dead for longer than this, ms."""

    @classmethod
    def of(cls, reason: str | None, task: str | None, older_than: str | None) -> Filter:
        """Read the options. Raises: InvalidTime."""
        age = None if older_than is None else duration(older_than, "--older-than")
        return cls(reason, task, None if age is None else int(age.total_seconds() * 1000))

    @property
    def everything(self) -> bool:
        """Whether nothing is left out."""
        return self.reason is None and self.task is None and self.older_than_ms is None

    def takes(self, job: Job, now: int) -> bool:
        """Whether a dead job is meant."""
        return (
            (self.reason is None or job.reason == self.reason)
            and (self.task is None or job.task == self.task)
            and (self.older_than_ms is None or now - (job.ended_at_ms or now) > self.older_than_ms)
        )


async def matching(wheel: Wheel, queue: str, wanted: Filter, now: int) -> AsyncIterator[Job]:
    """Read the dead jobs of a queue that are meant, a page at a time."""
    offset = 0
    while page := await wheel.dead(queue, limit=PAGE, offset=offset):
        for job in page:
            if wanted.takes(job, now):
                yield job
        offset += PAGE


@command(app, "ls", examples=["zwheel dead ls", "zwheel dead ls --queue emails --reason timeout --older-than 1d"])
async def ls(
    ctx: Context,
    queue: QueueOption = None,
    reason: ReasonOption = None,
    task: TaskOption = None,
    older_than: OlderOption = None,
    limit: Annotated[int, typer.Option("--limit", min=1, metavar="N", help="At most so many of each queue.")] = 50,
    offset: Annotated[int, typer.Option("--offset", min=0, metavar="N", help="Leave out so many first.")] = 0,
) -> None:
    """List dead jobs with the reason and the last error."""
    wanted = Filter.of(reason, task, older_than)
    now = now_ms(ctx)
    found: Listing[Job] = Listing()
    cut: list[str] = []
    async with ctx.wheel() as wheel:
        for name in await queue_names(ctx, wheel, queue):
            try:
                page = await _page(wheel, name, wanted, now, limit + 1, offset)
            except BrokerRefused as error:
                found.unreadable.append(refused_queue(error, name, queue))
                continue
            if len(page) > limit:
                cut.append(name)
            found += page[:limit]
            found.unreadable += page.unreadable
    _show_all(ctx, found, now)
    say_cut(ctx, cut, limit, offset)


def _show_all(ctx: Context, found: Listing[Job], now: int) -> None:
    if ctx.json:
        for job in found:
            ctx.out.value(job_document(job))
        for one in found.unreadable:
            ctx.out.value(unreadable_document(one, "id"))
        return
    columns = [Column("id"), Column("queue", flexible=True, drop=3), Column("task", flexible=True)]
    columns += [*time_columns(ctx, "died", drop=4), Column("", drop=1), Column("attempts", right=True, drop=2)]
    columns += [Column("reason"), Column("last error", flexible=True)]
    rows: list[Row] = [
        [
            listed(job.id),
            job.queue,
            job.task,
            *time_cells(ctx, job.ended_at_ms),
            "-" if job.ended_at_ms is None else relative(job.ended_at_ms, now),
            str(job.attempt),
            job.reason or "-",
            shorten(error_line(job.failures[-1]), 80) if job.failures else "",
        ]
        for job in found
    ]
    rows += [unreadable_row(columns, one) for one in found.unreadable]
    ctx.out.table(columns, rows, empty="no dead jobs")


async def _page(wheel: Wheel, queue: str, wanted: Filter, now: int, limit: int, offset: int) -> Listing[Job]:
    """A page of the dead jobs of a queue that are meant."""
    if wanted.everything:
        return await wheel.dead(queue, limit=limit, offset=offset)
    found: Listing[Job] = Listing()
    number = 0
    async for job in matching(wheel, queue, wanted, now):
        if number >= offset:
            found.append(job)
        number += 1
        if number >= offset + limit:
            break
    return found


@command(app, "show", examples=["zwheel dead show order-1017 --traceback"])
async def show(
    ctx: Context,
    job_id: Annotated[str, typer.Argument(metavar="ID", help="The job's id.")],
    queue: QueueOption = None,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show all frames of the failures.")] = False,
) -> None:
    """Show one dead job: why it died, its arguments, its failures.

    Exit code 4 when there is no such job, 6 when it is not dead.
    """
    async with ctx.wheel() as wheel:
        job = await wheel.get(job_id, queue)
    if job is None:
        raise JobNotFound(job_id)
    if job.state is not JobState.DEAD:
        raise Refused(f"job {job_id} is {job.state}, not dead")
    if ctx.json:
        ctx.out.value(job_document(job))
    else:
        ctx.out.fields(job_fields(ctx, job, tracebacks=traceback))


@command(
    app,
    "redrive",
    examples=[
        "zwheel dead redrive order-1017",
        "zwheel dead redrive --queue emails --reason timeout --yes",
        "zwheel dead redrive --task mail.send",
    ],
)
async def redrive(
    ctx: Context,
    job_ids: SomeIds = None,
    queue: QueueOption = None,
    reason: ReasonOption = None,
    task: TaskOption = None,
    older_than: OlderOption = None,
) -> None:
    """Put dead jobs back on the wheel.

    They are due at once and have all their attempts again. Name the jobs, a queue, or a filter, which without a queue
    looks into all of them: then they are counted first, and without a terminal it needs --yes, else exit code 6. Exit
    code 5 when only some of the named jobs were dead, 4 when none was or when there is no such queue.
    """

    async def act(wheel: Wheel, name: str, ids: Sequence[str] | None, report: Callable[[int], None] | None) -> int:
        return await wheel.redrive(name, ids, progress=report)

    await _bulk(ctx, act, ("redrive", "redriven", "scheduled"), job_ids, queue, Filter.of(reason, task, older_than))


@command(
    app,
    "purge",
    examples=["zwheel dead purge order-1017", "zwheel dead purge --queue emails --older-than 30d --yes"],
)
async def purge(
    ctx: Context,
    job_ids: SomeIds = None,
    queue: QueueOption = None,
    reason: ReasonOption = None,
    task: TaskOption = None,
    older_than: OlderOption = None,
) -> None:
    """Delete dead jobs for ever.

    Name the jobs, a queue, or a filter, which without a queue looks into all of them: then they are counted first, and
    without a terminal it needs --yes, else exit code 6. Exit code 5 when only some of the named jobs were dead, 4 when
    none was or when there is no such queue.
    """

    async def act(wheel: Wheel, name: str, ids: Sequence[str] | None, report: Callable[[int], None] | None) -> int:
        return await wheel.purge_dead(name, ids, progress=report)

    await _bulk(ctx, act, ("delete", "deleted", None), job_ids, queue, Filter.of(reason, task, older_than))


Words = tuple[str, str, str | None]
"""The act, the word for what was done, and the state that a job is then in; None: it is gone."""
Act = Callable[["Wheel", str, Sequence[str] | None, Callable[[int], None] | None], Awaitable[int]]


async def _bulk(
    ctx: Context, act: Act, words: Words, job_ids: list[str] | None, queue: str | None, wanted: Filter
) -> None:
    """Act on the named jobs, or on all that the filter takes, of one queue or of all."""
    if job_ids and not wanted.everything:
        raise InvalidInput("name the jobs or give a filter, not both")
    async with ctx.wheel() as wheel:
        if job_ids:
            await _named(ctx, wheel, act, words, list(dict.fromkeys(job_ids)), queue)
        elif queue is not None:
            await known_queues(wheel, [queue])
            await _filtered(ctx, wheel, act, words, check_name(queue), wanted)
        elif wanted.everything:
            raise InvalidInput(
                f"say which jobs to {words[0]}: their ids, --queue NAME, or a filter such as --task NAME"
            )
        else:
            await _filtered(ctx, wheel, act, words, None, wanted)


async def _named(ctx: Context, wheel: Wheel, act: Act, words: Words, job_ids: list[str], queue: str | None) -> None:
    """Act on jobs that were named. They are few, and each was meant: nobody is asked."""
    acted = 0
    for job_id in job_ids:
        job = await wheel.get(job_id, queue)
        done = job is not None and job.state is JobState.DEAD and await act(wheel, job.queue, [job_id], None) == 1
        acted += done
        if ctx.json:
            state = words[2] if done else None if job is None else str(job.state)
            ctx.out.value({"job_id": job_id, words[1]: done, "state": state})
        elif done:
            ctx.out.line(f"{job_id} {words[1]}")
        if not done:
            ctx.out.error(f"job {job_id}: {_why_not(job)}", job_id=job_id)
    if acted < len(job_ids):
        raise ctx.fail(ExitCode.PARTLY if acted else ExitCode.NOT_FOUND)


def _why_not(job: Job | None) -> str:
    if job is None:
        return "no such job"
    if job.state is not JobState.DEAD:
        return f"it is {job.state}, not dead"
    if job.reason == Reason.UNDECODABLE and job.max_attempts == 0:
        return (
            f"its record is damaged, or was written by another version, which alone can redrive it ({job.failures[-1].message}); "
            f"zwheel dead purge {job.id} deletes it"
        )
    return "another job holds its unique key by now" if job.dedup is not None else "it is not dead any more"


def _can_be_named(job_id: str) -> bool:
    try:
        check_job_id(job_id)
    except InvalidName:
        return False
    return True


async def _filtered(ctx: Context, wheel: Wheel, act: Act, words: Words, queue: str | None, wanted: Filter) -> None:
    """Count, ask, act in pages; queue: None for all queues, some of which may be unreadable."""
    chosen: dict[str, tuple[list[str] | None, int]] = {}
    refused = 0
    for name in await queue_names(ctx, wheel, None) if queue is None else [queue]:
        try:
            ids = await _counted(ctx, wheel, name, wanted)
            count = await wheel.count(name, JobState.DEAD) if ids is None else len(ids)
        except BrokerRefused as error:
            if queue is not None:
                raise
            refused += 1
            ctx.out.error(f"queue {name} is left out: {error}", queue=name)
            continue
        if count or queue is not None:
            chosen[name] = ids, count
    total = sum(count for _, count in chosen.values())
    if total:
        where = ", ".join(chosen) if len(chosen) <= _NAMED_QUEUES else human_count(len(chosen), "queue")
        ctx.confirm(f"{words[0]} {human_count(total, 'dead job')} of {where}", total)
    for name, (ids, count) in chosen.items():
        acted = await _act(ctx, wheel, act, words, name, ids, count)
        if ctx.json:
            ctx.out.value({"queue": name, words[1]: acted})
        else:
            ctx.out.line(f"{human_count(acted, 'dead job')} of {name} {words[1]}")
    if not chosen:
        ctx.out.note("no dead job is meant")
    if refused:
        raise ctx.fail(ExitCode.PARTLY)


async def _counted(ctx: Context, wheel: Wheel, queue: str, wanted: Filter) -> list[str] | None:
    """The jobs of a queue that a filter takes, so that just those are acted on; None for all."""
    if wanted.everything:
        return None
    found = list(dict.fromkeys([str(job.id) async for job in matching(wheel, queue, wanted, now_ms(ctx))]))
    ids = [job_id for job_id in found if _can_be_named(job_id)]
    if len(ids) < len(found):
        ctx.out.note(f"{human_count(len(found) - len(ids), 'dead job')} with an id that zwheel never gave left out")
    return ids


async def _act(
    ctx: Context, wheel: Wheel, act: Act, words: Words, queue: str, ids: list[str] | None, count: int
) -> int:
    acted = 0
    with ctx.out.progress(f"{words[0]} dead jobs of {queue}", count) as report:
        if ids is None and count:
            acted = await act(wheel, queue, None, report)
        for start in range(0, len(ids or ()), PAGE):
            acted += await act(wheel, queue, (ids or [])[start : start + PAGE], None)
            report(acted)
    return acted
