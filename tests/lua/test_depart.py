from __future__ import annotations

from typing import Any

import pytest

from zwheel.calls import Call, read_depart
from zwheel.calls.depart import (
    Departed,
    Leaving,
    WaitingSchedule,
    depart_day,
    depart_dedup,
    depart_schedules,
    depart_set,
)
from zwheel.times import DAY_MS

from .batches import STAMP, schedule
from .shard import (
    DIGEST,
    DIGEST2,
    KEYS,
    MIDNIGHT,
    NOW,
    NOW_US,
    TODAY,
    TOMORROW,
    Keyspace,
    Shard,
    at,
    held,
    meta,
    record,
)

CLOSED = {"shards": "8"}
OTHER_META: dict[str, Any] = {"shards": 8}


def run(shard: Shard, call: Call) -> Departed:
    reply = shard.run(call)
    assert reply[1] == at(NOW).encode()
    return read_depart(reply)


def day(shard: Shard, *, arrived: int | None = None, past: int = 0, limit: int = 10, name: str = TODAY) -> Departed:
    return run(shard, depart_day(KEYS, name, arrived=arrived, past=past, limit=limit, now=at(NOW)))


def ended(shard: Shard, which: str) -> Departed:
    return run(shard, depart_set(KEYS, which, arrived=None, past=0, limit=10, now=at(NOW)))


def plans(shard: Shard, *schedules: WaitingSchedule, arrived: int | None = None) -> Departed:
    return run(shard, depart_schedules(KEYS, schedules, arrived=arrived, now=at(NOW)))


def job(place: str, raw: bytes, score: int = NOW) -> bytes:
    """A job as `leaving` has it."""
    return f"{place}{score:015d}".encode() + raw


def left(number: int = NOW_US, fields: dict[str, bytes] | None = None, **more: bytes) -> dict[str, bytes]:
    """What `leaving` has, by the fields of `jobs`, and the number of the batch."""
    return {"#": str(number).encode(), **(fields or {}), **more}


def test_jobs_of_a_day_leave_the_latest_first_and_an_emptied_day_leaves_the_index(shard: Shard) -> None:
    later = record(fire=MIDNIGHT + 5)
    shard.put(
        {
            "jobs": {"a": record(fire=NOW + 1), "b": record(fire=NOW + 2), "c": record(fire=NOW + 3), "later": later},
            f"wheel:{TODAY}": {"a": NOW + 1, "b": NOW + 2, "c": NOW + 3},
            f"wheel:{TOMORROW}": {"later": MIDNIGHT + 5},
            "days": {TODAY: int(TODAY), TOMORROW: int(TOMORROW)},
            "meta": CLOSED,
        }
    )
    met = day(shard, limit=2)
    assert (met.word, met.number, met.stayed) == ("ok", NOW_US, 0)
    assert met.batch == [
        Leaving("s", b"c", str(NOW + 3), record(fire=NOW + 3), b""),
        Leaving("s", b"b", str(NOW + 2), record(fire=NOW + 2), b""),
    ]
    shard.leaves(
        {
            "jobs": {"a": record(fire=NOW + 1), "later": later},
            f"wheel:{TODAY}": {"a": NOW + 1},
            f"wheel:{TOMORROW}": {"later": MIDNIGHT + 5},
            "days": {TODAY: int(TODAY), TOMORROW: int(TOMORROW)},
            "leaving": left(
                jb=job("s", record(fire=NOW + 2), NOW + 2), jc=job("s", record(fire=NOW + 3), NOW + 3)
            ),
            "meta": meta(**OTHER_META),
        }
    )  # fmt: skip
    again = day(shard, arrived=met.number)
    assert (again.number, [one.name for one in again.batch]) == (NOW_US + 1, [b"a"])
    shard.leaves(
        {
            "jobs": {"later": later},
            f"wheel:{TOMORROW}": {"later": MIDNIGHT + 5},
            "days": {TOMORROW: int(TOMORROW)},
            "leaving": left(NOW_US + 1, ja=job("s", record(fire=NOW + 1), NOW + 1)),
            "meta": meta(NOW_US + 1, **OTHER_META),
        }
    )
    done = day(shard, arrived=again.number)
    assert (done.word, done.number, done.stayed, done.batch) == ("ok", 0, 0, [])
    assert "leaving" not in shard.keyspace()


def test_a_batch_that_has_not_arrived_is_given_again_and_nothing_more_leaves(shard: Shard) -> None:
    shard.put(
        {
            "jobs": {"a": record(), "b": record(fire=NOW + 1)}, f"wheel:{TODAY}": {"a": NOW, "b": NOW + 1},
            "days": {TODAY: int(TODAY)}, "meta": CLOSED,
        }
    )  # fmt: skip
    first = day(shard, limit=1)
    stored = shard.keyspace()
    for known in (None, 0, first.number - 1, first.number + 1):
        met = day(shard, arrived=known)
        assert (met.word, met.number, met.stayed, met.batch) == ("again", first.number, 0, first.batch)
        shard.leaves(stored)


