"""How long things may take before the checker calls them late."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What the checker holds a run to. Durations in ms."""

    lease_ms: int | None = None
    """The workers' lease; None: what each claim says."""
    reap_ms: int = 5_000
    """How often a worker looks for leases that ran out."""
    idle_ms: int = 1_000
    """How long a due job may wait while a worker with room sleeps: what is promised while one process is in trouble."""
    both_ms: int = 20_000
    """The same while two workers are dead, frozen or cut off, also the timekeeper and its second together. In a fleet
    of up to ten it is 2 s."""
    rounds_ms: int = 600_000
    """The same in a fleet that spares, for a worker that looks at a shard only when its turn comes."""
    slack_ms: int = 1_000
    """What scheduling of processes and round trips may add."""
    lateness_ms: int | None = None
    """The target for the 99th percentile of start - fire time; None: it is shown, not judged."""
    drained: bool = False
    """Whether the run was drained before the snapshot: then every due job must have ended."""
