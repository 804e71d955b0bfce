"""The ports of the tests' servers: nobody else gets one between two starts of its server."""

from __future__ import annotations

import socket

import pytest

from tests.servers import RedisServer, binary_of, free_port


def _refused(port: int) -> bool:
    with socket.socket() as other:
        try:
            other.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


@pytest.mark.parametrize("kind", ["redis", "valkey"])
def test_a_port_stays_ours_while_its_server_is_down(kind: str) -> None:
    binary = binary_of(kind)
    if binary is None:
        pytest.skip(f"no {kind} server here")
    port = free_port()
    assert _refused(port)
    with RedisServer(binary, port=port) as server:
        assert _refused(port)
        server.kill()
        assert _refused(port)
        assert server.start().running
    assert _refused(port)
