"""The orders of the demo: a busy shop's evening, made up from a seed, the same on every machine.

A sale opens at 18:00. A customer has half an hour to pay; after that the order is cancelled. The demo begins at
18:28 and plays a minute in a second: an order of 18:05:15 is to be cancelled at 18:35:15, which is 7.25 s from the start.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

QUEUE = "orders"
TASK = "orders.cancel_unpaid"
COUNT = 1200
SEED = 20261127
OPENING = datetime(2026, 11, 27, 18, 0, tzinfo=UTC)
#: How long the sale lasts, and when a newsletter makes many order at once; minutes after the opening.
SALE_MIN = 20.0
RUSH_MIN = (9.5, 11.5)
RUSH_SHARE = 0.2
TO_PAY = timedelta(minutes=30)
#: The demo begins so many of its seconds before the first order is to be cancelled.
LEAD_S = 2.0
PAID_SHARE = 0.3

_FIRST = (
    "Aisha", "Ben", "Chiara", "Daniel", "Elif", "Fatima", "Georg", "Hana", "Ines", "Jonas", "Katarzyna", "Liam",
    "Mei", "Noah", "Olga", "Pedro", "Rania", "Søren", "Tuğba", "Viktor", "Wanjiru", "Xavier", "Yuki", "Zoë",
)  # fmt: skip
_LAST = (
    "Andersen", "Bauer", "Costa", "Dubois", "Eriksson", "Fernández", "Greco", "Haddad", "Ivanova", "Jansen", "Kaya",
    "Lindqvist", "Müller", "Nowak", "O'Brien", "Park", "Rossi", "Schmidt", "Tanaka", "Umarov", "Vargas", "Weber",
)  # fmt: skip
_PRICES_CENT = (499, 990, 1295, 1490, 1990, 2450, 2999, 3990, 4995, 6900, 8990, 12900, 19900, 34900)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One order, as the shop knows it."""

    number: str
    customer: str
    amount_cent: int
    placed_at: datetime
    cancel_after_ms: int
    """When to cancel it if still unpaid, ms of the demo after its start."""
    paid_after_ms: int | None
    """When its customer pays, before it would be cancelled, ms of the demo after its start; None: never."""

    @property
    def amount(self) -> str:
        """The amount as the shop writes it."""
        return f"{self.amount_cent // 100}.{self.amount_cent % 100:02d}"


def make_orders(count: int = COUNT, seed: int = SEED) -> list[Order]:
    """Make up orders, in the order in which they were placed. The same call gives the same orders everywhere."""
    # Nothing but random(): the other methods may draw differently in another version of Python.
    draw = random.Random(seed).random
    minutes = sorted(
        _between(draw(), *RUSH_MIN) if draw() < RUSH_SHARE else _between(draw(), 0, SALE_MIN) for _ in range(count)
    )
    orders = []
    for number, minute in enumerate(minutes, start=48_201):
        placed_at = OPENING + timedelta(seconds=int(minute * 60))
        cancel_after_ms = int(LEAD_S * 1000 + minute * 1000)
        orders.append(
            Order(
                number=f"SO-{number}",
                customer=f"{_pick(_FIRST, draw())} {_pick(_LAST, draw())}",
                amount_cent=_pick(_PRICES_CENT, draw()) * (1 + int(draw() * draw() * 4)),
                placed_at=placed_at,
                cancel_after_ms=cancel_after_ms,
                paid_after_ms=int(_between(draw(), 0.1, 0.9) * cancel_after_ms) if draw() < PAID_SHARE else None,
            )
        )
    return orders


def to_jsonl(orders: Iterable[Order]) -> str:
    """Write the lines that `zwheel enqueue --jsonl` reads: for each order, the job that cancels it in time."""
    lines = []
    for order in orders:
        line = {
            "task": TASK,
            "queue": QUEUE,
            "id": f"cancel-{order.number}",
            "in": f"{order.cancel_after_ms / 1000:.3f}s",
            "kwargs": {
                "order": order.number,
                "customer": order.customer,
                "amount": order.amount,
                "currency": "EUR",
                "placed_at": order.placed_at.isoformat().replace("+00:00", "Z"),
            },
        }
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    return "".join(lines)


def _between(share: float, low: float, high: float) -> float:
    return low + share * (high - low)


def _pick(items: Sequence[T], share: float) -> T:
    return items[int(share * len(items))]
