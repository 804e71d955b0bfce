"""What a run shows at its end: the faults, the jobs, why jobs were started again, and the promises."""

from __future__ import annotations

from collections import Counter
from typing import Any

from zwheel.cli.layout import Cell, Column
from zwheel.cli.output import Output

from .conductor import Outcome, Settings
from .judge import Judgement
from .plan import CLUSTER_KINDS, KINDS

_GOOD, _BAD = "green", "bold red"


def kills(outcome: Outcome) -> int:
    """How many processes that ran jobs died by SIGKILL."""
    return len(outcome.killed)


def show(out: Output, settings: Settings, outcome: Outcome, judgement: Judgement) -> None:
    """Print the tables."""
    out.line("")
    _faults(out, settings, outcome)
    _jobs(out, settings, outcome, judgement)
    _again(out, judgement)
    _promises(out, judgement)
    summary = judgement.report.summary
    verdict = Cell("held", _GOOD) if judgement.held else Cell("BROKEN", _BAD)
    out.fields([
        ("kills of workers", f"{kills(outcome):,}"),
        ("lost", _zero(summary["lost"])),
        ("early", _zero(summary["early"])),
        ("checked", f"{summary['lines']:,} lines of {summary['files']:,} processes in {judgement.check_s:.1f} s,"
            f" {judgement.check_cpu_s:.1f} s of them on a processor"),
        ("promises", verdict),
    ])  # fmt: skip
    for complaint in judgement.complaints:
        out.error(complaint)


def _zero(count: int) -> Cell:
    return Cell(f"{count:,}", _BAD if count else _GOOD)


def _faults(out: Output, settings: Settings, outcome: Outcome) -> None:
    kinds = CLUSTER_KINDS if settings.cluster else KINDS
    rows = [
        (f"{outcome.faults[kind.name]:,}", kind.told, kind.rows) for kind in kinds.values() if outcome.faults[kind.name]
    ]
    died = sum(outcome.failpoints.values())
    if died:
        places = ", ".join(f"{place} {count}" for place, count in sorted(outcome.failpoints.items()))
        rows.append((f"{died:,}", f"death at a failpoint: {places}", "K-01 to K-14"))
    tasks = sum(why == "killed by its task" for why in outcome.killed.values())
    if tasks:
        rows.append((f"{tasks:,}", "a task that kills its worker", "K-21 K-22"))
    out.table(
        [Column("times", right=True), Column("fault survived", flexible=True), Column("rows")], rows, empty="no faults"
    )
    out.line("")


def _jobs(out: Output, settings: Settings, outcome: Outcome, judgement: Judgement) -> None:
    jobs, summary = judgement.jobs, judgement.report.summary
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in judgement.dead.most_common())
    lost = ", ".join(f"{(until - since) / 1000:.0f} ms" for since, until in outcome.losses)
    rows = [
        ("jobs enqueued", jobs["enqueued"], f"{jobs['enqueued'] / settings.duration_s:,.0f} a second"),
        ("enqueues refused", jobs["refused"], "their id or dedup key was taken"),
        ("enqueues of unknown outcome", jobs["unknown"], "no answer arrived"),
        ("starts", jobs["starts"], ""),
        ("done", jobs["done"], ""),
        ("died", jobs["died"], reasons),
        ("cancelled", jobs["cancelled"], ""),
        ("rescheduled", jobs["rescheduled"], ""),
        ("redriven", jobs["redriven"], ""),
        ("words of late workers refused", jobs["late tokens refused"], "by their token"),
        ("in a window of lost writes", summary["in_a_window_of_loss"], lost),
    ]
    drained = "not in time" if outcome.drained_s is None else f"{outcome.drained_s:.1f} s after the faults"
    out.table(
        [Column("jobs"), Column("number", right=True), Column("of these", flexible=True)],
        [*((what, f"{count:,}", told) for what, count, told in rows), ("drained", "", drained)],
        empty="",
    )
    out.line("")


def _again(out: Output, judgement: Judgement) -> None:
    rows = [
        (why, f"{count:,}", f"{judgement.twice[why]:,}" if judgement.twice[why] else "")
        for why, count in _grouped(judgement.again).most_common()
    ]
    total = ("all", f"{judgement.again.total():,}", f"{judgement.twice.total():,}")
    out.table(
        [
            Column("claimed again because", flexible=True),
            Column("times", right=True),
            Column("started twice", right=True),
        ],
        [*rows, total],
        empty="",
    )
    out.line("")


def _grouped(counts: Counter[str]) -> Counter[str]:
    return Counter({why: count for why, count in counts.items() if count})


def _promises(out: Output, judgement: Judgement) -> None:
    rows = []
    for verdict in judgement.report.verdicts:
        style = _BAD if verdict.breaches else _GOOD if verdict.state == "held" else "dim"
        rows.append(
            (
                verdict.number,
                verdict.name,
                Cell(str(verdict.state), style),
                f"{verdict.count:,}" if verdict.count else "",
            )
        )
    out.table([Column(""), Column("promise"), Column("verdict"), Column("breaches", right=True)], rows, empty="")
    for verdict in judgement.report.broken:
        for breach in verdict.breaches[:2]:
            out.line(f"{verdict.number}: {breach.job + ': ' if breach.job else ''}{breach.text}")
            for clue in breach.clues:
                out.line(f"      {clue}")
    out.line("")


def document(settings: Settings, outcome: Outcome, judgement: Judgement) -> dict[str, Any]:
    """Give the same for machines."""
    return {
        "seed": settings.seed, "duration_s": settings.duration_s, "held": judgement.held,
        "kills": kills(outcome), "faults": dict(outcome.faults), "failpoints": dict(outcome.failpoints),
        "ends": dict(outcome.deaths), "jobs": dict(judgement.jobs), "dead": dict(judgement.dead),
        "again": dict(judgement.again), "twice": dict(judgement.twice),
        "lost": judgement.report.summary["lost"], "early": judgement.report.summary["early"],
        "drained_s": outcome.drained_s, "losses_us": outcome.losses, "check_s": round(judgement.check_s, 3),
        "check_cpu_s": round(judgement.check_cpu_s, 3),
        "promises": {v.number: str(v.state) for v in judgement.report.verdicts},
        "broken": [v.as_json() for v in judgement.report.broken], "complaints": list(judgement.complaints),
        "summary": judgement.report.summary,
    }  # fmt: skip
