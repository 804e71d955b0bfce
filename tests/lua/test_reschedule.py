from __future__ import annotations

from typing import Any

import pytest

from zwheel.calls import Reply, read_reschedule, reschedule

from .shard import (
    DIGEST,
    EVENING,
    KEYS,
    LANE,
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


def send(
    shard: Shard, at_ms: int | None, *, day: str = TODAY, delay_ms: int = 0, now: str = at(NOW), estimate: int = NOW,
    job_id: str = "a",
) -> Reply:  # fmt: skip
    call = reschedule(KEYS, job_id, day=day, at_ms=at_ms, delay_ms=delay_ms, now_ms=estimate, lane=LANE, now=now)
    return shard.run(call)


def one(**fields: Any) -> Keyspace:
    fire = fields.get("fire", NOW)
    return {
        "jobs": {"a": record(digest=DIGEST, **fields)},
        f"wheel:{TODAY}": {"a": fire},
        "days": {TODAY: int(TODAY)},
        "dedup": {DIGEST: "a"},
    }


def test_a_job_moves_to_another_day_and_its_old_one_leaves_the_index(shard: Shard) -> None:
    shard.put(one())
    reply = send(shard, MIDNIGHT + 5)
    assert reply == [b"ok", at(NOW).encode(), b"s", str(MIDNIGHT + 5).encode()]
    shard.leaves(
        {
            "jobs": {"a": record(digest=DIGEST, fire=MIDNIGHT + 5)},
            f"wheel:{TOMORROW}": {"a": MIDNIGHT + 5},
            "days": {TOMORROW: int(TOMORROW)},
            "dedup": {DIGEST: "a"},
            "wake": ["1"],
            "meta": meta(),
            "replay:caller:0": f"request-1 s {MIDNIGHT + 5}",
        }
    )


def test_a_job_moves_within_its_day_and_its_neighbours_stay(shard: Shard) -> None:
    before = one()
    before["jobs"]["b"] = record()
    before[f"wheel:{TODAY}"]["b"] = NOW
    shard.put(before)
    assert read_reschedule(send(shard, None, delay_ms=250, now=at(NOW, 1))) == "s"
    shard.leaves(
        {
            "jobs": {"a": record(digest=DIGEST, fire=NOW + 251), "b": record()},
            f"wheel:{TODAY}": {"a": NOW + 251, "b": NOW},
            "days": {TODAY: int(TODAY)},
            "dedup": {DIGEST: "a"},
            "wake": ["1"],
            "meta": meta(NOW_US + 1),
            "replay:caller:0": f"request-1 s {NOW + 251}",
        }
    )


@pytest.mark.parametrize(
    ("raw", "letter"),
    [
        (held(5), "r"),
        (record("d", body=b""), "e"),
        (record("x"), "e"),
        (record("c", body=b""), "e"),
        (None, "m"),
        (record(fire=MIDNIGHT), "v"),
        (record(version="3"), "u"),
        (record_of_1(flags="08"), "u"),
        (record(more="Lx"), "u"),
    ],
    ids=[
        "running",
        "done",
        "dead",
        "cancelled",
        "missing",
        "in another bucket",
        "another version",
        "unknown flags",
        "a field to understand",
    ],
)
def test_what_cannot_be_moved_is_named_and_stays(shard: Shard, raw: bytes | None, letter: str) -> None:
    before = {"jobs": {"other": record(), **({"a": raw} if raw else {})}, f"wheel:{TODAY}": {"other": NOW}}
    shard.put(before)
    reply = send(shard, NOW + 9)
    assert reply == [b"ok", at(NOW).encode(), letter.encode(), b""]
    shard.leaves(before | {"replay:caller:0": f"request-1 {letter} "})


def test_a_delay_that_falls_into_another_day_than_the_named_one_changes_nothing(shard: Shard) -> None:
    shard.put(one())
    assert read_reschedule(send(shard, None, now=at(MIDNIGHT - 1, 1), estimate=EVENING)) is None
    shard.leaves(one() | refused("moved"))


@pytest.mark.parametrize(("keeper_at", "tokens"), [(NOW + 50, []), (NOW + 51, ["1"])])
def test_a_token_is_pushed_when_the_timekeeper_would_sleep_past_the_new_time(
    shard: Shard, keeper_at: int, tokens: list[str]
) -> None:
    roles: dict[str, Any] = {"keeper": OTHER_WORKER, "keeper_at": keeper_at, "keeper_end": NOW + 3_000}
    shard.put(one() | {"meta": meta(NOW_US - 1, **roles)})
    assert read_reschedule(send(shard, NOW + 50)) == "s"
    assert shard.keyspace().get("wake", []) == tokens
    assert shard.keyspace()["meta"] == meta(**roles)
