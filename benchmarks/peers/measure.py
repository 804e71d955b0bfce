"""Measures one peer: each piece of work in processes of its own, on the same server, which is empty before each."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from benchmarks.figures import percentile
from benchmarks.machine import Placement, Server, on_cpus, spawn

from .adapters.harness import Spec
from .table import Peer

#: Jobs that run before the clock starts.
_WARM = 500
#: Jobs beyond those whose time is taken: the clock stops while there is still work, and a peer may give one up.
_SPARE = 500
_WARM_CALLS = 100
#: The part of the jobs that each piece of work takes: one by one, each is a round trip.
_PARTS = {"one": 0.25, "bulk": 1.0, "drain": 1.0}
_FEWEST = 200
_LONGEST_S = 180.0
_LOOK_S = 0.01
#: From the time a producer of delayed jobs starts to the first of them: it has to have stored all by then.
_HEAD_S = 5.0
_HEAD_S_A_JOB = 0.005
#: How long after the last fire time the last job may start.
_TAIL_S = 30.0
_STOP_S = 5.0


class Failed(Exception):
    """A peer did not do its work. Its text is one sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """How fast one piece of work was. Neighbours on the machine change CPU time far less than a rate."""

    jobs_s: float
    own_us: float
    """CPU time of the producer or worker for a job, with all its threads."""
    server_us: float
    """CPU time of the server for a job; of a drain to about 10 ms, divided by its jobs."""

    @classmethod
    def of(cls, jobs: int, took: dict[str, float], server_s: float) -> Rate:
        """From seconds to figures."""
        return cls(jobs_s=jobs / took["seconds"], own_us=took["cpu"] / jobs * 1e6, server_us=server_s / jobs * 1e6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lateness:
    """Start minus fire time of delayed jobs, ms."""

    p50: float
    p99: float
    smallest: float
    early: int
    """How many started more than 1 ms before their time; some peers take whole ms or seconds."""
    missing: int
    """How many had not started when the waiting ended."""

    @classmethod
    def of(cls, samples: list[float], jobs: int) -> Lateness:
        """Sum up."""
        if not samples:
            raise Failed("no delayed job ran")
        return cls(
            p50=percentile(samples, 0.5), p99=percentile(samples, 0.99), smallest=min(samples),
            early=sum(sample < -1 for sample in samples), missing=jobs - len(samples),
        )  # fmt: skip


class Bench:
    """One server, one placement, and the processes of any peer."""

    def __init__(self, server: Server, placement: Placement, jobs: int, delayed: int) -> None:
        self._server = server
        self._placement = placement
        self._jobs = jobs
        self._delayed = delayed
        self._note = server.directory / "peer.note"

    def rate(self, peer: Peer, command: list[str], what: str) -> Rate:
        """How fast `one`, `bulk` or `drain` is."""
        self._clear()
        jobs = max(_FEWEST, int(self._jobs * peer.share * _PARTS[what]))
        if what == "drain":
            return self._drain(command, jobs)
        before = self._server_s()
        took = self._produce(command, what, self._spec(jobs, _WARM_CALLS))
        return Rate.of(jobs, took, self._server_s() - before)

    def lateness(self, command: list[str]) -> Lateness:
        """How late delayed jobs start, 100 a second, with one worker process that is up and otherwise idle."""
        self._clear()
        jobs = self._delayed
        self._produce(command, "fill", self._spec(2 * _WARM_CALLS, 0))
        with self._worker(command, self._spec(jobs, _WARM_CALLS)) as worker:
            self._wait(worker, ".warm")
            first = time.time() + _HEAD_S + jobs * _HEAD_S_A_JOB
            spec = self._spec(jobs, 0, first_ms=int(first * 1000))
            took = self._produce(command, "schedule", spec)
            if time.time() > first:
                raise Failed(f"storing the delayed jobs took {took['seconds']:.1f} s, longer than their head start")
            until = first + jobs / spec.rate + _TAIL_S
            while len(samples := self._samples()) < jobs and time.time() < until:
                time.sleep(0.1)
        return Lateness.of(samples, jobs)

    def _spec(self, jobs: int, warm: int, first_ms: int = 0) -> Spec:
        return Spec(url=self._server.url, jobs=jobs, warm=warm, note=str(self._note), first_ms=first_ms)

    def _clear(self) -> None:
        with self._server.client() as client:
            client.flushall()
        for path in self._server.directory.glob("peer.*"):
            path.unlink()

    def _produce(self, command: list[str], what: str, spec: Spec) -> dict[str, float]:
        """Run a producer to its end; the seconds that it took, of the clock and of CPU."""
        process = spawn(
            [*command, what, json.dumps(asdict(spec))], self._placement.one(0, 1),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0,
        )  # fmt: skip
        try:
            output, errors = process.communicate(timeout=_LONGEST_S)
        except subprocess.TimeoutExpired:
            raise Failed(f"its producer took longer than {_LONGEST_S:.0f} s") from None
        finally:
            _end_group(process)
        if process.returncode:
            raise Failed(f"its producer failed: {(errors.decode().strip().splitlines() or ['no word'])[-1]}")
        took: dict[str, float] = json.loads(output.decode().splitlines()[-1])
        return took

    def _drain(self, command: list[str], jobs: int) -> Rate:
        """One worker process runs the jobs after those that warm it. All are stored when it starts."""
        self._produce(command, "fill", self._spec(_WARM + jobs + _SPARE, 0))
        with self._worker(command, self._spec(jobs, _WARM)) as worker:
            self._wait(worker, ".warm")
            before = self._server_s()
            took = json.loads(self._wait(worker, ".took"))
            return Rate.of(jobs, took, self._server_s() - before)

    def _server_s(self) -> float:
        """CPU seconds that the server has used."""
        with self._server.client() as client:
            info = client.info("cpu")
        return float(info["used_cpu_user"] + info["used_cpu_sys"])

    @contextmanager
    def _worker(self, command: list[str], spec: Spec) -> Iterator[subprocess.Popen[bytes]]:
        log = self._server.directory / "peer.log"
        with log.open("wb") as errors:
            process = spawn(
                [*command, "worker", json.dumps(asdict(spec))], self._placement.one(0, 1),
                stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, process_group=0,
            )  # fmt: skip
        try:
            with on_cpus(self._placement.server):
                yield process
        finally:
            _end_group(process)

    def _wait(self, worker: subprocess.Popen[bytes], suffix: str) -> str:
        """Wait until the worker has noted something, and read it."""
        path = self._note.with_suffix(suffix)
        deadline = time.monotonic() + _LONGEST_S
        while not path.exists():
            if worker.poll() is not None or time.monotonic() > deadline:
                words = (self._server.directory / "peer.log").read_text(encoding="utf-8", errors="replace")
                last = (words.strip().splitlines() or ["no word"])[-1]
                ended = "ended" if worker.poll() is not None else f"was not done within {_LONGEST_S:.0f} s"
                raise Failed(f"its worker {ended}: {last}")
            time.sleep(_LOOK_S)
        return path.read_text(encoding="ascii")

    def _samples(self) -> list[float]:
        if not self._note.exists():
            return []
        whole, _, _ = self._note.read_text(encoding="ascii").rpartition("\n")
        return [float(line) for line in whole.splitlines()]


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and those it has started: politely, then by force."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def versions(command: list[str], peer: Peer) -> str:
    """The version of a peer and of the program that runs it, for the document."""
    done = subprocess.run([command[0], "--version"], capture_output=True, text=True, check=False)
    runs = done.stdout.strip().removeprefix("Python ")
    return f"{peer.version} ({'Node' if peer.node else 'Python'} {runs.removeprefix('v')})"
