"""Carries out the faults of a plan."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress

from tests.proxy import Fault, Proxy

from .cluster import ClusterTarget
from .fleet import LEASE_S, Fleet, Member, Role
from .plan import Planned, Where
from .server import Note, Target, now_us

#: What a worker asks for most, and so what is lost on the way most.
_SCRIPTS = ("claim", "complete", "retry", "extend", "reap", "enqueue", "bury")


Act = Callable[[random.Random], Awaitable[str | None]]


class Faults:
    """Everything that can be done to a run. Faults of the server, and those of the network, wait for each other."""

    def __init__(
        self,
        target: Target | ClusterTarget,
        proxy: Proxy | None,
        fleet: Fleet,
        note: Note,
        said: Callable[[str, str], None],
    ) -> None:
        """proxy: what half of the processes reach the server through, if there is one.

        said: called for each fault that was carried out, with its kind and how it went.
        """
        self._fleet = fleet
        self._note = note
        self._said = said
        #: Whether what has not begun is let be.
        self.over = False
        self._locks = {Where.SERVER: asyncio.Lock(), Where.NETWORK: asyncio.Lock(), Where.PROCESS: None}
        self._acts: dict[str, Act] = {
            "worker-kill": self._kill_worker,
            "worker-stop": self._stop_worker,
            "worker-drain": lambda rng: self._drain_worker(rng, 1),
            "worker-abort": lambda rng: self._drain_worker(rng, 2),
            "supervisor-kill": lambda rng: self._kill(rng, Role.SUPERVISOR),
            "producer-kill": lambda rng: self._kill(rng, Role.PRODUCER),
            "operator-kill": lambda rng: self._kill(rng, Role.OPERATOR),
            **target.acts(),
            **({} if proxy is None else self._of_network(proxy)),
        }

    def _of_network(self, proxy: Proxy) -> dict[str, Act]:
        return {
            "net-cut": lambda rng: self._cut(proxy),
            "net-lost-request": lambda rng: self._lose(proxy, rng, Fault.BEFORE),
            "net-lost-reply": lambda rng: self._lose(proxy, rng, Fault.AFTER),
            "net-half-reply": lambda rng: self._lose(proxy, rng, Fault.MIDDLE),
            "net-refuse": lambda rng: self._while(rng.uniform(0.2, 3.0) * LEASE_S, proxy.refuse, proxy.accept),
            "net-slow": lambda rng: self._slow(proxy, rng),
            "net-one-way": lambda rng: self._while(rng.uniform(0.1, 3.0) * LEASE_S, proxy.mute, proxy.unmute),
            "net-freeze": lambda rng: self._while(rng.uniform(0.1, 3.0) * LEASE_S, proxy.freeze, proxy.thaw),
        }

    async def carry_out(self, planned: Planned) -> None:
        """Do one of them; it is said when it could be done."""
        act = self._acts[planned.kind.name]
        lock = self._locks[planned.kind.where]
        if lock is None:
            told = await act(random.Random(planned.seed))
        else:
            async with lock:
                told = None if self.over else await act(random.Random(planned.seed))
        if told is not None:
            self._said(planned.kind.name, told)

    async def _kill_worker(self, rng: random.Random) -> str | None:
        found = self._fleet.worker_pids()
        if not found:
            return None
        pid, member = rng.choice(found)
        if pid == member.pid:
            member.fate = "kill"
        self._signal(pid, signal.SIGKILL, "kill", member)
        return f"{member.name} {pid}"

    async def _stop_worker(self, rng: random.Random) -> str | None:
        found = self._fleet.worker_pids()
        if not found:
            return None
        pid, member = rng.choice(found)
        # Most wake up about when their jobs run elsewhere: after a lease and a reap interval.
        seconds = rng.choice((rng.uniform(1.0, 1.6), rng.uniform(1.0, 1.6), rng.uniform(1.0, 3.0))) * LEASE_S
        self._fleet.stop_for(pid, seconds)
        began = now_us()
        self._note("stop", began, began + int(seconds * 1e6), pid=pid, role=str(member.role))
        return f"{member.name} {pid} for {seconds:.1f} s"

    async def _drain_worker(self, rng: random.Random, times: int) -> str | None:
        found = self._fleet.alive(Role.WORKER)
        if not found:
            return None
        member = rng.choice(found)
        member.fate = "term"
        for _ in range(times):
            self._signal(member.pid, signal.SIGTERM, "term", member)
            await asyncio.sleep(0.05)
        return member.name

    async def _kill(self, rng: random.Random, role: Role) -> str | None:
        found = self._fleet.alive(role)
        if not found:
            return None
        member = rng.choice(found)
        member.fate = "kill"
        self._signal(member.pid, signal.SIGKILL, "kill", member)
        return f"{member.name} {member.pid}"

    def _signal(self, pid: int, number: signal.Signals, kind: str, member: Member) -> None:
        at = now_us()
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        self._note(kind, at, at, pid=pid, role=str(member.role))

    async def _cut(self, proxy: Proxy) -> str:
        at = now_us()
        await asyncio.to_thread(proxy.cut)
        self._note("net_cut", at, at)
        return ""

    async def _lose(self, proxy: Proxy, rng: random.Random, fault: Fault) -> str | None:
        name, times = rng.choice(_SCRIPTS), rng.randrange(1, 3)
        at = now_us()
        done = proxy.arm(fault, name, times=times)
        met = await asyncio.to_thread(done.wait, 1.0)
        self._note(f"net_{fault.name.lower()}", at, now_us(), script=name)
        return f"{times} × {name}" if met else None

    async def _slow(self, proxy: Proxy, rng: random.Random) -> str:
        longest, dice = rng.uniform(0.05, 0.4), random.Random(rng.random())
        return await self._while(
            rng.uniform(1.0, 4.0),
            lambda: proxy.slow(lambda: dice.uniform(0, longest)),
            lambda: proxy.slow(None),
        )

    async def _while(self, seconds: float, begin: Callable[[], None], end: Callable[[], None]) -> str:
        began = now_us()
        await asyncio.to_thread(begin)
        try:
            await asyncio.sleep(seconds)
        finally:
            await asyncio.to_thread(end)
        self._note("net_down", began, now_us())
        return f"for {seconds:.1f} s"
