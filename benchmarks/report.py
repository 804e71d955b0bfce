"""Shows the figures: a table for people, a document for machines."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from .figures import Bar, Figure


def number(value: float) -> str:
    """A figure with as many digits as mean something."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _bar(bar: Bar | None, unit: str) -> str:
    if bar is None:
        return ""
    sign = "≥" if bar.at_least else "≤"
    if bar.of_floor:
        return f"{sign} {bar.limit:.0%} of it" if bar.limit < 1 else f"{sign} {bar.limit:g} x it"
    return f"{sign} {number(bar.limit) if bar.limit else '0'} {unit}"


def _cpu(figure: Figure) -> str:
    if not figure.cpu:
        return ""
    measured = median(cpu.measured_us for cpu in figure.cpu)
    server = median(cpu.server_us for cpu in figure.cpu)
    return f"{number(measured)} + {number(server)}"


def _ratio(figure: Figure) -> str:
    ratio = figure.ratio
    if ratio is None:
        return ""
    return f"{ratio:.0%}" if ratio < 2 else f"{ratio:.1f} x"


def table(figures: Sequence[Figure], machine: dict[str, Any], console: Console) -> None:
    """Print the figures with their floors and bars."""
    grid = Table(title="zwheel benchmarks", title_justify="left", caption=caption(machine), caption_justify="left")
    grid.add_column("benchmark")
    for name in ("median", "rounds"):
        grid.add_column(name, justify="right")
    grid.add_column("unit")
    grid.add_column("CPU µs a job\nmeasured+server", justify="right")
    grid.add_column("floor", justify="right")
    grid.add_column("of floor", justify="right")
    grid.add_column("bar", justify="right")
    grid.add_column("")
    for figure in figures:
        spread = f"{number(min(figure.rounds))} to {number(max(figure.rounds))}" if len(figure.rounds) > 1 else ""
        floor = f"{number(median(figure.floor))} ({figure.floor_title})" if figure.floor else ""
        verdict = {True: "[green]ok[/]", False: "[red]short[/]", None: ""}[figure.ok]
        title = f"{figure.title}\n  ({figure.note})" if figure.note else figure.title
        grid.add_row(
            title,
            number(figure.value),
            spread,
            figure.unit,
            _cpu(figure),
            floor,
            _ratio(figure),
            _bar(figure.bar, figure.unit),
            verdict,
        )
    console.print(grid)


def caption(machine: dict[str, Any]) -> str:
    """What the figures depend on, in a line."""
    pinned = "server and measured process pinned apart" if machine["server_cpus"] else "nothing pinned"
    return (
        f"{machine['server']}, Python {machine['python']}, redis-py {machine['redis_py']}, {machine['cpus']} CPUs, "
        f"{pinned}, load before {machine['load']}"
    )
