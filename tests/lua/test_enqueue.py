from __future__ import annotations

from typing import Any

import pytest

from zwheel.calls import Lane, NewJob, Reply, ShardsChanged, enqueue, read_enqueue
from zwheel.errors import PayloadTooLarge, QueueFull, SchemaMismatch
from zwheel.job import Enqueued, JobId, JobState, QueueName
from zwheel.payload.codec import MOST
from zwheel.record import record_tail

from .shard import (
    DIGEST,
    DIGEST2,
    EVENING,
    KEYS,
    LANE,
    LANE2,
    MIDNIGHT,
    NOW,
    NOW_US,
    OTHER_WORKER,
    TODAY,
    TOMORROW,
    Keyspace,
    Shard,
    at,
    held,
    meta,
    record,
    record_of_1,
    refused,
)

BODY = b"\x01\x00\xff\n"
#: What `meta` says of a queue that was founded by this call, and of an older queue.
FOUNDED: dict[str, Any] = {"schema": 1, "epoch": NOW_US}
KNOWN: dict[str, Any] = {"schema": 1, "epoch": 5}


def new(
    job_id: str, at_ms: int | None = NOW, *, delay_ms: int = 0, digest: str = "", window_ms: int | None = None,
    keep: int = 0, body: bytes = BODY, replace: bool | None = False,
) -> NewJob:  # fmt: skip
    return NewJob(
        job_id=JobId(job_id), queue=QueueName("q"), at_ms=at_ms, delay_ms=delay_ms, dedup=digest, window_ms=window_ms,
        tail=record_tail("mail.send", max_attempts=3, keep_ms=keep, dedup=digest or None), body=body, replace=replace,
    )  # fmt: skip


def send(shard: Shard, *batch: NewJob, now: str = at(NOW), estimate: int = NOW, lane: Lane = LANE) -> Reply:
    return shard.run(enqueue(KEYS, batch, now_ms=estimate, lane=lane, now=now).call)


def put(
    shard: Shard, *batch: NewJob, now: str = at(NOW), estimate: int = NOW, lane: Lane = LANE
) -> list[Enqueued] | None:
    sent = enqueue(KEYS, batch, now_ms=estimate, lane=lane, now=now)
    return read_enqueue(sent, shard.run(sent.call))


def fresh(**fields: Any) -> bytes:
    return record(token=NOW_US, **fields)


def today(**jobs: int) -> Keyspace:
    return {f"wheel:{TODAY}": jobs, "days": {TODAY: int(TODAY)}, "wake": ["1"]}


def test_new_jobs_go_to_the_days_of_their_fire_times_and_the_past_is_allowed(shard: Shard) -> None:
    long_ago, far = 86_400_000 * 3 + 5, 253_402_300_799_999
    batch = [
        new("far", far),
        new("a", keep=60_000),
        new("old", long_ago),
        new("b", None, delay_ms=1_500),
        new("t", MIDNIGHT),
    ]
    answers = put(shard, *batch, now=at(NOW, 1))
    assert answers is not None
    assert [(a.job_id, a.existed, a.state, a.fire_at_ms) for a in answers] == [
        ("far", False, JobState.SCHEDULED, far),
        ("a", False, JobState.SCHEDULED, NOW),
        ("old", False, JobState.SCHEDULED, long_ago),
        ("b", False, JobState.SCHEDULED, NOW + 1_501),
        ("t", False, JobState.SCHEDULED, MIDNIGHT),
    ]
    token = NOW_US + 1
    shard.leaves(
        {
            "jobs": {
                "far": record(fire=far, token=token),
                "a": record(keep=60_000, token=token),
                "old": record(fire=long_ago, token=token),
                "b": record(fire=NOW + 1_501, token=token),
                "t": record(fire=MIDNIGHT, token=token),
            },
            "wheel:99991231": {"far": far},
            f"wheel:{TODAY}": {"a": NOW, "b": NOW + 1_501},
            f"wheel:{TOMORROW}": {"t": MIDNIGHT},
            "wheel:19700104": {"old": long_ago},
            "days": {"19700104": 19700104, TODAY: int(TODAY), TOMORROW: int(TOMORROW), "99991231": 99991231},
            "wake": ["1"],
            "meta": meta(token, schema=1, epoch=token),
            "replay:caller:0": f"request-1 {token} ccccc ",
        }
    )


