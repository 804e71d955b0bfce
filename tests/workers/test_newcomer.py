"""A worker that has just come asks what was offered to others, also while Redis is away."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from zwheel.broker.store import Store
from zwheel.errors import BrokerUnavailable
from zwheel.keys import ShardKeys
from zwheel.workers.newcomer import Newcomer

pytestmark = pytest.mark.anyio


class Away:
    """A store whose Redis is away."""

    def __init__(self) -> None:
        self.asked = 0
        self.often = asyncio.Event()

    async def send(self, commands: object) -> list[object]:
        self.asked += 1
        if self.asked == 5:
            self.often.set()
        raise BrokerUnavailable("away")


async def test_a_worker_that_cannot_ask_for_the_offers_of_others_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The pollers say every few seconds that Redis is away; this was a line at each try, several a second."""
    caplog.set_level("INFO", "zwheel.worker")
    store = Away()
    newcomer = Newcomer(cast(Store, store), ShardKeys.of("zw", "default"), "w", ["pay"], "g", lambda: None)
    trying = asyncio.create_task(newcomer.run())
    async with asyncio.timeout(20):
        await store.often.wait()
    trying.cancel()
    said = [record.getMessage() for record in caplog.records]
    assert said == ["queue default: cannot ask yet which jobs are offered to other workers: away"]
