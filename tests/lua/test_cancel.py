from __future__ import annotations

from zwheel.calls import cancel, read_letters
from zwheel.calls.cancel import LEAST_KEPT_MS

from .shard import (
    DIGEST,
    DIGEST2,
    KEYS,
    LANE,
    MIDNIGHT,
    NOW,
    START,
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


def run(shard: Shard, *ids: str, day: str = TODAY) -> str | None:
    reply = shard.run(cancel(KEYS, ids, day=day, lane=LANE, now=at(NOW)))
    assert reply[1] == at(NOW).encode()
    return read_letters(reply)


def test_a_cancelled_job_leaves_the_wheel_and_a_tombstone(shard: Shard) -> None:
    shard.put(
        {
            "jobs": {"a": record(fire=NOW + 5), "long": record(keep=LEAST_KEPT_MS + 1), "b": record(keep=3)},
            f"wheel:{TODAY}": {"a": NOW + 5, "long": NOW, "b": NOW},
            "days": {TODAY: int(TODAY)},
        }
    )
    assert run(shard, "a", "long") == "cc"
    shard.leaves(
        {
            "jobs": {
                "a": record("c", fire=NOW + 5, body=b""),
                "long": record("c", keep=LEAST_KEPT_MS + 1, body=b""),
                "b": record(keep=3),
            },
            "done": {"a": NOW + LEAST_KEPT_MS, "long": NOW + LEAST_KEPT_MS + 1},
            f"wheel:{TODAY}": {"b": NOW},
            "days": {TODAY: int(TODAY)},
            "meta": meta(),
            "replay:caller:0": "request-1 cc",
        }
    )


def test_an_emptied_day_leaves_the_index_and_the_other_days_stay(shard: Shard) -> None:
    shard.put(
        {
            "jobs": {"a": record(), "b": record(fire=MIDNIGHT)},
            f"wheel:{TODAY}": {"a": NOW},
            f"wheel:{TOMORROW}": {"b": MIDNIGHT},
            "days": {TODAY: int(TODAY), TOMORROW: int(TOMORROW)},
        }
    )
    assert run(shard, "a") == "c"
    shard.leaves(
        {
            "jobs": {"a": record("c", body=b""), "b": record(fire=MIDNIGHT)},
            "done": {"a": NOW + LEAST_KEPT_MS},
            f"wheel:{TOMORROW}": {"b": MIDNIGHT},
            "days": {TOMORROW: int(TOMORROW)},
            "meta": meta(),
            "replay:caller:0": "request-1 c",
        }
    )


def test_what_cannot_be_cancelled_is_named_and_stays(shard: Shard) -> None:
    before: Keyspace = {
        "jobs": {
            "runs": held(1),
            "done": record("d", keep=9, body=b""),
            "dead": record("x"),
            "gone": record("c", body=b""),
            "tomorrow": record(fire=MIDNIGHT),
            "yesterday": record(fire=START - 1),
            "newer": record(version="3"),
            "flagged": record_of_1(flags="08"),
            "high": record_of_1(flags="10"),
            "limited": record(more="Lx"),
        },
        "processing": {"runs": NOW + 1},
        "done": {"done": NOW + 9, "gone": NOW + 9},
        "dead": {"dead": NOW},
        f"wheel:{TODAY}": {"newer": NOW, "flagged": NOW, "high": NOW},
        f"wheel:{TOMORROW}": {"tomorrow": MIDNIGHT},
        "wheel:20300316": {"yesterday": START - 1},
        "days": {"20300316": 20300316, TODAY: int(TODAY), TOMORROW: int(TOMORROW)},
    }
    shard.put(before)
    ids = ("runs", "done", "dead", "gone", "never", "tomorrow", "yesterday", "newer", "flagged", "high", "limited")
    assert run(shard, *ids) == "qeeamvvuuuu"
    # What runs is asked for: see `test_cancel_running.py`.
    after = before | {"jobs": before["jobs"] | {"runs": held(1, asked=NOW)}, "asked": {f"runs {1:016d}": NOW}}
    shard.leaves(after | {"meta": meta(), "replay:caller:0": "request-1 qeeamvvuuuu"})


def test_the_dedup_key_is_given_back_even_within_its_window(shard: Shard) -> None:
    shard.put(
        {
            "jobs": {"a": record(digest=DIGEST), "b": record(digest=DIGEST2)},
            f"wheel:{TODAY}": {"a": NOW, "b": NOW},
            "days": {TODAY: int(TODAY)},
            "dedup": {DIGEST: "a", DIGEST2: "another"},
            "dedup:expiry": {DIGEST: NOW + 9_999, DIGEST2: NOW + 9},
        }
    )
    assert run(shard, "a", "b") == "cc"
    shard.leaves(
        {
            "jobs": {"a": record("c", digest=DIGEST, body=b""), "b": record("c", digest=DIGEST2, body=b"")},
            "done": {"a": NOW + LEAST_KEPT_MS, "b": NOW + LEAST_KEPT_MS},
            "dedup": {DIGEST2: "another"},
            "dedup:expiry": {DIGEST2: NOW + 9},
            "meta": meta(),
            "replay:caller:0": "request-1 cc",
        }
    )