@pytest.mark.parametrize(
    ("raw", "state"),
    [
        (record(fire=NOW + 7), JobState.SCHEDULED),
        (held(5, fire=NOW + 7), JobState.PROCESSING),
        (record("d", fire=NOW + 7, body=b""), JobState.DONE),
        (record("x", fire=NOW + 7), JobState.DEAD),
        (record("s", fire=NOW + 7, version="3"), JobState.SCHEDULED),
    ],
    ids=["scheduled", "processing", "done", "dead", "of another version"],
)
def test_an_id_that_exists_in_any_state_is_answered_with_it_and_stays(
    shard: Shard, raw: bytes, state: JobState
) -> None:
    shard.put({"jobs": {"a": raw}, "meta": meta(5, **KNOWN)})
    reply = send(shard, new("b", NOW + 1), new("a", digest=DIGEST))
    assert reply == [b"ok", at(NOW).encode(), b"ci", b"2 a %c %015d" % (raw[1], NOW + 7)]
    answers = put(shard, new("b", NOW + 1), new("a", digest=DIGEST))
    assert answers is not None
    assert [(a.job_id, a.existed, a.state, a.fire_at_ms) for a in answers] == [
        ("b", False, JobState.SCHEDULED, NOW + 1),
        ("a", True, state, NOW + 7),
    ]
    shard.leaves(
        {
            "jobs": {"a": raw, "b": fresh(fire=NOW + 1)},
            **today(b=NOW + 1),
            "meta": meta(**KNOWN),
            "replay:caller:0": f"request-1 {NOW_US} ci {reply[3].decode()}",
        }
    )


def test_the_same_id_twice_in_a_batch_is_one_job(shard: Shard) -> None:
    answers = put(shard, new("a", NOW + 5), new("a", NOW + 6))
    assert answers is not None
    assert [(a.existed, a.fire_at_ms) for a in answers] == [(False, NOW + 5), (True, NOW + 5)]
    assert shard.keyspace()["jobs"] == {"a": fresh(fire=NOW + 5)}


def test_a_dedup_key_is_taken_with_and_without_a_window(shard: Shard) -> None:
    assert put(shard, new("a", digest=DIGEST), new("b", digest=DIGEST2, window_ms=500))
    shard.leaves(
        {
            "jobs": {"a": fresh(digest=DIGEST), "b": fresh(digest=DIGEST2)},
            **today(a=NOW, b=NOW),
            "dedup": {DIGEST: "a", DIGEST2: "b"},
            "dedup:expiry": {DIGEST2: NOW + 500},
            "meta": meta(**FOUNDED),
            "replay:caller:0": f"request-1 {NOW_US} cc ",
        }
    )


def test_the_same_dedup_key_twice_in_a_batch_is_one_job(shard: Shard) -> None:
    answers = put(shard, new("a", NOW + 5, digest=DIGEST), new("b", digest=DIGEST))
    assert answers is not None
    assert [(a.job_id, a.existed, a.fire_at_ms) for a in answers] == [("a", False, NOW + 5), ("a", True, NOW + 5)]
    assert shard.keyspace()["jobs"] == {"a": fresh(fire=NOW + 5, digest=DIGEST)}


ALIVE = {
    "scheduled": record(digest=DIGEST),
    "processing": held(7, digest=DIGEST),
    "of another version": record("s", digest=DIGEST, version="3"),
    "of unknown flags": record_of_1("s", digest=DIGEST, flags="09"),
}
ENDED = {
    "done": record("d", digest=DIGEST, body=b""),
    "dead": record("x", digest=DIGEST),
    "cancelled": record("c", digest=DIGEST, body=b""),
    "missing": None,
    "enqueued again without the key": record(),
    "enqueued again with another key": record(digest=DIGEST2),
}
HOLDERS = [
    *(
        pytest.param(raw, ends, True, id=f"{name}, window {ends}")
        for name, raw in ALIVE.items()
        for ends in (None, NOW - 1)
    ),
    *(
        pytest.param(raw, ends, False, id=f"{name}, window {ends}")
        for name, raw in ENDED.items()
        for ends in (None, NOW)
    ),
    *(pytest.param(raw, NOW + 1, True, id=f"{name}, in its window") for name, raw in ENDED.items()),
]


