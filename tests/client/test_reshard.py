"""A queue is cut into another number of shards while it is used: nothing is lost, doubled or early."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta

import pytest

from tests.faults.witness import python
from tests.servers import RedisServer
from tests.skew.hand import Hand
from zwheel import InvalidInput, ReshardUnderWay, SyncWheel, Wheel, calls
from zwheel.info import ReshardProgress
from zwheel.job import CancelOutcome, JobState, RescheduleOutcome
from zwheel.keys import ShardKeys, shard_names, shard_number

pytestmark = pytest.mark.anyio
FAR = 3_600
RESHARD = """
import sys
from zwheel import SyncWheel
with SyncWheel(sys.argv[1], namespace="zw") as wheel:
    wheel.reshard_queue("orders", shards=4)
"""


def places(fresh: RedisServer, job_id: str, *counts: int) -> list[str]:
    """The shards that have a record of this id."""
    with fresh.client() as client:
        names = [name for count in counts for name in shard_names("orders", count)]
        return [name for name in names if client.hexists(ShardKeys.of("zw", name).jobs, job_id)]


def home(job_id: str, count: int) -> str:
    return shard_names("orders", count)[shard_number(job_id, count)]


async def filled(wheel: Wheel, number: int = 200) -> list[str]:
    jobs = [
        wheel.new_job(
            "t", args=[n, random.Random(n).randbytes(n % 7 * 400)], queue="orders", delay=FAR + 7_000 * n, id=f"job-{n}"
        )
        for n in range(number)
    ]
    await wheel.enqueue_many(jobs)
    return [job.id for job in jobs]


@pytest.mark.parametrize(("before", "after"), [(1, 4), (4, 8), (8, 3), (4, 1)])
async def test_all_jobs_are_in_the_shards_where_they_belong_afterwards(
    fresh: RedisServer, before: int, after: int
) -> None:
    async with Wheel(fresh.url, namespace="zw") as wheel:
        await wheel.create_queue("orders", shards=before)
        ids = await filled(wheel)
        moved = await wheel.reshard_queue("orders", shards=after)
        assert (moved.moved, moved.left, moved.done) == (200, 0, True)
        for job_id in ids:
            assert places(fresh, job_id, before, after) == [home(job_id, after)]
        info = await wheel.queue("orders")
        assert (info.scheduled, info.shards, info.former) == (200, after, None)
        found = await wheel.get("job-6")
        assert found is not None and found.body and len(found.body) > 2_000


async def test_a_client_that_learned_of_the_former_shards_goes_on(fresh: RedisServer) -> None:
    async with Wheel(fresh.url, namespace="zw") as old, Wheel(fresh.url, namespace="zw") as admin:
        await old.create_queue("orders", shards=2)
        await filled(old, 40)
        await admin.reshard_queue("orders", shards=5)
        assert (await old.get("job-3")) is not None
        again = await old.enqueue("t", queue="orders", id="job-4", delay=FAR)
        assert again.existed
        made = await old.enqueue("t", queue="orders", id="job-new", delay=FAR)
        assert not made.existed
        assert places(fresh, "job-new", 2, 5) == [home("job-new", 5)]
        assert await old.cancel("job-5") is CancelOutcome.CANCELLED
        assert await old.reschedule("job-7", delay=timedelta(days=2)) is RescheduleOutcome.RESCHEDULED
        assert (await old.queue("orders")).scheduled == 40


class Hands:
    """A worker by hand in several shards, which holds what was due there."""

    def __init__(self, fresh: RedisServer, shards: tuple[str, ...]) -> None:
        self._held: dict[str, tuple[Hand, bytes]] = {}
        for number, shard in enumerate(shards):
            hand = Hand(fresh.url, f"aaaaaaa{number}")
            hand.keys = hand.session.keys(shard)
            self._held.update({job_id: (hand, token) for job_id, token in hand.claim().items()})

    def end(self, job_id: str, letter: str) -> str:
        """End a job: d it ended well, x it is dead, r it is tried again, b it goes back. Gives the script's letter."""
        hand, token = self._held.pop(job_id)
        done = [(job_id, token)] if letter == "d" else []
        why = b'{"at":1900000000000,"attempt":1,"reason":"error","kind":"ValueError"}\n'
        others = [] if done else [calls.Ending(job_id, token, letter, b"" if letter == "b" else why, delay_ms=60_000)]
        return hand.end(calls.settle, done, others, most_dead=10, now_ms=hand.now_ms())


