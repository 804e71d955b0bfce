r"""Where a schedule stands, and the record that holds it with its definition.

    0      version, `1`
    1      status: a active, p paused, f finished
    2-17   stamp: the server's µs of its last change, 16 digits; every change names the stamp that it was built on
    18     line feed, the state as JSON, line feed, the definition as JSON

Scripts read the first 18 characters and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, NamedTuple

from zwheel.errors import UndecodableJob
from zwheel.job import JobId, QueueName
from zwheel.outside import Unreadable, as_text, shown
from zwheel.schedules.definition import Definition
from zwheel.schedules.occurrences import Rhythm
from zwheel.times import MAX_MS

HEADER_CHARS = 18
#: How many decided occurrences a state remembers.
RECENT = 20


class Status(StrEnum):
    """Whether a schedule puts occurrences on the wheel."""

    ACTIVE = "active"
    PAUSED = "paused"
    """By a person; nothing of it is on the wheel until it is resumed."""
    FINISHED = "finished"
    """Its end or its count is reached, or its times are over."""

    @property
    def letter(self) -> str:
        """How the record writes it."""
        return self.value[0]


class Verdict(StrEnum):
    """What became of an occurrence when it was decided."""

    FIRED = "fired"
    """On the wheel for its time."""
    CATCH_UP = "catch-up"
    """Missed, and put on the wheel afterwards."""
    SKIPPED = "skipped"
    """The occurrence before it was still active."""
    MISSED = "missed"
    """Missed, and left out by the misfire policy."""
    BUFFERED = "buffered"
    """Waited for the occurrence before it to end, then put on the wheel."""
    TRIGGERED = "triggered"
    """Started by hand."""


#: Verdicts of what went on the wheel at its time or afterwards.
RAN = frozenset({Verdict.FIRED, Verdict.CATCH_UP, Verdict.BUFFERED})
_LETTERS = {
    Verdict.FIRED: "f", Verdict.CATCH_UP: "c", Verdict.SKIPPED: "o", Verdict.MISSED: "m", Verdict.BUFFERED: "b",
    Verdict.TRIGGERED: "t",
}  # fmt: skip
_VERDICTS = {letter: verdict for verdict, letter in _LETTERS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """One occurrence that was decided: nominal time, fire time (0 when it did not fire), both ms, and the verdict."""

    at_ms: int
    fire_ms: int
    verdict: Verdict


class Promise(NamedTuple):
    """An occurrence that a record names: its nominal time, ms, and the wall time that it stands for ('' for none)."""

    at_ms: int
    wall: str


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Where a schedule stands. Changes only by a script that checked the stamp."""

    status: Status = Status.ACTIVE
    created_ms: int = 0
    anchor_ms: int = 0
    """Where `@every` counts from."""
    cursor_ms: int = 0
    """Every occurrence up to here is decided."""
    last_ms: int | None = None
    """Nominal time of the newest occurrence that was put on the wheel; not one started by hand."""
    buffered_ms: int | None = None
    """The occurrence that waits for the one before it to end."""
    fired: int = 0
    skipped: int = 0
    missed: int = 0
    """How many were left out by the misfire policy; a number too large to count is a lower bound."""
    ahead: tuple[tuple[int, int], ...] = ()
    """Nominal and fire times of what may still wait on the wheel; an edit takes it back. All that is decided and has
    its nominal time before it is in here."""
    taken: tuple[int, ...] = ()
    """Nominal times up to the cursor that are to be decided again as missed ones: a pause took them off the wheel when
    they were due, or no worker started them in time."""
    caught: tuple[int, int] = (0, 0)
    """For fire_all: how many of the missed ones up to a time (ms) are caught up already. They may come back one by one,
    and are counted together."""
    recent: tuple[Decided, ...] = ()
    """The newest decided ones, oldest first."""
    next_ms: int | None = None
    """Nominal time of the first occurrence that is not decided; None: there is none."""
    next_wall: str = ""
    """The wall time that it stands for, by the zone data of who wrote it; '' when it follows no wall clock."""
    owed: tuple[Promise, ...] = ()
    """Further promised occurrences, which are none by the data of the process that wrote this."""
    newest: Promise | None = None
    """The newest decided occurrence, with its wall time: the same wall time is not decided again under another time."""
    declared: str = ""
    """Digest of the definition as its owner last gave it: an edit by hand stays until the owner changes its own."""

    @property
    def promise(self) -> Promise | None:
        """The next one, as it was promised."""
        return None if self.next_ms is None else Promise(self.next_ms, self.next_wall)

    def text(self) -> str:
        """Write it as JSON on one line; what is empty is left out."""
        given: dict[str, object] = {
            "created": self.created_ms, "anchor": self.anchor_ms, "cursor": self.cursor_ms, "last": self.last_ms,
            "buffered": self.buffered_ms, "fired": self.fired, "skipped": self.skipped, "missed": self.missed,
            "ahead": [list(pair) for pair in self.ahead], "taken": list(self.taken),
            "caught": list(self.caught) if self.caught[0] else [],
            "recent": [[d.at_ms, d.fire_ms, _LETTERS[d.verdict]] for d in self.recent], "next": self.next_ms,
            "wall": self.next_wall, "owed": [list(one) for one in self.owed],
            "newest": list(self.newest) if self.newest else [], "declared": self.declared,
        }  # fmt: skip
        return json.dumps({k: v for k, v in given.items() if v not in (None, "", [], 0)}, separators=(",", ":"))


