"""Connections: never more than they may be, none that is out of step, each event loop and each process its own."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.proxy import Proxy
from tests.servers import RedisServer
from zwheel import JobState, OutcomeUnknown, SyncWheel, Wheel
from zwheel.broker.store import Store, SyncStore
from zwheel.calls import Session
from zwheel.errors import BrokerError

pytestmark = pytest.mark.anyio


def none_left(server: RedisServer, before: int) -> None:
    """Wait until the server has noticed that connections were closed."""
    deadline = time.monotonic() + 10
    while clients(server) > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert clients(server) <= before


def echo(word: str) -> list[tuple[str, str]]:
    return [("ECHO", word)]


async def end(store: Any) -> None:
    """Close either store."""
    if isinstance(store, SyncStore):
        store.close()
    else:
        await store.aclose()


def clients(server: RedisServer) -> int:
    """Connections that are open, ours to look with left out."""
    with server.client() as client:
        return int(client.info("clients")["connected_clients"]) - 1


@pytest.mark.parametrize("kind", [Store, SyncStore])
async def test_a_silent_server_is_waited_for_on_one_connection_and_not_on_each_in_turn(
    fresh: RedisServer, kind: type[Store | SyncStore]
) -> None:
    """The time-out is 2 s and a tenth, also where the server went silent with the request under way."""
    with Proxy(fresh.socket) as proxy:
        before = clients(fresh)
        store = kind(proxy.url, Session("zw"), timeout_s=2, max_connections=4)
        if isinstance(store, Store):
            await asyncio.gather(*(store.send(echo(str(n))) for n in range(100)))
        else:
            with ThreadPoolExecutor(8) as threads:
                list(threads.map(store.send, [echo(str(n)) for n in range(100)]))
        assert clients(fresh) > before + 1
        proxy.freeze()
        began = time.monotonic()
        with pytest.raises(OutcomeUnknown):
            await answer(store, echo("a"))
        assert time.monotonic() - began < 3.5
        proxy.thaw()
        assert await answer(store, echo("b")) == [b"b"]
        none_left(fresh, before + 1)
        await end(store)


async def answer(store: Store | SyncStore, asks: list[tuple[str, str]]) -> list[Any]:
    return await store.send(asks) if isinstance(store, Store) else store.send(asks)


async def test_a_burst_of_first_calls_opens_no_more_connections_than_it_may(fresh: RedisServer) -> None:
    store = Store(fresh.url, Session("zw"), max_connections=3)
    with fresh.client() as client:
        received = client.info("stats")["total_connections_received"]
        for _ in range(2):
            answers = await asyncio.gather(*(store.send(echo(str(n))) for n in range(1000)))
            assert answers == [[str(n).encode()] for n in range(1000)]
            assert client.info("stats")["total_connections_received"] - received == 3
            client.client_kill_filter(_type="normal", skipme=True)
            received = client.info("stats")["total_connections_received"]
    await store.aclose()


async def test_callers_that_wait_for_a_connection_which_cannot_be_made_are_told_together(url: str) -> None:
    store = Store("redis://127.0.0.1:1", Session("zw"), max_connections=2)
    started = time.monotonic()
    outcomes = await asyncio.gather(*(store.send(echo("x")) for _ in range(500)), return_exceptions=True)
    assert all(isinstance(outcome, BrokerError) for outcome in outcomes)
    assert time.monotonic() - started < 10
    await store.aclose()


class Peer:
    """A server of the test's own: it answers PING-like requests in order, and says more when it is told to."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}"
        self.open: list[socket.socket] = []
        #: Bytes that are sent after the login in the place of an answer, one by one, so many seconds apart.
        self.dribble: tuple[bytes, float] | None = None
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                taken, _ = self._listener.accept()
            except OSError:
                return
            self.open.append(taken)
            threading.Thread(target=self._serve, args=(taken,), daemon=True).start()

    def _serve(self, taken: socket.socket) -> None:
        import hiredis

        reader = hiredis.Reader()
        try:
            while data := taken.recv(65536):
                reader.feed(data)
                while (command := reader.gets()) is not False:
                    if command[0] != b"ECHO":
                        taken.sendall(b"+OK\r\n")
                    elif self.dribble is None:
                        taken.sendall(b"$%d\r\n%s\r\n" % (len(command[1]), command[1]))
                    else:
                        for i in range(len(self.dribble[0])):
                            taken.sendall(self.dribble[0][i : i + 1])
                            time.sleep(self.dribble[1])
        except OSError:
            return

    def say(self, data: bytes) -> None:
        """Say something on every connection that nobody asked for."""
        for one in self.open:
            one.sendall(data)

    def close(self) -> None:
        self._listener.close()
        for one in self.open:
            one.close()


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer()
    yield made
    made.close()


