"""Large bodies lie apart from the records: written once, given with the claim, and gone with the job."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from zwheel.calls import (
    After,
    Call,
    Ending,
    Lane,
    NewJob,
    Offer,
    cancel,
    claim,
    define,
    enqueue,
    offer,
    prune,
    purge,
    read_claim,
    read_define,
    read_enqueue,
    read_letters,
    read_repair,
    reap,
    redrive,
    repair,
    reschedule,
    settle,
)
from zwheel.errors import UndecodableJob
from zwheel.job import JobId, QueueName
from zwheel.record import bytes_apart, read_record, record_tail, task_and_body

from .batches import STAMP, TAIL, schedule
from .shard import (
    DIGEST,
    KEYS,
    LANE,
    LANE2,
    MIDNIGHT,
    NOW,
    NOW_US,
    TODAY,
    WORKER,
    Keyspace,
    Shard,
    at,
    digits16,
    record,
)
from .test_advance import job

BODY = b"\x01\x00\n" + b"x" * 5_000
SIZE = len(BODY)
OTHER = b"\x01\x00\xff" + b"y" * 2_000
TOKEN = NOW_US - 1_000_000
WHY = b'{"at":1900000000000,"attempt":1,"reason":"error"}\n'
GROUP = "0123456789abcdef"


def put(shard: Shard, *jobs: tuple[str, bytes], **chosen: Any) -> str:
    """Enqueue jobs; returns one letter each."""
    batch = [
        NewJob(
            job_id=JobId(name), queue=QueueName("q"), at_ms=NOW, delay_ms=0, body=body, **chosen,
            tail=record_tail("mail.send", max_attempts=3, dedup=chosen.get("dedup")),
        )
        for name, body in jobs
    ]  # fmt: skip
    sent = enqueue(KEYS, batch, now_ms=NOW, lane=LANE._replace(request=f"{len(jobs)}{jobs[0]}"), now=at(NOW))
    reply = shard.run(sent.call)
    assert read_enqueue(sent, reply)
    letters: str = reply[2].decode()
    return letters


def take(shard: Shard, *, lane: Lane = LANE, limit: int = 10, group: str = "none") -> dict[str, bytes]:
    call = claim(KEYS, day=TODAY, worker=WORKER, lease_ms=30_000, limit=limit, lane=lane, group=group, now=at(NOW))
    found = read_claim(shard.run(call)).jobs
    return {name.decode(): raw for name, raw in zip(found[::2], found[1::2], strict=True)}


def there(*ids: str, state: str = "p", apart: int = SIZE, **fields: Any) -> Keyspace:
    """Jobs with a large body, in the set of their state."""
    chosen: dict[str, Any] = {"attempt": 1, "token": TOKEN, "worker": WORKER} | fields
    places = {"p": {"processing": dict.fromkeys(ids, NOW + 5)}, "x": {"dead": dict.fromkeys(ids, NOW - 9)}}
    wheel = {f"wheel:{TODAY}": dict.fromkeys(ids, NOW), "days": {TODAY: int(TODAY)}}
    return {
        "jobs": {name: record(state, apart=apart, **chosen) for name in ids},
        "bodies": dict.fromkeys(ids, BODY),
        **places.get(state, wheel),
    }


def test_only_a_body_over_a_kilobyte_lies_apart(shard: Shard) -> None:
    assert put(shard, ("small", b"b" * 1024), ("large", b"b" * 1025), ("empty", b"")) == "ccc"
    found = shard.keyspace()
    assert found["bodies"] == {"large": b"b" * 1025}
    assert found["jobs"]["large"] == record(token=NOW_US, apart=1025)
    assert found["jobs"]["small"] == record(token=NOW_US, body=b"b" * 1024)
    assert put(shard, ("alone", b"c" * 1025)) == "c", "the way of a single job is another one"
    assert put(shard, ("alone-small", b"c" * 1024)) == "c"
    found = shard.keyspace()
    assert found["bodies"] == {"large": b"b" * 1025, "alone": b"c" * 1025}
    assert found["jobs"]["alone"] == record(token=NOW_US + 1, apart=1025)


def test_a_claim_gives_the_whole_and_writes_a_short_record(shard: Shard) -> None:
    put(shard, ("a", BODY), ("b", b"small"), ("c", OTHER))
    taken = take(shard)
    assert {name: task_and_body(raw) for name, raw in taken.items()} == {
        "a": (b"mail.send", BODY), "b": (b"mail.send", b"small"), "c": (b"mail.send", OTHER),
    }  # fmt: skip
    assert read_record(JobId("a"), QueueName("q"), taken["a"]).body == BODY
    stored = shard.keyspace()
    assert len(stored["jobs"]["a"]) < 100 and stored["bodies"] == {"a": BODY, "c": OTHER}
    assert take(shard) == taken, "a repeat gives the same"


def test_a_body_is_written_once_whatever_becomes_of_its_job(shard: Shard) -> None:
    put(shard, ("a", BODY))
    body = shard.keyspace()["bodies"]
    for number in range(4):
        taken = take(shard, lane=LANE._replace(request=f"claim-{number}"))
        assert task_and_body(taken["a"]) == (b"mail.send", BODY)
        letter = "xrbr"[number]
        when = None if letter == "x" else NOW
        ending = Ending("a", taken["a"][21:37], letter, b"" if letter == "b" else WHY, when)
        call = settle(
            KEYS, [], [ending], most_dead=5, now_ms=NOW, lane=LANE._replace(request=f"s{number}"), now=at(NOW)
        )
        assert read_letters(shard.run(call)) == letter
        assert shard.keyspace()["bodies"] == body
        if letter == "x":
            call = redrive(KEYS, ["a"], now_ms=NOW, lane=LANE._replace(request=f"r{number}"), now=at(NOW))
            assert read_letters(shard.run(call)) == "r"
    raw = shard.keyspace()["jobs"]["a"]
    assert bytes_apart(raw) == SIZE and read_record(JobId("a"), QueueName("q"), raw).failures


@pytest.mark.parametrize("keep", [0, 60_000])
def test_a_job_that_ended_well_takes_its_body_along(shard: Shard, keep: int) -> None:
    shard.put(there("a", "b", keep=keep))
    call = settle(KEYS, [("a", digits16(TOKEN))], most_dead=5, now_ms=NOW, lane=LANE, now=at(NOW))
    assert read_letters(shard.run(call)) == "d"
    found = shard.keyspace()
    assert found["bodies"] == {"b": BODY}
    tombstone = record("d", attempt=1, token=TOKEN, worker=WORKER, keep=keep, body=b"")
    assert found["jobs"].get("a") == (tombstone if keep else None), "no field tells of a body that is gone"


def test_a_reaped_job_keeps_its_body_and_a_trimmed_one_loses_it(shard: Shard) -> None:
    shard.put(there("a", most=1) | {"processing": {"a": NOW - 1}})
    shard.put(there("old", state="x"))
    call = reap(KEYS, limit=10, lease_ms=30_000, most_dead=1, now_ms=NOW, now=at(NOW))
    assert shard.run(call)[0] == b"ok"
    found = shard.keyspace()
    assert (found["dead"], found["bodies"]) == ({"a": NOW}, {"a": BODY})


def test_cancel_purge_and_prune_take_the_body_along(shard: Shard) -> None:
    shard.put(there("c", "p", state="s"))
    call = cancel(KEYS, ["c"], day=TODAY, lane=LANE, now=at(NOW))
    assert read_letters(shard.run(call)) == "c"
    assert shard.keyspace()["bodies"] == {"p": BODY}
    assert shard.keyspace()["jobs"]["c"] == record("c", attempt=1, token=TOKEN, worker=WORKER, body=b"")
    shard.run(purge(KEYS, KEYS.wheel(TODAY), day=TODAY, limit=9, now=at(NOW)))
    assert "bodies" not in shard.keyspace()
    shard.put(there("x", "y", state="x"))
    shard.run(purge(KEYS, KEYS.dead, ids=["x"], now=at(NOW)))
    assert shard.keyspace()["bodies"] == {"y": BODY}
    shard.run(prune(KEYS, limit=9, dead_age_ms=1, now=at(NOW)))
    assert "bodies" not in shard.keyspace()


def test_what_moves_a_job_leaves_its_body_alone(shard: Shard) -> None:
    shard.put(there("a", state="s"))
    call = reschedule(KEYS, "a", day=TODAY, at_ms=MIDNIGHT + 1, delay_ms=0, now_ms=NOW, lane=LANE, now=at(NOW))
    assert shard.run(call)[2] == b"s"
    found = shard.keyspace()
    assert found["bodies"] == {"a": BODY} and bytes_apart(found["jobs"]["a"]) == SIZE


def test_a_job_that_was_offered_is_claimed_with_its_body(shard: Shard) -> None:
    shard.put(there("a"))
    given = [Offer("a", digits16(TOKEN), b"")]
    shard.run(offer(KEYS, given, groups=[GROUP], now_ms=NOW, lane=LANE, now=at(NOW)))
    assert take(shard, lane=LANE._replace(request="2")) == {}
    taken = take(shard, lane=LANE._replace(request="3"), group=GROUP)
    assert task_and_body(taken["a"]) == (b"mail.send", BODY)


@pytest.mark.parametrize(("body", "left"), [(b"small", None), (OTHER, {"a": OTHER})])
def test_a_new_job_in_the_place_of_a_dead_one_has_its_own_body(
    shard: Shard, body: bytes, left: dict[str, bytes] | None
) -> None:
    shard.put(there("a", state="x"))
    assert put(shard, ("a", body), replace=True) == "r"
    assert shard.keyspace().get("bodies") == left
    assert task_and_body(take(shard)["a"]) == (b"mail.send", body)


def test_a_refused_enqueue_stores_no_body(shard: Shard) -> None:
    shard.put(there("a"))
    assert put(shard, ("a", OTHER)) == "i"
    assert put(shard, ("a", OTHER), ("b", OTHER), dedup=DIGEST) == "ic"
    assert put(shard, ("d", OTHER), dedup=DIGEST) == "k"
    assert shard.keyspace()["bodies"] == {"a": BODY, "b": OTHER}


def test_an_edited_schedule_takes_back_the_bodies_of_its_occurrences(shard: Shard) -> None:
    ids = ("s@1", "s@2", "s@3")
    shard.put(there(*ids, state="s", attempt=0, token=TOKEN) | {"schedules": {"s": schedule()}})
    shard.put({"meta": {"schema": "1", "epoch": "5"}})
    small, large = (
        job("s@1", NOW + 5),
        job("s@2", NOW + 6)._replace(rest=job("s@2", 0).rest.partition(b"\n")[0] + b"\n" + OTHER),
    )
    after = After("a", NOW + 9, TAIL, [small, large])
    call = define(KEYS, "s", stamp=STAMP, after=after, back=[(name, NOW) for name in ids], lane=LANE, now=at(NOW))
    answer = read_define(call, shard.run(call))
    assert (answer.word, answer.letters) == ("ok", "cc")
    found = shard.keyspace()
    assert found["bodies"] == {"s@2": OTHER} and bytes_apart(found["jobs"]["s@2"]) == len(OTHER)
    assert set(found["jobs"]) == {"s@1", "s@2"} and not bytes_apart(found["jobs"]["s@1"])


def test_bodies_count_for_the_bytes_of_a_claim(shard: Shard) -> None:
    body = b"z" * 250_000
    for number in range(20):
        put(shard, (f"j{number:02d}", body))
    assert list(take(shard, limit=20)) == [f"j{number:02d}" for number in range(8)]
    assert len(shard.keyspace()["processing"]) == 8


def test_a_body_that_is_gone_stops_no_claim_and_the_worker_is_told(shard: Shard) -> None:
    shard.put(there("a", "b", state="s"))
    shard.client.hdel(f"{KEYS.tag}:bodies", "a")
    taken = take(shard)
    with pytest.raises(UndecodableJob, match="its body of 5,003 bytes is gone from Redis: 0 are there"):
        task_and_body(taken["a"])
    assert task_and_body(taken["b"]) == (b"mail.send", BODY)


def test_a_key_of_another_type_in_the_place_of_the_bodies_harms_only_large_jobs(shard: Shard) -> None:
    put(shard, ("a", BODY), ("b", b"small"))
    shard.client.delete(KEYS.bodies)
    shard.client.set(KEYS.bodies, "another program's")
    before = [shard.client.hgetall(KEYS.jobs), shard.client.zcard(KEYS.wheel(TODAY))]
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        put(shard, ("c", BODY))
    assert [shard.client.hgetall(KEYS.jobs), shard.client.zcard(KEYS.wheel(TODAY))] == before, "nothing was written"
    taken = take(shard)
    assert task_and_body(taken["b"]) == (b"mail.send", b"small")
    done = [(name, taken[name][21:37]) for name in taken]
    assert read_letters(shard.run(settle(KEYS, done, most_dead=5, now_ms=NOW, lane=LANE2, now=at(NOW)))) == "dd"
    assert not shard.client.exists(KEYS.jobs)


def look(shard: Shard, ids: list[str], *, mend: bool = False) -> str:
    call: Call = repair(KEYS, days=[TODAY], ids=ids, mend=mend, now=at(NOW))
    return read_repair(call, shard.run(call)).jobs


def test_repair_finds_a_body_without_a_job_and_a_job_without_its_body(shard: Shard) -> None:
    shard.put(there("whole", "lost", "short", state="s"))
    shard.put(
        {"jobs": {"small": record()}, f"wheel:{TODAY}": {"small": NOW}, "bodies": {"small": OTHER, "none": OTHER}}
    )
    shard.put({"jobs": {"newer": record(more="Z1")}, f"wheel:{TODAY}": {"newer": NOW}, "bodies": {"newer": OTHER}})
    shard.put({f"wheel:{TODAY}": {"orphan": NOW}, "bodies": {"orphan": OTHER, "short": b"not all of it"}})
    shard.client.hdel(KEYS.bodies, "lost")
    ids = ["whole", "lost", "short", "small", "none", "newer", "orphan"]
    assert look(shard, ids) == "cnnbbco"
    assert look(shard, ids, mend=True) == "cnnbbco"
    found = shard.keyspace()
    assert set(found["bodies"]) == {"whole", "short", "newer"}
    assert look(shard, ids) == "cnncgcg"
