from __future__ import annotations

from typing import Any

import pytest

from zwheel.calls import Claimed, Lane, claim, read_claim

from .shard import (
    DIGEST,
    KEYS,
    LANE,
    MIDNIGHT,
    NOW,
    NOW_US,
    OTHER_WORKER,
    TODAY,
    TOMORROW,
    WORKER,
    YESTERDAY,
    Keyspace,
    Shard,
    at,
    held,
    meta,
    record,
    record_of_1,
)

LEASE, ROLE = 30_000, 3_000
#: A timekeeper that did not claim this long after its time has lost the role.
LATE = 30
NEVER = 9007199254740992
#: No role lasts longer than this without a further claim.
ROLE_LIMIT = 20_000


def take(
    shard: Shard, limit: int = 10, *, day: str = TODAY, worker: str = WORKER, now: str = at(NOW), lane: Lane = LANE,
    epoch: str = "", ahead: int = 0,
) -> Claimed:  # fmt: skip
    call = claim(
        KEYS, day=day, worker=worker, lease_ms=LEASE, limit=limit, lane=lane, role_ms=ROLE, epoch=epoch, now=now,
        ahead_ms=ahead,
    )  # fmt: skip
    return read_claim(shard.run(call))


def today(**fires: int) -> Keyspace:
    """Scheduled jobs of today."""
    return {
        "jobs": {job_id: record(fire=fire) for job_id, fire in fires.items()},
        f"wheel:{TODAY}": fires,
        "days": {TODAY: int(TODAY)},
    }


def worker_meta(now_us: int = NOW_US, **fields: Any) -> dict[str, str]:
    return meta(now_us, beat=True, lease=LEASE, **fields)


def keeper(wakes: int, *, worker: str = WORKER, end: int | None = None) -> dict[str, Any]:
    lapses = min(wakes + LATE, NOW + ROLE) if end is None else end
    return {"keeper": worker, "keeper_at": wakes, "keeper_end": lapses}


def second(worker: str = WORKER, end: int = NOW + ROLE) -> dict[str, Any]:
    return {"second": worker, "second_end": end}


def test_due_jobs_are_claimed_oldest_first_and_never_one_that_is_not_due(shard: Shard) -> None:
    old = record(fire=NOW - 9, attempt=2, worker=OTHER_WORKER, digest=DIGEST, keep=5, failures=b"{}\n")
    shard.put(today(a=NOW, late=NOW + 1, old=NOW - 9) | {"meta": {"lease": str(LEASE)}})
    shard.put({"jobs": {"old": old}})
    taken_old = held(NOW_US + 999, fire=NOW - 9, attempt=3, digest=DIGEST, keep=5, failures=b"{}\n")
    taken = held(NOW_US + 999)
    assert take(shard, now=at(NOW, 999)) == Claimed(
        "ok", NOW_US + 999, NOW + 1, TODAY, "timekeeper", 0, [b"old", taken_old, b"a", taken], jumps=0
    )
    shard.leaves(
        {
            "jobs": {"a": taken, "old": taken_old, "late": record(fire=NOW + 1)},
            "processing": {"a": NOW + LEASE, "old": NOW + LEASE},
            f"wheel:{TODAY}": {"late": NOW + 1},
            "days": {TODAY: int(TODAY)},
            "meta": worker_meta(NOW_US + 999, **keeper(NOW + 1)),
            "replay:caller:0": f"request-1 {NOW_US + 999:016d} old a",
        }
    )


def test_jobs_of_the_same_time_are_claimed_in_the_order_of_their_ids_and_no_more_than_asked_for(shard: Shard) -> None:
    shard.put(today(c=NOW, a=NOW, b=NOW))
    claimed = take(shard, 2)
    assert claimed.jobs[::2] == [b"a", b"b"]
    assert (claimed.word, claimed.next_fire_ms, claimed.day, claimed.role) == ("ok", NOW, TODAY, "none")
    shard.leaves(
        {
            "jobs": {"a": held(NOW_US), "b": held(NOW_US), "c": record()},
            "processing": {"a": NOW + LEASE, "b": NOW + LEASE},
            f"wheel:{TODAY}": {"c": NOW},
            "days": {TODAY: int(TODAY)},
            "wake": ["1"],
            "meta": worker_meta(),
            "replay:caller:0": f"request-1 {NOW_US:016d} a b",
        }
    )


