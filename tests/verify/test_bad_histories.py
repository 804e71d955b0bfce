"""Each of these histories breaks one promise: the checker names the right one and shows the few events that prove it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .bad_idle import IDLE
from .bad_schedules import SCHEDULES
from .bad_snapshots import SNAPSHOTS
from .book import DAY, DIGEST, DIGEST2, HOUR, LEASE, Book, dead, on_wheel, processing, token, us

#: Name -> the promises that break, the longest witness allowed, and what is written down.
Bad = tuple[set[str], int, Callable[[Book], None]]


def lost(book: Book) -> None:
    book.enqueue("a")
    book.snapshot(5_000)


def lost_after_a_retry(book: Book) -> None:
    book.enqueue("a")
    book.claim("a", 10)
    book.settle("retry", "a", 20, of=10, fire=100)
    book.snapshot(5_000)


def left_when_drained(book: Book) -> None:
    book.enqueue("a")
    book.snapshot(5_000, {"a": on_wheel(0)})


def invented(book: Book) -> None:
    book.enqueue("a")
    book.run("a")
    book.run("b", 20)


def stored_though_refused(book: Book) -> None:
    book.enqueue("a")
    book.run("a")
    book.enqueue("b", 20, phase="fail")
    book.snapshot(5_000, {"b": on_wheel(60_000)})


def _taken(job: str, t: float, fire: int) -> dict[str, object]:
    return {"id": job, "token": token(t), "attempt": 1, "fire": HOUR + fire, "most": 3}


def claimed_early(book: Book) -> None:
    book.enqueue("a", fire=1_000)
    book.claim("a", 999.5, fire=1_000)


def started_early(book: Book) -> None:
    book.enqueue("a", fire=1_000)
    book.claim("a", 1_001, fire=1_000)
    book.start("a", 900, of=1_001, fire=1_000)


def claimed_further_ahead_than_it_says(book: Book) -> None:
    book.enqueue("a", fire=1_000)
    book.claims(994.5, [_taken("a", 994.5, 1_000)], ahead=5)


def claimed_too_far_ahead(book: Book) -> None:
    book.enqueue("a", fire=1_000)
    book.claims(500, [_taken("a", 500, 1_000)], ahead=600)


def held_and_started_early(book: Book) -> None:
    book.enqueue("a", fire=1_000)
    book.claims(996, [_taken("a", 996, 1_000)], ahead=5)
    book.start("a", 998, of=996, fire=1_000)


def claimed_by_another_fire_time(book: Book) -> None:
    book.enqueue("a", fire=9_000)
    book.claim("a", 1_000, fire=1_000)


def two_holders(book: Book) -> None:
    book.enqueue("a")
    book.claim("a", 10)
    book.extend("a", 600, of=10)
    book.reap(700, ("a",))
    book.claim("a", 800, by="w2", attempt=2, fire=700)


def held_twice_without_a_reap(book: Book) -> None:
    book.enqueue("a")
    book.claim("a", 10)
    book.claim("a", 500, by="w2", attempt=2)


def stale_ack(book: Book) -> None:
    book.enqueue("a")
    book.claim("a", 10)
    book.reap(1_100, ("a",))
    book.claim("a", 1_200, by="w2", attempt=2, fire=1_100)
    book.settle("complete", "a", 1_300, of=10)


def ack_after_a_reap(book: Book) -> None:
    book.enqueue("a")
    book.claim("a", 10)
    book.reap(1_100, ("a",))
    book.settle("retry", "a", 1_150, of=10, fire=2_000)


def double_ack(book: Book) -> None:
    book.enqueue("a")
    book.claim("a", 10)
    book.settle("retry", "a", 20, of=10, fire=20)
    book.settle("complete", "a", 30, of=10)


def token_of_nobody(book: Book) -> None:
    book.enqueue("a")
    book.settle("complete", "a", 20, of=10)


def stale_heartbeat(book: Book) -> None:
    book.enqueue("a")
    book.claim("a", 10)
    book.settle("release", "a", 20, of=10, fire=0)
    book.claim("a", 30, by="w2")
    book.extend("a", 40, of=10)


def tokens_stand_still(book: Book) -> None:
    book.enqueue("a")
    book.claim("a", 10)
    book.settle("release", "a", 20, of=10, fire=0)
    book.claim("a", 30, by="w2", token=token(10))


def tokens_go_back(book: Book) -> None:
    book.enqueue("a")
    book.run("a", 10)
    book.enqueue("a", 20)
    book.claim("a", 30, token=token(5), fire=20)


def duplicate_without_a_cause(book: Book) -> None:
    book.enqueue("a")
    book.claim("a", 10)
    book.start("a", 11, of=10)
    book.claim("a", 2_000, by="w2", attempt=2)
    book.start("a", 2_001, of=2_000, by="w2")


def started_twice_by_one_claim(book: Book) -> None:
    book.enqueue("a")
    book.claim("a", 10)
    book.start("a", 11, of=10)
    book.start("a", 12, of=10)


def too_many_attempts(book: Book) -> None:
    book.enqueue("a", most=1)
    book.claim("a", 10, most=1)
    book.settle("retry", "a", 20, of=10, fire=20)
    book.claim("a", 30, attempt=2, most=1, fire=20)


def reaped_past_the_last_attempt(book: Book) -> None:
    book.enqueue("a", most=1)
    book.claim("a", 10, most=1)
    book.reap(1_100, ("a",))


def crash_not_counted(book: Book) -> None:
    book.enqueue("a")
    book.claim("a", 10)
    book.reap(1_100, ("a",))
    book.claim("a", 1_200, by="w2", attempt=1, fire=1_100)


def attempt_that_never_was(book: Book) -> None:
    book.enqueue("a")
    book.claim("a", 10)
    book.settle("release", "a", 20, of=10, fire=0)
    book.claim("a", 30, attempt=2)


def dedup_pair(book: Book) -> None:
    book.enqueue("a", 0, fire=60_000, digest=DIGEST)
    book.enqueue("b", 100, fire=60_000, digest=DIGEST)


def dedup_window_cut_short(book: Book) -> None:
    book.enqueue("a", 0, digest=DIGEST, window=60_000)
    book.run("a")
    book.enqueue("b", 100, digest=DIGEST, window=60_000)


def refused_for_one_that_ended(book: Book) -> None:
    book.enqueue("a", 0, digest=DIGEST)
    book.run("a")
    book.enqueue("b", 100, digest=DIGEST, letter="k", held="a")


def refused_for_another_key(book: Book) -> None:
    book.enqueue("a", 0, fire=60_000, digest=DIGEST2)
    book.enqueue("b", 100, digest=DIGEST, letter="k", held="a")


def refused_for_nobody(book: Book) -> None:
    book.enqueue("b", 100, digest=DIGEST, letter="k", held="a")


def dedup_key_of_an_ended_job(book: Book) -> None:
    book.enqueue("a", 0, digest=DIGEST)
    book.run("a")
    book.snapshot(5_000, {}, dedup=[[DIGEST, "a", None]])


def cancelled_then_started(book: Book) -> None:
    book.enqueue("a", fire=100)
    book.call("cancel", 50, [{"id": "a", "letter": "c"}], proc="p")
    book.claim("a", 200, fire=100)
    book.start("a", 201, of=200, fire=100)


def cancelled_while_it_ran(book: Book) -> None:
    book.enqueue("a")
    book.claim("a", 10)
    book.call("cancel", 50, [{"id": "a", "letter": "c"}], proc="p")


def tried_again_although_asked_to_cancel(book: Book) -> None:
    book.enqueue("a")
    book.claim("a", 10)
    book.call("cancel", 50, [{"id": "a", "letter": "q"}], proc="p")
    book.settle("retry", "a", 80, of=10, fire=5_000)


def taken_back_although_asked_to_cancel(book: Book) -> None:
    book.enqueue("a")
    book.claim("a", 10)
    book.call("cancel", 50, [{"id": "a", "letter": "q"}], proc="p")
    book.reap(10 + LEASE + 5, back=("a",))


def started_after_it_was_cancelled_while_it_ran(book: Book) -> None:
    book.enqueue("a")
    book.claim("a", 10)
    book.call("cancel", 50, [{"id": "a", "letter": "q"}], proc="p")
    book.settle("cancelled", "a", 80, of=10)
    book.claim("a", 200, attempt=2)


def resurrected(book: Book) -> None:
    book.enqueue("a", most=1)
    book.claim("a", 10, most=1)
    book.settle("bury", "a", 20, of=10)
    book.call("reschedule", 50, [{"id": "a", "letter": "s", "fire": HOUR + 99}], proc="p")


def redriven_though_done(book: Book) -> None:
    book.enqueue("a")
    book.run("a")
    book.call("redrive", 50, [{"id": "a", "letter": "r"}], proc="p")


def parked_dropped(book: Book) -> None:
    book.enqueue("a")
    book.claim("a", 10)
    book.settle("bury", "a", 20, of=10, reason="undecodable")
    book.snapshot(5_000)


def dead_without_a_reason(book: Book) -> None:
    book.enqueue("a")
    book.claim("a", 10)
    book.settle("bury", "a", 20, of=10)
    book.snapshot(5_000, {"a": dead(20, reason="")})


def unknown_key(book: Book) -> None:
    book.snapshot(5_000, keys={"unknown": ["{zw:q:0}:surprise"]})


def key_for_ever(book: Book) -> None:
    book.snapshot(5_000, keys={"no_ttl": ["{zw:q:0}:replay:x:0"]})


def key_that_goes(book: Book) -> None:
    book.snapshot(5_000, keys={"ttl": [f"{{zw:q:0}}:wheel:{DAY}"]})


def false_receipt(book: Book) -> None:
    book.enqueue("a", fire=60_000, receipt="replicated(1)", args={"wait": 0})


def receipt_without_an_answer(book: Book) -> None:
    book.enqueue("a", fire=60_000, receipt="fsynced")


def on_a_replica_and_lost_with_the_primary(book: Book) -> None:
    book.enqueue("a", 100, fire=60_000, receipt="replicated(1)", args={"wait": 1})
    book.fault("failover", 50, 200, replicas=1)
    book.snapshot(5_000)


def gone_while_another_queue_lost_writes(book: Book) -> None:
    book.enqueue("a", 100, fire=60_000)
    book.fault("failover", 50, 200, queues=["other"])
    book.snapshot(5_000)


def on_the_disk_and_lost_with_the_memory(book: Book) -> None:
    book.enqueue("a", 100, fire=60_000, receipt="fsynced", args={"waitaof": 1})
    book.fault("loss", 50, 200)
    book.snapshot(5_000)


def late_recovery(book: Book) -> None:
    book.enqueue("a")
    book.claim("a", 10)
    for t in range(300, 9_000, 300):
        book.reap(t)
    book.reap(9_000, ("a",))


def never_recovered(book: Book) -> None:
    book.enqueue("a")
    book.claim("a", 10)
    for t in range(300, 9_000, 300):
        book.reap(t)
    book.snapshot(9_500, {"a": processing(10)})


def late(book: Book) -> None:
    book.enqueue("a")
    book.claim("a", 400)
    book.start("a", 401, of=400)


def mass_redelivery(book: Book) -> None:
    book.enqueue("a")
    book.claim("a", 10)
    for t in range(300, 1_000, 300):
        book.extend("a", t, of=10)
    for t in range(1_200, 5_000, 300):
        book.call("extend", t, [{"id": "a", "token": token(10)}], phase="fail", args={"lease": 1_000})
    book.reap(5_100, ("a",))
    book.extend("a", 5_200, of=10, letter="f")


def mass_redelivery_by_a_worker_of_a_shorter_lease(book: Book) -> None:
    """It holds itself back for a lease of its own, which is not one of the worker whose job it takes."""
    book.enqueue("a")
    book.claims(10, [{"id": "a", "token": token(10), "attempt": 1, "fire": HOUR, "most": 3}], lease=5_000)
    for t in range(1_500, 12_001, 1_500):
        book.call("extend", t, [{"id": "a", "token": token(10)}], phase="fail", args={"lease": 5_000})
    book.beat(12_010, by="w2")
    book.reap(13_200, ("a",))
    book.extend("a", 13_300, of=10, letter="f")


def taken_in_a_jump_ahead(book: Book) -> None:
    """The server's clock jumps ahead by an hour; a worker that saw it tells, and takes the job of a living worker."""
    hour = 3_600_000
    book.enqueue("a")
    book.claim("a", 10)
    book.extend("a", 300, of=10)
    book.reap(hour + 400, ("a",), jumped=hour)
    book.extend("a", hour + 500, of=10, letter="f")


