"""What the judge knows of one job."""

from __future__ import annotations

from dataclasses import dataclass

from zwheel.workers.peers import group_of

TASK, RARE = "mail.send", "pay.out"
#: The group of workers that know both tasks; the others know the first alone.
ALL = group_of((TASK, RARE))


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
    offered: int | None = None
    """The fire time with which it is claimed by those to whom it is offered."""

    def gives_way(self, asked: bool | None) -> bool:
        """Whether a new job of its id takes its place. asked: as a trace says it, None for a cancelled one alone."""
        return self.state == "c" if asked is None else asked and self.state in ("d", "x", "c")

    @property
    def alive(self) -> bool:
        return self.state in ("s", "p")