def claimed_by_hand(fresh: RedisServer, *shards: str) -> Hands:
    return Hands(fresh, shards)


async def everything_is_home(fresh: RedisServer, ids: list[str], before: int, after: int) -> bool:
    """Whether each of these jobs is in the shard where it belongs, and nothing is in any other."""
    keys = [ShardKeys.of("zw", name) for count in (before, after) for name in shard_names("orders", count)]
    with fresh.client() as client:
        stored = sorted(job_id.decode() for one in dict.fromkeys(keys) for job_id in client.hkeys(one.jobs))
    return stored == sorted(ids) and all(
        places(fresh, job_id, before, after) == [home(job_id, after)] for job_id in ids
    )


@pytest.mark.parametrize(("before", "after"), [(1, 4), (4, 3)])
async def test_what_producers_bring_meanwhile_is_stored_once(fresh: RedisServer, before: int, after: int) -> None:
    """Each id is brought again and again, by two clients that learned of the former shards, and by one that knows nothing."""
    async with Wheel(fresh.url, namespace="zw") as admin, Wheel(fresh.url, namespace="zw") as old:
        await admin.create_queue("orders", shards=before)
        ids = await filled(old)
        over = asyncio.Event()
        made: list[str] = []

        async def produce(client: Wheel, seed: int) -> None:
            rng = random.Random(seed)
            while not over.is_set():
                name = rng.choice(["job-", "new-"]) + str(rng.randrange(200))
                if not (await client.enqueue("t", queue="orders", id=name, delay=FAR)).existed:
                    made.append(name)

        async with Wheel(fresh.url, namespace="zw") as stranger, asyncio.TaskGroup() as group:
            for number, client in enumerate((old, old, stranger)):
                group.create_task(produce(client, number))
            await asyncio.sleep(0.05)
            assert (await admin.reshard_queue("orders", shards=after)).done
            await asyncio.sleep(0.05)
            over.set()
        assert len(made) == len(set(made)) > 10
        assert not [name for name in made if name.startswith("job-")]
        assert await everything_is_home(fresh, ids + made, before, after)


async def test_a_dedup_key_has_one_holder_all_the_time(fresh: RedisServer) -> None:
    async with Wheel(fresh.url, namespace="zw") as admin, Wheel(fresh.url, namespace="zw") as old:
        await admin.create_queue("orders", shards=2)
        holders = {
            f"customer-{n}": (await old.enqueue("t", queue="orders", dedup=f"customer-{n}", delay=FAR)).job_id
            for n in range(100)
        }
        over = asyncio.Event()
        wrong: list[str] = []

        async def produce() -> None:
            rng = random.Random(1)
            while not over.is_set():
                key = f"customer-{rng.randrange(100)}"
                told = await old.enqueue("t", queue="orders", dedup=key, delay=FAR)
                if not told.existed or told.job_id != holders[key]:
                    wrong.append(key)

        async with asyncio.TaskGroup() as group:
            group.create_task(produce())
            assert (await admin.reshard_queue("orders", shards=5)).done
            over.set()
        assert not wrong
        assert (await admin.queue("orders")).scheduled == 100


async def test_a_dedup_window_goes_on_in_the_new_shards(fresh: RedisServer) -> None:
    """Also where its job is gone: it ended well, and was not kept."""
    with SyncWheel(fresh.url, namespace="zw") as wheel:
        wheel.create_queue("orders", shards=2)
        first = wheel.enqueue("t", queue="orders", dedup="k", within=3_600)
        claimed_by_hand(fresh, "orders/0of2", "orders/1of2").end(first.job_id, "d")
        wheel.reshard_queue("orders", shards=3)
        again = wheel.enqueue("t", queue="orders", dedup="k", delay=FAR)
        assert (again.existed, again.job_id) == (True, first.job_id)


