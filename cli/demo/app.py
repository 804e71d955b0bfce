"""The app of the demo: one task, as a shop would write it. `zwheel demo` runs it with `zwheel worker zwheel.cli.demo.app:wheel`.

ZWHEEL_DEMO_SHOP names the shop's database.
"""

from __future__ import annotations

import asyncio
import os
import zlib
from functools import cache
from pathlib import Path

from zwheel import Wheel, current_job

from .orders import QUEUE, TASK
from .shop import Shop, now_us

DATABASE = "ZWHEEL_DEMO_SHOP"
#: How long the payment provider takes to answer, ms: at least, and at most.
ANSWER_MS = (40, 80)

wheel = Wheel()


@cache
def shop() -> Shop:
    """The shop's database, opened by the first job."""
    return Shop(Path(os.environ[DATABASE]))


async def ask_payment_provider(order: str) -> None:
    """Wait as long as a payment provider would take to say that no payment is on its way."""
    least, most = ANSWER_MS
    await asyncio.sleep((least + zlib.crc32(order.encode()) % (most - least)) / 1000)


@wheel.task(name=TASK, queue=QUEUE, timeout=30)
async def cancel_unpaid(order: str, customer: str, amount: str, currency: str, placed_at: str) -> None:
    """Cancel one order if it is still unpaid."""
    began_us = now_us()
    job = current_job()
    newest = shop().begin(
        order,
        job=job.id,
        token=job.token,
        attempt=job.attempt,
        pid=os.getpid(),
        fire_at_ms=job.fire_at_ms,
        began_us=began_us,
    )
    if newest:
        await ask_payment_provider(order)
    shop().cancel(order, job=job.id, token=job.token)
