"""The renewer: a forked process that renews leases when the worker's own heartbeat cannot, because a task holds the GIL.

The heartbeat's thread writes a byte at every beat. When none came for one and a half beats although the worker process
is alive and not stopped, the renewer looks up the jobs its worker holds in Redis and renews those leases itself. A
worker that was stopped, or that died, gets nothing renewed: its jobs are to run elsewhere.

No longer than it may be, though. A job that is past its timeout is not renewed. When Python did not run in the worker for
as long as a task may hold it up (`stuck_ms`), or for three leases while a job there is past its timeout, the renewer says
what the worker holds, and kills it: nothing inside it can. Its supervisor starts another.

Signals that ask the worker to stop reach the renewer too, by Python's wake-up descriptor, which works while the GIL is
held. A worker that does not end in its time is killed.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from zwheel import calls
from zwheel.broker.store import SyncStore
from zwheel.calls import BATCH_LIMIT, Session
from zwheel.errors import BrokerError, BrokerUnavailable, OutcomeUnknown
from zwheel.keys import ShardKeys
from zwheel.operations.shards import refresh_shards
from zwheel.outside import escaped
from zwheel.record import bytes_apart

from .alive import is_running
from .asks import STOP_SIGNALS, Asks, time_left_s
from .settings import WorkerSettings
from .timeouts import Timeouts
from .watchdog import LEASES, ask_for_stacks, dump_after_s

if TYPE_CHECKING:
    from zwheel.history import Recorder

log = escaped("zwheel.worker")

MakeRecorder = Callable[[Session], "Recorder | None"]

_LATE = 1.5
#: The pipe carries numbers of signals and two more messages: a heartbeat was answered; Python runs in the worker. The
#: last is sent this often, seconds.
_BEAT, _ALIVE, _ALIVE_S = b".", b"-", 1.0
#: A wait that took so much longer than it should means that this process was not running, seconds.
_ASLEEP_S = 1.0
#: How many jobs are named when a worker is killed.
_NAMED = 20
#: How much longer than its own thread the renewer waits before it kills the worker, seconds.
_KILL_S = 0.5
#: How long it may take to end, and how often to look, seconds.
_CLOSE_S, _LOOK_S = 0.5, 0.005


class Renewer:
    """The worker's side of the renewer process."""

    def __init__(
        self, url: str, namespace: str, worker: str, settings: WorkerSettings, recorder: MakeRecorder | None = None,
        timeouts: Timeouts | None = None,
    ) -> None:  # fmt: skip
        """Fork it. Call this before any thread or event loop exists.

        recorder: makes what writes its history. timeouts: tells which jobs are past theirs.
        """
        self._said_at = 0.0
        reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                os.close(self._writing)
                for number in STOP_SIGNALS:
                    signal.signal(number, signal.SIG_IGN)
                renewal = Renewal(url, namespace, worker, settings, recorder, timeouts)
                _keep(reading, Stillness(parent, settings), Patience(parent, settings.drain_ms / 1000), renewal)
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
            os.write(self._writing, _BEAT)

    def alive(self) -> None:
        """Say, once a second at the most, that Python runs here, whatever the heartbeat waits for."""
        now = time.monotonic()
        if now - self._said_at >= _ALIVE_S:
            self._said_at = now
            with contextlib.suppress(OSError):
                os.write(self._writing, _ALIVE)

    def close(self) -> None:
        """Let the renewer end, and wait for it. When it does not end in time it is killed: it holds nothing. Twice is once."""
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


def _keep(pipe: int, stillness: Stillness, patience: Patience, renewal: Renewal) -> None:
    while True:
        wait_s = patience.wait_s(stillness.wait_s())
        began = time.monotonic()
        ready, _, _ = select.select([pipe], [], [], wait_s)
        if time.monotonic() - began > wait_s + _ASLEEP_S:
            stillness.slept()
        if ready:
            said = os.read(pipe, 4096)
            if not said:
                return
            patience.hear(said)
            if stillness.hear(said):
                renewal.held.clear()
        elif not patience.over() and stillness.begins():
            stillness.ask()
            overdue = renewal.run()
            if stillness.too_long(overdue):
                stillness.end(list(renewal.held))