def test_a_token_is_larger_than_any_the_job_had_and_than_the_clock_says(shard: Shard) -> None:
    shard.put(today(a=NOW, b=NOW, c=NOW))
    shard.put({"jobs": {"a": record(token=NOW_US - 1), "b": record(token=NOW_US), "c": record(token=NOW_US + 10**12)}})
    claimed = take(shard)
    assert [raw[21:37] for raw in claimed.jobs[1::2]] == [
        b"%016d" % token for token in (NOW_US, NOW_US + 1, NOW_US + 10**12 + 1)
    ]


@pytest.mark.parametrize("back_ms", [0, 400, 5_000], ids=["stands", "is steered", "was set back"])
def test_tokens_rise_and_all_else_follows_the_clock_where_it_stands_or_was_set_back(shard: Shard, back_ms: int) -> None:
    now = NOW - back_ms
    shard.put(today(a=now, b=now + 1) | {"meta": worker_meta()})
    claimed = take(shard, now=at(now))
    assert (claimed.now_us, claimed.jobs) == (now * 1000, [b"a", held(NOW_US + 1, fire=now)])
    assert claimed.next_fire_ms == now + 1
    after = shard.keyspace()
    assert after["processing"] == {"a": now + LEASE}
    assert (after["meta"]["clock"], after["meta"]["beat"]) == (str(NOW_US + 1), str(now * 1000))


def test_a_step_back_since_the_last_contact_is_counted_and_told(shard: Shard) -> None:
    shard.put({"meta": worker_meta(NOW_US + 8_000_000)})
    assert take(shard).jumps == 1
    told = {"jumps": 1, "jump": f"{NOW_US} -8000 {NOW_US + 8_000_001}"}
    shard.leaves(
        {
            "meta": worker_meta(NOW_US)
            | {"clock": str(NOW_US + 8_000_001)}
            | {k: str(v) for k, v in (told | keeper(NEVER)).items()}
        }
    )
    assert take(shard, now=at(NOW, 1), lane=LANE._replace(request="2")).jumps == 1, "once"


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e300", "9e15", "-5", "x", ""])
@pytest.mark.parametrize("field", ["clock", "beat", "grace", "lease", "leased", "jumps", "keeper_end", "keeper_at"])
def test_a_field_that_is_no_time_counts_for_nothing(shard: Shard, field: str, text: str) -> None:
    shard.put(today(a=NOW) | {"meta": worker_meta(NOW_US - 1) | {"keeper": OTHER_WORKER, field: text}})
    claimed = take(shard)
    assert (claimed.jobs, claimed.grace_ms, claimed.jumps) == ([b"a", held(NOW_US)], 0, 0)


@pytest.mark.parametrize("named", [YESTERDAY, TOMORROW, "19700101"])
def test_another_day_than_the_earliest_is_answered_with_the_earliest_and_takes_nothing(
    shard: Shard, named: str
) -> None:
    before = today(a=NOW) | {"meta": meta(NOW_US - 1)}
    shard.put(before)
    assert take(shard, day=named) == Claimed("moved", NOW_US, None, TODAY, "none", 0, [])
    shard.leaves(before | {"meta": worker_meta()})


