"""Enqueues that return when the server has confirmed how safely it stored the job, and say so where it did not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MakeServer
from tests.groups import wait_until
from tests.proxy import Fault, Proxy, runs
from tests.servers import RedisServer, free_port
from tests.workers.harness import eventually
from zwheel import BrokerRefused, Durability, Enqueued, InvalidInput, JobState, NotDurable, SyncWheel, Wheel
from zwheel.broker.acl import Role, rules
from zwheel.keys import ShardKeys
from zwheel.verify import Bounds, check, read

pytestmark = pytest.mark.anyio
FAR = 3_600
ONE_REPLICA = Durability(replicas=1)
ON_DISK = Durability(fsynced=True)
PATIENT_S = 60.0
#: The server has a third of it to confirm something.
HASTY_S = 2.0


class Pair:
    """A primary and its replica."""

    def __init__(self, make: MakeServer) -> None:
        port = free_port()
        self.primary = make(port=port, arguments=("--repl-diskless-sync-delay", "0"))
        self.replica = make(arguments=("--replicaof", f"127.0.0.1 {port}"))
        wait_until(self._follows, "the replica follows")

    def _follows(self) -> bool:
        with self.replica.client() as client, self.primary.client() as first:
            linked = client.info("replication")["master_link_status"] == "up"
            return linked and bool(first.wait(1, 50))

    def copied(self, job_id: str) -> bool:
        """Whether the replica has a job at this moment."""
        with self.replica.client() as client:
            return bool(client.hexists(ShardKeys.of("zw", "default").jobs, job_id))


@pytest.fixture
def pair(own_server: MakeServer) -> Iterator[Pair]:
    made = Pair(own_server)
    yield made
    made.replica.thaw()


@pytest.fixture
def disk(own_server: MakeServer) -> RedisServer:
    """A server that syncs its append-only file each second, if it can tell whether it did."""
    server = own_server(appendonly=True, arguments=("--appendfsync", "everysec"))
    if not tells_of_disk(server):
        pytest.skip("this server does not know WAITAOF")
    return server


def tells_of_disk(server: RedisServer) -> bool:
    with server.client() as client:
        return b"waitaof" in client.execute_command("ACL", "CAT", "blocking")


def stored(server: RedisServer) -> int:
    with server.client() as client:
        return int(client.hlen(ShardKeys.of("zw", "default").jobs))


def patient(url: str) -> Wheel:
    return Wheel(url, namespace="zw", give_up_s=PATIENT_S, timeout_s=PATIENT_S)


def hasty(url: str) -> Wheel:
    """A wheel that waits shortly for what it has to be told, and long for Redis."""
    return Wheel(url, namespace="zw", give_up_s=PATIENT_S, timeout_s=HASTY_S)


async def test_a_replicated_job_is_on_the_replica_when_the_enqueue_returns(pair: Pair) -> None:
    async with patient(pair.primary.url) as wheel:
        plain = await wheel.enqueue("t", delay=FAR)
        answers = [await wheel.enqueue("t", delay=FAR, durable="replicated(1)") for _ in range(20)]
        assert plain.receipt is None
        assert [answer.receipt for answer in answers] == [ONE_REPLICA] * 20
        assert all(pair.copied(answer.job_id) for answer in answers)
        jobs = [wheel.new_job("t", args=[n], delay=FAR) for n in range(60)]
        many = await wheel.enqueue_many(jobs, chunk=20, durable="replicated(1)")
        assert [answer.receipt for answer in many] == [ONE_REPLICA] * 60
    with SyncWheel(pair.primary.url, namespace="zw", give_up_s=PATIENT_S, durable="replicated(1)") as sync:
        answer = sync.enqueue("t", delay=FAR)
        assert answer.receipt == ONE_REPLICA and pair.copied(answer.job_id)
        (one,) = sync.enqueue_many([sync.new_job("t", delay=FAR)])
        assert one.receipt == ONE_REPLICA and pair.copied(one.job_id)


async def test_what_is_not_confirmed_in_time_is_told_with_the_job_that_is_stored(pair: Pair) -> None:
    pair.replica.freeze()
    async with hasty(pair.primary.url) as wheel:
        with pytest.raises(
            NotDurable, match=r"job j-1 of queue default: stored, but not confirmed as replicated"
        ) as told:
            await wheel.enqueue("t", id="j-1", delay=FAR, durable="replicated(1)")
        (answer,) = told.value.answers
        assert (told.value.job_id, answer.existed, answer.receipt) == ("j-1", False, Durability())
        assert await wheel.get("j-1") is not None
        pair.replica.thaw()
        again = await _confirmed_at_last(wheel, "j-1")
        assert (again.existed, again.receipt) == (False, ONE_REPLICA)
        assert await wheel.count("default", JobState.SCHEDULED) == 1
    async with patient(pair.primary.url) as stranger:
        other = await stranger.enqueue("t", id="j-1", delay=FAR, durable="replicated(1)")
        assert (other.existed, other.receipt) == (True, ONE_REPLICA)


async def _confirmed_at_last(wheel: Wheel, job_id: str) -> Enqueued:
    """Ask until it is confirmed, as a caller would."""
    for _ in range(100):
        try:
            return await wheel.enqueue("t", id=job_id, delay=FAR, durable="replicated(1)")
        except NotDurable:
            continue
    raise AssertionError("never confirmed")


async def test_a_bulk_that_is_not_confirmed_is_completed_by_the_same_call(pair: Pair) -> None:
    pair.replica.freeze()
    async with hasty(pair.primary.url) as wheel:
        jobs = [wheel.new_job("t", args=[n], id=f"j-{n}", delay=FAR) for n in range(30)]
        with pytest.raises(NotDurable, match="job j-0 and 9 others of queue default: stored"):
            await wheel.enqueue_many(jobs, chunk=10, durable="replicated(1)")
        pair.replica.thaw()
    async with patient(pair.primary.url) as wheel:
        answers = await wheel.enqueue_many(jobs, chunk=10, durable="replicated(1)")
        assert [answer.receipt for answer in answers] == [ONE_REPLICA] * 30
        assert await wheel.count("default", JobState.SCHEDULED) == 30


@pytest.mark.parametrize("fault", [Fault.AFTER, Fault.MIDDLE])
async def test_a_repeat_after_a_lost_answer_waits_for_the_job_too(pair: Pair, fault: Fault) -> None:
    """The repeat comes on a connection that wrote nothing else: a wait on it would be over at once."""
    with Proxy(pair.primary.socket) as proxy:
        async with hasty(proxy.url) as wheel:
            await _confirmed_at_last(wheel, "j-0")
            pair.replica.freeze()
            cut = proxy.arm(fault, runs("enqueue"))
            with pytest.raises(NotDurable):
                await wheel.enqueue("t", id="j-1", delay=FAR, durable="replicated(1)")
            assert cut.is_set()
            assert stored(pair.primary) == 2


async def test_a_script_that_is_loaded_first_is_waited_for_too(pair: Pair) -> None:
    # The replica has this long for each confirmation, also on a busy machine.
    with SyncWheel(pair.primary.url, namespace="zw", give_up_s=PATIENT_S, timeout_s=6.0) as wheel:
        for _ in range(2):
            wheel.enqueue("t", delay=FAR, durable="replicated(1)")
        pair.replica.freeze()
        with pair.primary.client() as client:
            client.script_flush()
        with pytest.raises(NotDurable):
            wheel.enqueue("t", delay=FAR, durable="replicated(1)")


async def test_who_asks_for_nothing_does_not_wait_for_those_who_do(pair: Pair) -> None:
    pair.replica.freeze()
    async with patient(pair.primary.url) as wheel:
        slow = asyncio.create_task(wheel.enqueue("t", id="slow", delay=FAR, durable="replicated(1)"))
        await eventually(lambda: wheel.get("slow", "default"), bool)
        await wheel.enqueue("t", delay=FAR)
        assert not slow.done()
        pair.replica.thaw()
        assert (await slow).receipt == ONE_REPLICA


async def test_a_job_that_is_on_the_disk_survives_a_killed_server(disk: RedisServer) -> None:
    async with patient(disk.url) as wheel:
        answers = await asyncio.gather(*[wheel.enqueue("t", delay=FAR, durable="fsynced") for _ in range(20)])
        disk.kill()
        disk.start()
        assert [answer.receipt for answer in answers] == [ON_DISK] * 20
        found = await asyncio.gather(*[wheel.get(answer.job_id, "default") for answer in answers])
        assert all(found)


async def test_a_server_that_cannot_tell_stores_nothing(own_server: MakeServer) -> None:
    server = own_server()
    reason = "no append-only file" if tells_of_disk(server) else "fsynced takes Redis 7.2 or Valkey"
    async with patient(server.url) as wheel:
        with pytest.raises(BrokerRefused, match=rf"{reason}.*nothing was stored"):
            await wheel.enqueue("t", durable="fsynced")
        with pytest.raises(BrokerRefused, match="nothing was stored"):
            await wheel.enqueue_many([wheel.new_job("t")], durable="fsynced")
    assert stored(server) == 0


async def test_memory_alone_confirms_nothing(tmp_path: Path) -> None:
    pytest.importorskip("fakeredis")
    async with Wheel("memory://", namespace="zw") as wheel:
        with pytest.raises(BrokerRefused, match="nothing was stored"):
            await wheel.enqueue("t", durable="fsynced")


async def test_a_user_who_may_not_ask_stores_nothing(fresh: RedisServer) -> None:
    allowed = [rule for rule in rules([Role.PRODUCER], "zw", []) if rule != "+wait"]
    with fresh.client() as client:
        client.execute_command("ACL", "SETUSER", "shy", "on", "nopass", *allowed)
        try:
            async with Wheel(fresh.url.replace("unix://", "unix://shy:x@"), namespace="zw") as wheel:
                with pytest.raises(BrokerRefused, match="zwheel acl producer.*nothing was stored"):
                    await wheel.enqueue("t", durable="replicated(1)")
        finally:
            client.execute_command("ACL", "DELUSER", "shy")
    assert stored(fresh) == 0


async def test_the_printed_rules_are_enough_to_ask_for_the_disk(disk: RedisServer) -> None:
    with disk.client() as client:
        allowed = rules([Role.PRODUCER], "zw", [], fsynced=True)
        client.execute_command("ACL", "SETUSER", "shop", "on", "nopass", *allowed)
    async with Wheel(disk.url.replace("unix://", "unix://shop:x@"), namespace="zw", give_up_s=PATIENT_S) as wheel:
        assert (await wheel.enqueue("t", durable="fsynced")).receipt == ON_DISK


async def test_a_job_or_its_task_may_ask_for_less_than_its_wheel(fresh: RedisServer) -> None:
    async with Wheel(
        fresh.url, namespace="zw", durable="replicated(1)", give_up_s=PATIENT_S, timeout_s=HASTY_S
    ) as wheel:

        @wheel.task(durable="memory")
        async def modest(number: int = 0) -> None: ...

        assert (await wheel.enqueue("t", durable="memory")).receipt is None
        assert (await modest.enqueue()).receipt is None
        assert (await modest.enqueue(1)).receipt is None
        for ask in (wheel.enqueue("t"), modest.options(durable="replicated(1)").enqueue()):
            with pytest.raises(NotDurable):
                await ask


@pytest.mark.parametrize("text", ["", "disk", "replicated", "replicated(0)", "replicated(100)", "FSYNCED", 1, True])
async def test_what_is_no_level_is_refused(text: str) -> None:
    wheel = Wheel("redis://127.0.0.1:1")
    with pytest.raises(InvalidInput, match="durable: .* none of memory, fsynced and replicated"):
        wheel.new_job("t", durable=text)
    with pytest.raises(InvalidInput, match="durable"):
        Wheel("redis://127.0.0.1:1", durable=text)


async def test_a_history_says_what_was_reached(pair: Pair, tmp_path: Path) -> None:
    async with Wheel(
        pair.primary.url, namespace="zw", history=tmp_path, give_up_s=PATIENT_S, timeout_s=HASTY_S
    ) as wheel:
        await _confirmed_at_last(wheel, "j-1")
        pair.replica.freeze()
        with pytest.raises(NotDurable):
            await wheel.enqueue("t", id="j-2", delay=FAR, durable="replicated(1)")
    runs_ = read([tmp_path])
    assert [(receipt, line["jobs"][0]["id"]) for receipt, line, _ in runs_.receipts][-1] == ("replicated(1)", "j-1")
    assert runs_.receipts_seen > len(runs_.receipts)
    assert next(v for v in check(runs_, Bounds()).verdicts if v.number == "I21").state == "held"


async def test_a_bulk_whose_jobs_ask_for_the_disk_and_for_replicas_is_told_in_time(fresh: RedisServer) -> None:
    """A wait for no time at all would be one for ever."""
    async with Wheel(fresh.url, namespace="zw", give_up_s=3) as wheel:
        jobs = [
            wheel.new_job("t", delay=60, durable="replicated(1)"),
            wheel.new_job("t", delay=60, durable="fsynced"),
        ]
        with pytest.raises((NotDurable, BrokerRefused)):
            await wheel.enqueue_many(jobs)
