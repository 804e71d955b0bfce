"""How values travel: each type arrives as it left, and the stored form never changes."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from zwheel.errors import ConfigError, PayloadError, UndecodableJob
from zwheel.payload import extensions
from zwheel.payload.codec import DEFAULT, register

BERLIN = ZoneInfo("Europe/Berlin")
NAIVE = datetime(2026, 12, 1, tzinfo=UTC).replace(tzinfo=None)
PREAMBLE = b"\x01\x00"


def body(content: Any) -> bytes:
    """Put a body together without the codec's checks."""
    return PREAMBLE + msgpack.Packer().pack(content)


def one(value: Any) -> Any:
    """Send one value through the codec, as an argument and as a keyword argument."""
    args, kwargs, headers = DEFAULT.decode(DEFAULT.encode([value], {"value": value}))
    assert repr(args) == repr([kwargs["value"]]) or isinstance(value, (set, frozenset))
    assert headers == {}
    return args[0]


# Bodies as they are stored. They must stay readable for ever, so no line is ever changed.
GOLDEN: list[tuple[str, list[Any], dict[str, Any], dict[str, str]]] = [
    ("01009291a4616e6e6181a16e02", ["anna"], {"n": 2}, {}),
    ("010093908081ab7472616365706172656e74a530302d6162", [], {}, {"traceparent": "00-ab"}),
    ("01009297c0c3ff01cb3ff8000000000000a3c3a962c402000180", [None, True, -1, 1, 1.5, "éb", b"\x00\x01"], {}, {}),
    ("01009291d6ff6b0e7e8080", [datetime(2026, 12, 1, 8, tzinfo=UTC)], {}, {}),
    ("01009291d7ff3b9aca006b0e7e8080", [datetime(2026, 12, 1, 8, 0, 0, 250_000, tzinfo=UTC)], {}, {}),
    (
        "01009291c72801323032362d31322d30315430393a30303a30302b30313a30305b4575726f70652f4265726c696e5d80",
        [datetime(2026, 12, 1, 9, tzinfo=BERLIN)],
        {},
        {},
    ),
    (
        "01009291c71901323032362d31322d30315430393a30303a30302d30333a333080",
        [datetime(2026, 12, 1, 9, tzinfo=timezone(-timedelta(hours=3, minutes=30)))],
        {},
        {},
    ),
    ("01009291c70a02323032362d31322d303180", [date(2026, 12, 1)], {}, {}),
    ("01009291c70f0330393a30303a30302e35303030303080", [time(9, 0, 0, 500_000)], {}, {}),
    ("01009291c70504ebe228a00080", [timedelta(days=-1)], {}, {}),
    ("01009291d8050123456789abcdef0123456789abcdef80", [UUID("01234567-89ab-cdef-0123-456789abcdef")], {}, {}),
    ("01009291d606312e313080", [Decimal("1.10")], {}, {}),
    ("01009291d507910780", [{7}], {}, {}),
    ("01009291c7030891a16180", [frozenset({"a"})], {}, {}),
    ("01009291c7090901000000000000000080", [2**64], {}, {}),
    ("01009291c70909ff7fffffffffffffff80", [-(2**63) - 1], {}, {}),
]


@pytest.mark.parametrize(("stored", "args", "kwargs", "headers"), GOLDEN)
def test_the_stored_form_never_changes(
    stored: str, args: list[Any], kwargs: dict[str, Any], headers: dict[str, str]
) -> None:
    decoded = DEFAULT.decode(bytes.fromhex(stored))
    assert repr(decoded) == repr((args, kwargs, headers))
    assert DEFAULT.encode(args, kwargs, headers).hex() == stored


plain_scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.binary(max_size=50)
)
# Whole seconds of offset: that is as fine as fromisoformat and msgpack agree on everywhere.
instants = st.datetimes(
    NAIVE.replace(year=1900), NAIVE.replace(year=9990), timezones=st.timezones() | st.just(UTC), allow_imaginary=False
)
rich_scalars = st.one_of(
    plain_scalars,
    instants,
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.uuids(),
    st.decimals(allow_nan=False),
)
members = st.one_of(plain_scalars, st.uuids(), st.dates(), st.tuples(st.integers(), st.text()))
keys = st.one_of(st.text(max_size=8), st.integers(), st.none(), st.binary(max_size=8), st.uuids(), st.dates())
values = st.recursive(
    st.one_of(rich_scalars, st.sets(members, max_size=5), st.frozensets(members, max_size=5)),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(keys, inner, max_size=5),
    max_leaves=15,
)


@settings(suppress_health_check=[HealthCheck.too_slow])  # how busy the machine is says nothing about the values
@given(st.lists(values, max_size=4), st.dictionaries(st.text(max_size=8), values, max_size=4))
def test_every_value_that_travels_arrives_equal_and_of_its_own_type(args: list[Any], kwargs: dict[str, Any]) -> None:
    decoded_args, decoded_kwargs, _ = DEFAULT.decode(DEFAULT.encode(args, kwargs))
    assert decoded_args == args
    assert decoded_kwargs == kwargs
    assert [type(value) for value in decoded_args] == [type(value) for value in args]


