from __future__ import annotations

import pytest

from tests.endings import bury
from zwheel.calls import read_letters

from .shard import (
    DIGEST,
    DIGEST2,
    KEYS,
    LANE,
    LANE2,
    NOW,
    NOW_US,
    OTHER_WORKER,
    WORKER,
    Shard,
    at,
    digits16,
    held,
    meta,
    record,
)

TOKEN = NOW_US - 1_000_000
WHY = b'{"at":1900000000000,"attempt":1,"reason":"error"}\n'


def end(*ids: str, token: int = TOKEN, failures: bytes = WHY) -> list[tuple[str, bytes, bytes]]:
    return [(job_id, digits16(token), failures) for job_id in ids]


def test_a_buried_job_is_dead_with_its_body_and_its_failures(shard: Shard) -> None:
    old = b'{"at":1,"attempt":1,"reason":"timeout"}\n'
    shard.put(
        {
            "jobs": {"a": held(TOKEN), "b": held(TOKEN, keep=9, failures=old)},
            "processing": {"a": NOW + 30_000, "b": NOW - 1},
        }
    )
    reply = shard.run(bury(KEYS, end("a", "b"), most_dead=100, lane=LANE, now=at(NOW)))
    assert reply == [b"ok", at(NOW).encode(), b"xx"]
    shard.leaves(
        {
            "jobs": {
                "a": record("x", attempt=1, token=TOKEN, worker=WORKER, failures=WHY),
                "b": record("x", attempt=1, token=TOKEN, worker=WORKER, keep=9, failures=WHY),
            },
            "dead": {"a": NOW, "b": NOW},
            "meta": meta(beat=True),
            "replay:caller:0": f"request-1 {NOW_US} xx",
        }
    )


def test_a_stale_token_and_a_missing_job_are_named_and_change_nothing(shard: Shard) -> None:
    before = {
        "jobs": {"later": held(TOKEN + 1, worker=OTHER_WORKER), "dead": record("x", token=TOKEN)},
        "processing": {"later": NOW + 30_000},
        "dead": {"dead": NOW - 5},
    }
    shard.put(before)
    reply = shard.run(bury(KEYS, end("later", "dead", "never"), most_dead=100, lane=LANE, now=at(NOW)))
    assert read_letters(reply) == "ffm"
    shard.leaves(before | {"meta": meta(beat=True), "replay:caller:0": f"request-1 {NOW_US} ffm"})


def test_the_oldest_dead_jobs_go_when_there_are_more_than_are_kept(shard: Shard) -> None:
    shard.put(
        {
            "jobs": {"a": held(TOKEN), **{f"old{i}": record("x") for i in range(4)}},
            "processing": {"a": NOW + 1},
            "dead": {f"old{i}": NOW - 100 + i for i in range(4)},
            "meta": {"trimmed": "5"},
        }
    )
    assert read_letters(shard.run(bury(KEYS, end("a"), most_dead=2, lane=LANE, now=at(NOW)))) == "x"
    shard.leaves(
        {
            "jobs": {"a": record("x", attempt=1, token=TOKEN, worker=WORKER, failures=WHY), "old3": record("x")},
            "dead": {"old3": NOW - 97, "a": NOW},
            "meta": meta(beat=True, trimmed=8),
            "replay:caller:0": f"request-1 {NOW_US} x",
        }
    )


def test_at_most_a_hundred_dead_jobs_go_at_a_time(shard: Shard) -> None:
    shard.put(
        {
            "jobs": {"a": held(TOKEN), **{f"old{i:03d}": record("x") for i in range(150)}},
            "processing": {"a": NOW + 1},
            "dead": {f"old{i:03d}": NOW - 1000 + i for i in range(150)},
        }
    )
    assert read_letters(shard.run(bury(KEYS, end("a"), most_dead=10, lane=LANE, now=at(NOW)))) == "x"
    after = shard.keyspace()
    assert list(after["dead"]) == [f"old{i:03d}" for i in range(100, 150)] + ["a"]
    assert set(after["jobs"]) == set(after["dead"])
    assert after["meta"]["trimmed"] == "100"


@pytest.mark.parametrize("lives", [record(), held(TOKEN), record("d", body=b"")])
def test_a_job_that_is_not_dead_is_not_trimmed_and_hides_none_behind_it(shard: Shard, lives: bytes) -> None:
    shard.put(
        {
            "jobs": {"a": held(TOKEN), "b": held(TOKEN), "lives": lives, "old": record("x")},
            "processing": {"a": NOW + 1, "b": NOW + 1},
            "dead": {"lives": 1, "old": 2},
        }
    )
    shard.run(bury(KEYS, end("a"), most_dead=2, lane=LANE, now=at(NOW)))
    assert list(shard.keyspace()["dead"]) == ["old", "a", "lives"]
    shard.run(bury(KEYS, end("b"), most_dead=2, lane=LANE2, now=at(NOW, 1)))
    after = shard.keyspace()
    assert sorted(after["dead"]) == ["b", "lives"]
    assert after["jobs"]["lives"] == lives


def test_large_dead_jobs_are_trimmed_a_few_at_a_time(shard: Shard) -> None:
    large = record("x", body=b"x" * 700_000)
    shard.put(
        {
            "jobs": {"a": held(TOKEN), **{f"old{i}": large for i in range(5)}},
            "processing": {"a": NOW + 1},
            "dead": {f"old{i}": i for i in range(5)},
        }
    )
    shard.run(bury(KEYS, end("a"), most_dead=1, lane=LANE, now=at(NOW)))
    assert list(shard.keyspace()["dead"]) == ["old2", "old3", "old4", "a"]


def test_the_dedup_key_is_given_back_unless_its_window_lasts(shard: Shard) -> None:
    shard.put(
        {
            "jobs": {"free": held(TOKEN, digest=DIGEST), "window": held(TOKEN, digest=DIGEST2)},
            "processing": {"free": NOW + 1, "window": NOW + 1},
            "dedup": {DIGEST: "free", DIGEST2: "window"},
            "dedup:expiry": {DIGEST2: NOW + 1},
        }
    )
    assert read_letters(shard.run(bury(KEYS, end("free", "window"), most_dead=9, lane=LANE, now=at(NOW)))) == "xx"
    shard.leaves(
        {
            "jobs": {
                "free": record("x", attempt=1, token=TOKEN, worker=WORKER, failures=WHY, digest=DIGEST),
                "window": record("x", attempt=1, token=TOKEN, worker=WORKER, failures=WHY, digest=DIGEST2),
            },
            "dead": {"free": NOW, "window": NOW},
            "dedup": {DIGEST2: "window"},
            "dedup:expiry": {DIGEST2: NOW + 1},
            "meta": meta(beat=True),
            "replay:caller:0": f"request-1 {NOW_US} xx",
        }
    )
