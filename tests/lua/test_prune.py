from __future__ import annotations

import pytest

from zwheel.calls import prune, read_count
from zwheel.times import DAY_MS

from .shard import DIGEST, KEYS, NOW, NOW_US, TODAY, Shard, at, held, meta, record

AGE = 1_000_000


def run(shard: Shard, limit: int = 1000) -> int:
    return read_count(shard.run(prune(KEYS, limit=limit, dead_age_ms=AGE, now=at(NOW))))


def test_what_is_past_its_retention_goes_and_the_rest_stays(shard: Shard) -> None:
    ended = record("d", body=b"")
    shard.put(
        {
            "jobs": {"d0": ended, "d1": ended, "c0": record("c", body=b""), "x0": record("x"), "x1": record("x")},
            "done": {"d0": NOW, "d1": NOW + 1, "c0": NOW - 9},
            "dead": {"x0": NOW - AGE, "x1": NOW - AGE + 1},
            "meta": {"trimmed": "2"},
        }
    )
    assert run(shard) == 2
    shard.leaves(
        {
            "jobs": {"d1": ended, "x1": record("x")},
            "done": {"d1": NOW + 1},
            "dead": {"x1": NOW - AGE + 1},
            "meta": meta(trimmed=3),
        }
    )


@pytest.mark.parametrize(("off_us", "gone"), [(0, 2), (60_000_000, 2), (60_000_001, 0), (-(10**15), 0)])
def test_nothing_is_pruned_while_the_clock_is_in_doubt(shard: Shard, off_us: int, gone: int) -> None:
    """A clock that jumped ahead by years would take every dead job and every tombstone along."""
    shard.put(
        {
            "jobs": {"d": record("d", body=b""), "c": record("c", body=b""), "x": record("x")},
            "done": {"d": NOW, "c": NOW},
            "dead": {"x": NOW - AGE},
        }
    )
    call = prune(KEYS, limit=9, dead_age_ms=AGE, expected_us=NOW_US - off_us, now=at(NOW))
    assert read_count(shard.run(call)) == gone
    assert ("jobs" in shard.keyspace()) == (not gone)


@pytest.mark.parametrize(
    ("holder", "stays"),
    [
        (record(digest=DIGEST), True),
        (held(5, digest=DIGEST), True),
        (record(version="3"), True),
        (record(), False),
        (record("d", digest=DIGEST, body=b""), False),
        (record("x", digest=DIGEST), False),
        (record("c", digest=DIGEST, body=b""), False),
        (None, False),
    ],
    ids=[
        "scheduled",
        "processing",
        "of another version",
        "enqueued again without the key",
        "done",
        "dead",
        "cancelled",
        "missing",
    ],
)
def test_a_window_that_ended_frees_its_key_unless_the_holder_lives(
    shard: Shard, holder: bytes | None, stays: bool
) -> None:
    third = "3" * 32
    jobs = {"jobs": {"h": holder} if holder else None}
    shard.put({**jobs, "dedup": {DIGEST: "h", third: "h"}, "dedup:expiry": {DIGEST: NOW, third: NOW + 1}})
    assert run(shard) == 1
    kept = {DIGEST: "h", third: "h"} if stays else {third: "h"}
    shard.leaves({**jobs, "dedup": kept, "dedup:expiry": {third: NOW + 1}, "meta": meta()})


def test_a_limit_bounds_each_kind_and_is_answered_when_there_may_be_more(shard: Shard) -> None:
    shard.put(
        {
            "jobs": {**{f"d{i}": record("d", body=b"") for i in range(5)}, "x": record("x"), "w": record()},
            "done": {f"d{i}": NOW - 9 + i for i in range(5)},
            "dead": {"x": 5},
            "dedup": {DIGEST: "gone"},
            "dedup:expiry": {DIGEST: 5},
            f"wheel:{TODAY}": {"w": NOW},
            "days": {TODAY: int(TODAY)},
        }
    )
    wheel = {f"wheel:{TODAY}": {"w": NOW}, "days": {TODAY: int(TODAY)}}
    assert run(shard, limit=3) == 3
    shard.leaves(
        {
            "jobs": {"d3": record("d", body=b""), "d4": record("d", body=b""), "w": record()},
            "done": {"d3": NOW - 6, "d4": NOW - 5},
            **wheel,
            "meta": meta(trimmed=1),
        }
    )
    assert [run(shard, limit=3), run(shard, limit=3)] == [2, 0]
    shard.leaves({"jobs": {"w": record()}, **wheel, "meta": meta(NOW_US + 2, trimmed=1)})


def test_an_empty_shard_stays_empty_but_for_the_clock(shard: Shard) -> None:
    assert run(shard) == 0
    shard.leaves({"meta": meta()})


@pytest.mark.parametrize("lives", [record(), held(NOW_US), record("d", body=b""), record("c", body=b"")])
def test_a_job_that_is_not_dead_outlives_its_place_among_the_dead(shard: Shard, lives: bytes) -> None:
    """After damage it stands there too; it must not lose its record, and must hide none behind it."""
    shard.put(
        {
            "jobs": {"a": lives, "b": record("x"), "newer": record("p", version="3")},
            "processing": {"a": NOW + 5},
            "dead": {"a": 1, "b": 2, "newer": 3, "gone": 4},
        }
    )
    assert run(shard, limit=1) == 0
    assert run(shard) == 3
    assert run(shard) == 0
    shard.leaves(
        {"jobs": {"a": lives}, "processing": {"a": NOW + 5}, "dead": {"a": NOW}, "meta": meta(NOW_US + 2, trimmed=3)}
    )


@pytest.mark.parametrize("lives", [record(), held(NOW_US), record("x")])
def test_a_job_that_has_not_ended_outlives_its_place_among_the_ended(shard: Shard, lives: bytes) -> None:
    shard.put(
        {
            "jobs": {"a": lives, "d": record("d", body=b""), "c": record("c", body=b"")},
            "processing": {"a": NOW + 5},
            "done": {"a": 1, "d": 2, "c": 3, "gone": 4},
        }
    )
    assert run(shard, limit=1) == 0
    assert run(shard) == 3
    assert run(shard) == 0
    shard.leaves(
        {"jobs": {"a": lives}, "processing": {"a": NOW + 5}, "done": {"a": NOW + DAY_MS}, "meta": meta(NOW_US + 2)}
    )


def test_large_records_are_pruned_a_few_at_a_time(shard: Shard) -> None:
    names = [f"j{n}" for n in range(5)]
    large = record("x", body=b"x" * 700_000)
    digests = {f"{n:032x}": name for n, name in enumerate(names)}
    shard.put(
        {
            "jobs": dict.fromkeys(names, large),
            "dead": dict.fromkeys(names, 5),
            "dedup": digests,
            "dedup:expiry": dict.fromkeys(digests, 5),
        }
    )
    assert [run(shard) for _ in range(4)] == [2, 2, 1, 0]
    shard.leaves({"meta": meta(NOW_US + 3, trimmed=5)})
