"""Groups of real servers: a primary with replicas and sentinels, and a cluster. Each group is closed by its test."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis

from tests.certificates import server_options
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


def _server(binary: Path, secure: Path | None, *arguments: str) -> RedisServer:
    """A server at a loopback port, which speaks TLS alone when there is a directory with certificates."""
    port = free_port()
    if secure is None:
        return RedisServer(binary, port=port, arguments=arguments)
    of_tls = (*server_options(secure, port), "--tls-replication", "yes", "--tls-cluster", "yes")
    server = RedisServer(binary, arguments=(*of_tls, *arguments))
    server.port = port
    return server


class _Sentinel(RedisServer):
    """A sentinel. It keeps what it knows in its configuration file."""

    def __init__(self, binary: Path, secure: Path | None, lines: tuple[str, ...]) -> None:
        super().__init__(binary, port=free_port())
        assert self.port is not None
        path = self.directory / "sentinel.conf"
        own: tuple[str, ...] = (f"port {self.port}",)
        if secure is not None:
            words = server_options(secure, self.port)
            own = (
                "port 0",
                "tls-replication yes",
                *(f"{a[2:]} {b}" for a, b in zip(words[::2], words[1::2], strict=True)),
            )
        own += ("bind 127.0.0.1", f"dir {self.directory}", f"unixsocket {self.socket}")
        path.write_text("\n".join((*own, f"logfile {self.directory / 'log'}", *lines, "")))
        self._arguments = [str(path), "--sentinel"]


class SentinelGroup:
    """One primary, two replicas and three sentinels that take a silent primary for dead after `down_ms`."""

    def __init__(self, binary: Path, *, down_ms: int = 1000, password: str = "", secure: Path | None = None) -> None:
        auth = ("--requirepass", password, "--masterauth", password) if password else ()
        self.password = password
        self.servers = [_server(binary, secure, *auth)]
        first = self.servers[0].port
        for _ in range(2):
            near = ("--replicaof", f"127.0.0.1 {first}", "--repl-diskless-sync-delay", "0")
            self.servers.append(_server(binary, secure, *auth, *near))
        lines = (
            f"sentinel monitor {MASTER} 127.0.0.1 {first} 2",
            f"sentinel down-after-milliseconds {MASTER} {down_ms}",
            f"sentinel failover-timeout {MASTER} 6000",
            *((f"sentinel auth-pass {MASTER} {password}",) if password else ()),
        )
        self.sentinels = [_Sentinel(binary, secure, lines) for _ in range(3)]

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


class Cluster:
    """Three primaries with a replica each; a node that is silent for `down_ms` is taken for dead."""

    def __init__(
        self, binary: Path, *, down_ms: int = 1000, secure: Path | None = None, arguments: tuple[str, ...] = ()
    ) -> None:  # fmt: skip
        self.buses = [free_port() for _ in range(6)]
        self.nodes = [
            _server(
                binary, secure,
                "--cluster-enabled", "yes", "--cluster-node-timeout", str(down_ms), "--cluster-port", str(bus),
                "--repl-diskless-sync-delay", "0", "--cluster-replica-validity-factor", "0", *arguments,
            )
            for bus in self.buses
        ]  # fmt: skip

    @property
    def url(self) -> str:
        """The URL that names all six nodes."""
        return f"redis+cluster://{','.join(f'127.0.0.1:{node.port}' for node in self.nodes)}"

    def start(self) -> Self:
        """Start all, make them a cluster and return when each node knows all of it."""
        for node in self.nodes:
            node.start()
        bounds = (0, 5461, 10923, 16384)
        for number, node in enumerate(self.nodes):
            with node.client() as client:
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
                if number < 3:
                    client.execute_command("CLUSTER", "ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
                for other, bus in zip(self.nodes[:number], self.buses, strict=False):
                    client.execute_command("CLUSTER", "MEET", "127.0.0.1", str(other.port), str(bus))
        wait_until(lambda: all(len(self.known(node)) == 6 for node in self.nodes), "all nodes know each other")
        for node, primary in zip(self.nodes[3:], self.nodes[:3], strict=True):
            with node.client() as client:
                client.execute_command("CLUSTER", "REPLICATE", self.id_of(primary))
        self.wait_whole()
        return self

    def wait_whole(self, within_s: float = _WITHIN_S) -> None:
        """Wait until each node knows that all nodes live, that the replicas follow and that all slots are covered."""
        wait_until(lambda: all(self._is_whole(node) for node in self.nodes), "the cluster is whole", within_s)

    def agree(self, slot: int, target: RedisServer) -> bool:
        """Whether all nodes say that a slot is with a primary, and its replicas have all that it has."""
        own = self.id_of(target)
        with target.client() as client:
            sent = client.info("replication")["master_repl_offset"]
            wait_until(lambda: _acknowledged(client) >= sent, "the replicas have what was moved")
        return all(slot in self._slots(line) for node in self.nodes for line in self.known(node) if line[0] == own)

    @staticmethod
    def _slots(line: list[str]) -> set[int]:
        """The slots of a node, by a line of CLUSTER NODES."""
        found: set[int] = set()
        for word in line[8:]:
            first, _, last = word.partition("-")
            if first.isdigit():
                found |= set(range(int(first), int(last or first) + 1))
        return found

    def known(self, node: RedisServer) -> list[list[str]]:
        """What a node says of all nodes: the words of CLUSTER NODES."""
        with node.client() as client:
            client.set_response_callback("CLUSTER NODES", lambda reply, **_: reply)
            told = _text(client.execute_command("CLUSTER", "NODES"))
        return [line.split() for line in told.splitlines()]

    def id_of(self, node: RedisServer) -> str:
        """The id of a node."""
        with node.client() as client:
            return _text(client.execute_command("CLUSTER", "MYID"))

    def _is_whole(self, node: RedisServer) -> bool:
        with node.client() as client:
            client.set_response_callback("CLUSTER INFO", lambda reply, **_: reply)
            about = _text(client.execute_command("CLUSTER", "INFO"))
            linked = client.info("replication").get("master_link_status", "up") == "up"
        lines = self.known(node)
        flags = [line[2] for line in lines]
        return (
            "cluster_state:ok" in about and linked and sum("slave" in each for each in flags) == 3
            and not any("handshake" in each or "fail" in each for each in flags)
        )  # fmt: skip

    def owner(self, slot: int) -> RedisServer:
        """The running node that has a slot by its own word. Raises: LookupError."""
        for node in self.nodes:
            if not node.running:
                continue
            (own,) = (line for line in self.known(node) if "myself" in line[2])
            if "master" not in own[2]:
                continue
            if slot in self._slots(own):
                return node
        raise LookupError(f"nobody has slot {slot}")

    def move(self, slot: int, target: RedisServer, *, pause_s: float = 0.0) -> None:
        """Move a slot with its keys to another primary, as `redis-cli --cluster reshard` does; pause_s: after each step."""
        source = self.owner(slot)
        with source.client() as old, target.client() as new:
            new.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", self.id_of(source))
            old.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", self.id_of(target))
            while True:
                time.sleep(pause_s)
                keys: Any = old.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 3)
                if not keys:
                    break
                old.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
            for node in (new, old):
                node.execute_command("CLUSTER", "SETSLOT", slot, "NODE", self.id_of(target))
        for node in self.nodes:
            if node.running and node not in (source, target):
                with node.client() as client, contextlib.suppress(redis.exceptions.ResponseError):
                    client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", self.id_of(target))

    def flush(self) -> None:
        """Delete all keys and all scripts."""
        for node in self.nodes:
            with node.client() as client:
                client.script_flush()
                with contextlib.suppress(redis.exceptions.ReadOnlyError):
                    client.flushall()

    def close(self) -> None:
        """End all of them."""
        for node in self.nodes:
            node.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _acknowledged(client: redis.Redis) -> int:
    """Up to where all replicas of a primary have its writes, as they told it last."""
    about: Any = client.info("replication")
    return min(int(about[f"slave{n}"]["offset"]) for n in range(about["connected_slaves"]))
