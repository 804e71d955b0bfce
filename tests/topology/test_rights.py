"""A worker of a cluster whose user loses a right, its password or itself while it runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.groups import Cluster
from tests.servers import RedisServer
from tests.topology.test_users import made
from tests.workers.harness import Log, eventually, running
from zwheel import Wheel
from zwheel.broker.acl import Role, rules
from zwheel.broker.cluster import slot_of
from zwheel.keys import ShardKeys

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(180)]
#: Queues on all three nodes.
QUEUES = ("a", "c", "g")
JOBS = 5


def ask(nodes: list[RedisServer], *words: str) -> None:
    for node in nodes:
        with node.client() as client:
            client.execute_command(*words)


def right(nodes: list[RedisServer], path: Path) -> Callable[[], None]:
    ask(nodes, "ACL", "SETUSER", "worker", "-evalsha")
    return lambda: ask(nodes, "ACL", "SETUSER", "worker", "+evalsha")


def user(nodes: list[RedisServer], path: Path) -> Callable[[], None]:
    ask(nodes, "ACL", "DELUSER", "worker")
    allowed = rules([Role.WORKER], "zw", [], "cluster")
    return lambda: ask(nodes, "ACL", "SETUSER", "worker", *allowed, "on", ">secret")


def password(nodes: list[RedisServer], path: Path) -> Callable[[], None]:
    ask(nodes, "ACL", "SETUSER", "worker", "resetpass", ">another")
    ask(nodes, "CLIENT", "KILL", "USER", "worker")
    return lambda: _written(path, "another")


def _written(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o600)


@pytest.mark.parametrize(("take", "everywhere"), [(right, False), (user, True), (password, True)])
async def test_what_a_worker_of_a_cluster_lost_at_run_time_costs_no_job(
    cluster: Cluster, take: Callable[[list[RedisServer], Path], Callable[[], None]], everywhere: bool,
    tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    log, path = Log(), tmp_path / "password"
    _written(path, "secret")
    url = (await made(cluster.url, cluster.nodes, "worker")).replace(":secret@", "@") + f"?password_file={path}"
    nodes = cluster.nodes if everywhere else [cluster.owner(slot_of(ShardKeys.of("zw", "a").tag))]
    async with Wheel(url) as wheel, Wheel(cluster.url) as other:

        @wheel.task(name="work")
        async def work() -> None: ...

        async def said() -> list[str]:
            return [told for told in caplog.messages if "waiting for Redis" in told]

        async with running(wheel, log, queues=QUEUES):
            for queue in QUEUES:
                await other.enqueue("work", id=f"before-{queue}", queue=queue)
            await log.until(lambda: len(log.of("done")) == len(QUEUES), 30)
            caplog.clear()
            give_back = take(nodes, path)
            for queue in QUEUES:
                for number in range(JOBS):
                    await other.enqueue("work", id=f"{queue}-{number}", queue=queue, keep=60)
            await eventually(said, bool, 60)
            give_back()
            await log.until(lambda: len(log.of("done")) == len(QUEUES) * (JOBS + 1), 60)
        # Once every 10 s and queue at the most.
        assert len(await said()) <= 3 * len(QUEUES)
        for queue in QUEUES:
            found = [await other.get(f"{queue}-{number}", queue) for number in range(JOBS)]
            assert [(job.state, job.attempt) for job in found if job is not None] == [("done", 1)] * JOBS
