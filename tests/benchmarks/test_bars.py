"""The benchmarks of what lies far beyond one worker and one server work, and what they measure is right. Nothing is said about speed."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.servers import KINDS, binary_of
from tests.tidy.tree import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def measured(name: str, *others: str) -> dict[str, dict[str, Any]]:
    """The figures of one benchmark, by name."""
    program = next(path for path in map(binary_of, KINDS) if path is not None)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", name, "--short", "--rounds", "1", "--json", "--server", str(program), *others],
        cwd=ROOT, capture_output=True, text=True, timeout=170, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {figure["name"]: figure for figure in json.loads(done.stdout)["figures"]}


def test_jobs_start_in_time_beside_many_that_are_pending() -> None:
    figures = measured("pending")
    assert figures["pending.min"]["ok"]
    assert 100 < figures["pending.memory"]["value"] < 1000


def test_each_schedule_that_is_due_in_the_same_second_runs_once_and_not_early() -> None:
    figures = measured("midnight")
    early = [name for name, figure in figures.items() if name.endswith(".min") and not figure["ok"]]
    assert early == []
    assert len(figures) == 4


def test_the_time_of_each_script_is_told_apart_from_that_of_its_neighbours() -> None:
    figures = measured("scripts")
    scripts = {name.split(".")[2] for name in figures}
    assert scripts == {"enqueue", "claim", "settle", "fork"}
    assert all(figure["value"] > 0 for figure in figures.values())


def test_a_queue_of_several_shards_is_measured_on_several_servers() -> None:
    figures = measured("nodes")
    assert {"nodes.1.1.drain", "nodes.4.3.drain", "nodes.4.3.bulk"} <= figures.keys()


def test_what_the_model_says_is_measured_beside_it() -> None:
    figures = measured("scale")
    assert figures["scale.connections.20.1"]["value"] == figures["scale.connections.20.1"]["floor"]["value"]
    assert all(figure["value"] > 0 for figure in figures.values())
