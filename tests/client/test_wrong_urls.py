"""What a wrong URL is told: in one sentence, with its cure, within the time that a call is given."""

from __future__ import annotations

import http.server
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.servers import RedisServer
from zwheel import SyncWheel, Wheel
from zwheel.errors import BrokerRefused, BrokerUnavailable

#: A call is given so long, and so long at the most it takes, seconds.
GIVE_UP_S, AT_MOST_S = 0.5, 5.0


@pytest.fixture(scope="module")
def web() -> Iterator[int]:
    """The port of a web server."""
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def silent() -> Iterator[int]:
    """A port at which connections are made, and nobody speaks."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.fixture(scope="module")
def closing() -> Iterator[int]:
    """A port that hangs up at once, as a TLS port does on a client that does not speak TLS."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                connection.recv(1)
                connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


Ports = Callable[[str], int]


@pytest.fixture
def ports(web: int, silent: int, closing: int) -> Ports:
    """The port of each kind."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = free.getsockname()[1]
    return {"web": web, "silent": silent, "closing": closing, "nobody": nobody}.__getitem__


CASES = {
    "redis://127.0.0.1:{web}": (BrokerRefused, "does not speak Redis's protocol: check the host and the port"),
    "rediss://127.0.0.1:{silent}": (BrokerUnavailable, "its port may be one without TLS: then write redis://"),
    "rediss://127.0.0.1:{web}": (BrokerUnavailable, "its port may be one without TLS: then write redis://"),
    "redis://127.0.0.1:{closing}": (BrokerUnavailable, "if its port wants TLS, write rediss://"),
    "redis://127.0.0.1:{nobody}": (BrokerUnavailable, "is it running\\? Start it, or set ZWHEEL_URL"),
    "unix:///tmp/there-is-no-such.sock": (BrokerUnavailable, "is it running\\? Start it, or set ZWHEEL_URL"),
}


def _url(case: str, ports: Ports) -> str:
    for name in ("web", "silent", "closing", "nobody"):
        if f"{{{name}}}" in case:
            return case.replace(f"{{{name}}}", str(ports(name)))
    return case


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_url_is_told_with_its_cure(case: str, ports: Ports) -> None:
    kind, cure = CASES[case]
    began = time.monotonic()
    with SyncWheel(_url(case, ports), give_up_s=GIVE_UP_S) as wheel, pytest.raises(kind, match=cure) as raised:
        wheel.enqueue("task")
    assert time.monotonic() - began < AT_MOST_S
    _says_how_long(raised.value)


@pytest.mark.anyio
@pytest.mark.parametrize("case", CASES)
async def test_a_wrong_url_is_told_with_its_cure_in_async_code(case: str, ports: Ports) -> None:
    kind, cure = CASES[case]
    began = time.monotonic()
    async with Wheel(_url(case, ports), give_up_s=GIVE_UP_S) as wheel:
        with pytest.raises(kind, match=cure) as raised:
            await wheel.enqueue("task")
    assert time.monotonic() - began < AT_MOST_S
    _says_how_long(raised.value)


def _says_how_long(error: BaseException) -> None:
    if isinstance(error, BrokerUnavailable):
        assert "; tried for 0.5 s; the request was not carried out" in str(error)


def test_a_database_that_the_server_does_not_have_is_told(fresh: RedisServer) -> None:
    says = pytest.raises(BrokerRefused, match="its number, at the end of the URL, is too large for this server")
    with SyncWheel(f"{fresh.url}?db=9999", give_up_s=GIVE_UP_S) as wheel, says:
        wheel.enqueue("task")


def test_a_call_is_given_five_seconds_where_nothing_else_is_said() -> None:
    assert SyncWheel("redis://127.0.0.1:1").give_up_s == Wheel("redis://127.0.0.1:1").give_up_s == 5.0
