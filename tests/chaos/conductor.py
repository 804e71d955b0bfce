"""Conducts a run: starts everything, lets the faults happen, heals, drains, takes the snapshot, ends everything."""

from __future__ import annotations

import asyncio
import os
import random
import re
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.proxy import Proxy
from zwheel import Wheel, ZwheelError
from zwheel.broker.store import SyncStore
from zwheel.calls import Session
from zwheel.history import History
from zwheel.verify import take_snapshot

from .app import NAMESPACE, QUEUES, SHARDS
from .cluster import ClusterTarget
from .faults import Faults
from .fleet import Fleet, Member, Role
from .plan import Planned
from .server import Target, now_us

Say = Callable[[str], None]

_SAY_EVERY_S = 5.0
_REPLACE_WITHIN_S = 0.8
_START_S = 30.0
_CHILD_KILLED = re.compile(r"worker process (\d+) ended: SIGKILL")
#: A worker looks for what a former version set aside every second for a minute after it found some.
_ASIDE_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What one run is told."""

    seed: int
    duration_s: float
    rate: float
    """Jobs a second that the producers aim at, together."""
    binary: Path
    directory: Path
    """Where the history, the logs and the server's files go."""
    drain_s: float = 90.0
    """How long the healthy workers may take to bring every job to its end."""
    tame: bool = False
    """No process has failpoints."""
    cluster: bool = False
    """The server is a cluster of six nodes."""
    former: Path | None = None
    """The tree of a former version, of which half of the workers and producers are; None: all are of this one."""

    @property
    def history(self) -> Path:
        """The directory of the history."""
        return self.directory / "history"

    @property
    def logs(self) -> Path:
        """The directory of the processes' logs."""
        return self.directory / "logs"


@dataclass(slots=True)
class Outcome:
    """What a run came to, apart from its history."""

    faults: Counter[str] = field(default_factory=Counter)
    """How often each kind of fault was carried out."""
    deaths: Counter[str] = field(default_factory=Counter)
    """How processes ended, by role and cause."""
    failpoints: Counter[str] = field(default_factory=Counter)
    """At which failpoints processes died."""
    killed: dict[int, str] = field(default_factory=dict)
    """Pids of workers that died by SIGKILL, and why."""
    stopped: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    """Pids of workers that were stopped, and from when until when, µs."""
    proxied: set[int] = field(default_factory=set)
    """Pids of processes that reached Redis through the proxy."""
    drained: set[int] = field(default_factory=set)
    """Pids of processes that were asked to end."""
    losses: list[tuple[int, int]] = field(default_factory=list)
    drained_s: float | None = None
    """How long the rest took; None: it was not drained in time."""
    rest: dict[str, int] = field(default_factory=dict)
    """Jobs of each queue that were left, when it was not drained."""
    strays: list[int] = field(default_factory=list)
    """Processes that were still there at the end."""
    crashed: list[str] = field(default_factory=list)
    """Members that ended by themselves with an exit code, which nothing explains."""


