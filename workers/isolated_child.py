"""The process of a `process=True` task: takes jobs from its worker, runs them one after the other, and ends with it.

What it prints goes to a pipe that the worker reads; how a job ended goes over a socket of its own, so that nothing a task
writes can be taken for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import importlib
import importlib.util
import logging
import os
import queue
import signal
import socket
import sys
import threading
import time
from contextvars import copy_context
from typing import Any

from zwheel.client.functions import finish, rest_of
from zwheel.client.tasks import BaseTask
from zwheel.current import CurrentJob, current
from zwheel.job import JobState
from zwheel.payload.arguments import Signature
from zwheel.payload.codec import Codec
from zwheel.retry import Discard, Retry, Snooze

from .alive import is_running
from .app import import_named
from .asks import STOP_SIGNALS
from .failure import describe_error, part_of, parts_of
from .forks import FORKS
from .frames import Frames, pack

#: Takes what the worker decoded a moment ago and checked against its own limits: only the form is the codec's.
PLAIN = Codec(limit=2**31, compress_over=None)
_PR_SET_PDEATHSIG = 1
_LOG_CHARS = 8_000
#: How often in a lease a process looks whether its worker runs.
_LOOKS = 20
#: When a worker is stopped for so long, and the lease of its job was renewed so long ago, its process ends, as parts of a
#: lease. The worker itself stops a job at the second of the two.
_PATIENCE, _GIVEN_UP = 0.4, 0.9
#: What the worker's own script is called here: its `if __name__ == "__main__"` does not run again.
_MAIN = "__mp_main__"


class _Fixed:
    """Answers `current_job` with what the worker sent."""

    def __init__(self, job: CurrentJob) -> None:
        self._job = job

    @property
    def asked(self) -> bool:
        """Its process is killed then."""
        return False

    def current(self) -> CurrentJob:
        return self._job


class _ToWorker(logging.Handler):
    """Passes what is logged on to the worker, which knows the job and where its log goes."""

    def __init__(self, line: _Line) -> None:
        super().__init__()
        self._line = line

    def emit(self, record: logging.LogRecord) -> None:
        if FORKS.forked:
            sys.stderr.write(self.format(record) + "\n")
            return
        try:
            self._line.say("log", level=record.levelno, text=self.format(record)[:_LOG_CHARS])
        except Exception:
            self.handleError(record)


class _Line:
    """The socket to the worker. A thread reads it, so that the worker's end is noticed while a task runs."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.set_inheritable(False)
        self._sending = threading.Lock()
        #: When the lease of the job was last known to begin, monotonic ns, which is the same for all processes.
        self.leased_ns = 0
        self.frames: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        FORKS.guard(lambda: [descriptor])
        threading.Thread(target=self._read, name="zwheel-line", daemon=True).start()

    def say(self, kind: str, /, **fields: Any) -> None:
        """Send a frame."""
        with self._sending:
            self._socket.sendall(pack(kind, **fields))

    def try_to_say(self, kind: str) -> None:
        """Send a frame if that takes no time: a worker that is stopped reads nothing."""
        if self._sending.acquire(blocking=False):
            with contextlib.suppress(OSError):
                self._socket.send(pack(kind), socket.MSG_DONTWAIT)

    def _read(self) -> None:
        frames = Frames()
        with contextlib.suppress(OSError):
            while data := self._socket.recv(65_536):
                frames.feed(data)
                for frame in frames:
                    if frame["is"] == "leased":
                        self.leased_ns = frame["ns"]
                    else:
                        self.frames.put(frame)
        _end_group()


def _end_group() -> None:
    """End this process and what its task started: the worker is gone, or wants no more of it."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(0)


def _end_with(parent: int) -> None:
    """Let the kernel, where it can, end this process when its worker ends, also while the task holds the GIL."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def _watch_over(parent: int, lease_s: float, line: _Line) -> None:
    """End this process when its worker is stopped (SIGSTOP, Ctrl-Z) for so long that another may soon have the job.

    The worker, if it goes on in time, hears why and gives the job back unharmed. While Redis is away nobody renews and
    nobody else can have the job: so a lease that is old alone is no reason.
    """
    stopped = 0.0
    while True:
        time.sleep(lease_s / _LOOKS)
        if is_running(parent):
            stopped = 0.0
        elif not stopped:
            stopped = time.monotonic()
        elif (
            time.monotonic() - stopped > lease_s * _PATIENCE
            and time.monotonic() - line.leased_ns / 1e9 > lease_s * _GIVEN_UP
        ):
            line.try_to_say("left")
            _end_group()


