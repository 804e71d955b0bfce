"""Jobs that replicas confirmed survive the death of the primary that took them; the history is judged for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.groups import Cluster, SentinelGroup
from tests.topology.load import kill
from tests.workers.harness import eventually
from zwheel import Durability, Enqueued, NotDurable, SyncWheel, Wheel
from zwheel.broker.cluster import slot_of
from zwheel.broker.store import SyncStore
from zwheel.calls import Session
from zwheel.history import History
from zwheel.keys import ShardKeys
from zwheel.verify import Bounds, check, read, take_snapshot

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(180)]
FAR = 3_600
GIVE_UP_S = 60.0
#: The server has a third of it to confirm something.
HASTY_S = 2.0


class Producers:
    """A producer and a blocking one that ask for replicas until they are told to stop."""

    def __init__(self, url: str, replicas: int, directory: Path) -> None:
        self._asked = f"replicated({replicas})"
        self._replicas = replicas
        self._url = url
        self._directory = directory
        self._stop = asyncio.Event()
        #: The answers with what was asked for, and those with less.
        self.kept: list[Enqueued] = []
        self.others: list[Enqueued] = []

    async def run(self, disturb: Callable[[], object]) -> None:
        """Kill something amid the enqueues, and go on until jobs are stored again."""
        about = {"namespace": "zw", "give_up_s": GIVE_UP_S, "timeout_s": HASTY_S, "durable": self._asked}
        async with Wheel(self._url, history=self._directory, **about) as wheel:  # type: ignore[arg-type]
            with SyncWheel(self._url, history=self._directory, **about) as sync:
                under_way = [
                    asyncio.create_task(self._produce(lambda: wheel.enqueue("t", queue="a", delay=FAR))),
                    asyncio.create_task(
                        self._produce(lambda: asyncio.to_thread(sync.enqueue, "t", queue="a", delay=FAR))
                    ),
                ]
                await eventually(self._count, lambda count: count > 100, within=60)
                since = time.time_ns() // 1000
                await asyncio.to_thread(disturb)
                seen = await self._count()
                await eventually(self._count, lambda count: count > seen + 4, within=60)
                self._stop.set()
                await asyncio.gather(*under_way)
                self._note(since)
                found = await asyncio.gather(*[wheel.get(one.job_id, "a") for one in self.kept])
        assert all(found), "a job that the replicas had is gone"

    async def _count(self) -> int:
        return len(self.kept) + len(self.others)

    async def _produce(self, enqueue: Callable[[], object]) -> None:
        while not self._stop.is_set():
            try:
                answer = await enqueue()  # type: ignore[misc]
            except NotDurable as error:
                self.others += error.answers
            else:
                assert answer.receipt == Durability(replicas=self._replicas)
                self.kept.append(answer)

    def _note(self, since_us: int) -> None:
        until_us = time.time_ns() // 1000
        args = {"kind": "failover", "replicas": self._replicas, "window": [since_us - 1_000_000, until_us]}
        line = {"seq": 1, "proc": "test", "op": "fault", "phase": "ok", "est_us": until_us, "args": args}
        History(self._directory).write([line | {"wall_ns": time.time_ns(), "mono_ns": time.monotonic_ns()}])

    def judge(self) -> str:
        """What is said of I21, with the snapshot taken."""
        store = SyncStore(self._url, Session("zw"), give_up_s=GIVE_UP_S)
        try:
            History(self._directory).write(list(take_snapshot(store)))
        finally:
            store.close()
        report = check(read([self._directory]), Bounds())
        assert [(verdict.number, verdict.breaches) for verdict in report.broken] == []
        return next(str(verdict.state) for verdict in report.verdicts if verdict.number == "I21")


async def test_what_the_replica_of_a_cluster_confirmed_outlives_its_primary(own: Cluster, tmp_path: Path) -> None:
    producers = Producers(own.url, 1, tmp_path)
    await producers.run(lambda: kill(own.owner(slot_of(ShardKeys.of("zw", "a").tag))))
    # The dead primary's replica has none of its own: what it stores is said to be in one memory only.
    assert {one.receipt for one in producers.others} == {Durability()}
    assert producers.judge() == "held"


async def test_what_all_replicas_of_sentinels_confirmed_outlives_the_primary(
    group: SentinelGroup, tmp_path: Path
) -> None:
    producers = Producers(group.url, 2, tmp_path)
    await producers.run(lambda: kill(group.primary))
    assert {one.receipt for one in producers.others} <= {Durability(), Durability(replicas=1)}
    assert producers.judge() == "held"


async def test_a_chunk_of_many_shards_is_confirmed_by_each_of_its_nodes(cluster: Cluster) -> None:
    async with Wheel(cluster.url, give_up_s=GIVE_UP_S, timeout_s=GIVE_UP_S) as wheel:
        await wheel.create_queue("big", shards=6)
        jobs = [wheel.new_job("t", args=[n], queue="big", delay=FAR) for n in range(60)]
        answers = await wheel.enqueue_many(jobs, chunk=30, durable="replicated(1)")
        assert {answer.receipt for answer in answers} == {Durability(replicas=1)}
        assert [answer.job_id for answer in answers] == [job.id for job in jobs]
