"""`zwheel enqueue --jsonl`: a stream of jobs, flushed by size and by time.

A batch is sent when it is full, or 100 ms after its first line, so that `tail -f | zwheel enqueue --jsonl -` does not
hold jobs back. Lines that cannot be enqueued are reported with their numbers and the rest goes on. Every job has its
id before it is sent, so that a batch whose answer was lost is sent again without enqueueing anything twice.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from zwheel.errors import (
    BrokerError,
    BrokerUnavailable,
    InvalidInput,
    NotDurable,
    OutcomeUnknown,
    QueueFull,
    ZwheelError,
)
from zwheel.keys import check_task

from .context import Context, Refused
from .exits import ExitCode
from .lines import Line, LineReader
from .serving import MOST_SAID, say, say_here, troubles
from .show import enqueued_document
from .values import duration, fire_time, moment_or_duration, read_json
from .when import human_count

if TYPE_CHECKING:
    from zwheel import NewJob, Wheel

T = TypeVar("T")
#: A batch is one atomic chunk.
BATCH = 500
#: A batch is also full with this many bytes of arguments: one call blocks Redis while it is read.
BATCH_BYTES = 4 * 1024 * 1024
FLUSH_AFTER_S = 0.1
#: People see this many failing lines; --json lists all.
SHOWN_FAILURES = 100
#: How long a stream that has already sent something waits for a Redis that went away, seconds.
PATIENCE_S = 30.0
#: What JSON has no type for, and a text stands for: 90s, and bytes.
_NOT_JSON = ("timedelta", "bytes")
_DURATIONS = ("timeout", "keep", "within")
_TYPES: dict[str, tuple[type, str]] = {
    "task": (str, "a text"),
    "args": (list, "a list"),
    "kwargs": (dict, "an object"),
    "in": (str, 'a duration such as "10m"'),
    "at": (str, 'a time such as "2026-12-01 09:00 Europe/Berlin"'),
    "queue": (str, "a text"),
    "id": (str, "a text"),
    "retries": (int, "a whole number"),
    "timeout": (str, 'a duration such as "30s"'),
    "keep": (str, 'a duration such as "1h"'),
    "unique": (str, "a text"),
    "within": (str, 'a duration such as "10m"'),
    "expires": (str, 'a duration such as "10m", or a time'),
    "headers": (dict, "an object of texts"),
    "durable": (str, "fsynced or replicated(N)"),
    "replace": (bool, "true or false"),
}


@dataclass(slots=True)
class Tally:
    """What became of the lines."""

    enqueued: int = 0
    existed: int = 0
    failed: int = 0
    unconfirmed: int = 0
    """Lines that were answered, and not confirmed as safely stored as was asked."""
    last_line: int = 0
    """The number of the last line that was dealt with: what follows was not sent."""

    @property
    def jobs(self) -> int:
        """Lines that were answered."""
        return self.enqueued + self.existed


@dataclass(frozen=True, slots=True)
class Pending:
    """A line that is ready to be sent."""

    number: int
    job: NewJob
    own_id: bool
    """The line names its id: 'exists' is then an answer, not the echo of a batch sent twice."""


def line_options(ctx: Context, document: object, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Turn a line's JSON into the arguments of `Wheel.new_job`. Raises: InvalidInput, InvalidTime."""
    if not isinstance(document, dict):
        raise InvalidInput("a line is one JSON object")
    for key, value in document.items():
        if key not in _TYPES:
            from difflib import get_close_matches

            near = get_close_matches(key, _TYPES, n=1)
            raise InvalidInput(f"unknown key {key!r}" + (f", did you mean {near[0]!r}?" if near else ""))
        kind, shown = _TYPES[key]
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool)):
            raise InvalidInput(f"{key!r} must be {shown}")
    given = {key: value for key, value in document.items() if value is not None}
    if "task" not in given:
        raise InvalidInput("the key 'task' is missing")
    if "in" in given or "at" in given:
        when, delay = fire_time(ctx, given.pop("in", None), given.pop("at", None), ("'in'", "'at'"))
        given.update(at=when, delay=delay)
    if "within" in given and "unique" not in given:
        raise InvalidInput("'within' needs 'unique'")
    if given.get("retries", 0) < 0:
        raise InvalidInput("'retries' must not be negative")
    if not all(isinstance(value, str) for value in given.get("headers", {}).values()):
        raise InvalidInput("'headers' must be an object of texts")
    for key in _DURATIONS:
        if key in given:
            given[key] = duration(given[key], repr(key))
    if "expires" in given:
        given["expires"] = moment_or_duration(ctx, given["expires"], "'expires'")
    if given.get("replace") and "id" not in given:
        raise InvalidInput("'replace' needs 'id'")
    given["dedup"] = given.pop("unique", None)
    # A job without an id of its own has none to replace.
    return {**defaults, **given} if "id" in given else {**defaults, **given, "replace": None}