class Conductor:
    """One run."""

    def __init__(self, settings: Settings, plan: list[Planned], say: Say) -> None:
        self._settings = settings
        self._plan = plan
        self._say = say
        self._rng = random.Random(f"conductor {settings.seed}")
        self.outcome = Outcome()
        settings.history.mkdir(parents=True)
        settings.logs.mkdir()
        self._history = History(settings.history)
        kind = ClusterTarget if settings.cluster else Target
        self._target = kind(settings.binary, settings.directory / "server", self.note)
        self._replacing: set[asyncio.Task[None]] = set()
        self._log = (settings.logs / "conductor.log").open("w", encoding="utf-8")
        self._began = time.monotonic()
        self._proxy = Proxy(self._target.socket) if isinstance(self._target, Target) else None

    def note(self, kind: str, since_us: int, until_us: int, **facts: Any) -> None:
        """Write a fault to the history, with the window in which it was felt."""
        line = {
            "seq": self._history.number(), "proc": "chaos", "op": "fault", "phase": "ok", "est_us": until_us,
            "wall_ns": time.time_ns(), "mono_ns": time.monotonic_ns(),
            "args": {"kind": kind, "window": [since_us, until_us], **facts},
        }  # fmt: skip
        self._history.write([line])
        if kind == "stop" and "pid" in facts:
            self.outcome.stopped.setdefault(facts["pid"], []).append((since_us, until_us))
        elif kind == "kill" and facts.get("role") in (Role.WORKER, Role.SUPERVISOR):
            self.outcome.killed[facts["pid"]] = "killed"

    async def run(self) -> Outcome:
        """Do everything; whatever happens, no process is left."""
        settings = self._settings
        (settings.directory / "server").mkdir()
        run = f"{settings.seed}-{os.getpid()}"
        async with AsyncExitStack() as stack:
            stack.callback(self._log.close)
            await self._target.start()
            stack.push_async_callback(self._target.close)
            url = self._target.url
            far = url if self._proxy is None else stack.enter_context(self._proxy).url
            self._fleet = Fleet(
                run, settings.seed, url, far, settings.history, settings.logs, self._on_death, settings.former
            )
            self._fleet.on_stop = self._on_stop
            stack.push_async_callback(self._close)
            nurse = asyncio.create_task(self._fleet.nurse())
            stack.callback(nurse.cancel)
            await self._start()
            await self._disturb()
            await self._heal()
            await self._drain()
            await self._fleet.end([m for m in self._fleet.members if m.alive], 10.0)
            await asyncio.to_thread(self._snapshot)
        self.outcome.losses = self._target.losses
        self._find_children()
        return self.outcome

    async def _close(self) -> None:
        self.outcome.strays = await self._fleet.close()
        self._history.close()

    async def _start(self) -> None:
        tame, rate = self._settings.tame, self._settings.rate
        fleet = self._fleet
        async with Wheel(self._target.url, namespace=NAMESPACE) as wheel:
            # A former version knows no shards, and claims a precise queue as any other.
            if self._settings.former is None:
                for queue, shards in SHARDS.items():
                    await wheel.create_queue(queue, shards=shards)
            await wheel.set_precise(QUEUES[0], True)
        for number in range(4):
            await fleet.worker(proxied=number % 2 == 1, tame=True)
        await fleet.worker(processes=2, tame=True)
        for number in range(3):
            await fleet.producer(rate / 3, time.time(), sync=number == 2, proxied=number == 1, tame=tame)
        await fleet.operator()
        # Each process opens its file with its first call.
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            if len(list(self._settings.history.iterdir())) > len(fleet.members):
                break
            await asyncio.sleep(0.05)
        self._tell("started")

    async def _disturb(self) -> None:
        """Let the faults of the plan happen, each at its time."""
        faults = Faults(self._target, self._proxy, self._fleet, self.note, self._happened)
        began = self._began = time.monotonic()
        under_way: set[asyncio.Task[None]] = set()
        ticker = asyncio.create_task(self._tick())
        try:
            for planned in self._plan:
                await asyncio.sleep(max(0.0, began + planned.at_s - time.monotonic()))
                task = asyncio.create_task(faults.carry_out(planned))
                under_way.add(task)
            await asyncio.sleep(max(0.0, began + self._settings.duration_s - time.monotonic()))
            faults.over = True
            if under_way:
                await asyncio.wait(under_way, timeout=30.0)
            for task in [task for task in under_way if task.done()]:
                task.result()
        finally:
            ticker.cancel()
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, ticker, return_exceptions=True)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_SAY_EVERY_S)
            workers = len(self._fleet.worker_pids())
            self._say(
                f"{time.monotonic() - self._began:5.0f} s  {self.outcome.faults.total()} faults, {workers} workers,"
                f" {sum(self.outcome.deaths.values())} processes replaced"
            )

    def _happened(self, kind: str, told: str) -> None:
        self.outcome.faults[kind] += 1
        self._tell(f"{kind} {told}")

    def _tell(self, text: str) -> None:
        self._log.write(f"{time.strftime('%H:%M:%S', time.gmtime())} {time.monotonic() - self._began:7.3f} {text}\n")
        self._log.flush()

    def _on_stop(self, pid: int, seconds: float) -> None:
        at = now_us()
        self.note("stop", at, at + int(seconds * 1e6), pid=pid, failpoint=True)
        self._happened("worker-stop", f"{pid} by itself, for {seconds:.1f} s")

    def _on_death(self, member: Member, code: int) -> None:
        how = member.fate or self._cause(member, code)
        self._tell(f"{member.name} {member.pid} ended with {code}: {how}")
        self.outcome.deaths[f"{member.role} {how}"] += 1
        if member.proxied and self._proxy is not None:
            self.outcome.proxied.add(member.pid)
        if member.fate == "term":
            self.outcome.drained.add(member.pid)
        if self._fleet.replacing and member.role in Role:
            task = asyncio.create_task(self._replace(member))
            self._replacing.add(task)
            task.add_done_callback(self._replacing.discard)

    def _find_children(self) -> None:
        """Learn from the supervisors' logs which of their children were killed by their task."""
        for path in self._settings.logs.glob("supervisor-*.log"):
            for pid in _CHILD_KILLED.findall(path.read_text(encoding="utf-8", errors="replace")):
                self.outcome.killed.setdefault(int(pid), "killed by its task")

    def _cause(self, member: Member, code: int) -> str:
        """Tell why a process ended that was not ended from here."""
        if code == -9 and "=kill" in member.failpoints:
            place = member.failpoints.partition("=")[0]
            self.outcome.failpoints[place] += 1
            self.outcome.killed[member.pid] = f"died at {place}"
            at = now_us()
            self.note("kill", at, at, pid=member.pid, role=str(member.role), failpoint=place)
            return "died at a failpoint"
        if code == -9:
            self.outcome.killed[member.pid] = "killed by its task"
            at = now_us()
            self.note("kill", at, at, pid=member.pid, role=str(member.role), task="crash")
            return "killed by its task"
        self.outcome.crashed.append(
            f"{member.name} ended with exit code {code}: {_last_line(self._settings.logs, member)}"
        )
        return f"ended with {code}"

    async def _replace(self, member: Member) -> None:
        since = time.time()
        await asyncio.sleep(self._rng.uniform(0.0, _REPLACE_WITHIN_S))
        if not self._fleet.replacing:
            return
        proxied = self._rng.random() < 0.45
        if member.role is Role.WORKER:
            await self._fleet.worker(proxied=proxied, tame=self._settings.tame)
        elif member.role is Role.SUPERVISOR:
            await self._fleet.worker(processes=2, tame=True)
        elif member.role is Role.PRODUCER:
            sync = self._rng.random() < 0.3
            await self._fleet.producer(
                self._settings.rate / 3, since, sync=sync, proxied=proxied, tame=self._settings.tame
            )
        else:
            await self._fleet.operator()

    async def _heal(self) -> None:
        """End all faults; producers and the operator go, workers that nothing is done to stay."""
        self._fleet.replacing = False
        self._tell("healing")
        for task in list(self._replacing):
            await task
        if self._proxy is not None:
            for undo in (self._proxy.thaw, self._proxy.unmute):
                await asyncio.to_thread(undo)
            self._proxy.slow(None)
            self._proxy.accept()
        await self._target.heal()
        self._fleet.wake_all()
        leaving = (Role.PRODUCER, Role.OPERATOR)
        gone = [m for m in self._fleet.members if m.alive and (m.role in leaving or m.failpoints or m.former)]
        await self._fleet.end(gone, 12.0)
        for _ in range(2):
            await self._fleet.worker(tame=True)
        async with Wheel(self._target.url, namespace=NAMESPACE, history=self._settings.history) as wheel:
            for queue in QUEUES:
                await wheel.resume(queue)
            for info in await wheel.schedules():
                await wheel.remove_schedule(info.name, info.queue)

    async def _drain(self) -> None:
        """Wait until every job has ended."""
        began = emptied = time.monotonic()
        # Jobs that the former version set aside are taken back within this time.
        still_s = 0.0 if self._settings.former is None else _ASIDE_S
        self._say("the faults are over; draining")
        async with Wheel(self._target.url, namespace=NAMESPACE) as wheel:
            while time.monotonic() - began < self._settings.drain_s:
                with suppress(ZwheelError):
                    infos = [await wheel.queue(queue) for queue in QUEUES]
                    self.outcome.rest = {
                        i.name: i.scheduled + i.processing for i in infos if i.scheduled + i.processing
                    }
                    self.outcome.rest |= {f"former shards of {i.name}": i.former for i in infos if i.former}
                    emptied = emptied if not self.outcome.rest else time.monotonic()
                    if not self.outcome.rest and time.monotonic() - emptied >= still_s:
                        self.outcome.drained_s = emptied - began
                        self._tell(f"drained in {self.outcome.drained_s:.1f} s")
                        return
                if not self._fleet.worker_pids():
                    # The jobs that kill their worker may have taken all of them.
                    await self._fleet.worker(tame=True)
                await asyncio.sleep(0.1)
        self._tell(f"not drained: {self.outcome.rest}")

    def _snapshot(self) -> None:
        store = SyncStore(self._target.url, Session(NAMESPACE))
        try:
            self._history.write(list(take_snapshot(store)))
        finally:
            store.close()


def _last_line(logs: Path, member: Member) -> str:
    lines = (logs / f"{member.name}.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
