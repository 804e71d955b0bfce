"""`zwheel enqueue`: one job from the command line, or many from JSONL (see `feed.py`)."""

from __future__ import annotations

import re
import shlex
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from zwheel.errors import InvalidInput, NotDurable
from zwheel.job import DEFAULT_QUEUE, Durability, Enqueued
from zwheel.keys import check_job_id, check_name, check_task
from zwheel.shell import SHELL_TASK, shell_kwargs

from .app import Command, command, single
from .context import Context
from .exits import ExitCode
from .held import say_held
from .job import ended
from .serving import Call, described, opened, say, say_here, standing, tried, troubles
from .show import enqueued_document, iso, moment, plain
from .values import AtOption, InOption, duration, fire_time, headers, moment_or_duration, note_past, seconds_or_duration
from .when import human_duration

if TYPE_CHECKING:
    from typer._click import Context as AnyContext

    from zwheel import Wheel
    from zwheel.published.task import PublishedTask

app = single()

FOREVER = "for-ever"
_LENGTH = re.compile(r"\d+(\.\d+)?(ms|s|m|h|d)?", re.ASCII)
#: How long the end of a job can be asked for when it was enqueued from the shell.
DEFAULT_KEEP = "1h"
#: Stands for TASK when the words are a command; no task can have this name.
COMMAND = "--"


class EnqueueCommand(Command):
    """`--wait` may stand alone; a `--` before any TASK begins a command."""

    alone: ClassVar[dict[str, str]] = {"--wait": FOREVER}

    def parse_args(self, ctx: AnyContext, args: list[str]) -> list[str]:
        """Read the arguments; `-- command` becomes the TASK `--` with the command's words."""
        args = _noted(args)
        if "--" in args:
            end = args.index("--")
            before, _, _ = self.make_parser(ctx).parse_args([word for word in args[:end] if word not in self.alone])
            if not isinstance(before.get("task"), str):
                args = [*args[:end], "--", COMMAND, *args[end + 1 :]]
        return super().parse_args(ctx, args)


def _noted(args: list[str]) -> list[str]:
    """Let a `--wait` alone know the number or duration behind it: an argument of the task, and perhaps not meant so."""
    end = args.index("--") if "--" in args else len(args)
    for place, (word, following) in enumerate(pairwise(args[:end])):
        if word == "--wait" and _LENGTH.fullmatch(following):
            return [*args[:place], f"--wait={FOREVER} {following}", *args[place + 1 :]]
    return args


TaskName = Annotated[
    str | None, typer.Argument(metavar="TASK", help="The task's name; -- in its place: a command follows.")
]
Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="ARG",
        help="key=text, key:=JSON, or JSON; @FILE or @- where JSON may stand. A text becomes what the task asks for.",
    ),
]
Queue = Annotated[
    str | None,
    typer.Option(
        "--queue", "-q", metavar="NAME", help="The queue; else that which workers publish for the task, else default."
    ),
]
Strict = Annotated[
    bool,
    typer.Option("--strict", help="Send nothing when no live worker would run it: exit 6, in the place of a note."),
]
Id = Annotated[
    str | None,
    typer.Option("--id", metavar="ID", help="The job's id. While it has a job, another is not stored: exit 6."),
]
Replace = Annotated[
    bool,
    typer.Option(
        "--replace", help="Take the place of a job with that --id that is done or dead; a living one stays: exit 6."
    ),
]
Retries = Annotated[
    int | None, typer.Option("--retries", min=0, metavar="N", help="How often it is tried again after a failure.")
]
Timeout = Annotated[
    str | None,
    typer.Option("--timeout", metavar="DURATION", help="How long one attempt may run; else without a limit."),
]
Keep = Annotated[str, typer.Option("--keep", metavar="DURATION", help="How long the ended job can still be seen.")]
Unique = Annotated[
    str | None, typer.Option("--unique", metavar="KEY", help="At most one living job with this key; else exit 6.")
]
Within = Annotated[
    str | None,
    typer.Option(
        "--within",
        metavar="DURATION",
        help="Hold the unique key this long, also when the job has ended, but not when it was cancelled.",
    ),
]
Expires = Annotated[
    str | None,
    typer.Option(
        "--expires",
        metavar="WHEN",
        help="Do not start it later than that: a time, or a duration after its fire time; then it is dead, as expired.",
    ),
]
Headers = Annotated[
    list[str] | None, typer.Option("--header", metavar="NAME=VALUE", help="A header beside the arguments.")
]
Durable = Annotated[
    str | None,
    typer.Option(
        "--durable",
        metavar="LEVEL",
        help="Return when the server has confirmed that: fsynced (on its disk) or replicated(N) (on N replicas); else exit 5.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check and show everything, send nothing.")]
