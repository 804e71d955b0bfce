"""The tasks of the recorded run. Where Redis is comes from ZWHEEL_URL."""

from __future__ import annotations

import asyncio

from zwheel import Backoff, Wheel

wheel = Wheel()


@wheel.task(name="work", backoff=Backoff(first=0.05))
async def work(number: int) -> None:
    """Take a moment; every tenth fails at first."""
    from zwheel import current_job

    await asyncio.sleep(0.002)
    if number % 10 == 0 and current_job().attempt == 1:
        raise ValueError(f"{number} fails once")
