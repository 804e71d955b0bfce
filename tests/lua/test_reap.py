from __future__ import annotations

from typing import Any

import pytest

from zwheel.calls import Reaped, read_reap, reap

from .shard import (
    DIGEST,
    DIGEST2,
    KEYS,
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
)

LEASE = 30_000
TOKEN = NOW_US - 60_000_000


def run(
    shard: Shard, *, limit: int = 100, most_dead: int = 100, now: str = at(NOW), estimate: int = NOW
) -> Reaped | None:
    call = reap(KEYS, limit=limit, lease_ms=LEASE, most_dead=most_dead, now_ms=estimate, now=now)
    return read_reap(shard.run(call))


def expired(attempt: int, at_ms: int = NOW, worker: str = WORKER) -> bytes:
    line = f'{{"at":{at_ms},"attempt":{attempt},"reason":"lease_expired","worker":"{worker}"}}\n'
    return line.encode()


def worker_meta(now_us: int = NOW_US, **fields: Any) -> dict[str, str]:
    return meta(now_us, beat=True, lease=LEASE, **fields)


def test_a_job_whose_lease_ran_out_is_due_at_once_or_dead_after_its_last_attempt(shard: Shard) -> None:
    old = b'{"at":1,"attempt":1,"reason":"error"}\n'
    shard.put(
        {
            "jobs": {
                "a": held(TOKEN, attempt=2, keep=9),
                "b": held(TOKEN, attempt=3, failures=old),
                "over": held(TOKEN, attempt=4),
                "live": held(TOKEN),
            },
            "processing": {"a": NOW, "b": NOW - 5, "over": NOW - 6, "live": NOW + 1},
        }
    )
    assert run(shard, now=at(NOW, 1)) == Reaped(NOW_US + 1, 0, 3, ["a"], ["over", "b"])
    shard.leaves(
        {
            "jobs": {
                "a": record(attempt=2, fire=NOW + 1, token=TOKEN, worker=WORKER, keep=9, failures=expired(2)),
                "b": record("x", attempt=3, token=TOKEN, worker=WORKER, failures=old + expired(3)),
                "over": record("x", attempt=4, token=TOKEN, worker=WORKER, failures=expired(4)),
                "live": held(TOKEN),
            },
            "processing": {"live": NOW + 1},
            "dead": {"b": NOW, "over": NOW},
            f"wheel:{TODAY}": {"a": NOW + 1},
            "days": {TODAY: int(TODAY)},
            "wake": ["1"],
            "meta": worker_meta(NOW_US + 1),
        }
    )
    assert run(shard, now=at(NOW, 1)) == Reaped(NOW_US + 2, 0, 0, [], []), "a second send finds nothing more"


