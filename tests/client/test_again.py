"""An id that is enqueued again after its job ended: by both clients, one by one and in bulk."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.witness import bury_all
from tests.servers import RedisServer
from zwheel import Enqueued, InvalidInput, JobState, QueueFull, SyncWheel, Wheel
from zwheel.calls import Session
from zwheel.keys import ShardKeys

pytestmark = pytest.mark.anyio
KEYS = ShardKeys.of("zw", "default")
Q = "default"


@pytest.fixture
def wheel(url: str) -> Iterator[SyncWheel]:
    with SyncWheel(url, namespace="zw", give_up_s=5) as made:
        yield made


def told(answer: Enqueued) -> tuple[bool, bool, JobState]:
    return answer.existed, answer.replaced, answer.state


NEW = False, True, JobState.SCHEDULED


def living(state: JobState) -> tuple[bool, bool, JobState]:
    return True, False, state


def test_after_a_cancel_the_id_is_free(wheel: SyncWheel) -> None:
    free_after_a_cancel(wheel)


def test_after_a_cancel_the_id_is_free_without_a_server_too() -> None:
    with SyncWheel("memory://", namespace="zw") as wheel:
        free_after_a_cancel(wheel)


def free_after_a_cancel(wheel: SyncWheel) -> None:
    for delay in (60, 120):
        wheel.enqueue("remind", id="a", delay=delay)
        assert wheel.cancel("a", Q) == "cancelled"
    again = wheel.enqueue("remind", id="a", args=["new"], delay=3600)
    assert told(again) == NEW
    job = wheel.get("a", Q)
    assert job is not None
    assert (job.state, job.fire_at_ms) == (JobState.SCHEDULED, again.fire_at_ms)
    assert wheel.count(Q, JobState.DONE) == 0
    assert wheel.cancel("a", Q) == "cancelled"


async def test_the_async_client_does_the_same_with_a_task_and_its_options(url: str) -> None:
    async with Wheel(url, namespace="zw") as wheel:

        @wheel.task(name="remind")
        async def remind(n: int) -> None: ...

        later = remind.options(id="a", delay=60)
        await later.enqueue(1)
        await wheel.cancel("a", Q)
        assert told(await later.enqueue(2)) == NEW
        assert told(await later.options(replace=True).enqueue(3)) == living(JobState.SCHEDULED)
        assert told(await later.options(replace=True).options(delay=90).enqueue(3)) == living(JobState.SCHEDULED)


def test_a_dead_job_gives_way_to_one_that_says_so(wheel: SyncWheel, url: str) -> None:
    wheel.enqueue("t", id="a")
    bury_all(url, 1)
    assert told(wheel.enqueue("t", id="a", delay=60)) == living(JobState.DEAD)
    assert told(wheel.enqueue("t", id="a", delay=60, replace=True)) == NEW
    assert wheel.dead(Q) == []
    job = wheel.get("a", Q)
    assert job is not None
    assert (job.attempt, job.failures) == (0, ())


def test_a_job_that_lives_again_stays(wheel: SyncWheel, url: str) -> None:
    wheel.enqueue("t", id="a")
    bury_all(url, 1)
    assert wheel.redrive(Q, ["a"]) == 1
    assert told(wheel.enqueue("t", id="a", replace=True)) == living(JobState.SCHEDULED)


def test_after_a_purge_there_is_nothing_to_replace(wheel: SyncWheel, url: str) -> None:
    wheel.enqueue("t", id="a")
    bury_all(url, 1)
    assert wheel.purge_dead(Q, ["a"]) == 1
    assert told(wheel.enqueue("t", id="a", delay=60, replace=True)) == (False, False, JobState.SCHEDULED)


def test_in_a_bulk_the_first_of_two_with_one_id_takes_the_place(wheel: SyncWheel) -> None:
    jobs = [wheel.new_job("t", id=name, delay=60, args=[n]) for n, name in enumerate(["a", "b", "a"])]
    wheel.enqueue("t", id="a", delay=60)
    wheel.cancel("a", Q)
    first, other, second = wheel.enqueue_many(jobs, chunk=2)
    assert (told(first), told(second)) == (NEW, living(JobState.SCHEDULED))
    assert told(other) == (False, False, JobState.SCHEDULED)


def test_a_full_queue_has_no_room_for_it_either(wheel: SyncWheel) -> None:
    wheel.enqueue("t", id="a", delay=60)
    wheel.cancel("a", Q)
    wheel.enqueue("t", id="b", delay=60)
    wheel.set_cap(Q, 1)
    with pytest.raises(QueueFull):
        wheel.enqueue("t", id="a", delay=60)
    wheel.set_cap(Q, 2)
    assert told(wheel.enqueue("t", id="a", delay=60)) == NEW


def test_a_dedup_key_of_another_job_refuses_as_ever(wheel: SyncWheel, url: str) -> None:
    wheel.enqueue("t", id="a", dedup="key", within=3600)
    bury_all(url, 1)
    answer = wheel.enqueue("t", id="b", dedup="key", delay=60, replace=True)
    assert (answer.job_id, told(answer)) == ("a", living(JobState.DEAD))
    assert told(wheel.enqueue("t", id="a", dedup="key", delay=60, replace=True)) == NEW


def test_what_has_no_id_can_replace_nothing(wheel: SyncWheel) -> None:
    with pytest.raises(InvalidInput, match="pass id="):
        wheel.enqueue("t", replace=True)
    with pytest.raises(InvalidInput, match="pass id="):
        wheel.new_job("t", dedup="key", replace=True)


def test_a_record_that_cannot_be_read_is_never_replaced(wheel: SyncWheel, fresh: RedisServer) -> None:
    wheel.enqueue("t", id="a", delay=60)
    wheel.cancel("a", Q)
    key = Session("zw").keys(Q).jobs
    with fresh.client() as admin:
        admin.hset(key, "a", b"3" + (admin.hget(key, "a") or b"")[1:])
        before = admin.hget(key, "a")
        assert wheel.enqueue("t", id="a", delay=60, replace=True).existed
        assert admin.hget(key, "a") == before
