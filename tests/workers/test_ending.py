"""A worker that ends by itself: `burst` and `max_jobs`."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.workers.harness import Log, eventually, one_kind, running
from zwheel import JobState, Retry, Wheel, current_job
from zwheel.workers import Worker, WorkerSettings

pytestmark = [pytest.mark.anyio, one_kind]
WITHIN_S = 30.0
#: What a busy machine may add to a start, ms.
BUSY_MS = 2_500


async def ends(wheel: Wheel, **settings: Any) -> Log:
    """Run a worker until it ends by itself."""
    log = Log()
    worker = Worker(wheel, WorkerSettings(**{"lease_ms": 3_000, **settings}), observer=log)
    async with asyncio.timeout(WITHIN_S):
        await worker.run()
    return log


async def states(wheel: Wheel, queue: str = "default") -> dict[str, int]:
    info = await wheel.queue(queue)
    return {"scheduled": info.scheduled, "running": info.processing, "dead": info.dead}


async def test_a_burst_runs_what_is_due_with_what_that_makes_due_and_leaves_the_rest(wheel: Wheel) -> None:
    ran: list[str] = []

    @wheel.task(name="first", retries=3)
    async def first(name: str) -> None:
        ran.append(name)
        if name == "parent":
            await wheel.enqueue("first", args=["child"])
        if name == "again" and current_job().attempt == 1:
            raise Retry("once more", delay=0)

    for name in ("parent", "again", "plain"):
        await wheel.enqueue("first", args=[name])
    later = await wheel.enqueue("first", args=["later"], delay=3600)
    await ends(wheel, burst=True)
    assert sorted(ran) == ["again", "again", "child", "parent", "plain"]
    left = await wheel.get(later.job_id)
    assert left is not None
    assert left.state is JobState.SCHEDULED


async def test_a_burst_serves_all_shards_and_all_queues(wheel: Wheel) -> None:
    ran: list[int] = []
    await wheel.create_queue("many", shards=6)

    @wheel.task(name="count", queue="many")
    async def count(n: int) -> None:
        await asyncio.sleep(0.01)
        ran.append(n)

    await wheel.enqueue_many(count.job(n) for n in range(200))
    await wheel.enqueue("count", args=[200], queue="other")
    await ends(wheel, burst=True, queues=("many", "other"), concurrency=3)
    assert sorted(ran) == list(range(201))


async def test_a_burst_with_nothing_to_do_ends_at_once_also_where_the_queue_is_paused(wheel: Wheel) -> None:
    await ends(wheel, burst=True)

    @wheel.task(name="quick")
    async def quick() -> None:
        raise AssertionError("its queue is paused")

    await wheel.enqueue("quick")
    await wheel.pause("default")
    await ends(wheel, burst=True)
    assert (await states(wheel))["scheduled"] == 1


@pytest.mark.parametrize(("concurrency", "prefetch"), [(1, 0), (4, 0), (100, 200)])
async def test_a_worker_takes_no_more_jobs_than_it_may(wheel: Wheel, concurrency: int, prefetch: int) -> None:
    ran: list[int] = []

    @wheel.task(name="count")
    async def count(n: int) -> None:
        ran.append(n)

    await wheel.enqueue_many(wheel.new_job("count", args=[n]) for n in range(50))
    log = await ends(wheel, max_jobs=7, concurrency=concurrency, prefetch=prefetch)
    assert (len(ran), len(log.of("start"))) == (7, 7)
    assert await states(wheel) == {"scheduled": 43, "running": 0, "dead": 0}


async def test_others_take_over_from_a_worker_that_took_its_jobs(wheel: Wheel, log: Log) -> None:
    gate, started = asyncio.Event(), asyncio.Event()

    @wheel.task(name="hold")
    async def hold() -> None:
        started.set()
        await gate.wait()

    @wheel.task(name="quick")
    async def quick() -> None:
        pass

    ending = asyncio.create_task(ends(wheel, max_jobs=1, lease_ms=30_000))
    held = await wheel.enqueue("hold")
    async with asyncio.timeout(WITHIN_S):
        await started.wait()
    async with running(wheel, log, lease_ms=30_000):
        soon = await wheel.enqueue("quick", delay=0.5)
        start = await log.seen("start", soon.job_id)
        assert start["token"] / 1000 - soon.fire_at_ms < BUSY_MS
        gate.set()
        await ending
    assert await wheel.get(held.job_id) is None


APP = """
import os
from zwheel import Wheel
wheel = Wheel(namespace="zw")

