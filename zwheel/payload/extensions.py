"""How values beyond plain msgpack travel: the extension types of a job's body.

    code    type                    bytes
    -1      datetime in UTC         msgpack's own timestamp
    1       datetime                RFC 9557 text: 2026-12-01T09:00:00+01:00[Europe/Berlin], or with the offset alone
    2       date                    2026-12-01
    3       time                    09:00:00.5, with an offset if it has one
    4       timedelta               µs, big-endian two's complement, shortest form
    5       UUID                    its 16 bytes
    6       Decimal                 ASCII text
    7, 8    set, frozenset          a msgpack array of the members
    9       int beyond 64 bits      big-endian two's complement, at most 1,024 bytes
    32-63   the application's own   whatever its functions pack

No code names a class or a function of the reader, so a body can only ever become one of these values.
A dataclass or a pydantic model travels as a map of its fields, an Enum as its value; `zwheel/payload/arguments.py` rebuilds
them from the task's annotations. A tuple arrives as a list unless the annotation says tuple; inside a set it stays one.
"""

from __future__ import annotations

import dataclasses
import re
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

from msgpack import ExtType, Packer, Timestamp, unpackb

from zwheel.errors import ConfigError, PayloadError
from zwheel.payload.spread import build_map, build_set

T = TypeVar("T")

#: Containers within containers, the two of a body's own included: far below where Python's own recursion ends.
MAX_DEPTH = 128
#: Members of one array, pairs of one map.
MAX_ITEMS = 65_536
#: Bytes of one int: below the 4,300 digits that Python turns into text.
MAX_INT_BYTES = 1024
#: Bytes of one Decimal, date or time as text.
MAX_TEXT_BYTES = 1024
#: A set within a set within a set; each level costs one more C stack frame of the unpacker.
MAX_SET_LEVELS = 4
APPLICATION_CODES = range(32, 64)

#: The first bytes of a map or an array in msgpack.
_OPENING = bytes([*range(0x80, 0xA0), 0xDC, 0xDD, 0xDE, 0xDF])
_CONTAINERS = frozenset({list, dict, tuple})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_CLOCK = r"\d{2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?"
_OFFSET = rf"Z|[+-]{_CLOCK}"
_DATETIME = re.compile(rf"(\d{{4}}-\d{{2}}-\d{{2}}T{_CLOCK}(?:{_OFFSET}))(?:\[([A-Za-z0-9_+/-]{{1,64}})\])?", re.ASCII)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_TIME = re.compile(rf"{_CLOCK}(?:{_OFFSET})?", re.ASCII)
_DECIMAL = re.compile(r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,19})?|Infinity|s?NaN\d*)", re.ASCII)
#: Packed by msgpack itself, subclasses too: an extension for them would never be asked for.
NATIVE = (bool, int, float, str, bytes, bytearray, memoryview, list, tuple, dict)


class _Registered(NamedTuple):
    type: type[Any]
    pack: Callable[[Any], bytes]
    unpack: Callable[[bytes], Any]


_registered: dict[int, _Registered] = {}


def register(code: int, type: type[T], pack: Callable[[T], bytes], unpack: Callable[[bytes], T]) -> None:
    """Let values of `type` and its subclasses travel under an application code, 32 to 63.

    Call it at import time, in producers and workers alike. `unpack` gets bytes that anyone with access to Redis may
    have written; whatever it raises makes the job undecodable. Registering the same class again replaces the functions.

    Raises: ConfigError for a code outside the range or taken, or a type that msgpack packs by itself.
    """
    if code not in APPLICATION_CODES:
        raise ConfigError(f"extension code {code} is not free for applications: use 32 to 63")
    name = _name(type)
    if type is object or type in _BUILT_IN or issubclass(type, NATIVE):
        raise ConfigError(f"{name} or its base travels by itself already: it cannot have a code of its own")
    for other_code, other in _registered.items():
        if (other_code == code) != (_name(other.type) == name):
            raise ConfigError(
                f"extension code {other_code} belongs to {_name(other.type)}; register {name} under one code"
            )
    if code in _registered:
        _PACKERS.pop(_registered[code].type, None)
    _registered[code] = _Registered(type, pack, unpack)
    _PACKERS[type] = lambda value: ExtType(code, bytes(pack(value)))


def to_wire(value: Any) -> Any:
    """Turn one value into something msgpack packs by itself; the `default` of a Packer.

    Raises: PayloadError for a type that does not travel.
    """
    kind = type(value)
    for base in kind.__mro__:
        pack = _PACKERS.get(base)
        if pack is not None:
            return pack(value)
    if hasattr(kind, "__pydantic_validator__") and hasattr(kind, "model_dump"):
        return value.model_dump(mode="python")
    if dataclasses.is_dataclass(kind):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value if isinstance(value.value, (*NATIVE, type(None))) else to_wire(value.value)
    raise PayloadError(
        f"a value of type {_name(kind)} cannot travel in a job: pass plain data, or register the type "
        "with zwheel.codec.register"
    )


def pack_rich(value: Any) -> bytes:
    """Pack any value that travels. Raises: PayloadError, or what msgpack raises for a value it cannot pack."""
    return Packer(default=to_wire).pack(value)


def unpack_rich(data: bytes) -> Any:
    """Unpack one value under the limits above. Raises: any Exception for bytes that are not one valid value."""
    value = unpackb(
        data,
        strict_map_key=False,
        timestamp=3,
        ext_hook=_from_ext,
        object_pairs_hook=_pairs,
        max_array_len=MAX_ITEMS,
        max_map_len=MAX_ITEMS,
    )
    if len(data) > MAX_DEPTH:
        _check_depth(value, data)
    return value


