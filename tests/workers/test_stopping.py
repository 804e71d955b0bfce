"""Signals that reach the whole unit, tasks that do not want to end, and a worker that is the first process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.workers.harness import eventually, one_kind
from tests.workers.processes import worker_process
from tests.workers.stage import Stage
from zwheel import JobState, Wheel

pytestmark = [pytest.mark.anyio, one_kind]
APP = "tests.workers.stop_app:wheel"
#: How long the second asking may take, as promised.
AT_ONCE_S = 10.0


@pytest.fixture
async def stage(tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> AsyncIterator[Stage]:
    async with Stage(tmp_path_factory.mktemp("s") / "stage") as made:
        yield made


def family(pid: int) -> list[int]:
    """A process and all below it, parents before their children, read from /proc."""
    below = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(OSError):
            for child in (task / "children").read_text(encoding="ascii").split():
                below += family(int(child))
    return list(dict.fromkeys([pid, *below]))


def signal_all(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


@pytest.fixture
def hangs_up() -> Iterator[None]:
    """What is started takes SIGHUP as usual, also where these tests themselves run under nohup."""
    before = signal.signal(signal.SIGHUP, lambda *_: None)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hangs_up")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_signal_to_every_process_of_the_unit_drains(
    wheel: Wheel, stage: Stage, url: str, number: signal.Signals
) -> None:
    async with worker_process(url, stage.path, "-p", "2", "-c", "1", drain="60s") as unit:
        await unit.ready(2)
        answers = [await wheel.enqueue("play", args=[f"held {n}"], keep=60) for n in range(2)]
        held = [await stage.nth(1), await stage.nth(2)]
        everyone = family(unit.pid)
        assert len(everyone) >= 5, "the supervisor, two workers and their keepers"
        signal_all(everyone, number)
        await unit.says("draining", count=2)
        assert [line for line in unit.lines if "at once" in line.partition(";")[0]] == []
        for actor in held:
            actor.go()
        assert await unit.ended() == 0
        for answer in answers:
            job = await wheel.wait(answer.job_id, timeout=2)
            assert (job.state, job.attempt) == (JobState.DONE, 1)


async def test_a_second_signal_to_every_process_of_the_unit_gives_back_at_once(
    wheel: Wheel, stage: Stage, url: str
) -> None:
    async with worker_process(url, stage.path, "-p", "2", "-c", "1", drain="60s") as unit:
        await unit.ready(2)
        answers = [await wheel.enqueue("play", args=[f"held {n}"], keep=60) for n in range(2)]
        await stage.nth(2)
        everyone = family(unit.pid)
        signal_all(everyone, signal.SIGTERM)
        await unit.says("draining", count=2)
        signal_all(everyone, signal.SIGTERM)
        assert await unit.ended(within=8) == 0
        jobs = [await wheel.get(answer.job_id) for answer in answers]
    assert [(job.state, job.attempt) for job in jobs if job is not None] == [(JobState.SCHEDULED, 0)] * 2


@pytest.mark.usefixtures("hangs_up")
async def test_a_terminal_that_closes_drains_however_often_it_says_so(wheel: Wheel, stage: Stage, url: str) -> None:
    async with worker_process(url, stage.path, drain="60s") as worker:
        answer = await wheel.enqueue("play", args=["held"], keep=60)
        held = await stage.nth(1)
        worker.signal(signal.SIGHUP)
        await worker.says("SIGHUP: draining")
        worker.signal(signal.SIGHUP)
        worker.signal(signal.SIGCONT)
        held.go()
        assert await worker.ended() == 0
        assert [line for line in worker.lines if "stopping at once" in line] == []
        job = await wheel.wait(answer.job_id, timeout=2)
        assert (job.state, job.attempt) == (JobState.DONE, 1)


async def test_a_worker_below_nohup_outlives_its_terminal(wheel: Wheel, stage: Stage, url: str) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        async with worker_process(url, stage.path) as worker:
            await worker.ready()
            signal_all(family(worker.pid), signal.SIGHUP)
            answer = await wheel.enqueue("play", args=["held"], keep=60)
            (await stage.nth(1)).go()
            assert (await wheel.wait(answer.job_id, timeout=10)).state is JobState.DONE
            worker.signal(signal.SIGTERM)
            assert await worker.ended() == 0
            assert [line for line in worker.lines if "SIGHUP" in line] == []
    finally:
        signal.signal(signal.SIGHUP, before)


async def test_one_child_of_a_supervisor_can_be_drained_by_itself(wheel: Wheel, stage: Stage, url: str) -> None:
    async with worker_process(url, stage.path, "-p", "2", "-c", "1") as unit:
        await unit.ready(2)
        first, _ = await unit.children(2)
        os.kill(first, signal.SIGTERM)
        await unit.says(f"worker process {first} ended: exit code 0")
        await unit.ready(3)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["swallows", "blocks", "hogs"])
async def test_a_second_signal_ends_the_worker_whatever_its_task_does(
    wheel: Wheel, stage: Stage, url: str, task: str
) -> None:
    # A lease that outlasts the test: what is shown is the end of the process, not that of the lease.
    async with worker_process(url, stage.path, app=APP, drain="60s", lease="60s") as worker:
        await wheel.enqueue(task, args=["pass"])
        await stage.nth(1)
        worker.signal(signal.SIGTERM)
        if task == "swallows":
            await worker.says("draining")
        else:
            # Nobody can say so: the two must only not arrive as one, which signals that wait in the kernel do.
            await asyncio.sleep(0.2)
        worker.signal(signal.SIGTERM)
        began = time.monotonic()
        assert await worker.ended(within=AT_ONCE_S + 5) != 0
        assert time.monotonic() - began < AT_ONCE_S + 1


async def test_what_a_task_leaves_in_the_background_does_not_keep_the_worker(
    wheel: Wheel, stage: Stage, url: str
) -> None:
    async with worker_process(url, stage.path, app=APP, drain="60s") as worker:
        for task in ("leaves", "leaves_thread"):
            answer = await wheel.enqueue(task, keep=60)
            assert (await wheel.wait(answer.job_id, timeout=10)).state is JobState.DONE
        worker.signal(signal.SIGTERM)
        assert await worker.ended() == 0, "every job has ended well"
        await worker.says("some-library")
        await worker.says("left-behind")


async def test_a_function_in_a_thread_that_ends_just_after_the_drain_has_ended(
    wheel: Wheel, stage: Stage, url: str
) -> None:
    async with worker_process(url, stage.path, app=APP, drain="0s") as worker:
        back = await wheel.enqueue("tells", args=["held"], keep=60)
        await stage.nth(1)
        ends = await wheel.enqueue("ends_then", args=["ends"], keep=60)
        await stage.nth(2)
        worker.signal(signal.SIGTERM)
        assert await worker.ended() == 0
        (line,) = await worker.says("giving back")
        jobs = [await wheel.get(answer.job_id) for answer in (back, ends)]
    assert [(job.state, job.attempt) for job in jobs if job is not None] == [
        (JobState.SCHEDULED, 0),
        (JobState.DONE, 1),
    ]
    assert line.endswith(f"giving back what still runs: 1 job: {back.job_id}")


UNSHARE = shutil.which("unshare")
_NEW = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]


@pytest.fixture
def first_process() -> list[str]:
    """The words that make a command the first process of a namespace of its own."""
    if UNSHARE is None or subprocess.run([*_NEW, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no process here may make a namespace of process ids")
    return _NEW


SLOW_APP = """
import os, time
print("importing as", os.getpid(), flush=True)
time.sleep(3600)
"""

ORPHANS = """
import os, subprocess, time
from zwheel import Wheel
wheel = Wheel(namespace="zw")
@wheel.task(name="orphans", keep=60)
def orphans() -> None:
    for _ in range(5):
        subprocess.run(["sh", "-c", "sh -c 'exit 0' & exit 3"], check=False)
    assert subprocess.run(["sh", "-c", "exit 7"]).returncode == 7
    end = time.monotonic() + 20
    while True:
        states = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                states.append(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0])
            except OSError:
                continue
        if "Z" not in states:
            return
        assert time.monotonic() < end, states
        time.sleep(0.02)
