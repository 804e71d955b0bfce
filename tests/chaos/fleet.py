"""The processes of a run: workers, producers, the operator. Each is started again when it ended before its time."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from .app import QUEUES

ROOT = Path(__file__).parent.parent.parent
#: In the environment of every process of a run, children of children included.
MARK = "ZWHEEL_CHAOS_RUN"
LEASE_S = 2.0
REAP_S = 0.5
#: The places where a worker may be made to die, and how often one is passed before, at the most.
_PLACES = {
    "claim": 80, "complete": 80, "retry": 15, "bury": 8, "release": 2, "extend": 20, "reap": 10, "handler": 300,
    "advance": 10,
}  # fmt: skip


class Role(StrEnum):
    """What a process of a run is."""

    WORKER = "worker"
    SUPERVISOR = "supervisor"
    PRODUCER = "producer"
    OPERATOR = "operator"


@dataclass(slots=True)
class Member:
    """One process that the run started."""

    name: str
    role: Role
    process: asyncio.subprocess.Process
    proxied: bool
    failpoints: str = ""
    former: bool = False
    #: What was done to it to end it; '' when nothing was.
    fate: str = ""
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self.process.returncode is None


OnDeath = Callable[[Member, int], None]


class Fleet:
    """Starts, kills and replaces processes. It signals only processes that it started, and their children."""

    def __init__(
        self, run: str, seed: int, direct_url: str, proxy_url: str, history: Path, logs: Path, on_death: OnDeath,
        former: Path | None = None,
    ) -> None:  # fmt: skip
        self.run = run
        self.members: list[Member] = []
        self._rng = random.Random(f"fleet {seed}")
        self._seed = seed
        self._urls = (direct_url, proxy_url)
        self._logs = logs
        self._on_death = on_death
        self._former = former
        self._numbers = 0
        self._watchers: set[asyncio.Task[None]] = set()
        #: Whether what dies is started again.
        self.replacing = True
        #: Pids that are stopped by SIGSTOP, and when they may go on, monotonic seconds.
        self._stopped: dict[int, float] = {}
        #: Called for a process that stopped itself: its pid, and for how long it stays stopped, seconds.
        self.on_stop: Callable[[int, float], None] = lambda pid, seconds: None
        self._environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("ZWHEEL_", "REDIS_", "COV"))},
            MARK: run,
            "ZWHEEL_CHAOS_PARENT": str(os.getpid()),
            "ZWHEEL_HISTORY": str(history),
            "PYTHONUNBUFFERED": "1",
        }

    def alive(self, role: Role) -> list[Member]:
        """The living members of a role."""
        return [member for member in self.members if member.role is role and member.alive]

    async def worker(self, *, processes: int = 1, proxied: bool = False, tame: bool = False) -> Member:
        """Start a worker, or a supervisor of several. tame: nothing in it is made to fail."""
        armed = "" if tame or processes > 1 or self._rng.random() < 0.45 else self._failpoints()
        words = ["worker", "tests.chaos.app:wheel", *(word for queue in QUEUES for word in ("--queue", queue))]
        words += ["--lease", f"{LEASE_S * 1000:.0f}ms", "--reap", f"{REAP_S * 1000:.0f}ms", "--drain", "2s"]
        words += ["--concurrency", str(self._rng.choice((10, 40, 80))), "--unknown-ttl", "3s", "--log-level", "warning"]
        words += ["--processes", str(processes)] if processes > 1 else []
        role = Role.WORKER if processes == 1 else Role.SUPERVISOR
        return await self._start(role, ["zwheel.cli", *words], proxied=proxied, failpoints=armed)

    async def producer(
        self, rate: float, since: float, *, sync: bool = False, proxied: bool = False, tame: bool = False
    ) -> Member:
        """Start a producer of `rate` jobs a second, counted from `since`, seconds since the epoch."""
        self._numbers += 1
        seed = self._seed * 1000 + self._numbers
        words = ["tests.chaos.producer", str(seed), str(rate), self.run, str(since), *(["--sync"] if sync else [])]
        armed = ""
        if not tame and self._rng.random() < 0.4:
            side = self._rng.choice(("before", "after"))
            action = self._rng.choice(("kill", "lose", "lose"))
            armed = f"enqueue.{side}={action}@{self._rng.randrange(1, 400)}"
        return await self._start(Role.PRODUCER, words, proxied=proxied, failpoints=armed)

    async def operator(self) -> Member:
        """Start the operator."""
        self._numbers += 1
        return await self._start(Role.OPERATOR, ["tests.chaos.operate", str(self._seed * 1000 + self._numbers)])

    async def _start(self, role: Role, words: list[str], *, proxied: bool = False, failpoints: str = "") -> Member:
        # Every second process that runs or makes jobs is of the former version, where there is one, until all is healed.
        mixed = self.replacing and len(self.members) % 2 and role is not Role.OPERATOR
        former = self._former if mixed else None
        name = f"{role}-{len(self.members):03d}{'-former' * (former is not None)}"
        environment = {**self._environment, "ZWHEEL_URL": self._urls[proxied]}
        if failpoints:
            environment["ZWHEEL_FAILPOINTS"] = failpoints
        with (self._logs / f"{name}.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.chaos.leash", *words),
                cwd=former or ROOT, env=environment, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        member = Member(name, role, process, proxied, failpoints, former=former is not None)
        self.members.append(member)
        watcher = asyncio.create_task(self._watch(member))
        self._watchers.add(watcher)
        watcher.add_done_callback(self._watchers.discard)
        return member

    async def _watch(self, member: Member) -> None:
        code = await member.process.wait()
        member.ended.set()
        self._on_death(member, code)

    def _failpoints(self) -> str:
        place = self._rng.choice(sorted(_PLACES))
        side = self._rng.choice(("before", "after"))
        actions = ("kill", "stop") if place == "handler" else ("kill", "kill", "lose", "stop")
        return f"{place}.{side}={self._rng.choice(actions)}@{self._rng.randrange(1, _PLACES[place] + 1)}"

    def worker_pids(self) -> list[tuple[int, Member]]:
        """Every process that runs jobs: workers, and the children of supervisors."""
        found = [(member.pid, member) for member in self.alive(Role.WORKER)]
        supervisors = {member.pid: member for member in self.alive(Role.SUPERVISOR)}
        found += [(pid, supervisors[parent]) for pid, parent in _parents() if parent in supervisors]
        return found

    def stop_for(self, pid: int, seconds: float) -> None:
        """Stop a process, and let it go on after that time."""
        self._stopped[pid] = time.monotonic() + seconds
        _signal(pid, signal.SIGSTOP)

    async def nurse(self) -> None:
        """Let stopped processes go on in time, also processes that stopped themselves."""
        while True:
            now = time.monotonic()
            for pid, _ in self.worker_pids():
                if _state(pid) == "T" and pid not in self._stopped:
                    seconds = self._rng.uniform(1, 3) * LEASE_S
                    self._stopped[pid] = now + seconds
                    self.on_stop(pid, seconds)
            for pid, until in list(self._stopped.items()):
                if until <= now:
                    del self._stopped[pid]
                    _signal(pid, signal.SIGCONT)
            await asyncio.sleep(0.1)

    def wake_all(self) -> None:
        """Let every process go on."""
        self._stopped.clear()
        for pid in self.marked():
            if _state(pid) == "T":
                _signal(pid, signal.SIGCONT)

    async def end(self, members: list[Member], within_s: float) -> list[Member]:
        """Ask processes to end, and kill the others. Returns the killed ones."""
        for member in members:
            member.fate = member.fate or "term"
            if member.alive:
                _signal(member.pid, signal.SIGTERM)
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                for member in members:
                    await member.ended.wait()
        late = [member for member in members if member.alive]
        for member in late:
            _signal(member.pid, signal.SIGKILL)
        for member in late:
            await member.ended.wait()
        return late

    def marked(self) -> list[int]:
        """Every living process of this run but the one that conducts it, by the mark in its environment."""
        mark = f"{MARK}={self.run}".encode()
        found = []
        for pid in _pids():
            with suppress(OSError):
                if pid != os.getpid() and mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    found.append(pid)
        return found

    async def close(self) -> list[int]:
        """Kill whatever is left. Returns the pids that were, but for members of the fleet."""
        self.replacing = False
        for member in self.members:
            if member.alive:
                member.fate = member.fate or "close"
                _signal(member.pid, signal.SIGKILL)
                await member.process.wait()
        left = self.marked()
        deadline = time.monotonic() + 5.0
        while (pids := self.marked()) and time.monotonic() < deadline:
            # Children of supervisors drain by themselves, keepers end with their workers: both are quick.
            if time.monotonic() > deadline - 3.0:
                for pid in pids:
                    _signal(pid, signal.SIGKILL)
            await asyncio.sleep(0.05)
        for watcher in list(self._watchers):
            await watcher
        return left


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _pids() -> Iterator[int]:
    return (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())


def _stat(pid: int) -> list[str]:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    return []


def _state(pid: int) -> str:
    stat = _stat(pid)
    return stat[0] if stat else ""


def _parents() -> Iterator[tuple[int, int]]:
    for pid in _pids():
        stat = _stat(pid)
        if stat and stat[0] != "Z":
            yield pid, int(stat[1])
