"""What the model is made of: jobs, what is asked for, and what is answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tests.lua.shard import record
from zwheel.calls import Call
from zwheel.job import JobState

#: The body of a job that is small, and of one that is so large that it lies apart.
SMALL, LARGE = b"\x01\x00\xff\n", b"\x01\x00\xff\n" + b"x" * 1100


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A job to be enqueued."""

    id: str
    at: int | None
    """Fire time, ms; None: `delay` from the server's now."""
    delay: int
    digest: str
    window: int | None
    keep: int
    most: int
    large: bool = False
    replace: bool | None = False
    """Which job of its id gives way: True any that has ended, False a cancelled one, None not even that."""

    def displaces(self, state: str) -> bool:
        """Whether a job of its id in that state gives way to it."""
        return state in ("dxc" if self.replace else "" if self.replace is None else "c")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What an enqueue met for one job: c created, r in the place of an ended one, i the id exists, k its dedup key is
    held; and by which job."""

    letter: str
    id: str
    state: str
    fire: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One job."""

    state: str
    fire: int
    token: int
    most: int
    keep: int
    digest: str
    attempt: int = 0
    worker: str = ""
    failures: bytes | None = None
    large: bool = False
    asked: int | None = None
    """When it was asked to cancel it while it ran, ms."""

    @property
    def alive(self) -> bool:
        return self.state in ("s", "p")

    @property
    def has_body_apart(self) -> bool:
        return self.large and self.state not in ("d", "c")

    def given(self) -> bytes:
        """Its record as a claim gives it, with its body."""
        return self.stored() + (LARGE if self.has_body_apart else b"")

    def stored(self) -> bytes:
        """Its record in Redis; a tombstone has no body, and a large one lies apart."""
        fields: dict[str, Any] = {"body": b""} if self.state in ("d", "c") else {}
        if self.has_body_apart:
            fields = {"apart": len(LARGE)}
        return record(
            self.state, attempt=self.attempt, fire=self.fire, token=self.token, worker=self.worker, most=self.most,
            digest=self.digest, keep=self.keep, failures=self.failures, asked=self.asked, **fields,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What becomes of a schedule: its status letter ('' deletes it), when to look again, its text, and jobs with fire times."""

    letter: str
    due: int | None
    tail: str
    jobs: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reaped:
    """What a reap met."""

    grace: int = 0
    back: Sequence[str] = ()
    dead: Sequence[str] = ()
    cancelled: Sequence[str] = ()
    shortened: int = 0
    doubted: bool = False
    jumps: int = 0


class Held(NamedTuple):
    """A claim as a worker remembers it."""

    id: str
    token: int
    attempt: int
    most: int
    worker: str


class Sent(NamedTuple):
    """The last request of a lane and what its answer said."""

    call: Call
    payload: list[Any]


def is_large(occurrence: str, fire: int) -> bool:
    """Whether the job of an occurrence has a large body: every other does."""
    return (ord(occurrence[-1]) + fire) % 2 == 0


def state_of(letter: str) -> JobState:
    """The state behind a letter."""
    return {
        "s": JobState.SCHEDULED,
        "p": JobState.PROCESSING,
        "d": JobState.DONE,
        "x": JobState.DEAD,
        "c": JobState.CANCELLED,
    }[letter]


def reach(ahead: int, *, precise: bool) -> int:
    """How far ahead a claim takes jobs, ms, whose caller can hold them for so long."""
    return min(ahead, 10) if precise else 0