@wheel.task(name="note")
async def note(n: int) -> None:
    with open(os.environ["NOTES"], "a") as notes:
        notes.write(f"{n} {os.getpid()}\\n")
"""


def noted(place: Path) -> int:
    """How many jobs have run there."""
    notes = place / "notes"
    return len(notes.read_text().splitlines()) if notes.exists() else 0


async def command(url: str, place: Path, *words: str, ends: Callable[[], bool] | None = None) -> tuple[int, str]:
    """Run `zwheel worker`, until it ends or, with `ends`, until that is so. Returns its exit code and its log."""
    (place / "noted.py").write_text(APP)
    env = {
        **os.environ,
        "ZWHEEL_URL": url,
        "NOTES": str(place / "notes"),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(place), os.environ.get("PYTHONPATH")))),
    }
    line = [sys.executable, "-m", "zwheel.cli", "worker", "noted:wheel", *words]
    process = await asyncio.create_subprocess_exec(
        *line, env=env, cwd=place, stderr=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL
    )
    async with asyncio.timeout(60):
        if ends is not None:
            await eventually(lambda: asyncio.sleep(0, ends()), bool, within=50)
            process.terminate()
        _, told = await process.communicate()
    return process.returncode or 0, told.decode()


@pytest.mark.slow
async def test_a_burst_of_several_processes_ends_when_all_of_them_have(wheel: Wheel, url: str, tmp_path: Path) -> None:
    await wheel.enqueue_many(wheel.new_job("note", args=[n]) for n in range(300))
    code, told = await command(url, tmp_path, "--burst", "--processes", "2")
    noted = [line.split()[0] for line in (tmp_path / "notes").read_text().splitlines()]
    assert (code, sorted(map(int, noted))) == (0, list(range(300))), told
    assert "nothing is due any more" in told


@pytest.mark.slow
async def test_a_process_that_took_its_jobs_is_replaced(wheel: Wheel, url: str, tmp_path: Path) -> None:
    await wheel.enqueue_many(wheel.new_job("note", args=[n]) for n in range(60))
    line = ["--processes", "2", "--max-jobs", "20", "--burst"]
    code, told = await command(url, tmp_path, *line)
    first = [line.split() for line in (tmp_path / "notes").read_text().splitlines()]
    # With a burst nothing is started again.
    assert (code, len(first)) == (0, 40), told
    code, told = await command(url, tmp_path, "--max-jobs", "20")
    noted = [line.split() for line in (tmp_path / "notes").read_text().splitlines()]
    assert (code, sorted(int(n) for n, _ in noted), len({pid for _, pid in noted})) == (0, list(range(60)), 3), told
    assert "it took 20 jobs, and may take no more" in told


@pytest.mark.parametrize("words", [("--max-jobs", "-1"), ("--max-jobs", "many")])
async def test_wrong_numbers_are_refused_in_one_sentence(url: str, tmp_path: Path, words: tuple[str, str]) -> None:
    code, told = await command(url, tmp_path, *words)
    assert code == 2
    assert "Traceback" not in told


@pytest.mark.slow
async def test_a_supervisor_starts_another_process_for_one_that_took_its_jobs(
    wheel: Wheel, url: str, tmp_path: Path
) -> None:
    await wheel.enqueue_many(wheel.new_job("note", args=[n]) for n in range(60))
    words = ("--processes", "2", "--max-jobs", "10")
    code, told = await command(url, tmp_path, *words, ends=lambda: noted(tmp_path) >= 60)
    lines = [line.split() for line in (tmp_path / "notes").read_text().splitlines()]
    by_process = Counter(pid for _, pid in lines)
    assert (code, sorted(int(n) for n, _ in lines)) == (0, list(range(60))), told
    assert (len(by_process), max(by_process.values())) == (6, 10), told
    assert "starting another" in told