@pytest.mark.parametrize(("holder", "window_ends", "held_still"), HOLDERS)
def test_a_dedup_key_is_held_while_its_job_lives_or_its_window_lasts(
    shard: Shard, holder: bytes | None, window_ends: int | None, held_still: bool
) -> None:
    before: Keyspace = {
        "jobs": {"h": holder} if holder else None,
        "dedup": {DIGEST: "h"},
        "dedup:expiry": {DIGEST: window_ends} if window_ends else None,
        "meta": meta(5, **KNOWN),
    }
    shard.put(before)
    answers = put(shard, new("a", digest=DIGEST))
    assert answers is not None
    if held_still:
        state, fire = (holder[1:2].decode(), NOW) if holder else ("d", 0)
        assert answers[0].job_id == "h"
        assert (answers[0].existed, answers[0].fire_at_ms) == (True, fire)
        shard.leaves(
            before
            | {
                "meta": meta(**KNOWN),
                "replay:caller:0": f"request-1 {NOW_US} k 1 h {state} {fire:015d}",
            }
        )
    else:
        assert (answers[0].job_id, answers[0].existed) == ("a", False)
        shard.leaves(
            {
                "jobs": {**(before["jobs"] or {}), "a": fresh(digest=DIGEST)},
                **today(a=NOW),
                "dedup": {DIGEST: "a"},
                "meta": meta(**KNOWN),
                "replay:caller:0": f"request-1 {NOW_US} c ",
            }
        )


def test_a_full_queue_refuses_the_whole_batch_and_counts_only_living_jobs(shard: Shard) -> None:
    before: Keyspace = {
        "jobs": {"a": record(), "p": held(5), "d": record("d", body=b""), "x": record("x")},
        "processing": {"p": NOW + 1},
        "done": {"d": NOW + 1},
        "dead": {"x": NOW},
        f"wheel:{TODAY}": {"a": NOW},
        "days": {TODAY: int(TODAY)},
        "meta": meta(NOW_US - 1, cap=3, **KNOWN),
    }
    shard.put(before)
    assert send(shard, new("b"), new("c")) == [b"full", at(NOW).encode(), b"3"]
    with pytest.raises(QueueFull):
        put(shard, new("b"), new("c"))
    shard.leaves(before | refused("full", "3"))
    answers = put(shard, new("b"), new("a"), lane=LANE2)
    assert answers is not None
    assert [answer.existed for answer in answers] == [False, True]
    answers = put(shard, new("a"), lane=LANE._replace(request="3"))
    assert answers is not None
    assert answers[0].existed, "what exists is answered also by a full queue"


def test_an_oversized_record_refuses_the_whole_batch(shard: Shard) -> None:
    batch = [new("a"), new("big", body=b"x" * (2_097_152 + 1024))]
    assert send(shard, *batch) == [b"oversized", at(NOW).encode(), b"big"]
    with pytest.raises(PayloadTooLarge):
        put(shard, *batch)
    shard.leaves(refused("oversized", "big"))


def test_a_delay_that_falls_into_another_day_than_the_named_one_changes_nothing(shard: Shard) -> None:
    batch = [new("a"), new("b", None)]
    now, estimate = at(MIDNIGHT - 1, 1), EVENING
    assert send(shard, *batch, now=now, estimate=estimate) == [b"moved", now.encode()]
    assert put(shard, *batch, now=now, estimate=estimate) is None
    shard.leaves(refused("moved"))
    answers = put(shard, *batch, now=at(MIDNIGHT - 1, 1), estimate=MIDNIGHT - 1, lane=LANE2)
    assert answers is not None
    assert answers[1].fire_at_ms == MIDNIGHT


def test_a_queue_with_jobs_and_no_schema_takes_more_but_is_not_founded_again(shard: Shard) -> None:
    shard.put({"jobs": {"a": record()}, f"wheel:{TODAY}": {"a": NOW}, "days": {TODAY: int(TODAY)}})
    assert put(shard, new("b"))
    shard.leaves(
        {
            "jobs": {"a": record(), "b": fresh()},
            **today(a=NOW, b=NOW),
            "meta": meta(),
            "replay:caller:0": f"request-1 {NOW_US} c ",
        }
    )