def test_nothing_is_reaped_in_the_grace_period_and_everything_after_it(shard: Shard) -> None:
    before: Keyspace = {"jobs": {"a": held(TOKEN)}, "processing": {"a": NOW - 9_999}}
    shard.put(before | {"meta": worker_meta(NOW_US - LEASE * 500 - 1)})
    assert run(shard) == Reaped(NOW_US, NOW + LEASE, 0, [], [])
    shard.leaves(before | {"meta": worker_meta(grace=NOW + LEASE)})
    for later in (LEASE // 2, LEASE - 1):
        assert run(shard, now=at(NOW + later)) == Reaped(NOW_US + later * 1000, NOW + LEASE, 0, [], [])
        shard.leaves(before | {"meta": worker_meta(NOW_US + later * 1000, grace=NOW + LEASE)})
    assert run(shard, now=at(NOW + LEASE)) == Reaped(NOW_US + LEASE * 1000, 0, 1, ["a"], [])


def test_a_limit_bounds_what_is_looked_at_longest_overdue_first(shard: Shard) -> None:
    shard.put({"jobs": {i: held(TOKEN) for i in "abc"}, "processing": {"a": NOW, "b": NOW - 2, "c": NOW - 1}})
    assert run(shard, limit=2) == Reaped(NOW_US, 0, 2, ["b", "c"], [])
    assert run(shard, limit=2) == Reaped(NOW_US + 1, 0, 1, ["a"], [])


def test_only_the_last_five_failures_are_kept(shard: Shard) -> None:
    lines = [b'{"at":%d,"attempt":1,"reason":"error"}\n' % i for i in range(5)]
    shard.put({"jobs": {"a": held(TOKEN, failures=b"".join(lines))}, "processing": {"a": NOW}})
    assert run(shard)
    assert shard.keyspace()["jobs"] == {
        "a": record(attempt=1, token=TOKEN, worker=WORKER, failures=b"".join(lines[1:]) + expired(1))
    }


def test_failures_stay_within_their_field_whatever_was_stored(shard: Shard) -> None:
    shard.put({"jobs": {"a": held(TOKEN, failures=b"x" * 89_990 + b"\n")}, "processing": {"a": NOW}})
    assert run(shard)
    assert shard.keyspace()["jobs"] == {"a": record(attempt=1, token=TOKEN, worker=WORKER, failures=expired(1))}


def test_a_worker_that_could_spoil_the_failures_text_is_named_without_its_odd_characters(shard: Shard) -> None:
    shard.put({"jobs": {"a": held(TOKEN, worker='ab"\\{}\n1')}, "processing": {"a": NOW}})
    assert run(shard)
    raw = shard.keyspace()["jobs"]["a"]
    assert raw.count(b'"worker":"ab1"}\n') == 1


def test_a_dedup_key_of_a_dead_job_is_given_back_unless_its_window_lasts_and_a_living_job_keeps_its_own(
    shard: Shard,
) -> None:
    third = "3" * 32
    shard.put(
        {
            "jobs": {
                "free": held(TOKEN, attempt=3, digest=DIGEST),
                "window": held(TOKEN, attempt=3, digest=DIGEST2),
                "back": held(TOKEN, attempt=1, digest=third),
            },
            "processing": dict.fromkeys(("free", "window", "back"), NOW),
            "dedup": {DIGEST: "free", DIGEST2: "window", third: "back"},
            "dedup:expiry": {DIGEST2: NOW + 1},
        }
    )
    assert run(shard) == Reaped(NOW_US, 0, 3, ["back"], ["free", "window"])
    after = shard.keyspace()
    assert after["dedup"] == {DIGEST2: "window", third: "back"}
    assert after["dedup:expiry"] == {DIGEST2: NOW + 1}


def test_unreadable_records_are_set_aside_as_they_are_and_orphans_are_dropped_and_counted(shard: Shard) -> None:
    newer, flagged, ended = record("p", version="2"), record("p", flags="08"), record("d", body=b"")
    shard.put(
        {
            "jobs": {"newer": newer, "flagged": flagged, "ended": ended},
            "processing": dict.fromkeys(("newer", "flagged", "ended", "gone"), NOW),
            "done": {"ended": NOW + 9},
        }
    )
    assert run(shard) == Reaped(NOW_US, 0, 4, [], ["flagged", "newer"])
    shard.leaves(
        {
            "jobs": {"newer": newer, "flagged": flagged, "ended": ended},
            "dead": {"newer": NOW, "flagged": NOW},
            "done": {"ended": NOW + 9},
            "meta": worker_meta(orphans=2),
        }
    )


def test_the_oldest_dead_jobs_go_when_there_are_more_than_are_kept(shard: Shard) -> None:
    shard.put(
        {
            "jobs": {"a": held(TOKEN, attempt=3), "o1": record("x"), "o2": record("x")},
            "processing": {"a": NOW},
            "dead": {"o1": NOW - 2, "o2": NOW - 1},
        }
    )
    assert run(shard, most_dead=2) == Reaped(NOW_US, 0, 1, [], ["a"])
    after = shard.keyspace()
    assert after["dead"] == {"o2": NOW - 1, "a": NOW}
    assert set(after["jobs"]) == {"o2", "a"}
    assert after["meta"] == worker_meta(trimmed=1)


def test_a_new_day_changes_nothing_and_asks_for_another_call(shard: Shard) -> None:
    before = {"jobs": {"a": held(TOKEN)}, "processing": {"a": NOW}}
    shard.put(before)
    assert run(shard, now=at(MIDNIGHT - 1, 1), estimate=MIDNIGHT - 1) is None
    shard.leaves(before)
    assert run(shard, now=at(MIDNIGHT - 1, 1), estimate=MIDNIGHT) == Reaped(MIDNIGHT * 1000 - 999, 0, 1, ["a"], [])
    assert shard.keyspace()[f"wheel:{TOMORROW}"] == {"a": MIDNIGHT}


@pytest.mark.parametrize(("keeper_at", "tokens"), [(NOW, []), (NOW + 1, ["1"])])
def test_a_token_is_pushed_when_the_timekeeper_sleeps_on(shard: Shard, keeper_at: int, tokens: list[str]) -> None:
    roles: dict[str, Any] = {"keeper": OTHER_WORKER, "keeper_at": keeper_at, "keeper_end": NOW + 3_000}
    shard.put({"jobs": {"a": held(TOKEN)}, "processing": {"a": NOW}, "meta": worker_meta(NOW_US - 1, **roles)})
    assert run(shard)
    assert shard.keyspace().get("wake", []) == tokens
    assert shard.keyspace()["meta"] == worker_meta(**roles)
