"""The estimate of the server's clock stays true when a round trip takes a detour."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest

from tests.servers import RedisServer
from zwheel import calls
from zwheel.broker.store import Store, SyncStore
from zwheel.calls import Session

DETOUR_S = 0.05


def batch(session: Session) -> list[Any]:
    """Two calls of different scripts."""
    keys = session.keys("q")
    return [calls.prune(keys, limit=1, dead_age_ms=1), calls.extend(keys, [], lease_ms=1000)]


def server_us(server: RedisServer) -> int:
    with server.client() as client:
        seconds, micros = client.time()
        return int(seconds) * 1_000_000 + int(micros)


def assert_true(session: Session, server: RedisServer) -> None:
    before = session.clock.now_us()
    now = server_us(server)
    after = session.clock.now_us()
    assert before - session.clock.error_us() <= now <= after + session.clock.error_us()


@pytest.mark.anyio
async def test_a_missing_script_in_a_batch_does_not_spoil_the_clock(
    fresh: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session("zw")
    store = Store(fresh.url, session)
    exchange = store._exchange

    async def detour(commands: Sequence[Any], *more: Any) -> list[Any]:
        if commands[0][0] == "SCRIPT":
            await asyncio.sleep(DETOUR_S)
        return await exchange(commands, *more)

    other = Store(fresh.url, Session("zw"))
    await other.send(batch(other.session)[:1])
    await other.aclose()
    monkeypatch.setattr(store, "_exchange", detour)
    await store.send(batch(session))
    assert_true(session, fresh)
    await store.aclose()


def test_nor_does_it_that_of_the_blocking_store(fresh: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session("zw")
    store = SyncStore(fresh.url, session)
    exchange = store._exchange

    def detour(commands: Sequence[Any], *more: Any) -> list[Any]:
        if commands[0][0] == "SCRIPT":
            time.sleep(DETOUR_S)
        return exchange(commands, *more)

    other = SyncStore(fresh.url, Session("zw"))
    other.send(batch(other.session)[:1])
    other.close()
    monkeypatch.setattr(store, "_exchange", detour)
    store.send(batch(session))
    assert_true(session, fresh)
    store.close()