def test_a_bucket_that_is_emptied_leaves_the_index_and_the_next_day_is_named(shard: Shard) -> None:
    other = record(fire=MIDNIGHT)
    shard.put(today(a=NOW))
    shard.put({"jobs": {"t": other}, f"wheel:{TOMORROW}": {"t": MIDNIGHT}, "days": {TOMORROW: int(TOMORROW)}})
    assert take(shard) == Claimed("ok", NOW_US, None, TOMORROW, "none", 0, [b"a", held(NOW_US)], jumps=0)
    after: Keyspace = {
        "jobs": {"a": held(NOW_US), "t": other},
        "processing": {"a": NOW + LEASE},
        f"wheel:{TOMORROW}": {"t": MIDNIGHT},
        "days": {TOMORROW: int(TOMORROW)},
        "meta": worker_meta(),
        "replay:caller:0": f"request-1 {NOW_US:016d} a",
    }
    shard.leaves(after)
    assert take(shard, day=TOMORROW, lane=LANE._replace(request="2"), now=at(NOW, 1)) == Claimed(
        "empty", NOW_US + 1, MIDNIGHT, TOMORROW, "timekeeper", 0, [], jumps=0
    )
    shard.leaves(after | {"meta": worker_meta(NOW_US + 1, **keeper(MIDNIGHT))})


def test_an_empty_wheel_makes_a_timekeeper_that_waits_for_anything(shard: Shard) -> None:
    assert take(shard) == Claimed("empty", NOW_US, None, "", "timekeeper", 0, [], jumps=0)
    shard.leaves({"meta": worker_meta(**keeper(NEVER))})


def test_a_paused_queue_gives_nothing_and_notes_the_contact(shard: Shard) -> None:
    before = today(a=NOW)
    shard.put(before | {"meta": {"paused": "1"}})
    assert take(shard) == Claimed("paused", NOW_US, None, "", "none", 0, [])
    shard.leaves(before | {"meta": worker_meta(paused=1)})


def test_a_queue_with_the_schema_of_another_version_gives_nothing(shard: Shard) -> None:
    before = today(a=NOW) | {"meta": meta(5, schema=2, epoch=7)}
    shard.put(before)
    assert take(shard) == Claimed("foreign", NOW_US, None, "", "none", 0, [], "2")
    assert take(shard, epoch="7") == Claimed("foreign", NOW_US, None, "", "none", 0, [], "2")
    shard.leaves(before)


@pytest.mark.parametrize(
    ("stored", "found"),
    [({"schema": 1, "epoch": 8}, "8"), ({"epoch": 7}, "7"), ({"schema": 1}, ""), ({}, "")],
    ids=["founded anew", "no schema", "no epoch", "no meta"],
)
def test_a_worker_that_knows_another_epoch_is_told_that_the_queue_was_emptied_and_gets_nothing(
    shard: Shard, stored: dict[str, Any], found: str
) -> None:
    before = today(a=NOW) | {"meta": meta(5, **stored)}
    shard.put(before)
    assert take(shard, epoch="7") == Claimed("flushed", NOW_US, None, "", "none", 0, [], found)
    shard.leaves(before)


def test_a_worker_that_knows_the_epoch_claims(shard: Shard) -> None:
    shard.put(today(a=NOW) | {"meta": meta(5, schema=1, epoch=7)})
    assert take(shard, epoch="7").jobs == [b"a", held(NOW_US)]


def test_a_gap_without_a_worker_is_no_outage(shard: Shard) -> None:
    shard.put({"meta": meta(NOW_US - 10 * LEASE * 1000, beat=True)})
    assert take(shard).grace_ms == 0
    shard.leaves({"meta": worker_meta(**keeper(NEVER))})


@pytest.mark.parametrize(("end", "told"), [(0, 0), (1, NOW + 1), (LEASE, NOW + LEASE), (LEASE + 1, 0)])
def test_a_grace_period_is_told_unless_it_ends_later_than_one_can(shard: Shard, end: int, told: int) -> None:
    shard.put({"meta": worker_meta(NOW_US - 1, grace=NOW + end)})
    assert take(shard).grace_ms == told


def test_members_without_a_record_are_dropped_and_counted(shard: Shard) -> None:
    shard.put(today(a=NOW) | {f"wheel:{TODAY}": {"a": NOW, "lost": NOW - 1, "gone": NOW - 2}})
    assert take(shard).jobs == [b"a", held(NOW_US)]
    shard.leaves(
        {
            "jobs": {"a": held(NOW_US)},
            "processing": {"a": NOW + LEASE},
            "meta": worker_meta(orphans=2, **keeper(NEVER)),
            "replay:caller:0": f"request-1 {NOW_US:016d} a",
        }
    )