class Stillness:
    """How long the worker's heartbeat, and Python in it, have been silent."""

    def __init__(self, worker: int, settings: WorkerSettings) -> None:
        self._worker = worker
        self._late_s = settings.beat_ms / 1000 * _LATE
        self._limit_s = max(LEASES * settings.lease_ms, settings.stuck_ms) / 1000
        # The stacks are written before.
        self._overdue_s = min(
            self._limit_s, max(LEASES * settings.lease_ms / 1000, 1.5 * dump_after_s(settings.lease_ms))
        )
        self._looked_at = self._alive_at = time.monotonic()
        self._overdue = False
        self._dump_after_s = dump_after_s(settings.lease_ms)
        self._asked = False

    def slept(self) -> None:
        """This process did not run for a while, and the worker neither: a paused container, a machine that was asleep."""
        self._looked_at = self._alive_at = time.monotonic()

    def hear(self, said: bytes) -> bool:
        """Take in what came over the pipe. Returns whether Python runs there."""
        if _BEAT in said:
            self._looked_at = time.monotonic()
        runs = _BEAT in said or _ALIVE in said
        if runs:
            self._alive_at = time.monotonic()
            self._overdue = self._asked = False
        return runs

    def wait_s(self) -> float:
        """How long to wait for the next beat, seconds."""
        return max(0.0, self._looked_at + self._late_s - time.monotonic())

    def begins(self) -> bool:
        """Whether a beat is late in a process that runs; it is looked for again as much later."""
        now = time.monotonic()
        if now < self._looked_at + self._late_s:
            return False
        self._looked_at = now
        if is_running(self._worker):
            return True
        self._alive_at = now
        return False

    def ask(self) -> None:
        """Have the worker write its stacks, once, when Python has not run there for long."""
        if not self._asked and time.monotonic() - self._alive_at > self._dump_after_s:
            self._asked = True
            ask_for_stacks(self._worker)

    def too_long(self, overdue: bool) -> bool:
        """Whether Python has not run there for as long as it may not. overdue: a job there is past its timeout."""
        # Others take that job over in the meantime.
        self._overdue = self._overdue or overdue
        return time.monotonic() - self._alive_at > (self._overdue_s if self._overdue else self._limit_s)

    def end(self, held: Sequence[str]) -> None:
        """Kill the worker, which cannot end itself."""
        log.error(
            "worker process %d: Python has not run there for %.0f s: a task holds the GIL. It is killed, to be replaced; "
            "its stacks are in its own log. It holds %s",
            self._worker, time.monotonic() - self._alive_at, ", ".join(held[:_NAMED]) or "no job",
        )  # fmt: skip
        if os.getppid() == self._worker:
            os.kill(self._worker, signal.SIGKILL)


