"""The body of a job: what is refused, the limits, compression and encryption."""

from __future__ import annotations

import enum
import hashlib
import hmac
import importlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgpack
import pytest
from pydantic import SecretStr

from zwheel.errors import ConfigError, PayloadError, PayloadTooLarge, UndecodableJob
from zwheel.payload import codec, compression
from zwheel.payload.codec import DEFAULT, Codec, describe_body
from zwheel.payload.extensions import MAX_INT_BYTES, MAX_ITEMS

BERLIN = ZoneInfo("Europe/Berlin")
NAIVE = datetime(2026, 12, 1, tzinfo=UTC).replace(tzinfo=None)
PREAMBLE = b"\x01\x00"
ZSTD: Any = compression.library()
needs_zstd = pytest.mark.skipif(ZSTD is None, reason="neither compression.zstd nor backports.zstd is installed")


def body(content: Any) -> bytes:
    """Put a body together without the codec's checks."""
    return PREAMBLE + msgpack.Packer().pack(content)


def one(value: Any) -> Any:
    """Send one value through the codec, as an argument and as a keyword argument."""
    args, kwargs, headers = DEFAULT.decode(DEFAULT.encode([value], {"value": value}))
    assert repr(args) == repr([kwargs["value"]]) or isinstance(value, (set, frozenset))
    assert headers == {}
    return args[0]


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


def test_args_and_kwargs_may_be_any_sequence_and_any_mapping() -> None:
    assert DEFAULT.decode(DEFAULT.encode(range(2), MappingProxyType({"a": 1}))) == ([0, 1], {"a": 1}, {})
    assert DEFAULT.decode(DEFAULT.encode((1,), {Place.HOME: 1})) == ([1], {"home": 1}, {})


def test_headers_travel_beside_the_arguments() -> None:
    headers = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "baggage": ""}
    assert DEFAULT.decode(DEFAULT.encode([1], {}, headers)) == ([1], {}, headers)


cyclic: list[Any] = []
cyclic.append(cyclic)


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


class Opaque:
    pass


class Leaky:
    def __repr__(self) -> str:
        raise AssertionError("a value of the user's must not be shown")


REFUSED: list[tuple[Any, str]] = [
    (Opaque(), r"args\[0\]: a value of type .*Opaque cannot travel"),
    (Opaque, r"args\[0\]: a value of type type cannot travel"),
    (Line, r"args\[0\]: a value of type type cannot travel"),
    (Leaky(), r"Leaky cannot travel"),
    ({"a": [1, {"b": Opaque()}]}, r"args\[0\]\['a'\]\[1\]\['b'\]: a value of type"),
    (Order(UUID(int=1), [Line("a", Fraction(1, 3))]), r"args\[0\]\['lines'\]\[0\]\['price'\]: .*Fraction"),  # type: ignore[arg-type]
    (NAIVE, r"args\[0\]: the datetime 2026-12-01T00:00:00 has no time zone"),
    ([{"at": NAIVE}], r"args\[0\]\[0\]\['at'\]: the datetime"),
    (time(9, tzinfo=BERLIN), "a time of day in a named zone"),
    ({(1, 2): 3}, r"args\[0\]: a map key must be text or a number, not a tuple"),
    ({Line("a", Decimal(1)): 3}, r"args\[0\]: .*a map key or a set member is not a plain value"),
    ({Line("a", Decimal(1))}, "a map key or a set member is not a plain value"),
    (1j, "complex cannot travel"),
    (range(3), "range cannot travel"),
    ((n for n in [1]), "generator cannot travel"),
    (MappingProxyType({}), "mappingproxy cannot travel"),
    (2 ** (8 * MAX_INT_BYTES), "an int of 1,025 bytes is too large"),
    ("\ud800", r"args\[0\]: .*text that is not valid Unicode"),
    ({"\ud800": 1}, r"args\[0\]: .*text that is not valid Unicode"),
    (cyclic, "nested deeper than 128 levels, or within itself"),
    (nested(127), "nested deeper than 128 levels"),
    (nested(5000), "nested deeper than 128 levels"),
    (nested_sets(10), "sets nested deeper than 4"),
    (nested_sets(2000), "nested too deep"),
    ([0] * (MAX_ITEMS + 1), r"args\[0\]: 65,537 items are too many"),
    (msgpack.ExtType(77, b""), "extension code 77 is unknown"),
    (msgpack.ExtType(2, b"tomorrow"), "a date that cannot be read"),
    (SecretStr("hush"), "SecretStr cannot travel"),
]


