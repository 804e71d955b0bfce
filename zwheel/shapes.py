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
import types
import typing
import uuid
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any

Shape = str | dict[str, Any] | None

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
    text = "null" if value is None else ascii(value) if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


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
