from __future__ import annotations

from typing import Any

import pytest

from tests.endings import Back, release, retry
from zwheel.calls import Lane, read_letters

from .shard import (
    DIGEST,
    EVENING,
    KEYS,
    LANE,
    LANE2,
    LATER,
    MIDNIGHT,
    NOW,
    NOW_US,
    OTHER_WORKER,
    TODAY,
    TOMORROW,
    WORKER,
    Shard,
    at,
    digits16,
    held,
    meta,
    record,
    refused,
)

TOKEN = NOW_US - 1_000_000
WHY = b'{"at":1900000000000,"attempt":1,"reason":"error"}\n'
LETTER = {"retry": "r", "release": "b"}
both = pytest.mark.parametrize(("name", "attempt"), [("retry", 2), ("release", 1)])


def back(
    job_id: str, at_ms: int | None = None, delay_ms: int = 0, *, token: int = TOKEN, failures: bytes = b""
) -> Back:
    return Back(job_id, digits16(token), at_ms, delay_ms, failures)


def run(
    shard: Shard, name: str, batch: list[Back], *, now: str = at(NOW), estimate: int = NOW, lane: Lane = LANE
) -> str | None:
    build = {"retry": retry, "release": release}[name]
    sent = build(KEYS, batch, now_ms=estimate, lane=lane, now=now)
    reply = shard.run(sent)
    assert reply[1] == now.encode()
    return read_letters(reply)


@both
def test_the_job_goes_back_to_the_day_of_its_new_time_and_only_a_retry_counts(
    shard: Shard, name: str, attempt: int
) -> None:
    shard.put({"jobs": {"a": held(TOKEN, attempt=2, digest=DIGEST, keep=7)}, "processing": {"a": NOW + 30_000}})
    assert run(shard, name, [back("a", delay_ms=5_000, failures=WHY)]) == LETTER[name]
    shard.leaves(
        {
            "jobs": {
                "a": record(
                    attempt=attempt, fire=NOW + 5_000, token=TOKEN, worker=WORKER, digest=DIGEST, keep=7, failures=WHY
                ),
            },
            f"wheel:{TODAY}": {"a": NOW + 5_000},
            "days": {TODAY: int(TODAY)},
            "wake": ["1"],
            "meta": meta(beat=True),
            "replay:caller:0": f"request-1 {NOW_US} {LETTER[name]}",
        }
    )


@both
def test_failures_stay_as_they_are_when_none_are_given_and_are_replaced_when_some_are(
    shard: Shard, name: str, attempt: int
) -> None:
    old = b'{"at":1,"attempt":1,"reason":"timeout"}\n'
    shard.put(
        {
            "jobs": {"a": held(TOKEN, attempt=2, failures=old), "b": held(TOKEN, attempt=2, failures=old)},
            "processing": {"a": NOW + 1, "b": NOW + 1},
        }
    )
    assert run(shard, name, [back("a", NOW), back("b", NOW, failures=old + WHY)]) == LETTER[name] * 2
    shard.leaves(
        {
            "jobs": {
                "a": record(attempt=attempt, token=TOKEN, worker=WORKER, failures=old),
                "b": record(attempt=attempt, token=TOKEN, worker=WORKER, failures=old + WHY),
            },
            f"wheel:{TODAY}": {"a": NOW, "b": NOW},
            "days": {TODAY: int(TODAY)},
            "wake": ["1"],
            "meta": meta(beat=True),
            "replay:caller:0": f"request-1 {NOW_US} " + 2 * LETTER[name],
        }
    )


