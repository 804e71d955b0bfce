"""The timer rings once, at its time or right after it, and leaves nothing open."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from zwheel.workers import timer as module
from zwheel.workers.timer import Timer

pytestmark = pytest.mark.anyio
_FDINFO = Path("/proc/self/fdinfo")
_HAS_FDINFO = _FDINFO.exists()


def refuse() -> int:
    raise OSError(38, "timerfd_create")


@pytest.fixture(params=["as exact as the system", "plain"], autouse=True)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "plain":
        monkeypatch.setattr(module, "_create", refuse)
    return str(request.param)


def clocks() -> list[str]:
    """By which clocks the open timers of this process go."""
    texts = [path.read_text(encoding="ascii") for path in _FDINFO.iterdir() if path.exists()]
    return [line for text in texts for line in text.splitlines() if line.startswith("clockid")]


class Rung:
    """Counts, and tells when it rang last."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.event = asyncio.Event()

    def __call__(self) -> None:
        self.times.append(time.monotonic())
        self.event.set()

    async def once_more(self) -> float:
        self.event.clear()
        async with asyncio.timeout(20):
            await self.event.wait()
        return self.times[-1]


@pytest.fixture
async def rung() -> Rung:
    return Rung()


@pytest.fixture
async def timer(rung: Rung) -> AsyncIterator[Timer]:
    made = Timer(rung)
    yield made
    made.close()


async def test_it_rings_at_its_time_and_never_before(timer: Timer, rung: Rung) -> None:
    for part in range(1, 40):
        at = time.monotonic() + part * 0.00037
        timer.set(at)
        assert await rung.once_more() >= at
    assert len(rung.times) == 39


async def test_a_time_that_is_past_rings_at_once(timer: Timer, rung: Rung) -> None:
    for at in (time.monotonic(), time.monotonic() - 5, 0.0, -3.0):
        timer.set(at)
        await rung.once_more()
    assert len(rung.times) == 4


async def test_it_rings_at_the_time_that_was_set_last(timer: Timer, rung: Rung) -> None:
    timer.set(time.monotonic() + 0.01)
    timer.set(at := time.monotonic() + 0.05)
    assert await rung.once_more() >= at
    timer.set(time.monotonic() + 60)
    timer.set(at := time.monotonic() + 0.01)
    assert await rung.once_more() >= at
    assert len(rung.times) == 2


@pytest.mark.parametrize("after_s", [60.0, 1e9, 1e300, math.inf])
async def test_a_far_time_does_not_ring_now(timer: Timer, rung: Rung, after_s: float) -> None:
    timer.set(time.monotonic() + after_s)
    other = Rung()
    beside = Timer(other)
    beside.set(time.monotonic() + 0.02)
    await other.once_more()
    beside.close()
    assert rung.times == []


async def test_what_is_cancelled_does_not_ring_also_when_its_time_has_come(timer: Timer, rung: Rung) -> None:
    timer.set(time.monotonic() + 0.001)
    until = time.monotonic() + 0.003
    while time.monotonic() < until:
        continue
    timer.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    timer.set(at := time.monotonic() + 0.01)
    assert await rung.once_more() >= at
    assert len(rung.times) == 1


async def test_closing_gives_the_descriptor_back_and_it_can_be_set_again(
    rung: Rung, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    if not _HAS_FDINFO:
        pytest.skip("open descriptors are counted on Linux")
    caplog.set_level(logging.DEBUG)
    before = len(os.listdir(_FDINFO))
    timer = Timer(rung)
    for _ in range(3):
        timer.set(time.monotonic())
        await rung.once_more()
        assert len(os.listdir(_FDINFO)) == before + (kind != "plain")
        timer.close()
        assert len(os.listdir(_FDINFO)) == before
    timer.set(time.monotonic() + 60)
    timer.close()
    timer.close()
    assert len(os.listdir(_FDINFO)) == before
    assert caplog.messages == [], "a plain timer is no news"


async def test_it_goes_by_the_monotonic_clock_whatever_the_time_is_set_to(timer: Timer, kind: str) -> None:
    if sys.platform != "linux" or kind == "plain":
        pytest.skip("a timer of the event loop goes by its clock, which is the monotonic one")
    before = clocks()
    timer.set(time.monotonic() + 60)
    assert sorted(clocks()) == sorted([*before, f"clockid: {time.CLOCK_MONOTONIC}"])
