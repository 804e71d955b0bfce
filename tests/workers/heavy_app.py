"""An app that is large from the beginning."""

from __future__ import annotations

from zwheel import Wheel

wheel = Wheel()
held = bytearray(80 << 20)
held[::4096] = b"x" * len(held[::4096])


@wheel.task(name="light", keep=60)
async def light() -> None:
    pass
