"""A node of a cluster is dead or silent and nothing takes its place: what lies on the other nodes goes on as if it were there."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.groups import Cluster
from tests.servers import RedisServer, binary_of
from tests.topology.load import command
from tests.workers.harness import eventually, running
from zwheel import JobState, NewJob, Wheel, current_job
from zwheel.broker.cluster import slot_of
from zwheel.broker.store import Store
from zwheel.keys import ShardKeys, queues_key, shard_names, shard_number
from zwheel.verify import check, read

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(180)]
SHARDS = 6
NAMES = shard_names("big", SHARDS)
#: So long a worker may take over what there is to do for living shards: more than a second for a beat, and a margin.
SOON_S = 10.0


@pytest.fixture
def own() -> Iterator[Cluster]:
    """A cluster that serves what is covered. A node that was killed comes back with what it had."""
    binary = binary_of("redis") or binary_of("valkey")
    assert binary is not None
    kept = ("--appendonly", "yes", "--appendfsync", "always", "--cluster-require-full-coverage", "no")
    with Cluster(binary, arguments=kept) as made:
        yield made


class Lost:
    """A node that goes away with its replica, the ids of jobs by whether their shard lies there, and its shards."""

    def __init__(self, cluster: Cluster) -> None:
        # The list of queues, and the list of workers of the queue, lie on nodes that live.
        kept = [queues_key("zw"), ShardKeys.of("zw", NAMES[0]).workers]
        living = [cluster.owner(slot_of(key)) for key in kept]
        owners = {name: cluster.owner(slot_of(ShardKeys.of("zw", name).meta)) for name in NAMES}
        node = next(node for node in cluster.nodes[:3] if node not in living and node in owners.values())
        self.nodes: list[RedisServer] = [node, cluster.nodes[cluster.nodes.index(node) + 3]]
        self.shards = {name for name, owner in owners.items() if owner is node}
        assert 0 < len(self.shards) < SHARDS

    def has(self, job_id: str) -> bool:
        return NAMES[shard_number(job_id, SHARDS)] in self.shards

    def split(self, make: Callable[[], NewJob], count: int = 24) -> tuple[list[NewJob], list[NewJob]]:
        """New jobs: those whose shard lies there, and those whose shard lies elsewhere; some of each."""
        while True:
            jobs = [make() for _ in range(count)]
            there, elsewhere = [job for job in jobs if self.has(job.id)], [job for job in jobs if not self.has(job.id)]
            if there and elsewhere:
                return there, elsewhere

    def go(self, how: str) -> None:
        for node in self.nodes:
            node.kill() if how == "dead" else node.freeze()

    def come_back(self, how: str) -> None:
        for node in self.nodes:
            node.start() if how == "dead" else node.thaw()


@pytest.fixture
def lost(own: Cluster) -> Lost:
    return Lost(own)


@pytest.mark.parametrize("how", ["dead", "silent"])
async def test_what_a_dead_worker_held_on_other_nodes_comes_back(own: Cluster, lost: Lost, how: str) -> None:
    begun: dict[str, int] = {}
    gate = asyncio.Event()
    async with Wheel(own.url) as wheel:
        await wheel.create_queue("big", shards=SHARDS)

        @wheel.task(name="hold", queue="big", keep=60)
        async def hold() -> None:
            begun[current_job().id] = begun.get(current_job().id, 0) + 1
            await gate.wait()

        there, rest = lost.split(hold.job)
        jobs, elsewhere = [*there, *rest], {job.id for job in rest}
        about: dict[str, Any] = {"queues": ("big",), "concurrency": 30, "lease_ms": 1_500, "reap_ms": 300}
        async with running(wheel, **about) as first:
            await wheel.enqueue_many(jobs)
            await eventually(lambda: asyncio.sleep(0, len(begun)), lambda count: count == 24)
            async with running(wheel, **about):
                lost.go(how)
                await first.vanish()
                gate.set()
                await eventually(
                    lambda: asyncio.sleep(0, {job for job, starts in begun.items() if starts > 1}),
                    lambda again: again >= elsewhere, within=3 * SOON_S,
                )  # fmt: skip
                lost.come_back(how)
                await eventually(lambda: asyncio.sleep(0, set(begun.values())), lambda starts: starts == {2}, within=60)


async def test_nothing_is_taken_from_a_worker_that_lives_on_the_other_nodes(own: Cluster, lost: Lost) -> None:
    """Its leases are renewed there although another node gives no answer: each beat would wait for that one."""
    starts: dict[str, int] = {}
    stopped: list[str] = []
    gate = asyncio.Event()
    async with Wheel(own.url) as wheel:
        await wheel.create_queue("big", shards=SHARDS)

        @wheel.task(name="hold", queue="big", keep=60)
        async def hold() -> None:
            starts[current_job().id] = starts.get(current_job().id, 0) + 1
            try:
                await gate.wait()
            except asyncio.CancelledError:
                stopped.append(current_job().id)
                raise

        there, rest = lost.split(hold.job)
        jobs, elsewhere = [*there, *rest], {job.id for job in rest}
        about: dict[str, Any] = {"queues": ("big",), "concurrency": 30, "lease_ms": 6_000, "reap_ms": 300}
        async with running(wheel, **about), running(wheel, **about):
            await wheel.enqueue_many(jobs)
            await eventually(lambda: asyncio.sleep(0, len(starts)), lambda count: count == 24)
            lost.go("silent")
            # Two leases go by.
            ends = time.monotonic() + 13
            await eventually(lambda: asyncio.sleep(0, time.monotonic()), lambda now: now > ends)
            assert not elsewhere & set(stopped)
            assert {starts[job] for job in elsewhere} == {1}
            lost.come_back("silent")
            gate.set()
            await eventually(lambda: wheel.count("big", JobState.DONE), lambda done: done == 24, within=60)


@pytest.mark.parametrize("how", ["dead", "silent"])
async def test_a_worker_that_starts_serves_living_shards_at_once_and_others_when_they_are_back(
    own: Cluster, lost: Lost, how: str
) -> None:
    ran: set[str] = set()
    # An application's schedules are looked at in all queues, which takes as long as a call may take.
    async with Wheel(own.url, owner="shop") as wheel:
        await wheel.create_queue("big", shards=SHARDS)

        @wheel.task(name="work", queue="big", keep=60)
        async def work() -> None:
            ran.add(current_job().id)

        there, rest = lost.split(work.job)
        await wheel.enqueue_many([*there, *rest])
        elsewhere = {job.id for job in rest}
        lost.go(how)
        # A process that knows nothing yet of this cluster would ask the hosts of the URL, one after the other.
        async with running(wheel, queues=("big",), wait=False):
            await eventually(lambda: asyncio.sleep(0, set(ran)), lambda now: now == elsewhere, within=SOON_S)
            lost.come_back(how)
            await eventually(lambda: asyncio.sleep(0, len(ran)), lambda count: count == 24, within=60)


async def test_commands_show_the_rest_and_say_which_part_could_not_be_read(own: Cluster, lost: Lost) -> None:
    async with Wheel(own.url) as wheel:
        await wheel.create_queue("big", shards=SHARDS)
        there, rest = lost.split(lambda: wheel.new_job("work", queue="big", delay=60))
        await wheel.enqueue_many([*there, *rest])
        elsewhere = {job.id for job in rest}
        lost.go("dead")
        listed = await command(own.url, "queue", "ls", "--json")
        assert listed.returncode == 5, listed
        assert f'"scheduled":{len(elsewhere)},' in listed.stdout.replace(" ", "")
        shown = await command(own.url, "queue", "show", "big")
        checked = await command(own.url, "doctor")
        assert checked.returncode == 5, checked
        taken = await command(own.url, "verify", "--snapshot")
        lines = [json.loads(line) for line in taken.stdout.splitlines()]
        assert {job["id"] for line in lines for job in line["jobs"]} == elsewhere
        assert set(lines[-1]["args"]["away"]) == lost.shards
        for told in (listed, shown, taken):
            assert told.returncode == 5, told
            assert told.stderr.count("no answer") == 1, told
            assert all((name in told.stderr) is (name in lost.shards) for name in NAMES), told
        for name in NAMES:
            (line,) = (line for line in checked.stdout.splitlines() if f"{name}: " in line)
            assert ("not looked at" in line) is (name in lost.shards)


async def test_a_history_whose_snapshot_lacks_a_part_is_not_decided_there(tmp_path: Path) -> None:
    taken = {"part": "keys", "away": ["big/1of6"]}
    line = {"seq": 0, "proc": "p", "op": "final", "phase": "ok", "queue": None, "redis_us": 1, "mono_ns": 1, "jobs": []}
    (tmp_path / "a.jsonl").write_text(json.dumps({**line, "args": taken}) + "\n")
    report = check(read([tmp_path]))
    for number in ("I9", "I10", "I11", "I20"):
        assert "lacks big/1of6" in report.verdict(number).why


async def test_a_claim_that_a_silent_node_does_not_answer_keeps_no_room_from_the_others(
    own: Cluster, lost: Lost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker asks for as many jobs as it has room for, just when the node falls silent."""
    ran: set[str] = set()
    # A call of the worker waits so long for a silent node.
    monkeypatch.setattr("zwheel.workers.worker.Store", partial(Store, timeout_s=60))
    async with Wheel(own.url) as wheel:
        await wheel.create_queue("big", shards=SHARDS)

        @wheel.task(name="work", queue="big", keep=60)
        async def work() -> None:
            ran.add(current_job().id)

        there, _ = lost.split(work.options(delay=1.5).job)
        _, elsewhere = lost.split(work.job)
        async with running(wheel, queues=("big",), concurrency=4):
            await wheel.enqueue_many(there)
            lost.go("silent")
            # The claims of its shards go out meanwhile, and get no answer.
            await asyncio.sleep(2.0)
            await wheel.enqueue_many(elsewhere)
            await eventually(
                lambda: asyncio.sleep(0, len(ran)), lambda count: count == len(elsewhere), within=2 * SOON_S
            )
            lost.come_back("silent")
            everything = len(there + elsewhere)
            await eventually(lambda: asyncio.sleep(0, len(ran)), lambda count: count == everything, within=60)
