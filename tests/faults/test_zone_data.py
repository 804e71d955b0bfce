"""Workers with different zone data at the same time, as while a fleet is upgraded: V-10."""

from __future__ import annotations

import os
import struct
import zoneinfo
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.faults.witness import server_ms
from tests.workers.harness import eventually, one_kind
from tests.workers.processes import worker_process
from tests.workers.stage import Stage
from zwheel import Wheel
from zwheel.schedules import zones
from zwheel.times import to_datetime

pytestmark = [pytest.mark.anyio, pytest.mark.slow, one_kind]
ZONE = "Test/Demo"
OLD_S = 3600
#: When the wall clock of the schedules shows their time by the old data, after they are written, seconds.
SOON_S = 9


def write_zone(directory: Path, offset_s: int) -> None:
    """A zone with one offset for ever (RFC 8536)."""

    def block(size: int) -> bytes:
        return (
            b"TZif2" + bytes(15) + struct.pack(">6l", 0, 0, 0, 0, 1, 4) + struct.pack(">lbb", offset_s, 0, 0) + b"TST\0"
        )

    sign, left = "-" if offset_s > 0 else "+", abs(offset_s)
    rule = f"\n<T>{sign}{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}\n"
    path = directory / ZONE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(block(4) + block(8) + rule.encode())


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Path]:
    """The folder with the old data, which this process has too."""
    write_zone(tmp_path / "old", OLD_S)
    before = zoneinfo.TZPATH
    zoneinfo.reset_tzpath(to=[str(tmp_path / "old"), *before])
    zones.zone.cache_clear()
    yield tmp_path / "old"
    zoneinfo.reset_tzpath(to=before)
    zones.zone.cache_clear()
    zones.transitions.cache_clear()


@pytest.mark.parametrize(("first", "moved_s"), [("new", -3), ("old", 3), ("new", -3600)])
async def test_workers_with_different_zone_data_run_each_occurrence_once(
    wheel: Wheel, stage: Stage, url: str, old: Path, monkeypatch: pytest.MonkeyPatch, first: str, moved_s: int
) -> None:
    """For the new data each of twelve times is some seconds or an hour away from where the old data see it."""
    write_zone(old.parent / "new", OLD_S - moved_s)
    due_ms = await server_ms(wheel) // 1000 * 1000 + SOON_S * 1000
    wall = to_datetime(due_ms) + timedelta(seconds=OLD_S)
    names = [f"s{number}" for number in range(12)]
    for name in names:
        line = f"{wall.second} {wall.minute} {wall.hour} * * *"
        await wheel.add_schedule(wheel.new_schedule(name, line, "quick", args=[""], tz=ZONE, keep=600))
    path = os.pathsep.join(zoneinfo.TZPATH[1:])
    monkeypatch.setenv("PYTHONTZPATH", f"{old.parent / first}{os.pathsep}{path}")
    async with worker_process(url, stage.path):
        monkeypatch.setenv("PYTHONTZPATH", f"{old.parent / ('new' if first == 'old' else 'old')}{os.pathsep}{path}")
        async with worker_process(url, stage.path):
            over_ms = due_ms + max(0, min(moved_s, 10)) * 1000 + 3000
            await eventually(lambda: server_ms(wheel), lambda now: now > over_ms, within=40)
            infos = await wheel.schedules()
    made = Counter(job.id.partition("@")[0] for job in await wheel.jobs("default", limit=100))
    assert {info.name: made[info.name] + info.state.missed for info in infos} == dict.fromkeys(names, 1)