def _ignore_stop_signals() -> None:
    """Leave it to the worker what becomes of a job when a signal to stop reaches every process of a unit.

    By a handler that does nothing: programs that the task starts, and children that it forks, have the usual one again.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, lambda *_: None)
        signal.siginterrupt(number, False)


def main(descriptor: int, parent: int) -> None:
    """Run jobs until the worker closes its end."""
    _end_with(parent)
    line = _Line(descriptor)
    _ignore_stop_signals()
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(line_buffering=True, errors="backslashreplace")
    settings = line.frames.get()
    watching = threading.Thread(target=_watch_over, args=(parent, settings["lease_ms"] / 1000, line), daemon=True)
    watching.start()
    log = _ToWorker(line)
    _log_to(log, settings["level"])
    while True:
        job = line.frames.get()
        line.say("started")
        line.say("ended", **copy_context().run(_outcome, job, settings, log))


def _log_to(log: logging.Handler, level: int) -> None:
    root = logging.getLogger()
    root.handlers[:] = [log]
    root.setLevel(level)


def _set_up(app: str, log: logging.Handler, level: int) -> None:
    """Import the app that the worker was started with: it may prepare what its tasks need, such as Django's models.

    An app that cannot be imported is tried again for the next job. The worker decides where the log goes, also when the app
    sets up logging.
    """
    if app and app not in sys.modules:
        try:
            import_named(app, "the worker was started with it")
        finally:
            _log_to(log, level)


def _outcome(job: dict[str, Any], settings: dict[str, Any], log: logging.Handler) -> dict[str, Any]:
    """Run one job. Returns how it ended, as the fields of a frame."""
    error: BaseException | None = None
    try:
        _set_up(settings["app"], log, settings["level"])
        function = _find(job["module"], job["name"], settings["main"])
        args, kwargs, _ = PLAIN.decode(job["body"])
        bound, named = Signature(function).bind(args, kwargs)
        about = job["job"]
        before = about.pop("previous_outcome")
        current.set(_Fixed(CurrentJob(**about, previous_outcome=None if before is None else JobState(before))))
        rest = rest_of(function(*bound, **named))
        if rest is not None:
            asyncio.run(finish(rest))
    except BaseException as raised:
        error = raised
    FORKS.end_child(error)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    return {"ok": True} if error is None else _failure(error, job["give_up_on"])


def _failure(error: BaseException, give_up_on: list[str]) -> dict[str, Any]:
    kind, message, report = describe_error(error)
    retry, later = part_of(error, Retry), part_of(error, Snooze)
    delay_ms = retry.delay_ms if retry is not None else later.delay_ms if later is not None else None
    classes = {class_name(c) for part in [error, *parts_of(error)] for c in type(part).__mro__}
    return {
        "ok": False, "kind": kind, "message": message, "report": report,
        "discard": part_of(error, Discard) is not None or not classes.isdisjoint(give_up_on),
        "retry": retry is not None, "snooze": later is not None, "delay_ms": delay_ms,
    }  # fmt: skip


def class_name(kind: type[BaseException]) -> str:
    """The name by which both processes know an exception's class."""
    module = "__main__" if kind.__module__ == _MAIN else kind.__module__
    return f"{module}:{kind.__qualname__}"


def _find(module: str, name: str, main_file: str) -> Any:
    found: Any = _main(main_file) if module == "__main__" else importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found.function if isinstance(found, BaseTask) else found


def _main(path: str) -> Any:
    """Load the worker's own script, once, under the name that `multiprocessing` gives it."""
    if _MAIN not in sys.modules:
        spec = importlib.util.spec_from_file_location(_MAIN, path)
        if spec is None or spec.loader is None:
            raise ImportError(f"cannot load {path}")
        module = importlib.util.module_from_spec(spec)
        sys.modules[_MAIN] = sys.modules["__main__"] = module
        spec.loader.exec_module(module)
    return sys.modules[_MAIN]