def test_a_queue_with_the_schema_of_another_version_takes_nothing(shard: Shard) -> None:
    before: Keyspace = {"jobs": {"a": record()}, "meta": meta(5, schema=2, epoch=5)}
    shard.put(before)
    assert send(shard, new("b")) == [b"foreign", at(NOW).encode(), b"2"]
    with pytest.raises(SchemaMismatch, match="schema 2"):
        put(shard, new("b"))
    shard.leaves(before | refused("foreign", "2"))


def test_the_shard_of_a_queue_that_was_made_with_several_takes_no_job(shard: Shard) -> None:
    """Its producer read the number of shards before the queue was made."""
    before: Keyspace = {"meta": {"shards": "8"}}
    shard.put(before)
    assert send(shard, new("b")) == [b"shards", at(NOW).encode(), b"8"]
    with pytest.raises(ShardsChanged) as told:
        put(shard, new("b"), new("c"))
    assert told.value.count == 8
    shard.leaves(before | refused("shards", "8"))


@pytest.mark.parametrize(("moving", "looked"), [("4", None), ("4", 3), ("!4", None), ("!4", 4)])
def test_a_new_cut_takes_jobs_from_those_who_looked_in_the_former_one(
    shard: Shard, moving: str, looked: int | None
) -> None:
    """Jobs of that one are on their way: an id, or a dedup key, may be among them."""
    before: Keyspace = {"meta": {"schema": "1", "epoch": "5", "moving": moving}}
    shard.put(before)
    sent = enqueue(KEYS, [new("b")], now_ms=NOW, lane=LANE, now=at(NOW), former=looked)
    reply = shard.run(sent.call)
    assert reply == [b"moving", at(NOW).encode(), moving.encode()]
    with pytest.raises(ShardsChanged) as met:
        read_enqueue(sent, reply)
    assert (met.value.count, met.value.former, met.value.unopened) == (None, 4, moving[0] == "!")
    shard.leaves(before | refused("moving", moving))
    if moving == "4":
        for batch in ([new("b")], [new("c"), new("d")]):
            lane = LANE._replace(request=f"request-{len(batch) + 1}")
            assert shard.run(enqueue(KEYS, batch, now_ms=NOW, lane=lane, now=at(NOW), former=4).call)[0] == b"ok"
        assert set(shard.keyspace()["jobs"]) == {"b", "c", "d"}


def test_who_looked_in_a_former_cut_may_enqueue_when_all_has_arrived(shard: Shard) -> None:
    shard.put({"meta": {"schema": "1", "epoch": "5"}})
    assert shard.run(enqueue(KEYS, [new("b")], now_ms=NOW, lane=LANE, now=at(NOW), former=4).call)[0] == b"ok"


@pytest.mark.parametrize("moving", ["", "abc", "-4", "!", "4 8", "\x00", b"\xff"])
def test_what_no_cut_can_be_moves_nothing(shard: Shard, moving: Any) -> None:
    shard.put({"meta": {"schema": "1", "epoch": "5", "moving": moving}})
    assert send(shard, new("b"))[0] == b"ok"


@pytest.mark.parametrize(
    ("keeper_at", "keeper_end", "tokens", "after"),
    [
        (NOW + 50, NOW + 1, [], []),
        (NOW + 51, NOW + 1, [], ["1"]),
        (NOW + 50, NOW, [], ["1"]),
        (NOW + 51, NOW + 1, ["1"], ["1"]),
        (9007199254740992, NOW + 1, [], ["1"]),
    ],
    ids=["it wakes in time", "it sleeps too long", "its role lapsed", "a token is there", "it sleeps for nothing"],
)
def test_a_token_is_pushed_when_the_timekeeper_would_not_wake_for_the_earliest(
    shard: Shard, keeper_at: int, keeper_end: int, tokens: list[str], after: list[str]
) -> None:
    roles: dict[str, Any] = {"keeper": OTHER_WORKER, "keeper_at": keeper_at, "keeper_end": keeper_end}
    shard.put({"meta": meta(NOW_US - 9, **KNOWN, **roles), "wake": tokens})
    assert put(shard, new("a", NOW + 60), new("b", NOW + 50))
    shard.leaves(
        {
            "jobs": {"a": fresh(fire=NOW + 60), "b": fresh(fire=NOW + 50)},
            **today(a=NOW + 60, b=NOW + 50),
            "wake": after or None,
            "meta": meta(**KNOWN, **roles),
            "replay:caller:0": f"request-1 {NOW_US} cc ",
        }
    )