@both
def test_a_batch_spreads_over_days_and_answers_in_its_own_order(shard: Shard, name: str, attempt: int) -> None:
    ids = ["d3", "d1", "stale", "d2", "d1b", "never"]
    fires = {"d3": MIDNIGHT + 86_400_000, "d1": NOW, "stale": MIDNIGHT + 1, "d2": MIDNIGHT, "d1b": MIDNIGHT - 1}
    jobs = {job_id: held(TOKEN, attempt=2) for job_id in ids if job_id not in ("never", "stale")}
    stale = held(TOKEN + 1, worker=OTHER_WORKER)
    shard.put({"jobs": {**jobs, "stale": stale}, "processing": dict.fromkeys([*jobs, "stale"], NOW + 7)})
    batch = [back(job_id, fires.get(job_id, NOW)) for job_id in ids]
    letter = LETTER[name]
    assert run(shard, name, batch) == f"{letter}{letter}f{letter}{letter}m"
    shard.leaves(
        {
            "jobs": {
                "stale": stale,
                **{i: record(attempt=attempt, fire=fires[i], token=TOKEN, worker=WORKER) for i in jobs},
            },
            "processing": {"stale": NOW + 7},
            f"wheel:{TODAY}": {"d1": NOW, "d1b": MIDNIGHT - 1},
            f"wheel:{TOMORROW}": {"d2": MIDNIGHT},
            f"wheel:{LATER}": {"d3": MIDNIGHT + 86_400_000},
            "days": {TODAY: int(TODAY), TOMORROW: int(TOMORROW), LATER: int(LATER)},
            "wake": ["1"],
            "meta": meta(beat=True),
            "replay:caller:0": f"request-1 {NOW_US} {letter}{letter}f{letter}{letter}m",
        }
    )


@both
def test_nothing_goes_to_the_wheel_when_no_job_was_held(shard: Shard, name: str, attempt: int) -> None:
    before = {"jobs": {"a": held(TOKEN + 1)}, "processing": {"a": NOW + 1}}
    shard.put(before)
    assert run(shard, name, [back("a"), back("never")]) == "fm"
    shard.leaves(before | {"meta": meta(beat=True), "replay:caller:0": f"request-1 {NOW_US} fm"})


@both
def test_a_delay_that_falls_into_another_day_than_the_named_one_changes_nothing(
    shard: Shard, name: str, attempt: int
) -> None:
    before = {"jobs": {"a": held(TOKEN)}, "processing": {"a": MIDNIGHT + 1}}
    shard.put(before)
    assert run(shard, name, [back("a")], now=at(MIDNIGHT - 1, 1), estimate=EVENING) is None
    shard.leaves(before | refused("moved"))
    assert run(shard, name, [back("a")], now=at(MIDNIGHT - 1, 1), estimate=MIDNIGHT - 1, lane=LANE2) == LETTER[name]
    assert shard.keyspace()[f"wheel:{TOMORROW}"] == {"a": MIDNIGHT}


@both
@pytest.mark.parametrize(
    ("keeper_at", "keeper_end", "tokens", "after"),
    [
        (NOW + 5_000, NOW + 1, [], []),
        (NOW + 5_001, NOW + 1, [], ["1"]),
        (NOW + 5_000, NOW, [], ["1"]),
        (NOW + 5_001, NOW + 1, ["1"], ["1"]),
    ],
    ids=["the timekeeper wakes in time", "it sleeps too long", "its role lapsed", "a token is there"],
)
def test_a_token_is_pushed_when_nobody_would_wake_for_the_job(
    shard: Shard, name: str, attempt: int, keeper_at: int, keeper_end: int, tokens: list[str], after: list[str]
) -> None:
    roles: dict[str, Any] = {"keeper": OTHER_WORKER, "keeper_at": keeper_at, "keeper_end": keeper_end}
    shard.put({"jobs": {"a": held(TOKEN)}, "processing": {"a": NOW}, "meta": meta(NOW_US - 9, **roles), "wake": tokens})
    assert run(shard, name, [back("a", NOW + 5_000)]) == LETTER[name]
    assert shard.keyspace().get("wake", []) == after
    assert shard.keyspace()["meta"] == meta(beat=True, **roles)