@pytest.mark.parametrize(("value", "message"), REFUSED, ids=lambda value: type(value).__name__)
def test_a_value_that_cannot_travel_is_refused_with_its_place(value: Any, message: str) -> None:
    with pytest.raises(PayloadError, match=message) as caught:
        DEFAULT.encode([value], {})
    assert "hush" not in str(caught.value)
    with pytest.raises(PayloadError, match=message.replace(r"args\[0\]", r"kwargs\['k'\]")):
        DEFAULT.encode([], {"k": value})


def test_the_limit_of_depth_is_exact() -> None:
    deep = nested(126)
    assert one([deep[0]]) == deep
    assert DEFAULT.decode(body([[deep, "x" * 500], {}])) == ([deep, "x" * 500], {}, {})


def test_wide_content_with_many_small_containers_is_not_deep() -> None:
    rows = [{"n": [n], "empty": {}} for n in range(2000)]
    assert one(rows) == rows


@pytest.mark.parametrize("args", ["ab", b"ab", {"a": 1}, {1}, None, 5])
def test_args_that_are_no_list_are_refused(args: Any) -> None:
    with pytest.raises(PayloadError, match="args must be a list or a tuple"):
        DEFAULT.encode(args, {})


@pytest.mark.parametrize("kwargs", [[], None, "ab", {1: 2}, {None: 1, "a": []}, {b"a": 1}])
def test_kwargs_that_are_no_map_of_names_are_refused(kwargs: Any) -> None:
    with pytest.raises(PayloadError, match="kwargs"):
        DEFAULT.encode([], kwargs)


@pytest.mark.parametrize(
    "headers",
    [{"a": 1}, {1: "a"}, {"": "a"}, {"a" * 129: ""}, {"a": "b" * 8193}, {str(n): "" for n in range(65)}, ["a"]],
    ids=["number", "name", "empty", "long-name", "long-value", "many", "list"],
)
def test_headers_outside_their_bounds_are_refused_by_writer_and_reader(headers: Any) -> None:
    with pytest.raises(PayloadError, match="headers"):
        DEFAULT.encode([], {}, headers)
    with pytest.raises(UndecodableJob):
        DEFAULT.decode(body([[], {}, headers]))


def test_the_size_limit_is_exact() -> None:
    small = Codec(limit=100, compress_over=None)
    overhead = len(small.encode(["x" * 40], {})) - 40
    fits = small.encode(["x" * (100 - overhead)], {})
    assert len(fits) == 100
    assert small.decode(fits)[0] == ["x" * (100 - overhead)]
    with pytest.raises(PayloadTooLarge) as caught:
        small.encode(["x" * (101 - overhead)], {})
    assert (caught.value.size, caught.value.limit) == (101, 100)
    with pytest.raises(UndecodableJob, match="over the limit of 100"):
        small.decode(Codec(compress_over=None).encode(["x" * (101 - overhead)], {}))


@pytest.mark.parametrize("value", ["x" * 2_000_000, ["x" * 2_000_000]])
def test_a_payload_far_over_the_limit_is_refused(value: Any) -> None:
    with pytest.raises(PayloadTooLarge) as caught:
        DEFAULT.encode([value], {})
    assert caught.value.size > 2_000_000


@pytest.mark.parametrize("options", [{"limit": 10}, {"compress_over": -1}])
def test_settings_out_of_range_are_refused(options: Any) -> None:
    with pytest.raises(ConfigError):
        Codec(**options)


