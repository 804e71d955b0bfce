"""What is published of a task: written, read back, checked, and never trusted."""

from __future__ import annotations

import contextlib
import inspect
import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from zwheel import BadArguments, Wheel
from zwheel.published.task import FACTS_BYTES, PublishedTask, facts_of, read_row, row_of, seen_of, stamped


def published(function: Any, **policy: Any) -> PublishedTask:
    """Publish a function and read it back."""
    task = Wheel("redis://127.0.0.1:1").task(name="shop.t", **policy)(function)
    found = read_row(b"shop.t", row_of(task, "shop:wheel", 5))
    assert found is not None
    return found


def remind(order: int, note: str = None, *lines: int, when: datetime, **more: float) -> None:  # type: ignore[assignment]  # noqa: RUF013
    """Remind of an order.

    And more.
    """


def test_a_task_is_read_back_as_it_was_published() -> None:
    task = published(remind, queue="mail", retries=0, timeout=3, keep=60, process=False)
    policy = task.policy
    assert (policy.queue, policy.retries, policy.timeout_ms, policy.keep_ms) == ("mail", 0, 3000, 60_000)
    assert (task.about, task.app, task.seen_ms) == ("Remind of an order.", "shop:wheel", 5)
    assert task.signature is not None
    assert task.signature.title == "shop.t(order, note=..., *lines, when, **more)"
    assert [(one.name, one.kind, one.required, one.shape) for one in task.signature.parameters] == [
        ("order", "either", True, "int"), ("note", "either", False, {"one_of": ["str", "null"]}),
        ("lines", "args", False, "int"), ("when", "keyword", True, "datetime"), ("more", "kwargs", False, "float"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("args", "kwargs", "why"),
    [
        ([], {}, "needs 'order', 'when'"),
        (["8"], {"when": "2026-12-01T00:00:00Z"}, "order must be a whole number, not '8'"),
        ([1, 2], {"when": "2026-12-01T00:00:00Z"}, "note must be a text or null, not 2"),
        ([1, "x", "y"], {"when": "2026-12-01T00:00:00Z"}, "argument 3 must be a whole number, not 'y'"),
        ([1], {"when": "tomorrow"}, "cannot take when: it is text that is no datetime"),
        ([1], {"when": "2026-12-01T00:00:00"}, "a time without a zone"),
        ([1], {"when": "2026-12-01T00:00:00Z", "rate": "high"}, "rate must be a number, not 'high'"),
        ([1], {"when": "2026-12-01T00:00:00Z", "order": 2}, "got 'order' twice"),
    ],
)
def test_a_call_that_the_task_would_refuse_is_refused(args: list[Any], kwargs: dict[str, Any], why: str) -> None:
    with pytest.raises(BadArguments) as raised:
        published(remind).check(args, kwargs)
    assert why in str(raised.value)


def test_a_call_that_the_task_takes_is_taken() -> None:
    task = published(remind)
    task.check([1, None, 3, 4], {"when": datetime.fromisoformat("2026-12-01T00:00:00+01:00"), "rate": 1})
    task.check([1], {"when": "2026-12-01T00:00:00Z"})
    published(lambda wait: None).check([timedelta(1)], {})


def test_a_row_that_would_be_too_large_leaves_its_parameters_out() -> None:
    def wide() -> None: ...

    wide.__doc__ = "ż" * 100_000
    for count in (99, 500):
        names = [f"a_parameter_with_a_long_name_{n}" for n in range(count)]
        parameters = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=int) for name in names]
        wide.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        task = Wheel("redis://127.0.0.1:1").task(name="shop.wide")(wide)
        assert len(facts_of(task, "a" * 10_000)) <= FACTS_BYTES
    found = published(wide)
    assert found.signature is None
    found.check([1], {})


GOOD = {
    "queue": "mail", "retries": 0, "timeout_ms": None, "keep_ms": None, "process": False, "params": [["a", "either", True, "int"]],
    "about": "", "app": "", "version": "", "seen_ms": 5,
}  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    [
        {"queue": "a}{b"}, {"queue": None}, {"queue": 1}, {"retries": -1}, {"retries": True}, {"retries": 10**9}, {"retries": "many"},
        {"timeout_ms": 0}, {"timeout_ms": "x"}, {"keep_ms": -1}, {"keep_ms": 10**15}, {"seen_ms": None}, {"seen_ms": 10**30},
        {"seen_ms": float("nan")},
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_is_no_row(wrong: dict[str, Any]) -> None:
    assert read_row(b"t", json.dumps(GOOD | wrong)) is None


@pytest.mark.parametrize(
    "raw", [b"", b"\xff", b"[]", b"{}", b"1", b"null", b"[" * 16_000, b"x" * 20_000, None, 5, b'{"queue":"mail"}']
)
def test_what_is_no_row_is_no_row(raw: Any) -> None:
    assert read_row(b"t", raw) is None


@pytest.mark.parametrize("name", [b"\xff", b"", b"with space", b"a" * 200])
def test_a_row_under_no_name_is_no_row(name: bytes) -> None:
    assert read_row(name, json.dumps(GOOD)) is None


@pytest.mark.parametrize(
    "params",
    [
        1, "x", [1], [[]], [["a"]], [["a", "what", True, "int"]], [["a b", "either", True, "int"]], [["a", "either", True, "int"]] * 2,
        [["a", "keyword", True, None], ["b", "positional", True, None]], [["a", "either", False, None], ["b", "either", True, None]],
        [["class", "either", True, None]], [[1, "either", True, None]], [["a", ["x"], True, None]], [["a", "args", True, None]] * 2,
    ],
)  # fmt: skip
def test_parameters_that_cannot_be_leave_the_rest_of_the_row(params: Any) -> None:
    task = read_row(b"t", json.dumps(GOOD | {"params": params}))
    assert task is not None and task.signature is None
    task.check([1, 2], {"c": 3})


@pytest.mark.parametrize(
    "around", [lambda shape: shape, lambda shape: {"list": shape}, lambda shape: {"one_of": [{"map": shape}, "null"]}]
)
def test_no_text_of_a_row_is_ever_evaluated(around: Any, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    text = f"__import__('pathlib').Path({str(mark)!r}).touch()"
    params = [["a", "either", True, around({"enum": [text]})]]
    task = read_row(b"t", json.dumps(GOOD | {"params": params, "about": text, "app": text}))
    assert task is not None and task.signature is not None
    for value in (text, [text], {"k": text}, 1):
        with contextlib.suppress(BadArguments):
            task.check([value], {})
    assert not mark.exists()


def test_a_row_of_the_same_facts_tells_when_it_was_published() -> None:
    facts = facts_of(Wheel("redis://127.0.0.1:1").task(name="shop.t")(remind), "shop:wheel")
    row = stamped(facts, 1_790_000_000_000)
    assert json.loads(row)["seen_ms"] == 1_790_000_000_000
    assert seen_of(facts, row) == 1_790_000_000_000
    for other in (
        b"",
        row[1:],
        row.replace(b"default", b"other"),
        facts,
        facts + b"}",
        facts + b',"seen_ms":x}',
        row[:-1] + b"0" * 30 + b"}",
    ):
        assert seen_of(facts, other) is None