UNASKED = pytest.mark.parametrize(
    "data", [b"-ERR upstream timed out\r\n", b"+OK\r\n", b"$3\r\nf", b">2\r\n+invalidate\r\n+x\r\n", b"\0"],
    ids=["error", "answer", "part of one", "push", "garbage"],
)  # fmt: skip


@UNASKED
@pytest.mark.parametrize("seen", [False, True], ids=["unread", "read"])
async def test_what_nobody_asked_for_ends_the_connection_and_is_nobodys_answer(
    peer: Peer, data: bytes, seen: bool
) -> None:
    store = Store(peer.url, Session("zw"), max_connections=1)
    assert await store.send(echo("first")) == [b"first"]
    peer.say(data)
    if seen:
        await asyncio.sleep(0.05)
    else:
        time.sleep(0.05)  # noqa: ASYNC251 - the loop is to have no chance to read it
    for word in ("a", "b", "c"):
        assert await store.send(echo(word)) == [word.encode()]
    assert len(peer.open) == 2
    await store.aclose()


@UNASKED
def test_nor_does_the_blocking_client_take_it_for_an_answer(peer: Peer, data: bytes) -> None:
    store = SyncStore(peer.url, Session("zw"))
    assert store.send(echo("first")) == [b"first"]
    peer.say(data)
    time.sleep(0.05)
    for word in ("a", "b", "c"):
        assert store.send(echo(word)) == [word.encode()]
    assert len(peer.open) == 2
    store.close()


NO_ANSWERS = pytest.mark.parametrize(
    "noise",
    [b"$-1\r\n", b":7\r\n", b"*0\r\n", b"+OK\r\n", b">2\r\n+a\r\n+b\r\n", b"*2\r\n+ok\r\n+soon\r\n", b"%1\r\n+a\r\n#t\r\n"],
    ids=["nothing", "number", "empty", "text", "push", "no clock", "map"],
)  # fmt: skip


@NO_ANSWERS
@pytest.mark.parametrize("late_s", [0.0, 0.2], ids=["at once", "late"])
async def test_an_answer_that_no_script_gives_is_asked_for_again_on_another_connection(
    fresh: RedisServer, noise: bytes, late_s: float
) -> None:
    """The true answer follows it, and is not taken for that to the next request."""
    with Proxy(fresh.socket) as proxy, SyncWheel(proxy.url, namespace="zw") as blocking:
        async with Wheel(proxy.url, namespace="zw") as wheel:
            await wheel.enqueue("t", id="first", delay=60)
            blocking.enqueue("t", id="second", delay=60)
            proxy.noise = noise, late_s
            answers = [await wheel.enqueue("t", id="a", delay=60), await wheel.enqueue("t", id="b", delay=60)]
            proxy.noise = noise, late_s
            answers += [blocking.enqueue("t", id="c", delay=60), blocking.enqueue("t", id="d", delay=60)]
            assert [(answer.job_id, answer.existed) for answer in answers] == [(name, False) for name in "abcd"]
            assert await wheel.count("default", JobState.SCHEDULED) == 6


