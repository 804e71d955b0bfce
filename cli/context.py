"""What a command knows about its call: the shared options, where to write, and how to reach Redis.

A command is `async def name(ctx: Context, ...)` or `def name(ctx: Context, ...)`. It raises; this module turns every
error into one sentence on stderr and an exit code.
"""

from __future__ import annotations

import errno
import inspect
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING

import typer

from zwheel.errors import AppError, InvalidInput, InvalidTime, WaitTimeout, ZwheelError

from .exits import ExitCode, exit_code
from .output import Output, clean_lines

if TYPE_CHECKING:
    from zwheel import Wheel
    from zwheel.config import Settings

#: How long Redis may take to answer one command, seconds.
REDIS_TIMEOUT_S = 10.0
#: How long a command goes on trying to reach Redis: a person is waiting.
GIVE_UP_S = 1.0
#: The same for a cluster: a node that gives no answer is passed over first.
CLUSTER_GIVE_UP_S = 3.0
#: The same for a command that waits for a job anyway, and may outlast a restart of Redis.
PATIENT_GIVE_UP_S = 30.0
#: What the system says of a stream that is closed or has no room: nothing for us to mend.
_NO_FAULT = frozenset({errno.EBADF, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """The options every command takes, as they were given at one place of the command line."""

    url: str | None = None
    namespace: str | None = None
    embedded: bool = False
    json: bool = False
    quiet: bool = False
    no_color: bool = False
    tz: str | None = None
    yes: bool = False
    redis_timeout: str | None = None
    debug: bool = False

    def under(self, outer: object) -> Shared:
        """Add what an outer command was given; what stands nearer to the command wins."""
        if not isinstance(outer, Shared):
            return self
        return Shared(**{f.name: getattr(self, f.name) or getattr(outer, f.name) for f in fields(self)})


class Refused(ZwheelError):
    """The command cannot do this now: wrong state, or it was not confirmed. Ends with REFUSED, or with `code`."""

    def __init__(self, message: str, code: ExitCode = ExitCode.REFUSED, **details: object) -> None:
        super().__init__(message)
        self.code = code
        self.details = details
        """What --json tells beside the message."""


class Context:
    """One call of one command."""

    def __init__(self, shared: Shared, command: str) -> None:
        self.shared = shared
        self.command = command
        """Its full name, such as `zwheel job show`."""
        self.json = shared.json
        self.quiet = shared.quiet
        self.yes = shared.yes
        self.debug = shared.debug
        self.color = not shared.no_color and not os.environ.get("NO_COLOR")
        self.out = Output(json=self.json, quiet=self.quiet, color=self.color)
        self.done = ""
        """What the command did already, such as `job a was stored`: said when its result cannot be written."""
        self.tz: tzinfo | None = None
        """The zone of --tz; None when not given, and then times are shown in UTC only."""
        self.tz_name = ""
        self.timeout_s = REDIS_TIMEOUT_S
        """How long Redis may take to answer one command, seconds."""

    def settings(self) -> Settings:
        """Read where Redis is and under which namespace. Raises: ConfigError."""
        from zwheel.config import load_settings

        return load_settings(url=self.shared.url, namespace=self.shared.namespace)

    @asynccontextmanager
    async def wheel(self, *, patient: bool = False) -> AsyncIterator[Wheel]:
        """Open a client on the Redis of the settings, and close it; a `patient` one outlasts a restart of Redis."""
        from zwheel import Wheel
        from zwheel.config import resolve_url

        settings = self.settings()
        named = settings.url is not None and not settings.url.startswith("memory:")
        say = self.out.note if not named or self.out.stderr.isatty() else None
        url = resolve_url(settings, start_embedded=self.shared.embedded, say=say)
        give_up_s = PATIENT_GIVE_UP_S if patient else self.give_up_s(url)
        async with Wheel(url, namespace=settings.namespace, timeout_s=self.timeout_s, give_up_s=give_up_s) as wheel:
            yield wheel

    def give_up_s(self, url: str) -> float:
        """How long a command goes on trying to reach what is at a URL, seconds."""
        from zwheel.broker.address import parse_url

        return min(CLUSTER_GIVE_UP_S if parse_url(url).kind == "cluster" else GIVE_UP_S, self.timeout_s)

    def now(self) -> datetime:
        """The time of this machine, in UTC: only to show durations and to read `--at 09:00`, never to fire a job."""
        return datetime.now(UTC)

    def confirm(self, what: str, count: int) -> None:
        """Let a destructive bulk command go on only with --yes, or when a person at the terminal agrees.

        `what` names the act with its count, such as 'delete 1,204 scheduled jobs of emails'. Raises: Refused, with
        the count for --json.
        """
        if self.yes:
            return
        if not self.out.interactive:
            raise Refused(f"this would {what}; nothing was changed, repeat it with --yes to do it", count=count)
        if not self.out.confirm(f"{what[:1].upper()}{what[1:]}?"):
            raise Refused("nothing was changed", count=count)

    def fail(self, code: ExitCode) -> typer.Exit:
        """Make the exception that ends the command with this code; `raise ctx.fail(...)`, after saying why."""
        return typer.Exit(int(code))

    def execute(self, command: Callable[[], Awaitable[None] | None]) -> None:
        """Run the command to its end; raises typer.Exit with its code when that is not 0."""
        try:
            self._prepare()
            result = command()
            if inspect.iscoroutine(result):
                import asyncio

                asyncio.run(result)
            self.out.flush()
        except typer.Exit:
            raise
        except BrokenPipeError as error:
            drop_stdout()
            raise self.fail(ExitCode.BROKEN_PIPE) from error
        except KeyboardInterrupt as error:
            raise self.fail(ExitCode.INTERRUPTED) from error
        except Exception as error:
            raise self.fail(self._report(error)) from error

    def _report(self, error: Exception) -> ExitCode:
        """Say an error in one sentence, with --debug also where it came from."""
        code = error.code if isinstance(error, Refused) else exit_code(error)
        if self.debug:
            import traceback

            self.out.stderr.write("".join(traceback.format_exception(error)))
        if isinstance(error, AppError) and error.report and not self.debug and not self.out.json:
            self.out.stderr.write("".join(f"{line}\n" for line in clean_lines(error.report)))
        if isinstance(error, ZwheelError):
            details = error.details if isinstance(error, Refused) else {}
            if isinstance(error, WaitTimeout):
                details = {"job_id": error.job_id}
            self.out.error(str(error), kind=type(error).__name__, exit=int(code), **details)
        elif isinstance(error, OSError) and error.filename is not None:
            code = ExitCode.USAGE
            self.out.error(f"{error.filename}: {error.strerror}", kind=type(error).__name__, exit=int(code))
        elif isinstance(error, OSError) and error.errno in _NO_FAULT:
            done = f"; {self.done} all the same" if self.done else ""
            sentence = f"reading or writing failed: {error.strerror}{done}"
            self.out.error(sentence, kind=type(error).__name__, exit=int(code))
            try:
                sys.stdout.flush()
            except OSError:
                # It is said: the end of the process is not to say it again.
                drop_stdout()
        else:
            hint = "" if self.debug else "; repeat it with --debug and report what it shows"
            sentence = f"unexpected {type(error).__name__}: {error}{hint}"
            self.out.error(sentence, kind=type(error).__name__, exit=int(code))
        return code

    def _prepare(self) -> None:
        if self.shared.tz is not None:
            self.tz, self.tz_name = _zone(self.shared.tz), self.shared.tz
        if self.shared.redis_timeout is not None:
            from zwheel.schedules.durations import parse_duration

            self.timeout_s = parse_duration(self.shared.redis_timeout) / 1000
            if self.timeout_s <= 0:
                raise InvalidInput("--redis-timeout must be longer than nothing, such as 10s")


def drop_stdout() -> None:
    """Point stdout at nothing after its reader went away, so that the interpreter ends without a complaint."""
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, sys.stdout.fileno())
    except (OSError, ValueError):
        return
    finally:
        os.close(null)


def _zone(name: str) -> tzinfo:
    from .when import find_zone

    try:
        return find_zone(name)
    except InvalidTime as error:
        raise InvalidTime(f"--tz: {error}") from None
