"""A fleet of the former version and this one: nothing is lost, doubled or early, whichever worker meets which record. V-01 to V-04.

The former version is run from the history of this repository (`tests/skew/former.py`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.servers import RedisServer
from tests.skew.former import ROOT, Former, unpack
from tests.workers.harness import one_kind
from zwheel import SyncWheel
from zwheel.job import CancelOutcome, JobState, Reason
from zwheel.keys import ShardKeys
from zwheel.times import day_of

pytestmark = one_kind
KEYS = ShardKeys.of("zw", "default")
#: A busy machine may take long.
WITHIN_S = 60.0
APP = """
import asyncio, os, time
from zwheel import Wheel, current_job

wheel = Wheel(namespace="zw")

def write(*words):
    file = os.open(os.environ["NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, (" ".join(map(str, words)) + "\\n").encode())
    os.close(file)

@wheel.task(name="note", retries=5)
async def note() -> None:
    job = current_job()
    write(job.id, job.fire_at_ms, int(time.time() * 1000))

@wheel.task(name="hang", retries=5)
async def hang() -> None:
    job = current_job()
    write(job.id, job.attempt)
    if job.attempt == 1:
        await asyncio.sleep(600)
"""
ENQUEUE = """
import sys
from zwheel import SyncWheel
with SyncWheel(sys.argv[1], namespace="zw") as wheel:
    for n in range(int(sys.argv[2])):
        wheel.enqueue("note", id=f"former-{n}", keep=3600, delay=n % 3 / 2)
"""


@pytest.fixture(scope="module")
def former(tmp_path_factory: pytest.TempPathFactory) -> Former:
    folder = tmp_path_factory.mktemp("former")
    unpack(folder)
    return Former(folder)


class Stage:
    """A server, an application that both versions run, and what its tasks noted."""

    def __init__(self, server: RedisServer, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.notes = folder / "notes"
        (folder / "app.py").write_text(APP, encoding="utf-8")

    @contextmanager
    def worker(self, former: Former | None = None) -> Iterator[subprocess.Popen[bytes]]:
        """A worker process of one version."""
        words = (
            "worker",
            "app:wheel",
            "--url",
            self.server.url,
            "--lease",
            "1s",
            "--reap",
            "200ms",
            "--concurrency",
            "5",
        )
        env = (
            former.environment(self.folder)
            if former
            else {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{self.folder}"}
        )
        with (self.folder / "log").open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "zwheel.cli", *words], cwd=former.folder if former else ROOT,
                env={**env, "NOTES": str(self.notes)}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        try:
            yield child
        finally:
            child.kill()
            child.wait()

    def lines(self) -> list[list[str]]:
        """What the tasks noted so far."""
        return (
            [line.split() for line in self.notes.read_text(encoding="utf-8").splitlines()]
            if self.notes.exists()
            else []
        )

    def until(self, true: Callable[[], object]) -> None:
        """Wait for something that other processes do."""
        deadline = time.monotonic() + WITHIN_S
        while not true():
            assert time.monotonic() < deadline, (self.folder / "log").read_text(encoding="utf-8")[-4000:]
            time.sleep(0.02)


@pytest.fixture
def stage(fresh: RedisServer, tmp_path: Path) -> Stage:
    return Stage(fresh, tmp_path)


def test_two_versions_run_what_two_versions_enqueue_once_each_and_never_early(stage: Stage, former: Former) -> None:
    with stage.worker(former), stage.worker(), SyncWheel(stage.server.url, namespace="zw") as wheel:
        former.python(ENQUEUE, stage.server.url, "60")
        ids = [f"former-{n}" for n in range(60)]
        ids += [wheel.enqueue("note", id=f"new-{n}", keep=3600, delay=n % 3 / 2).job_id for n in range(60)]
        for job_id in ids:
            assert wheel.wait(job_id, "default", timeout=WITHIN_S).state is JobState.DONE
        noted = stage.lines()
        assert sorted(line[0] for line in noted) == sorted(ids)
        assert [line for line in noted if int(line[2]) < int(line[1])] == []
        assert wheel.dead("default") == []


def test_a_job_whose_worker_died_comes_back_although_a_former_one_reaped_it(stage: Stage, former: Former) -> None:
    with SyncWheel(stage.server.url, namespace="zw") as wheel, stage.server.client() as client:
        job_id = wheel.enqueue("hang", id="a", keep=3600).job_id
        with stage.worker() as new:
            stage.until(stage.lines)
            new.kill()
        with stage.worker(former):
            stage.until(lambda: client.zscore(KEYS.dead, job_id))
            job = wheel.get(job_id, "default")
            assert job is not None
            assert job.state is JobState.PROCESSING
            with stage.worker():
                done = wheel.wait(job_id, "default", timeout=WITHIN_S)
        assert done.state is JobState.DONE
        assert [failure.reason for failure in done.failures] == [Reason.LEASE_EXPIRED]
        assert stage.lines() == [["a", "1"], ["a", "2"]]
        assert client.zcard(KEYS.dead) == 0


def test_what_former_workers_that_keep_time_cannot_read_an_idle_one_of_this_version_takes_back(
    stage: Stage, former: Former
) -> None:
    with SyncWheel(stage.server.url, namespace="zw") as wheel, stage.server.client() as client:
        job = wheel.enqueue("note", delay=3600)

        def keepers() -> list[bytes | None]:
            found: Any = client.hmget(KEYS.meta, ["keeper", "second"])
            return list(found)

        with stage.worker(former), stage.worker(former):
            stage.until(lambda: all(keepers()))
            with stage.worker():
                stage.until(lambda: client.hlen(KEYS.workers) == 3)
                # Twice, since a worker looks at all that is there when it starts.
                for _ in range(2):
                    client.zrem(KEYS.wheel(day_of(job.fire_at_ms)), job.job_id)
                    client.zadd(KEYS.dead, {job.job_id: int(time.time() * 1000)})
                    stage.until(lambda: not client.zcard(KEYS.dead))
                assert wheel.count("default", JobState.SCHEDULED) == 1


LOOK = """
import json, sys
from zwheel import SyncWheel
with SyncWheel(sys.argv[1], namespace="zw") as wheel:
    def told(act):
        try:
            return str(act())
        except Exception as error:
            return type(error).__name__
    job = wheel.get("a", "default")
    again = wheel.enqueue("note", id="a")
    same_key = wheel.enqueue("note", dedup="k")
    print(json.dumps([
        job.task, [str(f.reason) for f in job.failures], told(lambda: wheel.cancel("a", "default")),
        told(lambda: wheel.reschedule("a", queue="default", delay=5)), again.existed, same_key.existed, str(same_key.job_id),
    ]))
"""


def test_a_former_client_changes_nothing_of_what_it_cannot_read(stage: Stage, former: Former) -> None:
    with SyncWheel(stage.server.url, namespace="zw") as wheel, stage.server.client() as client:
        wheel.enqueue("note", id="a", dedup="k", delay=3600)
        before = client.hgetall(KEYS.jobs)
        seen = json.loads(former.python(LOOK, stage.server.url))
        # Shown as a job that cannot be read; cancelling and moving are refused; its id and its dedup key are taken.
        assert seen == ["(unreadable)", ["undecodable"], "BrokerRefused", "BrokerRefused", True, True, "a"]
        assert client.hgetall(KEYS.jobs) == before
        assert wheel.cancel("a", "default") is CancelOutcome.CANCELLED
