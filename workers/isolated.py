"""The processes of `process=True` tasks: for functions that hold the CPU, or that may take their process down.

Each runs one job at a time, in a session of its own, and is used again. A task's arguments are those that its job carries,
so they travel as the codec writes them. Output and logs of a task go to the worker's log with the job's id.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from zwheel.client.tasks import BaseTask
from zwheel.current import CurrentJob
from zwheel.outside import escaped
from zwheel.plain import counted
from zwheel.retry import Discard, Retry, Snooze

from .asks import STOP_SIGNALS
from .failure import Elsewhere, Reported, printable
from .frames import LONGEST_ANSWER, Frames, pack
from .isolated_child import PLAIN, class_name
from .supervisor import describe_exit

log = escaped("zwheel.task")

#: What the process runs; its `sys.path` is the worker's, and the current directory is no part of it by itself.
_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[3]); "
    "from zwheel.workers.isolated_child import main; main(int(sys.argv[1]), int(sys.argv[2]))"
)
#: How much of what one job prints and logs is passed on.
_LOG_LINES, _LOG_LINE_CHARS = 1_000, 2_000
_LAST_LINES = 20
_CHUNK_BYTES, _CHUNKS = 65_536, 16
#: How long a process may wait for its next job, seconds.
_IDLE_S = 300.0
#: How often in a lease a worker looks whether it was renewed, to tell the process of the job.
_LOOKS = 20
_KILLED_S = 2.0
#: How a process ends that was told to stop before it could leave that to its worker.
_STOPPED = frozenset(-number for number in STOP_SIGNALS)


class ProcessDied(Reported):
    """The process of a task ended while it ran; its report is the last that it printed."""


class NotStarted(Exception):
    """A job has no process any more, or never had one, by no fault of its own: it goes back unharmed."""


class _Discarded(Elsewhere, Discard):
    """It said that the job is to end as dead."""


class _Retried(Elsewhere, Retry):
    """It said when the job is to run again."""


class _Snoozed(Elsewhere, Snooze):
    """It said that the job is to run later, as if it had not begun."""

    def __init__(self, kind: str, message: str, report: str) -> None:
        Exception.__init__(self, message)
        self.kind, self.report = kind, report


class Isolated:
    """The processes of one worker."""

    def __init__(self, lease_ms: int) -> None:
        self._lease_ms = lease_ms
        #: The module of the app that the worker was started with: its processes import it before their first job. '': none.
        self.app = ""
        self._idle: list[_Child] = []
        self._busy: set[_Child] = set()

    async def call(
        self, task: BaseTask[Any, Any], args: Sequence[Any], kwargs: Mapping[str, Any], job: CurrentJob,
        leased_ns: Callable[[], int],
    ) -> None:  # fmt: skip
        """Run a task with the arguments that its job carries, and kill the process when this is cancelled.

        leased_ns: when the lease of the job was last known to begin, monotonic ns.
        Raises: Elsewhere for what the task raised; ProcessDied; NotStarted.
        """
        request = pack(
            "job",
            module=task.function.__module__,
            name=task.function.__qualname__,
            body=PLAIN.encode(args, kwargs),
            give_up_on=[class_name(kind) for kind in task.policy.give_up_on],
            job=_plain(job),
        )
        while True:
            fresh = not self._idle
            child = await _start(self._lease_ms, self.app) if fresh else self._idle.pop()
            self._busy.add(child)
            try:
                ended = await child.run(request, job.id, leased_ns)
            except BaseException:
                await child.kill()
                raise
            finally:
                self._busy.discard(child)
            if ended is not None:
                break
            if fresh:
                raise child.stillborn()
            # An older process may have ended while it waited for a job. It never saw this job: take another process.
        self._put_aside(child)
        if not ended["ok"]:
            raise _error(ended)

    def _put_aside(self, child: _Child) -> None:
        now = time.monotonic()
        child.idle_since = now
        self._idle.append(child)
        while now - self._idle[0].idle_since > _IDLE_S:
            self._idle.pop(0).let_go()

    def descriptors(self) -> list[int]:
        """The ends of sockets and pipes that lead to the processes."""
        return [end for child in (*self._idle, *self._busy) for end in child.descriptors()]

    async def close(self) -> None:
        """End them all."""
        for child in (*self._idle, *self._busy):
            await child.kill()
        self._idle.clear()


def cpus() -> int:
    """How many CPUs this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def _plain(job: CurrentJob) -> dict[str, Any]:
    outcome = job.previous_outcome
    return {
        "id": job.id, "task": job.task, "queue": job.queue, "attempt": job.attempt, "max_attempts": job.max_attempts,
        "fire_at_ms": job.fire_at_ms, "token": job.token, "headers": dict(job.headers),
        "previous_outcome": None if outcome is None else str(outcome),
    }  # fmt: skip


