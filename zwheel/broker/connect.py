"""Redis clients with the settings a queue needs.

Every setting that matters is explicit, because redis-py's defaults suit a cache, not a queue:

- its retries are off: a command whose reply was lost must not be sent again behind our back;
- RESP2, so that a pooled connection which the server closed is noticed before it is used;
- the handshake is bounded, and an interrupted one is dropped, so that no reply of it is read as another command's;
- keepalive finds a half-open connection within 15 s, also under a blocking command that has no time limit.
"""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import weakref
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import redis
import redis.asyncio
from redis import exceptions as client_errors
from redis.asyncio import connection as async_connection
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.driver_info import DriverInfo
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry as SyncRetry

from zwheel._version import __version__
from zwheel.broker.address import MEMORY_BANNER, Address, mask_url, parse_url
from zwheel.broker.errors import ConnectFailed, scrub, translate
from zwheel.broker.files import check_files, login
from zwheel.broker.sentinel import ASK_S, AsyncToPrimary, Sentinels, SyncToPrimary
from zwheel.broker.wire import Bounded
from zwheel.errors import BrokerRefused, ConfigError
from zwheel.outside import escaped

if TYPE_CHECKING:
    import fakeredis

__all__ = [
    "CONNECT_TIMEOUT_S",
    "MEMORY_BANNER",
    "check_kind",
    "check_server",
    "connect_async",
    "connect_blocking",
    "connect_sync",
    "mask_url",
    "open_descriptors",
    "translate",
]

CONNECT_TIMEOUT_S = 5.0
"""How long connecting may take, TLS and login included."""
MIN_REDIS = (7, 0)
MIN_VALKEY = (7, 2)
_NEEDED = "zwheel needs Redis 7.0 or newer, or Valkey 7.2 or newer"


log = escaped("zwheel.connect")
#: The servers about which `_warn` has warned.
_warned: set[str] = set()
#: Every connection that was begun and is still known to somebody.
_connections: weakref.WeakSet[Any] = weakref.WeakSet()


def open_descriptors() -> list[int]:
    """The sockets of this process's connections: a process that a task forks is to have no part in them."""
    found = []
    for connection in list(_connections):
        writer = getattr(connection, "_writer", None)
        own = getattr(connection, "_sock", None) if writer is None else writer.get_extra_info("socket")
        if own is not None:
            found.append(own.fileno())
    return found


def _scrub(connection: Any, error: BaseException) -> None:
    """Nothing that is raised here may tell a password, in any part of its traceback."""
    read = getattr(connection.credential_provider, "password", None)
    scrub(error, [connection.password, read, getattr(connection, "ssl_password", None)])


class _AsyncHandshake:
    """Bounds and marks the making of a connection. Mixed into redis-py's asyncio connections."""

    async def connect_check_health(self, check_health: bool = True, retry_socket_connect: bool = True) -> None:
        connection: Any = self
        if connection.is_connected:
            return
        _connections.add(self)
        parent: Any = super()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await parent.connect_check_health(check_health=check_health, retry_socket_connect=retry_socket_connect)
        except BaseException as error:
            await connection.disconnect(nowait=True)
            _scrub(connection, error)
            if isinstance(error, Exception):
                raise ConnectFailed(str(error) or "the login took too long") from error
            raise

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:
        parent: Any = super()
        try:
            return await parent.read_response(*args, **kwargs)
        except client_errors.ReadOnlyError:
            connection: Any = self
            connection.mark_for_reconnect()
            raise


class _AsyncTcp(_AsyncHandshake, async_connection.Connection):
    pass


class _AsyncTls(_AsyncHandshake, async_connection.SSLConnection):
    pass


class _AsyncUnix(_AsyncHandshake, async_connection.UnixDomainSocketConnection):
    async def _connect(self) -> None:
        """Open the socket only: redis-py's own version also logs in, and its caller then logs in again."""
        async with asyncio.timeout(self.socket_connect_timeout):
            self._reader, self._writer = await asyncio.open_unix_connection(path=self.path)


class _SyncHandshake:
    """Bounds and marks the making of a connection. Mixed into redis-py's blocking connections."""

    def _connect(self) -> Any:
        parent: Any = super()
        connection: Any = self
        within_s = connection.socket_connect_timeout or CONNECT_TIMEOUT_S
        # redis-py gives a TLS handshake as long as a command.
        connection.socket_timeout, command_s = within_s, connection.socket_timeout
        try:
            return Bounded(parent._connect(), within_s)
        finally:
            connection.socket_timeout = command_s

    def connect_check_health(self, check_health: bool = True, retry_socket_connect: bool = True) -> None:
        parent: Any = super()
        connection: Any = self
        _connections.add(self)
        try:
            parent.connect_check_health(check_health=check_health, retry_socket_connect=retry_socket_connect)
            if isinstance(connection._sock, Bounded):
                # Logged in: from now on each command has its own time.
                connection._sock = connection._sock.sock
                connection._sock.settimeout(connection.socket_timeout)
                connection._parser.on_connect(connection)
        except BaseException as error:
            connection.disconnect()
            _scrub(connection, error)
            if isinstance(error, Exception):
                raise ConnectFailed(str(error)) from error
            raise

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        parent: Any = super()
        try:
            return parent.read_response(*args, **kwargs)
        except client_errors.ReadOnlyError:
            connection: Any = self
            connection.mark_for_reconnect()
            raise


