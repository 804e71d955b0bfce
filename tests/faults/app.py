"""The tasks of the worker processes in these tests, beside those of tests/workers."""

from __future__ import annotations

import asyncio
import os
from functools import cache

import redis.asyncio

from tests.workers import stage
from tests.workers.app import wheel
from zwheel import Backoff, Discard, current_job

__all__ = ["wheel"]

LATER = Backoff(first=60, factor=1, longest=60, jitter=False)
#: Where an effect is counted that is guarded by the job's token.
EFFECTS = "zw:test:effects"
_GUARD = "if redis.call('SETNX', KEYS[1], ARGV[1]) == 1 then redis.call('INCR', KEYS[2]) end"


@cache
def _bank() -> redis.asyncio.Redis:
    return redis.asyncio.Redis.from_url(os.environ["ZWHEEL_URL"])


@wheel.task(name="fail", keep=60, backoff=LATER)
async def fail(name: str) -> None:
    await stage.pass_by(name)
    raise ValueError(name)


@wheel.task(name="doom", keep=60)
async def doom(name: str) -> None:
    await stage.pass_by(name)
    raise Discard(name)


@wheel.task(name="hang_once", keep=600, retries=5)
async def hang_once() -> None:
    """Never ends the first time."""
    if current_job().attempt == 1:
        await asyncio.Event().wait()
