"""Runs seeds, and makes of a failure the few steps that lead to it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.simulator.decisions import Decisions, Schedule, shrink
from tests.simulator.fleet import EVENTS, Fleet
from tests.simulator.promise import Violation
from tests.simulator.wire import Server
from tests.simulator.world import NETWORK_FAULTS, World

STEPS = 300
_LANED = (
    "enqueue",
    "claim",
    "settle",
    "offer",
    "cancel",
    "reschedule",
    "redrive",
    "define",
)
SHRINK_S = 20.0
#: What a few hundred seeds must reach: the rare branches of the scripts, and each fault.
MARKS = frozenset(
    {
        *(f"replay of {name}" for name in _LANED),
        *(f"moved answer to {name}" for name in ("enqueue", "claim", "settle", "reap", "reschedule", "redrive")),
        *(f"role {name}" for name in ("timekeeper", "second", "follower")),
        *NETWORK_FAULTS,
        *EVENTS,
        "cancel in another bucket", "cancelled", "cap full", "capped", "dead trimmed", "dedup refused",
        "dedup window outlives its holder", "enqueue gave up", "enqueue repeated by another process", "fenced", "flush", "flushed answer to claim",
        *(f"gave way out of {state}" for state in "cdx"),
        "grace answer to reap", "doubt answer to reap", "reaper held back", "leases shortened", "late request refused", "missing", "operator gave up", "orphan counted", "paused", "pruned", "purged", "queue full", "queue halted", "queue refounded",
        "reaped", "reaped to dead", "redriven", "redrive refused by key", "reschedule in another bucket", "rescheduled",
        "resumed after a pause", "script loaded again", "server away", "stepped down", "strike", "token of its own",
        "goes round", "dead as unknown", "taken as offered",
        "given up in silence", "blocked loop", "settled beside a blocked loop",
        "occurrence", "stale advance", "busy advance", "free advance", "free advance ahead", "busy advance ahead", "taken back", "schedule deleted", "what waited ran",
        "what waits was edited",
        "scheduler gave up", "tender gave up",
        "claimed ahead", "held until its time", "chunk of another call", "enqueue repeated by the same process", "a part of a batch asked for again",
        "enqueue refused again",
        "unreadable set aside", "set aside", "taken back from aside", "woken by a token", "worker died with claims",
    }
)  # fmt: skip
#: How a seed is run: the scripts beside the model; the model alone; the scripts alone, with damaged keys, or with no
#: other fault than a clock that jumps again and again.
MODES = ("both", "both", "both", "damage", "both", "clock", "both", "damage", "both", "model")


def mode_of(seed: int) -> str:
    """Which kind of run a seed is."""
    return MODES[seed % len(MODES)]


@dataclass(frozen=True, slots=True)
class Failure:
    """A seed that broke a promise."""

    seed: int
    mode: str
    error: str
    schedule: Schedule
    trace: list[str]

    def __str__(self) -> str:
        steps = len(self.schedule) - 1
        return "\n".join(
            [
                f"seed {self.seed} ({self.mode}): {self.error}",
                f"the shortest way to it that was found, {steps} steps:",
                *self.trace,
                f"again: python -m tests.simulator --seed {self.seed} --trace",
                f"schedule: {self.schedule}",
            ]
        )


class Simulator:
    """Runs on one server. marks: what was reached so far, over all runs."""

    def __init__(self, server: Server | None, *, steps: int = STEPS, mode: str | None = None) -> None:
        self.marks: set[str] = set()
        self._server = server
        self._steps = steps
        self._mode = mode

    def seed(self, seed: int, *, shrink_s: float = SHRINK_S) -> Failure | None:
        """Run one seed; a failure comes with its shrunk schedule."""
        decisions = Decisions(seed)
        error, _ = self._run(seed, decisions)
        if error is None:
            return None
        kind = _kind(error)

        def fails(schedule: Schedule) -> Schedule | None:
            again = Decisions(seed, schedule)
            met, _ = self._run(seed, again)
            return again.taken if met is not None and _kind(met) == kind else None

        schedule = shrink(decisions.taken, fails, shrink_s) if shrink_s else decisions.taken
        final, lines = self._run(seed, Decisions(seed, schedule), traced=True)
        return Failure(seed, self.mode_of(seed), _said(final or error), schedule, lines)

    def mode_of(self, seed: int) -> str:
        """How this simulator runs a seed."""
        return self._mode or mode_of(seed)

    def trace(self, seed: int) -> tuple[Exception | None, list[str]]:
        """Run one seed and tell what happened, line by line."""
        return self._run(seed, Decisions(seed), traced=True)

    def replay(self, seed: int, schedule: Schedule) -> tuple[Exception | None, list[str]]:
        """Run a schedule again, as a failure printed it."""
        return self._run(seed, Decisions(seed, schedule), traced=True)

    def _run(self, seed: int, decisions: Decisions, *, traced: bool = False) -> tuple[Exception | None, list[str]]:
        mode = self.mode_of(seed)
        world = World(
            decisions, None if mode == "model" else self._server, mirrored=mode in ("both", "model"),
            damage=mode == "damage", clock=mode == "clock", marks=self.marks, traced=traced,
        )  # fmt: skip
        try:
            with silent():
                Fleet(world).run(self._steps)
        except Exception as error:
            return error, [*(world.lines or []), f"broken: {_said(error)}"]
        return None, world.lines or []


def _kind(error: Exception) -> str:
    """What makes two failures the same: the promise, or else the first words."""
    text = _said(error)
    return text.split(":")[0] if isinstance(error, Violation) and ":" in text[:5] else " ".join(text.split()[:2])


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, AssertionError) else f"{type(error).__name__} {error}"


@contextmanager
def silent() -> Iterator[None]:
    """Lost leases are the daily bread here."""
    log = logging.getLogger("zwheel.worker")
    before = log.disabled
    log.disabled = True
    try:
        yield
    finally:
        log.disabled = before