def early_after_a_step_back(book: Book) -> None:
    """The server's clock was set back by 8 s, and the script went by the last time it saw: the token tells."""
    book.enqueue("a", fire=6_000)
    book.claim("a", 900, fire=6_000, token=token(8_001))


def late_after_a_restart(book: Book) -> None:
    """A single worker died and was started again: from then on nothing holds its job up."""
    book.enqueue("a")
    book.claim("a", 10)
    for t in range(5_000, 7_000, 300):
        book.beat(t, by="w2")
    book.reap(7_000, ("a",))


BAD: dict[str, Bad] = {
    **SCHEDULES,
    **SNAPSHOTS,
    "lost": ({"I1"}, 2, lost),
    "lost after a retry": ({"I1"}, 2, lost_after_a_retry),
    "left when drained": ({"I1"}, 2, left_when_drained),
    "invented": ({"I2"}, 1, invented),
    "stored though refused": ({"I2"}, 2, stored_though_refused),
    "claimed early": ({"I3"}, 1, claimed_early),
    "started early": ({"I3"}, 2, started_early),
    "claimed further ahead than it says": ({"I3"}, 1, claimed_further_ahead_than_it_says),
    "claimed too far ahead": ({"I3"}, 1, claimed_too_far_ahead),
    "held and started early": ({"I3"}, 2, held_and_started_early),
    "claimed by another fire time": ({"I3"}, 2, claimed_by_another_fire_time),
    "two holders": ({"I4"}, 3, two_holders),
    "held twice": ({"I4", "I7"}, 2, held_twice_without_a_reap),
    "stale ack": ({"I5"}, 3, stale_ack),
    "ack after a reap": ({"I5"}, 3, ack_after_a_reap),
    "double ack": ({"I5"}, 2, double_ack),
    "token of nobody": ({"I5"}, 1, token_of_nobody),
    "stale heartbeat": ({"I5"}, 3, stale_heartbeat),
    "tokens stand still": ({"I6"}, 2, tokens_stand_still),
    "tokens go back": ({"I6"}, 2, tokens_go_back),
    "duplicate": ({"I7"}, 2, duplicate_without_a_cause),
    "started twice by one claim": ({"I7"}, 2, started_twice_by_one_claim),
    "too many attempts": ({"I8"}, 1, too_many_attempts),
    "reaped past the last attempt": ({"I8"}, 2, reaped_past_the_last_attempt),
    "crash not counted": ({"I8"}, 2, crash_not_counted),
    "attempt that never was": ({"I8"}, 2, attempt_that_never_was),
    "dedup pair": ({"I11"}, 2, dedup_pair),
    "dedup window cut short": ({"I11"}, 3, dedup_window_cut_short),
    "refused for one that ended": ({"I11"}, 2, refused_for_one_that_ended),
    "refused for another key": ({"I11"}, 2, refused_for_another_key),
    "refused for nobody": ({"I11"}, 1, refused_for_nobody),
    "dedup key of an ended job": ({"I11"}, 1, dedup_key_of_an_ended_job),
    "cancelled then started": ({"I12", "I13"}, 2, cancelled_then_started),
    "cancelled while it ran": ({"I12"}, 2, cancelled_while_it_ran),
    "tried again although asked to cancel": ({"I12"}, 3, tried_again_although_asked_to_cancel),
    "taken back although asked to cancel": ({"I12"}, 3, taken_back_although_asked_to_cancel),
    "started after it was cancelled while it ran": (
        {"I7", "I12", "I13"},
        2,
        started_after_it_was_cancelled_while_it_ran,
    ),
    "resurrected": ({"I13"}, 2, resurrected),
    "redriven though done": ({"I13"}, 2, redriven_though_done),
    "parked and dropped": ({"I1", "I19"}, 2, parked_dropped),
    "dead without a reason": ({"I19"}, 1, dead_without_a_reason),
    "unknown key": ({"I20"}, 1, unknown_key),
    "key for ever": ({"I20"}, 1, key_for_ever),
    "key that goes": ({"I20"}, 1, key_that_goes),
    "false receipt": ({"I21"}, 2, false_receipt),
    "receipt without an answer": ({"I21"}, 2, receipt_without_an_answer),
    "on a replica and lost with the primary": ({"I21"}, 2, on_a_replica_and_lost_with_the_primary),
    "gone while another queue lost writes": ({"I1"}, 2, gone_while_another_queue_lost_writes),
    "on the disk and lost with the memory": ({"I21"}, 2, on_the_disk_and_lost_with_the_memory),
    "late recovery": ({"I23"}, 2, late_recovery),
    "never recovered": ({"I23"}, 2, never_recovered),
    "late": ({"I24"}, 1, late),
    **IDLE,
    "late after a restart": ({"I23"}, 2, late_after_a_restart),
    "mass redelivery": ({"I26"}, 4, mass_redelivery),
    "mass redelivery by a shorter lease": ({"I26"}, 4, mass_redelivery_by_a_worker_of_a_shorter_lease),
    "taken in a jump ahead": ({"I26"}, 4, taken_in_a_jump_ahead),
    "early after a step back": ({"I3"}, 1, early_after_a_step_back),
}


