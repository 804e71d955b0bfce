"""The network cuts requests and replies: every call has one effect, and nobody but the log hears of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from tests.conftest import MakeServer
from tests.proxy import Fault, Proxy
from tests.servers import RedisServer
from tests.workers.harness import Log, define_hold, eventually, one_kind, running
from zwheel import (
    Backoff,
    BrokerError,
    BrokerUnavailable,
    Discard,
    JobState,
    OutcomeUnknown,
    SyncWheel,
    Wheel,
    current_job,
)
from zwheel.broker.store import Store
from zwheel.calls import Session, claim, day_name, read_claim
from zwheel.times import DAY_MS
from zwheel.workers import heartbeat

pytestmark = pytest.mark.anyio
AT_ONCE = Backoff(first=0.001, factor=1, longest=0.001)
FAULTS = list(Fault)


@pytest.fixture
def proxy(fresh: RedisServer) -> Iterator[Proxy]:
    with Proxy(fresh.socket) as made:
        yield made


@pytest.fixture
async def far(proxy: Proxy, anyio_backend: str) -> AsyncIterator[Wheel]:
    """A wheel behind the proxy."""
    async with Wheel(proxy.url, namespace="zw", give_up_s=5, timeout_s=5) as made:
        yield made


@pytest.mark.parametrize("fault", FAULTS)
async def test_an_enqueue_whose_connection_is_cut_is_carried_out_once(far: Wheel, proxy: Proxy, fault: Fault) -> None:
    await far.ping()
    proxy.arm(fault, "enqueue")
    answer = await far.enqueue("t", delay=60)
    # The repeat got the first answer: the job is new, it did not "exist" before.
    assert not answer.existed
    assert await far.count("default", JobState.SCHEDULED) == 1
    job = await far.get(answer.job_id)
    assert job is not None
    assert job.fire_at_ms == answer.fire_at_ms
    assert proxy.asked["enqueue"] >= 2


@pytest.mark.parametrize("fault", FAULTS)
def test_a_sync_enqueue_whose_connection_is_cut_is_carried_out_once(proxy: Proxy, fault: Fault) -> None:
    with SyncWheel(proxy.url, namespace="zw", give_up_s=5) as wheel:
        wheel.ping()
        proxy.arm(fault, "enqueue", times=2)
        assert not wheel.enqueue("t", delay=60).existed
        answers = wheel.enqueue_many(wheel.new_job("t", delay=60) for _ in range(50))
        assert not any(answer.existed for answer in answers)
        assert wheel.count("default", JobState.SCHEDULED) == 51


@pytest.mark.parametrize("fault", FAULTS)
async def test_acting_on_jobs_is_answered_as_if_the_network_were_fine(far: Wheel, proxy: Proxy, fault: Fault) -> None:
    answers = await far.enqueue_many(far.new_job("t", delay=60) for _ in range(5))
    for script in ("cancel", "reschedule", "redrive", "purge"):
        proxy.arm(fault, script)
    assert await far.cancel(answers[0].job_id) == "cancelled"
    assert await far.reschedule(answers[1].job_id, delay=7200) == "rescheduled"
    moved = await far.get(answers[1].job_id)
    assert moved is not None
    assert moved.fire_at_ms > answers[1].fire_at_ms + 7_000_000
    assert await far.redrive("default", ["nobody"]) == 0
    await far.purge("default", JobState.SCHEDULED)
    assert await far.count("default", JobState.SCHEDULED) == 0


async def claim_as_dead(url: str) -> None:
    """Claim what is due as a worker that dies at once: its lease of 1 ms runs out."""
    session = Session("zw", caller="deadhand")
    store = Store(url, session)
    keys = session.keys("default")

    async def taken() -> bool:
        day = day_name(session.clock.now_ms() // DAY_MS)
        with session.lane() as lane:
            call = claim(keys, day=day, worker="deadhand", lease_ms=1, limit=10, lane=lane)
            return bool(read_claim((await store.send([call]))[0]).jobs)

    await eventually(taken, bool)
    await store.aclose()


@one_kind
@pytest.mark.parametrize("script", ["claim", "complete", "retry", "bury", "offer", "extend", "reap", "BLPOP", "HSET"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_worker_whose_calls_are_cut_runs_each_attempt_once(
    far: Wheel, wheel: Wheel, proxy: Proxy, log: Log, fresh: RedisServer, script: str, fault: Fault
) -> None:
    runs: list[tuple[str, int]] = []

    def note(name: str) -> None:
        runs.append((name, current_job().attempt))

    @far.task(name="fine", keep=60)
    async def fine() -> None:
        note("fine")

    @far.task(name="flaky", retries=3, backoff=AT_ONCE, keep=60)
    async def flaky() -> None:
        note("flaky")
        if current_job().attempt < 3:
            raise ValueError

    @far.task(name="doomed", keep=60)
    async def doomed() -> None:
        note("doomed")
        raise Discard

    held = asyncio.Event()

    @far.task(name="holding", keep=60)
    async def holding() -> None:
        note("holding")
        await held.wait()

    # A worker died with this one: there is something to reap.
    left_over = (await wheel.enqueue("fine", id="left-over", keep=60)).job_id
    await claim_as_dead(fresh.url)
    cut = proxy.arm(fault, script, times=2 if script in ("claim", "complete", "retry") else 1)
    async with running(far, log, lease_ms=1000, reap_ms=50) as worker:
        # And there is something to keep alive.
        kept = (await wheel.enqueue("holding", keep=60)).job_id
        ends = [(await wheel.enqueue(name, keep=60)).job_id for name in ("fine", "flaky", "doomed")]
        # Nobody knows this one: it goes round, offered to nobody.
        stranger = await wheel.enqueue("stranger")
        await log.seen("unknown", stranger.job_id)
        states = [(await wheel.wait(job, "default", timeout=10)).state for job in ends]
        await asyncio.to_thread(cut.wait, 10)
        assert cut.is_set()
        held.set()
        for job in (kept, left_over):
            assert (await wheel.wait(job, timeout=10)).state == JobState.DONE
        marker = await wheel.enqueue("fine", keep=60)
        assert (await wheel.wait(marker.job_id, timeout=10)).attempt == 1
        assert not worker.task.done()
    assert states == [JobState.DONE, JobState.DONE, JobState.DEAD]
    once = [
        ("fine", 1),
        ("flaky", 1),
        ("flaky", 2),
        ("flaky", 3),
        ("doomed", 1),
        ("holding", 1),
        ("fine", 2),
        ("fine", 1),
    ]
    assert sorted(runs) == sorted(once)
    left = await wheel.get(stranger.job_id)
    assert left is not None
    assert (left.state, left.attempt) == (JobState.SCHEDULED, 0)


@one_kind
async def test_a_worker_that_is_cut_off_stops_its_job_before_another_starts_it(
    far: Wheel, wheel: Wheel, proxy: Proxy, log: Log
) -> None:
    order: list[str] = []
    gate = asyncio.Event()

    define_hold(far, "far", gate, order)
    define_hold(wheel, "near", gate, order)
    async with running(far, log, lease_ms=1000) as worker:
        answer = await wheel.enqueue("hold", keep=60)
        await log.seen("start", answer.job_id)
        near = Log()
        async with running(wheel, near, lease_ms=1000):
            proxy.freeze()
            await near.seen("start", answer.job_id, within=5)
            gate.set()
            assert (await wheel.wait(answer.job_id, timeout=5)).attempt == 2
        proxy.thaw()
        proxy.cut()
        assert order == ["far starts", "far is stopped", "near starts"]
        # Back on the network, it serves again.
        marker = await wheel.enqueue("hold", keep=60)
        assert (await wheel.wait(marker.job_id, timeout=10)).state is JobState.DONE
        assert not worker.task.done()


@one_kind
async def test_a_partition_shorter_than_a_lease_goes_unnoticed(
    far: Wheel, wheel: Wheel, proxy: Proxy, log: Log
) -> None:
    gate = asyncio.Event()

    @far.task(name="hold", keep=60)
    async def hold() -> None:
        await gate.wait()

    async with running(far, log, lease_ms=3000, reap_ms=50):
        answer = await wheel.enqueue("hold", keep=60)
        await log.seen("start", answer.job_id)
        asked = proxy.asked["extend"]
        proxy.freeze()

        async def reached() -> int:
            return proxy.asked["extend"]

        # A renewal meets the wall: it is read by the proxy only after the thaw.
        await asyncio.sleep(1.2)
        proxy.thaw()
        await eventually(reached, lambda n: n > asked)
        gate.set()
        assert (await wheel.wait(answer.job_id, timeout=10)).attempt == 1
    assert log.of("lost") == []


async def test_a_producer_hears_in_time_that_an_outcome_is_unknown_and_repeats_safely(
    proxy: Proxy, wheel: Wheel
) -> None:
    async with Wheel(proxy.url, namespace="zw", give_up_s=0.5, timeout_s=0.2) as far:
        await wheel.enqueue("t", queue="warm")  # Redis knows the script
        await far.ping()
        proxy.arm(Fault.AFTER, "enqueue", times=10_000)
        job = far.new_job("t", delay=60)
        began = time.monotonic()
        with pytest.raises(OutcomeUnknown):
            await far.submit(job)
        assert time.monotonic() - began < 2
        # It did happen; the same job again says so and makes no second one.
        assert await wheel.count("default", JobState.SCHEDULED) == 1
        again = await wheel.submit(job)
        assert again.existed
        assert again.job_id == job.id
        assert await wheel.count("default", JobState.SCHEDULED) == 1


async def test_a_frozen_network_ends_in_a_typed_error(proxy: Proxy) -> None:
    async with Wheel(proxy.url, namespace="zw", give_up_s=0.4, timeout_s=0.2) as far:
        await far.ping()
        proxy.freeze()
        async with asyncio.timeout(3):
            with pytest.raises(BrokerError):
                await far.enqueue("t")
        blocking = SyncWheel(proxy.url, namespace="zw", give_up_s=0.4, timeout_s=0.2)
        with blocking, pytest.raises(BrokerError):
            await asyncio.to_thread(blocking.enqueue, "t")
        proxy.thaw()


async def test_a_refusing_network_is_waited_for(far: Wheel, proxy: Proxy) -> None:
    await far.ping()
    proxy.refuse()
    waiting = asyncio.create_task(far.enqueue("t", delay=60))
    await asyncio.sleep(0)
    proxy.accept()
    assert not (await waiting).existed


@one_kind
@pytest.mark.parametrize("near", [True, False])
async def test_a_refusal_on_the_way_to_a_server_that_may_serve_others_is_as_silence(
    far: Wheel, wheel: Wheel, proxy: Proxy, log: Log, monkeypatch: pytest.MonkeyPatch, near: bool
) -> None:
    gate = asyncio.Event()
    order: list[str] = []

    define_hold(far, "far", gate, order)
    define_hold(wheel, "near", gate, order)
    monkeypatch.setattr(heartbeat, "is_near", lambda url: near)
    async with running(far, log, lease_ms=1000):
        answer = await wheel.enqueue("hold", keep=60)
        await log.seen("start", answer.job_id)
        beside = Log()
        async with running(wheel, beside, lease_ms=1000):
            proxy.shut()
            await beside.seen("start", answer.job_id, within=5)
            gate.set()
            assert (await wheel.wait(answer.job_id, timeout=5)).attempt == 2
    # A refusal by a server on this machine proves that it runs for nobody; this one was only said to be here.
    assert order == (["far starts", "near starts"] if near else ["far starts", "far is stopped", "near starts"])


@pytest.mark.parametrize(
    ("url", "near"),
    [
        ("redis://localhost:6379/0", True),
        ("redis://127.0.0.1/", True),
        ("rediss://127.8.9.10:6380", True),
        ("redis://[::1]:6379/0", True),
        ("unix:///run/redis.sock", True),
        ("memory://", True),
        ("redis://10.0.0.7:6379/0", False),
        ("redis://0.0.0.0:6379/0", False),
        ("rediss://user:secret@redis.example.com:6380/0", False),
        ("redis://localhost.example.com/0", False),
    ],
)
def test_only_this_machine_proves_a_dead_server_by_a_refusal(url: str, near: bool) -> None:
    assert heartbeat.is_near(url) is near
    refusal = BrokerUnavailable("refused")
    refusal.__cause__ = ConnectionRefusedError(111, "Connection refused")
    assert heartbeat.server_is_away(refusal, url) is near
    assert heartbeat.server_is_away(BrokerUnavailable("LOADING Redis is loading the dataset"), url)
    # A certificate that is missing here is no server that is gone.
    missing = BrokerUnavailable("no certificate")
    missing.__cause__ = FileNotFoundError(2, "No such file", "/etc/ssl/ca.pem")
    assert heartbeat.server_is_away(missing, url) is url.startswith("unix")


@one_kind
async def test_the_leases_of_many_queues_are_renewed_in_one_round_trip(
    far: Wheel, wheel: Wheel, proxy: Proxy, log: Log
) -> None:
    gate = asyncio.Event()

    @far.task(name="hold", keep=60)
    async def hold() -> None:
        await gate.wait()

    queues = [f"q{n}" for n in range(16)]
    async with running(far, log, queues=queues, lease_ms=4500, concurrency=20):
        answers = [await wheel.enqueue("hold", queue=queue, keep=60) for queue in queues]
        await log.seen("start", count=len(queues))
        # One after the other they would take longer than a lease.
        proxy.slow(lambda: 0.2)
        asked = proxy.asked["extend"]
        await eventually(_asked(proxy), lambda count: count >= asked + 4 * len(queues), within=30)
        proxy.slow(None)
        gate.set()
        for answer, queue in zip(answers, queues, strict=True):
            assert (await wheel.wait(answer.job_id, queue, timeout=10)).attempt == 1
    assert log.of("lost") == []


def _asked(proxy: Proxy) -> Callable[[], Awaitable[int]]:
    async def count() -> int:
        return proxy.asked["extend"]

    return count


@one_kind
async def test_a_queue_whose_leases_may_not_be_renewed_costs_the_others_nothing(
    wheel: Wheel, log: Log, own_server: MakeServer
) -> None:
    server = own_server()
    gate = asyncio.Event()
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "w", "on", ">pw", "~*", "+@all")
        async with Wheel(f"unix://w:pw@{server.socket}", namespace="zw") as mine:

            @mine.task(name="hold", keep=60)
            async def hold() -> None:
                await gate.wait()

            async with running(mine, log, queues=("bad", "good"), lease_ms=900):
                bad = await mine.enqueue("hold", queue="bad", keep=60)
                good = await mine.enqueue("hold", queue="good", keep=60)
                await log.seen("start", count=2)
                client.execute_command("ACL", "SETUSER", "w", "resetkeys", "~{zw:good:0}:*", "~zw:*")
                await log.seen("released", bad.job_id)
                held = await mine.get(good.job_id, "good")
                assert held is not None and held.lease_until_ms is not None
                until = held.lease_until_ms + 1800
                await eventually(
                    lambda: mine.get(good.job_id, "good"),
                    lambda job: job is not None and (job.lease_until_ms or 0) > until,
                )
                client.execute_command("ACL", "SETUSER", "w", "~*")
                gate.set()
                assert (await mine.wait(good.job_id, "good", timeout=10)).attempt == 1
                # When the right is back its lease has ended: it is given back unharmed, or reaped, whichever comes first.
                assert (await mine.wait(bad.job_id, "bad", timeout=10)).attempt in (1, 2)
    assert log.of("lost", good.job_id) == []


@one_kind
async def test_a_claim_without_an_answer_is_followed_by_smaller_ones_which_grow_again(
    far: Wheel, wheel: Wheel, proxy: Proxy, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[int] = []

    def asks(*about: Any, limit: int, **more: Any) -> Any:
        limits.append(limit)
        return claim(*about, limit=limit, **more)

    monkeypatch.setattr("zwheel.workers.poller.calls.claim", asks)

    @far.task(name="t", keep=60)
    async def task() -> None:
        pass

    cut = proxy.arm(Fault.AFTER, "claim")
    async with running(far, log, concurrency=64):
        await asyncio.to_thread(cut.wait, 10)

        async def asked() -> list[int]:
            return [limit for limit in limits if limit]

        seen = await eventually(asked, lambda seen: len(seen) >= 4)
        assert seen[:4] == [64, 32, 64, 64]
        answer = await wheel.enqueue("t", keep=60)
        assert (await wheel.wait(answer.job_id, timeout=10)).attempt == 1
