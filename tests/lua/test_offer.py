from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from zwheel.calls import Claimed, Lane, Offer, claim, offer, read_claim, read_letters

from .shard import (
    KEYS,
    LANE,
    MIDNIGHT,
    NOW,
    NOW_US,
    OTHER_WORKER,
    START,
    TODAY,
    TOMORROW,
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
GROUP, GROUP2 = "0123456789abcdef", "fedcba9876543210"
STANDS = 60_000
WHY = b'{"at":1,"attempt":1,"reason":"unknown_task"}\n'
FIRE = NOW - 700
REQUESTS = count(2)


def give(
    shard: Shard, *jobs: str, groups: tuple[str, ...] = (GROUP,), now: str = at(NOW), day_ms: int = NOW,
    failures: bytes = b"", token: int = TOKEN, lane: Lane = LANE,
) -> Any:  # fmt: skip
    batch = [Offer(job, digits16(token), failures) for job in jobs]
    call = offer(KEYS, batch, groups=groups, now_ms=day_ms, lane=lane, now=now)
    return read_letters(shard.run(call))


def take(shard: Shard, limit: int = 10, *, group: str = GROUP, now: str = at(NOW), day: str = TODAY) -> Claimed:
    lane = LANE._replace(request=str(next(REQUESTS)))
    return read_claim(
        shard.run(
            claim(
                KEYS, day=day, worker=OTHER_WORKER, lease_ms=30_000, limit=limit, lane=lane, role_ms=3_000,
                group=group, now=now,
            )
        )
    )  # fmt: skip


def put_held(shard: Shard, *jobs: str, **fields: Any) -> None:
    shard.put({"jobs": {job: held(TOKEN, fire=FIRE, **fields) for job in jobs}, "processing": dict.fromkeys(jobs, NOW)})


def hint(job: str, fire: int = FIRE, token: int = TOKEN) -> str:
    return f"{job} {fire:015d} {token:016d}"


def offered(job: str = "a", until: int = NOW + STANDS, **fields: Any) -> bytes:
    return record(fire=until, token=TOKEN, worker=WORKER, **fields)


def test_an_offered_job_lies_on_the_wheel_for_later_and_its_groups_are_called(shard: Shard) -> None:
    put_held(shard, "a", attempt=2, digest="0" * 32, keep=9)
    assert give(shard, "a", groups=(GROUP, GROUP2)) == "o"
    shard.leaves(
        {
            "jobs": {"a": offered(attempt=1, digest="0" * 32, keep=9)},
            f"wheel:{TODAY}": {"a": NOW + STANDS},
            "days": {TODAY: int(TODAY)},
            **{f"offered:{group}": {hint("a"): NOW + STANDS} for group in (GROUP, GROUP2)},
            **{f"call:{group}": ["1"] for group in (GROUP, GROUP2)},
            "wake": ["1"],
            "meta": meta(beat=True),
            "replay:caller:0": f"request-1 o {NOW + STANDS}",
        }
    )


@pytest.mark.parametrize(
    ("failures", "kept"), [(b"", WHY), (b"none", b""), (WHY * 2, WHY * 2)], ids=["left", "taken away", "written anew"]
)
def test_failures_are_left_taken_away_or_written_anew(shard: Shard, failures: bytes, kept: bytes) -> None:
    put_held(shard, "a", failures=WHY)
    assert give(shard, "a", failures=failures) == "o"
    assert shard.keyspace()["jobs"] == {"a": offered(failures=kept)}


def test_notes_that_nobody_took_in_their_time_go_with_the_next_offer(shard: Shard) -> None:
    put_held(shard, "a")
    shard.put({f"offered:{GROUP}": {hint("old"): NOW, hint("new"): NOW + 1}})
    assert give(shard, "a") == "o"
    assert shard.keyspace()[f"offered:{GROUP}"] == {hint("new"): NOW + 1, hint("a"): NOW + STANDS}


def test_a_stale_token_and_a_missing_job_are_named_and_change_nothing(shard: Shard) -> None:
    put_held(shard, "a")
    assert give(shard, "a", "gone", token=TOKEN - 1) == "fm"
    after = shard.keyspace()
    assert after["jobs"] == {"a": held(TOKEN, fire=FIRE)}
    assert set(after) == {"jobs", "processing", "meta", "replay:caller:0"}


def test_an_offer_ends_with_the_day_and_another_day_is_answered_with_moved(shard: Shard) -> None:
    put_held(shard, "a")
    assert give(shard, "a", now=at(MIDNIGHT - 5), day_ms=MIDNIGHT) is None
    assert give(shard, "a", now=at(MIDNIGHT - 5), day_ms=START, lane=LANE._replace(request="request-2")) == "o"
    assert shard.keyspace()[f"wheel:{TODAY}"] == {"a": MIDNIGHT - 1}


def test_a_worker_that_knows_the_task_gets_the_job_first_with_the_fire_time_that_it_had(shard: Shard) -> None:
    put_held(shard, "a", "b")
    give(shard, "a", "b", groups=(GROUP, GROUP2))
    shard.put({"jobs": {"c": record(fire=NOW - 5_000)}, f"wheel:{TODAY}": {"c": NOW - 5_000}})
    claimed = take(shard, 3, now=at(NOW + 1))
    later = NOW_US + 1_000
    mine = [held(later, fire=FIRE, worker=OTHER_WORKER)] * 2 + [held(later, fire=NOW - 5_000, worker=OTHER_WORKER)]
    assert claimed.jobs == [x for pair in zip((b"a", b"b", b"c"), mine, strict=True) for x in pair]
    assert claimed.role == "none"
    after = shard.keyspace()
    assert f"offered:{GROUP}" not in after
    assert f"wheel:{TODAY}" not in after
    assert sorted(after["processing"]) == ["a", "b", "c"]
    # The other group's note is void, and goes with the next claim that meets it.
    assert sorted(after[f"offered:{GROUP2}"]) == [hint("a"), hint("b")]
    shard.put({"jobs": {"z": record(fire=NOW + 9)}, f"wheel:{TODAY}": {"z": NOW + 9}, "days": {TODAY: int(TODAY)}})
    assert take(shard, group=GROUP2, now=at(NOW + 2)).jobs == []
    assert f"offered:{GROUP2}" not in shard.keyspace()


def test_no_more_is_taken_than_there_is_room_and_others_get_nothing_before_its_time(shard: Shard) -> None:
    put_held(shard, "a", "b")
    give(shard, "a", "b")
    assert take(shard, group=GROUP2).jobs == []
    assert take(shard, 1).jobs[::2] == [b"a"]
    left = take(shard, group=GROUP2, now=at(NOW + STANDS))
    assert left.jobs == [b"b", held(NOW_US + STANDS * 1000, fire=NOW + STANDS, worker=OTHER_WORKER)]


VOID: dict[str, Keyspace] = {
    "cancelled": {"jobs": {"a": record("c", fire=NOW + STANDS, token=TOKEN, worker=WORKER, body=b"")}},
    "moved by a person": {"jobs": {"a": offered(until=NOW + STANDS + 1)}},
    "claimed since": {"jobs": {"a": held(TOKEN + 1, fire=NOW + STANDS)}},
    "put back since": {"jobs": {"a": record(fire=NOW + STANDS, token=TOKEN + 1, worker=WORKER)}},
    "deleted": {"jobs": {"b": record(fire=NOW + STANDS)}},
    "unreadable": {"jobs": {"a": b"3" + offered()[1:]}},
    "not of this kind": {"jobs": {"a": offered()}, f"offered:{GROUP}": {"nonsense": NOW + STANDS}},
    "of another fire time": {"jobs": {"a": offered()}, f"offered:{GROUP}": {hint("a", NOW + 9): NOW + STANDS}},
    "damaged": {"jobs": {"a": offered()}, f"offered:{GROUP}": {"a 5 6": NOW + STANDS, "a b c": 1}},
}


@pytest.mark.parametrize("what", VOID)
def test_a_note_that_its_record_contradicts_is_void_and_changes_nothing(shard: Shard, what: str) -> None:
    notes = {f"offered:{GROUP}": {hint("a"): NOW + STANDS}}
    # Something on today's wheel, so that there is a bucket to look at.
    shard.put(notes | VOID[what] | {f"wheel:{TODAY}": {"z": NOW + 9}, "days": {TODAY: int(TODAY)}})
    if f"offered:{GROUP}" in VOID[what]:
        shard.client.zrem(KEYS.offered(GROUP), hint("a"))
    jobs = shard.client.hgetall(KEYS.jobs)
    assert take(shard).jobs == []
    assert shard.client.hgetall(KEYS.jobs) == jobs
    assert shard.client.exists(KEYS.offered(GROUP)) == 0


def test_void_notes_hide_no_job_behind_them_from_a_worker_with_room_for_one(shard: Shard) -> None:
    put_held(shard, "z")
    give(shard, "z")
    void = {f"{n} nothing": 1 for n in range(500)} | {hint(f"gone{n}"): 2 for n in range(500)}
    shard.client.zadd(KEYS.offered(GROUP), void)
    taken = take(shard, 1)
    assert taken.jobs[::2] == [b"z"]
    assert shard.client.exists(KEYS.offered(GROUP)) == 0


def test_thousands_of_void_notes_are_taken_off_in_bounded_steps(shard: Shard) -> None:
    put_held(shard, "z")
    give(shard, "z")
    for start in range(0, 10_000, 1000):
        shard.client.zadd(KEYS.offered(GROUP), {f"{n} nothing": 1 for n in range(start, start + 1000)})
    claims = 0
    while not (taken := take(shard, 1)).jobs:
        assert (taken.role, taken.word) == ("none", "empty"), "it claims again at once"
        claims += 1
    assert 2 <= claims <= 6
    assert taken.jobs[::2] == [b"z"]


def test_what_lies_in_another_bucket_stays_offered(shard: Shard) -> None:
    put_held(shard, "a")
    give(shard, "a", now=at(MIDNIGHT), day_ms=MIDNIGHT)
    shard.put(
        {f"wheel:{TODAY}": {"z": MIDNIGHT - 1}, "days": {TODAY: int(TODAY)}, "jobs": {"z": record(fire=MIDNIGHT - 1)}}
    )
    assert take(shard, now=at(MIDNIGHT)).jobs[::2] == [b"z"]
    assert take(shard, now=at(MIDNIGHT + 1), day=TOMORROW).word == "ok"


def test_a_key_of_another_kind_hides_nothing(shard: Shard) -> None:
    shard.client.set(KEYS.offered(GROUP), "x", ex=60)
    shard.put({"jobs": {"a": record()}, f"wheel:{TODAY}": {"a": NOW}, "days": {TODAY: int(TODAY)}})
    assert take(shard).jobs[::2] == [b"a"]
    shard.client.delete(KEYS.offered(GROUP))


def test_what_is_offered_and_large_is_claimed_within_the_bytes_of_a_claim(shard: Shard) -> None:
    large = b"\x01\x00" + b"x" * 250_000
    names = [f"j{n:02d}" for n in range(12)]
    shard.put(
        {
            "jobs": {name: held(TOKEN, fire=FIRE, body=large) for name in names},
            "processing": dict.fromkeys(names, NOW + 1),
        }
    )
    give(shard, *names)
    shard.put({"jobs": {"other": record(fire=FIRE, body=large)}, f"wheel:{TODAY}": {"other": FIRE}})
    first = take(shard, 20, now=at(NOW + 1))
    assert len(first.jobs[::2]) == 9, "and one job of the bucket"
    assert first.jobs[:16:2] == [name.encode() for name in names[:8]]
    assert sorted(shard.keyspace()[f"offered:{GROUP}"]) == [hint(name) for name in names[8:]]


def test_a_group_whose_key_another_program_keeps_is_left_out_and_the_job_goes_round_soon(shard: Shard) -> None:
    put_held(shard, "a")
    shard.client.set(KEYS.offered(GROUP), "x", ex=60)
    assert give(shard, "a") == "o"
    assert shard.client.zscore(KEYS.wheel(TODAY), "a") == NOW + 1000
    put_held(shard, "b")
    assert give(shard, "b", groups=(GROUP, GROUP2), lane=LANE._replace(request="2")) == "o"
    assert shard.client.zscore(KEYS.wheel(TODAY), "b") == NOW + STANDS
    assert shard.client.zcard(KEYS.offered(GROUP2)) == 1
    shard.client.delete(KEYS.offered(GROUP))
