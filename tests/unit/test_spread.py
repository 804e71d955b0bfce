"""Bodies whose members were chosen to collide are refused, at the producer and at the worker; honest ones pass."""

from __future__ import annotations

import itertools
import random
import struct
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgpack
import pytest

from zwheel.errors import BadArguments, PayloadError, UndecodableJob
from zwheel.payload.arguments import Signature
from zwheel.payload.codec import DEFAULT
from zwheel.payload.compression import compress
from zwheel.payload.extensions import pack_rich
from zwheel.payload.spread import Colliding, build_map, build_set

#: Every int that is this much more than another has its hash.
PRIME = 2**61 - 1
COUNT = 3000


def ints() -> list[Any]:
    return [k * PRIME + 7 for k in range(1024, 1024 + COUNT)]


ATTACKS: dict[str, list[Any]] = {
    "ints": ints(),
    "negative ints": [-value for value in ints()],
    "decimals": [Decimal(value) for value in ints()],
    "UUIDs": [uuid.UUID(int=value) for value in ints()],
    "tuples": [(value, "x") for value in ints()],
    "frozensets": [frozenset([value]) for value in ints()],
    "two hashes": [value + n % 2 for n, value in enumerate(ints())],
    "among others": [*range(COUNT), *ints()],
    "among text": [*(str(n) for n in range(COUNT)), *ints()],
}
HONEST: dict[str, list[Any]] = {
    "a range": list(range(20_000)),
    "ids shifted left": [n << 22 for n in range(20_000)],
    "µs": [1_900_000_000_000_000 + n * 1_000_000 for n in range(20_000)],
    "large random ints": [random.Random(n).getrandbits(160) for n in range(2_000)],
    "powers of two": [2**n for n in range(1_000)],
    "both signs": list(range(-10_000, 10_000)),
    "floats": [n / 8 for n in range(20_000)],
    "decimals": [Decimal(n) / 100 for n in range(5_000)],
    "UUIDs": [uuid.UUID(int=random.Random(n).getrandbits(128)) for n in range(5_000)],
    "datetimes": [datetime(2030, 1, 1, tzinfo=UTC) + timedelta(minutes=n) for n in range(5_000)],
    "dates": [date(2030, 1, 1) + timedelta(days=n) for n in range(5_000)],
    "durations": [timedelta(seconds=n) for n in range(5_000)],
    "pairs": [(n, n % 7) for n in range(5_000)],
    "text": [str(n) for n in range(20_000)],
}


def array(members: list[Any]) -> bytes:
    return b"\xdd" + struct.pack(">I", len(members)) + b"".join(map(pack_rich, members))


def set_body(members: list[Any]) -> bytes:
    """Pack a set member by member: a set of them would cost here what it must not cost there."""
    inner = array(members)
    return b"\x92\x91\xc9" + struct.pack(">Ib", len(inner), 7) + inner + b"\x80"


def map_body(keys: list[Any]) -> bytes:
    pairs = b"".join(pack_rich(key) + b"\xc0" for key in keys)
    return b"\x92\x91\xdf" + struct.pack(">I", len(keys)) + pairs + b"\x80"


def stored(packed: bytes) -> bytes:
    if len(packed) < DEFAULT.limit:
        return b"\x01\x00" + packed
    smaller = compress(packed)
    assert smaller is not None
    return b"\x01\x01" + smaller


@pytest.mark.parametrize("name", ATTACKS)
def test_a_set_of_colliding_members_is_undecodable(name: str) -> None:
    with pytest.raises(UndecodableJob, match="chosen to"):
        DEFAULT.decode(stored(set_body(ATTACKS[name])))


@pytest.mark.parametrize("name", [name for name in ATTACKS if name not in ("tuples", "frozensets")])
def test_a_map_with_colliding_keys_is_undecodable(name: str) -> None:
    with pytest.raises(UndecodableJob, match="chosen to"):
        DEFAULT.decode(stored(map_body(ATTACKS[name])))


def test_colliding_members_deep_inside_and_in_many_places_are_undecodable() -> None:
    inner = msgpack.Packer().pack(msgpack.ExtType(7, array(ints()[:200])))
    nested = b"\x92\x91" + b"\x91" * 20 + inner + b"\x80"
    with pytest.raises(UndecodableJob, match="chosen to"):
        DEFAULT.decode(b"\x01\x00" + nested)


@pytest.mark.parametrize("name", ["ints", "decimals", "UUIDs"])
def test_a_producer_is_refused_what_a_worker_would_refuse(name: str) -> None:
    members = ATTACKS[name][:300]
    with pytest.raises(PayloadError, match="chosen to"):
        DEFAULT.encode([set(members)], {})
    with pytest.raises(PayloadError, match="chosen to"):
        DEFAULT.encode([], {"table": dict.fromkeys(members)})


def test_a_list_that_an_annotation_makes_a_set_is_looked_at_too() -> None:
    def task(numbers: set[int], table: frozenset[int] = frozenset()) -> None:
        pass

    args, kwargs, _ = DEFAULT.decode(DEFAULT.encode([ints()[:300]], {}))
    with pytest.raises(BadArguments, match="chosen to"):
        Signature(task).bind(args, kwargs)


@pytest.mark.parametrize("name", HONEST)
def test_honest_members_travel(name: str) -> None:
    members = HONEST[name]
    assert build_set(members) == set(members)
    assert build_map([(member, None) for member in members]) == dict.fromkeys(members)
    some = members[:4000]
    assert DEFAULT.decode(DEFAULT.encode([set(some)], {}))[0] == [set(some)]


def test_few_values_that_come_again_and_again_are_no_attack() -> None:
    assert build_set([0, 1.0, Decimal(2)] * 10_000) == {0, 1, 2}
    assert build_set([-1, -2] * 10_000) == {-1, -2}


def probes(size: int) -> Iterator[int]:
    """The places of a table in the order in which a dict looks at them once a hash has no more bits to add."""
    at = 0
    for _ in range(size):
        yield at
        at = (5 * at + 1) % size


def walkers(size: int, filled: int, wanted: int) -> list[int]:
    """Small ints that fill places which follow each other, and others that have to walk along all of these."""
    order = list(probes(size))
    place = {at: n for n, at in enumerate(order)}
    found: list[int] = []
    factor = 0
    while len(found) < wanted:
        factor += 1
        for start in order[: filled // 3]:
            number = start + size * factor
            at, rest = number % size, number
            while rest := rest >> 5:
                at = (5 * at + rest + 1) % size
                if place[at] > filled * 2 // 3:
                    break
            else:
                if place[(5 * at + 1) % size] < filled // 3:
                    found.append(number)
    return [*order[:filled], *found[:wanted]]


def test_small_ints_that_walk_through_the_whole_table_are_refused() -> None:
    keys = walkers(2**15, 11_000, 7_000)
    assert len({hash(key) for key in keys}) == len(keys)
    with pytest.raises(Colliding):
        build_map([(key, None) for key in keys])


@pytest.mark.parametrize("build", [lambda members: build_map([(m, None) for m in members]), build_set])
def test_a_slow_machine_alone_refuses_nothing(
    build: Callable[[list[int]], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = itertools.count(step=1_000_000_000)
    monkeypatch.setattr(time, "thread_time_ns", lambda: next(seconds))
    for members in (range(50_000), [n * 4_096 for n in range(5_000)], [hash(str(n)) for n in range(50_000)]):
        assert len(build(list(members))) == len(set(members))  # type: ignore[arg-type]
