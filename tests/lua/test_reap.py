from __future__ import annotations

from typing import Any

import pytest

from zwheel.calls import Reaped, read_reap, reap

from .shard import (
    DIGEST,
    DIGEST2,
    EVENING,
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
    record_of_1,
)

LEASE = 30_000
TOKEN = NOW_US - 60_000_000


def run(
    shard: Shard, *, limit: int = 100, most_dead: int = 100, now: str = at(NOW), estimate: int = NOW,
    expected: int | None = None, jumped: int = 0, jumps: int | None = None,
) -> Reaped | None:  # fmt: skip
    call = reap(
        KEYS, limit=limit, lease_ms=LEASE, most_dead=most_dead, now_ms=estimate, expected_us=expected,
        jumped_ms=jumped, jumps=jumps, now=now,
    )  # fmt: skip
    return read_reap(shard.run(call))


def expired(attempt: int, at_ms: int = NOW, worker: str = WORKER) -> bytes:
    claimed = TOKEN // 1000
    line = f'{{"at":{at_ms},"attempt":{attempt},"reason":"lease_expired","worker":"{worker}","claimed":{claimed}}}\n'
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
    assert run(shard, now=at(NOW, 1)) == Reaped(NOW_US + 1, 0, 0, [], []), "a second send finds nothing more"