@given(instants)
def test_a_datetime_keeps_its_instant_its_offset_and_its_zone(when: datetime) -> None:
    got = one(when)
    assert got.astimezone(UTC) == when.astimezone(UTC)
    assert got.utcoffset() == when.utcoffset()
    assert str(got.tzinfo) == str(when.tzinfo)


def test_the_second_of_two_equal_wall_times_stays_the_second() -> None:
    second = datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=1)
    assert one(second).astimezone(UTC) == datetime(2026, 10, 25, 1, 30, tzinfo=UTC)
    assert one(second.replace(fold=0)).astimezone(UTC) == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    "when", [datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC)]
)
def test_the_ends_of_the_calendar_travel_to_the_microsecond(when: datetime) -> None:
    assert one(when) == when


def test_a_number_that_is_not_a_number_travels() -> None:
    assert repr(one([float("nan"), float("inf"), Decimal("NaN")])) == "[nan, inf, Decimal('NaN')]"


class Colour(enum.Enum):
    RED = "red"
    WHEN = date(2026, 12, 1)


class Level(enum.IntEnum):
    HIGH = 3


class Place(enum.StrEnum):
    HOME = "home"


@dataclass(frozen=True)
class Line:
    sku: str
    price: Decimal


@dataclass
class Order:
    id: UUID
    lines: list[Line]


class Model(BaseModel):
    when: datetime
    place: Place
    lines: tuple[int, ...] = ()


def test_an_enum_travels_as_its_value() -> None:
    assert one([Colour.RED, Colour.WHEN, Level.HIGH, Place.HOME]) == ["red", date(2026, 12, 1), 3, "home"]


def test_a_dataclass_travels_as_a_map_of_its_fields() -> None:
    number = UUID(int=7)
    assert one(Order(number, [Line("a", Decimal("1.10"))])) == {
        "id": number,
        "lines": [{"sku": "a", "price": Decimal("1.10")}],
    }


def test_a_pydantic_model_travels_as_a_map_of_its_fields() -> None:
    when = datetime(2026, 12, 1, tzinfo=UTC)
    assert one(Model(when=when, place=Place.HOME, lines=(1, 2))) == {"when": when, "place": "home", "lines": [1, 2]}


def test_a_tuple_arrives_as_a_list_but_stays_a_tuple_inside_a_set() -> None:
    assert one((1, (2,))) == [1, [2]]
    assert one({(1, (2,))}) == {(1, (2,))}


class Opaque:
    pass


@dataclass(frozen=True)
class Money:
    cents: int


class Euro(Money):
    pass


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the test a registry of its own."""
    monkeypatch.setattr(extensions, "_registered", dict(extensions._registered))
    monkeypatch.setattr(extensions, "_PACKERS", dict(extensions._PACKERS))


@pytest.mark.usefixtures("registry")
def test_an_application_type_travels_under_its_code() -> None:
    register(40, Money, lambda money: str(money.cents).encode(), lambda data: Money(int(data)))
    assert DEFAULT.encode([Money(1234)], {}).hex() == "01009291d6283132333480"
    assert one([Money(1234), {Money(1): {Money(2)}}]) == [Money(1234), {Money(1): {Money(2)}}]
    assert one(Euro(5)) == Money(5)
    with pytest.raises(UndecodableJob, match="invalid literal"):
        DEFAULT.decode(body([[msgpack.ExtType(40, b"x")], {}]))


@pytest.mark.usefixtures("registry")
def test_registering_a_type_again_replaces_its_functions() -> None:
    register(40, Money, lambda money: b"", lambda data: Money(0))
    register(40, Money, lambda money: bytes([money.cents]), lambda data: Money(data[0]))
    assert one(Money(7)) == Money(7)


@pytest.mark.usefixtures("registry")
def test_a_registration_that_clashes_is_refused() -> None:
    def pack(value: Any) -> bytes:
        return b""

    def unpack(data: bytes) -> Any:
        return None

    register(40, Money, pack, unpack)
    for code, kind in [(31, Opaque), (64, Opaque), (-1, Opaque), (40, Opaque), (41, Money)]:
        with pytest.raises(ConfigError, match="extension code"):
            register(code, kind, pack, unpack)
    for kind in (str, Place, dict, tuple, datetime, Decimal, object):
        with pytest.raises(ConfigError, match="travels by itself"):
            register(50, kind, pack, unpack)


@pytest.mark.usefixtures("registry")
def test_what_an_application_packs_must_be_readable_when_it_is_enqueued() -> None:
    def unpack(data: bytes) -> Money:
        raise LookupError("no such currency")

    register(40, Money, lambda money: b"", unpack)
    with pytest.raises(PayloadError, match=r"args\[0\]: .*no such currency"):
        DEFAULT.encode([Money(1)], {})