@pytest.mark.parametrize(
    "raw",
    [
        record(version="3"),
        record(version="0"),
        record_of_1(flags="08"),
        record_of_1(flags="10"),
        record_of_1(flags="0f"),
        record(more="Lsomebody"),
        record(more="Lsomebody", digest=DIGEST, keep=5),
        record()[:49] + b"01D00099mail.send\n",
        record()[:49] + b"01D0003x" + DIGEST.encode() + b"mail.send\n",
        record()[:49] + b"0gmail.send\n",
        b"1s",
        b"",
        record()[:2] + b"zzzz" + record()[6:],
        record()[:6] + b"-" + record()[7:],
        record()[:45] + b"    " + record()[49:],
        bytes(range(256)),
    ],
    ids=[
        "a newer version",
        "no version",
        "an unknown flag",
        "a high flag",
        "all flags",
        "a field that must be understood",
        "a field that must be understood among others",
        "a field that ends behind the record",
        "a field whose length is none",
        "a number of fields that is none",
        "cut short",
        "empty",
        "no attempt",
        "a negative time",
        "no most attempts",
        "any bytes",
    ],
)
def test_a_record_this_version_cannot_read_is_set_aside_as_it_is(shard: Shard, raw: bytes) -> None:
    shard.put({"jobs": {"u": raw}, f"wheel:{TODAY}": {"u": NOW}, "days": {TODAY: int(TODAY)}})
    assert take(shard) == Claimed("empty", NOW_US, None, "", "timekeeper", 0, [], jumps=0)
    shard.leaves({"jobs": {"u": raw}, "dead": {"u": NOW}, "meta": worker_meta(**keeper(NEVER))})


WAITING: list[Any] = [
    pytest.param({}, "timekeeper", keeper(NOW + 50), id="nobody waits"),
    pytest.param(keeper(NOW + 50, end=NOW + 9), "timekeeper", keeper(NOW + 50), id="it is the timekeeper"),
    pytest.param(
        keeper(NOW + 50, worker=OTHER_WORKER, end=NOW),
        "timekeeper",
        keeper(NOW + 50),
        id="the timekeeper's role lapsed",
    ),
    pytest.param(
        keeper(NOW + 51, worker=OTHER_WORKER), "timekeeper", keeper(NOW + 50), id="the timekeeper sleeps too long"
    ),
    pytest.param(
        keeper(NOW + 50, worker=OTHER_WORKER),
        "second",
        keeper(NOW + 50, worker=OTHER_WORKER) | second(),
        id="another keeps time",
    ),
    pytest.param(
        keeper(NOW + 50, worker=OTHER_WORKER) | second(end=NOW + 9),
        "second",
        keeper(NOW + 50, worker=OTHER_WORKER) | second(),
        id="it is second",
    ),
    pytest.param(
        keeper(NOW + 50, worker=OTHER_WORKER) | second("u1111111", NOW),
        "second",
        keeper(NOW + 50, worker=OTHER_WORKER) | second(),
        id="the second's role lapsed",
    ),
    pytest.param(
        keeper(NOW + 50, worker=OTHER_WORKER) | second("u1111111", NOW + 1),
        "follower",
        keeper(NOW + 50, worker=OTHER_WORKER) | second("u1111111", NOW + 1),
        id="both roles are taken",
    ),
    pytest.param(
        keeper(NOW + 50, worker=OTHER_WORKER, end=NOW + ROLE_LIMIT + 1),
        "timekeeper",
        keeper(NOW + 50),
        id="the timekeeper's role lasts longer than any can",
    ),
    pytest.param(
        keeper(NOW + 50, worker=OTHER_WORKER) | second("u1111111", NOW + ROLE_LIMIT + 1),
        "second",
        keeper(NOW + 50, worker=OTHER_WORKER) | second(),
        id="the second's role lasts longer than any can",
    ),
    *(
        pytest.param(
            keeper(NOW + 50, worker=OTHER_WORKER) | {"keeper_end": damaged},
            "timekeeper",
            keeper(NOW + 50),
            id=f"the timekeeper's role ends at {damaged}",
        )
        for damaged in ("inf", "nan", "-5", "soon")
    ),
    pytest.param(
        keeper(NOW + 50, worker=OTHER_WORKER, end=NOW - 1) | second(),
        "timekeeper",
        keeper(NOW + 50),
        id="the second takes over",
    ),
]


