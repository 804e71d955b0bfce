from __future__ import annotations

import pytest

from zwheel.calls import purge, read_count, read_purge

from .shard import (
    DIGEST,
    DIGEST2,
    KEYS,
    MIDNIGHT,
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
)


def test_a_bucket_is_deleted_in_parts_and_leaves_the_index_when_it_is_empty(shard: Shard) -> None:
    shard.put(
        {
            "jobs": {"a": record(), "b": record(), "c": record(), "t": record(fire=MIDNIGHT)},
            f"wheel:{TODAY}": {"a": NOW, "b": NOW + 1, "c": NOW + 2},
            f"wheel:{TOMORROW}": {"t": MIDNIGHT},
            "days": {TODAY: int(TODAY), TOMORROW: int(TOMORROW)},
        }
    )
    call = purge(KEYS, KEYS.wheel(TODAY), day=TODAY, limit=2, now=at(NOW))
    assert shard.run(call) == [b"ok", at(NOW).encode(), 2, 0]
    rest: Keyspace = {
        "jobs": {"c": record(), "t": record(fire=MIDNIGHT)},
        f"wheel:{TODAY}": {"c": NOW + 2},
        f"wheel:{TOMORROW}": {"t": MIDNIGHT},
        "days": {TODAY: int(TODAY), TOMORROW: int(TOMORROW)},
        "meta": meta(),
    }
    shard.leaves(rest)
    assert read_count(shard.run(call)) == 1
    empty = {
        "jobs": {"t": record(fire=MIDNIGHT)},
        f"wheel:{TOMORROW}": {"t": MIDNIGHT},
        "days": {TOMORROW: int(TOMORROW)},
    }
    shard.leaves(empty | {"meta": meta(NOW_US + 1)})
    assert read_count(shard.run(call)) == 0
    shard.leaves(empty | {"meta": meta(NOW_US + 2)})


def test_only_members_up_to_a_score_are_deleted(shard: Shard) -> None:
    shard.put({"jobs": {"a": record("x"), "b": record("x")}, "dead": {"a": NOW - 1, "b": NOW}})
    assert read_count(shard.run(purge(KEYS, KEYS.dead, highest=NOW - 1, now=at(NOW)))) == 1
    shard.leaves({"jobs": {"b": record("x")}, "dead": {"b": NOW}, "meta": meta()})


def test_only_the_given_ids_that_are_in_the_set_are_deleted_and_each_counts_once(shard: Shard) -> None:
    jobs = {"a": record("x"), "b": record("x"), "waits": record()}
    wheel = {f"wheel:{TODAY}": {"waits": NOW}, "days": {TODAY: int(TODAY)}}
    shard.put({"jobs": jobs, "dead": {"a": NOW, "b": NOW}, **wheel})
    assert read_count(shard.run(purge(KEYS, KEYS.dead, ids=["a", "waits", "never", "a"], now=at(NOW)))) == 1
    shard.leaves({"jobs": {"b": record("x"), "waits": record()}, "dead": {"b": NOW}, **wheel, "meta": meta()})


def test_dedup_keys_of_deleted_jobs_are_given_back_even_within_their_window(shard: Shard) -> None:
    shard.put(
        {
            "jobs": {"a": record("d", digest=DIGEST, body=b""), "b": record("d", digest=DIGEST2, body=b"")},
            "done": {"a": NOW + 5, "b": NOW + 5},
            "dedup": {DIGEST: "a", DIGEST2: "another"},
            "dedup:expiry": {DIGEST: NOW + 9, DIGEST2: NOW + 9},
        }
    )
    assert read_count(shard.run(purge(KEYS, KEYS.done, now=at(NOW)))) == 2
    shard.leaves({"dedup": {DIGEST2: "another"}, "dedup:expiry": {DIGEST2: NOW + 9}, "meta": meta()})


def test_unreadable_records_and_members_without_a_record_go_too(shard: Shard) -> None:
    shard.put(
        {
            "jobs": {"newer": record(version="3", digest=DIGEST), "flagged": record_of_1("x", flags="0f")},
            "dead": {"newer": NOW, "flagged": NOW, "orphan": NOW},
            "dedup": {DIGEST: "newer"},
        }
    )
    assert read_count(shard.run(purge(KEYS, KEYS.dead, now=at(NOW)))) == 3
    shard.leaves({"dedup": {DIGEST: "newer"}, "meta": meta()})


@pytest.mark.parametrize("place", ["dead", "done", f"wheel:{TODAY}"])
@pytest.mark.parametrize("by_id", [False, True])
def test_a_job_that_stands_there_by_damage_keeps_its_record_and_hides_none(
    shard: Shard, place: str, by_id: bool
) -> None:
    jobs = {"d": record("d", body=b""), "c": record("c", body=b""), "x": record("x"), "s": record(), "p": held(NOW_US)}
    belong = {"dead": "x", "done": "dc", f"wheel:{TODAY}": "s"}[place]
    day = TODAY if "wheel" in place else ""
    shard.put({"jobs": jobs, place: dict.fromkeys(jobs, NOW)} | ({"days": {TODAY: int(TODAY)}} if day else {}))
    zset, ids = f"{KEYS.tag}:{place}", list(jobs) if by_id else []
    gone = past = 0
    for _ in range(6):
        call = purge(KEYS, zset, day=day, limit=2, past=past, ids=ids, now=at(NOW))
        purged = read_purge(shard.run(call))
        gone, past = gone + purged.gone, past + purged.left
    assert (gone, past) == (len(belong), len(jobs) - len(belong))
    left = shard.keyspace()
    assert left["jobs"] == {name: raw for name, raw in jobs.items() if name not in belong}
    assert left[place] == dict.fromkeys(left["jobs"], NOW)


@pytest.mark.parametrize("by_id", [False, True])
def test_large_records_are_purged_a_few_at_a_time(shard: Shard, by_id: bool) -> None:
    names = [f"j{n}" for n in range(9)]
    large = record("x", body=b"x" * 700_000)
    shard.put({"jobs": dict.fromkeys(names, large), "dead": dict.fromkeys(names, NOW)})
    call = purge(KEYS, KEYS.dead, ids=names if by_id else (), now=at(NOW))
    assert [read_purge(shard.run(call)) for _ in range(4)] == [(2, 0), (2, 0), (2, 0), (2, 0)]
    assert read_purge(shard.run(call)) == (1, 0)
