"""`--max-rss`: before a process uses more memory than it may, another takes its place, and nothing is lost or waits."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.workers.harness import eventually, one_kind
from tests.workers.processes import worker_process
from zwheel import JobState, Wheel
from zwheel.workers import memory
from zwheel.workers.memory import Memory, rss_of

pytestmark = pytest.mark.anyio
APP = "tests.workers.leak_app:wheel"
#: What a process of this app uses before its first job is less than half of that.
CEILING = 160 << 20
LEAK = 256 << 10
JOBS = 1_500


def test_a_process_knows_its_memory_and_one_that_is_gone_has_none() -> None:
    assert 1 << 20 < rss_of(os.getpid()) < 1 << 40
    assert rss_of(2**22 + 1) == 0


@pytest.mark.skipif(
    shutil.which("ps") is None, reason="there is no ps here, and it is only asked where there is no /proc"
)
def test_without_a_proc_it_asks_ps() -> None:
    assert 0.5 < memory._by_ps(os.getpid()) / rss_of(os.getpid()) < 2
    assert memory._by_ps(2**22 + 1) == 0


def test_what_grows_is_known_to_be_over_before_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, used = [100.0], [50]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    monkeypatch.setattr(memory, "rss_of", lambda pid: used[0])
    one = Memory(1, 100)
    one.look()
    assert not one.is_over_in(1000)
    for _ in range(20):
        clock[0] += 0.5
        used[0] += 1  # 2 a second
        one.look()
    assert used[0] == 70
    assert not one.is_over
    assert not one.is_over_in(14.9)
    assert one.is_over_in(15)
    # It grew faster in the last half second.
    clock[0] += 0.4
    used[0] += 10
    one.look()
    assert one.is_over_in(1.1)
    # It grows no more: what it did long ago says nothing.
    for _ in range(20):
        clock[0] += 0.5
        one.look()
    assert not one.is_over_in(1000)
    used[0] = 100
    one.look()
    assert one.is_over


@one_kind
@pytest.mark.timeout(300)
async def test_another_process_is_ready_before_the_old_one_goes_and_no_job_is_lost(
    wheel: Wheel, url: str, tmp_path: Path
) -> None:
    options = "--max-rss", "160M", "--concurrency", "4", "--prefetch", "0"
    async with worker_process(url, tmp_path / "s", *options, app=APP) as supervisor:
        await supervisor.ready(1)
        highest: dict[int, int] = {}
        over = asyncio.Event()

        async def watch() -> None:
            while not over.is_set():
                for line in [line for line in supervisor.lines if "worker process" in line and "started" in line]:
                    pid = int(line.split("worker process ")[1].split()[0])
                    highest[pid] = max(highest.get(pid, 0), rss_of(pid))
                await asyncio.sleep(0.02)

        watching = asyncio.create_task(watch())
        made = await wheel.enqueue_many(wheel.new_job("leak", args=[LEAK], keep=3600, retries=0) for _ in range(JOBS))
        await eventually(lambda: wheel.count("default", JobState.DONE), lambda done: done == JOBS, within=240)
        over.set()
        await watching
        assert len(highest) >= 3
        # A machine that is busy with other things looks late.
        assert max(highest.values()) < 1.15 * CEILING, highest
        # Nobody was left without a worker: each place was taken by one that claimed jobs already.
        assert await wheel.count("default", JobState.DEAD) == 0
        assert len({job.job_id for job in made}) == JOBS
        supervisor.signal(signal.SIGTERM)
        assert await supervisor.ended() == 0


@one_kind
async def test_a_ceiling_that_a_fresh_process_exceeds_is_said_and_the_work_goes_on(
    wheel: Wheel, url: str, tmp_path: Path
) -> None:
    async with worker_process(
        url, tmp_path / "s", "--max-rss", "64M", app="tests.workers.heavy_app:wheel"
    ) as supervisor:
        await supervisor.ready(1)
        (line,) = await supervisor.says("when it has just started, more than --max-rss: give it more")
        assert "MiB" in line
        job = await wheel.enqueue("light", keep=60)
        assert (await wheel.wait(job.job_id, timeout=60)).state is JobState.DONE
        supervisor.signal(signal.SIGTERM)
        assert await supervisor.ended() == 0


@pytest.mark.parametrize("text", ["0", "-1", "lots", "1M", "12XB", ""])
async def test_a_ceiling_that_makes_no_sense_is_refused(text: str, url: str, tmp_path: Path) -> None:
    async with worker_process(url, tmp_path / "s", f"--max-rss={text}", app=APP, wait=False) as supervisor:
        assert await supervisor.ended() == 2
        await supervisor.says("--max-rss")