def test_a_late_copy_of_a_call_loses_nothing(shard: Shard) -> None:
    """A mover asks; its call is cut off and repeated; the batch arrives and the next one leaves; then the copy arrives."""
    shard.put(
        {
            "jobs": {name: record() for name in "abcd"}, f"wheel:{TODAY}": dict.fromkeys("abcd", NOW),
            "days": {TODAY: int(TODAY)}, "meta": CLOSED,
        }
    )  # fmt: skip
    first = day(shard, limit=1)
    second = day(shard, arrived=first.number, limit=1)
    met = day(shard, arrived=first.number, limit=1)
    assert (met.word, met.number, met.batch) == ("again", second.number, second.batch)
    day(shard, arrived=second.number, limit=1)
    assert sorted(shard.keyspace()["jobs"]) == ["a"]
    # Of two movers one says that the second has arrived when a third is leaving.
    assert day(shard, arrived=second.number, limit=1).word == "again"
    assert sorted(shard.keyspace()["jobs"]) == ["a"]


def test_a_number_never_comes_again_when_the_server_lost_what_it_wrote_last(shard: Shard) -> None:
    before: Keyspace = {
        "jobs": {"a": record()}, f"wheel:{TODAY}": {"a": NOW}, "days": {TODAY: int(TODAY)}, "meta": CLOSED,
    }  # fmt: skip
    shard.put(before)
    lost = day(shard)
    shard.client.flushall()
    shard.put(before)
    call = depart_day(KEYS, TODAY, arrived=None, past=0, limit=10, now=at(NOW, 1))
    assert read_depart(shard.run(call)).number > lost.number


def test_a_shard_that_is_not_of_a_former_cut_gives_nothing(shard: Shard) -> None:
    before: Keyspace = {"jobs": {"a": record()}, f"wheel:{TODAY}": {"a": NOW}, "days": {TODAY: int(TODAY)}}
    shard.put(before)
    met = day(shard)
    assert (met.word, met.batch, met.stayed) == ("whole", [], 0)
    shard.leaves(before)


def test_bodies_dedup_keys_and_their_windows_leave_with_their_jobs(shard: Shard) -> None:
    large = b"x" * 2_000
    a, b, c = record(apart=2_000, digest=DIGEST), record(digest=DIGEST2), record(apart=2_000)
    shard.put(
        {
            "jobs": {"a": a, "b": b, "c": c, "d": record()},
            "bodies": {"a": large, "other": b"y"},
            f"wheel:{TODAY}": dict.fromkeys("abcd", NOW),
            "days": {TODAY: int(TODAY)},
            "dedup": {DIGEST: "a", DIGEST2: "another", "z" * 32: "another"},
            "dedup:expiry": {DIGEST: NOW + 9, DIGEST2: NOW + 9},
            "meta": CLOSED,
        }
    )
    met = day(shard)
    assert sorted(met.batch) == sorted(
        [
            Leaving("s", b"a", str(NOW), a, large), Leaving("s", b"b", str(NOW), b, b""),
            Leaving("s", b"c", str(NOW), c, b""), Leaving("s", b"d", str(NOW), record(), b""),
            Leaving("k", DIGEST.encode(), str(NOW + 9), b"a", b""),
        ]
    )  # fmt: skip
    leaving = left(
        ja=job("s", a), ba=large, jb=job("s", b), jc=job("s", c), jd=job("s", record()),
        fields={f"k{DIGEST}": b"%015d" % (NOW + 9) + b"a"},
    )  # fmt: skip
    shard.leaves(
        {
            "bodies": {"other": b"y"}, "dedup": {DIGEST2: "another", "z" * 32: "another"},
            "dedup:expiry": {DIGEST2: NOW + 9}, "leaving": leaving, "meta": meta(**OTHER_META),
        }
    )  # fmt: skip


def test_what_runs_stays_and_what_ended_leaves(shard: Shard) -> None:
    done, gone, dead = record("d", keep=9, body=b""), record("c", body=b""), record("x", failures=b"{}\n")
    shard.put(
        {
            "jobs": {"runs": held(1), "done": done, "gone": gone, "dead": dead},
            "processing": {"runs": NOW + 1}, "done": {"done": NOW + 9, "gone": NOW + 8}, "dead": {"dead": NOW - 7},
            "meta": CLOSED,
        }
    )  # fmt: skip
    assert ended(shard, "done").batch == [
        Leaving("d", b"done", str(NOW + 9), done, b""), Leaving("d", b"gone", str(NOW + 8), gone, b""),
    ]  # fmt: skip
    shard.client.delete(KEYS.leaving)
    assert ended(shard, "dead").batch == [Leaving("x", b"dead", str(NOW - 7), dead, b"")]
    shard.leaves(
        {
            "jobs": {"runs": held(1)}, "processing": {"runs": NOW + 1},
            "leaving": left(NOW_US + 1, jdead=job("x", dead, NOW - 7)), "meta": meta(NOW_US + 1, **OTHER_META),
        }
    )  # fmt: skip


