"""The shapes of arguments: what an annotation asks for, as plain data that can be published, read back and checked.

    shape                                                          asks for
    null                                                           anything: no annotation, or one with no shape here
    "str" "int" "float" "bool" "bytes" "null"                      that
    "datetime" "date" "time" "timedelta" "uuid" "decimal"          that; text as JSON has it will do, for a timedelta not
    {"list": shape}                                                an array; sets and tuples are arrays too
    {"map": shape}                                                 a map; dataclasses and models are maps too
    {"one_of": [shape, ...]}                                       a union
    {"enum": [value, ...]}                                         one of these texts and numbers

A shape is read from Redis, where anyone may have written it: what is no shape asks for anything.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import inspect
import json
import re
import types
import typing
import uuid
from collections.abc import Container, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any

from zwheel.errors import InvalidTime
from zwheel.plain import cut, quoted

Shape = str | dict[str, Any] | None

_INT = re.compile(r"[+-]?[0-9]{1,400}\Z")
#: How deep a shape may be, and how many alternatives or values it may name.
_DEEPEST, _WIDEST = 8, 64
_KINDS: dict[type[Any], str] = {
    str: "str", int: "int", float: "float", bool: "bool", bytes: "bytes", type(None): "null", datetime: "datetime",
    date: "date", time: "time", timedelta: "timedelta", uuid.UUID: "uuid", Decimal: "decimal",
}  # fmt: skip
_TYPES = {name: kind for kind, name in _KINDS.items()}
_ARRAYS = (list, tuple, set, frozenset)
#: What else than its own type a value may be: a worker makes the type of it, or Python takes one for the other.
_ALSO: dict[str, tuple[type[Any], ...]] = {
    "float": (int,), "decimal": (int, float, str), "datetime": (str,), "date": (str,), "time": (str,), "uuid": (str,),
}  # fmt: skip
#: How a person is told what a shape asks for.
_WORDS = {
    "str": "a text", "int": "a whole number", "float": "a number", "bool": "true or false", "bytes": "bytes",
    "null": "null", "datetime": "a time with its zone, as 2026-12-01T09:00:00Z", "date": "a day, as 2026-12-01",
    "time": "a time of day, as 09:00", "timedelta": "a duration", "uuid": "a UUID", "decimal": "a decimal number",
}  # fmt: skip


class Misshapen(Exception):
    """A value that has not the shape that is asked for; the message goes on after the value's name."""


def shape_of(annotation: Any, depth: int = 0) -> Shape:
    """What an annotation asks for, the annotation resolved; None for anything."""
    origin = typing.get_origin(annotation)
    parts = typing.get_args(annotation)
    if depth > _DEEPEST:
        return None
    if origin is typing.Annotated:
        return shape_of(parts[0], depth)
    if isinstance(annotation, typing.NewType):
        return shape_of(annotation.__supertype__, depth)
    if type(annotation).__name__ == "TypeAliasType":
        return shape_of(annotation.__value__, depth + 1)
    if annotation is None or annotation in _SCALARS:
        return _KINDS[type(None) if annotation is None else annotation]
    if origin is typing.Literal:
        return _enum(parts)
    if origin is typing.Union or origin is types.UnionType:
        return one_of([shape_of(part, depth + 1) for part in parts])
    kind = annotation if origin is None else origin
    if not isinstance(kind, type):
        return None
    return _class(kind, parts, depth)


_SCALARS = frozenset(_KINDS)


def _class(kind: type[Any], parts: tuple[Any, ...], depth: int) -> Shape:
    if issubclass(kind, Enum):
        return _enum([member.value for member in kind])
    if typing.is_typeddict(kind) or dataclasses.is_dataclass(kind) or hasattr(kind, "__pydantic_validator__"):
        return {"map": None}
    if issubclass(kind, tuple) and parts and parts[-1] is not Ellipsis:
        return {"list": one_of([shape_of(part, depth + 1) for part in parts])}
    if issubclass(kind, (*_ARRAYS, collections.abc.Set)) or kind in (
        collections.abc.Sequence, collections.abc.MutableSequence, collections.abc.Collection, collections.abc.Iterable,
    ):  # fmt: skip
        return {"list": shape_of(parts[0], depth + 1) if parts else None}
    if issubclass(kind, (dict, collections.abc.Mapping)):
        return {"map": shape_of(parts[1], depth + 1) if len(parts) == 2 else None}
    return None


def _enum(values: collections.abc.Sequence[Any]) -> Shape:
    plain = [value for value in values if value is None or type(value) in (str, int, float, bool)]
    if not plain or len(plain) < len(values) or len(plain) > _WIDEST:
        return None
    return {"enum": list(plain)}


def one_of(shapes: collections.abc.Sequence[Shape]) -> Shape:
    """A union of shapes."""
    different: list[Shape] = []
    for shape in (inner for union in shapes for inner in _alternatives(union)):
        if shape is None or len(different) >= _WIDEST:
            return None
        if shape not in different:
            different.append(shape)
    return different[0] if len(different) == 1 else {"one_of": different}


def _alternatives(shape: Shape) -> list[Shape]:
    return shape["one_of"] if isinstance(shape, dict) and "one_of" in shape else [shape]