Wait = Annotated[
    str | None,
    typer.Option(
        "--wait",
        metavar="[=SECONDS]",
        help="Wait for the end: exit 0 when done, 8 when dead or cancelled, 7 when the time is over.",
    ),
]
ShellLine = Annotated[
    str | None, typer.Option("--shell", metavar="LINE", help="Run this line in a shell, in the place of a task.")
]
Jsonl = Annotated[
    str | None,
    typer.Option(
        "--jsonl",
        metavar="FILE",
        help="Enqueue a job for each line of a file, of stdin with -: an object with task and, as needed, args, "
        "kwargs, in, at, queue, id, replace, retries, timeout, keep, unique, within, expires, headers, durable. Options given here are "
        "the defaults of all lines.",
    ),
]


@command(
    app,
    "enqueue",
    cls=EnqueueCommand,
    examples=[
        "zwheel enqueue emails.send to=ann@example.com copies:=2 --in 10m",
        "zwheel enqueue emails.send '\"ann@example.com\"' --at '2026-12-01 09:00 Europe/Berlin'",
        "zwheel enqueue reports.build month=2026-11 --id report-2026-11 --wait=60",
        "zwheel enqueue reports.build month=2026-11 --id report-2026-11 --replace",
        "zwheel enqueue --jsonl orders.jsonl --queue orders",
        "tail -f events.jsonl | zwheel enqueue --jsonl -",
        "zwheel enqueue --in 10m -- backup.sh --full",
        "zwheel enqueue --at 'tomorrow 03:00 UTC' --shell 'pg_dump shop | gzip > shop.gz'",
    ],
)
async def enqueue(
    ctx: Context,
    task: TaskName = None,
    words: Words = None,
    in_: InOption = None,
    at: AtOption = None,
    queue: Queue = None,
    job_id: Id = None,
    replace: Replace = False,
    retries: Retries = None,
    timeout: Timeout = None,
    keep: Keep = DEFAULT_KEEP,
    unique: Unique = None,
    within: Within = None,
    expires: Expires = None,
    header: Headers = None,
    durable: Durable = None,
    dry_run: DryRun = False,
    wait: Wait = None,
    shell: ShellLine = None,
    jsonl: Jsonl = None,
    strict: Strict = False,
) -> None:
    """Enqueue one job, or many from JSONL.

    When a job has the id already, or holds the unique key, nothing is stored: that job is named, with what can be
    done, and the exit code is 6; with --wait it is awaited instead, and the exit code tells its end. The id of a
    cancelled job is free. With --jsonl, lines that cannot be enqueued are listed with their numbers: exit code 5. Lines
    whose job exists are skipped and counted; exit code 6: every line was skipped. A command after -- or in --shell runs on a
    worker that was started with --allow-shell; it is not retried unless --retries says so.

    The queue, the retries and the kinds of the arguments are those that workers publish of the task. When no live worker
    would run it, a line on stderr says so; with --strict nothing is sent then.
    """
    when, delay = fire_time(ctx, in_, at)
    note_past(ctx, when)
    if within is not None and unique is None:
        raise InvalidInput("--within needs --unique")
    options: dict[str, Any] = {
        "at": when,
        "delay": delay,
        "queue": None if queue is None else check_name(queue),
        "retries": retries,
        "timeout": None if timeout is None else duration(timeout, "--timeout"),
        "keep": duration(keep, "--keep"),
        "expires": None if expires is None else moment_or_duration(ctx, expires, "--expires"),
        "headers": headers(header) if header else None,
        "replace": replace or None,
        "durable": None if durable is None else str(Durability.of(durable)),
    }
    if jsonl is not None:
        own = {"TASK": task, "--id": job_id, "--unique": unique, "--wait": wait, "--shell": shell}
        for name, value in own.items():
            if value is not None:
                raise InvalidInput(f"{name} belongs to one job: with --jsonl it stands in the lines")
        from .feed import feed

        await feed(ctx, jsonl, options, dry_run=dry_run, strict=strict)
        return
    if task is None and shell is None:
        raise InvalidInput("say which task to enqueue, or --jsonl FILE")
    if replace and job_id is None:
        raise InvalidInput("--replace needs --id: it takes the place of the job with that id")
    options["id"] = None if job_id is None else check_job_id(job_id)
    options["dedup"] = unique
    options["within"] = None if within is None else duration(within, "--within")
    if shell is not None or task == COMMAND:
        command = _command(task, words or [], shell)
        options["retries"] = retries or 0
        call = Call(SHELL_TASK, [], command)
    else:
        call = Call.of(ctx, check_task(str(task)), words or ())
    await _enqueue_one(ctx, call, options, dry_run=dry_run, wait=wait, strict=strict)