def test_nothing_is_reaped_in_the_grace_period_and_everything_after_it(shard: Shard) -> None:
    before: Keyspace = {"jobs": {"a": held(TOKEN)}, "processing": {"a": NOW - 9_999}}
    shard.put(before | {"meta": worker_meta(NOW_US - 1, grace=NOW + LEASE)})
    for later in (1, LEASE // 2, LEASE - 1):
        assert run(shard, now=at(NOW + later)) == Reaped(NOW_US + later * 1000, NOW + LEASE, 0, [], [])
        assert shard.keyspace()["processing"] == before["processing"]
    assert run(shard, now=at(NOW + LEASE)) == Reaped(NOW_US + LEASE * 1000, 0, 1, ["a"], [])


def test_a_grace_period_that_ends_later_than_one_can_holds_up_nothing(shard: Shard) -> None:
    shard.put({"jobs": {"a": held(TOKEN)}, "processing": {"a": NOW}, "meta": worker_meta(grace=NOW + LEASE + 1)})
    assert run(shard) == Reaped(NOW_US, 0, 1, ["a"], [])
    assert "grace" not in shard.keyspace()["meta"]


@pytest.mark.parametrize("silent_ms", [LEASE, 20 * LEASE, 86_400_000 * 30])
def test_that_no_worker_was_in_contact_is_no_evidence_of_an_outage(shard: Shard, silent_ms: int) -> None:
    shard.put({"jobs": {"a": held(TOKEN)}, "processing": {"a": NOW}, "meta": worker_meta(NOW_US - silent_ms * 1000)})
    assert run(shard) == Reaped(NOW_US, 0, 1, ["a"], [])


def test_another_process_of_the_server_than_the_last_opens_one_lease_of_grace(real_shard: Shard) -> None:
    shard = real_shard
    before: Keyspace = {"jobs": {"a": held(TOKEN)}, "processing": {"a": NOW}}
    shard.put(before | {"meta": worker_meta(NOW_US - 1, server="f00d" * 10)})
    assert run(shard) == Reaped(NOW_US, NOW + LEASE, 0, [], [])
    shard.leaves(before | {"meta": worker_meta(grace=NOW + LEASE)})
    assert run(shard, now=at(NOW + LEASE)) == Reaped(NOW_US + LEASE * 1000, 0, 1, ["a"], []), "once"


def test_the_first_process_of_the_server_that_is_seen_opens_none(shard: Shard) -> None:
    shard.put({"jobs": {"a": held(TOKEN)}, "processing": {"a": NOW}})
    assert run(shard) == Reaped(NOW_US, 0, 1, ["a"], [])
    seen = shard.client.hget(KEYS.meta, "server")
    assert seen == (None if shard.kind == "memory" else shard.run_id().encode())


@pytest.mark.parametrize(
    ("off_us", "doubted"),
    [(0, False), (LEASE * 1000 // 3, False), (LEASE * 1000 // 3 + 1, True), (-LEASE * 1000 // 3 - 1, True)],
)
def test_nothing_is_reaped_while_the_clock_shows_another_time_than_the_caller_expects(
    shard: Shard, off_us: int, doubted: bool
) -> None:
    before: Keyspace = {"jobs": {"a": held(TOKEN)}, "processing": {"a": NOW}}
    shard.put(before)
    reaped = run(shard, expected=NOW_US - off_us)
    nothing = Reaped(NOW_US, 0, 0, [], [], doubted=True)
    assert reaped == (nothing if doubted else Reaped(NOW_US, 0, 1, ["a"], []))
    assert ("processing" in shard.keyspace()) == doubted


@pytest.mark.parametrize(("known", "doubted"), [(None, False), (3, False), (2, True), (4, True)])
def test_nothing_is_reaped_for_a_caller_that_knows_another_number_of_jumps(
    shard: Shard, known: int | None, doubted: bool
) -> None:
    before: Keyspace = {"jobs": {"a": held(TOKEN)}, "processing": {"a": NOW}}
    shard.put(before | {"meta": worker_meta(NOW_US - 1, jumps=3)})
    reaped = run(shard, jumps=known)
    nothing = Reaped(NOW_US, 0, 0, [], [], doubted=True, jumps=3)
    assert reaped == (nothing if doubted else Reaped(NOW_US, 0, 1, ["a"], [], jumps=3))
    assert ("processing" in shard.keyspace()) == doubted


def test_nothing_is_reaped_when_the_reap_itself_meets_the_step_back(shard: Shard) -> None:
    shard.put({"jobs": {"a": held(TOKEN)}, "processing": {"a": NOW}, "meta": worker_meta(NOW_US + 500_001)})
    assert run(shard, jumps=0) == Reaped(NOW_US, 0, 0, [], [], doubted=True, jumps=1)
    assert run(shard, jumps=1) == Reaped(NOW_US, 0, 1, ["a"], [], jumps=1)


def test_a_jump_ahead_is_counted_once_and_whoever_tells_of_it_opens_one_lease_of_grace(shard: Shard) -> None:
    before: Keyspace = {"jobs": {"a": held(TOKEN)}, "processing": {"a": NOW - 9}}
    shard.put(before | {"meta": worker_meta(NOW_US - 3_600_000_000)})
    assert run(shard, jumped=3_600_000) == Reaped(NOW_US, NOW + LEASE, 0, [], [], jumps=1)
    told: dict[str, Any] = {"jumps": 1, "jump": f"{NOW_US} 3600000 {NOW_US}", "grace": NOW + LEASE}
    shard.leaves(before | {"meta": worker_meta(**told)})
    late = run(shard, jumped=3_599_800, now=at(NOW + 5_000))
    grace = NOW + 5_000 + LEASE
    assert late == Reaped(NOW_US + 5_000_000, grace, 0, [], [], jumps=1), "another worker tells of the same one"
    assert shard.keyspace()["meta"]["jumps"] == "1"
    run(shard, jumped=-3_600_000, now=at(NOW + 9_000))
    assert shard.keyspace()["meta"]["jumps"] == "2", "and back again is another one"


def test_a_step_back_opens_no_grace_and_shortens_the_leases_that_end_too_late(shard: Shard) -> None:
    hour = 3_600_000
    shard.put(
        {
            "jobs": {i: held(TOKEN) for i in "abc"},
            "processing": {"a": NOW + hour, "b": NOW + LEASE + 1_000, "c": NOW - 1},
            "meta": worker_meta(NOW_US + hour * 1000),
        }
    )
    assert run(shard) == Reaped(NOW_US, 0, 1, ["c"], [], 1, jumps=1)
    after = shard.keyspace()
    assert after["processing"] == {"a": NOW + LEASE, "b": NOW + LEASE + 1_000}
    assert after["meta"]["jumps"] == "1"
    assert run(shard, now=at(NOW + LEASE)) == Reaped(NOW_US + LEASE * 1000, 0, 1, ["a"], [], jumps=1)


def test_a_lease_that_nobody_used_for_two_of_them_is_forgotten(shard: Shard) -> None:
    hour = 3_600_000
    for unused, left in ((2 * hour, hour), (2 * hour + 1, LEASE)):
        shard.put({"meta": meta(NOW_US - 1, lease=hour, leased=NOW - unused)})
        run(shard)
        assert shard.keyspace()["meta"]["lease"] == str(left)


def test_a_longest_lease_that_was_noted_later_than_now_is_kept_from_now_on(shard: Shard) -> None:
    """The clock was set back: the worker that uses the lease gets two of them to say so again."""
    hour = 3_600_000
    shard.put({"meta": meta(NOW_US - 1, lease=hour, leased=NOW + 9 * hour)})
    run(shard)
    assert shard.keyspace()["meta"] | {"lease": str(hour), "leased": str(NOW)} == shard.keyspace()["meta"]


def test_a_limit_bounds_what_is_looked_at_longest_overdue_first(shard: Shard) -> None:
    shard.put({"jobs": {i: held(TOKEN) for i in "abc"}, "processing": {"a": NOW, "b": NOW - 2, "c": NOW - 1}})
    assert run(shard, limit=2) == Reaped(NOW_US, 0, 2, ["b", "c"], [])
    assert run(shard, limit=2) == Reaped(NOW_US, 0, 1, ["a"], [])


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
    assert raw.count(b'"worker":"ab1","claimed":') == 1


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
    newer, flagged, ended = record("p", version="3"), record_of_1("p", flags="08"), record("d", body=b"")
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


def test_a_job_that_lives_is_not_trimmed_although_it_stands_among_the_dead(shard: Shard) -> None:
    lives = held(TOKEN)
    shard.put(
        {
            "jobs": {"a": held(TOKEN, attempt=3), "lives": lives},
            "processing": {"a": NOW, "lives": NOW + 9},
            "dead": {"lives": NOW - 2},
        }
    )
    assert run(shard, most_dead=1) == Reaped(NOW_US, 0, 1, [], ["a"])
    after = shard.keyspace()
    assert after["jobs"]["lives"] == lives
    assert after["dead"] == {"a": NOW, "lives": NOW}


def test_a_new_day_changes_nothing_and_asks_for_another_call(shard: Shard) -> None:
    before = {"jobs": {"a": held(TOKEN)}, "processing": {"a": NOW}}
    shard.put(before)
    assert run(shard, now=at(MIDNIGHT - 1, 1), estimate=EVENING) is None
    shard.leaves(before)
    assert run(shard, now=at(MIDNIGHT - 1, 1), estimate=MIDNIGHT - 1) == Reaped(MIDNIGHT * 1000 - 999, 0, 1, ["a"], [])
    assert shard.keyspace()[f"wheel:{TOMORROW}"] == {"a": MIDNIGHT}


@pytest.mark.parametrize(("keeper_at", "tokens"), [(NOW, []), (NOW + 1, ["1"])])
def test_a_token_is_pushed_when_the_timekeeper_sleeps_on(shard: Shard, keeper_at: int, tokens: list[str]) -> None:
    roles: dict[str, Any] = {"keeper": OTHER_WORKER, "keeper_at": keeper_at, "keeper_end": NOW + 3_000}
    shard.put({"jobs": {"a": held(TOKEN)}, "processing": {"a": NOW}, "meta": worker_meta(NOW_US - 1, **roles)})
    assert run(shard)
    assert shard.keyspace().get("wake", []) == tokens
    assert shard.keyspace()["meta"] == worker_meta(**roles)


def test_a_pass_ends_when_its_bytes_are_used_and_the_next_one_goes_on(shard: Shard) -> None:
    large = b"\x01\x00" + b"x" * 250_000
    names = [f"j{n:02d}" for n in range(10)]
    shard.put({"jobs": {name: held(TOKEN, body=large) for name in names}, "processing": dict.fromkeys(names, NOW)})
    assert run(shard, limit=100) == Reaped(NOW_US, 0, 8, names[:8], [])
    assert sorted(shard.keyspace()["processing"]) == names[8:]
    assert run(shard, limit=100) == Reaped(NOW_US, 0, 2, names[8:], [])
    assert run(shard, limit=100) == Reaped(NOW_US, 0, 0, [], [])
