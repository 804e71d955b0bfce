"""Values are rebuilt from the annotations of the task's parameters, or refused."""

from __future__ import annotations

import collections
import enum
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, Optional, TypedDict, TypeVar, Union
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field
from pydantic.dataclasses import dataclass as pydantic_dataclass

from zwheel.errors import BadArguments
from zwheel.payload import codec
from zwheel.payload.arguments import Signature

T = TypeVar("T")
UNBOUND: Any = T


class Colour(enum.Enum):
    RED = "red"
    BOTH = (1, 2)


class Place(enum.StrEnum):
    HOME = "home"


class Point(NamedTuple):
    x: int
    when: date


@dataclass(frozen=True, slots=True)
class Line:
    sku: str
    price: Decimal = Decimal(0)


@dataclass
class Order:
    id: UUID
    lines: list[Line]
    colour: Colour = Colour.RED
    note: str | None = None
    seen: datetime | None = field(default=None, kw_only=True)


@dataclass
class LateOrder(Order):
    late: Tree | None = None


@dataclass
class Tree:
    name: str
    children: list[Tree] = field(default_factory=list)


@dataclass
class Checked:
    n: int
    double: int = field(init=False)

    def __post_init__(self) -> None:
        if self.n < 0:
            raise ValueError("n is negative")
        self.double = 2 * self.n


@dataclass
class Seeded:
    n: int
    seed: InitVar[int]


@dataclass
class Box(Generic[T]):
    item: T


class Plain(TypedDict):
    line: Line


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: Annotated[int, Field(ge=0)]
    born: date = Field(alias="bornOn", default=date(2020, 1, 1))


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    lives: int


class Picky(BaseModel):
    n: int

    def model_post_init(self, context: Any) -> None:
        raise LookupError("never")


@pydantic_dataclass
class Counted:
    n: int


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]
OrderId = NewType("OrderId", UUID)
ID = UUID("01234567-89ab-cdef-0123-456789abcdef")


def with_annotation(annotation: Any) -> Signature:
    def task(value): ...  # type: ignore[no-untyped-def]

    task.__annotations__ = {"value": annotation}
    return Signature(task)


def rebuilt(annotation: Any, value: Any) -> Any:
    """Rebuild one value of an annotation, given by position and by name."""
    signature = with_annotation(annotation)
    args, kwargs = signature.bind([value], {})
    assert kwargs == {}
    assert signature.bind([], {"value": value})[1] == {"value": args[0]}
    return args[0]


def sent(annotation: Any, value: Any) -> Any:
    """Send a value through the codec and rebuild what arrives."""
    args, kwargs, _ = codec.DEFAULT.decode(codec.DEFAULT.encode([value], {}))
    return with_annotation(annotation).bind(args, kwargs)[0][0]