def _command(task: str | None, words: list[str], line: str | None) -> dict[str, Any]:
    """Give the arguments of a job that runs a command. Raises: InvalidInput."""
    if line is None:
        if not words:
            raise InvalidInput("-- needs a command after it, such as -- backup.sh --full")
        return shell_kwargs(argv=words)
    if task is not None:
        raise InvalidInput("--shell takes the whole line, in quotes: give neither a TASK nor -- beside it")
    return shell_kwargs(line=line)


async def _enqueue_one(
    ctx: Context, call: Call, options: dict[str, Any], *, dry_run: bool, wait: str | None, strict: bool
) -> None:
    limit = None
    if wait is not None and wait.startswith(FOREVER):
        if length := wait.removeprefix(FOREVER).strip():
            ctx.out.note(
                f"note: {length} is an argument of the task; to wait no longer than that write --wait={length}"
            )
    elif wait is not None:
        limit = seconds_or_duration(wait, "--wait")
    if wait is not None and not options["keep"]:
        raise InvalidInput("--wait needs --keep: a job that is not kept cannot be seen to end")
    say_here()
    if dry_run:
        await _try(ctx, call, options, strict=strict)
        return
    async with opened(ctx, call, patient=wait is not None) as wheel:
        known = await call.learn(wheel)
        queue = options["queue"] or (DEFAULT_QUEUE if known is None else known.policy.queue)
        found: list[str] = []
        held = ""
        if strict:
            found, held = await standing(wheel, queue, call.task, call.command)
            say(ctx, found, strict=True)
        lacking: NotDurable | None = None
        try:
            answer = await wheel.enqueue(call.task, args=call.args, kwargs=call.kwargs, **options)
        except NotDurable as error:
            answer, lacking = error.answers[0], error
        if not answer.existed:
            ctx.done = f"job {answer.job_id} was stored in queue {answer.queue}"
        if not strict:
            found, held = await standing(wheel, answer.queue, call.task, call.command)
        if held:
            ctx.out.note(f"note: {held}")
        if wait is None or lacking or not ctx.json:
            _announce(ctx, answer, options, call.command, [] if answer.existed else found)
        if lacking:
            raise lacking
        if wait is not None:
            ctx.out.flush()
            code = ended(ctx, await wheel.wait(answer.job_id, answer.queue, timeout=limit))
            if code is not ExitCode.OK:
                raise ctx.fail(code)
        elif answer.existed:
            raise ctx.fail(say_held(ctx, answer, options["id"], replace=bool(options["replace"])))


