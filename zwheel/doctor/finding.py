"""One thing that was looked at: how it stands, what that means, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from zwheel.errors import BrokerRefused
from zwheel.operations.rights import lacks


class Level(StrEnum):
    """How much a finding matters."""

    OK = "ok"
    """As it should be."""
    WARNING = "warning"
    """Jobs run; something may be lost, leak or stop on a bad day, or could not be seen."""
    PROBLEM = "problem"
    """Jobs are being lost, cannot run, or will be lost under load."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    check: str
    """Which check found it, such as `eviction`; the same word in every run."""
    level: Level
    text: str
    """How it stands and what that means, in a sentence."""
    cure: str = ""
    """What to do about it; '' when nothing is to be done."""
    queue: str = ""
    """The queue it is about; '' for the server."""


def ok(check: str, text: str, queue: str = "") -> Finding:
    """All is well."""
    return Finding(check=check, level=Level.OK, text=text, queue=queue)


def warning(check: str, text: str, cure: str, queue: str = "") -> Finding:
    """Something to look after."""
    return Finding(check=check, level=Level.WARNING, text=text, cure=cure, queue=queue)


def problem(check: str, text: str, cure: str, queue: str = "") -> Finding:
    """Something to mend before jobs depend on it."""
    return Finding(check=check, level=Level.PROBLEM, text=text, cure=cure, queue=queue)


def unseen(check: str, what: str, why: object) -> Finding:
    """Something the server does not let us see: a managed service, or a user without the right."""
    right = lacks(why) if isinstance(why, BrokerRefused) else ""
    if right:
        return warning(check, f"{what} cannot be seen: this user lacks {right}", f"check as {doctor_user()}")
    return warning(
        check, f"{what} cannot be seen: {why}", "ask whoever runs this server, or check as its administrator"
    )


def doctor_user(queues: Sequence[str] = ()) -> str:
    """Who may look at everything, for a cure."""
    options = "".join(f" --queue {queue}" for queue in queues[:5])
    return f"a user with the rules that `zwheel acl doctor{options}` prints"