class Feed:
    """One stream of lines on its way to Redis."""

    def __init__(
        self, ctx: Context, wheel: Wheel, defaults: Mapping[str, Any], *, dry_run: bool, strict: bool = False
    ) -> None:
        self._ctx = ctx
        self._wheel = wheel
        self._defaults = defaults
        self._dry_run = dry_run
        self._strict = strict
        #: Pairs of queue and task, with why nobody would run them; '' where somebody does.
        self._told: dict[tuple[str, str], str] = {}
        self._batch: list[Pending] = []
        self._bytes = 0
        self._flush_at = 0.0
        self._stopping = asyncio.Event()
        self.tally = Tally()

    async def run(self, reader: LineReader, stopping: asyncio.Event) -> None:
        """Send all lines; returns early, with nothing that was taken left unsent, when `stopping` is set."""
        self._stopping = stopping
        loop = asyncio.get_running_loop()
        stop = loop.create_task(stopping.wait())
        arriving: asyncio.Task[list[Line] | None] | None = None
        with self._ctx.out.progress("0 jobs", reader.size) as report:
            try:
                while not stopping.is_set():
                    arriving = arriving or loop.create_task(reader.get())
                    left = max(0.0, self._flush_at - loop.time()) if self._batch else None
                    await asyncio.wait((arriving, stop), timeout=left, return_when=asyncio.FIRST_COMPLETED)
                    if self._batch and loop.time() >= self._flush_at:
                        await self._flush()
                    if not arriving.done():
                        continue
                    group, arriving = arriving.result(), None
                    if group is None:
                        break
                    await self._take(group)
                    report(reader.bytes_read, human_count(self.tally.jobs, "job"))
                await self._flush()
            finally:
                stop.cancel()
                if arriving is not None:
                    arriving.cancel()

    async def _take(self, lines: list[Line]) -> None:
        ready: list[tuple[int, dict[str, Any] | Exception]] = []
        for number, raw in lines:
            if raw is not None and not raw.strip():
                continue
            try:
                ready.append((number, self._read(number, raw)))
            except (InvalidInput, OverflowError) as error:
                ready.append((number, error))
        await self._learn({str(options["task"]) for _, options in ready if isinstance(options, dict)})
        for number, options in ready:
            if self._stopping.is_set():
                return
            try:
                if isinstance(options, Exception):
                    raise options
                await self._add(number, options)
            except (InvalidInput, OverflowError, Refused) as error:
                self._refuse(number, error)
            if len(self._batch) >= BATCH or self._bytes >= BATCH_BYTES:
                await self._flush()

    def _read(self, number: int, raw: bytes | None) -> dict[str, Any]:
        if raw is None:
            raise InvalidInput("the line is too long")
        document = read_json(raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw)
        options = line_options(self._ctx, document, self._defaults)
        check_task(options["task"])
        return options

    async def _learn(self, tasks: set[str]) -> None:
        """Read what workers publish of the tasks of some lines; a run that sends nothing goes on without Redis."""
        try:
            await self._wheel.learn(*tasks)
        except BrokerError:
            if not self._dry_run:
                await self._patiently(lambda: self._wheel.learn(*tasks))

    async def _add(self, number: int, options: dict[str, Any]) -> None:
        own_id = "id" in options
        task = options.pop("task")
        known = self._wheel.catalogue.get(task)
        if known is not None and known.signature is not None:
            args, kwargs = options.get("args") or (), options.get("kwargs") or {}
            options["args"], options["kwargs"] = known.signature.fitted(args, kwargs, only=_NOT_JSON)
        job = self._wheel.new_job(task, **options)
        await self._tell_unserved(job.queue, task)
        if not self._batch:
            self._flush_at = asyncio.get_running_loop().time() + FLUSH_AFTER_S
        self._batch.append(Pending(number, job, own_id))
        self._bytes += len(job.body)

    async def _tell_unserved(self, queue: str, task: str) -> None:
        """Say once of each queue and task that nobody would run its jobs. Raises: Refused, for each line, when strict."""
        if (queue, task) not in self._told:
            found = [] if self._dry_run and not self._strict else await troubles(self._wheel, [(queue, task)])
            self._told[queue, task] = found[0] if found else ""
            if not self._strict and len(self._told) <= MOST_SAID:
                say(self._ctx, found, strict=False)
        if self._strict and self._told[queue, task]:
            raise Refused(self._told[queue, task])

    def _refuse(self, number: int, error: Exception) -> None:
        out, tally = self._ctx.out, self.tally
        tally.failed += 1
        tally.last_line = max(tally.last_line, number)
        if out.json:
            out.error(str(error), kind=type(error).__name__, line=number)
        elif tally.failed <= SHOWN_FAILURES:
            out.error(f"line {number:,}: {error}")
        elif tally.failed == SHOWN_FAILURES + 1:
            out.error("further failing lines are only counted; --json lists all")

    async def _flush(self) -> None:
        batch, self._batch, self._bytes = self._batch, [], 0
        if not batch:
            return
        if self._dry_run:
            self.tally.enqueued += len(batch)
        else:
            await self._send(batch)
        self.tally.last_line = max(self.tally.last_line, batch[-1].number)

    async def _send(self, batch: list[Pending]) -> None:
        """Send a batch; when a queue in it is full, that queue's lines fail and the others go on."""
        try:
            answers = await self._patiently(lambda: self._wheel.enqueue_many([line.job for line in batch], chunk=BATCH))
        except QueueFull as error:
            full = [line for line in batch if line.job.queue == error.queue]
            for line in full:
                self._refuse(line.number, error)
            rest = [line for line in batch if line.job.queue != error.queue]
            if rest and full:
                await self._send(rest)
            elif not full:
                raise
            return
        except NotDurable as error:
            answers = error.answers
            self.tally.unconfirmed += len(batch)
            self._ctx.out.error(str(error), kind=type(error).__name__)
        for line, answer in zip(batch, answers, strict=True):
            mine = answer.job_id == line.job.id and not line.own_id
            if answer.existed and not mine:
                self.tally.existed += 1
            else:
                self.tally.enqueued += 1
            if self._ctx.json:
                document = {"line": line.number, **enqueued_document(answer)}
                self._ctx.out.value({**document, "existed": answer.existed and not mine})
        self._ctx.out.flush()

    async def _patiently(self, send: Callable[[], Awaitable[T]]) -> T:
        """Send something; while Redis is away, try again, but not when it never answered at all."""
        loop = asyncio.get_running_loop()
        until, pause = loop.time() + PATIENCE_S, 0.1
        while True:
            try:
                return await send()
            except (BrokerUnavailable, OutcomeUnknown) as error:
                if not self.tally.jobs or self._stopping.is_set() or loop.time() >= until:
                    raise
                if pause == 0.1:
                    self._ctx.out.note(f"{error}; trying again for up to {PATIENCE_S:.0f} s")
                await asyncio.sleep(pause)
                pause = min(pause * 2, 2.0)