def read_shape(value: Any, depth: int = 0) -> Shape:
    """Read a shape that anyone may have written: what is none asks for anything."""
    if isinstance(value, str):
        return value if value in _TYPES else None
    if not isinstance(value, dict) or len(value) != 1 or depth > _DEEPEST:
        return None
    ((word, inner),) = value.items()
    if word in ("list", "map"):
        return {word: read_shape(inner, depth + 1)}
    if not isinstance(inner, list) or not 0 < len(inner) <= _WIDEST:
        return None
    if word == "one_of":
        return one_of([read_shape(each, depth + 1) for each in inner])
    return _enum(inner) if word == "enum" else None


def annotation_of(shape: Shape) -> Any:
    """The annotation that asks for the same, so that a call is checked as one of the function itself."""
    if shape is None:
        return inspect.Parameter.empty
    if isinstance(shape, str):
        return _TYPES[shape]
    ((word, inner),) = shape.items()
    if word == "enum":
        return typing.Literal[tuple(inner)]
    if word == "one_of":
        return typing.Union[tuple(annotation_of(each) for each in inner)]  # noqa: UP007 - made of parts
    item: Any = Any if inner is None else annotation_of(inner)
    return types.GenericAlias(list, (item,)) if word == "list" else types.GenericAlias(dict, (str, item))


def words_of(shape: Shape) -> str:
    """What a shape asks for, for a person. Example: {"list": "int"} -> 'a list, each a whole number'."""
    if shape is None:
        return "anything"
    if isinstance(shape, str):
        return _WORDS[shape]
    ((word, inner),) = shape.items()
    if word == "enum":
        return "one of " + ", ".join(json.dumps(value, ensure_ascii=False) for value in inner)
    if word == "one_of":
        return " or ".join(map(words_of, inner))
    name = "a list" if word == "list" else "a map"
    return name if inner is None else f"{name}, each {words_of(inner)}"


def code_of(shape: Shape) -> str:
    """A shape as an annotation is written. Example: {"one_of": ["int", "null"]} -> 'int | None'."""
    if shape is None:
        return "Any"
    if isinstance(shape, str):
        return {"null": "None", "uuid": "UUID", "decimal": "Decimal"}.get(shape, shape)
    ((word, inner),) = shape.items()
    if word == "enum":
        return f"Literal[{', '.join(map(repr, inner))}]"
    if word == "one_of":
        return " | ".join(map(code_of, inner))
    if word == "list":
        return "list" if inner is None else f"list[{code_of(inner)}]"
    return "dict" if inner is None else f"dict[str, {code_of(inner)}]"


def check_shape(shape: Shape, value: Any) -> None:
    """Check a value that travels as plain data. Raises: Misshapen."""
    if not fits(shape, value):
        raise Misshapen(f"must be {words_of(shape)}, not {told(value)}")


def told(value: Any) -> str:
    """A value in a message, cut when it is long."""
    if value is None or isinstance(value, str):
        return "null" if value is None else quoted(value)
    return cut(repr(value), 60)


def fits(shape: Shape, value: Any) -> bool:
    """Whether a value that travels as plain data has this shape."""
    if shape is None:
        return True
    if isinstance(shape, str):
        return isinstance(value, (_TYPES[shape], *_ALSO.get(shape, ())))
    ((word, inner),) = shape.items()
    if word == "enum":
        return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in inner)
    if word == "one_of":
        return any(fits(each, value) for each in inner)
    if word == "list":
        return isinstance(value, _ARRAYS) and (inner is None or all(fits(inner, each) for each in value))
    return isinstance(value, Mapping) and (inner is None or all(fits(inner, each) for each in value.values()))


def asks_for(shape: Shape, kinds: Container[Shape]) -> bool:
    """Whether one of these is among what a shape asks for."""
    return any(one in kinds for one in _alternatives(shape))


def from_text(shape: Shape, text: str) -> Any:
    """Make of a text what is asked for: the word of a command line, or what is written where JSON has no such type.

    Example: '8' -> 8 for an int, '8' for a str; '90s' -> a timedelta for one; '[1, 2]' -> [1, 2] for a list.
    Raises: Misshapen.
    """
    # Any text is a text: what else it may be comes first.
    for choice in sorted(_alternatives(shape), key=lambda one: one in ("str", "bytes")):
        try:
            return _read(choice, text)
        except (ValueError, InvalidTime, RecursionError):
            continue
    example = ", as in [1, 2]" if isinstance(shape, dict) and "list" in shape else ""
    raise Misshapen(f"must be {words_of(shape)}{example}, not {told(text)}")


def _read(shape: Shape, text: str) -> Any:
    """Read one alternative. Raises: ValueError, InvalidTime, RecursionError."""
    if shape is None or shape in ("str", "datetime", "date", "time", "uuid", "decimal"):
        return text
    if isinstance(shape, dict):
        return _one_of(shape["enum"], text) if "enum" in shape else _json(shape, text)
    if shape == "int":
        if _INT.match(text) is None:
            raise ValueError(text)
        return int(text)
    if shape == "float":
        return float(text)
    if shape == "bytes":
        return text.encode()
    if shape == "timedelta":
        from zwheel.schedules.durations import parse_duration

        return timedelta(milliseconds=parse_duration(text))
    known: dict[str, bool | None] = {"true": True, "false": False} if shape == "bool" else {"null": None}
    if text not in known:
        raise ValueError(text)
    return known[text]


def _one_of(values: list[Any], text: str) -> Any:
    for value in values:
        if text in (value, json.dumps(value)):
            return value
    raise ValueError(text)


def _json(shape: Shape, text: str) -> Any:
    value = json.loads(text)
    if not fits(shape, value):
        raise ValueError(text)
    return value
