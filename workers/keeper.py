"""The keeper: a forked process that renews leases when the worker's own heartbeat cannot, because a task holds the GIL.

The heartbeat's thread writes a byte at every beat. When none came for one and a half beats although the worker process
is alive and not stopped, the keeper looks up the jobs its worker holds in Redis and renews those leases itself. A
worker that was stopped, or that died, gets nothing renewed: its jobs are to run elsewhere.

Signals that ask the worker to stop reach the keeper too, by Python's wake-up descriptor, which works while the GIL is
held. A worker that does not end in its time is killed.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zwheel import calls
from zwheel.calls import BATCH_LIMIT, Session
from zwheel.errors import BrokerError
from zwheel.keys import ShardKeys
from zwheel.store import SyncStore

from .asks import STOP_SIGNALS, Asks, time_left_s
from .settings import WorkerSettings

if TYPE_CHECKING:
    from zwheel.history import Recorder

MakeRecorder = Callable[[Session], "Recorder | None"]

_LATE = 1.5
#: How much longer than its own thread the keeper waits before it kills the worker, seconds.
_KILL_S = 0.5
#: How long it may take to end, and how often to look, seconds.
_CLOSE_S, _LOOK_S = 0.5, 0.005
_STOPPED = frozenset("TtZX")


def is_running(pid: int) -> bool:
    """Whether a process exists and is not stopped; where the system does not tell, a process that exists is running."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        if not sys.platform.startswith("linux"):
            with contextlib.suppress(OSError):
                os.kill(pid, 0)
                return True
        return False
    return stat.rpartition(")")[2].split()[0] not in _STOPPED


class Keeper:
    """The worker's side of the keeper process."""

    def __init__(
        self, url: str, namespace: str, worker: str, settings: WorkerSettings, recorder: MakeRecorder | None = None
    ) -> None:
        """Fork it. Call this before any thread or event loop exists. recorder: makes what writes its history."""
        reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                os.close(self._writing)
                for number in (signal.SIGINT, signal.SIGTERM):
                    signal.signal(number, signal.SIG_IGN)
                _keep(reading, parent, url, namespace, worker, settings, recorder)
                code = 0
            finally:
                os._exit(code)
        os.close(reading)

    @property
    def wake_up(self) -> int:
        """The descriptor for `signal.set_wakeup_fd`."""
        return self._writing

    def tick(self) -> None:
        """Say that the heartbeat beats."""
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(self._writing, b".")

    def close(self) -> None:
        """Let it end, and wait for it; one that waits for Redis is killed: it holds nothing. Twice is once."""
        if self._writing < 0:
            return
        os.close(self._writing)
        self._writing = -1
        with contextlib.suppress(ChildProcessError):
            deadline = time.monotonic() + _CLOSE_S
            while os.waitpid(self.pid, os.WNOHANG) == (0, 0):
                if time.monotonic() > deadline:
                    os.kill(self.pid, signal.SIGKILL)
                    os.waitpid(self.pid, 0)
                    return
                time.sleep(_LOOK_S)


def _keep(
    pipe: int,
    parent: int,
    url: str,
    namespace: str,
    worker: str,
    settings: WorkerSettings,
    recorder: MakeRecorder | None,
) -> None:
    store = None
    patience = Patience(parent, settings.drain_ms / 1000)
    known: dict[tuple[bytes, bytes], int] = {}
    while True:
        ready, _, _ = select.select([pipe], [], [], patience.wait_s(settings.beat_ms / 1000 * _LATE))
        if ready:
            said = os.read(pipe, 4096)
            if not said:
                return
            patience.hear(said)
        elif not patience.over() and is_running(parent):
            if store is None:
                store = SyncStore(url, Session(namespace), timeout_s=max(0.5, settings.beat_ms / 2000))
                store.recorder = None if recorder is None else recorder(store.session)
            with contextlib.suppress(BrokerError):
                for queue in settings.queues:
                    renew(store, store.session.keys(queue), worker, settings, known)


class Patience:
    """Ends the worker when it was asked to stop and is not gone in time: then not even its own thread could end it."""

    def __init__(self, worker: int, drain_s: float) -> None:
        self._worker = worker
        self._drain_s = drain_s
        self._asks = Asks()
        self._until = math.inf

    def hear(self, said: bytes) -> None:
        """Find the signals between the beats."""
        for number in said:
            if number in STOP_SIGNALS and self._asks.signal(number):
                left_s = time_left_s(self._asks.count, self._drain_s) + _KILL_S
                self._until = min(self._until, time.monotonic() + left_s)

    def wait_s(self, longest: float) -> float:
        """How long to wait for the next beat, seconds."""
        return min(longest, max(0.0, self._until - time.monotonic()))

    def over(self) -> bool:
        """Kill the worker when its time is over."""
        if time.monotonic() < self._until:
            return False
        with contextlib.suppress(OSError):
            os.kill(self._worker, signal.SIGKILL)
        self._until = math.inf
        return True


def renew(
    store: SyncStore, keys: ShardKeys, worker: str, settings: WorkerSettings,
    known: dict[tuple[bytes, bytes], int] | None = None,
) -> int:  # fmt: skip
    """Renew the leases of one worker. Returns how many it found.

    known: when each claim was first met here, monotonic ns: one that lasts for longer than any may is not renewed.
    """
    known = {} if known is None else known
    oldest_ns = time.monotonic_ns() - settings.longest_ms * 1_000_000
    name = worker.encode().ljust(8)
    ids: Sequence[bytes]
    found = 0
    start = 0
    while True:
        (ids,) = store.send([("ZRANGE", keys.processing, start, start + BATCH_LIMIT - 1)])
        if not ids:
            return found
        (records,) = store.send([("HMGET", keys.jobs, *ids)])
        held = [(i, raw[21:37]) for i, raw in zip(ids, records, strict=True) if raw and raw[37:45] == name]
        held = [pair for pair in held if known.setdefault(pair, time.monotonic_ns()) > oldest_ns]
        if held:
            call = calls.extend(keys, held, lease_ms=settings.lease_ms)
            store.send([call])
            found += len(held)
        start += BATCH_LIMIT