def test_what_stays_is_passed_over_by_the_next_call(shard: Shard) -> None:
    """Occurrences leave with their schedule, and hide nothing behind them."""
    shard.put(
        {
            "jobs": {"s@1": record(fire=NOW + 3), "s@2": record(fire=NOW + 2), "a": record(fire=NOW + 1)},
            f"wheel:{TODAY}": {"s@1": NOW + 3, "s@2": NOW + 2, "a": NOW + 1}, "days": {TODAY: int(TODAY)},
            "schedules": {"s": schedule()}, "meta": CLOSED,
        }
    )  # fmt: skip
    met = day(shard, limit=2)
    assert (met.batch, met.stayed, met.number) == ([], 2, 0)
    met = day(shard, limit=2, past=2)
    assert ([one.name for one in met.batch], met.stayed) == ([b"a"], 0)
    assert shard.keyspace()[f"wheel:{TODAY}"] == {"s@1": NOW + 3, "s@2": NOW + 2}
    assert shard.keyspace()["days"] == {TODAY: int(TODAY)}
    shard.client.delete(KEYS.schedules)
    assert len(day(shard, arrived=met.number).batch) == 2


def test_ended_occurrences_of_a_schedule_stay_until_it_leaves(shard: Shard) -> None:
    """Where they were, the schedule still fires: an id that has ended is not put there again."""
    shard.put(
        {
            "jobs": {"s@1": record("d", body=b""), "t@1": record("x")}, "done": {"s@1": NOW + 9}, "dead": {"t@1": NOW},
            "schedules": {"s": schedule(), "t": schedule()}, "meta": CLOSED,
        }
    )  # fmt: skip
    assert [(ended(shard, which).batch, ended(shard, which).stayed) for which in ("done", "dead")] == [([], 1)] * 2
    shard.client.delete(KEYS.schedules)
    assert [len(ended(shard, "done").batch), ended(shard, "dead").word] == [1, "again"]


def test_a_schedule_leaves_with_its_occurrences_that_wait(shard: Shard) -> None:
    shard.put(
        {
            "schedules": {"s": schedule(), "p": schedule(letter="p")},
            "schedules:due": {"s": NOW + 9},
            "jobs": {
                "s@1": record(fire=NOW + 1, digest=DIGEST), "s@2": record(fire=MIDNIGHT), "s@0": record("d", body=b""),
                "other": record(fire=MIDNIGHT),
            },
            f"wheel:{TODAY}": {"s@1": NOW + 1},
            f"wheel:{TOMORROW}": {"s@2": MIDNIGHT, "other": MIDNIGHT},
            "days": {TODAY: int(TODAY), TOMORROW: int(TOMORROW)},
            "done": {"s@0": NOW + 9},
            "dedup": {DIGEST: "s@1"},
            "meta": CLOSED,
        }
    )  # fmt: skip
    ids = (("s@0", NOW), ("s@1", NOW + 1), ("s@2", MIDNIGHT), ("never", NOW))
    met = plans(shard, WaitingSchedule("s", STAMP, ids), WaitingSchedule("p", STAMP, ()))
    assert (met.word, met.stayed) == ("ok", 0)
    assert sorted(met.batch) == sorted(
        [
            Leaving("s", b"s@1", str(NOW + 1), record(fire=NOW + 1, digest=DIGEST), b""),
            Leaving("s", b"s@2", str(MIDNIGHT), record(fire=MIDNIGHT), b""),
            Leaving("k", DIGEST.encode(), "", b"s@1", b""),
            Leaving("n", b"s", str(NOW + 9), schedule().encode(), b""),
            Leaving("n", b"p", "", schedule(letter="p").encode(), b""),
        ]
    )
    kept = shard.keyspace()
    del kept["leaving"]
    assert kept == {
        "jobs": {"s@0": record("d", body=b""), "other": record(fire=MIDNIGHT)},
        f"wheel:{TOMORROW}": {"other": MIDNIGHT},
        "days": {TOMORROW: int(TOMORROW)},
        "done": {"s@0": NOW + 9},
        "meta": meta(**OTHER_META),
    }


