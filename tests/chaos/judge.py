"""Judges a run by its history: the invariants, what became of the jobs, and why jobs were started again."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from zwheel.verify import Bounds, Report, check, read
from zwheel.verify.events import Event, JobLine, Runs

from .conductor import Outcome
from .fleet import REAP_S

#: What processors that more is asked of than they can do may add to each bound, ms. Nothing is added to I25: a history
#: tells what its workers had to wait for.
SLACK_MS = 5_000
#: How long a due job may wait for an idle worker while two are struck, in a fleet as small as this one, ms.
BOTH_MS = 2_000
#: The same where a fleet spares, as on a cluster: a worker comes round to the shards of the full in turn, ms.
ROUNDS_MS = 15_000
#: How long after a worker goes on its lapsed leases may still be reaped, µs.
_SETTLED_US = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What the history says."""

    report: Report
    check_s: float
    """How long reading and checking took, seconds of the wall clock."""
    check_cpu_s: float
    """How long it held a processor, seconds."""
    jobs: Counter[str]
    """Jobs by what became of them, and enqueues by their answer."""
    dead: Counter[str]
    """Dead jobs by reason."""
    again: Counter[str]
    """Claims after a job's first, by cause."""
    twice: Counter[str]
    """Of those, the ones whose job had been started before and had not said that it failed: duplicates, by cause."""
    complaints: tuple[str, ...]
    """What went wrong besides the invariants."""

    @property
    def held(self) -> bool:
        """Whether everything is as it must be."""
        return not self.report.broken and not self.complaints


def judge(history: Path, outcome: Outcome) -> Judgement:
    """Read and check a history. Raises: BadHistory."""
    began, began_cpu = time.monotonic(), time.process_time()
    runs = read([history])
    bounds = Bounds(
        reap_ms=int(REAP_S * 1000),
        slack_ms=SLACK_MS,
        both_ms=BOTH_MS,
        rounds_ms=ROUNDS_MS,
        drained=outcome.drained_s is not None,
    )
    report = check(runs, bounds)
    check_s, check_cpu_s = time.monotonic() - began, time.process_time() - began_cpu
    again: Counter[str] = Counter()
    twice: Counter[str] = Counter()
    why = _Causes(outcome)
    for job in runs.jobs.values():
        _count_again(job, why, again, twice)
    jobs, dead = _count_jobs(runs)
    return Judgement(
        report=report,
        check_s=check_s,
        check_cpu_s=check_cpu_s,
        jobs=jobs,
        dead=dead,
        again=again,
        twice=twice,
        complaints=_complaints(outcome),
    )


def _complaints(outcome: Outcome) -> tuple[str, ...]:
    said = list(outcome.crashed)
    if outcome.drained_s is None:
        said.append(f"not drained in time: {outcome.rest} are left")
    if outcome.strays:
        said.append(f"{len(outcome.strays)} processes were left and had to be killed")
    return tuple(said)


class _Causes:
    """Says why a claim ended without its worker's word."""

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome

    def of_lapse(self, claim: Event, reap: Event) -> str:
        """Why the lease of a claim ran out, so that it was reaped."""
        words = claim.source.proc.split(":")
        pid = int(words[1]) if len(words) > 2 and words[1].isdigit() else 0
        if any(since <= reap.us <= until + _SETTLED_US for since, until in self._outcome.stopped.get(pid, ())):
            return "its worker was stopped"
        if pid in self._outcome.killed:
            return f"its worker was {self._outcome.killed[pid]}".replace("was died", "died")
        if pid in self._outcome.proxied:
            return "its worker's network"
        if pid in self._outcome.drained:
            return "its worker ended, and it did not stop"
        return "its lease ran out otherwise"


def _count_again(job: JobLine, why: _Causes, again: Counter[str], twice: Counter[str]) -> None:
    started = {start.token for start in job.starts}
    claim: Event | None = None
    cause, failed = "", False
    ran = False
    for move in job.moves:
        if move.op == "claim":
            if claim is not None:
                cause = cause or ("confirmed writes were lost" if job.shaky else "who took it back got no answer")
                again[cause] += 1
                if ran and not failed and move.token in started:
                    twice[cause] += 1
            claim, cause, failed = move, "", False
            ran = move.token in started
        elif move.op == "enqueue":
            claim = None
        elif move.op == "retry":
            cause, failed = "it failed, a retry", True
        elif move.op in ("release", "offer"):
            cause, failed = "given back unharmed", not ran
        elif move.op == "redrive":
            cause, failed = "redriven by the operator", True
        elif move.op == "reap" and claim is not None:
            cause = why.of_lapse(claim, move)


def _count_jobs(runs: Runs) -> tuple[Counter[str], Counter[str]]:
    jobs: Counter[str] = Counter()
    dead: Counter[str] = Counter()
    for job in runs.jobs.values():
        jobs["starts"] += len(job.starts)
        jobs["refused"] += sum(event.op == "enqueue" for event in job.refused)
        jobs["unknown"] += any(event.op == "enqueue" for event in job.maybe)
        for move in job.moves:
            if move.op == "enqueue":
                jobs["enqueued"] += 1
            elif move.op == "complete":
                jobs["done"] += 1
            elif move.op == "cancel":
                jobs["cancelled"] += 1
            elif move.op == "reschedule":
                jobs["rescheduled"] += 1
            elif move.op == "redrive":
                jobs["redriven"] += 1
            elif move.terminal:
                jobs["died"] += 1
                dead[str(move.facts.get("reason") or "lease_expired")] += 1
        jobs["late tokens refused"] += sum(event.letter == "f" for event in job.refused)
    return jobs, dead
