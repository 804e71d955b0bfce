"""What looks odd and is allowed: answers that were lost, repeats, kills, grace, windows of loss. Nothing here is a breach."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from zwheel.verify.report import State

from .book import DIGEST, HOUR, LEASE, Book, dead, on_wheel, processing, token
from .good_gaps import GAPS
from .good_schedules import KEPT


def plain(book: Book) -> None:
    book.enqueue("a")
    book.run("a")
    book.snapshot(5_000)


def retried_released_and_reaped(book: Book) -> None:
    book.enqueue("a", most=5)
    book.claim("a", 10, most=5)
    book.start("a", 11, of=10)
    book.settle("retry", "a", 20, of=10, fire=50)
    book.claim("a", 60, attempt=2, fire=50, most=5)
    book.settle("release", "a", 70, of=60, fire=50)
    book.claim("a", 80, attempt=2, fire=50, most=5)
    book.reap(1_100, ("a",))
    book.settle("complete", "a", 1_150, of=80, letter="f")
    book.claim("a", 1_200, attempt=3, fire=1_100, by="w2", most=5)
    book.start("a", 1_201, of=1_200, fire=1_100, by="w2")
    book.settle("complete", "a", 1_300, of=1_200, by="w2")
    book.snapshot(5_000)


def enqueue_without_an_answer_that_happened(book: Book) -> None:
    book.enqueue("a", phase="lost")
    book.run("a")
    book.snapshot(5_000)


def enqueue_without_an_answer_that_did_not(book: Book) -> None:
    book.enqueue("a", phase="info")
    book.snapshot(5_000)


def ack_without_an_answer_that_happened(book: Book) -> None:
    book.enqueue("a")
    book.claim("a", 10)
    book.settle("complete", "a", 20, of=10, phase="lost")
    book.snapshot(5_000)


def ack_without_an_answer_that_did_not(book: Book) -> None:
    book.enqueue("a")
    book.claim("a", 10)
    book.settle("complete", "a", 20, of=10, phase="info")
    book.reap(1_100, ("a",))
    book.run("a", 1_200, attempt=2, fire=1_100)
    book.snapshot(5_000)


def retry_repeated_after_another_claimed(book: Book) -> None:
    """The first sending did it; its repeat was answered only when the job was already held by another."""
    book.enqueue("a")
    book.claim("a", 10)
    book.settle("retry", "a", 20, of=10, fire=30, phase="info", request="w1:retry:1")
    book.claim("a", 40, attempt=2, fire=30, by="w2")
    book.settle("retry", "a", 50, of=10, fire=30, request="w1:retry:1")
    book.settle("complete", "a", 60, of=40, by="w2")
    book.snapshot(5_000)


def claim_whose_answer_never_came(book: Book) -> None:
    book.enqueue("a")
    book.claims(10, [], phase="lost")
    book.reap(1_100, ("a",))
    book.run("a", 1_200, attempt=2, fire=1_100)
    book.snapshot(5_000)


def claim_repeated(book: Book) -> None:
    book.enqueue("a")
    book.claims(10, [], phase="info", request="w1:claim:1", asked=9)
    book.claim("a", 400, token=token(10), request="w1:claim:1", asked=399)
    book.settle("complete", "a", 420, of=10)
    book.snapshot(5_000)


def reap_without_an_answer(book: Book) -> None:
    book.enqueue("a")
    book.claim("a", 10)
    book.reap(1_100, phase="lost")
    book.run("a", 1_200, attempt=2, fire=1_100)
    book.snapshot(5_000)


def dedup_after_the_end_and_after_the_window(book: Book) -> None:
    book.enqueue("a", 0, digest=DIGEST)
    book.run("a")
    book.enqueue("b", 100, digest=DIGEST, window=500)
    book.run("b", 110, fire=100)
    book.enqueue("c", 300, digest=DIGEST, letter="k", held="b")
    book.enqueue("d", 700, fire=60_000, digest=DIGEST)
    book.call("cancel", 800, [{"id": "d", "letter": "c"}], proc="p")
    book.enqueue("e", 900, fire=60_000, digest=DIGEST)
    waits = on_wheel(60_000, digest=DIGEST)
    gone = {"state": "c", "fire": HOUR + 60_000, "in": [["done", HOUR + 600_000]]}
    book.snapshot(5_000, {"e": waits, "d": gone}, dedup=[[DIGEST, "e", None]])


def cancelled_while_they_ran(book: Book) -> None:
    """By their worker, at reaping, and one that was quicker; one whose first attempt ended before."""
    for at, job in enumerate(("a", "b", "c", "d")):
        book.enqueue(job, at)
    for at, job in enumerate(("a", "b", "c", "d"), 10):
        book.claim(job, at, fire=at - 10)
    book.settle("retry", "d", 40, of=13, fire=45)
    book.claim("d", 50, fire=45, attempt=2)
    book.call("cancel", 60, [{"id": job, "letter": "q"} for job in ("a", "b", "c", "d")], proc="p")
    book.settle("cancelled", "a", 80, of=10)
    book.settle("complete", "c", 81, of=12)
    book.settle("cancelled", "d", 82, of=50)
    book.reap(LEASE + 12, cancelled=("b",))
    book.enqueue("a", LEASE + 20, letter="r")
    book.claim("a", LEASE + 30, fire=LEASE + 20)
    book.settle("complete", "a", LEASE + 40, of=LEASE + 30)
    kept = {"state": "c", "fire": HOUR, "token": token(11), "in": [["done", HOUR + LEASE + 600_012]]}
    book.snapshot(LEASE + 100, {"b": kept, "d": {**kept, "token": token(50)}})


def dedup_asked_for_again_after_its_holder_was_cancelled(book: Book) -> None:
    """The repeat made the job: what was sent first did not arrive while the key was held."""
    book.enqueue("a", 0, fire=60_000, digest=DIGEST)
    book.enqueue("b", 700, fire=60_000, digest=DIGEST, request="r", phase="info")
    book.call("cancel", 800, [{"id": "a", "letter": "c"}], proc="p2")
    book.enqueue("b", 900, fire=60_000, digest=DIGEST, request="r")
    gone = {"state": "c", "fire": HOUR + 60_000, "in": [["done", HOUR + 600_000]]}
    book.snapshot(5_000, {"b": on_wheel(60_000, digest=DIGEST), "a": gone}, dedup=[[DIGEST, "b", None]])


def the_same_id_again_after_its_end(book: Book) -> None:
    book.enqueue("a")
    book.run("a")
    book.enqueue("a", 50)
    book.run("a", 60, fire=50)
    book.snapshot(5_000)


def dead_and_redriven(book: Book) -> None:
    book.enqueue("a", most=1)
    book.claim("a", 10, most=1)
    book.reap(1_100, dead=("a",))
    book.call("redrive", 2_000, [{"id": "a", "letter": "r"}], proc="p")
    book.run("a", 2_100, fire=2_000, most=1)
    book.snapshot(5_000)


def set_aside_by_a_version_that_cannot_read_it(book: Book) -> None:
    """Its reap says that the jobs are dead. One is taken back and reaped again, the other was ended by its holder."""
    for job in ("a", "b"):
        book.enqueue(job)
        book.claim(job, 10)
    book.reap(1_100, dead=("a", "b"))
    book.settle("complete", "b", 1_150, of=10)
    book.call("repair", 1_200, [{"id": "a", "letter": "f"}, {"id": "b", "letter": "o"}], proc="w1")
    book.reap(1_210, back=("a",))
    book.run("a", 1_300, fire=1_210, attempt=2)
    book.snapshot(5_000)


def redriven_by_a_request_that_was_sent_before_its_death(book: Book) -> None:
    """It was carried out after the death; that is known only from its repeat."""
    book.enqueue("a", most=1)
    book.claim("a", 10, most=1)
    book.call("redrive", 30, [{"id": "a"}], proc="p", asked=20, phase="info", request="p:redrive:1")
    book.settle("bury", "a", 25, of=10)
    book.call("redrive", 40, [{"id": "a", "letter": "r"}], proc="p", request="p:redrive:1")
    book.run("a", 50, fire=25, most=1)
    book.snapshot(5_000)


def purged(book: Book) -> None:
    book.enqueue("a", fire=60_000)
    book.enqueue("b")
    book.claim("b", 10)
    book.settle("bury", "b", 20, of=10)
    book.call("purge", 100, [], proc="p", args={"set": "wheel:20300317", "most": 500, "highest": "+inf", "count": 1})
    book.call("purge", 100, [], proc="p", args={"set": "dead", "most": 500, "highest": "+inf", "count": 1})
    book.snapshot(5_000)


def trimmed(book: Book) -> None:
    book.enqueue("a")
    book.claim("a", 10)
    book.settle("bury", "a", 20, of=10)
    book.snapshot(5_000, {}, meta={"trimmed": "1"})


def lost_with_the_tail_of_the_log(book: Book) -> None:
    book.enqueue("a", 100)
    book.enqueue("b", 0)
    book.claim("b", 90)
    book.settle("complete", "b", 110, of=90)
    book.fault("aof_cut", 50, 120)
    book.claim("b", 200, attempt=1)
    book.settle("complete", "b", 210, of=200)
    book.snapshot(5_000)


def there_before_the_history_began(book: Book) -> None:
    book.snapshot(0, {"a": on_wheel(10), "b": processing(-10)})
    book.run("a", 20, fire=10, attempt=3)
    book.settle("complete", "b", 30, of=-10)
    book.snapshot(5_000)


def reaped_late_for_redis_was_away(book: Book) -> None:
    book.enqueue("a")
    book.claim("a", 10)
    book.reap(300)
    book.fault("redis_kill", 310, 8_000)
    book.reap(8_100, word="grace")
    book.lines[-1]["args"]["grace"] = HOUR + 9_100
    book.reap(9_200, ("a",))
    book.run("a", 9_300, attempt=2, fire=9_200, by="w2")
    book.snapshot(9_900)


def back_with_the_first_worker_that_starts_again(book: Book) -> None:
    book.enqueue("a")
    book.claim("a", 10)
    book.hold(5_000)
    for t in range(5_300, 6_000, 300):
        book.beat(t, by="w2")
    book.reap(5_550, ("a",))
    book.run("a", 5_600, attempt=2, fire=5_550, by="w2")
    book.snapshot(9_900)


def reaped_late_by_one_that_was_cut_off(book: Book) -> None:
    """No fault is on record: its own calls failed for a while, so it gives the others a lease to renew."""
    book.enqueue("a")
    book.claim("a", 10)
    for t in range(300, 2_400, 300):
        book.beat(t, by="w2")
    book.hold(900)
    book.hold(1_500)
    book.reap(2_300, ("a",))
    book.run("a", 2_400, attempt=2, fire=2_300, by="w2")
    book.snapshot(9_900)


def waits_for_a_paused_queue(book: Book) -> None:
    book.enqueue("a", fire=1_000)
    book.call("pause", 400, [], proc="p")
    book.claims(500, [], role="follower")
    for t in range(600, 9_000, 300):
        book.beat(t)
    book.call("resume", 8_900, [], proc="p")
    book.claim("a", 9_000, fire=1_000)
    book.settle("complete", "a", 9_010, of=9_000)
    book.snapshot(9_900)


def waits_for_a_worker_that_was_stopped(book: Book) -> None:
    book.enqueue("a", fire=1_000)
    book.claims(500, [], role="timekeeper")
    book.stall(900, 8_900)
    book.run("a", 9_000, fire=1_000)
    book.snapshot(9_900)


def waits_for_a_worker_that_gets_no_answer(book: Book) -> None:
    book.enqueue("a", fire=1_000)
    book.claims(500, [], role="timekeeper")
    book.look(1_100, took=7_800)
    book.run("a", 9_000, fire=1_000)
    book.snapshot(9_900)


def waits_for_a_worker_whose_claim_hangs(book: Book) -> None:
    book.enqueue("a", fire=1_000)
    book.claims(500, [], role="timekeeper")
    book.run("a", 9_000, fire=1_000, asked=1_050)
    book.snapshot(9_900)


def waits_for_a_worker_that_stepped_down_since_it_had_no_room(book: Book) -> None:
    book.enqueue("a", fire=1_000)
    book.claims(500, [], role="timekeeper")
    book.call("step_down", 1_000, [], args={"worker": "w1", "limit": 0, "role": "none"})
    book.run("a", 9_000, fire=1_000)
    book.snapshot(9_900)


def waits_for_a_worker_that_died(book: Book) -> None:
    """What it did last was a look; that its heartbeat's line came later says nothing of its waiting."""
    book.enqueue("a", fire=1_000)
    book.claims(500, [], role="timekeeper")
    book.look(1_400)
    book.beat(6_000)
    book.run("a", 9_000, fire=1_000, by="w2")
    book.snapshot(9_900)


