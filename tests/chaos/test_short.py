"""A short run of the whole thing: real processes, real faults, and a history that shows every promise held."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .fleet import MARK, ROOT
from .plan import CLUSTER_KINDS, KINDS, Where, draw
from .server import cut_size

RUN_S = 6


def chaos(directory: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.chaos", "--keep", str(directory), *options],
        cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def left_behind(pid: int) -> list[str]:
    """The processes that carry the mark of the run that this process conducted."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        found += [f"{path.parent.name} {word.decode()}" for word in words if word.startswith(f"{MARK}=".encode())]
    return [line for line in found if line.endswith(f"-{pid}")]


def test_a_plan_is_the_same_for_the_same_seed() -> None:
    assert draw(7, 60) == draw(7, 60)
    assert draw(7, 60) != draw(8, 60)


def test_a_minute_has_every_kind_of_fault_and_at_least_20_kills() -> None:
    for seed in range(50):
        names = [planned.kind.name for planned in draw(seed, 60)]
        assert set(names) == set(KINDS)
        assert names.count("worker-kill") >= 20
        assert {planned.kind.name for planned in draw(seed, 60, kinds=CLUSTER_KINDS)} == set(CLUSTER_KINDS)


def test_faults_lie_within_the_run_in_the_order_of_their_times() -> None:
    times = [planned.at_s for planned in draw(1, 30)]
    assert times == sorted(times)
    assert 0 < times[0] <= times[-1] < 30


def test_only_the_wanted_faults_are_planned() -> None:
    names = [planned.kind.name for planned in draw(1, 60, {"redis-kill": 2, "net-cut": 1})]
    assert sorted(names) == ["net-cut", "redis-kill", "redis-kill"]
    assert KINDS["redis-kill"].where is Where.SERVER


def test_a_cut_is_between_a_few_bytes_and_some_hundred_calls() -> None:
    rng = random.Random(1)
    sizes = [cut_size(rng) for _ in range(1000)]
    assert 7 <= min(sizes) < 20 < 100_000 < max(sizes) < 160_000


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
def test_a_short_run_keeps_every_promise(tmp_path: Path) -> None:
    faults = (
        "worker-kill=3,worker-stop=1,worker-drain=1,producer-kill=1,redis-kill=1,script-flush=1,client-kill=1,"
        "net-lost-reply=1"
    )
    run = chaos(
        tmp_path / "run",
        "--duration",
        str(RUN_S),
        "--seed",
        "1",
        "--jobs-per-second",
        "400",
        "--faults",
        faults,
        "--json",
    )
    out, err = run.communicate(timeout=230)
    assert run.returncode == 0, f"{out}\n{err}"
    told = json.loads(out)
    assert told["held"] is True
    assert (told["lost"], told["early"], told["complaints"]) == (0, 0, [])
    assert told["faults"]["worker-kill"] == 3
    assert told["faults"]["redis-kill"] == 1
    assert told["kills"] >= 3
    assert told["jobs"]["enqueued"] > 500
    assert told["jobs"]["done"] > 400
    assert told["promises"]["I1"] == told["promises"]["I4"] == told["promises"]["I7"] == "held"
    assert left_behind(run.pid) == []


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
def test_an_interrupted_run_leaves_no_process(tmp_path: Path) -> None:
    run = chaos(
        tmp_path / "run", "--duration", "60", "--seed", "1", "--jobs-per-second", "50", "--faults", "worker-stop=0"
    )
    assert run.stderr is not None
    assert "seed 1" in run.stderr.readline()
    # The first line of progress comes when everything has started.
    assert "workers" in run.stderr.readline()
    assert left_behind(run.pid) != []
    os.kill(run.pid, signal.SIGINT)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 130, err
    assert "interrupted" in err
    assert left_behind(run.pid) == []