@pytest.mark.parametrize("jobs", [("a",), ("a", "b")])
def test_nobody_is_called_for_a_job_of_a_paused_queue(shard: Shard, jobs: tuple[str, ...]) -> None:
    paused = {**KNOWN, "paused": 1}
    shard.put({"meta": meta(NOW_US - 9, **paused)})
    assert put(shard, *map(new, jobs))
    shard.leaves(
        {
            "jobs": {job: fresh() for job in jobs},
            **today(**dict.fromkeys(jobs, NOW)),
            "wake": None,
            "meta": meta(**paused),
            "replay:caller:0": f"request-1 {NOW_US} {'c' * len(jobs)} ",
        }
    )


def test_a_repeat_gets_the_first_clock_reading_so_that_a_delay_is_told_as_stored(shard: Shard) -> None:
    first = put(shard, new("a", None, delay_ms=10), new("a", None, delay_ms=10))
    stored = shard.keyspace()
    assert put(shard, new("a", None, delay_ms=10), new("a", None, delay_ms=10), now=at(NOW + 777)) == first
    shard.leaves(stored)


def chunk(shard: Shard, *batch: NewJob, lane: Lane, now: str = at(NOW)) -> tuple[list[Enqueued] | None, str]:
    """Store a batch as a chunk of a bulk; gives the answers, and the short name of its key."""
    sent = enqueue(KEYS, batch, now_ms=NOW, lane=lane, now=now, chunk=True)
    return read_enqueue(sent, shard.run(sent.call)), sent.call.keys[-1].removeprefix(f"{KEYS.tag}:")


def test_the_same_chunk_of_another_call_gets_the_first_answer_though_its_jobs_have_ended(shard: Shard) -> None:
    shard.put({"jobs": {"b": record()}, "meta": {"clock": "5", "schema": "1"}})
    first, key = chunk(shard, new("a", None), new("b"), lane=LANE)
    assert first is not None
    assert [answer.existed for answer in first] == [False, True]
    assert shard.keyspace()[key] == f"{NOW_US} ci 2 b s {NOW:015d}"
    shard.client.hdel(KEYS.jobs, "a", "b")
    before = shard.keyspace()
    again, same = chunk(shard, new("a", None), new("b"), lane=Lane("another", 0, "1"), now=at(NOW + 60_000))
    assert same == key
    assert again is not None
    assert [answer.existed for answer in again] == [True, True]
    assert [answer.fire_at_ms for answer in again] == [answer.fire_at_ms for answer in first]
    shard.leaves(before | {"replay:another:0": f"1 {NOW_US} ai 2 b s {NOW:015d}"})


@pytest.mark.parametrize(
    "other", [[("b", None)], [("a", NOW)], [("a", None), ("b", None)]], ids=["id", "time", "one more"]
)
def test_a_chunk_that_differs_is_another_chunk(shard: Shard, other: list[tuple[str, int | None]]) -> None:
    _, key = chunk(shard, new("a", None), lane=LANE)
    shard.client.hdel(KEYS.jobs, "a", "b")
    answers, another = chunk(shard, *(new(name, at_ms) for name, at_ms in other), lane=LANE2)
    assert another != key
    assert answers is not None
    assert not any(answer.existed for answer in answers)


def test_a_chunk_that_was_refused_is_stored_when_it_is_asked_for_again(shard: Shard) -> None:
    shard.put({"jobs": {"x": record()}, "meta": {"cap": "1", "schema": "1"}})
    with pytest.raises(QueueFull):
        chunk(shard, new("a"), lane=LANE)
    shard.client.hdel(KEYS.meta, "cap")
    with pytest.raises(QueueFull):
        chunk(shard, new("a"), lane=LANE)  # A late copy of the refused request.
    answers, _ = chunk(shard, new("a"), lane=LANE2)
    assert answers is not None
    assert not answers[0].existed


def test_the_largest_record_is_the_largest_body_with_the_longest_header_and_no_byte_more(shard: Shard) -> None:
    tail = record_tail("t" * 128, max_attempts=9999, keep_ms=9_999_999_999, dedup=DIGEST)
    for number, (size, word) in enumerate([(MOST, b"ok"), (MOST + 1, b"oversized")]):
        job = new(f"j{number}", digest=DIGEST2, body=b"x" * size)
        job.tail = tail
        assert send(shard, job, lane=LANE._replace(request=str(number + 1)))[0] == word