class Renewal:
    """Renews what the worker holds by what Redis says, on a connection of its own."""

    def __init__(
        self, url: str, namespace: str, worker: str, settings: WorkerSettings, recorder: MakeRecorder | None,
        timeouts: Timeouts | None,
    ) -> None:  # fmt: skip
        self._url = url
        self._namespace = namespace
        self._worker = worker
        self._settings = settings
        self._recorder = recorder
        self._timeouts = timeouts
        self._store: SyncStore | None = None
        self._known: dict[tuple[bytes, bytes], int] = {}
        #: The timeout of each claim, ms, read once: for a large job its body must be fetched.
        self._limits: dict[tuple[bytes, bytes], int | None] = {}
        self._overdue = 0
        #: The shards whose node gave no answer.
        self._silent: set[str] = set()
        #: The jobs that the worker held in this silence.
        self.held: dict[str, None] = {}

    def run(self) -> bool:
        """Renew once. Returns whether some job is past its timeout."""
        if self._store is None:
            self._store = SyncStore(
                self._url, Session(self._namespace), timeout_s=max(0.5, self._settings.beat_ms / 2000)
            )
            self._store.recorder = None if self._recorder is None else self._recorder(self._store.session)
        self._overdue = 0
        silent: set[object] = set()
        # A fault of one queue must not keep the leases of the others from being renewed. A node that gave no answer is asked
        # once, and the next time after all the others.
        for shard in sorted(self._shards(), key=lambda shard: shard in self._silent):
            keys = self._store.session.keys(shard)
            node = self._store.node_of(keys.meta)
            with contextlib.suppress(BrokerError, ValueError, LookupError, TypeError):
                if node not in silent:
                    try:
                        renew(self._store, keys, self._worker, self._settings, self._known, partial(self._may, keys))
                        self._silent.discard(shard)
                        continue
                    except (BrokerUnavailable, OutcomeUnknown):
                        silent.update((node, self._store.node_of(keys.meta)))
                self._silent.add(shard)
        return self._overdue > 0

    def _shards(self) -> list[str]:
        """The shards of the queues, as far as Redis tells now how many there are."""
        assert self._store is not None
        with contextlib.suppress(BrokerError):
            self._store.drive(refresh_shards(self._store.session, self._settings.queues), give_up_s=0)
        return [shard for queue in self._settings.queues for shard in self._store.session.shards(queue)]

    def _may(self, keys: ShardKeys, job_id: bytes, raw: bytes, since_ns: int) -> bool:
        """Whether a job may be renewed: not when it was first met here its timeout and a lease ago, or longer."""
        self.held[job_id.decode("utf-8", "backslashreplace")] = None
        claim = (job_id, raw[21:37])
        if claim not in self._limits:
            self._limits[claim] = self._timeout_of(keys, job_id, raw)
        timeout_ms = self._limits[claim]
        if timeout_ms is None or since_ns < (timeout_ms + self._settings.lease_ms) * 1_000_000:
            return True
        self._overdue += 1
        return False

    def _timeout_of(self, keys: ShardKeys, job_id: bytes, raw: bytes) -> int | None:
        if self._timeouts is None or self._store is None:
            return None
        if bytes_apart(raw):
            (body,) = self._store.send([("HGET", keys.bodies, job_id)])
            raw += body or b""
        return self._timeouts.of(job_id, raw)


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
    may: Callable[[bytes, bytes, int], bool] = lambda job_id, raw, since_ns: True,
) -> int:  # fmt: skip
    """Renew the leases of one worker. Returns how many it found.

    known: when each claim was first met here, monotonic ns: a claim that lasts for longer than any may is not renewed.
    may: tells by id, record and the time since then whether a claim may be renewed.
    """
    known = {} if known is None else known
    now_ns = time.monotonic_ns()
    longest_ns = settings.longest_ms * 1_000_000
    name = worker.encode().ljust(8)
    ids: Sequence[bytes]
    found = 0
    start = 0
    while True:
        (ids,) = store.send([("ZRANGE", keys.processing, start, start + BATCH_LIMIT - 1)])
        if not ids:
            return found
        (records,) = store.send([("HMGET", keys.jobs, *ids)])
        mine = [(i, raw) for i, raw in zip(ids, records, strict=True) if raw and raw[37:45] == name]
        held = []
        for job_id, raw in mine:
            since_ns = now_ns - known.setdefault((job_id, raw[21:37]), now_ns)
            if since_ns < longest_ns and may(job_id, raw, since_ns):
                held.append((job_id, raw[21:37]))
        if held:
            call = calls.extend(keys, held, lease_ms=settings.lease_ms)
            store.send([call])
        found += len(mine)
        start += BATCH_LIMIT