def _error(ended: dict[str, Any]) -> Elsewhere:
    asked = {"discard": _Discarded, "retry": _Retried, "snooze": _Snoozed}
    kind = next((kind for word, kind in asked.items() if ended[word]), Elsewhere)
    error = kind(ended["kind"], ended["message"], ended["report"])
    if isinstance(error, (_Retried, _Snoozed)):
        error.delay_ms = ended["delay_ms"]
    return error


class _Output:
    """Passes what a job prints and logs on to the worker's log, line by line, up to a limit."""

    def __init__(self) -> None:
        self.job_id = ""
        #: The last lines of this job.
        self.last: deque[str] = deque(maxlen=_LAST_LINES)
        self._part = bytearray()
        self._left = 0
        self._dropped = 0

    def begin(self, job_id: str) -> None:
        """Count output from now on as this job's."""
        self.job_id = job_id
        self.last.clear()
        self._left = _LOG_LINES
        self._dropped = 0

    def add(self, chunk: bytes) -> None:
        """Take in what was printed."""
        self._part += chunk
        *lines, rest = self._part.split(b"\n")
        if len(rest) > 4 * _LOG_LINE_CHARS:
            lines.append(rest)
            rest = bytearray()
        self._part = rest
        for line in lines:
            self.line(logging.INFO, line.decode("utf-8", "backslashreplace"))

    def line(self, level: int, text: str) -> None:
        """Pass one line on."""
        if not text.strip():
            return
        said = printable(text.rstrip(), _LOG_LINE_CHARS)
        self.last.append(said)
        if self._left > 0:
            self._left -= 1
            log.log(level, "job %s: %s", self.job_id, said)
        else:
            self._dropped += 1

    def end(self) -> None:
        """The job has ended."""
        if self._part:
            part, self._part = self._part, bytearray()
            self.line(logging.INFO, part.decode("utf-8", "backslashreplace"))
        if self._dropped:
            log.info("job %s: ... and %s", self.job_id, counted(self._dropped, "more line"))
            self._dropped = 0


async def _start(lease_ms: int, app: str) -> _Child:
    """Start a process. Raises: NotStarted when the system has no room for another."""
    ours, theirs = socket.socketpair()
    reading, writing = os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-c", _PROGRAM, str(theirs.fileno()), str(os.getpid()), json.dumps(sys.path)),
            stdin=asyncio.subprocess.DEVNULL, stdout=writing, stderr=writing, pass_fds=(theirs.fileno(),),
            start_new_session=True,
        )  # fmt: skip
    except BaseException as error:
        ours.close()
        os.close(reading)
        if isinstance(error, OSError):
            raise NotStarted(f"no process can be started: {error}") from error
        raise
    finally:
        theirs.close()
        os.close(writing)
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    child = _Child(process, ours, reading, lease_ms / 1000 / _LOOKS)
    level = logging.getLogger().getEffectiveLevel()
    child.greeting = pack("settings", level=level, main=main or "", app=app, lease_ms=lease_ms)
    return child


