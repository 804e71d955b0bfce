"""What a benchmark answers: a figure with its rounds, the floor measured between them, and the bar it has to clear."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """What a figure has to reach."""

    limit: float
    """In the figure's unit, or as a multiple of the floor where `of_floor` says so."""
    at_least: bool = True
    """False: the figure must not exceed the limit."""
    of_floor: bool = False
    """The limit holds for the figure divided by its floor, not for the figure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """CPU time, user and system, for one job. Neighbours on the machine change it far less than a rate."""

    measured_us: float
    server_us: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured figure. Its value is the median of its rounds."""

    name: str
    title: str
    unit: str
    rounds: tuple[float, ...]
    floor: tuple[float, ...] = ()
    """What the machine, or a peer, did in the same rounds; empty without one."""
    floor_title: str = ""
    bar: Bar | None = None
    cpu: tuple[Cpu, ...] = ()
    """CPU time of each round; empty where it says nothing."""
    note: str = ""

    @property
    def value(self) -> float:
        """The median of the rounds."""
        return median(self.rounds)

    @property
    def ratio(self) -> float | None:
        """The median of figure / floor, round by round, so that noise which lasts longer than a round cancels out."""
        if not self.floor:
            return None
        return median(value / floor for value, floor in zip(self.rounds, self.floor, strict=True))

    @property
    def ok(self) -> bool | None:
        """Whether it clears its bar; None without one."""
        if self.bar is None:
            return None
        measured = self.ratio if self.bar.of_floor else self.value
        assert measured is not None, "a bar on the ratio needs a floor"
        return measured >= self.bar.limit if self.bar.at_least else measured <= self.bar.limit

    def document(self) -> dict[str, Any]:
        """The figure for the JSON document."""
        bar = self.bar
        return {
            "name": self.name,
            "title": self.title,
            "unit": self.unit,
            "value": self.value,
            "rounds": list(self.rounds),
            "floor": {"title": self.floor_title, "value": median(self.floor), "rounds": list(self.floor)}
            if self.floor
            else None,
            "ratio": self.ratio,
            "bar": {"limit": bar.limit, "at_least": bar.at_least, "of_floor": bar.of_floor} if bar else None,
            "ok": self.ok,
            "cpu_us": {
                "measured": [cpu.measured_us for cpu in self.cpu],
                "server": [cpu.server_us for cpu in self.cpu],
            }
            if self.cpu
            else None,
            "note": self.note,
        }


def percentile(values: list[float], part: float) -> float:
    """The value that `part` (0 to 1) of the values do not exceed: the nearest rank, no interpolation."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(part * 1_000_000 * len(ordered)) // 1_000_000) - 1))]
