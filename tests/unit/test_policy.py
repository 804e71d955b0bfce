from __future__ import annotations

from typing import Any

import pytest

from zwheel import InvalidInput, SyncWheel, Wheel


def send(to: str) -> None:
    pass


@pytest.mark.parametrize("make", [Wheel, SyncWheel])
def test_an_option_that_there_is_not_is_named_with_the_one_that_is_meant(make: type[Any]) -> None:
    wheel = make("redis://127.0.0.1:1/0")
    with pytest.raises(TypeError, match="there is no option retry=: did you mean retries="):
        wheel.task(retry=3)(send)
    task = wheel.task(send)
    for call in (task.options, lambda **options: wheel.new_job("x", **options)):
        with pytest.raises(TypeError, match="there is no option dely=: did you mean delay="):
            call(dely=3)
    with pytest.raises(TypeError, match="there is no option zzzzzz=$"):
        task.options(zzzzzz=3)


def test_later_options_go_before_earlier_ones_and_none_changes_nothing() -> None:
    task = Wheel("redis://127.0.0.1:1/0").task(send)
    first = task.options(queue="a", id="x")
    assert first.options(queue="b", id=None).job("me").queue == "b"
    assert first.options(queue="b", id=None).job("me").id == "x"
    assert first.job("me").queue == "a"
    with pytest.raises(InvalidInput, match="needs the id"):
        task.options(replace=True).job("me")
