"""One worker process: its parts put together, started, and drained."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from zwheel import __version__
from zwheel.broker.acl import Role, command_for
from zwheel.broker.address import mask_url
from zwheel.broker.connect import check_kind, check_server
from zwheel.broker.store import Recording, Store, SyncStore, pause_s
from zwheel.calls import Session
from zwheel.client.registry import Registry
from zwheel.doctor import info_fields
from zwheel.errors import (
    BrokerError,
    BrokerFull,
    BrokerRefused,
    BrokerUnavailable,
    OutcomeUnknown,
    SchemaMismatch,
    ZwheelError,
)
from zwheel.ids import _ALPHABET
from zwheel.job import JobId, QueueName, WorkerId
from zwheel.operations.listing import join
from zwheel.operations.rights import missing_rights, refusal_of_rights
from zwheel.operations.shards import learn_shards
from zwheel.outside import escaped
from zwheel.plain import counted

from .app import module_of
from .aside import READS
from .asks import CANCELLED_S
from .cancels import Cancels
from .claims import Observer, Slots, Stop
from .cuts import Cuts
from .declarations import Declarations
from .ending import time_to_end
from .heartbeat import Heartbeat
from .isolated import Isolated
from .lifespan import Lifespan
from .occurrences import Occurrences
from .parts import PartEnded, end_parts, failed_part
from .peers import about_tasks, group_of
from .poller import Poller
from .publishing import Publishing
from .runner import Runner
from .settings import WorkerSettings, refuse_memory
from .shards import Shards
from .watch import Watch
from .watchdog import Watchdog

log = escaped("zwheel.worker")

_CHECK_S = 5.0
#: How long Redis may take to hear what became of the last jobs, and how long signing off may take, seconds.
_TOLD_S, _SIGN_OFF_S = 1.0, 2.0
#: How long what runs in a thread may still take to end when the rest is cancelled, seconds.
_THREADS_S = 0.5
#: How many of the jobs that are given back are named.
_NAMED = 20
#: A worker without jobs that waits for the answer to its last claim ends this long before its drain is over, seconds.
_EARLIER_S = 1.5
#: How long the last steps may take when Redis did not answer before, seconds.
_SILENT_S = 0.3
#: How often to look whether the heartbeat's thread has told Redis, seconds.
_LOOK_S = 0.02
#: Refusals that end without us: after a failover, or when a disk or a replica is back.
_PASSING = frozenset({"READONLY", "MISCONF", "NOREPLICAS"})


class Worker:
    """Runs the tasks of a wheel until it is told to stop. One per process and event loop."""

    def __init__(
        self, wheel: Registry, settings: WorkerSettings | None = None, *, observer: Observer | None = None
    ) -> None:
        self.wheel = wheel
        self.settings = settings or WorkerSettings()
        self.id = WorkerId("".join(secrets.choice(_ALPHABET) for _ in range(8)))
        self._observer = observer
        #: Called by the heartbeat's thread after each beat.
        self.on_beat: Callable[[], None] | None = None
        #: Called by the watchdog's thread, several times a second: Python runs in this process.
        self.on_look: Callable[[], None] | None = None
        #: Ends this process when a task blocks the event loop for good; None: it is not for us to end.
        self.replace: Callable[[], None] | None = None
        self._stop = asyncio.Event()
        self._abort = asyncio.Event()
        #: Set when the worker has begun to claim.
        self.ready = asyncio.Event()
        #: How many jobs did not stop although they were cancelled.
        self.stuck = 0
        #: What it has for each shard that it serves; None before it serves any.
        self.shards: Shards | None = None
        self._isolated: Isolated | None = None
        #: What it publishes of its tasks and schedules.
        self._tasks: dict[str, object] = {}

        #: Called when it claims jobs.
        self.on_ready: Callable[[], None] = lambda: None

    @property
    def halted(self) -> dict[QueueName, SchemaMismatch]:
        """The queues of which nothing is claimed although this worker serves them, with the reason."""
        return {p.queue: p.founding.halted for p in self.pollers if p.founding.halted is not None}

    @property
    def pollers(self) -> list[Poller]:
        """Those of the shards that it serves now."""
        return [] if self.shards is None else self.shards.pollers

    def descriptors(self) -> list[int]:
        """What leads to the processes of its tasks."""
        return [] if self._isolated is None else self._isolated.descriptors()

    def stop(self) -> None:
        """Drain: claim no more, let running jobs end within `drain_ms`, give the rest back unharmed."""
        self._stop.set()

    def abort(self) -> None:
        """Give running jobs back now."""
        self._stop.set()
        self._abort.set()

    async def run(self) -> None:
        """Work until `stop` or `abort`. Waits for a Redis that is away. Raises: BrokerRefused, ConfigError, HookFailed."""
        url, namespace = _server_of(self.wheel)
        session = Session(namespace, caller=self.id)
        store = Store(url, session, max_connections=len(self.settings.queues) + 3)
        store.recorder = self.wheel.recorder(session)
        guard, lifespan = Watch(store, self.settings, self._observer), Lifespan(self.wheel.hooks)
        try:
            if await self._await_server(store, namespace, guard) and await lifespan.begin(self._stop):
                await self._serve(store, url, guard)
        finally:
            await lifespan.end(self._abort)
            await store.aclose()

    async def _serve(self, store: Store, url: str, guard: Watch) -> None:
        session = store.session
        queues = dict.fromkeys(self.settings.queues)
        served = [session.keys(shard) for queue in queues for shard in session.shards(queue)]
        slots = Slots(self.settings.concurrency, self.settings.prefetch, self.settings.max_jobs)
        declarations, publishing = Declarations(self.wheel, self.id), Publishing(self.wheel, store)
        tasks, allows = self.wheel.tasks, self.wheel.allows
        self._tasks, group = about_tasks(tasks, allows) | declarations.about(), group_of(tasks, allows)
        observer = _both(self._observer, store.recorder)
        self.shards = shards = Shards(
            store, self.wheel, self.settings, self.id, group, slots, observer, str(self._tasks.get("group", "")),
        )  # fmt: skip
        shards.runner = runner = self._runner(store, slots, Occurrences(store, shards.advance), shards)
        for keys in served:
            shards.add(keys)
        beat_store = self._beat_store(url, session)
        heartbeat = Heartbeat(
            beat_store, shards.contacts, self.settings, self.id, runner, lambda: self._describe(slots), self.on_beat
        )
        runner.renew = heartbeat.kick
        cuts = Cuts(store, self.settings.queues, shards, heartbeat.kick)
        shards.on_cut = cuts.kick
        cancels = Cancels(store, runner, lambda: [shard.keys for shard in shards])
        watchdog = self._watchdog(runner, heartbeat, observer)
        answered = True
        try:
            heartbeat.start()
            watchdog.start()
            synced = await declarations.start(store)
            await publishing.start()
            shards.start()
            parts = {
                "watch over leases": asyncio.create_task(heartbeat.watch()),
                "watch over Redis": asyncio.create_task(guard.run()),
                "publishing of tasks": asyncio.create_task(publishing.run()),
                "watch over shards": asyncio.create_task(cuts.run()),
                "watch over cancels": asyncio.create_task(cancels.run()),
                "sync of schedules": asyncio.create_task(declarations.run(store, synced)),
            }
            self.ready.set()
            self.on_ready()
            log.info(
                "worker %s: %s, queues %s, at %s",
                self.id,
                counted(len(tasks), "task"),
                ", ".join(queues),
                mask_url(store.url),
            )
            ending = asyncio.create_task(self._end_by_itself(shards, runner, slots))
            try:
                threads = {"heartbeat": heartbeat.ended, "watchdog": watchdog.ended}
                failure = await self._until_stopped({**parts, **threads, "end": ending}, shards, heartbeat)
                # Others are to know at once that it claims no more.
                heartbeat.kick()
                answered = await self._drain(shards, runner)
                if failure is not None:
                    raise failure
            finally:
                await end_parts([*parts.values(), ending, *shards.parts.values()])
        finally:
            watchdog.stop()
            heartbeat.stop()
            runner.cancel_all(Stop.LOST)
            runner.close()
            await runner.isolated.close()
            await shards.aclose()
            if heartbeat.ident is not None:
                await self._leave(store, heartbeat, shards, _SIGN_OFF_S if answered else _SILENT_S)
            beat_store.close()

    async def _end_by_itself(self, shards: Shards, runner: Runner, slots: Slots) -> None:
        log.info("worker %s: ending, since %s", self.id, await time_to_end(self.settings, shards, runner, slots))
        self.stop()

    def _runner(self, store: Store, slots: Slots, occurrences: Occurrences, shards: Shards) -> Runner:
        runner = Runner(
            self.wheel.tasks, self.wheel.codec, store.session, slots, self.id, self.settings.unknown_ttl_ms,
            self.settings.lease_ms, _both(self._observer, store.recorder), self.settings.task_processes, occurrences,
            shards.peers_of, self.settings.log_done,
        )  # fmt: skip
        self._isolated = runner.isolated
        self._isolated.app = module_of(self.wheel.app)
        return runner

    def _beat_store(self, url: str, session: Session) -> SyncStore:
        """The heartbeat's own connection: with lanes of its own, and one estimate of the server's clock for both."""
        timeout_s = max(0.5, min(5.0, self.settings.beat_ms / 1000))
        store = SyncStore(url, Session(session.namespace, caller=self.id), timeout_s=timeout_s)
        store.session.clock = session.clock
        store.recorder = self.wheel.recorder(store.session)
        return store

    async def _await_server(self, store: Store, namespace: str, guard: Watch) -> bool:
        """Wait until Redis answers, saying so; False when told to stop meanwhile."""
        failures = 0
        said = 0.0
        store.acl = command_for(Role.WORKER, namespace, list(dict.fromkeys(self.settings.queues)))
        while not self._stop.is_set():
            try:
                (info,) = await store.send([("INFO", "server")])
                fields = info_fields(info)
                check_kind(fields, store.url)
                check_server(fields)
                await guard.admit()
                await self._ask_rights(store, namespace)
                for queue in self.settings.queues:
                    await store.drive(join(store.session, queue))
                await store.drive(learn_shards(store.session, self.settings.queues))
                return True
            except BrokerFull as error:
                log.warning("%s; the jobs that are there are worked on", error)
                return True
            except (BrokerUnavailable, OutcomeUnknown, BrokerRefused) as error:
                if isinstance(error, BrokerRefused) and error.code not in _PASSING:
                    raise
                failures += 1
                if time.monotonic() - said > _CHECK_S:
                    said = time.monotonic()
                    log.warning("waiting for Redis: %s", error)
                try:
                    async with asyncio.timeout(pause_s(failures)):
                        await self._stop.wait()
                except TimeoutError:
                    continue
        return False

    async def _ask_rights(self, store: Store, namespace: str) -> None:
        """Ask what this Redis user may do. Raises: BrokerRefused, naming what is missing, before anything is claimed."""
        queues = list(dict.fromkeys(self.settings.queues))
        missing = await store.drive(missing_rights(store.session, Role.WORKER, queues))
        if missing:
            raise refusal_of_rights(Role.WORKER, namespace, queues, missing)

    def _watchdog(self, runner: Runner, heartbeat: Heartbeat, observer: Observer | None) -> Watchdog:
        watchdog = Watchdog(self.settings, runner, heartbeat)
        if observer is not None:
            watchdog.on_stall = lambda since, until: observer("stalled", {"since": since, "until": until})
        watchdog.on_look, watchdog.replace = self.on_look, self.replace
        heartbeat.is_stuck = watchdog.stuck
        return watchdog

    async def _until_stopped(
        self, parts: Mapping[str, asyncio.Future[Any]], shards: Shards, heartbeat: Heartbeat
    ) -> PartEnded | None:
        """Wait for a stop. Returns the failure of a part that ended before, which is said here."""
        stopped = asyncio.create_task(self._stop.wait())
        failure = None
        try:
            while failure is None and not self._stop.is_set():
                shards.changed.clear()
                changed = asyncio.create_task(shards.changed.wait())
                ends = [stopped, changed, *parts.values(), *shards.parts.values()]
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
                # A shard that is dropped takes its parts along.
                failure = None if self._stop.is_set() else failed_part({**parts, **shards.parts})
            if failure is not None and failure.at_once:
                self.abort()
                # Without a poller outcomes have no other way.
                heartbeat.is_stuck = lambda: True
                heartbeat.kick()
            return failure
        finally:
            stopped.cancel()

    async def _drain(self, shards: Shards, runner: Runner) -> bool:
        """Wait for the jobs, then stop them; every wait has an end. Returns whether Redis heard of all that ended."""
        runner.give_back()
        everything = shards.stop()
        aborted = asyncio.create_task(self._abort.wait())
        try:
            grace = self.settings.drain_ms / 1000
            if not runner.held:
                # All that is left are answers to claims, and the jobs in them go back unharmed.
                grace = max(grace / 2, grace - _EARLIER_S)
            if not self._abort.is_set():
                waited: set[asyncio.Future[Any]] = {everything, aborted}
                await asyncio.wait(waited, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
            if runner.held or not everything.done():
                await self._cancel(runner, everything)
            if everything.done():
                return not any(everything.result())
            self.stuck = sum(claim.running is not None for claim in runner.held)
            if runner.held:
                log.error(
                    "worker %s: %s did not stop, and Redis was not told how %s ended; their leases will run out",
                    self.id, counted(self.stuck, "job"), counted(len(runner.held) - self.stuck, "job"),
                )  # fmt: skip
            return False
        finally:
            aborted.cancel()
            everything.cancel()
            await asyncio.gather(everything, return_exceptions=True)

    async def _cancel(self, runner: Runner, everything: asyncio.Future[Any]) -> None:
        """Stop what still runs, and let Redis hear of it."""
        held = list(runner.held)
        in_threads = {claim.running for claim in held if claim.running is not None and claim.in_thread}
        runner.cancel_all(Stop.DRAIN, threads=False)
        if in_threads:
            # A job that ends in this moment, which nothing could cut short, has ended and need not run again.
            await asyncio.wait(in_threads, timeout=_THREADS_S)
        runner.cancel_all(Stop.DRAIN)
        self._say_given_back([claim.job_id for claim in held if claim.stop is Stop.DRAIN])
        running = {claim.running for claim in held if claim.running is not None}
        if running:
            await asyncio.wait(running, timeout=CANCELLED_S - _THREADS_S)
        if runner.held or self._abort.is_set():
            await asyncio.wait([everything], timeout=_TOLD_S)
        deadline = time.monotonic() + _TOLD_S
        # A poller ended by a fault: the heartbeat's thread tells what became of its jobs.
        while runner.held and everything.done() and time.monotonic() < deadline:  # noqa: ASYNC110 - seldom, and short
            await asyncio.sleep(_LOOK_S)

    def _say_given_back(self, ids: list[JobId]) -> None:
        if ids:
            more = f" and {len(ids) - _NAMED:,} more" if len(ids) > _NAMED else ""
            log.warning(
                "worker %s: giving back what still runs: %s: %s%s",
                self.id, counted(len(ids), "job"), ", ".join(ids[:_NAMED]), more,
            )  # fmt: skip

    async def _leave(self, store: Store, heartbeat: Heartbeat, shards: Shards, within_s: float) -> None:
        """Sign off after the last beat, which would sign on again: to others a worker that left would seem to live."""
        await asyncio.to_thread(heartbeat.join, within_s)
        lists = dict.fromkeys(shard.keys.workers for shard in shards)
        try:
            async with asyncio.timeout(_SILENT_S if heartbeat.is_alive() else within_s):
                await store.send([("HDEL", name, self.id) for name in lists])
        except (BrokerError, TimeoutError, ZwheelError) as error:
            log.info("worker %s: could not sign off: %s", self.id, str(error) or "Redis did not answer in time")

    _started_ms = 0

    def _describe(self, slots: Slots) -> dict[str, object]:
        if not self._started_ms:
            self._started_ms = time.time_ns() // 1_000_000
        return {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "queues": list(self.settings.queues),
            "concurrency": self.settings.concurrency,
            "running": slots.running,
            "started": self._started_ms,
            "version": __version__,
            "reads": READS,
            "lease": self.settings.lease_ms,
            **({"stops": True} if self._stop.is_set() else {}),
            **self._tasks,
        }


def _server_of(wheel: Registry) -> tuple[str, str]:
    """The URL and the namespace to work on. Raises: ConfigError when no worker can."""
    url, namespace = wheel.resolve()
    refuse_memory(url)
    return url, namespace


def _both(observer: Observer | None, recorder: Recording | None) -> Observer | None:
    """Let the history see what an observer sees."""
    if recorder is None or observer is None:
        return observer if recorder is None else recorder.observe
    first, second = observer, recorder.observe

    def observe(event: str, facts: dict[str, Any]) -> None:
        second(event, facts)
        first(event, facts)

    return observe
