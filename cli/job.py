"""`zwheel job`: single jobs."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

import typer

from zwheel.errors import BrokerError, BrokerRefused, InvalidInput, JobNotFound, WaitTimeout
from zwheel.job import CancelOutcome, Job, JobState, RescheduleOutcome
from zwheel.outside import Listing

from .app import command, group
from .context import Context
from .exits import ExitCode, exit_code
from .output import Cell, Column, Row
from .serving import described, say_here, standing
from .show import (
    error_line,
    iso,
    job_document,
    job_fields,
    listed,
    moment,
    now_ms,
    relative,
    shorten,
    state_of,
    time_cells,
    time_columns,
    unreadable_document,
    unreadable_row,
)
from .values import AtOption, InOption, QueueOption, duration, fire_time, note_past, queue_names, refused_queue, say_cut

app = group("Show, list, cancel, reschedule and await single jobs.")

JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id.")]
JobIds = Annotated[list[str], typer.Argument(metavar="ID", help="The jobs' ids.")]
#: How a cancel or reschedule that came to nothing ends the command.
_REFUSALS = {
    "running": (ExitCode.REFUSED, "a worker is running it: too late"),
    "ended": (ExitCode.REFUSED, "it has already ended"),
    "too_late": (ExitCode.REFUSED, "it has already ended: too late"),
    "unknown": (ExitCode.NOT_FOUND, "no such job: it never existed, or it ended and was not kept"),
    "missing": (ExitCode.NOT_FOUND, "no such job: it never existed, or it ended and was not kept"),
}


@command(
    app, "show", examples=["zwheel job show order-1017", "zwheel job show order-1017 --tz Europe/Berlin --traceback"]
)
async def show(
    ctx: Context,
    job_id: JobId,
    queue: QueueOption = None,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show all frames of the failures.")] = False,
) -> None:
    """Show one job: state, times, arguments, failures.

    Exit code 4 when there is no such job.
    """
    say_here()
    found: list[str] = []
    held = ""
    async with ctx.wheel() as wheel:
        job = await wheel.get(job_id, queue)
        if job is not None and not job.state.terminal:
            with suppress(InvalidInput, BrokerError):
                await wheel.learn(job.task)
                found, held = await standing(wheel, job.queue, job.task)
    if job is None:
        raise JobNotFound(job_id)
    if ctx.json:
        ctx.out.value(job_document(job) | described(found) | ({"paused": True} if held else {}))
        return
    waits = [("waits", Cell(f"{found[0]}: it waits until one does", "yellow"))] if found else []
    waits += [("waits", Cell(held, "yellow"))] if held else []
    ctx.out.fields([*job_fields(ctx, job, tracebacks=traceback), *waits])


@command(app, "ls", examples=["zwheel job ls --queue emails --state scheduled", "zwheel job ls --json | jq .id"])
async def ls(
    ctx: Context,
    queue: QueueOption = None,
    state: Annotated[JobState | None, typer.Option("--state", help="Only jobs in this state; without it, all.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, metavar="N", help="At most so many of each queue.")] = 50,
    offset: Annotated[
        int, typer.Option("--offset", min=0, metavar="N", help="Leave out so many first, of each queue.")
    ] = 0,
) -> None:
    """List jobs.

    Running ones come first, then scheduled ones by fire time, then dead and ended ones, newest first.
    """
    found: Listing[Job] = Listing()
    cut: list[str] = []
    async with ctx.wheel() as wheel:
        for name in await queue_names(ctx, wheel, queue):
            try:
                page = await wheel.jobs(name, state, limit=limit + 1, offset=offset)
            except BrokerRefused as error:
                found.unreadable.append(refused_queue(error, name, queue))
                continue
            if len(page) > limit:
                cut.append(name)
                del page[limit:]
            found += page
            found.unreadable += page.unreadable
    list_jobs(ctx, found, empty="no such jobs")
    say_cut(ctx, cut, limit, offset)


def list_jobs(ctx: Context, jobs: Listing[Job], *, empty: str) -> None:
    """Write jobs as a table, or as JSON, one a line."""
    if ctx.json:
        for job in jobs:
            ctx.out.value(job_document(job))
        for one in jobs.unreadable:
            ctx.out.value(unreadable_document(one, "id"))
        return
    now = now_ms(ctx)
    columns = [
        Column("id"),
        Column("queue", flexible=True, drop=2),
        Column("task", flexible=True),
        Column("state"),
        *time_columns(ctx, "fires", drop=3),
        Column(""),
        Column("attempt", right=True, drop=1),
        Column("last error", flexible=True, drop=5),
    ]
    rows: list[Row] = [
        [
            listed(job.id),
            job.queue,
            job.task,
            state_of(job, now),
            *time_cells(ctx, job.fire_at_ms),
            relative(job.fire_at_ms, now),
            f"{job.attempt}/{job.max_attempts}",
            shorten(error_line(job.failures[-1]), 80) if job.failures else "",
        ]
        for job in jobs
    ]
    rows += [unreadable_row(columns, one) for one in jobs.unreadable]
    ctx.out.table(columns, rows, empty=empty)


@command(
    app, "cancel", examples=["zwheel job cancel order-1017", "zwheel job cancel order-1017 order-1018 --queue orders"]
)
async def cancel(ctx: Context, job_ids: JobIds, queue: QueueOption = None) -> None:
    """Cancel jobs, also while they run.

    A job that has not started never does, and its id is free for a new one. The worker of a running job hears of it within a
    second: the job ends as cancelled, or as done when its task goes on all the same, and is not tried again; see `zwheel job wait`. An ended
    job is left alone: exit code 6, of a missing one 4, and 5 when some of several were left alone.
    """
    from asyncio import gather

    outcomes: dict[str, str] = {}
    async with ctx.wheel() as wheel:
        ids = list(dict.fromkeys(job_ids))
        # All at once: a running job that ends makes room for one that is still to be cancelled.
        for job_id, outcome in zip(ids, await gather(*(wheel.cancel(one, queue) for one in ids)), strict=True):
            outcomes[job_id] = str(outcome)
            if ctx.json:
                ctx.out.value({"job_id": job_id, "outcome": str(outcome)})
            elif outcome is CancelOutcome.CANCELLED:
                ctx.out.line(f"{job_id} cancelled")
            elif outcome is CancelOutcome.CANCEL_REQUESTED:
                ctx.out.line(f"{job_id} cancel requested: it runs, and its worker is told")
    _end(ctx, outcomes)


@command(
    app,
    "reschedule",
    examples=[
        "zwheel job reschedule order-1017 --in 30m",
        "zwheel job reschedule order-1017 --at 'tomorrow 09:00 UTC'",
    ],
)
async def reschedule(
    ctx: Context, job_id: JobId, in_: InOption = None, at: AtOption = None, queue: QueueOption = None
) -> None:
    """Move a job that has not started yet to another time.

    The id of a cancelled job is free for a new one. A running or ended job is left alone: exit code 6, of a missing one 4.
    """
    when, delay = fire_time(ctx, in_, at)
    if when is None and delay is None:
        raise InvalidInput("say when: --in 30m or --at '2026-12-01 09:00 Europe/Berlin'")
    note_past(ctx, when)
    async with ctx.wheel() as wheel:
        outcome = await wheel.reschedule(job_id, at=when, delay=delay, queue=queue)
        job = await wheel.get(job_id, queue) if outcome is RescheduleOutcome.RESCHEDULED else None
    if ctx.json:
        fire_at = None if job is None else job.fire_at_ms
        ctx.out.value({"job_id": job_id, "outcome": str(outcome), "fire_at": iso(fire_at), "fire_at_ms": fire_at})
    elif job is not None:
        ctx.out.line(f"{job_id} fires {moment(ctx, job.fire_at_ms)}")
    _end(ctx, {job_id: str(outcome)})


def _end(ctx: Context, outcomes: dict[str, str]) -> None:
    """Name each job that was left alone, and end with the code that fits them all."""
    codes = set()
    for job_id, outcome in outcomes.items():
        code, why = _REFUSALS.get(outcome, (ExitCode.OK, ""))
        codes.add(code)
        if code is not ExitCode.OK:
            ctx.out.error(f"job {job_id}: {why}", job_id=job_id, outcome=outcome, exit=int(code))
    if codes - {ExitCode.OK}:
        raise ctx.fail(codes.pop() if len(codes) == 1 else ExitCode.PARTLY)


@command(app, "wait", examples=["zwheel job wait order-1017 --timeout 30s"])
async def wait(
    ctx: Context,
    job_ids: JobIds,
    queue: QueueOption = None,
    timeout: Annotated[
        str | None, typer.Option("--timeout", metavar="DURATION", help="Give up after this long, with exit code 7.")
    ] = None,
) -> None:
    """Wait until jobs have ended, and show how.

    Exit code 0 when all are done, 8 when one is dead or cancelled, 7 when the time is over, 4 when there is no such
    job: one that ended before and was not kept is not there.
    """
    from asyncio import get_running_loop

    limit = None if timeout is None else duration(timeout, "--timeout").total_seconds()
    started = get_running_loop().time()
    codes = set()
    async with ctx.wheel(patient=True) as wheel:
        for job_id in dict.fromkeys(job_ids):
            left = None if limit is None else max(0.0, limit - (get_running_loop().time() - started))
            try:
                job = await wheel.wait(job_id, queue, timeout=left)
            except (JobNotFound, WaitTimeout) as error:
                ctx.out.error(str(error), kind=type(error).__name__, job_id=job_id, exit=int(exit_code(error)))
                codes.add(exit_code(error))
                continue
            codes.add(ended(ctx, job))
    if codes - {ExitCode.OK}:
        raise ctx.fail(max(codes))


def ended(ctx: Context, job: Job) -> ExitCode:
    """Show how an awaited job ended, and give the exit code for it."""
    if ctx.json:
        ctx.out.value(job_document(job))
    else:
        why = f", {error_line(job.failures[-1])}" if job.state is JobState.DEAD and job.failures else ""
        ctx.out.line(f"{job.id} {job.state}{why}")
    ctx.out.flush()
    return ExitCode.OK if job.state is JobState.DONE else ExitCode.JOB_FAILED
