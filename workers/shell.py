"""The task that runs commands, and what a worker lets it run. A worker has it only when it was started so."""

from __future__ import annotations

import asyncio
import os
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from typing import Any

from zwheel.client.registry import Registry
from zwheel.client.tasks import BaseTask
from zwheel.current import CurrentJob, current_job
from zwheel.errors import ConfigError, InvalidInput
from zwheel.outside import escaped
from zwheel.plain import counted
from zwheel.policy import make_policy
from zwheel.retry import Discard
from zwheel.shell import DEFAULT_SHELL, SHELL_TASK, digest, needed, shell_kwargs

from .failure import NotAllowed, Reported, printable
from .group import end_group
from .supervisor import describe_exit

log = escaped("zwheel.shell")

#: How much of a command's output is kept, bytes: its beginning, and its end.
HEAD_BYTES, TAIL_BYTES = 8_192, 57_344
#: How much of the output of a command that went well is logged.
LOG_LINES, LOG_LINE_CHARS = 200, 2_000
#: A pipe holds no more than so many chunks: what is in it when a command has ended is read with as many calls.
_CHUNK_BYTES, _CHUNKS = 65_536, 16
#: The variables that a command gets from the worker's environment, and the variables that zwheel sets.
_PASSED_ON = ("PATH", "HOME", "LANG", "TZ", "USER", "LOGNAME")
_TOLD = ("ZWHEEL_JOB_ID", "ZWHEEL_ATTEMPT", "ZWHEEL_TOKEN", "ZWHEEL_SCHEDULE", "ZWHEEL_NOMINAL")


class ShellFailed(Reported):
    """A command ended otherwise than with exit code 0; its report is the end of its output."""


class Allowed:
    """What a worker lets jobs run.

    Entries: `*` for everything; a program (`backup.sh`, `/usr/bin/pg_dump`) with any arguments and no shell; a whole
    line, run by a shell, exactly as it stands; `NAME=` for a variable that a job may set. A variable can change what
    a program does, up to running other code, so that none is free but those for language and time zone.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        """Keep the entries. Raises: ConfigError for an entry that allows nothing."""
        self._entries = frozenset(patterns)
        for entry in self._entries:
            if not entry.strip() or entry.startswith("-"):
                raise ConfigError(f"--allow {shlex.quote(entry)}: name a program, a whole line in quotes, or '*'")

    @property
    def digests(self) -> frozenset[str]:
        """The entries as a worker publishes them: a line may hold what is not for everybody."""
        return frozenset(map(digest, self._entries))

    def check(self, argv: list[str] | None, line: str | None, env: Mapping[str, str], shell: str) -> None:
        """Refuse what is not allowed. Raises: NotAllowed with a sentence that names the first missing entry."""
        wanted = needed(argv, line, env, shell)
        for entry, what in wanted.items():
            if entry not in self._entries and "*" not in self._entries:
                raise NotAllowed(
                    f"this worker does not run {what}: start it with --allow {shlex.quote(entry)} to let it",
                    frozenset(map(digest, wanted)),
                )


class _Output:
    """What a command writes: its beginning and its end, whatever lies between."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._tail = bytearray()
        self._cut = 0
        self._lines = 0

    def add(self, chunk: bytes) -> None:
        self._lines += chunk.count(b"\n")
        room = HEAD_BYTES - len(self._head)
        self._head += chunk[:room]
        self._tail += chunk[room:]
        if len(self._tail) > 2 * TAIL_BYTES:
            self._shorten()

    def _shorten(self) -> None:
        more = max(0, len(self._tail) - TAIL_BYTES)
        self._cut += more
        del self._tail[:more]

    def more_than(self, shown: int, lines: int) -> int:
        """How many lines there are beside the first ones, which are shown. lines: the lines of its text."""
        whole = self._lines if self._cut and self._head.count(b"\n") >= shown else 0
        return max(lines, whole) - shown

    def text(self) -> str:
        """All of it as text, with a line that says how much is missing."""
        self._shorten()
        between = f"\n... {self._cut:,} bytes cut ...\n" if self._cut else ""
        # One text where nothing was cut: a character may lie across the border.
        parts = (self._head, self._tail) if between else (self._head + self._tail,)
        return between.join(part.decode("utf-8", "backslashreplace") for part in parts)


async def _run_shell(
    *,
    argv: list[str] | None = None,
    line: str | None = None,
    stdin: str = "",
    env: dict[str, str] | None = None,
    shell: str = DEFAULT_SHELL,
    home: bool = False,
) -> None:
    """Run a command of the current job to its end, in a session and a process group of its own.

    When the job is stopped, the group gets SIGTERM, and SIGKILL 5 s later; what a command leaves running behind
    itself is ended in the same way. Output of a command that went well goes to the log.

    Raises: Discard for what is no command; ShellFailed for another exit code than 0, for death by a signal, for a program that
    cannot be started, and when it was stopped.
    """
    try:
        checked = shell_kwargs(argv=argv, line=line, stdin=stdin, env=env, shell=shell, home=home)
    except InvalidInput as error:
        raise Discard(str(error)) from None
    job = current_job()
    words = checked.get("argv") or [shell, "-c", _as_operand(str(line))]
    output = _Output()
    environment = _environment(job, env or {})
    if line is not None:
        environment["SHELL"] = shell
    code = await _run(words, stdin, environment, output, _home(environment) if home else None)
    text = output.text()
    if code != 0:
        raise _failed(f"exit {code}" if code > 0 else f"killed by {describe_exit(code)}", text)
    _log(job.id, text, output)


