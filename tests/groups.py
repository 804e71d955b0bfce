"""Groups of real servers: a primary with replicas and sentinels. Each group is closed by its test."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis

from tests.servers import RedisServer, free_port

_WITHIN_S = 30.0
MASTER = "mymaster"


def wait_until(good: Callable[[], object], what: str, within_s: float = _WITHIN_S) -> None:
    """Look until it is so. Servers that do not answer are no answer yet."""
    deadline = time.monotonic() + within_s
    while True:
        with contextlib.suppress(redis.exceptions.RedisError, OSError, LookupError):
            if good():
                return
        assert time.monotonic() < deadline, f"after {within_s:g} s not yet: {what}"
        time.sleep(0.02)


class _Sentinel(RedisServer):
    """A sentinel. It keeps what it knows in its configuration file."""

    def __init__(self, binary: Path, lines: tuple[str, ...]) -> None:
        super().__init__(binary, port=free_port())
        path = self.directory / "sentinel.conf"
        own = (f"port {self.port}", "bind 127.0.0.1", f"dir {self.directory}", f"unixsocket {self.socket}")
        path.write_text("\n".join((*own, f"logfile {self.directory / 'log'}", *lines, "")))
        self._arguments = [str(path), "--sentinel"]


class SentinelGroup:
    """One primary, two replicas and three sentinels that take a silent primary for dead after `down_ms`."""

    def __init__(self, binary: Path, *, down_ms: int = 1000, password: str = "") -> None:
        auth = ("--requirepass", password, "--masterauth", password) if password else ()
        self.password = password
        first = free_port()
        self.servers = [RedisServer(binary, port=first, arguments=auth)]
        for _ in range(2):
            near = ("--replicaof", f"127.0.0.1 {first}", "--repl-diskless-sync-delay", "0")
            self.servers.append(RedisServer(binary, port=free_port(), arguments=(*auth, *near)))
        lines = (
            f"sentinel monitor {MASTER} 127.0.0.1 {first} 2",
            f"sentinel down-after-milliseconds {MASTER} {down_ms}",
            f"sentinel failover-timeout {MASTER} 6000",
            *((f"sentinel auth-pass {MASTER} {password}",) if password else ()),
        )
        self.sentinels = [_Sentinel(binary, lines) for _ in range(3)]

    @property
    def url(self) -> str:
        """The URL that names all three sentinels."""
        hosts = ",".join(f"127.0.0.1:{one.port}" for one in self.sentinels)
        return f"redis+sentinel://{f':{self.password}@' if self.password else ''}{hosts}/{MASTER}/0"

    def start(self) -> Self:
        """Start all and return when the replicas follow and each sentinel knows the others."""
        for server in (*self.servers, *self.sentinels):
            server.start()
        wait_until(lambda: self._replicas() == len(self.servers) - 1, "the replicas follow")
        wait_until(lambda: all(self._knows_all(one) for one in self.sentinels), "the sentinels know each other")
        return self

    def _replicas(self) -> int:
        with self.client(self.servers[0]) as client:
            about: Any = client.info("replication")
        return sum(about[f"slave{n}"]["state"] == "online" for n in range(about["connected_slaves"]))

    def _knows_all(self, sentinel: RedisServer) -> bool:
        with sentinel.client() as client:
            about: Any = client.execute_command("SENTINEL", "MASTER", MASTER)
        if isinstance(about, list):
            about = dict(zip(about[::2], about[1::2], strict=True))
        facts = {_text(name): _text(value) for name, value in about.items()}
        return facts["num-other-sentinels"] == "2" and facts["num-slaves"] == str(len(self.servers) - 1)

    def client(self, server: RedisServer) -> redis.Redis:
        """A plain client of one server, for the test to close."""
        return redis.Redis(unix_socket_path=str(server.socket), password=self.password or None)

    @property
    def primary(self) -> RedisServer:
        """The running server that is a primary now. Raises: LookupError when there is none."""
        for server in self.servers:
            if server.running and self._role(server) == "master":
                return server
        raise LookupError("no server is a primary")

    def _role(self, server: RedisServer) -> str:
        with self.client(server) as client:
            role: Any = client.role()
        return _text(role[0])

    def close(self) -> None:
        """End all of them."""
        for server in (*self.sentinels, *self.servers):
            server.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
