"""Calls that do not fit a task's signature are refused; those that do are rebuilt parameter by parameter."""

from __future__ import annotations

import enum
import functools
import inspect
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zwheel.errors import BadArguments, ConfigError
from zwheel.payload.arguments import Signature


class Colour(enum.Enum):
    RED = "red"
    BOTH = (1, 2)


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


ID = UUID("01234567-89ab-cdef-0123-456789abcdef")


def test_each_parameter_is_rebuilt_by_its_own_annotation() -> None:
    def task(a: Line, /, b: int, *rest: Line, c: Colour = Colour.RED, **more: tuple[int, ...]) -> None: ...

    line = {"sku": "a"}
    args, kwargs = Signature(task).bind([line, 2, line, line], {"c": "red", "a": [1], "rest": [2]})
    assert args == [Line("a"), 2, Line("a"), Line("a")]
    assert kwargs == {"c": Colour.RED, "a": (1,), "rest": (2,)}
    with pytest.raises(
        BadArguments, match=r"task\(a, b, \*rest, c=..., \*\*more\) cannot take argument 4: it is a int"
    ):
        Signature(task).bind([line, 2, line, 7], {})


def test_the_arguments_that_arrived_are_not_changed() -> None:
    args, kwargs = [{"sku": "a"}], {"value": [1]}
    Signature(_takes_line).bind(args, {})
    Signature(_takes_tuple).bind([], kwargs)
    assert (args, kwargs) == ([{"sku": "a"}], {"value": [1]})


def _takes_tuple(value: tuple[int, ...]) -> None: ...


def test_annotations_are_read_on_first_use_when_their_names_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    def task(value: Later) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    signature = Signature(task)
    monkeypatch.setitem(globals(), "Later", Line)
    assert signature.bind([{"sku": "a"}], {})[0] == [Line("a")]


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


class Service:
    def method(self, line: Line) -> None: ...

    def __call__(self, line: Line) -> None: ...


def _takes_line(line: Line, n: int = 1) -> None: ...


@pytest.mark.parametrize(
    "function",
    [
        _takes_line,
        decorated(_takes_line),
        functools.partial(_takes_line, n=2),
        Service().method,
        Service(),
    ],
    ids=["function", "decorated", "partial", "method", "callable"],
)
def test_any_callable_with_a_signature_is_understood(function: Callable[..., Any]) -> None:
    signature = Signature(function)
    assert signature.bind([{"sku": "a"}], {})[0] == [Line("a")]
    with pytest.raises(BadArguments, match="needs 'line'"):
        signature.check([], {})


@pytest.mark.parametrize("function", [5, "name", min])
def test_what_has_no_signature_is_refused(function: Any) -> None:
    with pytest.raises(ConfigError, match="cannot be a task"):
        Signature(function)


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ([], {}, "needs 'to'"),
        ([1, 2, 3], {}, "takes at most 2 positional arguments, 3 were given"),
        ([1], {"to": 2}, "got 'to' twice, by position and by name"),
        ([1], {"at": 2, "by": 1}, "does not take 'at', 'by'"),
    ],
)
def test_a_call_that_does_not_bind_is_refused_in_one_sentence(args: Any, kwargs: Any, message: str) -> None:
    def send(to: str, n: int = 1) -> None: ...

    signature = Signature(send)
    for refuse in (signature.check, signature.bind):
        with pytest.raises(BadArguments) as caught:
            refuse(args, kwargs)
        assert str(caught.value).endswith(f"send(to, n=...) {message}")


def test_a_default_is_never_shown() -> None:
    def task(a: int, key: str = "hush", *, b: int) -> None: ...

    with pytest.raises(BadArguments) as caught:
        Signature(task).check([1], {})
    assert str(caught.value).endswith("task(a, key=..., b) needs 'b'")


KINDS = [
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.VAR_POSITIONAL,
    inspect.Parameter.KEYWORD_ONLY,
    inspect.Parameter.VAR_KEYWORD,
]


@st.composite
def signatures(draw: st.DrawFn) -> inspect.Signature:
    kinds = sorted(draw(st.lists(st.sampled_from(KINDS), max_size=5)))
    parameters: list[inspect.Parameter] = []
    defaults = False
    for index, kind in enumerate(kinds):
        variable = kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        if variable and any(other.kind == kind for other in parameters):
            continue
        wants = draw(st.booleans()) and not variable
        if kind <= inspect.Parameter.POSITIONAL_OR_KEYWORD:
            defaults = wants = defaults or wants
        default = 0 if wants else inspect.Parameter.empty
        parameters.append(inspect.Parameter("abcde"[index], kind, default=default))
    return inspect.Signature(parameters)


@given(
    signatures(),
    st.lists(st.integers(), max_size=6),
    st.dictionaries(st.sampled_from("abcdefg"), st.integers(), max_size=6),
)
def test_check_agrees_with_python_on_every_call(
    wanted: inspect.Signature, args: list[int], kwargs: dict[str, int]
) -> None:
    task: Callable[..., None] = eval(f"lambda {str(wanted)[1:-1]}: None")  # noqa: S307
    signature = Signature(task)
    try:
        task(*args, **kwargs)
    except TypeError:
        for refuse in (signature.check, signature.bind):
            with pytest.raises(BadArguments):
                refuse(args, kwargs)
    else:
        signature.check(args, kwargs)
        assert signature.bind(args, kwargs) == (args, kwargs)


def _takes_order(order: Order) -> None: ...


def test_threads_share_one_signature() -> None:
    signature = Signature(_takes_order)
    start = threading.Barrier(4)
    failures: list[Exception] = []

    def work() -> None:
        try:
            start.wait(10)
            for _ in range(200):
                assert signature.bind([{"id": ID, "lines": [{"sku": "a"}]}], {})[0] == [Order(ID, [Line("a")])]
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
