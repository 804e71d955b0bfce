"""Garbage is collected while nothing is due."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from tests.workers.harness import Log, eventually, running
from zwheel import Wheel
from zwheel.workers.garbage import Garbage


class Knot:
    """An object that only a collection can end."""

    def __init__(self) -> None:
        self.own = self


def old_garbage() -> weakref.ref[Knot]:
    """Garbage that outlived a collection of the youngest before it was one; more of those do not find it."""
    gc.collect(1)
    knot = Knot()
    gc.collect(0)
    seen = weakref.ref(knot)
    del knot
    return seen


@pytest.fixture(autouse=True)
def rarely() -> Iterator[None]:
    """Python itself collects next to nothing meanwhile."""
    before = gc.get_threshold()
    gc.set_threshold(1_000_000, 10, 10)
    yield
    gc.set_threshold(*before)


def test_it_is_collected_when_enough_came_and_there_is_time() -> None:
    seen = old_garbage()
    Garbage().tidy(10)
    assert seen() is not None, "too little came"
    for _ in range(4):
        gc.collect(0)
    Garbage().tidy(0.05)
    assert seen() is not None, "something fires in a moment"
    Garbage().tidy(0.3)
    assert seen() is None


def test_who_switched_collections_off_has_none() -> None:
    seen = old_garbage()
    for _ in range(5):
        gc.collect(0)
    gc.disable()
    try:
        Garbage().tidy(10)
        assert seen() is not None
    finally:
        gc.enable()


@pytest.mark.anyio
async def test_a_worker_collects_while_it_waits(wheel: Wheel, log: Log) -> None:
    @wheel.task(name="t")
    async def task() -> None:
        for _ in range(4):
            gc.collect(0)

    async def collected() -> bool:
        return seen() is None

    async with running(wheel, log):
        seen = old_garbage()
        await wheel.enqueue("t")
        await eventually(collected, bool)


def test_all_is_collected_where_there_is_time_for_all() -> None:
    garbage = Garbage()
    try:
        garbage.settle_in()
        all_s = garbage.all_s or 0.0
        assert gc.get_freeze_count() > 1000, "what is there at the start is left out"
        knot = Knot()
        for _ in range(8):
            gc.collect(1)
        seen = weakref.ref(knot)
        del knot
        Garbage().tidy(3600)
        garbage.tidy(0.1 * all_s + 0.001)
        assert seen() is not None
        garbage.tidy(100 * all_s + 0.1)
        assert seen() is None
    finally:
        gc.unfreeze()