class _Child:
    """One process."""

    def __init__(self, process: asyncio.subprocess.Process, line: socket.socket, output: int, look_s: float) -> None:
        self.idle_since = 0.0
        self._look_s = look_s
        #: The message that it gets before its first job.
        self.greeting = b""
        self._process = process
        self._line = line
        self._reading = output
        self._frames = Frames(LONGEST_ANSWER)
        self._output = _Output()
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.ensure_future(process.wait())
        line.setblocking(False)
        os.set_blocking(output, False)
        self._loop.add_reader(output, self._read_output)

    def descriptors(self) -> list[int]:
        """Our ends of its socket and its pipe."""
        return [self._line.fileno(), self._reading]

    async def run(self, request: bytes, job_id: str, leased_ns: Callable[[], int]) -> dict[str, Any] | None:
        """Let it run a job. Returns how the job ended; None when the process had ended before it saw the job.

        Raises: ProcessDied; NotStarted when it ended because this worker was stopped for long.
        """
        self._output.begin(job_id)
        started = left = False
        telling: asyncio.Task[None] | None = None
        try:
            since_ns = leased_ns()
            await self._loop.sock_sendall(self._line, self.greeting + pack("leased", ns=since_ns) + request)
            self.greeting = b""
            telling = asyncio.create_task(self._tell_of_renewals(since_ns, leased_ns))
            while (frames := await self._receive()) is not None:
                for frame in frames:
                    if frame["is"] == "ended":
                        return frame
                    if frame["is"] == "log":
                        self._log(frame)
                    started = started or frame["is"] == "started"
                    left = left or frame["is"] == "left"
        except (OSError, ValueError) as error:
            if not isinstance(error, ConnectionError):
                raise ProcessDied(f"its process does not answer as it should: {error}", self.last_words()) from error
        finally:
            if telling is not None:
                telling.cancel()
            self._drain()
            self._output.end()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_KILLED_S):
                await asyncio.shield(self._ended)
        code = self._process.returncode
        await self.kill()
        if not started:
            return None
        if left:
            raise NotStarted(
                "its process ended, since this worker was stopped for so long that others may have the job"
            )
        how = "unknown" if code is None else describe_exit(code)
        raise ProcessDied(f"its process ended: {how}", self.last_words())

    async def _tell_of_renewals(self, told_ns: int, leased_ns: Callable[[], int]) -> None:
        """Let the process know how old its lease is, for when this worker is stopped and cannot say."""
        with contextlib.suppress(OSError):
            while True:
                await asyncio.sleep(self._look_s)
                if leased_ns() != told_ns:
                    told_ns = leased_ns()
                    await self._loop.sock_sendall(self._line, pack("leased", ns=told_ns))

    def stillborn(self) -> Exception:
        """Why it ended before it took its first job: told to stop with the whole unit, or unable to run here."""
        how = describe_exit(self._process.returncode or 0)
        if self._process.returncode in _STOPPED:
            return NotStarted(f"its process was ended by {how} before it had begun")
        return ProcessDied(f"its process ended before it had begun: {how}", self.last_words())

    def last_words(self) -> str:
        """The last lines that the process printed."""
        return "\n".join(self._output.last)

    async def _receive(self) -> list[dict[str, Any]] | None:
        """Wait for frames; None: no more will come. A process it forked may keep its end of the socket open."""
        reading = asyncio.ensure_future(self._loop.sock_recv(self._line, _CHUNK_BYTES))
        try:
            await asyncio.wait([reading, self._ended], return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                await asyncio.wait([reading], timeout=0.05)
            if not reading.done():
                return None
            data = reading.result()
        finally:
            reading.cancel()
        if not data:
            return None
        self._frames.feed(data)
        return list(self._frames)

    def _log(self, frame: dict[str, Any]) -> None:
        # In the order in which it came, as far as two channels can tell.
        self._drain()
        for line in str(frame["text"]).split("\n"):
            self._output.line(int(frame["level"]), line)

    def _read_output(self) -> bool:
        try:
            chunk = os.read(self._reading, _CHUNK_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            chunk = b""
        if not chunk:
            self._loop.remove_reader(self._reading)
            return False
        self._output.add(chunk)
        return True

    def _drain(self) -> None:
        for _ in range(_CHUNKS):
            if self._reading < 0 or not self._read_output():
                return

    def let_go(self) -> None:
        """End it when it waits for a job: it ends when its socket closes."""
        if self._reading >= 0:
            self._loop.remove_reader(self._reading)
            os.close(self._reading)
            self._reading = -1
            self._line.close()

    async def kill(self) -> None:
        """End it, and what its task started and did not put into a group of its own."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        self.let_go()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_KILLED_S):
                await asyncio.shield(self._ended)
