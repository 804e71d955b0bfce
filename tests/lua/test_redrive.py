from __future__ import annotations

from typing import Any

import pytest

from zwheel.calls import Lane, read_letters, redrive

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
    WORKER,
    Keyspace,
    Shard,
    at,
    held,
    meta,
    record,
    record_of_1,
    refused,
)

WHY = b'{"at":1,"attempt":3,"reason":"error"}\n'


def run(shard: Shard, *ids: str, now: str = at(NOW), estimate: int = NOW, lane: Lane = LANE) -> str | None:
    reply = shard.run(redrive(KEYS, ids, now_ms=estimate, lane=lane, now=now))
    assert reply[1] == now.encode()
    return read_letters(reply)


def test_a_dead_job_is_due_at_once_with_all_its_attempts_before_it_and_its_history(shard: Shard) -> None:
    dead = record("x", attempt=3, fire=5, worker=WORKER, keep=9, failures=WHY)
    shard.put({"jobs": {"a": dead, "b": dead}, "dead": {"a": NOW - 7, "b": NOW - 6}})
    assert run(shard, "a", now=at(NOW, 1)) == "r"
    shard.leaves(
        {
            "jobs": {"a": record(fire=NOW + 1, worker=WORKER, keep=9, failures=WHY), "b": dead},
            "dead": {"b": NOW - 6},
            f"wheel:{TODAY}": {"a": NOW + 1},
            "days": {TODAY: int(TODAY)},
            "wake": ["1"],
            "meta": meta(NOW_US + 1),
            "replay:caller:0": "request-1 r",
        }
    )


def test_what_is_not_dead_or_not_readable_is_named_and_stays(shard: Shard) -> None:
    before: Keyspace = {
        "jobs": {
            "waits": record(),
            "runs": held(5),
            "done": record("d", body=b""),
            "newer": record(version="3"),
            "flagged": record_of_1("x", flags="08"),
        },
        "processing": {"runs": NOW + 1},
        "done": {"done": NOW + 1},
        "dead": {"newer": NOW, "flagged": NOW, "orphan": NOW},
        f"wheel:{TODAY}": {"waits": NOW},
        "days": {TODAY: int(TODAY)},
    }
    shard.put(before)
    assert run(shard, "waits", "runs", "done", "never", "orphan", "newer", "flagged") == "nnnnnuu"
    shard.leaves(before | {"meta": meta(), "replay:caller:0": "request-1 nnnnnuu"})


def test_a_job_set_aside_by_an_older_version_runs_once_a_version_knows_it(shard: Shard) -> None:
    shard.put({"jobs": {"a": record("s", attempt=1)}, "dead": {"a": NOW - 7}})
    assert run(shard, "a") == "r"
    after = shard.keyspace()
    assert after["jobs"] == {"a": record("s")}
    assert after[f"wheel:{TODAY}"] == {"a": NOW}
    assert "dead" not in after


def test_a_dedup_key_is_taken_back_unless_another_job_holds_it(shard: Shard) -> None:
    mine, third = "1" * 32, "3" * 32
    before: Keyspace = {
        "jobs": {
            "free": record("x", digest=DIGEST),
            "blocked": record("x", digest=DIGEST2),
            "other": record(digest=DIGEST2),
            "mine": record("x", digest=mine),
            "first": record("x", digest=third),
            "second": record("x", digest=third),
        },
        "dead": dict.fromkeys(("blocked", "first", "free", "mine", "second"), NOW - 1),
        f"wheel:{TODAY}": {"other": NOW},
        "days": {TODAY: int(TODAY)},
        "dedup": {DIGEST2: "other", mine: "mine"},
        "dedup:expiry": {mine: NOW + 9},
    }
    shard.put(before)
    assert run(shard, "free", "blocked", "mine", "first", "second", "free") == "rkrrkn"
    shard.leaves(
        {
            "jobs": {
                "free": record(digest=DIGEST),
                "blocked": record("x", digest=DIGEST2),
                "other": record(digest=DIGEST2),
                "mine": record(digest=mine),
                "first": record(digest=third),
                "second": record("x", digest=third),
            },
            "dead": {"blocked": NOW - 1, "second": NOW - 1},
            f"wheel:{TODAY}": dict.fromkeys(("first", "free", "mine", "other"), NOW),
            "days": {TODAY: int(TODAY)},
            "dedup": {DIGEST: "free", DIGEST2: "other", mine: "mine", third: "first"},
            "dedup:expiry": {mine: NOW + 9},
            "wake": ["1"],
            "meta": meta(),
            "replay:caller:0": "request-1 rkrrkn",
        }
    )


def test_a_new_day_changes_nothing_and_asks_for_another_call(shard: Shard) -> None:
    before = {"jobs": {"a": record("x")}, "dead": {"a": NOW}}
    shard.put(before)
    assert run(shard, "a", now=at(MIDNIGHT - 1, 1), estimate=EVENING) is None
    shard.leaves(before | refused("moved"))
    assert run(shard, "a", now=at(MIDNIGHT - 1, 1), estimate=MIDNIGHT - 1, lane=LANE2) == "r"
    assert shard.keyspace()[f"wheel:{TOMORROW}"] == {"a": MIDNIGHT}


@pytest.mark.parametrize(("keeper_at", "tokens"), [(NOW, []), (NOW + 1, ["1"])])
def test_a_token_is_pushed_when_the_timekeeper_sleeps_on(shard: Shard, keeper_at: int, tokens: list[str]) -> None:
    roles: dict[str, Any] = {"keeper": OTHER_WORKER, "keeper_at": keeper_at, "keeper_end": NOW + 3_000}
    shard.put({"jobs": {"a": record("x")}, "dead": {"a": NOW}, "meta": meta(NOW_US - 1, **roles)})
    assert run(shard, "a") == "r"
    assert shard.keyspace().get("wake", []) == tokens


def test_what_is_more_than_one_call_may_read_is_left_for_another(shard: Shard) -> None:
    large = record("x", body=b"\x01\x00" + b"x" * 250_000)
    names = [f"j{n:02d}" for n in range(10)]
    shard.put({"jobs": dict.fromkeys(names, large), "dead": dict.fromkeys(names, NOW)})
    assert run(shard, *names) == "rrrrrrrrll"
    assert sorted(shard.keyspace()["dead"]) == names[8:]
    assert run(shard, *names[8:], lane=LANE2) == "rr"
    assert "dead" not in shard.keyspace()
