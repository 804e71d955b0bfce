"""The model of docs/scale.md is that of the page, and agrees with what can be counted: allocations, and who looks when."""

from __future__ import annotations

import pytest

from benchmarks import model
from tests.simulator.crowd import Crowd, Plan
from tests.tidy.tree import ROOT


def test_the_tables_of_the_page_are_those_of_the_model() -> None:
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    assert model.needs_table() in page
    assert model.waiting_table() in page


@pytest.mark.parametrize(
    ("size", "given"), [(1, 16), (28, 32), (128, 128), (129, 160), (161, 192), (193, 224), (1025, 1280)]
)
def test_the_allocator_gives_the_next_of_its_sizes(size: int, given: int) -> None:
    assert model.size_class(size) == given


def test_a_job_takes_what_was_measured() -> None:
    """With Redis 7.0.15 as Debian builds it: `python -m benchmarks scale`."""
    measured = {(100_000, 100): 395.3, (100_000, 900): 1_227.8, (300_000, 20): 320.4}
    for (jobs, text), each in measured.items():
        assert model.job_bytes(jobs, text) == pytest.approx(each, rel=0.02)
    # `python -m benchmarks pending`; a job that is made by name carries 20 bytes more.
    assert model.job_bytes(10_000_000, 120, task="steady", days=30) == pytest.approx(412.1, rel=0.02)


@pytest.mark.parametrize(("workers", "shards"), [(20, 4), (200, 4), (600, 2)])
def test_idle_workers_look_as_often_as_in_the_simulation(workers: int, shards: int) -> None:
    plan = Plan(workers=workers, shards=shards, waits=shards, jobs_s=0.01, seconds=120, kill_at_s=119, kill_part=0)
    found = Crowd(plan).run().commands
    looks_s = (found["look"] + found["follower's look"]) / plan.seconds
    assert model.looks_s(workers, shards) == pytest.approx(looks_s, rel=0.15)


def test_ten_times_as_much_takes_ten_times_as_much() -> None:
    some, more = model.need(10_000, 10_000_000), model.need(100_000, 100_000_000)
    assert more.alone == pytest.approx(10 * some.alone)
    assert more.memory == pytest.approx(10 * some.memory)
    assert (some.servers, model.need(1_000_000, 10_000_000_000).by) == (1, "memory")
