"""An id that had a job: a cancelled one gives way, a done or dead one when that is asked for, a living one never."""

from __future__ import annotations

import pytest

from zwheel.calls import Lane, enqueue, read_enqueue
from zwheel.errors import QueueFull
from zwheel.job import JobState

from .shard import (
    DIGEST,
    DIGEST2,
    KEYS,
    LANE,
    LANE2,
    NOW,
    NOW_US,
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
from .test_enqueue import KNOWN, chunk, fresh, new, put, send, today

CANCELLED, DONE, DEAD = record("c", body=b""), record("d", body=b""), record("x", attempt=3)
#: What each ended job leaves, and the set that lists it.
ENDED = {"c": (CANCELLED, "done"), "d": (DONE, "done"), "x": (DEAD, "dead")}


def ended(state: str, raw: bytes | None = None) -> Keyspace:
    """One ended job called a."""
    known, place = ENDED[state]
    return {"jobs": {"a": raw or known}, place: {"a": NOW + 9}, "meta": meta(5, **KNOWN)}


@pytest.mark.parametrize(("state", "replace"), [("c", False), ("c", True), ("d", True), ("x", True)])
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "in a batch"])
def test_an_ended_job_gives_way_to_a_new_one_of_its_id(shard: Shard, state: str, replace: bool, alone: bool) -> None:
    shard.put(ended(state))
    batch = [new("a", NOW + 7, replace=replace), *([] if alone else [new("b", NOW + 1)])]
    answers = put(shard, *batch)
    assert answers is not None
    first = answers[0]
    assert (first.job_id, first.existed, first.replaced) == ("a", False, True)
    assert (first.state, first.fire_at_ms) == (JobState.SCHEDULED, NOW + 7)
    others = {} if alone else {"b": NOW + 1}
    shard.leaves(
        {
            "jobs": {"a": fresh(fire=NOW + 7)} | {name: fresh(fire=fire) for name, fire in others.items()},
            **today(a=NOW + 7, **others),
            "meta": meta(**KNOWN),
            "replay:caller:0": f"request-1 {NOW_US} {'r' if alone else 'rc'} ",
        }
    )


@pytest.mark.parametrize(
    ("raw", "replace"),
    [
        (CANCELLED, None), (DONE, False), (DEAD, False), (DONE, None), (DEAD, None),
        (record(), True), (held(5), True),
        (record("c", version="3"), True), (record_of_1("x", flags="09"), False), (record("d")[:20], True),
        (record("c")[:2] + b"junk" + record("c")[6:], True),
    ],
    ids=[
        "cancelled, where none gives way", "done", "dead", "done, where none gives way", "dead, where none gives way",
        "scheduled", "processing",
        "of another version", "of unknown flags", "cut short",
        "damaged",
    ],
)  # fmt: skip
def test_any_other_job_stays(shard: Shard, raw: bytes, replace: bool | None) -> None:
    before: Keyspace = {"jobs": {"a": raw}, "meta": meta(5, **KNOWN)}
    shard.put(before)
    answers = put(shard, new("a", NOW + 7, replace=replace))
    assert answers is not None
    assert (answers[0].job_id, answers[0].existed, answers[0].replaced) == ("a", True, False)
    assert shard.keyspace()["jobs"] == {"a": raw}


def test_the_same_id_twice_in_a_batch_gives_way_once(shard: Shard) -> None:
    shard.put(ended("x"))
    answers = put(shard, new("a", NOW + 7), new("a", NOW + 8, replace=True), new("a", NOW + 9, replace=True))
    assert answers is not None
    assert [(a.existed, a.replaced, a.state, a.fire_at_ms) for a in answers] == [
        (True, False, JobState.DEAD, NOW),
        (False, True, JobState.SCHEDULED, NOW + 8),
        (True, False, JobState.SCHEDULED, NOW + 8),
    ]
    assert shard.keyspace()["jobs"] == {"a": fresh(fire=NOW + 8)}
    assert "dead" not in shard.keyspace()


def test_a_repeat_gets_the_first_answer_and_replaces_nothing(shard: Shard) -> None:
    shard.put(ended("x"))
    first = put(shard, new("a", None, delay_ms=10, replace=True))
    shard.client.hset(KEYS.jobs, "a", DEAD)
    shard.client.zadd(KEYS.dead, {"a": NOW})
    stored = shard.keyspace()
    assert put(shard, new("a", None, delay_ms=10, replace=True), now=at(NOW + 777)) == first
    shard.leaves(stored)


def test_the_same_chunk_of_another_call_replaces_nothing(shard: Shard) -> None:
    shard.put(ended("x"))
    first, _ = chunk(shard, new("a", replace=True), lane=LANE)
    assert first is not None
    assert first[0].replaced
    shard.client.hset(KEYS.jobs, "a", DEAD)
    again, _ = chunk(shard, new("a", replace=True), lane=Lane("another", 0, "1"), now=at(NOW + 60_000))
    assert again is not None
    assert (again[0].existed, again[0].replaced) == (True, False)
    assert shard.keyspace()["jobs"] == {"a": DEAD}
    asked_otherwise, _ = chunk(shard, new("a"), lane=LANE2)
    assert asked_otherwise is not None
    assert asked_otherwise[0].state is JobState.DEAD


