"""The blocking client: the same surface, threads that share it, and processes that are forked from it."""

from __future__ import annotations

import inspect
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import redis

from tests.servers import RedisServer
from zwheel import (
    BadArguments,
    BrokerUnavailable,
    InvalidInput,
    JobState,
    QueueFull,
    ScheduleNotFound,
    SyncWheel,
    WaitTimeout,
    Wheel,
)
from zwheel.calls import Session
from zwheel.ids import new_job_id
from zwheel.keys import queues_key

# Python 3.12 and later warn of what some tests here are about.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@pytest.fixture
def wheel(url: str) -> Iterator[SyncWheel]:
    with SyncWheel(url, namespace="zw", give_up_s=5) as made:
        yield made


def in_a_child(work: Callable[[], bool], within: float = 10.0) -> bool:
    """Fork, do the work there, and tell whether it came to a good end in time.

    The child's own alarm ends it, not the parent: whose threads may keep it from looking at a clock for long.
    """
    pid = os.fork()
    if pid == 0:
        good = False
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, within)
            good = work()
        finally:
            os._exit(0 if good else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_it_has_the_surface_of_the_async_wheel() -> None:
    def surface(cls: type) -> dict[str, list[str]]:
        names = [name for name in dir(cls) if not name.startswith("_")]
        return {
            name: list(inspect.signature(getattr(cls, name)).parameters)
            for name in names
            if callable(getattr(cls, name))
        }

    blocking, awaited = surface(SyncWheel), surface(Wheel)
    blocking["aclose"] = blocking.pop("close")
    assert blocking == awaited


def test_a_job_goes_in_and_comes_out(wheel: SyncWheel) -> None:
    @wheel.task(name="mail", queue="mail", retries=2)
    def send(to: str) -> None: ...

    answer = send.options(delay=timedelta(hours=1)).enqueue("ada")
    job = wheel.get(answer.job_id)
    assert job is not None
    assert (job.task, job.queue, job.state, job.max_attempts) == ("mail", "mail", JobState.SCHEDULED, 3)
    with pytest.raises(BadArguments):
        send.enqueue()  # type: ignore[call-arg]
    assert wheel.enqueue("mail", args=["bob"], id="b", delay=60).queue == "mail"
    assert wheel.enqueue("mail", args=["bob"], id="b").existed
    assert wheel.queues() == ["mail"]
    assert wheel.reschedule("b", delay=7200) == "rescheduled"
    with pytest.raises(InvalidInput):
        wheel.reschedule("b")
    with pytest.raises(WaitTimeout):
        wheel.wait("b", timeout=0.05)
    assert wheel.cancel("b") == "cancelled"
    assert wheel.wait("b", timeout=1).state is JobState.CANCELLED
    assert [entry.jobs for entry in wheel.days("mail")] == [1]
    assert sum(wheel.hours("mail", wheel.days("mail")[0].day)) == 1
    assert wheel.count("mail", JobState.SCHEDULED) == len(wheel.jobs("mail", JobState.SCHEDULED)) == 1
    wheel.pause("mail")
    assert wheel.queue("mail").paused
    wheel.resume("mail")
    assert not wheel.queue("mail").paused
    assert (wheel.dead("mail"), wheel.workers(), wheel.redrive("mail"), wheel.purge_dead("mail")) == ([], [], 0, 0)
    assert wheel.purge("mail", JobState.SCHEDULED) == 1
    assert wheel.ping() > 0


def test_enqueue_many_keeps_the_order_across_chunks_and_queues(wheel: SyncWheel) -> None:
    jobs = [wheel.new_job("t", queue=f"q{n % 3}", delay=60) for n in range(700)]
    seen: list[int] = []
    answers = wheel.enqueue_many(iter(jobs), chunk=250, progress=seen.append)
    assert [answer.job_id for answer in answers] == [job.id for job in jobs]
    assert seen == [250, 500, 700]
    assert all(answer.existed for answer in wheel.enqueue_many(jobs))
    with pytest.raises(InvalidInput):
        wheel.enqueue_many(jobs, chunk=0)
    wheel.set_cap("q0", 1)
    with pytest.raises(QueueFull):
        wheel.enqueue("t", queue="q0")


def test_a_queue_joins_the_list_with_the_first_that_is_stored_in_it(wheel: SyncWheel, url: str) -> None:
    wheel.set_cap("full", 1)
    wheel.enqueue("t", queue="full", id="a", delay=60)
    with redis.Redis.from_url(url) as client:
        client.delete(queues_key("zw"))
        with SyncWheel(url) as other:
            with pytest.raises(QueueFull):
                other.enqueue("t", queue="full")
            with pytest.raises(ScheduleNotFound):
                other.pause_schedule("none", queue="typo")
            assert not client.exists(queues_key("zw"))
            # The job exists: something is stored in the queue, so it joins the list.
            assert other.enqueue("t", queue="full", id="a").existed
            assert client.hkeys(queues_key("zw")) == [b"full"]


def test_threads_share_a_wheel(wheel: SyncWheel) -> None:
    start = threading.Barrier(12)

    def produce(n: int) -> int:
        start.wait()
        answers = [wheel.enqueue("t", id=f"{n}-{i}", delay=60) for i in range(25)]
        same = wheel.enqueue("t", id="shared", dedup="shared", delay=60)
        return sum(not answer.existed for answer in answers) + (1000 if not same.existed else 0)

    with ThreadPoolExecutor(12) as pool:
        total = sum(pool.map(produce, range(12)))
    assert total == 12 * 25 + 1000
    assert wheel.count("default", JobState.SCHEDULED) == 12 * 25 + 1


def test_lanes_are_lent_to_one_thread_each() -> None:
    session = Session("zw")
    taken: set[int | str] = set()
    clashes = []

    def borrow() -> None:
        for _ in range(4000):
            with session.lane() as lane:
                if lane.number in taken:
                    clashes.append(lane.number)
                taken.add(lane.number)
                taken.discard(lane.number)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            for outcome in [pool.submit(borrow) for _ in range(8)]:
                outcome.result()
    finally:
        sys.setswitchinterval(before)
    assert clashes == []


def test_a_lane_that_another_thread_takes_first_is_no_trouble() -> None:
    class Taken(list[int]):
        """Looks as if it had one, until it is asked for it."""

        def __bool__(self) -> bool:
            return True

    session = Session("zw")
    session._free = Taken()
    with session.lane() as lane:
        assert lane.number == 0


def test_a_forked_process_connects_anew(wheel: SyncWheel) -> None:
    wheel.enqueue("t", delay=60)

    def child(n: int) -> bool:
        return all(not wheel.enqueue("t", id=f"{n}-{i}", delay=60).existed for i in range(10))

    for n in range(3):
        assert in_a_child(lambda n=n: child(n))  # type: ignore[misc]
        assert not wheel.enqueue("t", delay=60).existed
    assert wheel.count("default", JobState.SCHEDULED) == 34


def test_parent_and_children_at_work_together_do_not_read_each_others_answers(wheel: SyncWheel) -> None:
    wheel.enqueue("t", delay=60)
    stop = threading.Event()
    wrong: list[str] = []

    def keep_asking() -> None:
        n = 0
        while not stop.is_set():
            n += 1
            answer = wheel.enqueue("t", id=f"parent-{n}", delay=60)
            if answer.job_id != f"parent-{n}" or answer.existed:
                wrong.append(answer.job_id)

    asking = threading.Thread(target=keep_asking)
    asking.start()
    try:
        for n in range(5):
            assert in_a_child(lambda n=n: wheel.enqueue("t", id=f"child-{n}", delay=60).job_id == f"child-{n}")  # type: ignore[misc]
    finally:
        stop.set()
        asking.join()
    assert wrong == []


def test_a_fork_in_the_middle_of_other_threads_work_does_not_lock_up_the_child(wheel: SyncWheel) -> None:
    stop = threading.Event()

    def make_ids() -> None:
        while not stop.is_set():
            for _ in range(20_000):  # longer than a thread's turn, so a fork can come in the middle of one
                new_job_id()
            time.sleep(0.001)  # else the forking thread may wait for its turn for many seconds

    def hold_the_wheel() -> None:
        while not stop.is_set():
            with wheel._lock:
                time.sleep(0.0005)

    threads = [threading.Thread(target=make_ids), threading.Thread(target=hold_the_wheel)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(15):
            assert in_a_child(lambda: bool(new_job_id()) and wheel.ping() > 0, within=5)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_ids_of_a_parent_and_its_children_differ() -> None:
    reading, writing = os.pipe()
    mine = {new_job_id() for _ in range(100)}
    for _ in range(3):
        assert in_a_child(lambda: os.write(writing, "".join(new_job_id() for _ in range(100)).encode()) == 2600)
    text = os.read(reading, 10_000).decode()
    os.close(reading)
    os.close(writing)
    theirs = {text[i : i + 26] for i in range(0, len(text), 26)}
    assert len(theirs) == 300
    assert not mine & theirs


def test_a_closed_wheel_connects_again(wheel: SyncWheel) -> None:
    wheel.enqueue("t", delay=60)
    wheel.close()
    wheel.close()
    assert wheel.count("default", JobState.SCHEDULED) == 1


def test_an_absent_redis_is_a_typed_error_in_a_bounded_time(own_server: Callable[..., RedisServer]) -> None:
    server = own_server()
    with SyncWheel(server.url, namespace="zw", give_up_s=0.3, timeout_s=0.3) as wheel:
        wheel.ping()
        server.kill()
        began = time.monotonic()
        with pytest.raises(BrokerUnavailable):
            wheel.enqueue("t")
        assert time.monotonic() - began < 2
        server.start()
        assert not wheel.enqueue("t").existed


def test_scripts_that_were_flushed_are_loaded_again(wheel: SyncWheel, fresh: RedisServer) -> None:
    with fresh.client() as client:
        for _ in range(5):
            client.script_flush()
            assert not wheel.enqueue("t", delay=60).existed
