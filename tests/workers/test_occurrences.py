"""What becomes of a claimed occurrence before it starts."""

from __future__ import annotations

from typing import Any

import pytest

from zwheel.broker.store import Store
from zwheel.calls import Session
from zwheel.calls.clock import ServerClock
from zwheel.current import NOMINAL_HEADER, PREVIOUS_HEADER, SCHEDULE_HEADER, START_BY_HEADER
from zwheel.job import QueueName
from zwheel.workers.claims import Claim
from zwheel.workers.occurrences import Occurrences

pytestmark = pytest.mark.anyio


class Slow(Store):
    """A store whose answer to a plain read comes when the grace of what was claimed is over."""

    def __init__(self, session: Session) -> None:
        self.session = session

    async def send(self, commands: Any, *, each: bool = False) -> list[Any]:
        self.session.clock = Later(self.session.clock.now_us() + 3_600_000_000)
        return [None for _ in commands]


class Later(ServerClock):
    __slots__ = ("_us",)

    def __init__(self, us: int) -> None:
        super().__init__()
        self._us = us

    def now_us(self) -> int:
        return self._us


async def test_one_whose_grace_ends_while_it_is_looked_at_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    back: list[Claim] = []

    async def give_back(self: Occurrences, claim: Claim) -> bool:
        back.append(claim)
        return True

    monkeypatch.setattr(Occurrences, "give_back", give_back)
    session = Session("zw", "w")
    now_ms = session.clock.now_ms()
    record = f"2s0001{now_ms:015d}{now_ms * 1000:016d}worker01000300".encode()
    claim = Claim(b"s@1", record, QueueName("default"), 0)
    claim.headers = {
        SCHEDULE_HEADER: "s", NOMINAL_HEADER: str(now_ms), PREVIOUS_HEADER: str(now_ms - 1000),
        START_BY_HEADER: f"{now_ms} {now_ms + 60_000}",
    }  # fmt: skip
    assert not await Occurrences(Slow(session), lambda queue: None).may_start(claim)
    assert back == [claim]
