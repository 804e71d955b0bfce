"""Real workers, a real kill, everything recorded: the history holds, and its lines say what happened."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers import RedisServer, binary_of
from zwheel import Wheel
from zwheel.verify import Bounds, check, read

ROOT = Path(__file__).parents[2]
JOBS = 200


@pytest.fixture
def server() -> Iterator[RedisServer]:
    binary = binary_of("valkey")
    assert binary is not None
    with RedisServer(binary, appendonly=True) as running:
        yield running


def zwheel(server: RedisServer, *words: str, out: int = subprocess.DEVNULL, **env: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "zwheel.cli", *words],
        cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.DEVNULL,
        env={**os.environ, "ZWHEEL_URL": server.url, **env},
    )  # fmt: skip


def worker(server: RedisServer, directory: Path, failpoints: str = "") -> subprocess.Popen[bytes]:
    words = ("worker", "tests.verify.app:wheel", "--lease", "1s", "--reap", "200ms", "--concurrency", "20")
    return zwheel(server, *words, ZWHEEL_HISTORY=str(directory), ZWHEEL_FAILPOINTS=failpoints)


async def produce(server: RedisServer, directory: Path) -> list[str]:
    async with Wheel(server.url, namespace="zw", history=directory) as wheel:

        @wheel.task(name="work", retries=3, keep=60)
        async def work(number: int) -> None: ...

        chosen = work.options(delay=0.3)
        made = await wheel.enqueue_many([chosen.job(number) for number in range(JOBS)], chunk=50)
        pair = [await work.options(delay=0.5, dedup="one", within=60).enqueue(1) for _ in range(2)]
        assert [answer.existed for answer in pair] == [False, True]
        unwanted = await work.options(delay=600).enqueue(0)
        await wheel.cancel(unwanted.job_id, "default")
        return [answer.job_id for answer in (*made, pair[0])]


async def await_all(server: RedisServer, ids: list[str]) -> None:
    async with Wheel(server.url, namespace="zw") as wheel:
        for job_id in ids:
            await wheel.wait(job_id, "default", timeout=30)


def lines(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in directory.glob("*.jsonl") for line in path.read_text().splitlines()]


def test_a_run_with_a_killed_worker_holds(server: RedisServer, tmp_path: Path) -> None:
    ids = asyncio.run(produce(server, tmp_path))
    doomed = worker(server, tmp_path, "handler.after=kill@30")
    assert doomed.wait(30) == -signal.SIGKILL
    survivor = worker(server, tmp_path)
    try:
        asyncio.run(await_all(server, ids))
    finally:
        survivor.send_signal(signal.SIGTERM)
        survivor.wait(30)
    with zwheel(server, "verify", "--snapshot", out=subprocess.PIPE) as writer:
        final = writer.communicate(timeout=100)[0]
    (tmp_path / "final.jsonl").write_bytes(final)

    report = check(read([tmp_path]), Bounds(reap_ms=200, drained=True, lateness_ms=60_000))
    assert [(verdict.number, verdict.breaches) for verdict in report.broken] == []
    assert {str(verdict.state) for verdict in report.verdicts} == {"held"}
    summary = report.summary
    assert summary["jobs"] == JOBS + 2
    assert summary["redeliveries"]["lease_expired"] >= 1
    assert summary["redeliveries"]["retry"] >= JOBS // 20
    assert summary["duplicates"]["lease_expired"] >= 1
    assert summary["starts"] == JOBS + 1 + sum(summary["duplicates"].values())
    _complain(tmp_path)


def _complain(directory: Path) -> None:
    """The same history with one thing changed does not hold: nothing of the above was vacuous."""
    path = next(path for path in directory.glob("*.jsonl") if '"op":"enqueue"' in path.read_text())
    path.write_text(path.read_text().replace('"op":"enqueue"', '"op":"prune"'))
    report = check(read([directory]), Bounds(reap_ms=200))
    assert [verdict.number for verdict in report.broken] == ["I2"]
    assert report.verdict("I2").count == JOBS + 1
