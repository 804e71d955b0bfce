"""The demo's counts come from what was written down: each can be wrong, and then the demo says so."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from zwheel.cli.demo.orders import make_orders
from zwheel.cli.demo.report import Figures, Kill, Spread, measure, save_picture
from zwheel.cli.demo.shop import Shop

ORDERS = make_orders(3)
FIRE_AT_MS = {f"cancel-{order.number}": 1_000_000 for order in ORDERS}
KILL = Kill(pid=11, at_us=1_000_050_000)
SURVIVOR = 22


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop = Shop.create(tmp_path / "shop.db", ORDERS)
    yield shop
    shop.close()


def begin(shop: Shop, place: int, *, pid: int = SURVIVOR, after_ms: float = 2.0, attempt: int = 1) -> bool:
    """Let an attempt at one order begin, so long after its fire time; its token is its number."""
    number = ORDERS[place].number
    return shop.begin(
        number,
        job=f"cancel-{number}",
        token=attempt,
        attempt=attempt,
        pid=pid,
        fire_at_ms=1_000_000,
        began_us=1_000_000_000 + int(after_ms * 1000),
    )


def end(shop: Shop, place: int, *, attempt: int = 1) -> str:
    number = ORDERS[place].number
    return shop.cancel(number, job=f"cancel-{number}", token=attempt)


def run_well(shop: Shop) -> None:
    """Two jobs run once; the third is held by the worker that is killed, and runs again."""
    for place in (0, 1):
        begin(shop, place)
        end(shop, place)
    begin(shop, 2, pid=KILL.pid)
    begin(shop, 2, after_ms=3050, attempt=2)
    end(shop, 2, attempt=2)


def figures(shop: Shop, *, kill: Kill | None = KILL, dead: int = 0) -> Figures:
    return measure(shop, FIRE_AT_MS, kill, orders=3, dead=dead, seconds=1.0, server="Valkey 9")


def test_a_run_in_which_all_went_well(shop: Shop) -> None:
    run_well(shop)
    found = figures(shop)
    assert found.wrong() == []
    assert (found.enqueued, found.fired, found.held, found.redelivered) == (3, 3, 1, 1)
    assert (found.applied_twice, found.lost, found.early, found.refused) == (0, 0, 0, 0)
    assert found.lateness == Spread(count=3, p50=2.0, p99=2.0, longest=2.0)
    assert found.latest_due_s == -0.05
    assert found.redelivery == Spread(count=1, p50=3000.0, p99=3000.0, longest=3000.0)


def test_a_job_that_was_claimed_but_not_begun_counts_as_redelivered_and_not_as_late(shop: Shop) -> None:
    for place in (0, 1):
        begin(shop, place)
        end(shop, place)
    begin(shop, 2, after_ms=3050, attempt=2)
    end(shop, 2, attempt=2)
    found = figures(shop)
    assert (found.held, found.redelivered, found.wrong()) == (0, 1, [])
    assert found.lateness is not None
    assert found.lateness.count == 2


def test_a_second_attempt_for_another_reason_is_no_redelivery(shop: Shop) -> None:
    begin(shop, 0)
    begin(shop, 0, after_ms=3050, attempt=2)
    assert figures(shop).redelivered == 0


def test_a_kill_that_hit_nothing_is_wrong(shop: Shop) -> None:
    for place in range(3):
        begin(shop, place)
        end(shop, place)
    assert figures(shop).wrong() == ["the kill hit no job: nothing was redelivered"]
    assert figures(shop, kill=None).redelivered == 0


def test_a_job_that_nobody_started_is_not_fired_and_lost(shop: Shop) -> None:
    run_well(shop)
    shop.db.execute("DELETE FROM attempts WHERE job = ?", (f"cancel-{ORDERS[0].number}",))
    found = figures(shop)
    assert found.wrong() == ["jobs that were fired: 2 of 3", "jobs that were lost: 1"]


def test_a_job_that_was_begun_and_never_ended_is_lost(shop: Shop) -> None:
    run_well(shop)
    shop.db.execute(
        "UPDATE attempts SET ended_us = NULL, outcome = NULL WHERE job = ?", (f"cancel-{ORDERS[1].number}",)
    )
    assert figures(shop).wrong() == ["jobs that were lost: 1"]


def test_a_start_before_the_fire_time_is_early_by_one_microsecond(shop: Shop) -> None:
    run_well(shop)
    shop.db.execute("UPDATE attempts SET began_us = ? WHERE pid = ?", (1_000_000_000, KILL.pid))
    assert figures(shop).early == 0
    shop.db.execute("UPDATE attempts SET began_us = ? WHERE pid = ?", (999_999_999, KILL.pid))
    assert figures(shop).wrong() == ["jobs that were fired early: 1"]


def test_an_effect_with_two_tokens_was_applied_twice(shop: Shop) -> None:
    run_well(shop)
    shop.db.execute("INSERT INTO cancellations VALUES (?, ?, ?)", (ORDERS[0].number, 2, 0))
    assert figures(shop).wrong() == ["orders that were cancelled twice: 1"]


def test_dead_jobs_and_missing_answers_are_wrong(shop: Shop) -> None:
    run_well(shop)
    assert figures(shop, dead=2).wrong() == ["jobs that are dead: 2"]
    found = measure(shop, dict(list(FIRE_AT_MS.items())[1:]), KILL, orders=3, dead=0, seconds=1.0, server="Valkey 9")
    assert found.wrong() == ["orders that were enqueued: 2 of 3"]


def test_a_worker_whose_token_is_outdated_changes_nothing(shop: Shop) -> None:
    assert begin(shop, 0, pid=KILL.pid)
    assert begin(shop, 0, attempt=2)
    assert end(shop, 0) == "fenced"
    assert figures(shop).cancelled == 0
    assert end(shop, 0, attempt=2) == "cancelled"
    assert not shop.begin(ORDERS[0].number, job="late", token=1, attempt=1, pid=KILL.pid, fire_at_ms=0, began_us=0)
    assert figures(shop).refused == 1


def test_a_second_run_after_the_effect_repeats_nothing(shop: Shop) -> None:
    begin(shop, 0, pid=KILL.pid)
    assert end(shop, 0) == "cancelled"
    begin(shop, 0, attempt=2, after_ms=3050)
    assert end(shop, 0, attempt=2) == "repeated"
    found = figures(shop)
    assert (found.cancelled, found.applied_twice, found.refused, found.redelivered) == (1, 0, 1, 1)


def test_a_paid_order_is_not_cancelled_and_a_cancelled_one_not_paid(shop: Shop) -> None:
    begin(shop, 0)
    shop.pay([ORDERS[0].number])
    assert end(shop, 0) == "paid"
    begin(shop, 1)
    assert end(shop, 1) == "cancelled"
    shop.pay([ORDERS[1].number])
    found = figures(shop)
    assert (found.paid, found.cancelled) == (1, 1)


def test_percentiles_are_by_nearest_rank() -> None:
    assert Spread.of([]) is None
    assert Spread.of([5.0]) == Spread(count=1, p50=5.0, p99=5.0, longest=5.0)
    assert Spread.of([float(n) for n in range(200, 0, -1)]) == Spread(count=200, p50=100.0, p99=198.0, longest=200.0)


def test_the_picture_is_an_svg_that_loads_nothing(shop: Shop, tmp_path: Path) -> None:
    run_well(shop)
    path = tmp_path / "demo.svg"
    save_picture(figures(shop), path)
    text = path.read_text(encoding="utf-8")
    assert "url(http" not in text
    assert "@font-face" not in text
    shown = "".join(ET.fromstring(text).itertext()).replace("\xa0", " ")  # noqa: S314  our own picture
    for words in ("jobs enqueued", "redelivered after the kill", "effects applied twice", "lateness p99", "Valkey 9"):
        assert words in shown