@contextmanager
def _signals(stopping: asyncio.Event, got: list[ExitCode]) -> Iterator[None]:
    """Let the first SIGINT or SIGTERM set `stopping`; a second one ends the command at once."""
    loop = asyncio.get_running_loop()
    codes = {signal.SIGINT: ExitCode.INTERRUPTED, signal.SIGTERM: ExitCode.TERMINATED}
    main = asyncio.current_task()

    def stop(code: ExitCode) -> None:
        if stopping.is_set() and main is not None:
            main.cancel()
        got.append(code)
        stopping.set()

    for number, code in codes.items():
        loop.add_signal_handler(number, stop, code)
    try:
        yield
    finally:
        for number in codes:
            loop.remove_signal_handler(number)


async def feed(ctx: Context, path: str, defaults: Mapping[str, Any], *, dry_run: bool, strict: bool = False) -> None:
    """Enqueue the lines of a file or of stdin, then say what became of them.

    Ends with PARTLY when lines failed, with REFUSED when nothing was stored since every job exists, with the code of the
    error when it had to give up, with INTERRUPTED or TERMINATED after a signal; in every case it says up to which line
    it came.
    """
    say_here()
    reader = LineReader(path)
    stopping = asyncio.Event()
    got: list[ExitCode] = []
    started = asyncio.get_running_loop().time()
    async with ctx.wheel() as wheel:
        stream = Feed(ctx, wheel, defaults, dry_run=dry_run, strict=strict)
        with _signals(stopping, got):
            reader.start()
            try:
                await stream.run(reader, stopping)
            except asyncio.CancelledError:
                if len(got) < 2:
                    raise
            except ZwheelError:
                _summary(ctx, stream.tally, asyncio.get_running_loop().time() - started, whole=False)
                raise
    _summary(ctx, stream.tally, asyncio.get_running_loop().time() - started, whole=not got, dry_run=dry_run)
    if got:
        raise ctx.fail(got[0])
    if stream.tally.failed or stream.tally.unconfirmed:
        raise ctx.fail(ExitCode.PARTLY)
    if stream.tally.existed and not stream.tally.enqueued:
        ctx.out.error(
            "nothing was stored: each line's job exists, or another holds its unique key; --replace takes the place of "
            "those that are done or dead", kind="JobExists", exit=int(ExitCode.REFUSED),
        )  # fmt: skip
        raise ctx.fail(ExitCode.REFUSED)


def _summary(ctx: Context, tally: Tally, seconds: float, *, whole: bool, dry_run: bool = False) -> None:
    if ctx.json:
        counts = {"enqueued": tally.enqueued, "existed": tally.existed, "failed": tally.failed}
        if tally.unconfirmed:
            counts["unconfirmed"] = tally.unconfirmed
        summary = {**counts, "last_line": tally.last_line, "whole": whole, "seconds": round(seconds, 3)}
        if not ctx.quiet:
            ctx.out.tell_json({"summary": summary})
        return
    counted = [f"{tally.enqueued:,} {'checked, nothing sent' if dry_run else 'enqueued'}"]
    if tally.existed:
        counted.append(f"{tally.existed:,} existed")
    if tally.unconfirmed:
        counted.append(f"{tally.unconfirmed:,} not confirmed as durable")
    if tally.failed:
        counted.append(f"{tally.failed:,} failed")
    rate = f" ({tally.jobs / seconds:,.0f} a second)" if tally.jobs >= 1000 and seconds > 0 else ""
    ctx.out.line(f"{', '.join(counted)} in {seconds:.1f} s{rate}")
    if not whole:
        ctx.out.note(f"stopped after line {tally.last_line:,}; go on with the line after it")