@pytest.mark.parametrize("letter", ["d", "x", "r", "b", "c"])
async def test_what_runs_ends_where_it_runs_and_moves_afterwards(fresh: RedisServer, letter: str) -> None:
    async with Wheel(fresh.url, namespace="zw") as wheel:
        await wheel.create_queue("orders", shards=1)
        await wheel.enqueue("t", queue="orders", id="runs", keep=3_600, retries=3)
        hands = claimed_by_hand(fresh, "orders")
        ids = await filled(wheel, 20)
        told = await wheel.reshard_queue("orders", shards=4, wait=False)
        assert (told.moved, told.left, told.running, told.done) == (20, 1, 1, False)
        if letter == "c":
            assert (await wheel.cancel("runs")) is CancelOutcome.CANCEL_REQUESTED
        found = await wheel.get("runs")
        assert found is not None and found.state is JobState.PROCESSING
        again = await wheel.enqueue("t", queue="orders", id="runs")
        assert (again.existed, again.state) == (True, JobState.PROCESSING)
        # It is cancelled whatever its worker says.
        assert hands.end("runs", letter.replace("c", "r")) == letter
        told = await wheel.reshard_queue("orders", shards=4)
        assert (told.moved, told.done) == (1, True)
        assert await everything_is_home(fresh, [*ids, "runs"], 1, 4)


async def test_each_job_is_cancelled_moved_in_time_or_neither_while_it_moves(fresh: RedisServer) -> None:
    async with Wheel(fresh.url, namespace="zw") as admin, Wheel(fresh.url, namespace="zw") as old:
        await admin.create_queue("orders", shards=1)
        ids = await filled(old)
        later = timedelta(days=30)

        async def change() -> tuple[list[object], list[object]]:
            cancelled = [await old.cancel(job_id, queue="orders") for job_id in ids[::2]]
            moved = [await old.reschedule(job_id, queue="orders", delay=later) for job_id in ids[1::2]]
            return list(cancelled), list(moved)

        (cancelled, moved), told = await asyncio.gather(change(), admin.reshard_queue("orders", shards=4))
        assert told.done
        assert set(cancelled) == {CancelOutcome.CANCELLED}
        assert set(moved) == {RescheduleOutcome.RESCHEDULED}
        info = await admin.queue("orders")
        assert (info.scheduled, info.done) == (100, 100)


async def test_a_pause_and_a_cap_stay(fresh: RedisServer) -> None:
    async with Wheel(fresh.url, namespace="zw") as wheel:
        await wheel.create_queue("orders", shards=2)
        await filled(wheel, 20)
        await wheel.pause("orders")
        await wheel.set_cap("orders", 100)
        await wheel.set_precise("orders", True)
        await wheel.reshard_queue("orders", shards=5)
        info = await wheel.queue("orders")
        assert (info.paused, info.cap, info.precise, info.scheduled) == (True, 100, True, 20)


async def test_a_cap_that_is_set_meanwhile_stays(fresh: RedisServer) -> None:
    """Each shard of the new cut has its part of it, and those of the former cut take no jobs."""
    async with Wheel(fresh.url, namespace="zw") as wheel:
        await wheel.create_queue("orders", shards=3)
        await filled(wheel, 20)
        claimed_by_hand(fresh, *shard_names("orders", 3))
        await wheel.enqueue("t", queue="orders", id="runs")
        hands = claimed_by_hand(fresh, *shard_names("orders", 3))
        assert not (await wheel.reshard_queue("orders", shards=5, wait=False)).done
        await wheel.set_cap("orders", 100)
        assert (await wheel.queue("orders")).cap == 100
        hands.end("runs", "d")
        assert (await wheel.reshard_queue("orders", shards=5)).done
        assert (await wheel.queue("orders")).cap == 100


@pytest.mark.parametrize("place", ["reshard", "depart", "arrive"])
@pytest.mark.parametrize("side", ["before", "after"])
async def test_who_dies_in_the_middle_loses_nothing_and_the_next_one_goes_on(
    fresh: RedisServer, place: str, side: str
) -> None:
    async with Wheel(fresh.url, namespace="zw") as wheel:
        await wheel.create_queue("orders", shards=2)
        ids = await filled(wheel, 1_500)
        # Before anything is marked each of the six shards is asked whether it can be reached.
        probes = 6 if place == "reshard" else 0
        for count in (1 + probes, 3 + probes):
            code, _ = await python(fresh.url, code=RESHARD, ZWHEEL_FAILPOINTS=f"{place}.{side}=kill@{count}")
            assert code == -9
            # Producers go on, whoever died.
            ids.append((await wheel.enqueue("t", queue="orders", delay=FAR)).job_id)
        assert (await wheel.queue("orders")).former == 2 or place == "reshard"
        assert (await wheel.reshard_queue("orders", shards=4)).done
        assert await everything_is_home(fresh, ids, 2, 4)


