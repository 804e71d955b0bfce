"""What a worker believes of what others publish about themselves: as little as it must."""

from __future__ import annotations

import json
from typing import Any

import pytest

from zwheel.workers.peers import NAMES_LIMIT, Peer, about_tasks, group_of, read_peer

NOW = 1_900_000_000_000
GROUP = "0123456789abcdef"
ROW: dict[str, Any] = {"beat": NOW - 1, "lease": 30_000, "group": GROUP, "tasks": ["a", "b"]}


def test_what_a_worker_publishes_is_read_back() -> None:
    row = {"beat": NOW, **about_tasks({"b": 1, "a": 2})}
    assert read_peer(json.dumps(row).encode(), NOW) == Peer(group_of(["a", "b"]), frozenset({"a", "b"}))
    both = {"beat": NOW, **about_tasks(["a"], ["x"])}
    assert read_peer(json.dumps(both).encode(), NOW) == Peer(group_of(["a"], ["x"]), frozenset("a"), frozenset("x"))
    assert group_of(["a"], ["x"]) != group_of(["a"])
    assert about_tasks([f"t{n}" for n in range(NAMES_LIMIT + 1)]) == {}
    assert about_tasks(["t"], [f"{n}" for n in range(NAMES_LIMIT)]) == {}
    assert about_tasks(["x" * 30_000, "y" * 30_000]) == {}


@pytest.mark.parametrize(
    "row",
    [
        ROW | {"beat": NOW - 60_001},
        ROW | {"beat": NOW + 60_001},
        ROW | {"beat": "soon"},
        ROW | {"beat": None},
        ROW | {"beat": 1e400},
        {name: value for name, value in ROW.items() if name != "beat"},
        [],
        7,
        "x" * 70_000,
    ],
)
def test_a_row_that_is_no_sign_of_life_is_nobody(row: Any) -> None:
    assert read_peer(json.dumps(row).encode(), NOW) is None


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe", b"[" * 60_000, b'{"beat":' + b"9" * 5_000 + b"}"])
def test_a_row_that_is_no_json_is_nobody(raw: bytes) -> None:
    assert read_peer(raw, NOW) is None


@pytest.mark.parametrize(
    "change",
    [
        {"group": 5}, {"group": "../../x"}, {"group": GROUP + "\n"}, {"group": "A" * 16}, {"tasks": "a"}, {"tasks": None},
        {"tasks": ["t"] * (NAMES_LIMIT + 1)}, {"allows": "a"},
    ],
)  # fmt: skip
def test_a_row_that_is_not_as_it_should_be_says_nothing(change: dict[str, Any]) -> None:
    assert read_peer(json.dumps(ROW | change).encode(), NOW) == Peer("", frozenset())


def test_names_that_are_none_are_left_out_and_a_long_lease_is_a_long_life() -> None:
    row = ROW | {"tasks": ["a", 5, None, "x" * 200, ["b"]], "beat": NOW - 3_600_000, "lease": 3_700_000}
    assert read_peer(json.dumps(row).encode(), NOW) == Peer(GROUP, frozenset({"a"}))
    assert read_peer(json.dumps(row | {"lease": True}).encode(), NOW) is None
    assert read_peer(json.dumps(row | {"lease": "1h"}).encode(), NOW) is None
