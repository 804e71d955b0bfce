"""`zwheel schedule pause`, `resume`, `trigger`, `remove` and `backfill`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated

import typer

from zwheel.cli.app import command
from zwheel.cli.context import Context, Refused
from zwheel.cli.exits import ExitCode, exit_code
from zwheel.cli.show import enqueued_document, iso, moment, utc
from zwheel.cli.values import QueueOption, fire_time
from zwheel.cli.when import human_count
from zwheel.errors import InvalidInput, ScheduleNotFound

if TYPE_CHECKING:
    from zwheel import Wheel
    from zwheel.schedules.state import ScheduleInfo

Name = Annotated[str, typer.Argument(metavar="NAME", help="The schedule's name.")]
Names = Annotated[list[str], typer.Argument(metavar="NAME", help="The schedules' names.")]


async def pause(ctx: Context, names: Names, queue: QueueOption = None) -> None:
    """Let schedules fire nothing until they are resumed.

    What waits of them for its time is taken off the wheel, what runs goes on. Exit code 4 when there is no such
    schedule, 6 when it is finished, 5 when only some of several were paused.
    """

    async def act(wheel: Wheel, name: str) -> None:
        info = await wheel.pause_schedule(name, queue)
        _refuse_finished(info, "pause")
        _tell_status(ctx, info, "paused")

    await _each(ctx, names, act)


async def resume(
    ctx: Context,
    names: Names,
    catch_up: Annotated[
        bool,
        typer.Option(
            "--catch-up", help="Treat what was left out as missed, by the misfire policy; else go on from now."
        ),
    ] = False,
    queue: QueueOption = None,
) -> None:
    """Let paused schedules go on.

    Exit code 4 when there is no such schedule, 6 when it is finished, 5 when only some of several were resumed.
    """

    async def act(wheel: Wheel, name: str) -> None:
        info = await wheel.resume_schedule(name, queue, catch_up=catch_up)
        _refuse_finished(info, "resume")
        _tell_status(ctx, info, "resumed")

    await _each(ctx, names, act)


async def trigger(ctx: Context, names: Names, queue: QueueOption = None) -> None:
    """Run the jobs of schedules now, once, beside their occurrences; paused and finished ones too.

    Exit code 4 when there is no such schedule, 5 when there are only some of several.
    """

    async def act(wheel: Wheel, name: str) -> None:
        answer = await wheel.trigger_schedule(name, queue)
        if ctx.json:
            ctx.out.value({"schedule": name, **enqueued_document(answer)})
        elif ctx.quiet:
            ctx.out.line(answer.job_id)
        else:
            ctx.out.line(f"{answer.job_id} enqueued in {answer.queue}")

    await _each(ctx, names, act)


async def remove(ctx: Context, names: Names, queue: QueueOption = None) -> None:
    """Delete schedules. What waits of them is taken off the wheel, what runs goes on.

    More than one needs --yes, or an answer at the terminal, else exit code 6. Exit code 4 when there is no such
    schedule, 5 when there were only some of several.
    """

    async def act(wheel: Wheel, name: str) -> None:
        info = await wheel.schedule(name, queue)
        await wheel.remove_schedule(name, info.queue)
        if ctx.json:
            ctx.out.value({"schedule": name, "queue": info.queue, "removed": True})
        else:
            ctx.out.line(f"{name} removed from {info.queue}")
        if info.owner:
            ctx.out.note(
                f"note: {name} belongs to {info.owner}: its next sync adds it again while it is declared there"
            )

    await _each(ctx, names, act, ask="remove")


async def _each(ctx: Context, names: list[str], act: Callable[[Wheel, str], Awaitable[None]], *, ask: str = "") -> None:
    """Act on every schedule that was named; what fails is said, and the exit code fits all that failed."""
    wanted = list(dict.fromkeys(names))
    codes: list[ExitCode] = []
    async with ctx.wheel() as wheel:
        if ask and len(wanted) > 1:
            ctx.confirm(f"{ask} {human_count(len(wanted), 'schedule')}", len(wanted))
        for name in wanted:
            try:
                await act(wheel, name)
            except (ScheduleNotFound, Refused) as error:
                code = ExitCode.REFUSED if isinstance(error, Refused) else exit_code(error)
                ctx.out.error(str(error), kind=type(error).__name__, schedule=name, exit=int(code))
                codes.append(code)
    if codes:
        same = len(codes) == len(wanted) and len(set(codes)) == 1
        raise ctx.fail(codes[0] if same else ExitCode.PARTLY)


def _refuse_finished(info: ScheduleInfo, act: str) -> None:
    if info.status == "finished":
        raise Refused(
            f"schedule {info.name} is finished, there is nothing to {act}: edit its end, count or times first"
        )


def _tell_status(ctx: Context, info: ScheduleInfo, done: str) -> None:
    if ctx.json:
        document = {"schedule": info.name, "queue": info.queue, "status": str(info.status)}
        ctx.out.value({**document, "next": iso(info.next_ms), "next_ms": info.next_ms})
    else:
        following = "" if info.next_ms is None else f", next {moment(ctx, info.next_ms)}"
        ctx.out.line(f"{info.name} {done}{following}")


async def backfill(
    ctx: Context,
    name: Name,
    from_: Annotated[
        str | None,
        typer.Option("--from", metavar="TIME", help="From this time, included: '2026-11-20 00:00 Europe/Berlin'."),
    ] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Up to this time, included.")] = None,
    queue: QueueOption = None,
) -> None:
    """Run the occurrences of a past time after all, each once, due now.

    One whose job can still be seen is not run again. They are counted first, and more than one needs --yes, or an
    answer at the terminal, else exit code 6. At most 10,000. Exit code 4 when there is no such schedule.
    """
    if from_ is None or to is None:
        raise InvalidInput("say which time: --from '2026-11-20 00:00 UTC' --to '2026-11-21 00:00 UTC'")
    first, _ = fire_time(ctx, None, from_, ("", "--from"))
    last, _ = fire_time(ctx, None, to, ("", "--to"))
    assert first is not None
    assert last is not None
    if last < first:
        raise InvalidInput("--to lies before --from")
    if last > ctx.now():
        raise InvalidInput("--to lies ahead: occurrences to come run by themselves")
    from zwheel.client.backfill import LIMIT
    from zwheel.times import to_ms

    async with ctx.wheel() as wheel:
        info = await wheel.schedule(name, queue)
        times = [found.at_ms for found in info.rhythm().between(to_ms(first) - 1, to_ms(last), LIMIT + 1)]
        if len(times) > LIMIT:
            raise InvalidInput(f"there are more than {LIMIT:,} occurrences from --from to --to: take a shorter time")
        if len(times) > 1:
            what = f"run {human_count(len(times), 'occurrence')} of {name}, {utc(times[0])} to {utc(times[-1])}"
            ctx.confirm(what, len(times))
        answers = []
        if times:
            with ctx.out.progress(f"backfill {name}", len(times)) as report:
                answers = await wheel.backfill_schedule(name, first, last, queue=info.queue, progress=report)
    existed = sum(answer.existed for answer in answers)
    enqueued = len(answers) - existed
    if ctx.json:
        document = {"schedule": name, "queue": info.queue, "from": iso(to_ms(first)), "to": iso(to_ms(last))}
        ctx.out.value({**document, "occurrences": len(answers), "enqueued": enqueued, "existed": existed})
        return
    if not times:
        ctx.out.note(f"no occurrence of {name} from {utc(to_ms(first))} to {utc(to_ms(last))}")
    kept = f", {existed:,} existed already" if existed else ""
    ctx.out.line(f"{human_count(enqueued, 'occurrence')} of {name} enqueued in {info.queue}{kept}")


def add_to(app: typer.Typer) -> None:
    """Register the commands in the group."""
    command(app, "pause", examples=["zwheel schedule pause report"])(pause)
    command(app, "resume", examples=["zwheel schedule resume report", "zwheel schedule resume report --catch-up"])(
        resume
    )
    command(app, "trigger", examples=["zwheel schedule trigger report"])(trigger)
    command(
        app,
        "remove",
        examples=["zwheel schedule remove report", "zwheel schedule remove report beat --yes"],
    )(remove)
    command(
        app,
        "backfill",
        examples=["zwheel schedule backfill report --from '2026-11-01 00:00Z' --to '2026-11-20 00:00Z' --yes"],
    )(backfill)
