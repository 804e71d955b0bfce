"""What all calls share: the call itself, the lane that makes it safe to send twice, and the day buckets of a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from zwheel._version import __version__
from zwheel.calls.scripts import Script
from zwheel.errors import BrokerRefused, SchemaMismatch
from zwheel.keys import SCHEMA, ShardKeys
from zwheel.outside import shown
from zwheel.times import DAY_MS, day_of

Reply = list[Any]
Arg = str | bytes | int
Facts = dict[str, Any]

#: The most jobs one call may carry; Lua's unpack and the time a script may take set it.
BATCH_LIMIT = 1000
#: Answers after which nothing has changed: the caller builds the call again, or gives up.
UNCHANGED = frozenset(
    {"moved", "doubt", "full", "oversized", "foreign", "flushed", "stale", "started", "early", "shards", "moving"}
)
#: An estimate of a fire time that lies this near to midnight, ms, may be of the other day.
_NEAR_MS = 60_000
_days: dict[int, str] = {}


class Trace(NamedTuple):
    """One call as a history keeps it. It is small, and never holds a job's arguments."""

    word: str
    """What the script answered; '' before it did."""
    args: Facts
    """Facts about the whole call."""
    jobs: list[Facts]
    """Facts about each job of the batch, in its order."""


class Call(NamedTuple):
    """One script with its keys and arguments, ready for EVALSHA."""

    script: Script
    keys: Sequence[str]
    args: Sequence[Arg]
    tell: Callable[[Any, Reply | None], Trace] | None = None
    """Makes a trace of `about` and of the answer, None before there is one. None: it changes nothing."""
    about: Any = None
    """What the call was built of, as far as `tell` needs it."""

    def places(self) -> set[str]:
        """Name what a failpoint may be at: its script, and the ways in which jobs end by it."""
        return {self.script.name, *(job["end"] for job in self.trace(None).jobs if "end" in job)}

    def trace(self, reply: Reply | None) -> Trace:
        """Say what a history keeps of this call."""
        return Trace(word(reply) if reply else "", {}, []) if self.tell is None else self.tell(self.about, reply)

    def command(self) -> list[Arg]:
        """The words of the EVALSHA command."""
        return ["EVALSHA", self.script.sha, len(self.keys), *self.keys, *self.args]


class Lane(NamedTuple):
    """Where a caller's request leaves its answer, so that a repeat gets it again. One request at a time."""

    caller: str
    number: int | str
    request: str

    def key(self, keys: ShardKeys) -> str:
        """The replay key on one shard."""
        return keys.replay(self.caller, self.number)


class Loan:
    """A lane that goes back to its session when its block ends. A plain class: a generator's would cost twice as much."""

    __slots__ = ("_free", "_kept", "lane")

    def __init__(self, free: list[int], lane: Lane) -> None:
        self._free = free
        #: The lane with the request that is under way on it.
        self.lane = lane
        self._kept = False

    def __enter__(self) -> Lane:
        return self.lane

    def __exit__(self, *_: object) -> None:
        if not self._kept:
            self.back()

    def keep(self) -> None:
        """Keep the lane when the block ends, until `back`: what became of its request is not known."""
        self._kept = True

    def back(self) -> None:
        """Give the lane back."""
        number = self.lane.number
        if isinstance(number, int):
            self._free.append(number)


def word(reply: Reply) -> str:
    """The word a script answered with."""
    return text(reply[0])


def clock_us(reply: Reply) -> int:
    """The server's clock that a script answered with, µs."""
    return int(reply[1])


def text(value: bytes | str | int) -> str:
    """A reply's element as text."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def when_text(at_ms: int | None, delay_ms: int) -> str:
    """A fire time as the scripts want it: 15 digits, or '+' and a delay."""
    return f"+{delay_ms}" if at_ms is None else f"{at_ms:015d}"


def day_name(number: int) -> str:
    """The bucket name of a day counted from 1970-01-01."""
    name = _days.get(number)
    if name is None:
        if len(_days) > 10_000:
            _days.clear()
        name = _days[number] = day_of(number * DAY_MS)
    return name


class Buckets(NamedTuple):
    """The day buckets that a call names: the script finds the one of each fire time among them."""

    keys: list[str]
    """The buckets' keys."""
    head: list[Arg]
    """How many buckets there are, then for each: day, its first ms."""


def buckets(keys: ShardKeys, fires_ms: Iterable[tuple[int, bool]]) -> Buckets:
    """Name the buckets of a batch's fire times. Each comes with whether it is an estimate.

    An estimate near midnight names the day on the other side too: the server's clock decides which of them it is.
    """
    numbers: dict[int, None] = {}
    for fire_ms, estimated in fires_ms:
        number, into_ms = divmod(fire_ms, DAY_MS)
        numbers[number] = None
        if estimated and not _NEAR_MS <= into_ms < DAY_MS - _NEAR_MS:
            numbers[number - 1 if into_ms < _NEAR_MS else number + 1] = None
    names: list[str] = []
    head: list[Arg] = [len(numbers)]
    for number in numbers:
        day = day_name(number)
        names.append(keys.wheel(day))
        head += (day, number * DAY_MS)
    return Buckets(names, head)


def foreign_schema(meta: str, found: str) -> SchemaMismatch:
    """Say that the keys beside this `meta` key belong to another version's fleet."""
    return SchemaMismatch(
        f"the keys {meta.removesuffix(':meta')}:* were written by a zwheel with schema {shown(found)}, and this one "
        f"({__version__}) has schema {SCHEMA}: upgrade it, or give it a namespace of its own"
    )


def read_letters(reply: Reply) -> str | None:
    """Read an answer of one letter a job; None: the day changed, build the call again. Raises: BrokerRefused."""
    answer = word(reply)
    if answer == "moved":
        return None
    if answer != "ok":
        raise BrokerRefused(f"a script answered {answer!r}, which this version does not know")
    return text(reply[2])


def read_count(reply: Reply) -> int:
    """Read an answer that is a count; 0 where the server's clock was in doubt. Raises: BrokerRefused."""
    if word(reply) == "doubt":
        return 0
    if word(reply) != "ok":
        raise BrokerRefused(f"a script answered {word(reply)!r}, which this version does not know")
    return int(reply[2])