def _home(environment: dict[str, str]) -> str:
    """The directory HOME, which is set as cron does it: a service of systemd may be started without.

    Raises: ShellFailed when there is none: nothing is run in another one.
    """
    home = environment.setdefault("HOME", os.path.expanduser("~"))
    if not os.path.isdir(home):
        raise ShellFailed(f"cannot start in HOME: there is no directory {home}", "")
    return home


def _as_operand(line: str) -> str:
    """A line that a shell cannot take for one of its options."""
    return f" {line}" if line.startswith(("-", "+")) else line


def _environment(job: CurrentJob, env: Mapping[str, str]) -> dict[str, str]:
    passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    own = {name: value for name, value in env.items() if name not in _TOLD}
    told = {"ZWHEEL_JOB_ID": job.id, "ZWHEEL_ATTEMPT": str(job.attempt), "ZWHEEL_TOKEN": str(job.token)}
    occurrence = job.occurrence
    if occurrence is not None:
        told |= {"ZWHEEL_SCHEDULE": occurrence.schedule, "ZWHEEL_NOMINAL": occurrence.nominal.isoformat()}
    return {**passed_on, **own, **told}


def _failed(how: str, output: str) -> ShellFailed:
    last = next((line.strip() for line in reversed(output.splitlines()) if line.strip()), "")
    return ShellFailed(f"{how}: {last}" if last else how, output)


def _log(job_id: str, text: str, output: _Output) -> None:
    lines = text.splitlines()
    for line in lines[:LOG_LINES]:
        log.info("job %s: %s", job_id, printable(line, LOG_LINE_CHARS))
    if len(lines) > LOG_LINES:
        log.info("job %s: ... and %s", job_id, counted(output.more_than(LOG_LINES, len(lines)), "more line"))


async def _run(words: list[str], stdin: str, env: dict[str, str], output: _Output, folder: str | None) -> int:
    """Run a program, and give its exit code or the negative number of the signal that killed it."""
    loop = asyncio.get_running_loop()
    reading, writing = os.pipe()
    os.set_blocking(reading, False)

    def read() -> bool:
        """Take what there is, up to a chunk; False: nothing, or nothing will come any more."""
        try:
            chunk = os.read(reading, _CHUNK_BYTES)
        except BlockingIOError:
            return False
        if not chunk:
            loop.remove_reader(reading)
        output.add(chunk)
        return bool(chunk)

    loop.add_reader(reading, read)
    try:
        starting = asyncio.create_task(_start(words, stdin, env, writing, folder))
        try:
            process = await asyncio.shield(starting)
            await process.wait()
            await end_group(process)
        except asyncio.CancelledError:
            process = await starting
            await end_group(process)
            _drain(read)
            # Said so that a failure shows how far it came; who cancelled the job knows why it did.
            raise _failed("stopped while it ran", output.text()) from None
        # A process that the command left in a session of its own may hold the pipe open. Nobody waits for it.
        _drain(read)
        return process.returncode or 0
    finally:
        loop.remove_reader(reading)
        os.close(reading)


def _drain(read: Callable[[], bool]) -> None:
    for _ in range(_CHUNKS):
        if not read():
            return


async def _start(
    words: list[str], stdin: str, env: dict[str, str], writing: int, folder: str | None
) -> asyncio.subprocess.Process:
    """Start a program that writes to `writing`, which is closed here. Raises: ShellFailed when it cannot be started."""
    try:
        # From a file, a command may read as much of its input as it likes: nobody has to feed it.
        with tempfile.TemporaryFile() if stdin else nullcontext() as source:
            if source is not None:
                source.write(stdin.encode())
                source.seek(0)
            return await asyncio.create_subprocess_exec(
                *words, stdin=source or subprocess.DEVNULL, stdout=writing, stderr=writing, env=env,
                cwd=folder, start_new_session=True,
            )  # fmt: skip
    except OSError as error:
        raise ShellFailed(f"cannot start {words[0]}: {error.strerror}", "") from None
    finally:
        os.close(writing)


def register_shell(wheel: Registry, patterns: Iterable[str]) -> None:
    """Add the task that runs commands to a wheel; `patterns` as in Allowed. Raises: ConfigError."""
    allowed = Allowed(patterns)

    def admit(**command: Any) -> None:
        try:
            shell_kwargs(**command)
        except InvalidInput:
            return  # A job that is no command is dead, whichever worker takes it: the task says why.
        allowed.check(
            command.get("argv"), command.get("line"), command.get("env") or {}, command.get("shell", DEFAULT_SHELL)
        )

    policy = make_policy(
        queue="default", retries=0, timeout=None, keep=None, backoff=None, give_up_on=(), process=False
    )
    wheel.allows = allowed.digests
    # It takes the place of one with other patterns.
    task = wheel.tasks[SHELL_TASK] = BaseTask(_run_shell, SHELL_TASK, policy, wheel.codec)
    task.admit = admit