@pytest.mark.parametrize(("before", "role", "after"), WAITING)
def test_a_claim_that_finds_nothing_due_gets_a_role(
    shard: Shard, before: dict[str, Any], role: str, after: dict[str, Any]
) -> None:
    wheel = today(a=NOW + 50)
    shard.put(wheel | {"meta": worker_meta(NOW_US - 1, **before)})
    assert take(shard) == Claimed("empty", NOW_US, NOW + 50, TODAY, role, 0, [], jumps=0)
    woken = {"wake": ["1"]} if before.get("second") == WORKER and role == "timekeeper" else {}
    shard.leaves(wheel | woken | {"meta": worker_meta(**after)})


DECLINING: list[Any] = [
    pytest.param({}, {}, ["1"], id="nobody has a role"),
    pytest.param(keeper(NOW + 50) | second("u1111111"), second("u1111111"), ["1"], id="it kept time"),
    pytest.param(
        keeper(NOW + 50, worker=OTHER_WORKER) | second(), keeper(NOW + 50, worker=OTHER_WORKER), ["1"], id="it was the second"
    ),
    pytest.param(
        keeper(NOW + 50, worker=OTHER_WORKER) | second("u1111111"), keeper(NOW + 50, worker=OTHER_WORKER) | second("u1111111"),
        [], id="others have both roles",
    ),
    pytest.param(
        keeper(NOW + 51, worker=OTHER_WORKER) | second("u1111111"), keeper(NOW + 51, worker=OTHER_WORKER) | second("u1111111"),
        ["1"], id="the timekeeper sleeps past the next job",
    ),
    pytest.param(
        keeper(NOW + 50, worker=OTHER_WORKER) | second("u1111111", NOW - 1),
        keeper(NOW + 50, worker=OTHER_WORKER) | second("u1111111", NOW - 1), ["1"], id="the second is gone",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("before", "after", "woken"), DECLINING)
def test_a_claim_of_a_worker_that_wants_no_role_takes_none_and_calls_another_where_one_is_free(
    shard: Shard, before: dict[str, Any], after: dict[str, Any], woken: list[str]
) -> None:
    wheel = today(a=NOW + 50)
    shard.put(wheel | {"meta": worker_meta(NOW_US - 1, **before)})
    call = claim(KEYS, day=TODAY, worker=WORKER, lease_ms=LEASE, limit=1, lane=LANE, role_ms=0, now=at(NOW))
    assert read_claim(shard.run(call)) == Claimed("empty", NOW_US, NOW + 50, TODAY, "follower", 0, [], jumps=0)
    shard.leaves(wheel | {"wake": woken or None, "meta": worker_meta(**after)})


def test_no_role_lasts_longer_than_its_limit_whatever_the_caller_asks(shard: Shard) -> None:
    for worker, role in ((WORKER, "timekeeper"), (OTHER_WORKER, "second")):
        call = claim(KEYS, day=TODAY, worker=worker, lease_ms=LEASE, limit=1, lane=LANE, role_ms=2_400_000, now=at(NOW))
        assert read_claim(shard.run(call)).role == role
    stored = shard.keyspace()["meta"]
    assert int(stored["keeper_end"]) == int(stored["second_end"]) == NOW + ROLE_LIMIT


LEAVING: list[Any] = [
    pytest.param({"a": NOW, "b": NOW}, {}, [], {}, ["1"], id="due work is left and nobody waits"),
    pytest.param(
        {"a": NOW, "b": NOW}, keeper(NOW, worker=OTHER_WORKER), [], keeper(NOW, worker=OTHER_WORKER), ["1"],
        id="due work is left and another keeps time",
    ),
    pytest.param({"a": NOW, "b": NOW}, {}, ["1"], {}, ["1"], id="a token is there already"),
    pytest.param({"a": NOW, "b": NOW + 5}, keeper(NOW), [], {}, ["1"], id="the timekeeper is full"),
    pytest.param({"a": NOW, "b": NOW + 5}, {}, [], {}, ["1"], id="it is full and nobody keeps time"),
    pytest.param(
        {"a": NOW, "b": NOW + 5}, keeper(NOW + 5, worker=OTHER_WORKER), [], keeper(NOW + 5, worker=OTHER_WORKER), [],
        id="it is full and another keeps time",
    ),
    pytest.param({"a": NOW}, keeper(NOW), [], {}, ["1"], id="the timekeeper is full and the wheel is empty"),
    pytest.param(
        {"a": NOW, "b": NOW + 5_000}, keeper(NOW + 5_000, worker=OTHER_WORKER, end=NOW + ROLE) | second(), [],
        keeper(NOW + 5_000, worker=OTHER_WORKER, end=NOW + ROLE), ["1"], id="the second is full",
    ),
    pytest.param(
        {"a": NOW, "b": NOW + 300}, keeper(NEVER, worker=OTHER_WORKER) | second("u1111111"), [],
        keeper(NEVER, worker=OTHER_WORKER) | second("u1111111"), ["1"],
        id="it is full and who keeps time sleeps past the next job",
    ),
    pytest.param(
        {"a": NOW, "b": NOW + 5}, keeper(NOW, worker=OTHER_WORKER, end=NOW + ROLE_LIMIT + 1), [],
        keeper(NOW, worker=OTHER_WORKER, end=NOW + ROLE_LIMIT + 1), ["1"],
        id="it is full and another keeps time for longer than anyone can",
    ),
    pytest.param({"a": NOW}, {}, [], {}, [], id="it is full, had no role and leaves nothing"),
]  # fmt: skip


@pytest.mark.parametrize(("fires", "before", "tokens", "after", "woken"), LEAVING)
def test_a_full_claim_takes_no_role_and_passes_on_what_others_must_do(
    shard: Shard,
    fires: dict[str, int],
    before: dict[str, Any],
    tokens: list[str],
    after: dict[str, Any],
    woken: list[str],
) -> None:
    shard.put(today(**fires) | {"meta": worker_meta(NOW_US - 1, **before), "wake": tokens})
    claimed = take(shard, 1)
    assert (claimed.word, claimed.role, claimed.jobs) == ("ok", "none", [b"a", held(NOW_US)])
    left = {job_id: fire for job_id, fire in fires.items() if job_id != "a"}
    shard.leaves(
        {
            "jobs": {"a": held(NOW_US), **{job_id: record(fire=fire) for job_id, fire in left.items()}},
            "processing": {"a": NOW + LEASE},
            f"wheel:{TODAY}": left or None,
            "days": {TODAY: int(TODAY)} if left else None,
            "wake": woken or None,
            "meta": worker_meta(**after),
            "replay:caller:0": f"request-1 {NOW_US:016d} a",
        }
    )


def test_a_repeat_gives_the_jobs_that_are_still_held_by_that_claim_and_claims_nothing(shard: Shard) -> None:
    shard.put(today(a=NOW, b=NOW, c=NOW, d=NOW, e=NOW))
    first = take(shard, 4)
    assert first.jobs[::2] == [b"a", b"b", b"c", b"d"]
    shard.client.hdel(KEYS.jobs, "b")
    # c went back and is held by another; d went back.
    shard.put({"jobs": {"c": held(NOW_US + 7, worker=OTHER_WORKER), "d": record(token=NOW_US, worker=WORKER)}})
    stored = shard.keyspace()
    repeat = take(shard, 4, now=at(NOW + 5))
    assert repeat == Claimed("ok", NOW_US + 5_000, None, "", "none", 0, [b"a", held(NOW_US)])
    shard.leaves(stored)