@pytest.mark.parametrize("last", [NOW_US - 1, NOW_US, NOW_US + 77])
def test_the_token_of_the_new_job_is_above_that_of_the_old_one_also_when_the_clock_was_lost(
    shard: Shard, last: int
) -> None:
    shard.put(ended("x", record("x", token=last)) | {"meta": KNOWN})
    assert put(shard, new("a", replace=True))
    assert shard.keyspace()["jobs"] == {"a": record(token=max(NOW_US, last + 1))}


def test_the_token_is_above_the_old_one_after_the_clock_was_set_back(shard: Shard) -> None:
    shard.put(ended("c", record("c", token=NOW_US, body=b"")) | {"meta": meta(NOW_US, **KNOWN)})
    assert put(shard, new("a"), now=at(NOW - 3_600_000))
    assert shard.keyspace()["jobs"] == {"a": record(token=NOW_US + 1)}


def test_a_full_queue_counts_the_job_that_comes_back(shard: Shard) -> None:
    before = ended("c")
    before["jobs"]["b"] = record()
    before |= {"meta": meta(5, cap=1, **KNOWN), f"wheel:{TODAY}": {"b": NOW}, "days": {TODAY: int(TODAY)}}
    shard.put(before)
    with pytest.raises(QueueFull):
        put(shard, new("a"))
    shard.leaves(before | refused("full", "1"))
    shard.client.hset(KEYS.meta, "cap", "2")
    answers = put(shard, new("a"), lane=LANE2)
    assert answers is not None
    assert answers[0].replaced


def test_a_day_that_is_not_named_changes_nothing(shard: Shard) -> None:
    before = ended("c")
    shard.put(before)
    sent = enqueue(KEYS, [new("a", None, delay_ms=86_400_000)], now_ms=NOW - 86_400_000, lane=LANE, now=at(NOW))
    assert read_enqueue(sent, shard.run(sent.call)) is None
    shard.leaves(before | refused("moved"))


def test_a_place_that_damage_left_is_cleared_too(shard: Shard) -> None:
    shard.put(ended("c") | {"dead": {"a": NOW}, f"wheel:{TOMORROW}": {"a": NOW + 1}})
    assert put(shard, new("a"))
    left = shard.keyspace()
    assert "done" not in left
    assert "dead" not in left


# What becomes of dedup keys. A key that the ended job still has, since its window lasts, passes on to the new job.


def test_the_window_of_the_ended_job_does_not_refuse_the_new_one(shard: Shard) -> None:
    shard.put(ended("x", record("x", digest=DIGEST)) | {"dedup": {DIGEST: "a"}, "dedup:expiry": {DIGEST: NOW + 500}})
    answers = put(shard, new("a", replace=True, digest=DIGEST, window_ms=900), new("b", digest=DIGEST))
    assert answers is not None
    assert [(a.job_id, a.existed, a.replaced, a.state) for a in answers] == [
        ("a", False, True, JobState.SCHEDULED),
        ("a", True, False, JobState.SCHEDULED),
    ]
    shard.leaves(
        {
            "jobs": {"a": fresh(digest=DIGEST)},
            **today(a=NOW),
            "dedup": {DIGEST: "a"},
            "dedup:expiry": {DIGEST: NOW + 900},
            "meta": meta(**KNOWN),
            "replay:caller:0": f"request-1 {NOW_US} rk 2 a s {NOW:015d}",
        }
    )


def test_its_window_goes_on_for_others_where_the_new_job_has_another_key(shard: Shard) -> None:
    shard.put(
        ended("d", record("d", digest=DIGEST, body=b"")) | {"dedup": {DIGEST: "a"}, "dedup:expiry": {DIGEST: NOW + 500}}
    )
    answers = put(shard, new("a", replace=True, digest=DIGEST2), new("b", digest=DIGEST))
    assert answers is not None
    assert [(a.job_id, a.existed) for a in answers] == [("a", False), ("a", True)]
    left = shard.keyspace()
    assert (left["dedup"], left["dedup:expiry"]) == ({DIGEST: "a", DIGEST2: "a"}, {DIGEST: NOW + 500})


@pytest.mark.parametrize(("state", "replace"), [("c", False), ("x", True)])
def test_a_key_that_another_job_holds_refuses_as_ever_and_the_ended_job_stays(
    shard: Shard, state: str, replace: bool
) -> None:
    before = ended(state)
    before["jobs"]["h"] = record(digest=DIGEST)
    before |= {"dedup": {DIGEST: "h"}}
    shard.put(before)
    assert send(shard, new("a", replace=replace, digest=DIGEST))[2:] == [b"k", b"1 h s %015d" % NOW]
    shard.leaves(before | {"meta": meta(**KNOWN), "replay:caller:0": f"request-1 {NOW_US} k 1 h s {NOW:015d}"})
