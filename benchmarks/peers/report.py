"""Shows what was measured: a table for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.report import caption, number

from .measure import Lateness, Rate

RATES = ("one", "bulk", "drain")
_TITLES = {"one": "one by one", "bulk": "in bulk", "drain": "drain"}


@dataclass(slots=True)
class Result:
    """What one peer did."""

    version: str = ""
    rates: dict[str, list[tuple[Rate, Rate]]] = field(default_factory=lambda: {what: [] for what in RATES})
    """Of each round: zwheel's, which ran right before, and the peer's."""
    lateness: Lateness | None = None
    failed: list[str] = field(default_factory=list)
    """Sentences that say what it could not do."""

    @property
    def measured(self) -> bool:
        """Whether there is any figure."""
        return self.lateness is not None or any(self.rates.values())

    def rate(self, what: str) -> float | None:
        """The median of the rounds."""
        found = self.rates[what]
        return median(theirs.jobs_s for _, theirs in found) if found else None

    def cpu(self, what: str) -> tuple[float, float]:
        """CPU time of a job, the process's own and the server's, µs: the medians of the rounds."""
        found = [theirs for _, theirs in self.rates[what]]
        return median(rate.own_us for rate in found), median(rate.server_us for rate in found)

    def ratios(self) -> dict[str, float]:
        """zwheel's rate divided by the peer's: the median of the rounds' ratios."""
        return {
            what: median(ours.jobs_s / theirs.jobs_s for ours, theirs in found)
            for what, found in self.rates.items()
            if found
        }


def table(results: Mapping[str, Result], machine: dict[str, Any], console: Console) -> None:
    """Print one row a peer; in brackets zwheel's figure divided by the peer's."""
    title = "zwheel and its peers: jobs a second (zwheel's / the peer's), CPU µs a job own + server; lateness in ms"
    grid = Table(title=title, title_justify="left", caption=caption(machine), caption_justify="left")
    for name in ("peer", "version"):
        grid.add_column(name)
    for name in (*_TITLES.values(), "late p50", "late p99", "early"):
        grid.add_column(name, justify="right")
    for name, result in results.items():
        grid.add_row(name, result.version, *_rates(result), *_late(result.lateness))
    console.print(grid)
    for name, result in results.items():
        for why in dict.fromkeys(result.failed):
            console.print(f"{name}: {why}", highlight=False, markup=False)


def _rates(result: Result) -> list[str]:
    ratios = result.ratios()
    cells = []
    for what in RATES:
        rate = result.rate(what)
        if rate is None:
            cells.append("-")
            continue
        own, server = result.cpu(what)
        cells.append(f"{number(rate)} ({ratios[what]:.1f} x)\n{number(own)} + {number(server)}")
    return cells


def _late(late: Lateness | None) -> list[str]:
    if late is None:
        return ["-", "-", "-"]
    missing = f", {late.missing} missing" if late.missing else ""
    return [number(late.p50), number(late.p99), f"{late.early}{missing}"]