ORDER = Order(ID, [Line("a", Decimal("1.10")), Line("b")], Colour.BOTH, seen=datetime(2026, 12, 1, 8, tzinfo=UTC))


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Order, ORDER),
        (Order | None, ORDER),
        (Optional[Order], None),  # noqa: UP045
        (Union[str, Order], ORDER),  # noqa: UP007
        (Line | Order, ORDER),
        (Annotated[Order, "anything"], ORDER),
        (list[Order], [ORDER]),
        (Sequence[Order], [ORDER]),
        (Iterable[Order], [ORDER]),
        (dict[str, Order], {"a": ORDER}),
        (Mapping[date, Line], {date(2026, 12, 1): Line("a")}),
        (LateOrder, LateOrder(ID, [], late=Tree("x"))),
        (Tree, Tree("a", [Tree("b", [Tree("c")]), Tree("d")])),
        (tuple, (1, "a")),
        (tuple[int, ...], (1, 2)),
        (tuple[Line, ...], (Line("a"), Line("b"))),
        (tuple[str, Line], ("a", Line("b"))),
        (tuple[()], ()),
        (tuple[tuple[int, int], ...], ((1, 2), (3, 4))),
        (list[tuple[int, str]], [(1, "a")]),
        (dict[str, tuple[int, int]], {"a": (1, 2)}),
        (Point, Point(1, date(2026, 12, 1))),
        (list[Point], [Point(1, date(2026, 12, 1))]),
        (Colour, Colour.RED),
        (Colour, Colour.BOTH),
        (Place, Place.HOME),
        (Colour | None, Colour.RED),
        (dict[Place, Colour], {Place.HOME: Colour.RED}),
        (set[Place], {Place.HOME}),
        (frozenset[tuple[int, int]], frozenset({(1, 2)})),
        (OrderId, ID),
        (Cat, Cat(lives=9, bornOn=date(2021, 5, 5))),
        (Cat | None, None),
        (Pet, Dog(lives=1)),
        (Cat | Dog, Dog(lives=1)),
        (list[Cat], [Cat(lives=9)]),
        (dict[str, Pet], {"a": Cat(lives=1), "b": Dog(lives=2)}),
        (Line | Cat, Cat(lives=9)),
        (tuple[Cat, ...], (Cat(lives=9),)),
        (Counted, Counted(3)),
        (Checked, Checked(4)),
        (float | Line, 5),
        (Line | dict, {"other": 1}),
        (Plain | Line, {"line": {"sku": "a"}}),
        (UUID | str, "text"),
        (datetime, datetime(2026, 12, 1, 8, tzinfo=UTC)),
    ],
    ids=str,
)
def test_an_argument_arrives_as_its_annotation_says(annotation: Any, value: Any) -> None:
    got = sent(annotation, value)
    assert got == value
    assert type(got) is type(value)
    assert repr(got) == repr(value)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Order, ORDER),
        (Colour, Colour.RED),
        (Point, Point(1, date(2026, 12, 1))),
        (Cat, Cat(lives=1)),
        (Line | None, Line("a")),
    ],
    ids=str,
)
def test_a_value_that_has_its_type_already_is_left_alone(annotation: Any, value: Any) -> None:
    assert rebuilt(annotation, value) is value


@pytest.mark.parametrize(
    ("annotation", "text", "value"),
    [
        (datetime, "2026-12-01T09:00:00+01:00", datetime(2026, 12, 1, 8, tzinfo=UTC)),
        (datetime | None, "2026-12-01T09:00Z", datetime(2026, 12, 1, 9, tzinfo=UTC)),
        (date, "2026-12-01", date(2026, 12, 1)),
        (time, "09:30", time(9, 30)),
        (UUID, str(ID), ID),
        (UUID | str, str(ID), str(ID)),
        (Decimal, "1.10", Decimal("1.10")),
        (list[Decimal], ["1", "2"], [Decimal(1), Decimal(2)]),
        (Order, {"id": str(ID), "lines": [{"sku": "a", "price": "2"}]}, Order(ID, [Line("a", Decimal(2))])),
        (set[int], [1, 2], {1, 2}),
        (set, [1, 2], {1, 2}),
        (frozenset[str], ["a"], frozenset({"a"})),
        (Cat, {"lives": 1, "bornOn": "2021-05-05"}, Cat(lives=1, bornOn=date(2021, 5, 5))),
    ],
    ids=str,
)
def test_what_json_can_say_becomes_what_the_annotation_says(annotation: Any, text: Any, value: Any) -> None:
    got = rebuilt(annotation, text)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    "annotation",
    [
        Any, object, int, str, dict, list, list[int], dict[str, list[int]], Plain, list[Plain], int | None, int | str,
        Literal["a"], Callable[[Line], int], UNBOUND, list[UNBOUND], type[Line], Box, "Missing", "list[Missing]", collections.OrderedDict,
        inspect.Parameter.empty,
    ],
    ids=str,
)  # fmt: skip
def test_other_annotations_leave_values_as_they_are(annotation: Any) -> None:
    if annotation is Box:
        assert rebuilt(Box[Line], {"item": {"sku": "a"}}) == Box({"sku": "a"})
        return
    value = {"line": {"sku": "a"}}
    signature = with_annotation(annotation)
    assert not signature.rebuilds
    assert signature.plain
    args = [value]
    assert signature.bind(args, {})[0] is args


