"""A plain URL that leads to one node of a cluster: what is asked there is refused, and changes nothing."""

from __future__ import annotations

import pytest

from tests.groups import Cluster
from tests.topology.load import command
from zwheel import Wheel

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


async def test_a_queue_is_neither_made_nor_cut_through_one_node(cluster: Cluster) -> None:
    async with Wheel(cluster.url) as wheel:
        await wheel.create_queue("orders", shards=4)
        await wheel.enqueue("t", queue="orders", delay=3600)
        for node in cluster.nodes[:3]:
            done = await command(node.url, "queue", "reshard", "orders", "--shards", "8")
            assert done.returncode in (4, 6), done.stderr
            done = await command(node.url, "queue", "create", "others", "--shards", "6")
            assert done.returncode == 6, done.stderr
            assert "redis+cluster://" in done.stderr
        assert list(await wheel.queues()) == ["orders"]
        # Nobody is on the way to eight.
        assert (await wheel.reshard_queue("orders", shards=2)).moved == 1


@pytest.mark.parametrize("scheme", ["rediss+cluster", "redis+sentinel"])
async def test_a_wrong_kind_of_url_is_one_sentence(cluster: Cluster, scheme: str) -> None:
    address = cluster.url.removeprefix("redis+cluster://").split(",")[0]
    done = await command(f"{scheme}://{address}{'/main' if 'sentinel' in scheme else ''}", "queue", "ls")
    assert done.returncode in (3, 6), done.stderr
    assert "CancelledError" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    if scheme == "rediss+cluster":
        assert "redis+cluster" in done.stderr
