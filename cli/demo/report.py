"""What the demo measured, from what the workers wrote down and what `zwheel enqueue` answered; and how it is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from zwheel.cli.when import human_count

from .shop import Shop

if TYPE_CHECKING:
    from rich.table import Table

#: The picture is as wide as a README is.
PICTURE_WIDTH = 94


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """The worker that was killed."""

    pid: int
    at_us: int
    """When it was dead, µs since the epoch."""


class Attempt(NamedTuple):
    """One row of the shop's attempts."""

    job: str
    number: int
    """Which claim of the job it was, counted from 1; the claim before need not have begun the job."""
    pid: int
    began_us: int
    outcome: str | None
    """None: it never ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A set of durations, ms."""

    count: int
    p50: float
    p99: float
    longest: float

    @classmethod
    def of(cls, durations_ms: Sequence[float]) -> Spread | None:
        """Measure some durations by nearest rank; None without any."""
        ordered = sorted(durations_ms)
        count = len(ordered)
        if not count:
            return None
        return cls(count=count, p50=ordered[_rank(count, 50)], p99=ordered[_rank(count, 99)], longest=ordered[-1])

    def document(self) -> dict[str, float]:
        """Give it as JSON, ms."""
        return {"jobs": self.count, "p50": self.p50, "p99": self.p99, "max": self.longest}