class Toy:
    """An authenticated cipher good enough for a test: a hash as key stream, an HMAC over context and content."""

    def __init__(self, key: bytes) -> None:
        self.key = key

    def _stream(self, nonce: bytes, data: bytes) -> bytes:
        blocks = (hashlib.sha256(self.key + nonce + bytes([n])).digest() for n in range(len(data) // 32 + 1))
        return bytes(a ^ b for a, b in zip(data, b"".join(blocks), strict=False))

    def encrypt(self, plain: bytes, context: bytes) -> bytes:
        nonce = os.urandom(12)
        sealed = nonce + self._stream(nonce, plain)
        return sealed + hmac.digest(self.key, context + b"\0" + sealed, "sha256")

    def decrypt(self, sealed: bytes, context: bytes) -> bytes:
        content, tag = sealed[:-32], sealed[-32:]
        if not hmac.compare_digest(tag, hmac.digest(self.key, context + b"\0" + content, "sha256")):
            raise KeyError("no key opens it")
        return self._stream(content[:12], content[12:])


SECRET = Codec(cipher=Toy(b"k"))


def test_an_encrypted_body_opens_only_with_its_key_and_its_context() -> None:
    stored = SECRET.encode(["anna"], {}, context=b"emails.send job-1")
    assert stored[:2] == b"\x01\x02"
    assert b"anna" not in stored
    assert SECRET.decode(stored, context=b"emails.send job-1") == (["anna"], {}, {})
    for reader, context in [
        (SECRET, b"emails.send job-2"),
        (Codec(cipher=Toy(b"other")), b"emails.send job-1"),
        (DEFAULT, b"emails.send job-1"),
    ]:
        with pytest.raises(UndecodableJob):
            reader.decode(stored, context=context)


def test_the_flags_are_bound_to_an_encrypted_body() -> None:
    stored = bytearray(SECRET.encode(["anna"], {}))
    stored[1] |= 1
    with pytest.raises(UndecodableJob, match="no key opens it"):
        SECRET.decode(bytes(stored))


def test_with_a_cipher_a_plain_body_is_refused_unless_accepted() -> None:
    plain = DEFAULT.encode([1], {})
    with pytest.raises(UndecodableJob, match="it is not encrypted"):
        SECRET.decode(plain)
    assert Codec(cipher=Toy(b"k"), accept_plain=True).decode(plain) == ([1], {}, {})


def test_a_cipher_that_fails_is_a_payload_error() -> None:
    class Broken(Toy):
        def encrypt(self, plain: bytes, context: bytes) -> bytes:
            raise RuntimeError("the key server is away")

    with pytest.raises(PayloadError, match="the cipher failed: RuntimeError"):
        Codec(cipher=Broken(b"")).encode([1], {})


def test_the_limit_counts_what_encryption_adds() -> None:
    with pytest.raises(PayloadTooLarge):
        Codec(limit=100, cipher=Toy(b"k")).encode(["x" * 80], {})


@pytest.fixture
def no_zstd(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Hide the zstd library, and forget the answer of an earlier look."""

    def refuse(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", refuse)
    compression.library.cache_clear()
    yield
    compression.library.cache_clear()


@pytest.mark.usefixtures("no_zstd")
def test_without_the_library_nothing_is_compressed() -> None:
    stored = DEFAULT.encode(["x" * 5000], {})
    assert stored[:2] == PREAMBLE
    assert DEFAULT.decode(stored)[0] == ["x" * 5000]


@pytest.mark.usefixtures("no_zstd")
def test_without_the_library_a_compressed_body_is_undecodable_and_names_the_extra() -> None:
    with pytest.raises(UndecodableJob, match=r"zwheel\[zstd\]"):
        DEFAULT.decode(b"\x01\x01\x28\xb5\x2f\xfd")


def test_a_task_that_encodes_inside_a_conversion_does_not_disturb_the_outer_one() -> None:
    class Reentrant(dict[str, Any]):
        def items(self) -> Any:
            assert DEFAULT.decode(DEFAULT.encode(["inner"], {}))[0] == ["inner"]
            return super().items()

    assert one(Reentrant(a=1)) == {"a": 1}


def test_threads_share_one_codec() -> None:
    failures: list[Exception] = []
    start = threading.Barrier(4)

    def work(number: int) -> None:
        try:
            start.wait(10)
            for n in range(500):
                args = [number, n, {"id": UUID(int=n)}, "x" * (n % 7)]
                assert DEFAULT.decode(DEFAULT.encode(args, {"n": n})) == (args, {"n": n}, {})
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []


def test_a_body_is_described_by_length_digest_and_escaped_start() -> None:
    stored = b"\x01\x00\x92\x91\xa5a\\b\n\x1b" + b"z" * 100
    text = describe_body(stored)
    assert text.startswith(f"110 bytes, sha256 {hashlib.sha256(stored).hexdigest()[:16]}, starting \\x01\\x00")
    assert r"a\x5cb\x0a\x1bzz" in text
    assert text.endswith("z" * 54)
    assert codec.describe_body(b"") == "0 bytes, sha256 e3b0c44298fc1c14, starting "


@needs_zstd
@pytest.mark.parametrize("chosen", [DEFAULT, SECRET], ids=["plain", "encrypted"])
def test_long_content_is_compressed_when_that_saves_a_tenth(chosen: Codec) -> None:
    text = "order 1234 is unpaid; " * 300
    stored = chosen.encode([text], {}, context=b"c")
    assert stored[1] & 1
    assert len(stored) < 400
    assert chosen.decode(stored, context=b"c") == ([text], {}, {})
    noise = os.urandom(5000)
    assert not chosen.encode([noise], {})[1] & 1
    assert not chosen.encode(["x" * 900], {})[1] & 1
    assert not Codec(compress_over=None).encode([text], {})[1] & 1