def waits_for_one_that_listens_since_two_are_dead(book: Book) -> None:
    book.enqueue("a", fire=1_000)
    book.claims(500, [], role="timekeeper", by="w2")
    book.claims(500, [], role="second", by="w3")
    book.claims(550, [], role="follower")
    book.run("a", 3_000, fire=1_000)
    book.snapshot(9_900)


def waits_for_a_worker_that_another_queue_has_filled(book: Book) -> None:
    book.enqueue("b", queue="other")
    book.enqueue("a", fire=1_000)
    book.claims(500, [], role="timekeeper")
    b = {"id": "b", "token": token(600), "attempt": 1, "fire": HOUR, "most": 3}
    book.claims(600, [b], limit=1, queue="other")
    book.settle("complete", "b", 8_950, of=600, queue="other")
    book.run("a", 9_000, fire=1_000)
    book.snapshot(9_900)


def waits_for_one_that_looks_in_turn_since_who_sees_to_the_shard_is_full(book: Book) -> None:
    book.enqueue("a", fire=1_000)
    book.claims(300, [], role="timekeeper", by="w2", waits="spares")
    book.claims(400, [], role="follower", by="w3", waits="sees")
    book.claims(500, [{"id": "b", "token": token(500), "attempt": 1, "fire": HOUR, "most": 3}], by="w3", limit=1)
    book.enqueue("b", 0)
    for t in range(600, 9_000, 300):
        book.extend("b", t, of=500, by="w3")
    book.claim("a", 9_000, fire=1_000, by="w2")
    book.settle("complete", "a", 9_010, of=9_000, by="w2")
    book.settle("complete", "b", 9_010, of=500, by="w3")
    book.snapshot(9_900)