async def test_several_may_move_jobs_at_once(fresh: RedisServer) -> None:
    async with Wheel(fresh.url, namespace="zw") as wheel, Wheel(fresh.url, namespace="zw") as other:
        await wheel.create_queue("orders", shards=3)
        ids = await filled(wheel, 2_500)
        told = await asyncio.gather(*(one.reshard_queue("orders", shards=2) for one in (wheel, other, wheel)))
        assert all(one.done for one in told)
        assert await everything_is_home(fresh, ids, 3, 2)


async def test_two_who_want_different_numbers_do_not_meet(fresh: RedisServer) -> None:
    async with Wheel(fresh.url, namespace="zw") as wheel, Wheel(fresh.url, namespace="zw") as other:
        await wheel.create_queue("orders", shards=1)
        ids = await filled(wheel)
        told = await asyncio.gather(
            wheel.reshard_queue("orders", shards=2), other.reshard_queue("orders", shards=8), return_exceptions=True
        )
        (refused,) = [one for one in told if isinstance(one, ReshardUnderWay)]
        (moved,) = [one for one in told if not isinstance(one, BaseException)]
        assert moved.done
        after = (await wheel.queue("orders")).shards
        assert str(after) in str(refused)
        assert await everything_is_home(fresh, ids, 1, after)


@pytest.mark.parametrize("shards", [0, -1, 1025, True, "4", 1.5, None])
async def test_a_number_of_shards_that_cannot_be_is_refused_and_nothing_changes(
    fresh: RedisServer, shards: object
) -> None:
    async with Wheel(fresh.url, namespace="zw") as wheel:
        await wheel.create_queue("orders", shards=2)
        with pytest.raises(InvalidInput, match="is not a whole number between 1 and 1,024"):
            await wheel.reshard_queue("orders", shards=shards)  # type: ignore[arg-type]
        assert (await wheel.queue("orders")).shards == 2


async def test_a_queue_that_is_not_there_is_not_made(fresh: RedisServer) -> None:
    with SyncWheel(fresh.url, namespace="zw") as wheel:
        with pytest.raises(InvalidInput, match="there is no queue 'order'"):
            wheel.reshard_queue("order", shards=4)
        assert not wheel.queues()


async def test_the_number_that_it_has_changes_nothing(fresh: RedisServer) -> None:
    with SyncWheel(fresh.url, namespace="zw") as wheel:
        wheel.enqueue("t", queue="orders", delay=FAR)
        assert wheel.reshard_queue("orders", shards=1).done
        assert wheel.reshard_queue("orders", shards=3).moved == 1
        assert wheel.reshard_queue("orders", shards=3).moved == 0


async def test_it_is_told_how_far_it_is(fresh: RedisServer) -> None:
    async with Wheel(fresh.url, namespace="zw") as wheel:
        await wheel.create_queue("orders", shards=1)
        await filled(wheel, 12_000)
        told: list[ReshardProgress] = []
        await wheel.reshard_queue("orders", shards=4, progress=told.append)
        assert [one.moved + one.left for one in told] == [12_000] * len(told)
        assert len(told) >= 3
        assert told[-1] == ReshardProgress(12_000, 0, 0, done=True)


async def test_dedup_keys_are_not_read_again_for_every_part(fresh: RedisServer) -> None:
    """They leave with their jobs: only what jobs left behind is looked for, once, at the end."""
    async with Wheel(fresh.url, namespace="zw") as wheel:
        await wheel.create_queue("orders", shards=1)
        jobs = [wheel.new_job("t", queue="orders", dedup=f"k{n}", delay=FAR + n) for n in range(12_000)]
        await wheel.enqueue_many(jobs)
        with fresh.client() as client:
            client.config_resetstat()
            assert (await wheel.reshard_queue("orders", shards=4)).moved == 12_000
            looks: dict[str, dict[str, int]] = client.info("commandstats")
        # In each of three parts once for schedules, and at the end once for dedup keys.
        assert looks["cmdstat_hscan"]["calls"] <= 6


async def test_a_job_in_no_set_stays_until_it_is_repaired_and_the_others_move(fresh: RedisServer) -> None:
    async with Wheel(fresh.url, namespace="zw") as wheel:
        await wheel.create_queue("orders", shards=1)
        ids = await filled(wheel, 20)
        keys = ShardKeys.of("zw", "orders")
        with fresh.client() as client:
            for bucket in client.keys(f"{keys.tag}:wheel:*"):
                client.zrem(bucket, "job-3")
        told = await wheel.reshard_queue("orders", shards=4)
        assert (told.moved, told.left, told.done) == (19, 1, False)
        info = await wheel.queue("orders")
        assert (info.shards, info.former) == (4, 1)
        code, said = await python("zwheel.cli", "doctor", "--repair", "--yes", ZWHEEL_URL=fresh.url)
        assert code == 0, said
        assert (await wheel.reshard_queue("orders", shards=4)).done
        assert await everything_is_home(fresh, ids, 1, 4)


