"""Decides every invariant of a history, and sums the run up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zwheel.verify import liveness, progress, safety, schedules, stored
from zwheel.verify.bounds import Bounds
from zwheel.verify.events import Event, JobLine, Runs
from zwheel.verify.read import STRANGE, BadHistory
from zwheel.verify.report import Findings, Report

Judge = Callable[[Runs, Bounds, Findings], None]

INVARIANTS: tuple[tuple[str, str, Judge], ...] = (
    ("I1", "nothing is lost", safety.i1_no_loss),
    ("I2", "nothing is invented", safety.i2_no_invention),
    ("I3", "nothing is early", safety.i3_never_early),
    ("I4", "one holder at a time", safety.i4_single_holder),
    ("I5", "stale tokens change nothing", safety.i5_fencing),
    ("I6", "tokens increase", safety.i6_token_order),
    ("I7", "every duplicate has a cause", safety.i7_duplicate_cause),
    ("I8", "attempts are counted and bounded", safety.i8_attempts),
    ("I9", "each job is in one place", stored.i9_one_place),
    ("I10", "the index is right", stored.i10_index),
    ("I11", "one holder for a dedup key", stored.i11_dedup),
    ("I12", "cancelled means never started", safety.i12_cancel),
    ("I13", "ended means ended", safety.i13_terminal_is_final),
    ("I14", "each nominal time fires as its policy says", schedules.i14_schedules),
    ("I19", "parked, not dropped", stored.i19_parked),
    ("I20", "no undeclared key", stored.i20_keys),
    ("I21", "receipts are true", stored.i21_receipts),
    ("I23", "lost leases come back in time", liveness.i23_recovery),
    ("I24", "lateness within the target", liveness.i24_lateness),
    ("I25", "no worker sleeps while jobs are due", progress.i25_progress),
    ("I26", "no mass redelivery after a gap", liveness.i26_no_mass_redelivery),
)  # fmt: skip


def check(runs: Runs, bounds: Bounds | None = None) -> Report:
    """Judge a history that was read. Raises: BadHistory, for values that cannot be."""
    limits = bounds or Bounds()
    verdicts = []
    where = "summary"
    try:
        for where, name, judge in INVARIANTS:
            found = Findings()
            judge(runs, limits, found)
            verdicts.append(found.verdict(where, name))
        counts = {verdict.number: verdict.count for verdict in verdicts}
        return Report(verdicts, _summary(runs, counts))
    except STRANGE as error:
        raise BadHistory.at(f"a value of the history cannot be ({where})", error) from error


def _summary(runs: Runs, counts: dict[str, int]) -> dict[str, Any]:
    jobs = list(runs.jobs.values())
    late = liveness.lateness(runs)
    redelivered: dict[str, int] = {}
    duplicates: dict[str, int] = {}
    for job in jobs:
        _causes(job, redelivered, duplicates)
    faults: dict[str, int] = {}
    for fault in runs.faults:
        faults[fault.kind] = faults.get(fault.kind, 0) + 1
    return {
        "files": runs.files,
        "lines": runs.lines,
        "jobs": sum(move.op == "enqueue" for job in jobs for move in job.moves),
        "starts": sum(len(job.starts) for job in jobs),
        "redeliveries": redelivered,
        "duplicates": duplicates,
        "lost": counts["I1"],
        "early": counts["I3"],
        "in_a_window_of_loss": sum(job.shaky for job in jobs),
        "lateness_p50_ms": _percentile(late, 50),
        "lateness_p99_ms": _percentile(late, 99),
        "unknown_outcomes": dict(sorted(runs.infos.items())),
        "faults": dict(sorted(faults.items())),
    }


def _causes(job: JobLine, redelivered: dict[str, int], duplicates: dict[str, int]) -> None:
    """Count why each claim after the first was made, and which of those led to a second start of the same work."""
    cause = ""
    started = {start.token for start in job.starts}
    ran = False
    for move in job.moves:
        if move.op == "claim":
            if cause:
                redelivered[cause] = redelivered.get(cause, 0) + 1
            if ran and cause != "redrive" and move.token in started:
                duplicates[cause or "unknown"] = duplicates.get(cause or "unknown", 0) + 1
            ran = ran or move.token in started
            cause = "unknown"
        elif move.op == "enqueue":
            cause, ran = "", False
        elif move.op in ("retry", "release", "offer", "redrive"):
            cause = move.op
        elif move.op == "reap":
            cause = "lease_expired"


def _percentile(late: list[tuple[int, JobLine, Event]], share: int) -> float | None:
    return round(late[min(len(late) - 1, len(late) * share // 100)][0] / 1000, 3) if late else None