def _rank(count: int, percent: int) -> int:
    """Give the place of a percentile: of 1200 values the 99th is the 1188th, which is place 1187."""
    return -(-count * percent // 100) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What the demo measured. Counts are of jobs, except `applied_twice`, which counts orders."""

    orders: int
    enqueued: int
    """Jobs that `zwheel enqueue` answered for as new."""
    fired: int
    """Of those, how many were started."""
    held: int
    """Attempts that the killed worker had begun and not ended."""
    redelivered: int
    """Jobs that were started again after the kill by another worker, because the killed one had claimed them."""
    applied_twice: int
    """Orders with more than one cancellation."""
    refused: int
    """Attempts that found the order cancelled by an earlier attempt, or their own token outdated."""
    lost: int
    """Jobs that no worker ran to the end."""
    early: int
    """Jobs that were started before their fire time."""
    cancelled: int
    paid: int
    lateness: Spread | None
    """Start minus fire time of the jobs that were started once, by the worker that claimed them first; ms."""
    latest_due_s: float | None
    """When the job that started latest of all was due, s after the kill; negative: before it."""
    redelivery: Spread | None
    """From the kill to the second start; ms."""
    dead: int
    """Jobs in the queue's dead set."""
    seconds: float
    """How long the demo took."""
    server: str

    def wrong(self) -> list[str]:
        """Say what is not as it must be; nothing when all is well."""
        checks = (
            (self.enqueued == self.orders, f"orders that were enqueued: {self.enqueued} of {self.orders}"),
            (self.fired == self.enqueued, f"jobs that were fired: {self.fired} of {self.enqueued}"),
            (self.redelivered > 0, "the kill hit no job: nothing was redelivered"),
            (self.applied_twice == 0, f"orders that were cancelled twice: {self.applied_twice}"),
            (self.lost == 0, f"jobs that were lost: {self.lost}"),
            (self.early == 0, f"jobs that were fired early: {self.early}"),
            (self.dead == 0, f"jobs that are dead: {self.dead}"),
            (
                self.cancelled + self.paid == self.orders,
                f"orders that are neither paid nor cancelled: {self.orders - self.cancelled - self.paid}",
            ),
        )
        return [sentence for well, sentence in checks if not well]

    def document(self) -> dict[str, object]:
        """Give them as JSON."""
        wrong = self.wrong()
        return {
            "ok": not wrong,
            "wrong": wrong,
            "enqueued": self.enqueued,
            "fired": self.fired,
            "redelivered": self.redelivered,
            "applied_twice": self.applied_twice,
            "lost": self.lost,
            "early": self.early,
            "dead": self.dead,
            "held_by_the_killed": self.held,
            "repeats_refused": self.refused,
            "orders_cancelled": self.cancelled,
            "orders_paid": self.paid,
            "lateness_ms": self.lateness and self.lateness.document(),
            "latest_due_s_after_the_kill": self.latest_due_s,
            "redelivery_ms": self.redelivery and self.redelivery.document(),
            "seconds": self.seconds,
            "server": self.server,
        }


def measure(
    shop: Shop, fire_at_ms: Mapping[str, int], kill: Kill | None, *, orders: int, dead: int, seconds: float, server: str
) -> Figures:
    """Count what happened to the jobs that were enqueued.

    Args:
        fire_at_ms: Job id -> fire time, for every job that `zwheel enqueue` answered for; a redelivery does not move it.
        kill: None when the demo ended before the kill.
    """
    attempts: dict[str, list[Attempt]] = {}
    for row in shop.db.execute("SELECT job, attempt, pid, began_us, outcome FROM attempts ORDER BY job, token"):
        attempt = Attempt(*row)
        if attempt.job in fire_at_ms:
            attempts.setdefault(attempt.job, []).append(attempt)
    lateness: list[tuple[float, int]] = []
    redelivery: list[float] = []
    early, unfinished, refused = 0, len(fire_at_ms), 0
    for job, tries in attempts.items():
        due_us = fire_at_ms[job] * 1000
        first, last = tries[0], tries[-1]
        early += any(each.began_us < due_us for each in tries)
        unfinished -= any(each.outcome not in (None, "fenced") for each in tries)
        refused += sum(each.outcome in ("fenced", "repeated") for each in tries)
        if first.number == 1:
            lateness.append(((first.began_us - due_us) / 1000, due_us))
        if kill is not None and _is_redelivery(tries, kill):
            redelivery.append((last.began_us - kill.at_us) / 1000)
    states = dict(shop.db.execute("SELECT state, count(*) FROM orders GROUP BY state"))
    return Figures(
        orders=orders,
        enqueued=len(fire_at_ms),
        fired=len(attempts),
        held=0 if kill is None else _held(shop, kill),
        redelivered=len(redelivery),
        applied_twice=_one(
            shop, "SELECT count(*) FROM (SELECT 1 FROM cancellations GROUP BY number HAVING count(*) > 1)"
        ),
        refused=refused,
        lost=unfinished,
        early=early,
        cancelled=states.get("cancelled", 0),
        paid=states.get("paid", 0),
        lateness=Spread.of([late_ms for late_ms, _ in lateness]),
        latest_due_s=(max(lateness)[1] - kill.at_us) / 1e6 if lateness and kill is not None else None,
        redelivery=Spread.of(redelivery),
        dead=dead,
        seconds=seconds,
        server=server,
    )


def _is_redelivery(tries: Sequence[Attempt], kill: Kill) -> bool:
    """Whether a job was started again after the kill by another worker, and nobody but the killed one had it before."""
    last = tries[-1]
    again = last.number > 1 and last.pid != kill.pid and last.began_us > kill.at_us
    return again and all(each.pid == kill.pid for each in tries[:-1])


def _held(shop: Shop, kill: Kill) -> int:
    return _one(shop, "SELECT count(*) FROM attempts WHERE pid = ? AND ended_us IS NULL", kill.pid)


def _one(shop: Shop, query: str, *values: object) -> int:
    return int(shop.db.execute(query, values).fetchone()[0])


def table(figures: Figures) -> Table:
    """Draw the figures, each with what it must be and how it was counted."""
    from rich.table import Table
    from rich.text import Text

    drawn = Table(
        title=f"{figures.orders:,} orders, two workers, one killed with SIGKILL  ({figures.server})",
        title_style="bold",
        caption=f"all of it in {figures.seconds:.1f} s",
        header_style="bold",
    )
    drawn.add_column("what happened", no_wrap=True)
    drawn.add_column("", justify="right", no_wrap=True)
    drawn.add_column("how it was counted", style="dim")
    for name, shown, well, how in _rows(figures):
        style = "" if well is None else "bold green" if well else "bold red"
        drawn.add_row(name, Text(shown, style), how)
    return drawn


def _rows(figures: Figures) -> list[tuple[str, str, bool | None, str]]:
    refused = f", which refused {figures.refused}" if figures.refused else ""
    rows: list[tuple[str, str, bool | None, str]] = [
        ("jobs enqueued", f"{figures.enqueued:,}", figures.enqueued == figures.orders, "as zwheel enqueue answered"),
        (
            "fired",
            f"{figures.fired:,}",
            figures.fired == figures.enqueued,
            f"{figures.cancelled:,} orders cancelled, {figures.paid:,} paid in time",
        ),
        (
            "redelivered after the kill",
            f"{figures.redelivered:,}",
            figures.redelivered > 0,
            f"{figures.held} were running there; again after {_span(figures.redelivery)}",
        ),
        (
            "effects applied twice",
            f"{figures.applied_twice:,}",
            figures.applied_twice == 0,
            f"by the fencing token in SQLite{refused}",
        ),
        ("lost", f"{figures.lost:,}", figures.lost == 0, "jobs that no worker ran to the end"),
        ("fired early", f"{figures.early:,}", figures.early == 0, "started before the fire time"),
    ]
    late = figures.lateness
    if late is not None:
        how = f"first starts only: {human_count(late.count, 'job')}"
        rows += [
            ("lateness p50", _ms(late.p50), None, how),
            ("lateness p99", _ms(late.p99), None, ""),
            ("lateness max", _ms(late.longest), None, _when(figures.latest_due_s)),
        ]
    return rows


def _ms(value: float) -> str:
    return f"{value:,.1f} ms"


def _when(after_kill_s: float | None) -> str:
    if after_kill_s is None:
        return ""
    return f"of a job due {abs(after_kill_s):.2f} s {'after' if after_kill_s >= 0 else 'before'} the kill"


def _span(spread: Spread | None) -> str:
    return "-" if spread is None else f"{spread.p50 / 1000:.1f} s, at most {spread.longest / 1000:.1f} s"


def save_picture(figures: Figures, path: Path, command: str = "make demo") -> None:
    """Draw the table as an SVG, with fonts that a browser has: nothing is loaded from elsewhere. Raises: OSError."""
    import io
    import re

    from rich.console import Console

    console = Console(
        record=True, file=io.StringIO(), width=PICTURE_WIDTH, color_system="truecolor", force_terminal=True
    )
    console.print(table(figures))
    svg = console.export_svg(title=command, unique_id="zwheel-demo")
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    svg = svg.replace("font-family: Fira Code, monospace", "font-family: ui-monospace, Menlo, Consolas, monospace")
    path.write_text(svg, encoding="utf-8")
