"""What the judge knows of one job."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Life:
    """One job from its enqueue on. Times in ms."""

    state: str
    """s p d x c as in its record; g: deleted."""
    fire: int
    most: int
    keep: int
    digest: str
    attempt: int = 0
    starts: int = 0
    causes: int = 1
    """Why it may start: it was enqueued, went back, was reaped or redriven."""
    token: int = 0
    lease_until: int = 0
    ended: int = 0
    """Dead: when it died. Done or cancelled: when its tombstone may go."""
    damaged: bool = False

    @property
    def alive(self) -> bool:
        return self.state in ("s", "p")
