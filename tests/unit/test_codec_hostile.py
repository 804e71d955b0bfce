"""Anyone who can write to Redis can write a body: reading it raises UndecodableJob and nothing else, in bounded memory."""

from __future__ import annotations

import tracemalloc
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from zwheel.errors import PayloadTooLarge, UndecodableJob
from zwheel.payload import compression
from zwheel.payload.codec import DEFAULT

PREAMBLE = b"\x01\x00"
ZSTD: Any = compression.library()
needs_zstd = pytest.mark.skipif(ZSTD is None, reason="neither compression.zstd nor backports.zstd is installed")


def body(content: Any) -> bytes:
    """Put a body together without the codec's checks."""
    return PREAMBLE + msgpack.Packer().pack(content)


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def nested_sets(levels: int) -> Any:
    value: Any = frozenset()
    for _ in range(levels):
        value = frozenset([value])
    return value


def empties(count: int) -> bytes:
    """Nest arrays so that `count` empty maps fit under the limit of items: the worst ratio of memory to bytes."""
    row = b"\xdc\x27\x10" + b"\x80" * 10_000
    rows = count // 10_000
    return PREAMBLE + b"\x92\xdc" + rows.to_bytes(2, "big") + row * rows + b"\x80"


HOSTILE: dict[str, bytes] = {
    "nothing": b"",
    "one byte": b"\x01",
    "no content": PREAMBLE,
    "JSON": b'{"args": []}',
    "bare msgpack": b"\x92\x90\x80",
    "another version": b"\x02\x00\x92\x90\x80",
    "signed": b"\x01\x04\x92\x90\x80",
    "unknown flag": b"\x01\x80\x92\x90\x80",
    "encrypted": b"\x01\x02" + b"\x00" * 40,
    "compressed garbage": b"\x01\x01" + b"\x00" * 40,
    "cut short": body([["anna"], {}])[:-2],
    "a byte too many": body([[], {}]) + b"\x00",
    "not an array": body({}),
    "nil": body(None),
    "one element": body([[]]),
    "four elements": body([[], {}, {}, {}]),
    "args a map": body([{}, {}]),
    "args text": body(["ab", {}]),
    "kwargs an array": body([[], []]),
    "kwargs keyed by numbers": body([[], {1: 2}]),
    "kwargs keyed by bytes": body([[], {b"a": 2}]),
    "headers nil": body([[], {}, None]),
    "headers with a number": body([[], {}, {"a": 1}]),
    "array of 4 G": PREAMBLE + b"\x92\xdd\xff\xff\xff\xff",
    "map of 4 G": PREAMBLE + b"\x92\xdf\xff\xff\xff\xff",
    "text of 4 G": PREAMBLE + b"\x92\x91\xdb\xff\xff\xff\xff",
    "bytes of 4 G": PREAMBLE + b"\x92\x91\xc6\xff\xff\xff\xff",
    "extension of 4 G": PREAMBLE + b"\x92\x91\xc9\xff\xff\xff\xff\x05",
    "10,000 levels of arrays": PREAMBLE + b"\x91" * 10_000 + b"\x90",
    "129 levels of arrays": body([[nested(127)], {}]),
    "10,000 levels of maps": PREAMBLE + b"\x81\xa1a" * 10_000 + b"\x80",
    "a million keys": PREAMBLE
    + b"\x92\x90\xdf\x00\x0f\x42\x40"
    + b"".join(b"\xce%b\xc0" % n.to_bytes(4, "big") for n in range(40_000)),
    "65,537 items": PREAMBLE + b"\x92\xdd\x00\x01\x00\x01" + b"\xc0" * 65_537 + b"\x80",
    "over the limit": PREAMBLE + b"\x92\x91\xc6\x00\x10\x00\x00" + b"\x00" * 1_048_576 + b"\x80",
    "invalid UTF-8": PREAMBLE + b"\x92\x91\xa2\xc3\x28\x80",
    "UTF-8 of a surrogate": PREAMBLE + b"\x92\x91\xa3\xed\xa0\x80\x80",
    "a key twice": PREAMBLE + b"\x92\x90\x82\xa1a\x01\xa1a\x02",
    "a key twice, deep": PREAMBLE + b"\x92\x91\x82\xa1a\x01\xa1a\x02\x80",
    "an array as key": PREAMBLE + b"\x92\x91\x81\x90\x01\x80",
    "the byte that is never used": PREAMBLE + b"\x92\x91\xc1\x80",
    "an unknown extension": body([[msgpack.ExtType(63, b"abc")], {}]),
    "a reserved extension": body([[msgpack.ExtType(10, b"abc")], {}]),
    "a timestamp of 3 bytes": PREAMBLE + b"\x92\x91\xc7\x03\xff\x00\x00\x00\x80",
    "a timestamp beyond the calendar": PREAMBLE + b"\x92\x91\xc7\x0c\xff\x00\x00\x00\x00\x7f" + b"\xff" * 7 + b"\x80",
    "a datetime without offset": body([[msgpack.ExtType(1, b"2026-12-01T09:00:00")], {}]),
    "a datetime in an unknown zone": body([[msgpack.ExtType(1, b"2026-12-01T09:00:00+01:00[Mars/Base]")], {}]),
    "a datetime in a folder": body([[msgpack.ExtType(1, b"2026-12-01T09:00:00+01:00[Europe]")], {}]),
    "a datetime in a file elsewhere": body([[msgpack.ExtType(1, b"2026-12-01T09:00:00Z[../../../etc/passwd]")], {}]),
    "a datetime in an absolute file": body([[msgpack.ExtType(1, b"2026-12-01T09:00:00Z[/etc/passwd]")], {}]),
    "a datetime that leaves the calendar": body([[msgpack.ExtType(1, b"0001-01-01T00:00:00+10:00[Asia/Tokyo]")], {}]),
    "a date in February": body([[msgpack.ExtType(2, b"2026-02-30")], {}]),
    "a date in words": body([[msgpack.ExtType(2, b"2026-W49-2")], {}]),
    "a time past midnight": body([[msgpack.ExtType(3, b"25:00:00")], {}]),
    "a duration of no bytes": body([[msgpack.ExtType(4, b"")], {}]),
    "a duration beyond timedelta": body([[msgpack.ExtType(4, b"\x7f" * 12)], {}]),
    "a UUID of 15 bytes": body([[msgpack.ExtType(5, b"\x00" * 15)], {}]),
    "a decimal with underscores": body([[msgpack.ExtType(6, b"1_000")], {}]),
    "a decimal in other digits": body([[msgpack.ExtType(6, "\u0661".encode())], {}]),
    "a decimal of 2,000 digits": body([[msgpack.ExtType(6, b"1" * 2000)], {}]),
    "a decimal beyond its exponent": body([[msgpack.ExtType(6, b"1E9999999999999999999")], {}]),
    "a set that is a map": body([[msgpack.ExtType(7, b"\x80")], {}]),
    "a set of a map": body([[msgpack.ExtType(7, b"\x91\x80")], {}]),
    "a set with a member twice": body([[msgpack.ExtType(7, b"\x92\x01\x01")], {}]),
    "a set with bytes behind": body([[msgpack.ExtType(7, b"\x91\x01\x01")], {}]),
    "a set of a signalling NaN": body([[msgpack.ExtType(7, msgpack.Packer().pack([msgpack.ExtType(6, b"sNaN")]))], {}]),
    "an int of no bytes": body([[msgpack.ExtType(9, b"")], {}]),
    "an int of 1,025 bytes": body([[msgpack.ExtType(9, b"\x01" * 1025)], {}]),
}