def _check_depth(value: Any, data: bytes) -> None:
    """Raise ValueError for a value nested too deep.

    Each level costs one byte that can open a container, so bytes with few of those need no look at the value.
    Example: 2 KiB of ASCII text and 30 small maps have about 32 such bytes, under 128.
    """
    if len(data) - len(data.translate(None, _OPENING)) <= MAX_DEPTH:
        return
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            item
            for container in level
            for item in (container.values() if type(container) is dict else container)
            if type(item) in _CONTAINERS
        ]
        if not level:
            return
    raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")


def _name(kind: type[Any]) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _pairs(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    if not pairs:
        return {}
    found = build_map(pairs)
    if len(found) != len(pairs):
        raise ValueError("a map names a key twice")
    return found


def _pack_datetime(value: datetime) -> Any:
    if value.utcoffset() is None:
        raise PayloadError(
            f"the datetime {value.isoformat()} has no time zone: pass an aware one, "
            'such as datetime(2026, 12, 1, 9, tzinfo=ZoneInfo("Europe/Berlin"))'
        )
    if value.tzinfo is UTC:
        since = value - _EPOCH
        return Timestamp(since.days * 86_400 + since.seconds, since.microseconds * 1000)
    zone = value.tzinfo.key if isinstance(value.tzinfo, ZoneInfo) else None
    return ExtType(1, f"{value.isoformat()}[{zone}]".encode() if zone else value.isoformat().encode())


def _unpack_datetime(data: bytes) -> datetime:
    found = _match(_DATETIME, data, "datetime")
    when = datetime.fromisoformat(found[1])
    return when if found[2] is None else when.astimezone(ZoneInfo(found[2]))


def _pack_time(value: time) -> Any:
    if value.tzinfo is not None and value.utcoffset() is None:
        raise PayloadError(
            "a time of day in a named zone has no offset without its date: pass a datetime, or the time and the zone's name"
        )
    return ExtType(3, value.isoformat().encode())


def _pack_int(value: int, code: int = 9) -> Any:
    size = (value if value >= 0 else ~value).bit_length() // 8 + 1
    if size > MAX_INT_BYTES:
        raise PayloadError(f"an int of {size:,} bytes is too large: at most {MAX_INT_BYTES:,} travel")
    return ExtType(code, value.to_bytes(size, "big", signed=True))


def _unpack_int(data: bytes) -> int:
    if not 0 < len(data) <= MAX_INT_BYTES:
        raise ValueError(f"an int of {len(data):,} bytes")
    return int.from_bytes(data, "big", signed=True)


def _unpack_uuid(data: bytes) -> uuid.UUID:
    return uuid.UUID(bytes=data)


def _pack_members(code: int) -> Callable[[Any], Any]:
    def pack(value: set[Any] | frozenset[Any]) -> Any:
        return ExtType(code, pack_rich(list(value)))

    return pack


def _members(data: bytes, level: int) -> tuple[Any, ...]:
    if level >= MAX_SET_LEVELS:
        raise ValueError(f"sets nested deeper than {MAX_SET_LEVELS}")
    members = unpackb(
        data,
        use_list=False,
        strict_map_key=False,
        timestamp=3,
        ext_hook=_MEMBER_HOOKS[level],
        object_pairs_hook=_pairs,
        max_array_len=MAX_ITEMS,
        max_map_len=MAX_ITEMS,
    )
    if type(members) is not tuple:
        raise ValueError("a set that is not an array")
    if len(data) > MAX_DEPTH:
        _check_depth(members, data)
    return members


def _set(data: bytes, level: int) -> set[Any]:
    members = _members(data, level)
    found = build_set(members)
    if len(found) != len(members):
        raise ValueError("a set names a member twice")
    return found


def _from_ext(code: int, data: bytes, level: int = 0) -> Any:
    unpack = _UNPACKERS.get(code)
    if unpack is not None:
        return unpack(data)
    if code == 7:
        return _set(data, level)
    if code == 8:
        return frozenset(_set(data, level))
    registered = _registered.get(code)
    if registered is None:
        raise ValueError(f"extension code {code} is unknown to this process")
    return registered.unpack(data)


def _member_hook(level: int) -> Callable[[int, bytes], Any]:
    return lambda code, data: _from_ext(code, data, level)


def _match(pattern: re.Pattern[str], data: bytes, what: str) -> re.Match[str]:
    found = pattern.fullmatch(data.decode("ascii")) if len(data) <= MAX_TEXT_BYTES else None
    if found is None:
        raise ValueError(f"a {what} that cannot be read")
    return found


_MEMBER_HOOKS = tuple(_member_hook(level + 1) for level in range(MAX_SET_LEVELS))

_PACKERS: dict[type[Any], Callable[[Any], Any]] = {
    datetime: _pack_datetime,
    date: lambda value: ExtType(2, value.isoformat().encode()),
    time: _pack_time,
    timedelta: lambda value: _pack_int(value // _MICROSECOND, 4),
    uuid.UUID: lambda value: ExtType(5, value.bytes),
    Decimal: lambda value: ExtType(6, str(value).encode()),
    set: _pack_members(7),
    frozenset: _pack_members(8),
    int: _pack_int,
}
_BUILT_IN = frozenset(_PACKERS)
_UNPACKERS: dict[int, Callable[[bytes], Any]] = {
    1: _unpack_datetime,
    2: lambda data: date.fromisoformat(_match(_DATE, data, "date")[0]),
    3: lambda data: time.fromisoformat(_match(_TIME, data, "time")[0]),
    4: lambda data: timedelta(microseconds=_unpack_int(data)),
    5: _unpack_uuid,
    6: lambda data: Decimal(_match(_DECIMAL, data, "decimal")[0]),
    9: _unpack_int,
}