def waits_for_workers_that_are_full(book: Book) -> None:
    book.enqueue("a", fire=1_000)
    book.claims(500, [{"id": "b", "token": token(500), "attempt": 1, "fire": HOUR, "most": 3}], limit=1)
    book.enqueue("b", 0)
    for t in range(600, 9_000, 300):
        book.extend("b", t, of=500)
    book.claim("a", 9_000, fire=1_000)
    book.settle("complete", "a", 9_010, of=9_000)
    book.settle("complete", "b", 9_010, of=500)
    book.snapshot(9_900)


def buried_with_a_reason(book: Book) -> None:
    book.enqueue("a")
    book.claim("a", 10)
    book.settle("bury", "a", 20, of=10)
    book.snapshot(5_000, {"a": dead(20)})


def kept_promise_of_a_receipt(book: Book) -> None:
    book.enqueue("a", 100, fire=60_000, receipt="replicated(2)", args={"wait": 2})
    book.fault("failover", 50, 200, replicas=2)
    book.snapshot(5_000, {"a": on_wheel(60_000)})


def lost_beyond_what_its_receipt_stands_for(book: Book) -> None:
    """On one replica of two, on a replica when the file was cut, on the disk when another node took over."""
    book.enqueue("a", 100, fire=60_000, receipt="replicated(1)", args={"wait": 1})
    book.fault("failover", 50, 200, replicas=2)
    book.enqueue("b", 300, fire=60_000, receipt="replicated(1)", args={"wait": 1})
    book.fault("aof_cut", 250, 400)
    book.enqueue("c", 500, fire=60_000, receipt="fsynced", args={"waitaof": 1})
    book.fault("failover", 450, 600, replicas=1)
    book.snapshot(5_000)