class _SyncTcp(_SyncHandshake, redis.Connection):
    pass


class _SyncTls(_SyncHandshake, redis.SSLConnection):
    pass


class _SyncUnix(_SyncHandshake, redis.UnixDomainSocketConnection):
    pass


class _AsyncTcpToPrimary(_AsyncHandshake, AsyncToPrimary, async_connection.Connection):
    pass


class _AsyncTlsToPrimary(_AsyncHandshake, AsyncToPrimary, async_connection.SSLConnection):
    pass


class _SyncTcpToPrimary(_SyncHandshake, SyncToPrimary, redis.Connection):
    pass


class _SyncTlsToPrimary(_SyncHandshake, SyncToPrimary, redis.SSLConnection):
    pass


_ASYNC_CLASSES: dict[str, type[async_connection.AbstractConnection]] = {
    "redis": _AsyncTcp,
    "rediss": _AsyncTls,
    "unix": _AsyncUnix,
    "redis+sentinel": _AsyncTcpToPrimary,
    "rediss+sentinel": _AsyncTlsToPrimary,
}
_SYNC_CLASSES: dict[str, Any] = {
    "redis": _SyncTcp,
    "rediss": _SyncTls,
    "unix": _SyncUnix,
    "redis+sentinel": _SyncTcpToPrimary,
    "rediss+sentinel": _SyncTlsToPrimary,
}


def connect_async(
    url: str | Address, *, timeout_s: float = 10.0, max_connections: int = 8, name: str | None = None
) -> redis.asyncio.Redis:
    """Make the client for commands. Nothing is sent before its first command.

    Args:
        timeout_s: How long one command may take, and how long it may wait for a free connection, in seconds.
        name: Shown by `CLIENT LIST`; the Redis user then needs the right to `CLIENT SETNAME`.

    Raises: ConfigError when the URL is not valid.
    """
    address = parse_url(url) if isinstance(url, str) else url
    if address.scheme == "memory":
        return _memory_async(address)
    pool = redis.asyncio.BlockingConnectionPool(
        connection_class=_ASYNC_CLASSES[_way(address)],
        max_connections=max_connections,
        timeout=timeout_s,
        **_settings(address, timeout_s, name, asynchronous=True),
    )
    return redis.asyncio.Redis.from_pool(pool)


def connect_blocking(url: str | Address, *, name: str | None = None) -> redis.asyncio.Redis:
    """Make the client for blocking commands: one connection, no time limit on an answer. The caller bounds each wait.

    Raises: ConfigError when the URL is not valid.
    """
    address = parse_url(url) if isinstance(url, str) else url
    if address.scheme == "memory":
        return _memory_async(address)
    pool = redis.asyncio.ConnectionPool(
        connection_class=_ASYNC_CLASSES[_way(address)],
        max_connections=1,
        **_settings(address, None, name, asynchronous=True),
    )
    return redis.asyncio.Redis.from_pool(pool)


def connect_sync(
    url: str | Address, *, timeout_s: float = 10.0, max_connections: int = 8, name: str | None = None
) -> redis.Redis:
    """Make the client for code without an event loop. Threads may share it; after a fork, each process connects anew.

    Raises: ConfigError when the URL is not valid.
    """
    address = parse_url(url) if isinstance(url, str) else url
    if address.scheme == "memory":
        return _memory_sync(address)
    make_pool: Any = redis.BlockingConnectionPool  # its constructor has no annotations
    pool = make_pool(
        connection_class=_SYNC_CLASSES[_way(address)],
        max_connections=max_connections,
        timeout=timeout_s,
        **_settings(address, timeout_s, name, asynchronous=False),
    )
    return redis.Redis.from_pool(pool)


def _warn(address: Address) -> None:
    """Say, once for each server, that nobody checks whom we talk to."""
    if address.tls.get("ssl_cert_reqs") == "none":
        what = "its certificate is not checked (ssl_cert_reqs=none)"
    elif address.tls.get("ssl_check_hostname") is False:
        what = "the name in its certificate is not checked (ssl_check_hostname=false)"
    else:
        return
    shown = str(address)
    if shown not in _warned:
        _warned.add(shown)
        log.warning(
            "INSECURE TLS to %s: %s: whoever sits on the way can read and change every job, and learns the password; "
            "name your own authority with ssl_ca_certs=/path/ca.pem instead", shown, what,
        )  # fmt: skip