@NO_ANSWERS
async def test_a_caller_that_does_not_repeat_hears_that_the_outcome_is_unknown(
    fresh: RedisServer, noise: bytes
) -> None:
    with Proxy(fresh.socket) as proxy:
        async with Wheel(proxy.url, namespace="zw", give_up_s=0) as wheel:
            await wheel.enqueue("t", id="first", delay=60)
            proxy.noise = noise, 0.0
            with pytest.raises(OutcomeUnknown, match="no script answers"):
                await wheel.enqueue("t", id="a", delay=60)
            assert (await wheel.enqueue("t", id="a", delay=60)).existed is False


@pytest.mark.parametrize("blocking", [False, True], ids=["async", "sync"])
async def test_an_answer_that_dribbles_ends_when_its_caller_gives_up(peer: Peer, blocking: bool) -> None:
    def asks() -> Any:
        return (yield echo("x"))

    peer.dribble = b"$1000\r\n" + b"x" * 1000, 0.02
    store: Any = (SyncStore if blocking else Store)(peer.url, Session("zw"), timeout_s=5)
    started = time.monotonic()
    with pytest.raises(OutcomeUnknown):
        if blocking:
            store.drive(asks(), give_up_s=0.5)
        else:
            await store.drive(asks(), give_up_s=0.5)
    assert 0.2 < time.monotonic() - started < 4
    await end(store)


@pytest.mark.parametrize("blocking", [False, True], ids=["async", "sync"])
async def test_a_slow_answer_is_no_silence_while_bytes_arrive(peer: Peer, blocking: bool) -> None:
    """It takes three times as long as nothing may move."""
    peer.dribble = b"$30\r\n" + b"x" * 30 + b"\r\n", 0.02
    store: Any = (SyncStore if blocking else Store)(peer.url, Session("zw"), timeout_s=0.25)
    answer = store.send(echo("x")) if blocking else await store.send(echo("x"))
    assert answer == [b"x" * 30]
    await end(store)


def test_one_wheel_serves_loops_in_many_threads_at_once(fresh: RedisServer) -> None:
    wheel = Wheel(fresh.url, give_up_s=5)
    stored: list[str] = []
    failed: list[BaseException] = []

    def run(number: int) -> None:
        async def one(n: int) -> str:
            return (await asyncio.wait_for(wheel.enqueue("t", args=[number, n], queue="q"), 20)).job_id

        async def many() -> list[str]:
            return await asyncio.gather(*(one(n) for n in range(10)))

        try:
            for _ in range(10):
                stored.extend(asyncio.run(many()))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []
    assert len(set(stored)) == 600
    assert SyncWheel(fresh.url).queue("q").scheduled == 600


def test_loops_that_ended_leave_neither_connections_nor_memory(fresh: RedisServer) -> None:
    wheel = Wheel(fresh.url)
    before = clients(fresh)
    for n in range(50):
        asyncio.run(wheel.enqueue("t", args=[n]))
    assert wheel._clients == {}
    none_left(fresh, before)


def test_a_loop_that_was_closed_without_a_word_is_forgotten(fresh: RedisServer) -> None:
    wheel = Wheel(fresh.url)
    before = clients(fresh)
    for n in range(10):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(wheel.enqueue("t", args=[n]))
        loop.close()
    assert len(wheel._clients) == 1
    asyncio.run(wheel.ping())
    assert wheel._clients == {}
    gc.collect()
    none_left(fresh, before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
async def test_a_forked_process_has_connections_of_its_own(fresh: RedisServer) -> None:
    async with Wheel(fresh.url) as wheel:
        await wheel.enqueue("t", id="before")
        pid = os.fork()
        if pid == 0:  # pragma: no cover - another process
            code = 1
            try:

                def work() -> None:
                    nonlocal code
                    asyncio.run(wheel.enqueue("t", id="child"))
                    code = 0

                thread = threading.Thread(target=work)
                thread.start()
                thread.join(20)
            finally:
                os._exit(code)
        _, status = await asyncio.to_thread(os.waitpid, pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert not (await wheel.enqueue("t", id="after")).existed
        assert {job.id for job in await wheel.jobs("default")} == {"before", "child", "after"}