MISFITS: list[tuple[Any, Any, str]] = [
    (Order, 5, r"task\(value\) cannot take value: it is a int, not a map of the fields of Order"),
    (Order, None, "it is nothing, not a map"),
    (Order, {"id": ID}, "it lacks fields of Order: 'lines'"),
    (Order, {"id": ID, "lines": [], "x": 1}, "it has fields that Order lacks: 'x'"),
    (Order, {"id": ID, "lines": [], 7: 1}, "it has fields that Order lacks: 7"),
    (Order, {"id": ID, "lines": [{"sku": "a"}, {}]}, r"cannot take value.lines\[1\]: it lacks fields of Line: 'sku'"),
    (Order, {"id": ID, "lines": "abc"}, r"cannot take value.lines: it is a str, not an array"),
    (Order, {"id": "7", "lines": []}, r"cannot take value.id: it is text that is no UUID"),
    (Order, {"id": ID, "lines": [], "colour": "blue"}, "value.colour: it is no value of Colour"),
    (Order, {"id": ID, "lines": [], "seen": "2026-12-01T09:00"}, "value.seen: it is a time without a zone"),
    (dict[str, Line], {"a": {}}, r"value\['a'\]: it lacks"),
    (dict[Place, Line], {"away": {"sku": "a"}}, "value key 'away': it is no value of Place"),
    (dict[str, Line], [], "it is a list, not a map"),
    (tuple[int, int], [1], "it has 1 items, not 2"),
    (tuple[int, int], {"a": 1}, "it is a dict, not an array"),
    (tuple[int, ...], "ab", "it is a str, not an array"),
    (set[str], [[]], "cannot become a set"),
    (Point, [1], "it is not an array of the 2 fields of Point"),
    (Point, [1, "soon"], r"value.when: it is text that is no date"),
    (Colour, [1, 3], "no value of Colour"),
    (Colour, {}, "no value of Colour"),
    (Line | Order, {"x": 1}, "it fits none of Line, Order"),
    (Line | None, {"x": 1}, "it has fields that Line lacks"),
    (Line | int, "x", "it is a str, not a map of the fields of Line"),
    (Checked, {"n": -1}, "it is refused by Checked: ValueError: n is negative"),
    (Seeded, {"n": 1}, "it is refused by Seeded: TypeError"),
    (Decimal, "1,5", "text that is no Decimal"),
    (Cat, {"lives": -1}, "cannot take value.lives: it is refused: Input should be greater than or equal to 0$"),
    (
        list[Cat],
        [{"lives": 1}, {"bornOn": 5.5}],
        r"cannot take value\[1\].lives: it is refused: Field required, and 1 more",
    ),
    (Pet, {"kind": "cow"}, "it is refused: Input tag 'cow'"),
    (Picky, {"n": 1}, "it is refused: LookupError: never"),
    (Counted, {"n": "many"}, "value.n: it is refused"),
]


@pytest.mark.parametrize(("annotation", "value", "message"), MISFITS, ids=str)
def test_a_value_that_does_not_fit_its_annotation_is_refused(annotation: Any, value: Any, message: str) -> None:
    with pytest.raises(BadArguments, match=message) as caught:
        with_annotation(annotation).bind([value], {})
    assert "\n" not in str(caught.value)


def test_a_value_nested_beyond_what_python_follows_is_refused() -> None:
    value: dict[str, Any] = {"name": "leaf"}
    for _ in range(5000):
        value = {"name": "node", "children": [value]}
    with pytest.raises(BadArguments, match="RecursionError"):
        with_annotation(Tree).bind([value], {})


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates() | st.just("red"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "lines", "sku", "price", "colour", "note", "seen", "name", "children"]), inner
        )
    ),
    max_leaves=10,
)


@given(
    st.sampled_from(
        [Order, Tree, Point, Colour, Cat, Pet, tuple[Line, int], set[Colour], dict[Place, Line], Line | Order | None]
    ),
    anything,
)
def test_whatever_arrives_is_rebuilt_or_refused(annotation: Any, value: Any) -> None:
    signature = with_annotation(annotation)
    try:
        args, kwargs = signature.bind([value], {})
    except BadArguments:
        return
    assert len(args) == 1
    assert kwargs == {}