def _way(address: Address) -> str:
    """What the class of a connection is chosen by."""
    return f"{address.scheme}+sentinel" if address.kind == "sentinel" else address.scheme


def _settings(address: Address, timeout_s: float | None, name: str | None, *, asynchronous: bool) -> dict[str, Any]:
    """What a connection is made with, its way to the primary included."""
    retry: Any = AsyncRetry(NoBackoff(), 0) if asynchronous else SyncRetry(NoBackoff(), 0)
    settings = {**_connection_settings(address, timeout_s, name), "retry": retry}
    if address.kind == "sentinel":
        classes: Any = _ASYNC_CLASSES if asynchronous else _SYNC_CLASSES
        user, password = address.sentinel_username, address.sentinel_password
        of_sentinels = replace(address, username=user, password=password, password_file="", db=0)
        asked = _connection_settings(of_sentinels, ASK_S, None) | {"socket_connect_timeout": ASK_S}

        def ask(host: str, port: int) -> Any:
            return classes[address.scheme](**{**asked, "retry": retry, "host": host, "port": port})

        settings |= {"sentinels": Sentinels(address), "ask": ask}
    return settings


def _connection_settings(address: Address, timeout_s: float | None, name: str | None) -> dict[str, Any]:
    _warn(address)
    check_files(address)
    settings: dict[str, Any] = {
        "db": address.db,
        **login(address),
        "socket_timeout": timeout_s,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "retry_on_timeout": False,
        "retry_on_error": [],
        "decode_responses": False,
        "health_check_interval": 0,
        "client_name": name,
        # Its two questions also make each login a round trip: a server that turns us away does so before a command is sent.
        "driver_info": DriverInfo(name="zwheel", lib_version=__version__),
        "protocol": 2,
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
    if address.scheme == "unix":
        settings["path"] = address.path
    else:
        settings |= {
            "host": address.host,
            "port": address.port,
            "socket_keepalive": True,
            "socket_keepalive_options": _keepalive(),
            **address.tls,
        }
    return settings


def _keepalive() -> dict[int, int]:
    """Probe after 5 s of silence, every 3 s, 3 times: a dead peer is noticed after 14 s. Leave out what a system lacks."""
    wanted = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 3, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 14_000}
    if not hasattr(socket, "TCP_KEEPIDLE"):
        wanted["TCP_KEEPALIVE"] = wanted.pop("TCP_KEEPIDLE")
    return {getattr(socket, name): value for name, value in wanted.items() if hasattr(socket, name)}


_memory_stores: dict[str, fakeredis.FakeServer] = {}
_memory_lock = threading.Lock()


def _memory_store(address: Address) -> fakeredis.FakeServer:
    try:
        import fakeredis
    except ImportError:
        raise ConfigError('memory:// needs an extra: pip install "zwheel[memory]"') from None
    with _memory_lock:
        return _memory_stores.setdefault(address.host, fakeredis.FakeServer(version=(7,)))


def _memory_async(address: Address) -> redis.asyncio.Redis:
    server = _memory_store(address)
    import fakeredis

    return fakeredis.FakeAsyncRedis(server=server)


def _memory_sync(address: Address) -> redis.Redis:
    server = _memory_store(address)
    import fakeredis

    return fakeredis.FakeRedis(server=server)


def check_kind(info: Mapping[str, Any], url: str) -> None:
    """See by what `INFO server` answered that the URL of one server does not lead to a node of a cluster.

    Raises: BrokerRefused, with the URL to write instead.
    """
    mode = info.get("redis_mode") or info.get("server_mode")
    address = parse_url(url)
    if mode == "cluster" and not address.kind:
        raise BrokerRefused(f"{address} is a node of a Redis Cluster: write {address.instead('cluster')}", "MOVED")


def check_server(info: Mapping[str, Any]) -> None:
    """Check what `INFO server` answered: Redis 7.0 or newer, or Valkey 7.2 or newer.

    Raises: BrokerRefused, with the version found and the one needed.
    """
    if "valkey_version" in info:
        family, written, needed = "Valkey", str(info["valkey_version"]), MIN_VALKEY
    elif "redis_version" in info:
        family, written, needed = "Redis", str(info["redis_version"]), MIN_REDIS
    else:
        raise BrokerRefused(f"the server does not tell its version: {_NEEDED}")
    found = re.match(r"(\d+)\.(\d+)", written)
    if found is None or (int(found[1]), int(found[2])) < needed:
        raise BrokerRefused(f"the server is {family} {written}, which is too old: {_NEEDED}")
