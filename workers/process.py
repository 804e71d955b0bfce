"""Runs one worker in this process: logging, and an end that waits neither for stuck threads nor for stuck tasks."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from zwheel.broker.connect import open_descriptors
from zwheel.client.registry import Registry
from zwheel.current import current
from zwheel.errors import ConfigError
from zwheel.logs import JobFilter, JsonLines, TextLines
from zwheel.outside import escaped

from .claims import Claim
from .forks import FORKS, Threads, loop_descriptors
from .garbage import GARBAGE
from .lifeline import listen, say_ready, take_line
from .renewer import Renewer
from .settings import WorkerSettings
from .stopping import Stopper, end_now
from .timeouts import Timeouts
from .timer import timer_descriptors
from .watchdog import write_stacks_when_asked
from .worker import Worker

log = escaped("zwheel.worker")

#: How long idle threads, and background tasks, of ended jobs may take to end before the process does, seconds.
_THREADS_END_S, _BACKGROUND_S = 0.5, 1.0
#: The name of the runner's coroutine that runs a job.
_JOB = "Runner._run"
#: How long the log of a stuck process may take to be written, seconds.
_FLUSHED_S = 1.0
#: The names of threads begin with these words: of threads that run tasks, and of threads of `asyncio.to_thread`.
TASK_THREAD, TO_THREAD = "zwheel-task", "zwheel-to-thread"


def set_up_logging(level: str | None, form: str | None) -> None:
    """Let the log go to stderr, unless the application has set logging up: then it goes where the application says.

    Call it when the application is imported. level, form: as given by the user, None: not given. Theirs is an explicit
    wish: `level` also holds for what zwheel logs through the handlers of an application.
    """
    root = logging.getLogger()
    for name, logger in list(root.manager.loggerDict.items()):
        # A `dictConfig` disables all loggers that were there before it, unless it is told not to: nobody who forgot that
        # wants to miss why a job failed.
        if isinstance(logger, logging.Logger) and name.partition(".")[0] == "zwheel":
            logger.disabled = False
    if root.handlers:
        if level is not None:
            escaped("zwheel").setLevel(level.upper())
        if form is not None:
            log.warning("--log-format %s: the application has set up logging itself, so this changes nothing", form)
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(JobFilter())
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    root.addHandler(handler)
    root.setLevel((level or "info").upper())


def serve(wheel: Registry, settings: WorkerSettings, *, uvloop: bool = False) -> int:
    """Run a worker until SIGTERM, SIGINT or SIGHUP: the first drains, the second gives running jobs back at once.

    Returns the exit code: 1 when a job could not be stopped. Raises: BrokerRefused, ConfigError.
    """
    line = take_line()
    factory = _uvloop_factory() if uvloop else None
    worker = Worker(wheel, settings)
    url, namespace = wheel.resolve()
    renewer = Renewer(url, namespace, worker.id, settings, wheel.recorder, Timeouts(wheel.tasks, wheel.codec))
    worker.on_beat = renewer.tick
    write_stacks_when_asked()
    worker.on_look = renewer.alive
    worker.replace = _end_stuck
    stopper = Stopper(worker, settings.drain_ms)
    GARBAGE.settle_in()
    left = _Left()
    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            try:
                runner.run(_serve(worker, renewer, stopper, line, left))
            finally:
                FORKS.end_child(sys.exception())
                # Before the runner closes: it would wait for every thread of the loop's own pool, and for every task.
                left.look_for_threads()
                if left.anything:
                    left.say()
                    renewer.close()
                    end_now(left.code)
    finally:
        renewer.close()
    return 0


def _end_stuck() -> None:
    """End this process from another thread, while a task blocks the main one, and maybe the log with it."""
    flushing = threading.Thread(target=logging.shutdown, daemon=True)
    flushing.start()
    flushing.join(_FLUSHED_S)
    os._exit(1)


class _Left:
    """What did not end although nothing waits for it any more."""

    def __init__(self) -> None:
        self.jobs = 0
        self.background: list[str] = []
        self._threads: list[str] = []
        self._error: BaseException | None = None

    def look_for_threads(self) -> None:
        """Give threads that have nothing to do a moment to end; remember the others, and what went wrong till now."""
        self._error = sys.exception()
        deadline = time.monotonic() + _THREADS_END_S
        others = [t for t in threading.enumerate() if t is not threading.main_thread() and not t.daemon]
        for thread in others:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._threads = [thread.name for thread in others if thread.is_alive()]

    @property
    def anything(self) -> bool:
        """Whether something would keep the process."""
        return bool(self.background or self._threads)

    @property
    def code(self) -> int:
        """The exit code: what a library or a task left running in the background is no failure of a job."""
        return 1 if self.jobs or self._of_tasks or self._error is not None else 0

    @property
    def _of_tasks(self) -> int:
        return sum(name.startswith((TASK_THREAD, TO_THREAD)) for name in self._threads)

    def say(self) -> None:
        """Tell what the process ends without."""
        if self._error is not None:
            log.error("the worker failed", exc_info=self._error)
        if self._of_tasks:
            log.error("ending, although threads still run tasks: %d", self._of_tasks)
        if len(self._threads) > self._of_tasks:
            names = ", ".join(n for n in self._threads if not n.startswith((TASK_THREAD, TO_THREAD)))
            log.warning("tasks left threads behind, which end with the process: %s", names[:500])
        # The jobs that did not stop have been counted before.
        for name in [name for name in self.background if _JOB not in name][:10]:
            log.warning("a background task goes on although it was cancelled; it ends with the process: %s", name[:500])


def _uvloop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise ConfigError('uvloop needs an extra: pip install "zwheel[uvloop]"') from None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


async def _serve(worker: Worker, renewer: Renewer, stopper: Stopper, line: socket.socket | None, left: _Left) -> None:
    loop = asyncio.get_running_loop()
    # `asyncio.to_thread` uses this pool. Its threads end when they are idle: a thread that is left at the end is stuck.
    pool = _ToThread(thread_name_prefix=TO_THREAD)
    loop.set_default_executor(pool)
    ends = [renewer.wake_up, *loop_descriptors(loop), *([] if line is None else [line.fileno()])]
    FORKS.guard(lambda: [*ends, *open_descriptors(), *timer_descriptors(), *worker.descriptors()])
    stopper.listen(renewer.wake_up)
    if line is not None:
        listen(line, stopper.parent_asked, stopper.parent_gone)
        worker.on_ready = partial(say_ready, line)
    try:
        await worker.run()
    finally:
        left.jobs = worker.stuck
        pool.shutdown(wait=False, cancel_futures=True)
        left.background = await _end_background()


class _ToThread(Threads):
    """The threads of `asyncio.to_thread`. A job's claim knows the calls that the job has there."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """As that of its base."""
        future = super().submit(fn, *args, **kwargs)
        claim = current.get(None)
        if isinstance(claim, Claim):
            if claim.to_threads is None:
                claim.to_threads = set()
            claim.to_threads.add(future)
            future.add_done_callback(claim.to_threads.discard)
        return future


async def _end_background() -> list[str]:
    """Cancel what tasks left running in the loop. Returns what does not end all the same."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if not others:
        return []
    _, swallowing = await asyncio.wait(others, timeout=_BACKGROUND_S)
    return [f"{task.get_name()} {task.get_coro()!r}" for task in swallowing]
