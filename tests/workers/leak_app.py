"""An app whose tasks keep memory."""

from __future__ import annotations

import asyncio

from zwheel import Wheel

wheel = Wheel()
kept: list[bytearray] = []


@wheel.task(name="leak", keep=3600, retries=0)
async def leak(size: int) -> None:
    block = bytearray(size)
    block[::4096] = b"x" * len(block[::4096])
    kept.append(block)
    await asyncio.sleep(0.02)