"""


async def test_the_first_process_of_a_container_can_be_ended_while_it_imports(
    first_process: list[str], url: str, tmp_path: Path
) -> None:
    (tmp_path / "slow_app.py").write_text(SLOW_APP)
    child = await asyncio.create_subprocess_exec(
        *first_process, sys.executable, "-m", "zwheel.cli", "worker", "slow_app:wheel",
        cwd=tmp_path, env={**os.environ, "ZWHEEL_URL": url}, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert child.stdout is not None
    async with asyncio.timeout(20):
        line = await child.stdout.readline()
        assert line.startswith(b"importing"), line
        init = family(child.pid)[1]
        os.kill(init, signal.SIGTERM)
        assert await child.wait() == 128 + signal.SIGTERM


async def test_a_worker_that_is_the_first_process_collects_orphans_and_drains(
    first_process: list[str], wheel: Wheel, stage: Stage, url: str, tmp_path: Path
) -> None:
    (tmp_path / "orphan_app.py").write_text(ORPHANS)
    child = await asyncio.create_subprocess_exec(
        *first_process, sys.executable, "-m", "zwheel.cli", "worker", "orphan_app:wheel",
        cwd=tmp_path, env={**os.environ, "ZWHEEL_URL": url}, stdin=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        answer = await wheel.enqueue("orphans", retries=0, keep=60)
        job = await wheel.wait(answer.job_id, timeout=40)
        assert (job.state, job.failures) == (JobState.DONE, ())
        os.kill(family(child.pid)[1], signal.SIGTERM)
        async with asyncio.timeout(20):
            assert await child.wait() == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
    assert await eventually(wheel.workers, lambda found: not found) == []
