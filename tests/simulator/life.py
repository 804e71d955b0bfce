"""What the judge knows of one job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.simulator.promise import must
from zwheel.calls.call import Trace
from zwheel.schedules.definition import occurrence_id
from zwheel.workers.peers import group_of

TASK, RARE = "mail.send", "pay.out"
#: The group of workers that know both tasks; the others know the first alone.
ALL = group_of((TASK, RARE))
#: What an answer says of a job that it changed.
_CHANGED = frozenset("dxrbocs")


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
    aside: bool = False
    """Set aside by a former version, and as it was otherwise: it is judged again when it is back."""
    renewed: bool = False
    """Whether its holder renewed its lease while it was aside."""
    asked: bool = False
    """Whether it was asked to cancel it while it ran."""
    offered: int | None = None
    """The fire time with which it is claimed by those to whom it is offered."""

    def gives_way(self, asked: bool | None) -> bool:
        """Whether a new job of its id takes its place. asked: as a trace says it, None for a cancelled one alone."""
        return self.state == "c" if asked is None else asked and self.state in ("d", "x", "c")

    def starts_in_time(self, now_us: int) -> bool:
        """Whether it may start now, after it was claimed ahead of its time."""
        return self.damaged or self.fire * 1000 <= now_us

    def cancel(self, now_us: int) -> None:
        """It is cancelled."""
        self.state, self.ended = "c", now_us // 1000 + max(self.keep, 600_000)

    def cancels(self, letter: str) -> bool:
        """Whether it is cancelled by an answer to its end: it is when that was asked for, and it is not done, and only then."""
        must(
            (letter == "c") == (self.asked and letter != "d"),
            f"I12: its end was answered by {letter}, but it is {self}",
        )
        return letter == "c"

    @property
    def alive(self) -> bool:
        return self.state in ("s", "p")


def touched(lives: dict[str, Life], name: str, told: Trace, now_us: int) -> None:
    """A job that was aside went on otherwise, by its holder or a person: the judge does not know how it stands."""
    for job in told.jobs:
        life = lives.get(job["id"])
        if life is None or not life.aside:
            continue
        if name == "extend" and job["letter"] == "k":
            life.renewed, life.lease_until = True, now_us // 1000 + told.args["lease"]
        elif name != "extend" and job.get("letter") in _CHANGED:
            life.aside = False


def placed(lives: dict[str, Life], told: Trace, now_us: int) -> bool:
    """Jobs are where their records say again: scheduled, or held by nobody and to be reaped. Whether any was aside."""
    back = False
    for job in told.jobs:
        life = lives.get(job["id"])
        if life is not None and life.aside and job.get("letter") == "f":
            life.damaged = life.aside = False
            back = True
            if life.state == "p" and not life.renewed:
                # Its holder is fenced.
                life.token, life.lease_until = life.token + 1, now_us // 1000
            life.renewed = False
    return back


def still_waits(waiting: dict[str, int], facts: dict[str, Any], told: Trace, mark: Callable[[str], None]) -> None:
    """I14: an occurrence that waits goes on waiting until it runs, whatever is written, unless all is deleted."""
    name, waits = facts["name"], (facts.get("state") or {}).get("buffered")
    before = waiting.get(name)
    if before is not None and waits != before:
        must(
            any(job["id"] == occurrence_id(name, before) for job in told.jobs),
            f"I14: what waited of {name} was dropped",
        )
        mark("what waited ran")
    elif before is not None and told.args.get("name"):
        mark("what waits was edited")
    if waits is None:
        waiting.pop(name, None)
    else:
        waiting[name] = waits
