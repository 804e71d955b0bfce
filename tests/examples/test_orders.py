"""The orders of the demo: the file in the tree is what the function makes, and it is a file that one can believe."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from zwheel.cli.demo.orders import COUNT, LEAD_S, OPENING, SALE_MIN, TO_PAY, make_orders, to_jsonl
from zwheel.schedules.durations import parse_duration

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module")
def lines() -> list[dict[str, Any]]:
    text = (EXAMPLES / "orders.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_the_file_is_what_the_demo_makes() -> None:
    assert (EXAMPLES / "orders.jsonl").read_bytes() == to_jsonl(make_orders()).encode()


def test_the_script_writes_the_same_file(tmp_path: Path) -> None:
    code = (
        "import pathlib, runpy, sys; main = runpy.run_path(sys.argv[1])['main'];"
        "main.__globals__['TARGET'] = pathlib.Path(sys.argv[2]); main()"
    )
    target = tmp_path / "orders.jsonl"
    subprocess.run([sys.executable, "-c", code, str(EXAMPLES / "make_orders.py"), str(target)], check=True, timeout=100)
    assert target.read_bytes() == (EXAMPLES / "orders.jsonl").read_bytes()


def test_another_seed_gives_other_orders() -> None:
    assert make_orders(50, seed=1) == make_orders(50, seed=1)
    assert make_orders(50, seed=1) != make_orders(50, seed=2)


def test_there_are_at_least_a_thousand_with_ids_of_their_own(lines: list[dict[str, Any]]) -> None:
    assert len(lines) == COUNT >= 1000
    assert len({line["id"] for line in lines}) == len(lines)
    assert {line["id"] for line in lines} == {f"cancel-{line['kwargs']['order']}" for line in lines}


def test_each_is_cancelled_half_an_hour_after_it_was_placed(lines: list[dict[str, Any]]) -> None:
    begins = OPENING + TO_PAY - timedelta(minutes=LEAD_S)
    for line in lines:
        placed_at = datetime.fromisoformat(line["kwargs"]["placed_at"])
        shop_time = begins + timedelta(milliseconds=parse_duration(line["in"])) * 60
        # Times of orders are whole seconds, and a millisecond of the demo is 60 ms of the shop's time.
        assert timedelta(milliseconds=-60) <= shop_time - placed_at - TO_PAY < timedelta(seconds=1)


def test_the_fire_times_are_spread_so_that_the_demo_ends_in_time(lines: list[dict[str, Any]]) -> None:
    times = [parse_duration(line["in"]) for line in lines]
    assert times == sorted(times)
    assert times[0] >= LEAD_S * 1000
    assert times[-1] <= (LEAD_S + SALE_MIN) * 1000
    assert len(set(times)) > 1000


def test_some_are_paid_before_their_time_and_most_are_not() -> None:
    orders = make_orders()
    paid = [order for order in orders if order.paid_after_ms is not None]
    assert all(order.paid_after_ms is not None and order.paid_after_ms < order.cancel_after_ms for order in paid)
    assert len(orders) / 5 < len(paid) < len(orders) / 2
