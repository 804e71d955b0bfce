"""What does not arrive at the worker as it is here is refused before it is sent."""

from __future__ import annotations

import dataclasses
import enum
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pydantic
import pytest

from zwheel import SyncWheel, Wheel
from zwheel.client.tasks import BaseTask
from zwheel.errors import BadArguments
from zwheel.payload.codec import DEFAULT
from zwheel.policy import TaskPolicy


class Colour(enum.Enum):
    RED = "r"


@dataclasses.dataclass
class Order:
    number: int
    due: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    weight: float = 0.0
    colour: Colour = Colour.RED
    lines: tuple[str, ...] = ()


@dataclasses.dataclass
class Rush(Order):
    """Adds nothing, and is another class."""


@dataclasses.dataclass
class Hidden:
    number: int
    secret: dataclasses.InitVar[str]


@dataclasses.dataclass
class Counted:
    number: int
    seen: int = dataclasses.field(default=0, init=False)


class Area(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    width: int

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def double(self) -> int:
        return 2 * self.width


class Left(pydantic.BaseModel):
    number: int
    token: str = pydantic.Field(default="", exclude=True)


class Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True)
    pair: tuple[int, int]


class Base(pydantic.BaseModel):
    number: int


class Sub(Base):
    more: int = 0


class Holder(pydantic.BaseModel):
    it: Base


def task_of(annotation: Any) -> BaseTask[..., Any]:
    def work(order: Any) -> None: ...

    work.__annotations__ = {"order": annotation}
    return BaseTask(work, "work", TaskPolicy(), DEFAULT)


COUNTED = Counted(1)
COUNTED.seen = 5


@pytest.mark.parametrize(
    ("annotation", "value", "says"),
    [
        (Order, Rush(1), "order: it is a Rush and would arrive as a Order"),
        (list[Order], [Order(1), Rush(1)], r"order\[1\]: it is a Rush"),
        (Hidden, Hidden(1, "s"), "refused by Hidden"),
        (Counted, COUNTED, r"order\.seen: its value is lost on the way"),
        (Area, Area(width=2), r"order\.double"),
        (Left, Left(number=1, token="t"), r"order\.token: its value is lost on the way"),
        (Strict, Strict(pair=(1, 2)), r"order\.pair"),
        (Base, Sub(number=1, more=2), "order: it is a Sub"),
        (Holder, Holder(it=Sub(number=1)), r"order\.it: it is a Sub"),
        (date, "tomorrow", "is text that is no date"),
        (Order, {"numbr": 1}, "has fields that Order lacks: 'numbr'"),
    ],
)
def test_a_loss_is_refused_and_named(annotation: Any, value: Any, says: str) -> None:
    with pytest.raises(BadArguments, match=says):
        task_of(annotation).job(value)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Order, Order(1, lines=("a", "b"))),
        (Order, Order(1, weight=float("nan"))),
        (Order, Order(1, weight=2)),
        (Order, {"number": 1, "due": "2026-01-01T00:00:00Z"}),
        (list[Order], (Order(1), Order(2))),
        (dict[str, Order], {"a": Order(1)}),
        (Order | None, None),
        (Counted, Counted(1)),
        (Left, Left(number=1)),
        (Holder, Holder(it=Base(number=1))),
        (Any, Rush(1)),
        (Any, Sub(number=1)),
        (tuple[int, ...], [1, 2]),
        (Decimal, "1.50"),
        (date, date(2026, 1, 1)),
        (Colour, Colour.RED),
        (Colour, "r"),
        (int, "8"),
    ],
)
def test_what_arrives_is_not_refused(annotation: Any, value: Any) -> None:
    task_of(annotation).job(value)


@pytest.mark.parametrize("make", [Wheel, SyncWheel])
def test_by_name_and_in_a_schedule_it_is_asked_too(make: Any) -> None:
    wheel = make("redis://127.0.0.1:1")

    def work(order: Order) -> None: ...

    wheel.task(name="work")(work)
    with pytest.raises(BadArguments, match="order: it is a Rush"):
        wheel.new_job("work", kwargs={"order": Rush(1)})
    with pytest.raises(BadArguments, match="order: it is a Rush"):
        wheel.new_schedule("daily", "@daily", "work", args=[Rush(1)])