@pytest.mark.parametrize("name", BAD)
def test_a_broken_promise_is_found_with_a_short_witness(book: Book, name: str) -> None:
    numbers, longest, write = BAD[name]
    write(book)
    report = book.judge(lateness_ms=300 if name == "late" else None, drained=name == "left when drained")
    assert {verdict.number for verdict in report.broken} == numbers
    for verdict in report.broken:
        assert verdict.count == len(verdict.breaches) == 1
        assert 1 <= len(verdict.breaches[0].clues) <= longest
        assert verdict.breaches[0].job == "" or verdict.breaches[0].job.startswith("q/")
        assert all(clue.source is None or clue.where for clue in verdict.breaches[0].clues)


def test_every_invariant_has_a_bad_history() -> None:
    from zwheel.verify.check import INVARIANTS

    assert {number for number, _, _ in INVARIANTS} == set().union(*(numbers for numbers, _, _ in BAD.values()))


def test_a_witness_names_times_and_lines(book: Book) -> None:
    book.enqueue("a", fire=1_000)
    book.claim("a", 999, fire=1_000)
    (verdict,) = book.judge().broken
    (clue,) = verdict.breaches[0].clues
    assert str(clue).startswith("2030-03-17T18:00:00.999000Z claim token")
    assert clue.where == "history.jsonl:4"
    assert us(999) == token(999)