@pytest.mark.parametrize("stored", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_body_is_undecodable_and_nothing_worse(stored: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(UndecodableJob, match="the job's body cannot be read: ") as caught:
            DEFAULT.decode(stored)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 32 * 2**20
    assert len(str(caught.value)) < 300
    assert str(caught.value).isascii()
    assert "\n" not in str(caught.value)


def test_sets_within_sets_are_followed_a_few_levels_only() -> None:
    packed = msgpack.Packer().pack([])
    for level in range(1, 3000):
        packed = msgpack.Packer().pack(msgpack.ExtType(8, b"\x91" + packed if level > 1 else packed))
        if level in (4, 5, 2999):
            stored = PREAMBLE + b"\x92\x91" + packed + b"\x80"
            if level <= 4:
                assert DEFAULT.decode(stored)[0] == [nested_sets(3)]
            else:
                with pytest.raises(UndecodableJob, match="sets nested deeper than 4"):
                    DEFAULT.decode(stored)


@pytest.mark.parametrize("stored", [None, "text", 7, [1]])
def test_what_is_not_bytes_is_undecodable(stored: Any) -> None:
    with pytest.raises(UndecodableJob):
        DEFAULT.decode(stored)


def test_the_memory_of_the_worst_body_under_the_limit_is_bounded() -> None:
    stored = empties(250_000)
    assert len(stored) < DEFAULT.limit
    tracemalloc.start()
    try:
        args = DEFAULT.decode(stored)[0]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(map(len, args)) == 250_000
    assert peak < 32 * 2**20


def decodes_or_is_undecodable(stored: bytes) -> None:
    try:
        args, kwargs, headers = DEFAULT.decode(stored)
    except UndecodableJob:
        return
    assert type(args) is list
    assert type(kwargs) is dict
    assert all(type(key) is str for key in kwargs)
    assert type(headers) is dict
    assert all(type(text) is str for pair in headers.items() for text in pair)


@given(st.binary(max_size=300))
@example(b"")
def test_random_bytes_never_raise_anything_else(data: bytes) -> None:
    decodes_or_is_undecodable(data)
    decodes_or_is_undecodable(PREAMBLE + data)
    decodes_or_is_undecodable(PREAMBLE + b"\x92" + data)
    decodes_or_is_undecodable(PREAMBLE + b"\x92\x91" + data + b"\x80")


@given(
    st.integers(-128, 127),
    st.binary(max_size=60) | st.from_regex(r"[0-9TZ:.+\[\]A-Za-z/-]{1,40}", fullmatch=True).map(str.encode),
)
def test_random_extensions_never_raise_anything_else(code: int, data: bytes) -> None:
    packed = msgpack.Packer().pack(data)
    ext = b"\xc7" + bytes([len(data), code & 0xFF]) + data
    assert packed
    decodes_or_is_undecodable(PREAMBLE + b"\x92\x91" + ext + b"\x80")
    decodes_or_is_undecodable(PREAMBLE + b"\x92\x91\x81" + ext + b"\x01\x80")
    decodes_or_is_undecodable(body([[msgpack.ExtType(7, b"\x91" + ext)], {}]))


# One body with every extension, to be damaged.
RICH = DEFAULT.encode(
    [
        [None, True, 1.5, 2**70, -(2**63), "é", b"\x00"],
        {7, frozenset({"a", (1, 2)})},
        datetime(2026, 12, 1, 8, 0, 0, 250_000, tzinfo=UTC),
        datetime(2026, 12, 1, 9, tzinfo=ZoneInfo("Europe/Berlin")),
        [date(2026, 12, 1), time(9, 30), timedelta(days=-1), UUID(int=2**100), Decimal("1.10")],
    ],
    {"lines": [{"sku": "a", 7: {"deep": [[[]]]}}], "text": "x" * 40},
    {"traceparent": "00-ab"},
)


@settings(max_examples=300)
@given(st.data())
def test_damaged_bodies_never_raise_anything_else(data: st.DataObject) -> None:
    stored = bytearray(RICH)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(0, len(stored) - 1)))
        match data.draw(st.sampled_from(["flip", "cut", "insert", "repeat"])):
            case "flip" if stored:
                stored[at] = data.draw(st.integers(0, 255))
            case "cut":
                del stored[at:]
            case "insert":
                stored[at:at] = data.draw(st.binary(max_size=5))
            case _:
                stored[at:at] = stored[at : at + 20]
    decodes_or_is_undecodable(bytes(stored))


