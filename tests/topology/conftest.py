"""Groups of servers that many tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.groups import Cluster, SentinelGroup
from tests.servers import binary_of


@pytest.fixture(scope="session")
def _clusters() -> Iterator[dict[str, Cluster]]:
    """The clusters of this test process by kind of server, each started when first needed."""
    made: dict[str, Cluster] = {}
    yield made
    for cluster in made.values():
        cluster.close()


@pytest.fixture
def cluster(server_kind: str, _clusters: dict[str, Cluster]) -> Cluster:
    """A cluster without keys and scripts, whose nodes no test ends."""
    if server_kind not in _clusters:
        binary = binary_of(server_kind)
        assert binary is not None
        _clusters[server_kind] = Cluster(binary).start()
    _clusters[server_kind].flush()
    return _clusters[server_kind]


@pytest.fixture
def group() -> Iterator[SentinelGroup]:
    """A group of the test's own."""
    binary = binary_of("redis") or binary_of("valkey")
    assert binary is not None
    with SentinelGroup(binary) as made:
        yield made


@pytest.fixture
def own() -> Iterator[Cluster]:
    """A cluster of the test's own."""
    binary = binary_of("redis") or binary_of("valkey")
    assert binary is not None
    with Cluster(binary) as made:
        yield made
