"""The shells that carry calls: errors in zwheel's words, connections that are never left in the middle of a reply."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Generator
from typing import Any

import pytest

from tests.proxy import Fault, Proxy
from tests.servers import RedisServer
from tests.workers.harness import eventually
from zwheel import BrokerError, BrokerRefused, BrokerUnavailable, OutcomeUnknown
from zwheel.broker.listener import LOOK
from zwheel.broker.store import FIRST_PAUSE_S, LONGEST_PAUSE_S, Listener, Store, SyncStore, pause_s
from zwheel.calls import Session, extend, read_letters
from zwheel.keys import ShardKeys

pytestmark = pytest.mark.anyio
KEYS = ShardKeys.of("zw", "default")


@pytest.fixture
async def store(url: str, anyio_backend: str) -> AsyncIterator[Store]:
    made = Store(url, Session("zw"), give_up_s=5)
    yield made
    await made.aclose()


def echo(text: str) -> tuple[str, str]:
    return ("ECHO", text)


async def test_a_batch_is_answered_in_its_order_in_one_round_trip(store: Store) -> None:
    assert await store.send([echo(str(n)) for n in range(100)]) == [str(n).encode() for n in range(100)]


async def test_an_error_in_a_batch_leaves_the_connection_in_step(store: Store) -> None:
    for _ in range(3):
        with pytest.raises(BrokerRefused):
            await store.send([echo("a"), ("LPUSH",), echo("b")])
        assert await store.send([echo("c")]) == [b"c"]


async def test_more_callers_than_connections_wait_their_turn(store: Store) -> None:
    answers = await asyncio.gather(*(store.send([echo(str(n))]) for n in range(200)))
    assert answers == [[str(n).encode()] for n in range(200)]


async def test_a_caller_that_is_cancelled_in_the_middle_leaves_no_reply_behind_for_another(store: Store) -> None:
    for n in range(60):
        asking = [asyncio.create_task(store.send([echo(f"{n}-{i}")] * 3)) for i in range(12)]
        for _ in range(n % 4):
            await asyncio.sleep(0)
        for i in (0, 5, 11):
            asking[i].cancel()
        outcomes = await asyncio.gather(*asking, return_exceptions=True)
        for i, outcome in enumerate(outcomes):
            if not isinstance(outcome, asyncio.CancelledError):
                assert outcome == [f"{n}-{i}".encode()] * 3


async def test_a_script_is_loaded_when_redis_does_not_know_it(store: Store, fresh: RedisServer) -> None:
    call = extend(KEYS, [], lease_ms=1000)
    for _ in range(3):
        with fresh.client() as client:
            client.script_flush()
        replies = await store.send([echo("before"), call, call, echo("after")])
        assert replies[0] == b"before"
        assert replies[-1] == b"after"
        assert read_letters(replies[1]) == read_letters(replies[2]) == ""


async def test_the_servers_clock_is_read_from_every_answer(store: Store, fresh: RedisServer) -> None:
    await store.send([extend(KEYS, [], lease_ms=1000)])
    with fresh.client() as client:
        seconds, us = client.time()
    assert abs(store.session.clock.now_us() - (int(seconds) * 1_000_000 + int(us))) < 200_000


@pytest.mark.parametrize("fault", list(Fault))
async def test_a_cut_connection_is_outcome_unknown_once_and_then_a_new_one(fresh: RedisServer, fault: Fault) -> None:
    with Proxy(fresh.socket) as proxy:
        store = Store(proxy.url, Session("zw"))
        await store.send([echo("warm")])
        proxy.arm(fault, "ECHO")
        with pytest.raises(OutcomeUnknown):
            await store.send([echo("lost")])
        assert await store.send([echo("found")]) == [b"found"]
        await store.aclose()


async def test_a_slow_server_is_a_typed_error_and_its_late_answer_is_nobodys(fresh: RedisServer) -> None:
    with Proxy(fresh.socket) as proxy:
        store = Store(proxy.url, Session("zw"), timeout_s=0.1)
        await store.send([echo("warm")])
        proxy.freeze()
        with pytest.raises(BrokerError):
            await store.send([echo("late")])
        proxy.thaw()
        assert await store.send([echo("now")]) == [b"now"]
        await store.aclose()


def asks(*batches: Any) -> Generator[Any, list[Any], list[Any]]:
    seen: list[Any] = []
    for batch in batches:
        replies = yield batch
        seen += [replies]
    return seen


async def test_an_operation_is_driven_to_its_result(store: Store) -> None:
    assert await store.drive(asks([echo("1")], 0.0, [echo("2"), echo("3")])) == [[b"1"], [], [b"2", b"3"]]


async def test_an_operation_that_is_cancelled_gives_its_lane_back(store: Store) -> None:
    def steps() -> Generator[Any, list[Any], None]:
        with store.session.lane():
            yield 60.0

    for _ in range(5):
        driving = asyncio.create_task(store.drive(steps()))
        await asyncio.sleep(0)
        driving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await driving
    with store.session.lane() as lane:
        assert lane.number == 0


async def test_driving_gives_up_in_time_and_says_what_is_known(own_server: Any) -> None:
    server = own_server()
    store = Store(server.url, Session("zw"), give_up_s=0.2)
    server.kill()
    with pytest.raises(BrokerUnavailable):
        await store.drive(asks([echo("x")]))
    await store.aclose()


async def test_a_listener_hears_a_token_and_the_lack_of_one(url: str, fresh: RedisServer) -> None:
    listener = Listener(url)
    assert await listener.listen((KEYS.wake,), 0.05) is None
    waiting = asyncio.create_task(listener.listen((KEYS.wake,), 5))
    with fresh.client() as client:
        client.rpush(KEYS.wake, "1")
    assert await waiting == (KEYS.wake, LOOK)
    await listener.aclose()


async def test_a_listener_whose_connection_is_killed_says_so_and_listens_again(url: str, fresh: RedisServer) -> None:
    listener = Listener(url)
    assert await listener.listen((KEYS.wake,), 0.01) is None
    waiting = asyncio.create_task(listener.listen((KEYS.wake,), 5))
    with fresh.client() as client:

        async def blocked() -> int:
            return int(client.info("clients")["blocked_clients"])

        await eventually(blocked, bool)
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        with pytest.raises(BrokerError):
            await waiting
        client.rpush(KEYS.wake, "1")
    assert await listener.listen((KEYS.wake,), 5) == (KEYS.wake, LOOK)
    await listener.aclose()


async def test_a_cancelled_listener_can_listen_again(url: str, fresh: RedisServer) -> None:
    listener = Listener(url)
    for _ in range(5):
        waiting = asyncio.create_task(listener.listen((KEYS.wake,), 5))
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    with fresh.client() as client:
        client.rpush(KEYS.wake, "1")
    assert await listener.listen((KEYS.wake,), 2) == (KEYS.wake, LOOK)
    await listener.aclose()


def test_the_blocking_shell_serves_threads_side_by_side(url: str) -> None:
    store = SyncStore(url, Session("zw"))
    wrong: list[Any] = []

    def ask(n: int) -> None:
        told = [(store.send([echo(f"{n}-{i}")] * 2), [f"{n}-{i}".encode()] * 2) for i in range(50)]
        wrong.extend(pair for pair in told if pair[0] != pair[1])

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.close()
    assert wrong == []


def test_the_pause_grows_and_has_an_end() -> None:
    for failures in range(1, 40):
        longest = max(pause_s(failures) for _ in range(50))
        assert 0 <= longest <= min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(failures, 10))
    assert max(pause_s(30) for _ in range(200)) > LONGEST_PAUSE_S / 2