@needs_zstd
def test_content_that_compresses_under_the_limit_is_accepted_up_to_four_times_the_limit() -> None:
    fits = "x" * (4 * DEFAULT.limit - 100)
    assert DEFAULT.decode(DEFAULT.encode([fits], {}))[0] == [fits]
    with pytest.raises(PayloadTooLarge):
        DEFAULT.encode(["x" * 4 * DEFAULT.limit], {})


@needs_zstd
def test_a_body_that_expands_too_far_or_is_cut_is_undecodable_in_bounded_memory() -> None:
    bomb = ZSTD.compress(b"\x00" * 50_000_000, 3)
    content = ZSTD.compress(msgpack.Packer().pack([["x" * 5000], {}]), 3)
    tracemalloc.start()
    try:
        for stored, message in [
            (bomb, "expands to more than"),
            (content[:-3], "cut short"),
            (content + b"\x00", "bytes follow"),
            (content + content, "bytes follow"),
            (b"garbage", "ZstdError"),
        ]:
            with pytest.raises(UndecodableJob, match=message):
                DEFAULT.decode(b"\x01\x01" + stored)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * 2**20


@needs_zstd
def test_a_frame_that_asks_for_a_huge_window_is_undecodable() -> None:
    compressor = ZSTD.ZstdCompressor(options={ZSTD.CompressionParameter.window_log: 27})
    stored = compressor.compress(b"\x92\x90\x80") + compressor.flush()
    with pytest.raises(UndecodableJob):
        DEFAULT.decode(b"\x01\x01" + stored)


@needs_zstd
@given(st.binary(max_size=200))
def test_random_compressed_bytes_never_raise_anything_else(data: bytes) -> None:
    decodes_or_is_undecodable(b"\x01\x01" + data)
    decodes_or_is_undecodable(b"\x01\x01\x28\xb5\x2f\xfd" + data)
