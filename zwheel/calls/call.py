"""What all calls share: the call itself, the lane that makes it safe to send twice, and the day buckets of a batch."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, NamedTuple, TypeVar

from zwheel._version import __version__
from zwheel.clock import ServerClock
from zwheel.errors import BrokerRefused, SchemaMismatch
from zwheel.keys import SCHEMA, ShardKeys
from zwheel.outside import shown
from zwheel.scripts import Script
from zwheel.times import DAY_MS, day_of

Reply = list[Any]
Arg = str | bytes | int
T = TypeVar("T")

#: The most jobs one call may carry; Lua's unpack and the time a script may take set it.
BATCH_LIMIT = 1000
_days: dict[int, str] = {}


class Call(NamedTuple):
    """One script with its keys and arguments, ready for EVALSHA."""

    script: Script
    keys: Sequence[str]
    args: Sequence[Arg]

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

    __slots__ = ("_free", "_lane")

    def __init__(self, free: list[int], lane: Lane) -> None:
        self._free = free
        self._lane = lane

    def __enter__(self) -> Lane:
        return self._lane

    def __exit__(self, *_: object) -> None:
        number = self._lane.number
        if isinstance(number, int):
            self._free.append(number)


class Session:
    """One caller's identity and its lanes, and its estimate of the server's clock. Does no I/O."""

    def __init__(self, namespace: str, caller: str | None = None) -> None:
        self.namespace = namespace
        self.caller = caller or secrets.token_hex(6)
        self.clock = ServerClock()
        #: Tests put the server's time in µs here; '' lets the server read its own clock.
        self.now = ""
        self._requests = count(1)
        self._free: list[int] = []
        self._lanes = count()
        self._shards: dict[str, ShardKeys] = {}

    def keys(self, queue: str) -> ShardKeys:
        """The keys of a queue's first shard. Raises: InvalidName."""
        keys = self._shards.get(queue)
        if keys is None:
            keys = self._shards[queue] = ShardKeys.of(self.namespace, queue)
        return keys

    def lane(self) -> Loan:
        """Lend a lane for one request and its repeats: `with session.lane() as lane`."""
        try:
            number = self._free.pop()
        except IndexError:  # asked, not looked: another thread may take the last one in between
            number = next(self._lanes)
        return Loan(self._free, Lane(self.caller, number, self.request()))

    def request(self) -> str:
        """Make a request id that this session never used before."""
        return str(next(self._requests))


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
    """A batch in the order of its day buckets."""

    keys: list[str]
    """The buckets' keys."""
    head: list[Arg]
    """How many buckets there are, then for each: day, its first ms, how many jobs."""
    order: list[int]
    """The batch's positions, bucket by bucket."""


def buckets(keys: ShardKeys, batch: Sequence[T], fire_ms: Callable[[T], int]) -> Buckets:
    """Group a batch by the UTC day of each fire time."""
    if len(batch) == 1:
        number = fire_ms(batch[0]) // DAY_MS
        day = day_name(number)
        return Buckets([keys.wheel(day)], [1, day, number * DAY_MS, 1], [0])
    groups: dict[int, list[int]] = {}
    for position, item in enumerate(batch):
        number = fire_ms(item) // DAY_MS
        group = groups.get(number)
        if group is None:
            groups[number] = [position]
        else:
            group.append(position)
    head: list[Arg] = [len(groups)]
    order: list[int] = []
    names: list[str] = []
    for number, group in groups.items():
        day = day_name(number)
        names.append(keys.wheel(day))
        head += [day, number * DAY_MS, len(group)]
        order += group
    return Buckets(names, head, order)


def unshuffle(order: Sequence[int], values: Sequence[T]) -> list[T]:
    """Put values that came bucket by bucket back in the batch's order."""
    if all(position == index for index, position in enumerate(order)):
        return list(values)
    result = list(values)
    for value, position in zip(values, order, strict=True):
        result[position] = value
    return result


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
    """Read an answer that is a count. Raises: BrokerRefused."""
    if word(reply) != "ok":
        raise BrokerRefused(f"a script answered {word(reply)!r}, which this version does not know")
    return int(reply[2])
