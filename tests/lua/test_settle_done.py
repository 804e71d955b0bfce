from __future__ import annotations

from tests.endings import complete
from zwheel.calls import read_letters

from .shard import (
    DIGEST,
    DIGEST2,
    KEYS,
    LANE,
    NOW,
    NOW_US,
    OTHER_WORKER,
    WORKER,
    Keyspace,
    Shard,
    at,
    digits16,
    held,
    meta,
    record,
)

TOKEN = NOW_US - 1_000_000


def end(*ids: str, token: int = TOKEN) -> list[tuple[str, bytes]]:
    return [(job_id, digits16(token)) for job_id in ids]


def test_a_completed_job_leaves_nothing_when_it_has_no_keep_time(shard: Shard) -> None:
    shard.put({"jobs": {"a": held(TOKEN), "b": held(TOKEN)}, "processing": {"a": NOW + 30_000, "b": NOW + 9}})
    reply = shard.run(complete(KEYS, end("a"), lane=LANE, now=at(NOW)))
    assert reply == [b"ok", at(NOW).encode(), b"d"]
    shard.leaves(
        {
            "jobs": {"b": held(TOKEN)},
            "processing": {"b": NOW + 9},
            "meta": meta(beat=True),
            "replay:caller:0": f"request-1 {NOW_US} d",
        }
    )


def test_a_completed_job_leaves_a_tombstone_without_its_body_for_its_keep_time(shard: Shard) -> None:
    failed = b'{"at":1,"attempt":1,"reason":"error"}\n'
    shard.put({"jobs": {"a": held(TOKEN, keep=60_000, failures=failed, attempt=2)}, "processing": {"a": NOW + 30_000}})
    reply = shard.run(complete(KEYS, end("a"), lane=LANE, now=at(NOW)))
    assert read_letters(reply) == "d"
    shard.leaves(
        {
            "jobs": {
                "a": record("d", attempt=2, token=TOKEN, worker=WORKER, keep=60_000, failures=failed, body=b""),
            },
            "done": {"a": NOW + 60_000},
            "meta": meta(beat=True),
            "replay:caller:0": f"request-1 {NOW_US} d",
        }
    )


def test_a_stale_token_a_job_that_is_not_held_and_a_missing_job_are_named_and_nothing_else_changes(
    shard: Shard,
) -> None:
    before: Keyspace = {
        "jobs": {
            "later": held(TOKEN + 1, worker=OTHER_WORKER),
            "waits": record("s", token=TOKEN),
            "done": record("d", token=TOKEN, keep=5, body=b""),
            "dead": record("x", token=TOKEN),
            "gone": record("c", token=TOKEN, body=b""),
            "mine": held(TOKEN),
        },
        "processing": {"later": NOW + 30_000, "mine": NOW - 1},
        "done": {"done": NOW + 1000, "gone": NOW + 1000},
        "dead": {"dead": NOW - 5},
        "wheel:20300317": {"waits": NOW},
        "days": {"20300317": 20300317},
    }
    shard.put(before)
    ids = ("later", "waits", "done", "dead", "gone", "never", "mine")
    reply = shard.run(complete(KEYS, end(*ids), lane=LANE, now=at(NOW)))
    assert read_letters(reply) == "fffffmd"
    left = {name: raw for name, raw in before["jobs"].items() if name != "mine"}
    shard.leaves(
        before
        | {
            "jobs": left,
            "processing": {"later": NOW + 30_000},
            "meta": meta(beat=True),
            "replay:caller:0": f"request-1 {NOW_US} fffffmd",
        }
    )


def test_a_job_whose_lease_ran_out_but_was_not_reaped_can_still_be_completed(shard: Shard) -> None:
    shard.put({"jobs": {"a": held(TOKEN)}, "processing": {"a": NOW - 60_000}})
    assert read_letters(shard.run(complete(KEYS, end("a"), lane=LANE, now=at(NOW)))) == "d"
    shard.leaves({"meta": meta(beat=True), "replay:caller:0": f"request-1 {NOW_US} d"})


def test_the_dedup_key_is_given_back_unless_its_window_lasts_or_another_job_holds_it(shard: Shard) -> None:
    third = "3" * 32
    shard.put(
        {
            "jobs": {
                "free": held(TOKEN, digest=DIGEST),
                "window": held(TOKEN, digest=DIGEST2),
                "lost": held(TOKEN, digest=third),
                "owner": record(digest=third),
            },
            "processing": {"free": NOW + 1, "window": NOW + 1, "lost": NOW + 1},
            "dedup": {DIGEST: "free", DIGEST2: "window", third: "owner"},
            "dedup:expiry": {DIGEST: NOW, DIGEST2: NOW + 1},
            "wheel:20300317": {"owner": NOW},
            "days": {"20300317": 20300317},
        }
    )
    assert read_letters(shard.run(complete(KEYS, end("free", "window", "lost"), lane=LANE, now=at(NOW)))) == "ddd"
    shard.leaves(
        {
            "jobs": {"owner": record(digest=third)},
            "dedup": {DIGEST2: "window", third: "owner"},
            "dedup:expiry": {DIGEST2: NOW + 1},
            "wheel:20300317": {"owner": NOW},
            "days": {"20300317": 20300317},
            "meta": meta(beat=True),
            "replay:caller:0": f"request-1 {NOW_US} ddd",
        }
    )


def test_a_job_named_twice_in_a_batch_ends_once(shard: Shard) -> None:
    shard.put({"jobs": {"a": held(TOKEN, keep=7)}, "processing": {"a": NOW + 1}})
    assert read_letters(shard.run(complete(KEYS, end("a", "a"), lane=LANE, now=at(NOW)))) == "dd"
    shard.leaves(
        {
            "jobs": {"a": record("d", attempt=1, token=TOKEN, worker=WORKER, keep=7, body=b"")},
            "done": {"a": NOW + 7},
            "meta": meta(beat=True),
            "replay:caller:0": f"request-1 {NOW_US} dd",
        }
    )
