from __future__ import annotations

from zwheel.calls import purge, read_count

from .shard import DIGEST, DIGEST2, KEYS, MIDNIGHT, NOW, NOW_US, TODAY, TOMORROW, Keyspace, Shard, at, meta, record


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
    assert shard.run(call) == [b"ok", at(NOW).encode(), 2]
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
            "jobs": {"newer": record(version="2", digest=DIGEST), "flagged": record("x", flags="0f")},
            "dead": {"newer": NOW, "flagged": NOW, "orphan": NOW},
            "dedup": {DIGEST: "newer"},
        }
    )
    assert read_count(shard.run(purge(KEYS, KEYS.dead, now=at(NOW)))) == 3
    shard.leaves({"dedup": {DIGEST: "newer"}, "meta": meta()})
