"""The shapes of arguments: what an annotation becomes, what is read back, and which values fit."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any, Literal, NamedTuple, NewType, Optional, TypedDict, Union

import pytest

from zwheel.published.shapes import Misshapen, annotation_of, check_shape, code_of, read_shape, shape_of, words_of

Order = NewType("Order", int)


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Size(IntEnum):
    SMALL = 1


class Odd(Enum):
    PAIR = (1, 2)


@dataclass
class Point:
    x: int


class Named(TypedDict):
    name: str


class Pair(NamedTuple):
    a: int
    b: str


class Own:
    pass


@pytest.mark.parametrize(
    ("annotation", "shape", "code"),
    [
        (str, "str", "str"),
        (None, "null", "None"),
        (Any, None, "Any"),
        (Own, None, "Any"),
        (int | None, {"one_of": ["int", "null"]}, "int | None"),
        (Optional[Union[int, str]], {"one_of": ["int", "str", "null"]}, "int | str | None"),  # noqa: UP007, UP045
        (int | Own, None, "Any"),
        (list[int], {"list": "int"}, "list[int]"),
        (tuple[int, str], {"list": {"one_of": ["int", "str"]}}, "list[int | str]"),
        (tuple[int, ...], {"list": "int"}, "list[int]"),
        (set, {"list": None}, "list"),
        (Sequence[date], {"list": "date"}, "list[date]"),
        (dict[str, float], {"map": "float"}, "dict[str, float]"),
        (Mapping[str, Any], {"map": None}, "dict"),
        (Point, {"map": None}, "dict"),
        (Named, {"map": None}, "dict"),
        (Pair, {"list": None}, "list"),
        (Color, {"enum": ["red", "blue"]}, "Literal['red', 'blue']"),
        (Size, {"enum": [1]}, "Literal[1]"),
        (Odd, None, "Any"),
        (Literal["a", 2], {"enum": ["a", 2]}, "Literal['a', 2]"),
        (Annotated[int, "of things"], "int", "int"),
        (Order, "int", "int"),
        (uuid.UUID, "uuid", "UUID"),
        (timedelta, "timedelta", "timedelta"),
    ],
)
def test_an_annotation_has_a_shape_that_is_plain_data(annotation: Any, shape: Any, code: str) -> None:
    found = shape_of(annotation)
    assert found == shape
    assert read_shape(json.loads(json.dumps(found))) == shape
    assert code_of(found) == code
    assert shape is None or shape_of(annotation_of(found)) == shape


def test_what_is_too_deep_or_too_wide_asks_for_anything() -> None:
    deep: Any = int
    for _ in range(50):
        deep = list[deep]
    assert "int" not in json.dumps(shape_of(deep))
    assert shape_of(Literal[tuple(range(1000))]) is None
    shape: Any = "int"
    for _ in range(10_000):
        shape = {"list": shape}
    assert "int" not in words_of(read_shape(shape))


@pytest.mark.parametrize(
    "garbage",
    [
        1, "complex", [], {}, {"list": 1, "map": 2}, {"one_of": []}, {"one_of": "int"}, {"enum": [[1]]}, {"enum": {}}, {"what": "int"},
        {"one_of": ["int"] * 1000}, True,
    ],
)  # fmt: skip
def test_what_is_no_shape_asks_for_anything(garbage: Any) -> None:
    assert read_shape(garbage) in (None, {"list": None})


NOW = datetime(2026, 12, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        (int, [1, True], ["1", 1.0, None]),
        (float, [1, 1.5], ["1"]),
        (str, ["x"], [1, None, b"x"]),
        (bool, [True], [1, "true"]),
        (bytes, [b"x"], ["x"]),
        (datetime, [NOW, "2026-12-01T00:00:00Z"], [1_790_000_000]),
        (date, [date(2026, 12, 1), "2026-12-01"], [1]),
        (time, [time(9), "09:00"], [9]),
        (timedelta, [timedelta(1)], [90, "90s"]),
        (uuid.UUID, [uuid.UUID(int=1), str(uuid.UUID(int=1))], [1]),
        (Decimal, [Decimal(1), 1, "1.5"], [None]),
        (int | None, [1, None], ["1"]),
        (list[int], [[1], (1,), {1}, []], [["1"], "1", {"a": 1}]),
        (dict[str, int], [{"a": 1}, {}], [{"a": "1"}, [1]]),
        (Color, ["red"], ["green", None]),
        (Literal[1], [1], [True, 2]),
        (Any, [1, None, "x"], []),
    ],
)
def test_a_value_has_a_shape_or_not(annotation: Any, good: list[Any], bad: list[Any]) -> None:
    shape = shape_of(annotation)
    for value in good:
        check_shape(shape, value)
    for value in bad:
        with pytest.raises(Misshapen, match="must be "):
            check_shape(shape, value)


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(Misshapen) as raised:
        check_shape("int", "x" * 10_000)
    assert len(str(raised.value)) < 120
