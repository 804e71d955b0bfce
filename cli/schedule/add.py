"""`zwheel schedule add` and `zwheel schedule edit`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zwheel.cli.app import command
from zwheel.cli.context import Context, Refused
from zwheel.cli.serving import Call, described, opened, say, say_here, tried, troubles
from zwheel.cli.show import now_ms
from zwheel.cli.values import QueueOption
from zwheel.errors import InvalidInput, ScheduleChanged, ScheduleExists, ScheduleNotFound
from zwheel.keys import check_name, check_task

from .options import Given, changed, differences, facts, keywords, takes_options, unquoted

if TYPE_CHECKING:
    from collections.abc import Callable

    from zwheel import Wheel
    from zwheel.published.task import PublishedTask
    from zwheel.schedules.definition import Definition
    from zwheel.schedules.state import ScheduleInfo

#: How many of the next runs --json tells.
SHOWN_RUNS = 5

Name = Annotated[str, typer.Argument(metavar="NAME", help="The schedule's name.")]
When = Annotated[
    str,
    typer.Argument(
        metavar="WHEN",
        help="Five cron fields, or six with seconds first, in quotes; @daily; '@every 90s'; 'every 2 weeks on tue at "
        "09:00 from 2026-11-24'; 'at 2026-12-01T09:00Z, ...'.",
    ),
]
TaskName = Annotated[str | None, typer.Argument(metavar="TASK", help="The task's name.")]
Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="ARG", help="key=text, key:=JSON, or JSON; @FILE or @- where JSON may stand."),
]
AddQueue = Annotated[
    str | None, typer.Option("--queue", "-q", metavar="NAME", help="The queue of its jobs; else that of the task.")
]
Shell = Annotated[
    str | None,
    typer.Option("--shell", metavar="LINE", help="Run this line in a shell, in the place of a task."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check and show everything, change nothing.")]
_EXPOSED = "note: others can read a command line, and a schedule shows its arguments; let the task read secrets itself"


@takes_options
async def add(
    ctx: Context,
    name: Name,
    when: When,
    task: TaskName = None,
    words: Words = None,
    *,
    given: Given,
    shell: Shell = None,
    queue: AddQueue = None,
    replace_it: Annotated[
        bool, typer.Option("--replace", help="Change the schedule of that name, if this queue has one.")
    ] = False,
    dry_run: DryRun = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Add nothing when no live worker would run its jobs: exit 6, not a note.")
    ] = False,
) -> None:
    """Add a schedule, and show how it was read and when it runs next.

    The queue, the retries and the kinds of the arguments are those that workers publish of the task.
    The times are those of UTC unless --zone says otherwise. --shell runs on workers that were started with
    --allow-shell; it is not retried unless --retries says so. Exit code 6 when the name is taken.
    """
    from zwheel.client.declare import make_definition
    from zwheel.payload.codec import DEFAULT
    from zwheel.schedules.foreign import split_zone

    if len(when.split()) == 1 and not when.startswith("@"):
        raise unquoted(when)
    options = keywords(ctx, given, zone=given.zone or split_zone(when)[1])
    if queue is not None:
        options["queue"] = check_name(queue)
    if shell is not None:
        call = _shell(shell, task or words)
        options.setdefault("retries", 0)
    elif task is None:
        raise InvalidInput("say which task it runs: zwheel schedule add NAME WHEN TASK")
    else:
        call = Call.of(ctx, check_task(task), words or (), _EXPOSED)
    say_here()

    def made(known: PublishedTask | None) -> Definition:
        return make_definition(
            {} if known is None else {call.task: known}, DEFAULT, name, when, call.task, call.args, call.kwargs, **options
        )  # fmt: skip

    if call.error is None:
        made(None)  # Errors that do not depend on Redis are said before Redis is asked.
    if dry_run:
        definition, found, taken = await _tried(ctx, call, made)
        say(ctx, found, strict=strict)
        refused = taken is not None and not (replace_it and taken.queue == definition.queue and not taken.owner)
        if taken is not None and refused:
            ctx.out.note(f"note: this would be refused: {ScheduleExists(name, taken.queue, taken.owner)}")
        known = {} if taken is None else {"exists": True}
        _show(ctx, definition, None, dry_run=True, **known, **described(found))
        if not ctx.json:
            ctx.out.note("nothing was sent")
        return
    async with opened(ctx, call) as wheel:
        definition = made(await call.learn(wheel))
        found = await troubles(wheel, [(definition.queue, definition.task)], call.command)
        if strict:
            say(ctx, found, strict=True)
        if replace_it:
            await _refuse_owned(wheel, definition)
        info = await wheel.add_schedule(definition, replace=replace_it)
        ctx.done = f"schedule {info.name} was written to queue {info.queue}"
    if not ctx.json:
        ctx.out.line(f"{info.name} {'written' if replace_it else 'added'} to {info.queue}")
        say(ctx, found, strict=False)
    _show(ctx, definition, info, **described(found))


async def _tried(
    ctx: Context, call: Call, made: Callable[[PublishedTask | None], Definition]
) -> tuple[Definition, list[str], ScheduleInfo | None]:
    """Make a definition with what workers publish, or without it where Redis is away.

    Returns also why nobody would run its jobs, and the schedule that has its name.
    """

    async def look(wheel: Wheel) -> tuple[Definition, list[str], ScheduleInfo | None]:
        definition = made(await call.learn(wheel))
        found = await troubles(wheel, [(definition.queue, definition.task)], call.command)
        try:
            return definition, found, await wheel.schedule(definition.name)
        except ScheduleNotFound:
            return definition, found, None

    return await tried(ctx, call, look) or (made(None), [], None)


def _shell(line: str, other: object) -> Call:
    """Give the call that runs a shell line. Raises: InvalidInput."""
    from zwheel.shell import SHELL_TASK, shell_kwargs

    if other:
        raise InvalidInput("--shell stands for a task and its arguments: give the one or the other")
    return Call(SHELL_TASK, [], shell_kwargs(line=line))


async def _refuse_owned(wheel: Any, definition: Definition) -> None:
    try:
        known = await wheel.schedule(definition.name, definition.queue)
    except ScheduleNotFound:
        return
    if known.owner:
        raise Refused(
            f"schedule {known.name} belongs to {known.owner}: edit it, or remove it first",
            schedule=known.name,
            owner=known.owner,
        )


@takes_options
async def edit(
    ctx: Context,
    name: Name,
    words: Words = None,
    *,
    when: Annotated[str | None, typer.Option("--when", metavar="WHEN", help="When it fires.")] = None,
    task: Annotated[str | None, typer.Option("--task", metavar="NAME", help="Which task it runs.")] = None,
    clear: Annotated[
        bool, typer.Option("--clear-args", help="Forget the stored arguments before those given here are set.")
    ] = False,
    shell: Shell = None,
    given: Given,
    queue: QueueOption = None,
    dry_run: DryRun = False,
) -> None:
    """Change what is given of a schedule, and nothing else; show what changed and when it runs next.

    The new definition holds from now on: old and new never both fire. An ARG sets the argument of that name; those
    without a name replace all others without. `none` takes back --window, --start, --end, --max-count, --timeout and
    the blocked days, `auto` takes back --keep. Exit code 4 when there is no such schedule.
    """
    if shell is not None:
        call, clear = _shell(shell, task or words), True
        task = call.task
    else:
        call = Call.of(ctx, task or "", words or (), _EXPOSED)
    from zwheel.shell import SHELL_TASK

    if when is None and task is None and not words and not clear and not given.anything:
        raise InvalidInput("say what to change, such as --when '0 10 * * *' or --overlap skip")
    say_here()

    def edited(old: Definition, known: PublishedTask | None) -> Definition:
        options = keywords(ctx, given, zone=given.zone or old.tz, calendar=old.calendar)
        timeout = options.pop("timeout", _UNCHANGED)
        if shell is not None and old.task != task:
            options.setdefault("retries", 0)
        new = changed(old, options, when=when, task=task)
        # No task takes the arguments of a line.
        anew = clear or old.task == SHELL_TASK != new.task
        if task is not None or words or anew or timeout is not _UNCHANGED or "retries" in options:
            new = _with_arguments(old, new, call, anew, timeout, known, own_retries="retries" in options)
        return new.check()

    async with opened(ctx, call) as wheel:
        while True:
            info = await wheel.schedule(name, queue)
            old = info.definition
            call.task = task or old.task
            new = edited(old, await call.learn(wheel))
            if new == old or dry_run:
                break
            try:
                info = await wheel.edit_schedule(new, before=old)
                ctx.done = f"schedule {info.name} was changed in queue {info.queue}"
                break
            except ScheduleChanged:
                continue  # somebody else edits it: what they gave stays, but for what is given here
    _tell_edit(ctx, info, old, new, dry_run=dry_run)


_UNCHANGED = object()


def _with_arguments(
    old: Definition, new: Definition, call: Call, clear: bool, timeout: Any, known: PublishedTask | None, *, own_retries: bool
) -> Definition:  # fmt: skip
    """Put other arguments, another timeout or its own retries into a definition.

    Raises: UndecodableJob, PayloadError, BadArguments.
    """
    from zwheel.payload.codec import DEFAULT
    from zwheel.policy import BY_JOB, POLICY_HEADER, TIMEOUT_HEADER
    from zwheel.times import duration_ms

    old_args, old_kwargs, headers = DEFAULT.decode(old.payload, context=old.payload_context())
    if timeout is None:
        headers.pop(TIMEOUT_HEADER, None)
    elif timeout is not _UNCHANGED:
        headers[TIMEOUT_HEADER] = str(duration_ms(timeout, what="timeout"))
    if own_retries and POLICY_HEADER in headers:
        headers[POLICY_HEADER] = BY_JOB
    args = call.args or ([] if clear else old_args)
    kwargs = call.kwargs if clear else {**old_kwargs, **call.kwargs}
    if known is not None:
        known.check(args, kwargs)
    return replace(new, payload=DEFAULT.encode(args, kwargs, headers or None, context=new.payload_context()))


def _tell_edit(ctx: Context, info: ScheduleInfo, old: Definition, new: Definition, *, dry_run: bool) -> None:
    found = differences(old, new)
    if ctx.json:
        document = {name: {"old": before[0], "new": after[0]} for name, (before, after) in found.items()}
        _show(ctx, new, info, dry_run=dry_run, changed=document)
        return
    if not found:
        ctx.out.line(f"{old.name} in {old.queue} says all that already; nothing was changed")
    else:
        ctx.out.line(f"{old.name} in {old.queue} {'would change' if dry_run else 'changed'}")
        arrow = "→" if ctx.out.unicode else "->"
        ctx.out.fields(
            (name.removesuffix("_ms"), f"{before[1]} {arrow} {after[1]}") for name, (before, after) in found.items()
        )
    if new.owner:
        ctx.out.note(
            f"note: it belongs to {new.owner}: the next change of it there, but for its description, undoes this edit"
        )
    _show(ctx, new, info, dry_run=dry_run)
    if dry_run:
        ctx.out.note("nothing was changed")


def _show(
    ctx: Context, definition: Definition, info: ScheduleInfo | None, *, dry_run: bool = False, **more: object
) -> None:
    """Show how a schedule was read and when it runs next."""
    from .show import document_of, echo, following

    now = now_ms(ctx)
    rhythm = definition.rhythm(now if info is None else info.state.anchor_ms)
    status = "active" if info is None else str(info.status)
    if not ctx.json:
        if dry_run or not ctx.quiet:
            echo(ctx, definition, rhythm, now)
        if status == "paused":
            ctx.out.note(f"note: it is paused until zwheel schedule resume {definition.name}")
        elif status == "finished":
            ctx.out.note("note: it is finished: none of its times lies ahead")
        return
    runs = following(definition, rhythm, now, SHOWN_RUNS) if status == "active" else []
    document: dict[str, Any] = {"schedule": definition.name, "queue": definition.queue, "dry_run": dry_run}
    document["status"] = None if info is None else status
    document |= {name: value for name, (value, _) in facts(definition).items()}
    document |= {"words": rhythm.rhythm_words(), "notes": definition.notes(), "owner": definition.owner, **more}
    document["next"] = [document_of(run, definition.tz) for run in runs]
    ctx.out.value(document)


def add_to(app: typer.Typer) -> None:
    """Register the commands in the group."""
    command(
        app,
        "add",
        examples=[
            "zwheel schedule add report '0 9 * * MON-FRI' reports.build to=ann@example.com --zone Europe/Berlin",
            "zwheel schedule add beat '@every 30s' monitor.beat --misfire skip --overlap skip",
            "zwheel schedule add payday 'every month on last at 08:00' pay.run --holidays DE --block-day sat "
            "--block-day sun --on-blocked previous",
            "zwheel schedule add tidy '30 3 * * *' --shell 'find /var/tmp/shop -mtime +7 -delete'",
            "zwheel schedule add report '0 9 * * *' reports.build --dry-run",
        ],
    )(add)
    command(
        app,
        "edit",
        examples=[
            "zwheel schedule edit report --when '0 10 * * MON-FRI'",
            "zwheel schedule edit report to=bob@example.com --overlap skip --window none",
        ],
    )(edit)