def undecided(state: State, times: Collection[int]) -> State:
    """A state before the occurrences at these times, which were put on the wheel, were decided."""
    recent = tuple(d for d in state.recent if d.at_ms not in times or d.verdict is Verdict.TRIGGERED)
    last = state.last_ms
    if last in times:
        ran = [d.at_ms for d in recent if d.verdict in RAN]
        last = max(ran) if ran else None
    return replace(state, recent=recent, last_ms=last, fired=max(0, state.fired - len(times)))


def given_back(state: State, times: Collection[int]) -> State:
    """A state in which occurrences that did not start in time are to be decided again, as missed ones.

    A schedule that was finished is not, until that is done.
    """
    state = undecided(state, times)
    return replace(
        state, taken=tuple(sorted({*state.taken, *times})),
        ahead=tuple(pair for pair in state.ahead if pair[0] not in times),
        status=Status.ACTIVE if state.status is Status.FINISHED else state.status,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleInfo:
    """A schedule as Redis holds it at the moment it was read. A snapshot: it does no I/O and never changes."""

    definition: Definition
    state: State
    stamp: str
    """The server's µs of its last change, 16 digits."""

    @property
    def name(self) -> str:
        """Its name, unique in its queue."""
        return self.definition.name

    @property
    def queue(self) -> QueueName:
        """The queue it lives in, and its jobs too."""
        return self.definition.queue

    @property
    def status(self) -> Status:
        """Active, paused or finished."""
        return self.state.status

    @property
    def owner(self) -> str:
        """Which application, file or crontab it is synced from; '' when it was added by hand."""
        return self.definition.owner

    @property
    def next_ms(self) -> int | None:
        """When it fires next, ms; None when paused or finished."""
        if self.status is not Status.ACTIVE:
            return None
        coming = [at for at, _ in self.state.ahead[:1]]
        return min([*coming, *([] if self.state.next_ms is None else [self.state.next_ms])], default=None)

    def next_after(self, now_ms: int) -> int | None:
        """When it fires next after a time, ms; None when paused or finished, or when nothing is known to follow."""
        if self.status is Status.PAUSED:
            return None
        coming = [at for at, _ in self.state.ahead if at > now_ms][:1]
        return min([*coming, *([] if self.state.next_ms is None else [self.state.next_ms])], default=None)

    def rhythm(self) -> Rhythm:
        """What enumerates its occurrences."""
        return self.definition.rhythm(self.state.anchor_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """One occurrence that was decided, and what its job tells."""

    at_ms: int
    """Nominal time, ms."""
    job_id: JobId | None
    """None when the occurrence did not run."""
    verdict: Verdict
    fire_ms: int
    """When it was due, ms; 0 when it did not run."""
    state: str = ""
    """The job's state: scheduled, processing, done, dead or cancelled; '' when it is not kept any more."""
    started_ms: int | None = None
    """When it was claimed last, ms."""
    ended_ms: int | None = None
    attempt: int = 0


def schedule_tail(state: State, definition: Definition | str) -> str:
    """What follows the stamp in a record."""
    return f"\n{state.text()}\n{definition if isinstance(definition, str) else definition.text()}"


def read_schedule(raw: bytes, name: str = "", queue: str = "") -> ScheduleInfo:
    """Read a record. name, queue: where it lies; '' when that does not matter.

    Raises: UndecodableJob, when another version wrote it, when it is damaged, or when what it needs is missing here,
    such as a time zone or the package that knows holidays.
    """
    try:
        head, state, definition = raw.decode().split("\n", 2)
        if head[:1] != "1" or len(head) != HEADER_CHARS or not (head.isascii() and head[2:].isdigit()):
            raise ValueError("its header is of another version")
        status = {s.letter: s for s in Status}[head[1]]
        info = ScheduleInfo(definition=Definition.parse(definition), state=_state(state, status), stamp=head[2:])
        if name not in ("", info.name) or queue not in ("", info.queue):
            raise ValueError(f"it says that it is schedule {info.name} of queue {info.queue}")
        info.rhythm()
    except UndecodableJob as error:
        raise UndecodableJob(_unreadable(name, queue, str(error).removeprefix("a schedule cannot be read: "))) from None
    except Exception as error:  # whatever anyone wrote there, and whatever is missing here, ends nothing but this read
        raise UndecodableJob(_unreadable(name, queue, str(error) or type(error).__name__)) from None
    return info


def _unreadable(name: str, queue: str, why: str) -> str:
    which = f"schedule {shown(name)}" if name else "a schedule"
    where = f" of queue {shown(queue)}" if queue else ""
    return f"{which}{where} cannot be read: {shown(why)}"


def unreadable_schedule(name: object, queue: str, error: UndecodableJob) -> Unreadable:
    """The entry of a listing for a schedule that cannot be read."""
    return Unreadable(name=as_text(name), queue=queue, reason=str(error))


def _state(text: str, status: Status) -> State:
    given: dict[str, Any] = json.loads(text)
    return State(
        status=status, created_ms=_time(given.get("created", 0)), anchor_ms=_time(given.get("anchor", 0)),
        cursor_ms=_time(given.get("cursor", 0)), last_ms=_maybe(given.get("last")),
        buffered_ms=_maybe(given.get("buffered")), fired=_count(given.get("fired", 0)),
        skipped=_count(given.get("skipped", 0)), missed=_count(given.get("missed", 0)),
        ahead=tuple((_time(a), _time(b)) for a, b in given.get("ahead", ())),
        taken=tuple(_time(at) for at in given.get("taken", ())), caught=_caught(given.get("caught")),
        recent=tuple(
            Decided(at_ms=_time(a), fire_ms=_time(b), verdict=_VERDICTS[letter]) for a, b, letter in given.get("recent", ())
        ),
        next_ms=_maybe(given.get("next")), next_wall=str(given.get("wall", "")),
        owed=tuple(Promise(_time(at), str(wall)) for at, wall in given.get("owed", ())),
        newest=_promise(given.get("newest")), declared=str(given.get("declared", "")),
    )  # fmt: skip


def _time(value: object) -> int:
    """A stored time, ms. Raises: ValueError."""
    if type(value) is not int or not 0 <= value <= MAX_MS:
        raise ValueError(f"{value!r} is not a time")
    return value


def _caught(given: Any) -> tuple[int, int]:
    return (_time(given[0]), _count(given[1])) if given else (0, 0)


def _promise(given: Any) -> Promise | None:
    return Promise(_time(given[0]), str(given[1])) if given else None


def _maybe(value: object) -> int | None:
    return None if value is None else _time(value)


def _count(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is not a count")
    return value
