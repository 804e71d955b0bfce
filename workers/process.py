"""Runs one worker in this process: signals, logging, and an end that does not wait for stuck threads."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from zwheel.errors import ConfigError
from zwheel.registry import Registry

from .garbage import GARBAGE
from .keeper import Keeper
from .settings import WorkerSettings
from .worker import Worker

log = logging.getLogger("zwheel.worker")

#: A supervisor passes the number of a pipe's end here; when the pipe closes, the supervisor is gone.
PARENT_PIPE = "ZWHEEL_PARENT_PIPE"
#: How long idle threads may take to end before a worker process does, seconds.
_THREADS_END_S = 0.5


def set_up_logging(level: str) -> None:
    """Write the log to stderr, times in UTC."""
    formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)-7s %(process)d %(message)s", "%H:%M:%S")
    formatter.converter = time.gmtime
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


def serve(wheel: Registry, settings: WorkerSettings, *, uvloop: bool = False) -> int:
    """Run a worker until SIGTERM or SIGINT: the first drains, the second gives running jobs back at once.

    Returns the exit code. Raises: BrokerRefused, ConfigError.
    """
    factory = _uvloop_factory() if uvloop else None
    worker = Worker(wheel, settings)
    url, namespace = wheel.resolve()
    keeper = Keeper(url, namespace, worker.id, settings, wheel.recorder)
    worker.on_beat = keeper.tick
    GARBAGE.settle_in()
    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(_serve(worker, settings))
            # Before the runner closes: it would wait for every thread of the loop's own pool.
            stuck = _stuck_threads()
            if stuck:
                log.error("%d threads are still running tasks; ending without them", stuck)
                keeper.close()
                logging.shutdown()
                os._exit(1)
    finally:
        keeper.close()
    return 0


def _stuck_threads() -> int:
    """Count the threads that do not end by themselves although nothing waits for them any more."""
    deadline = time.monotonic() + _THREADS_END_S
    others = [t for t in threading.enumerate() if t is not threading.main_thread() and not t.daemon]
    for thread in others:
        thread.join(max(0.0, deadline - time.monotonic()))
    return sum(thread.is_alive() for thread in others)


def _uvloop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise ConfigError('uvloop needs an extra: pip install "zwheel[uvloop]"') from None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


async def _serve(worker: Worker, settings: WorkerSettings) -> None:
    loop = asyncio.get_running_loop()
    # What a task hands to `asyncio.to_thread` runs here; its threads end when they are idle, so that the rest is stuck.
    pool = ThreadPoolExecutor(thread_name_prefix="zwheel-to-thread")
    loop.set_default_executor(pool)
    signals = 0

    def on_signal(name: str) -> None:
        nonlocal signals
        signals += 1
        if signals == 1:
            log.info("%s: draining for up to %g s; again to stop at once", name, settings.drain_ms / 1000)
            worker.stop()
        else:
            log.warning("%s: stopping at once", name)
            worker.abort()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number.name)
    pipe = int(os.environ.pop(PARENT_PIPE, "-1"))
    if pipe >= 0:
        os.set_blocking(pipe, False)

        def on_pipe() -> None:
            loop.remove_reader(pipe)
            log.warning("the supervisor is gone: draining")
            worker.stop()

        loop.add_reader(pipe, on_pipe)
    try:
        await worker.run()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
