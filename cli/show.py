"""How jobs and times are shown: the JSON documents, the table cells, the details of one job."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

from zwheel.errors import UndecodableJob
from zwheel.job import Durability, Enqueued, Failure, Job, JobState
from zwheel.outside import Unreadable, cut
from zwheel.times import MAX_MS, to_datetime

from .output import Cell, Column, clean, clean_lines, state_cell, to_json
from .when import human_count, human_duration

if TYPE_CHECKING:
    from .context import Context

#: Arguments longer than this are cut in what people read; --json has them whole.
SHOWN_CHARACTERS = 2000
#: A name in Redis longer than this is damage, as is a reason: they are cut everywhere.
_NAME_CHARACTERS, _REASON_CHARACTERS = 300, 4000


def iso(ms: int | None) -> str | None:
    """Write a time for machines: UTC, milliseconds, Z; None for a time that is not in the calendar."""
    if ms is None or not 0 <= ms <= MAX_MS:
        return None
    return to_datetime(ms).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def utc(ms: int) -> str:
    """Write a time for people, in UTC; the milliseconds only when there are some."""
    if not 0 <= ms <= MAX_MS:
        return f"{ms} ms, not in the calendar"
    when = to_datetime(ms)
    fraction = f".{when.microsecond // 1000:03d}" if when.microsecond else ""
    return f"{when:%Y-%m-%d %H:%M:%S}{fraction}Z"


def local(ctx: Context, ms: int) -> str:
    """Write a time for people in the zone of --tz, with its offset."""
    try:
        when = to_datetime(ms).astimezone(ctx.tz)
    except (OverflowError, ValueError):
        return utc(ms)
    fraction = f".{when.microsecond // 1000:03d}" if when.microsecond else ""
    return f"{when:%Y-%m-%d %H:%M:%S}{fraction} {when:%z}"


def relative(ms: int, now_ms: int) -> str:
    """Say how far a time lies from now: 'in 4 m 12 s', '3 h ago'."""
    if abs(ms - now_ms) < 1000:
        return "now"
    away = human_duration(abs(ms - now_ms))
    return f"in {away}" if ms > now_ms else f"{away} ago"


def moment(ctx: Context, ms: int) -> str:
    """Write a time in full: UTC, the zone of --tz, and how far away it is."""
    zone = f" = {local(ctx, ms)} {ctx.tz_name}" if ctx.tz is not None else ""
    return f"{utc(ms)}{zone}, {relative(ms, now_ms(ctx))}"


def now_ms(ctx: Context) -> int:
    """Read this machine's clock, in ms, to say how far away a time is."""
    return int(ctx.now().timestamp() * 1000)


def time_columns(ctx: Context, title: str, *, drop: int = 0) -> list[Column]:
    """Name the columns that `time_cells` fills. drop: as in Column, of the first; that of --tz comes before it."""
    zone = [Column(f"{title} ({ctx.tz_name})", drop=drop + 1 if drop else 0)] if ctx.tz is not None else []
    return [Column(f"{title} (UTC)", drop=drop), *zone]


def time_cells(ctx: Context, ms: int | None) -> list[str]:
    """Show a time to the second, in UTC and, with --tz, in that zone."""
    if ms is None:
        return ["-"] * (1 if ctx.tz is None else 2)
    second = ms - ms % 1000
    return [utc(second).removesuffix("Z"), *([local(ctx, second)] if ctx.tz is not None else [])]