def _announce(
    ctx: Context, answer: Enqueued, options: dict[str, Any], command: dict[str, Any], found: list[str]
) -> None:
    """Say which job now stands for the call, which command it runs, if it is one, and why nobody would run it."""
    if ctx.json:
        ctx.out.value({**enqueued_document(answer), **({} if answer.existed else command), **described(found)})
        return
    say(ctx, found, strict=False)
    if ctx.quiet:
        ctx.out.line(answer.job_id)
        return
    fires = f"fires {moment(ctx, answer.fire_at_ms)}"
    if not answer.existed:
        place = " in the place of the job that had ended" if answer.replaced else ""
        safely = "" if answer.receipt is None else f", {answer.receipt}"
        ctx.out.line(f"{answer.job_id} enqueued in {answer.queue}{place}, {fires}{safely}{_runs(command)}")
    elif answer.job_id == options["id"]:
        ctx.out.line(f"{answer.job_id} exists in {answer.queue}: {answer.state}, {fires}; nothing was changed")
    else:
        ctx.out.line(f"{answer.job_id} holds the unique key in {answer.queue}: {answer.state}, {fires}")


def _runs(command: dict[str, Any]) -> str:
    if not command:
        return ""
    return f": {shlex.join(command['argv'])}" if "argv" in command else f", in a shell: {command['line']}"


async def _try(ctx: Context, call: Call, options: dict[str, Any], *, strict: bool) -> None:
    """Check what can be checked, and show it. What workers published is asked for, and missed where Redis is away."""

    async def look(wheel: Wheel) -> tuple[PublishedTask | None, list[str]]:
        known = await call.learn(wheel)
        options["queue"] = options["queue"] or (DEFAULT_QUEUE if known is None else known.policy.queue)
        return known, await troubles(wheel, [(options["queue"], call.task)], call.command)

    known, found = await tried(ctx, call, look) or (None, [])
    if known is not None:
        known.check(call.args, call.kwargs)
        options["retries"] = known.policy.retries if options["retries"] is None else options["retries"]
    say(ctx, found, strict=strict)
    _describe(ctx, call.task, call.args, call.kwargs, {**options, "queue": options["queue"] or DEFAULT_QUEUE})


def _describe(ctx: Context, task: str, args: list[Any], kwargs: dict[str, Any], options: dict[str, Any]) -> None:
    """Show what would be enqueued, after everything that can be checked here was checked."""
    from zwheel.payload.codec import DEFAULT
    from zwheel.times import to_ms

    size = len(DEFAULT.encode(args, kwargs, options["headers"]))
    when = options["at"] or ctx.now() + (options["delay"] or timedelta())
    fire_at_ms = to_ms(when)
    shown = {name: value for name, value in options.items() if name not in ("at", "delay") and value is not None}
    document = {
        "dry_run": True,
        "task": task,
        "args": plain(args),
        "kwargs": plain(kwargs),
        "fire_at": iso(fire_at_ms),
        "fire_at_ms": fire_at_ms,
        "bytes": size,
        **{_key(name, value): _value(value) for name, value in shown.items()},
    }
    if ctx.json:
        ctx.out.value(document)
        return
    from .output import to_json

    pairs = [("task", task), ("args", to_json(document["args"])), ("kwargs", to_json(document["kwargs"]))]
    pairs += [("fires", moment(ctx, fire_at_ms)), ("size", f"{size:,} bytes")]
    for option, value in shown.items():
        name = "unique" if option == "dedup" else option
        pairs.append((name, _shown(ctx, value)))
    ctx.out.fields(pairs)
    ctx.out.note("nothing was sent")


def _shown(ctx: Context, value: Any) -> str:
    from .output import to_json

    if isinstance(value, datetime):
        return moment(ctx, _value(value))
    if isinstance(value, timedelta):
        return human_duration(_value(value))
    return to_json(value) if value else str(value)


def _value(value: Any) -> Any:
    from zwheel.times import to_ms

    if isinstance(value, datetime):
        return to_ms(value)
    return value // timedelta(milliseconds=1) if isinstance(value, timedelta) else value


def _key(name: str, value: Any) -> str:
    kinds = {timedelta: "_ms", datetime: "_at_ms"}
    return name + next((ending for kind, ending in kinds.items() if isinstance(value, kind)), "")