def lost_in_its_own_queue(book: Book) -> None:
    book.enqueue("a", 100, fire=60_000)
    book.fault("failover", 50, 200, replicas=1, queues=["q"])
    book.snapshot(5_000)


def ended_although_it_had_a_receipt(book: Book) -> None:
    book.enqueue("a", 100, receipt="replicated(1)", args={"wait": 1})
    book.fault("failover", 50, 200, replicas=1)
    book.run("a", 500, fire=100)
    book.snapshot(5_000)


GOOD: tuple[Callable[[Book], None], ...] = (
    plain, retried_released_and_reaped, enqueue_without_an_answer_that_happened, enqueue_without_an_answer_that_did_not, ack_without_an_answer_that_happened, ack_without_an_answer_that_did_not, retry_repeated_after_another_claimed,
    claim_whose_answer_never_came, claim_repeated, reap_without_an_answer, dedup_after_the_end_and_after_the_window,
    cancelled_while_they_ran, dedup_asked_for_again_after_its_holder_was_cancelled, the_same_id_again_after_its_end, dead_and_redriven, redriven_by_a_request_that_was_sent_before_its_death,
    purged, trimmed, lost_with_the_tail_of_the_log,
    there_before_the_history_began, reaped_late_for_redis_was_away, *GAPS,
    back_with_the_first_worker_that_starts_again, reaped_late_by_one_that_was_cut_off,
    waits_for_a_paused_queue, waits_for_a_worker_that_was_stopped, waits_for_a_worker_that_gets_no_answer, waits_for_a_worker_that_stepped_down_since_it_had_no_room,
    waits_for_a_worker_whose_claim_hangs, waits_for_a_worker_that_died, waits_for_one_that_listens_since_two_are_dead,
    waits_for_a_worker_that_another_queue_has_filled, waits_for_workers_that_are_full,
    waits_for_one_that_looks_in_turn_since_who_sees_to_the_shard_is_full, buried_with_a_reason,
    kept_promise_of_a_receipt, lost_beyond_what_its_receipt_stands_for, lost_in_its_own_queue, ended_although_it_had_a_receipt,
    *KEPT,
)  # fmt: skip