def unreadable_row(columns: Sequence[Column], one: Unreadable) -> list[str | Cell]:
    """A row of a table for what cannot be read: its name, its queue, and why in the widest place there is."""
    titles = [column.title for column in columns]
    last = max(
        (i for i, column in enumerate(columns) if column.flexible and titles[i] != "queue"), default=len(titles) - 1
    )
    row: list[str | Cell] = [""] * len(titles)
    if "queue" in titles:
        row[titles.index("queue")] = one.queue
    row[last] = Cell(shorten(f"unreadable: {one.reason}", SHOWN_CHARACTERS // 4), "red")
    if last == 0:
        return [Cell(shorten(f"{one.name} unreadable: {one.reason}", SHOWN_CHARACTERS // 4), "red"), *row[1:]]
    row[0] = shorten(one.name, SHOWN_CHARACTERS // 10)
    return row


def unreadable_document(one: Unreadable, name: str) -> dict[str, object]:
    """The same as JSON. name: what the listing calls its names."""
    queue = {"queue": one.queue} if one.queue else {}
    return {name: listed(one.name), **queue, "unreadable": cut(one.reason, _REASON_CHARACTERS)}


def listed(name: str) -> str:
    """A name as a listing shows it: anyone can write a megabyte in its place."""
    return cut(name, _NAME_CHARACTERS)


def plain(value: Any) -> Any:
    """Turn decoded arguments into what JSON can hold: times as ISO text, bytes as base64, sets as lists."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if value - value == 0 else str(value)
        case Mapping():
            return {key if isinstance(key, str) else str(key): plain(item) for key, item in value.items()}
        case bytes() | bytearray():
            import base64

            return {"base64": base64.b64encode(value).decode("ascii")}
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case set() | frozenset():
            return sorted((plain(item) for item in value), key=to_json)
        case list() | tuple():
            return [plain(item) for item in value]
        case UUID() | Decimal():
            return str(value)
    return repr(value)


def arguments(job: Job) -> dict[str, Any]:
    """Decode a job's body into `args`, `kwargs`, `headers`, `timeout_ms` and `expires_at`, or give `undecodable` with the reason.

    A tombstone has no body: all are then None. `retries_by` tells who says how often it is tried again: the `job`, or its
    `task`, where that was not known when the job was made.
    """
    nothing = {
        "args": None, "kwargs": None, "headers": None, "timeout_ms": None, "expires_at": None, "expires_at_ms": None,
        "retries_by": "job",
    }  # fmt: skip
    if job.bytes_apart > len(job.body):
        return {**nothing, "undecodable": f"its body of {job.bytes_apart:,} bytes is gone from Redis"}
    if not job.body:
        return nothing
    from zwheel.payload.codec import DEFAULT
    from zwheel.policy import BY_JOB, BY_TASK, EXPIRES_HEADER, POLICY_HEADER, TIMEOUT_HEADER, expires_ms

    try:
        args, kwargs, headers = DEFAULT.decode(job.body, context=f"{job.task}\n{job.id}".encode())
    except UndecodableJob as error:
        return {**nothing, "undecodable": str(error)}
    timeout = headers.pop(TIMEOUT_HEADER, "")
    timeout_ms = int(timeout) if timeout.isascii() and timeout.isdigit() else None
    expires = expires_ms(headers, job.fire_at_ms)
    headers.pop(EXPIRES_HEADER, None)
    retries_by = BY_TASK if headers.pop(POLICY_HEADER, "") == BY_TASK else BY_JOB
    return {
        "args": plain(args), "kwargs": plain(kwargs), "headers": plain(headers), "timeout_ms": timeout_ms,
        "expires_at": iso(expires), "expires_at_ms": expires, "retries_by": retries_by,
    }  # fmt: skip


def failure_document(failure: Failure) -> dict[str, Any]:
    """Give one failed attempt as JSON."""
    return {
        "attempt": failure.attempt,
        "at": iso(failure.at_ms),
        "at_ms": failure.at_ms,
        "reason": str(failure.reason),
        "kind": failure.kind,
        "message": failure.message,
        "worker": failure.worker,
        "traceback": failure.traceback,
    }


def job_document(job: Job, *, body: bool = True) -> dict[str, Any]:
    """Give a job as JSON: times as ISO text and as ms since the epoch, arguments decoded."""
    document: dict[str, Any] = {
        "id": listed(job.id),
        "queue": job.queue,
        "task": job.task,
        "state": str(job.state),
        "attempt": job.attempt,
        "max_attempts": job.max_attempts,
        "fire_at": iso(job.fire_at_ms),
        "fire_at_ms": job.fire_at_ms,
        "ended_at": iso(job.ended_at_ms),
        "ended_at_ms": job.ended_at_ms,
        "ran_ms": job.ran_ms,
        "kept_until": iso(job.kept_until_ms),
        "kept_until_ms": job.kept_until_ms,
        "lease_until": iso(job.lease_until_ms),
        "lease_until_ms": job.lease_until_ms,
        "worker": job.worker,
        "token": job.token,
        "keep_ms": job.keep_ms,
        "dedup": job.dedup,
        "reason": job.reason,
        "cancel_asked_at": iso(job.cancel_asked_ms),
        "cancel_asked_at_ms": job.cancel_asked_ms,
    }
    if job.unreadable:
        document["unreadable"] = job.unreadable
    if body:
        document.update(arguments(job))
        document["failures"] = [failure_document(failure) for failure in job.failures]
    return document


def enqueued_document(answer: Enqueued) -> dict[str, Any]:
    """Give the answer to an enqueue as JSON."""
    return {
        "job_id": answer.job_id,
        "existed": answer.existed,
        "queue": answer.queue,
        "state": str(answer.state),
        "fire_at": iso(answer.fire_at_ms),
        "fire_at_ms": answer.fire_at_ms,
        **({"replaced": True} if answer.replaced else {}),
        **({"receipt": _receipt(answer.receipt)} if answer.receipt is not None else {}),
    }


def _receipt(receipt: Durability) -> dict[str, Any]:
    return {"replicas": receipt.replicas, "fsynced": receipt.fsynced}


def state_of(job: Job, now: int) -> Cell:
    """Show the state; a scheduled job whose time has come is 'due', which is a word for people and not a state."""
    if job.state is JobState.SCHEDULED and job.fire_at_ms <= now:
        return Cell("due", "bold cyan")
    return state_cell(str(job.state))


#: What a job's fire time is called, by its state.
_FIRES = {JobState.SCHEDULED: "fires", JobState.CANCELLED: "was to fire"}
#: What the end of a job is called, by its state.
_ENDED = {JobState.DEAD: "died", JobState.DONE: "done", JobState.CANCELLED: "cancelled"}


def job_fields(ctx: Context, job: Job, *, tracebacks: bool) -> list[tuple[str, str | Cell | Sequence[str]]]:
    """Give the details of one job as names with values."""
    pairs: list[tuple[str, str | Cell | Sequence[str]]] = [
        ("id", job.id),
        ("task", job.task),
        ("queue", job.queue),
        ("state", state_of(job, now_ms(ctx))),
        (_FIRES.get(job.state, "was due"), moment(ctx, job.fire_at_ms)),
    ]
    decoded = arguments(job)
    by_task = decoded["retries_by"] == "task"
    pairs.append(("attempt", _attempt(job, by_task)))
    if decoded.get("expires_at_ms") is not None:
        pairs.append(("expires", moment(ctx, decoded["expires_at_ms"])))
    if job.cancel_asked_ms is not None:
        pairs.append(("cancel asked", moment(ctx, job.cancel_asked_ms)))
    if job.ended_at_ms is not None:
        pairs.append((_ENDED.get(job.state, "ended"), moment(ctx, job.ended_at_ms)))
    if job.ran_ms is not None:
        pairs.append(("ran for", human_duration(job.ran_ms)))
    if job.kept_until_ms is not None:
        pairs.append(("kept until", moment(ctx, job.kept_until_ms)))
    if job.lease_until_ms is not None:
        pairs.append(("lease until", moment(ctx, job.lease_until_ms)))
    if job.worker is not None:
        pairs.append(("worker", job.worker))
    pairs.append(("token", str(job.token)))
    pairs.append(("keep", human_duration(job.keep_ms) if job.keep_ms else "no"))
    if job.dedup is not None:
        pairs.append(("unique", f"digest {job.dedup}"))
    pairs.extend(_argument_fields(decoded))
    if job.reason is not None:
        pairs.append(("dead because", Cell(job.reason, "red")))
    if job.failures:
        pairs.append(("failures", list(failure_lines(ctx, job.failures, tracebacks=tracebacks))))
    return pairs


def _attempt(job: Job, by_task: bool) -> str:
    if job.state in (JobState.DONE, JobState.CANCELLED):
        # The tombstone does not say any more who decided how many there may be.
        return str(job.attempt)
    return f"{job.attempt}, of as many as its task says" if by_task else f"{job.attempt} of {job.max_attempts}"


def _argument_fields(decoded: dict[str, Any]) -> Iterable[tuple[str, str]]:
    if "undecodable" in decoded:
        yield "arguments", f"cannot be read: {decoded['undecodable']}"
        return
    if decoded["args"] is None:
        yield "arguments", "not kept"
        return
    if decoded["timeout_ms"] is not None:
        yield "timeout", human_duration(decoded["timeout_ms"])
    for name in ("args", "kwargs", "headers"):
        if decoded[name] or name != "headers":
            yield name, shorten(to_json(decoded[name]), SHOWN_CHARACTERS)


def shorten(text: str, limit: int) -> str:
    """Cut a text for people, and say how much is missing."""
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text) - limit:,} more, --json has all)"


def error_line(failure: Failure) -> str:
    """Say in one line why an attempt ended badly."""
    raised = ": ".join(part for part in (failure.kind, failure.message) if part)
    return f"{failure.reason}: {raised}" if raised else str(failure.reason)


def failure_lines(ctx: Context, failures: Sequence[Failure], *, tracebacks: bool) -> Iterable[str]:
    """List the failed attempts, newest last; equal ones after each other are one entry with a count.

    Of a traceback only the last frame is shown, unless `tracebacks`.
    """
    for same in _runs(failures):
        last = same[-1]
        first = f"attempts {same[0].attempt}-{last.attempt}" if len(same) > 1 else f"attempt {last.attempt}"
        times = f", same error x{len(same)}" if len(same) > 1 else ""
        worker = f" on {last.worker}" if last.worker else ""
        yield f"{first}, {moment(ctx, last.at_ms)}{worker}{times}"
        yield f"  {clean(shorten(error_line(last), SHOWN_CHARACTERS))}"
        frames = [line for line in clean_lines(last.traceback) if line.strip()]
        if frames:
            shown = frames if tracebacks else _last_frame(frames)
            yield from (f"    {line}" for line in shown)
            if len(shown) < len(frames):
                yield f"    ({human_count(len(frames) - len(shown), 'more line')}, --traceback shows them)"


def _runs(failures: Sequence[Failure]) -> Iterable[list[Failure]]:
    run: list[Failure] = []
    for failure in failures:
        if run and _likeness(run[-1]) != _likeness(failure):
            yield run
            run = []
        run.append(failure)
    if run:
        yield run


def _likeness(failure: Failure) -> tuple[str, str, str, str]:
    return str(failure.reason), failure.kind, failure.message, failure.traceback


def _last_frame(lines: list[str]) -> list[str]:
    """Keep the last 'File ...' line with the source line below it."""
    starts = [i for i, line in enumerate(lines) if line.lstrip().startswith("File ")]
    return lines[starts[-1] : starts[-1] + 2] if starts else lines[-1:]