async def test_a_record_that_cannot_be_read_is_set_aside_where_it_arrives(fresh: RedisServer) -> None:
    async with Wheel(fresh.url, namespace="zw") as wheel:
        await wheel.create_queue("orders", shards=1)
        await filled(wheel, 20)
        with fresh.client() as client:
            client.hset(ShardKeys.of("zw", "orders").jobs, "job-3", b"\x00no record")
            told = await wheel.reshard_queue("orders", shards=4)
            assert (told.moved, told.left, told.done) == (20, 0, True)
            keys = ShardKeys.of("zw", home("job-3", 4))
            assert client.hget(keys.jobs, "job-3") == b"\x00no record"
            assert client.zscore(keys.dead, "job-3") is not None


async def test_a_schedule_moves_with_its_occurrences_and_is_changed_meanwhile(fresh: RedisServer) -> None:
    async with Wheel(fresh.url, namespace="zw") as wheel, Wheel(fresh.url, namespace="zw") as old:
        await old.create_queue("orders", shards=2)
        for number in range(30):
            await old.add_schedule(old.new_schedule(f"s{number}", "@every 1h", "t", queue="orders"))

        async def change() -> None:
            for number in range(30):
                await old.add_schedule(old.new_schedule(f"s{number}", "@every 2h", "t", queue="orders"), replace=True)
                await old.add_schedule(old.new_schedule(f"n{number}", "@every 1h", "t", queue="orders"))

        _, told = await asyncio.gather(change(), wheel.reshard_queue("orders", shards=5))
        assert told.done
        found = {info.name: info for info in await wheel.schedules("orders")}
        assert set(found) == {f"{kind}{number}" for kind in "sn" for number in range(30)}
        with fresh.client() as client:
            for name in found:
                here = [s for s in shard_names("orders", 5) if client.hexists(ShardKeys.of("zw", s).schedules, name)]
                assert here == [shard_names("orders", 5)[shard_number(name, 5)]]


async def test_a_former_shard_whose_server_forgot_that_it_was_closed_is_closed_again(fresh: RedisServer) -> None:
    async with Wheel(fresh.url, namespace="zw") as wheel:
        await wheel.create_queue("orders", shards=2)
        ids = await filled(wheel, 100)
        code, _ = await python(fresh.url, code=RESHARD, ZWHEEL_FAILPOINTS="depart.before=kill")
        assert code == -9
        with fresh.client() as client:
            for name in shard_names("orders", 2):
                assert client.hdel(ShardKeys.of("zw", name).meta, "shards") == 1
        assert (await wheel.reshard_queue("orders", shards=4)).done
        assert await everything_is_home(fresh, ids, 2, 4)


@pytest.mark.parametrize("path", [(4, 1), (4, 2, 1), (4, 8, 4, 1)])
async def test_a_producer_that_slept_over_cuts_that_lead_back_harms_nobody(
    fresh: RedisServer, path: tuple[int, ...]
) -> None:
    """What it believes to be a shard of the former cut is one of the present cut again, and stays open."""
    async with Wheel(fresh.url, namespace="zw") as sleeper, Wheel(fresh.url, namespace="zw") as admin:
        await sleeper.enqueue("t", queue="orders", delay=FAR)
        ids = await filled(sleeper, 6_000)
        seen: list[str] = []

        async def learn() -> None:
            while (await admin.queue("orders")).former is None:  # noqa: ASYNC110 - it says so within ms
                await asyncio.sleep(0)
            seen.append((await sleeper.enqueue("t", queue="orders", id="during", delay=FAR)).job_id)

        learning = asyncio.create_task(learn())
        for shards in path:
            assert (await admin.reshard_queue("orders", shards=shards)).done
            await learning
        for client in (sleeper, admin):
            assert not (await client.enqueue("t", queue="orders", delay=FAR)).existed
        await sleeper.add_schedule(sleeper.new_schedule("s", "@every 1h", "t", queue="orders"))
        with SyncWheel(fresh.url, namespace="zw") as stranger:
            assert stranger.enqueue("t", queue="orders", id="during", delay=FAR).existed
        assert (await admin.queue("orders")).scheduled >= len(ids) + 4
