"""A copy of a request that comes late, after its sender has gone on."""

from __future__ import annotations

from typing import Any

from tests.servers import RedisServer
from zwheel.broker.store import Steps, SyncStore
from zwheel.calls import Call, NewJob, Session
from zwheel.calls.clock import ServerClock
from zwheel.job import JobId, QueueName
from zwheel.operations.produce import enqueue_batch
from zwheel.payload.codec import DEFAULT
from zwheel.record import record_tail
from zwheel.times import DAY_MS

#: A midnight of UTC, ms.
MIDNIGHT = (1_900_000_000_000 // DAY_MS + 1) * DAY_MS
HELD = "a" * 32


class Estimate(ServerClock):
    """Believes what the test says, ms from midnight."""

    said = 0

    def now_us(self) -> int:
        return (MIDNIGHT + self.said) * 1000


def job(job_id: str, delay_ms: int, dedup: str = "") -> NewJob:
    return NewJob(
        job_id=JobId(job_id), queue=QueueName("default"), at_ms=None, delay_ms=delay_ms, body=DEFAULT.encode([], {}),
        tail=record_tail("t", max_attempts=3, dedup=dedup or None), dedup=dedup,
    )  # fmt: skip


def test_a_late_copy_of_another_layout_gives_nobody_the_answer_of_another_job(fresh: RedisServer) -> None:
    """A batch over midnight: sent for the new day too early, then for both days, when a copy of the first arrives."""
    store = SyncStore(fresh.url, Session("zw", "c"), timeout_s=5)
    session = store.session
    session.clock = estimate = Estimate()
    session.counts["default"] = 1
    sent: list[Call] = []

    def exchange(steps: Steps[Any], ask: Any, now: int) -> Any:
        """Carry out what is asked for, at a time in ms from midnight."""
        (call,) = ask
        sent.append(call)
        session.now = str((MIDNIGHT + now) * 1000)
        return steps.send(store.send([call._replace(args=[session.now, *call.args[1:]])]))

    def end(steps: Steps[Any], ask: Any, now: int) -> Any:
        try:
            while True:
                ask = exchange(steps, ask, now)
        except StopIteration as over:
            return over.value

    known = {"default"}
    holder = enqueue_batch(session, [job("holder", 3_600_000, HELD)], known)
    end(holder, next(holder), -500)
    batch = [job("a", 400), job("b", 20_000), job("c", 0, HELD), job("d", 0)]
    steps = enqueue_batch(session, batch, known)
    estimate.said = 70_010
    first = next(steps)
    estimate.said = -419
    second = exchange(steps, first, -424)  # the day changed: it is laid out for two days
    store.send([sent[-1]._replace(args=[str((MIDNIGHT + 560) * 1000), *sent[-1].args[1:]])])
    estimate.said = 581
    answers = end(steps, second, 581)
    assert [answer.job_id for answer in answers] == ["a", "b", "holder", "d"]
    assert [answer.existed for answer in answers] == [False, False, True, False], "the late copy was refused again"
    store.close()
