"""What workers publish of the schedules that they declare, and how others read it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from zwheel import Wheel
from zwheel.operations.declared import Elsewhere, about_declared


@pytest.mark.parametrize(
    "row",
    [
        b"", b"[]", b"{}", b"[" * 70_000, b'{"beat": "x", "declares": {"o": ["n"]}}', b'{"beat": 5, "declares": 7}',
        b'{"beat": 1000000, "declares": {"o": 7, "p": [1, null]}}', b'{"beat": 900000000, "declares": {"o": ["n"]}}',
    ],
)  # fmt: skip
def test_what_a_damaged_row_says_is_nothing(row: bytes) -> None:
    found = Elsewhere()
    found.add(row, 1_000_000)
    assert not found.has("o", "n")


def test_a_worker_with_very_many_schedules_declares_any_name() -> None:
    one = Wheel("redis://127.0.0.1:1").new_schedule("a", "@yearly", "t").with_owner("o")
    definitions = [replace(one, name=f"schedule-with-a-long-name-{n:04d}") for n in range(800)]
    found = Elsewhere()
    found.add(json.dumps({"beat": 1_000_000, **about_declared(definitions)}).encode(), 1_000_000)
    assert found.has("o", "whatever")
    assert not found.has("p", "whatever")