@pytest.mark.parametrize(
    ("raw", "stamp"),
    [
        (held(1), STAMP),
        (record(fire=NOW), STAMP[:-1] + "1"),
        (record(fire=NOW + DAY_MS), STAMP),
    ],
    ids=["an occurrence runs", "it changed since it was read", "an occurrence was moved to a day that was not named"],
)
def test_a_schedule_stays_with_its_occurrences(shard: Shard, raw: bytes, stamp: str) -> None:
    home: Keyspace = {"processing": {"s@1": NOW + 1}} if raw[1:2] == b"p" else {f"wheel:{TODAY}": {"s@1": NOW}}
    before: Keyspace = {
        "schedules": {"s": schedule()}, "schedules:due": {"s": NOW}, "jobs": {"s@1": raw, "s@2": record()},
        "days": {TODAY: int(TODAY)}, "meta": CLOSED, **home,
    }  # fmt: skip
    before[f"wheel:{TODAY}"] = {**before.get(f"wheel:{TODAY}", {}), "s@2": NOW}
    shard.put(before)
    met = plans(shard, WaitingSchedule("s", stamp, (("s@1", NOW), ("s@2", NOW))), WaitingSchedule("gone", STAMP, ()))
    assert (met.word, met.number, met.stayed, met.batch) == ("ok", 0, 1, [])
    shard.leaves(before)


def test_an_occurrence_that_cannot_be_read_does_not_hold_its_schedule(shard: Shard) -> None:
    """It was set aside, or will be: it would hold the schedule, and the schedule would hold it."""
    shard.put(
        {
            "schedules": {"s": schedule()}, "jobs": {"s@1": record(version="3"), "s@2": record("p", version="3")},
            "dead": {"s@1": NOW, "s@2": NOW}, "meta": CLOSED,
        }
    )  # fmt: skip
    met = plans(shard, WaitingSchedule("s", STAMP, (("s@1", NOW), ("s@2", NOW))))
    assert [one.kind for one in met.batch] == ["n"]
    shard.client.delete(KEYS.leaving)
    assert len(ended(shard, "dead").batch) == 2


def test_no_more_than_a_thousand_occurrences_or_two_mib_of_them_leave_at_a_time(shard: Shard) -> None:
    fires = {f"{name}@{n}": NOW + n for name in "stu" for n in range(600)}
    shard.put(
        {
            "schedules": {name: schedule() for name in "stu"}, "meta": CLOSED, "days": {TODAY: int(TODAY)},
            "jobs": {job_id: record(fire=fire) for job_id, fire in fires.items()}, f"wheel:{TODAY}": fires,
        }
    )  # fmt: skip
    asked = [
        WaitingSchedule(name, STAMP, tuple((job_id, fire) for job_id, fire in fires.items() if job_id[0] == name))
        for name in "stu"
    ]
    met = plans(shard, *asked)
    assert ([one.name for one in met.batch if one.kind == "n"], met.stayed) == ([b"s"], 2)
    assert len(met.batch) == 601


def test_dedup_keys_leave_whose_jobs_are_gone(shard: Shard) -> None:
    third = "a" * 32
    shard.put(
        {
            "jobs": {"lives": held(1, digest=DIGEST2)}, "processing": {"lives": NOW + 1},
            "dedup": {DIGEST: "gone", DIGEST2: "lives", third: "gone too"},
            "dedup:expiry": {DIGEST: NOW + 9, DIGEST2: NOW + 8}, "meta": CLOSED,
        }
    )  # fmt: skip
    digests = [digest.encode() for digest in (DIGEST, DIGEST2, third, "f" * 32)]
    met = run(shard, depart_dedup(KEYS, digests, arrived=None, now=at(NOW)))
    assert (met.stayed, sorted(met.batch)) == (
        1,
        [
            Leaving("k", DIGEST.encode(), str(NOW + 9), b"gone", b""),
            Leaving("k", third.encode(), "", b"gone too", b""),
        ],
    )
    shard.leaves(
        {
            "jobs": {"lives": held(1, digest=DIGEST2)}, "processing": {"lives": NOW + 1}, "dedup": {DIGEST2: "lives"},
            "dedup:expiry": {DIGEST2: NOW + 8}, "meta": meta(**OTHER_META),
            "leaving": left(
                fields={f"k{DIGEST}": b"%015dgone" % (NOW + 9), f"k{third}": b"000000000000000gone too"}
            ),
        }
    )  # fmt: skip
    none = run(shard, depart_dedup(KEYS, [], arrived=met.number, now=at(NOW)))
    assert (none.word, none.number, none.batch) == ("ok", 0, [])
    assert "leaving" not in shard.keyspace()


def test_large_records_leave_two_mib_at_a_time(shard: Shard) -> None:
    large = record(body=b"x" * 900_000)
    shard.put(
        {"jobs": dict.fromkeys("abc", large), f"wheel:{TODAY}": {"a": NOW, "b": NOW + 1, "c": NOW + 2}, "meta": CLOSED}
    )
    met = day(shard)
    assert ([one.name for one in met.batch], met.stayed) == ([b"c", b"b"], 0)
