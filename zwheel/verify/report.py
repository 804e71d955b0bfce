"""What the checker found: one verdict an invariant, with the few events that prove a breach, and a summary."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from zwheel.verify.events import NEVER, Event, Source

#: How many breaches of one invariant are told apart; the rest are counted.
SHOWN = 5
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class State(StrEnum):
    """What became of a promise."""

    HELD = "held"
    BROKEN = "broken"
    UNDECIDED = "not decidable"
    """The history does not hold what it takes to tell."""


@dataclass(frozen=True, slots=True)
class Clue:
    """One event of a witness."""

    text: str
    source: Source | None

    @classmethod
    def of(cls, event: Event) -> Clue:
        """Describe an event."""
        words = [clock(event.us if event.us < NEVER else event.since), event.op]
        if not event.sure:
            words.append("(no answer)")
        if event.letter:
            words.append(f"-> {event.letter}")
        words += [f"{name} {getattr(event, name)}" for name in ("token", "attempt") if getattr(event, name)]
        if event.fire is not None:
            words.append(f"fire time {clock(event.fire * 1000)}")
        return cls(" ".join(words), event.source)

    def __str__(self) -> str:
        return self.text if self.source is None else f"{self.text}  [{self.source.proc} {self.where}]"

    @property
    def where(self) -> str:
        """File and line."""
        return "" if self.source is None else f"{self.source.file}:{self.source.line}"


@dataclass(frozen=True, slots=True)
class Breach:
    """One case in which a promise did not hold."""

    text: str
    """What happened, in a sentence."""
    job: str
    """`queue/id`; '' when it is about no single job."""
    clues: tuple[Clue, ...]
    """The events that prove it, in order."""


@dataclass(slots=True)
class Verdict:
    """What became of one invariant."""

    number: str
    name: str
    state: State = State.HELD
    why: str = ""
    """Why it cannot be decided."""
    breaches: list[Breach] = field(default_factory=list)
    """The shortest first, at most SHOWN of them."""
    count: int = 0
    """How many breaches there are."""

    def as_json(self) -> dict[str, Any]:
        """The verdict as a document."""
        return {
            "invariant": self.number, "name": self.name, "state": str(self.state), "why": self.why, "count": self.count,
            "breaches": [
                {"text": b.text, "job": b.job, "events": [{"text": c.text, "where": c.where} for c in b.clues]}
                for b in self.breaches
            ],
        }  # fmt: skip


@dataclass(slots=True)
class Report:
    """All verdicts and the summary."""

    verdicts: list[Verdict]
    summary: dict[str, Any]

    @property
    def broken(self) -> list[Verdict]:
        """The invariants that did not hold."""
        return [verdict for verdict in self.verdicts if verdict.state is State.BROKEN]

    def verdict(self, number: str) -> Verdict:
        """One invariant's. Raises: KeyError."""
        for verdict in self.verdicts:
            if verdict.number == number:
                return verdict
        raise KeyError(number)


class Findings:
    """Gathers the breaches of one invariant; keeps the shortest witnesses."""

    def __init__(self) -> None:
        self.breaches: list[Breach] = []
        self.count = 0
        self.why = ""

    def add(self, text: str, *clues: Event | Clue, job: str = "") -> None:
        """Note a breach."""
        self.count += 1
        if len(self.breaches) >= SHOWN and len(clues) >= len(self.breaches[-1].clues):
            return
        named = tuple(Clue.of(clue) if isinstance(clue, Event) else clue for clue in clues)
        self.breaches.append(Breach(text, job, named))
        self.breaches.sort(key=lambda breach: len(breach.clues))
        del self.breaches[SHOWN:]

    def undecided(self, why: str) -> None:
        """Say why it cannot be decided. A breach that was found stays one."""
        self.why = why

    def verdict(self, number: str, name: str) -> Verdict:
        """Sum up."""
        state = State.BROKEN if self.count else State.UNDECIDED if self.why else State.HELD
        return Verdict(number, name, state, self.why, self.breaches, self.count)


def clock(us: int) -> str:
    """A time in µs as a person reads it: `10:00:00.123456Z`, with the date when it is not of today's kind."""
    try:
        return f"{_EPOCH + timedelta(microseconds=us):%Y-%m-%dT%H:%M:%S.%f}Z"
    except OverflowError:
        return f"{us} µs"
