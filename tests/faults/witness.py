"""A worker in the test's own process that has contact with Redis and no room, until the test gives it some.

With it there is no gap in which no worker reached Redis, and so no grace period: what comes back after a death comes
back in the promised time. The times that are compared are all the server's: a token is the µs of its claim.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from tests.endings import bury
from tests.workers.harness import Log, eventually, running
from tests.workers.processes import ROOT
from zwheel import CurrentJob, Job, JobState, Wheel, calls, current_job
from zwheel.broker.store import SyncStore
from zwheel.calls import Session
from zwheel.times import day_of

LEASE_MS, REAP_MS, POLL_MS = 600, 100, 1000
#: What a machine that is busy with other things may take on top of a promised time, ms.
BUSY_MS = 4000


class Witness:
    """What it ran, and its room."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.runs: list[CurrentJob] = []
        self._gate = asyncio.Event()

    def free(self) -> None:
        """Let it claim from now on."""
        self._gate.set()

    def note(self) -> None:
        self.runs.append(current_job())

    def came_back_in_time(self, lease_until_ms: int | None, run: CurrentJob) -> bool:
        """Whether a claim began after the lease ran out, and not later than promised."""
        assert lease_until_ms is not None
        return lease_until_ms <= run.token // 1000 <= lease_until_ms + REAP_MS + POLL_MS + BUSY_MS


@asynccontextmanager
async def witness(wheel: Wheel, **settings: Any) -> AsyncIterator[Witness]:
    """Run it while the block lasts. It knows the tasks `play`, `pass`, `pay`, `fail` and `doom`, and notes their runs."""
    made = Witness(Log())

    @wheel.task(name="gate")
    async def gate() -> None:
        await made._gate.wait()

    for name in ("play", "pass", "fail", "doom"):

        @wheel.task(name=name, keep=60)
        async def note(text: str) -> None:
            made.note()

    chosen = {"lease_ms": LEASE_MS, "reap_ms": REAP_MS, "concurrency": 1, "prefetch": 0, **settings}
    place = await wheel.enqueue("gate")
    async with running(wheel, made.log, **chosen):
        await made.log.seen("start", place.job_id)
        yield made


async def found(wheel: Wheel, job_id: str) -> Job:
    """Read a job that must be there."""
    job = await wheel.get(job_id, "default")
    assert job is not None
    return job


async def in_state(wheel: Wheel, job_id: str, state: JobState, within: float = 15.0) -> Job:
    """Wait until a job is in a state."""
    return await eventually(lambda: found(wheel, job_id), lambda job: job.state is state, within)


async def server_ms(wheel: Wheel) -> int:
    """The server's clock."""
    ((seconds, us),) = await wheel._connect().store.send([("TIME",)])
    return int(seconds) * 1000 + int(us) // 1000


async def lapsed(wheel: Wheel, job_id: str) -> Job:
    """Wait until the lease of a job has run out."""
    job = await found(wheel, job_id)
    until = job.lease_until_ms
    assert until is not None
    await eventually(lambda: server_ms(wheel), lambda now: now > until)
    return job


async def python(*words: str, code: str = "", **environment: str) -> tuple[int, str]:
    """Run `python -m words` or a piece of code to its end; its exit code and what it wrote."""
    command = ["-c", code, *words] if code else ["-m", *words]
    child = await asyncio.create_subprocess_exec(
        sys.executable, *command, cwd=ROOT, env=_environment(environment), stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        async with asyncio.timeout(40):
            output, _ = await child.communicate()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    assert child.returncode is not None
    return child.returncode, output.decode(errors="replace")


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    return {**os.environ, **more}


def bury_all(url: str, count: int, queue: str = "default") -> None:
    """Claim every job of a queue that is due and bury it, a thousand at a time."""
    store = SyncStore(url, Session("zw", caller="gravedig"))
    keys = store.session.keys(queue)
    why = b'{"at":1900000000000,"attempt":1,"reason":"error","kind":"ValueError"}\n'
    day = ""
    for _ in range(count // 1000 + 2):
        ((seconds, _us),) = store.send([("TIME",)])
        with store.session.lane() as lane:
            day = day or day_of(int(seconds) * 1000)
            (reply,) = store.send(
                [calls.claim(keys, day=day, worker="gravedig", lease_ms=60_000, limit=1000, lane=lane)]
            )
        claimed = calls.read_claim(reply)
        day = claimed.day
        graves = [(claimed.jobs[i], claimed.jobs[i + 1][21:37], why) for i in range(0, len(claimed.jobs), 2)]
        if graves:
            with store.session.lane() as lane:
                store.send([bury(keys, graves, most_dead=count, lane=lane)])
    store.close()
