"""Users with exactly the rules that `zwheel acl` prints, on a cluster and behind sentinels."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tests.groups import Cluster, SentinelGroup
from tests.servers import RedisServer
from tests.topology.load import command
from tests.workers.harness import running
from zwheel import Wheel

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


async def made(url: str, servers: Iterable[RedisServer], role: str) -> str:
    """Make a user of a role on all servers, as a person would; gives the URL with it."""
    done = await command(url, "acl", role, "--user", role)
    assert done.returncode == 0, done.stderr
    for server in servers:
        with server.client() as client:
            client.execute_command(*done.stdout.split())
            client.execute_command("ACL", "SETUSER", role, "on", ">secret")
    return url.replace("//", f"//{role}:secret@")


async def test_the_printed_rules_are_enough_on_a_cluster(cluster: Cluster) -> None:
    queues = ("a", "c", "g")
    async with Wheel(await made(cluster.url, cluster.nodes, "producer")) as producer:
        for queue in queues:
            await producer.enqueue("work", queue=queue, keep=60, durable="replicated(1)")
    jobs = {}
    async with Wheel(await made(cluster.url, cluster.nodes, "reader")) as reader:
        for queue in queues:
            (jobs[queue],) = await reader.jobs(queue)
    async with Wheel(await made(cluster.url, cluster.nodes, "worker")) as wheel:

        @wheel.task(name="work", keep=60)
        async def work() -> None: ...

        async with Wheel(await made(cluster.url, cluster.nodes, "reader")) as reader, running(wheel, queues=queues):
            for queue, job in jobs.items():
                await reader.wait(job.id, queue, timeout=60)
    for words in (("doctor",), ("queue", "ls")):
        role = "doctor" if words == ("doctor",) else "operator"
        done = await command(await made(cluster.url, cluster.nodes, role), *words)
        assert done.returncode in (0, 5), done.stdout + done.stderr


async def test_the_printed_rules_are_enough_behind_sentinels(group: SentinelGroup) -> None:
    url = await made(group.url, group.servers, "producer")
    async with Wheel(url) as producer:
        await producer.enqueue("work", durable="replicated(2)")
    # Without the right to ask, a server is believed.
    with group.primary.client() as client:
        client.execute_command("ACL", "SETUSER", "producer", "-role")
    async with Wheel(url) as producer:
        await producer.enqueue("work")
