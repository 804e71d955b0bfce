"""A shell to call commands in, and a hand that does what a worker would do, one transition at a time."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.endings import bury, complete
from zwheel import calls
from zwheel.broker.store import SyncStore
from zwheel.cli import run
from zwheel.job import Failure
from zwheel.keys import ShardKeys
from zwheel.record import write_failures
from zwheel.times import day_of

SETTINGS = ("ZWHEEL_URL", "REDIS_URL", "ZWHEEL_NAMESPACE", "ZWHEEL_APP", "ZWHEEL_ENV", "NO_COLOR", "_ZWHEEL_COMPLETE")


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def documents(self) -> list[dict[str, Any]]:
        """The lines of stdout as JSON."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def document(self) -> dict[str, Any]:
        """The one line of stdout as JSON."""
        (document,) = self.documents
        return document

    @property
    def said(self) -> str:
        """What stands on stderr besides the notes that nobody serves a task."""
        return served(self.err)

    @property
    def errors(self) -> list[dict[str, Any]]:
        """The lines of stderr as JSON."""
        return [json.loads(line) for line in self.err.splitlines()]


def served(err: str) -> str:
    """A text from stderr without the notes that no worker would run a job."""
    return "".join(line for line in err.splitlines(keepends=True) if not line.startswith("note: no "))


class Shell:
    """Calls `zwheel` with the URL of a test server in the environment."""

    def __init__(self, capsys: pytest.CaptureFixture[str], environment: dict[str, str]) -> None:
        self._capsys = capsys
        self.environment = environment
        self._started: list[subprocess.Popen[bytes]] = []

    def end(self) -> None:
        """End what a failed test left running."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.communicate()

    def __call__(self, *arguments: str) -> Done:
        """Run a command in this process."""
        self._capsys.readouterr()
        code = run(list(arguments))
        out, err = self._capsys.readouterr()
        return Done(int(code), out, err)

    def ok(self, *arguments: str) -> Done:
        """Run a command that must succeed."""
        done = self(*arguments)
        assert done.code == 0, done.err
        return done

    def command(self, *arguments: str) -> list[str]:
        """The words that run a command in a process of its own."""
        return [sys.executable, "-m", "zwheel.cli", *arguments]

    def process(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start a command in a process of its own, with pipes."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(self.command(*arguments), env=self.environment, **{**pipes, **options})
        self._started.append(process)
        return process

    def piped(self, *arguments: str, stdin: bytes = b"") -> Done:
        """Run a command in a process of its own to its end."""
        done = subprocess.run(
            self.command(*arguments), input=stdin, capture_output=True, timeout=100, check=False, env=self.environment
        )
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Shell]:
    """A shell without any settings, in an empty directory, whose terminal is 100 columns wide."""
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ZWHEEL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONUTF8": "1"}
    environment.pop("PYTHONUNBUFFERED", None)  # what is not flushed is to be missed
    made = Shell(capsys, environment)
    log = logging.getLogger()
    before = log.handlers[:], log.level
    yield made
    made.end()
    # `zwheel worker` sets up the log of its process, which is that of all tests here.
    log.handlers[:] = before[0]
    log.setLevel(before[1])


@pytest.fixture
def shell(bare: Shell, url: str, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A shell on an empty server."""
    monkeypatch.setenv("ZWHEEL_URL", url)
    bare.environment["ZWHEEL_URL"] = url
    return bare


class Hand:
    """Does to jobs what a worker does, one call at a time."""

    def __init__(self, url: str) -> None:
        self.session = calls.Session("zw")
        self.store = SyncStore(url, self.session)
        self._tokens: dict[str, bytes] = {}

    def _keys(self, queue: str) -> ShardKeys:
        return self.session.keys(queue)

    def claim(self, queue: str = "default") -> list[str]:
        """Claim all due jobs of a queue; gives their ids."""
        time.sleep(0.002)  # what was enqueued for now is due from the next whole ms on
        ((seconds, _),) = self.store.send([("TIME",)])
        day = day_of(int(seconds) * 1000)
        while True:
            with self.session.lane() as lane:
                call = calls.claim(self._keys(queue), day=day, worker="hand-001", lease_ms=60_000, limit=100, lane=lane)
                (reply,) = self.store.send([call])
            claimed = calls.read_claim(reply)
            if claimed.word != "moved":
                break
            day = claimed.day
        ids = [job_id.decode() for job_id in claimed.jobs[::2]]
        self._tokens.update((job_id, raw[21:37]) for job_id, raw in zip(ids, claimed.jobs[1::2], strict=True))
        return ids

    def complete(self, job_id: str, queue: str = "default") -> None:
        """End a claimed job well."""
        with self.session.lane() as lane:
            (reply,) = self.store.send([complete(self._keys(queue), [(job_id, self._tokens[job_id])], lane=lane)])
        assert calls.read_letters(reply) == "d"

    def bury(self, job_id: str, *failures: Failure, queue: str = "default") -> None:
        """Let a claimed job die."""
        told = failures or (
            Failure(at_ms=1_790_000_000_000, attempt=1, reason="error", kind="ValueError", message="no"),
        )
        end = (job_id, self._tokens[job_id], write_failures(told))
        with self.session.lane() as lane:
            (reply,) = self.store.send([bury(self._keys(queue), [end], most_dead=10_000, lane=lane)])
        assert calls.read_letters(reply) == "x"

    def kill(self, *job_ids: str, queue: str = "default") -> None:
        """Claim what is due, and let these jobs die."""
        self.claim(queue)
        for job_id in job_ids:
            self.bury(job_id, queue=queue)


@pytest.fixture
def hand(url: str) -> Iterator[Hand]:
    """A worker by hand."""
    made = Hand(url)
    yield made
    made.store.close()