@pytest.mark.parametrize("write", GOOD, ids=lambda write: write.__name__)
def test_nothing_is_held_against_it(book: Book, write: Callable[[Book], None]) -> None:
    write(book)
    report = book.judge(lateness_ms=60_000)
    assert [(verdict.number, verdict.breaches) for verdict in report.broken] == []
    undecided = {verdict.number for verdict in report.verdicts if verdict.state is State.UNDECIDED}
    assert undecided <= {"I24"}, "only a history without starts leaves the lateness open"


def test_without_a_snapshot_what_needs_one_is_not_decidable(book: Book) -> None:
    book.enqueue("a", fire=60_000)
    report = book.judge()
    undecided = {v.number: v.why for v in report.verdicts if v.state is State.UNDECIDED}
    assert set(undecided) == {"I1", "I9", "I10", "I11", "I20", "I24"}
    assert all("snapshot" in why for number, why in undecided.items() if number != "I24")
    assert report.broken == []


@pytest.mark.parametrize(
    ("queues", "broken"), [(["q"], []), (["other"], ["I25"]), (None, ["I25"])], ids=["of it", "of others", "of nobody"]
)
def test_a_worker_may_sleep_while_nothing_can_be_claimed_of_its_queue(
    book: Book, queues: list[str] | None, broken: list[str]
) -> None:
    """The slot of a queue is on its way to another node of a cluster, while a worker waits there."""
    book.enqueue("a", fire=100)
    book.claims(50, [], role="follower")
    named = {} if queues is None else {"queues": queues}
    book.fault("slot_move", 60, 8_000, **named)
    book.claim("a", 8_010, fire=100, by="w2")
    book.settle("complete", "a", 8_020, of=8_010, by="w2")
    book.claims(8_030, [], role="follower")
    assert [verdict.number for verdict in book.judge().broken] == broken
