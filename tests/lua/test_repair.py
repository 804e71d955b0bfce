from __future__ import annotations

from typing import Any

import pytest

from zwheel.calls import Repaired, read_repair, repair
from zwheel.errors import SchemaMismatch

from .shard import (
    DIGEST,
    DIGEST2,
    KEYS,
    LATER,
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
    record_of_1,
)

FOUNDED = {"schema": "1", "epoch": "7"}


def look(shard: Shard, **named: Any) -> Repaired:
    """Look, and see that looking changed nothing."""
    before = shard.keyspace()
    call = repair(KEYS, mend=False, now=at(NOW), **named)
    answer = read_repair(call, shard.run(call))
    shard.leaves(before)
    return answer


def mend(shard: Shard, **named: Any) -> Repaired:
    call = repair(KEYS, mend=True, now=at(NOW), **named)
    return read_repair(call, shard.run(call))


def founded(**fields: Any) -> dict[str, str]:
    return meta(schema=1, epoch=7, **fields)


def both(shard: Shard, **named: Any) -> Repaired:
    """What a look finds is what a repair mends, and a second one finds nothing to mend."""
    found = look(shard, **named)
    answer = mend(shard, **named)
    assert (answer.jobs, answer.digests) == (found.jobs, found.digests)
    stored = shard.keyspace()
    again = mend(shard, **named)
    assert set(again.jobs + again.days + again.digests + again.schedules) <= {"c", "g", "m", "u"}
    assert again.fields == ()
    assert without_clock(shard.keyspace()) == without_clock(stored)
    return found


def without_clock(keyspace: Keyspace) -> Keyspace:
    """The clock moves with every call."""
    return keyspace | {"meta": {name: text for name, text in keyspace["meta"].items() if name != "clock"}}


def leaves(shard: Shard, keyspace: Keyspace) -> None:
    """Assert that the whole keyspace is this, whatever the clock says."""
    assert without_clock(shard.keyspace()) == without_clock(keyspace)


def consistent() -> Keyspace:
    """One job in each state, each in its place."""
    return {
        "jobs": {
            "waits": record(),
            "late": record(fire=MIDNIGHT),
            "runs": held(NOW_US - 9),
            "dead": record("x"),
            "done": record("d", keep=60, body=b""),
            "off": record("c", keep=60, body=b""),
        },
        f"wheel:{TODAY}": {"waits": NOW},
        f"wheel:{TOMORROW}": {"late": MIDNIGHT},
        "days": {TODAY: int(TODAY), TOMORROW: int(TOMORROW)},
        "processing": {"runs": NOW + 5},
        "dead": {"dead": NOW - 5},
        "done": {"done": NOW + 5, "off": NOW + 6},
        "meta": FOUNDED,
    }


def test_what_is_in_order_is_left_alone(shard: Shard) -> None:
    shard.put(consistent())
    ids = ["waits", "late", "runs", "dead", "done", "off", "never"]
    assert look(shard, days=[TODAY, TOMORROW], ids=ids) == Repaired("ccccccg", "cc", "", "", (), "1")
    assert mend(shard, days=[TODAY, TOMORROW], ids=ids) == Repaired("ccccccg", "cc", "", "", (), "1")
    leaves(shard, consistent() | {"meta": founded()})


def test_entries_without_a_record_go_and_are_counted(shard: Shard) -> None:
    shard.put(
        {
            f"wheel:{TODAY}": {"a": NOW},
            "days": {TODAY: int(TODAY)},
            "processing": {"b": NOW},
            "dead": {"c": NOW, "a": NOW},
            "done": {"d": NOW},
            "meta": FOUNDED | {"orphans": "3"},
        }
    )
    assert both(shard, days=[TODAY], ids=["a", "b", "c", "d"]).jobs == "oooo"
    leaves(shard, {"meta": founded(orphans=7)})


@pytest.mark.parametrize(
    ("job", "home"),
    [
        (record(), {f"wheel:{TODAY}": {"a": NOW}, "days": {TODAY: int(TODAY)}, "wake": ["1"]}),
        (held(NOW_US - 9), {"processing": {"a": NOW + 30_000}}),
        (record("x"), {"dead": {"a": NOW}}),
        (record("d", keep=60, body=b""), {"done": {"a": NOW + 60}}),
        (record("c", keep=70, body=b""), {"done": {"a": NOW + 70}}),
    ],
    ids=["scheduled", "processing", "dead", "done", "cancelled"],
)
def test_a_record_in_no_set_returns_to_the_set_it_names(shard: Shard, job: bytes, home: Keyspace) -> None:
    shard.put({"jobs": {"a": job}, "meta": FOUNDED})
    assert both(shard, days=[TODAY], ids=["a"]).jobs == "f"
    leaves(shard, {"jobs": {"a": job}, "meta": founded(orphans=1), **home})


def test_a_running_job_in_no_set_gets_the_lease_that_workers_here_use(shard: Shard) -> None:
    shard.put({"jobs": {"a": held(NOW_US - 9)}, "meta": FOUNDED | {"lease": "900"}})
    assert both(shard, ids=["a"]).jobs == "f"
    assert shard.keyspace()["processing"] == {"a": NOW + 900}


def test_a_job_in_two_sets_or_in_the_wrong_one_stays_in_its_own_only(shard: Shard) -> None:
    jobs = {"twice": record(), "wrong": record("x"), "day": record(fire=MIDNIGHT), "score": record()}
    shard.put(
        {
            "jobs": jobs,
            f"wheel:{TODAY}": {"twice": NOW, "day": MIDNIGHT, "score": NOW + 5},
            "days": {TODAY: int(TODAY)},
            "processing": {"twice": NOW + 5, "wrong": NOW + 5},
            "done": {"twice": NOW},
            "meta": FOUNDED,
        }
    )
    assert both(shard, days=[TODAY, TOMORROW], ids=list(jobs)).jobs == "ffff"
    leaves(
        shard,
        {
            "jobs": jobs,
            f"wheel:{TODAY}": {"twice": NOW, "score": NOW},
            f"wheel:{TOMORROW}": {"day": MIDNIGHT},
            "days": {TODAY: int(TODAY), TOMORROW: int(TOMORROW)},
            "dead": {"wrong": NOW},
            "meta": founded(orphans=4),
            "wake": ["1"],
        },
    )


def test_a_job_whose_day_was_not_named_is_not_touched(shard: Shard) -> None:
    shard.put({"jobs": {"a": record(fire=MIDNIGHT)}, "processing": {"a": NOW}, "meta": FOUNDED})
    assert both(shard, days=[TODAY], ids=["a"]).jobs == "m"
    leaves(shard, {"jobs": {"a": record(fire=MIDNIGHT)}, "processing": {"a": NOW}, "meta": founded()})


@pytest.mark.parametrize("newer", [record(version="3"), record_of_1(flags="08"), record_of_1(flags="10")])
def test_a_record_of_another_version_is_set_aside_only_when_it_is_in_no_set(shard: Shard, newer: bytes) -> None:
    jobs = {"lost": newer, "waits": newer}
    bucket = {f"wheel:{TODAY}": {"waits": NOW}, "days": {TODAY: int(TODAY)}}
    shard.put({"jobs": jobs, "meta": FOUNDED, **bucket})
    assert both(shard, days=[TODAY], ids=["lost", "waits"]).jobs == "pc"
    leaves(shard, {"jobs": jobs, "meta": founded(orphans=1), "dead": {"lost": NOW}, **bucket})


def test_the_index_of_days_is_made_to_name_just_the_buckets_with_jobs(shard: Shard) -> None:
    shard.put(
        {
            "jobs": {"a": record(fire=MIDNIGHT)},
            f"wheel:{TOMORROW}": {"a": MIDNIGHT},
            "days": {TODAY: int(TODAY)},
            "meta": FOUNDED,
        }
    )
    assert both(shard, days=[TODAY, TOMORROW]).days == "el"
    assert shard.keyspace()["days"] == {TOMORROW: int(TOMORROW)}
    assert without_clock(shard.keyspace())["meta"] == FOUNDED


def test_dedup_keys_of_jobs_that_are_gone_go_and_those_that_hold_stay(shard: Shard) -> None:
    kept = {DIGEST: "holder", DIGEST2: "ended"}
    others = {"1" * 32: "nobody", "2" * 32: "ended", "3" * 32: "again"}
    jobs = {"holder": record(digest=DIGEST), "ended": record("d", digest="2" * 32, body=b""), "again": record()}
    places = {
        f"wheel:{TODAY}": {"holder": NOW, "again": NOW},
        "days": {TODAY: int(TODAY)},
        "done": {"ended": NOW + 5},
    }
    expiry = {DIGEST2: NOW + 1, "2" * 32: NOW, "4" * 32: NOW + 9}
    shard.put({"jobs": jobs, "dedup": kept | others, "dedup:expiry": expiry, "meta": FOUNDED, **places})
    digests = [*kept, *others, "4" * 32, "5" * 32]
    assert both(shard, digests=digests).digests == "ccssssc"
    leaves(
        shard, {"jobs": jobs, "dedup": kept, "dedup:expiry": {DIGEST2: NOW + 1}, "meta": founded(orphans=4), **places}
    )


def test_a_key_held_by_a_record_of_another_version_is_believed(shard: Shard) -> None:
    shard.put({"jobs": {"a": record(version="3")}, "dedup": {DIGEST: "a"}, "meta": FOUNDED})
    assert both(shard, digests=[DIGEST]).digests == "c"


def test_a_queue_whose_meta_was_deleted_is_founded_anew_by_a_repair_only(shard: Shard) -> None:
    shard.put({"jobs": {"a": record()}, f"wheel:{TODAY}": {"a": NOW}, "days": {TODAY: int(TODAY)}})
    assert look(shard).schema == ""
    assert mend(shard).schema == ""
    assert shard.keyspace()["meta"] == meta(schema=1, epoch=NOW_US)
    assert mend(shard).schema == "1"
    assert shard.keyspace()["meta"]["epoch"] == str(NOW_US)


def test_a_waiting_poller_is_woken_for_a_job_that_returns_to_the_wheel(shard: Shard) -> None:
    keeper = {"keeper": "w", "keeper_at": str(NOW - 1), "keeper_end": str(NOW + 9)}
    shard.put({"jobs": {"a": record()}, "meta": FOUNDED | keeper})
    assert mend(shard, days=[TODAY], ids=["a"]).jobs == "f"
    assert "wake" not in shard.keyspace(), "the timekeeper wakes before this job is due"


def test_a_time_that_cannot_be_in_the_set_of_running_dead_or_ended_jobs_is_put_right(shard: Shard) -> None:
    jobs = {"runs": held(NOW_US - 9), "dead": record("x"), "done": record("d", keep=60, body=b"")}
    year = 365 * 86_400_000
    shard.put(
        {
            "jobs": jobs,
            "processing": {"runs": NOW + year},
            "dead": {"dead": NOW + year},
            "done": {"done": NOW + year},
            "meta": FOUNDED,
        }
    )
    assert both(shard, ids=list(jobs)).jobs == "ttt"
    places = {"processing": {"runs": NOW + 30_000}, "dead": {"dead": NOW}, "done": {"done": NOW + 60}}
    leaves(shard, {"jobs": jobs, **places, "meta": founded(orphans=3)})


ACTIVE, PAUSED, FINISHED, NEWER = "1a" + "5" * 16, "1p" + "5" * 16, "1f" + "5" * 16, "2a" + "5" * 16


def test_the_list_of_what_is_due_is_made_to_name_the_active_schedules_with_times_that_can_be(shard: Shard) -> None:
    stored = {
        "good": ACTIVE,
        "lost": ACTIVE,
        "late": ACTIVE,
        "below": ACTIVE,
        "off": PAUSED,
        "over": FINISHED,
        "new": NEWER,
    }
    rest = {"good": NOW + 5, "new": NOW + 6}
    wrong = {"late": NOW + 99, "below": -5, "off": NOW, "over": NOW, "ghost": 1}
    shard.put({"schedules": stored, "schedules:due": rest | wrong, "meta": FOUNDED})
    named = [("good", NOW + 5), ("lost", None), ("late", NOW + 98), ("below", None), ("off", None), ("over", None)]
    named += [("new", 1), ("ghost", None), ("never", None)]
    assert both(shard, schedules=named).schedules == "clssppuoc"
    due = rest | {"lost": NOW, "late": NOW, "below": NOW}
    leaves(shard, {"schedules": stored, "schedules:due": due, "meta": founded()})


def test_a_worker_tends_the_schedules_and_nothing_else(shard: Shard) -> None:
    shard.put({"schedules": {"a": ACTIVE}, "schedules:due": {"b": NOW}, "jobs": {"j": record()}, "days": {TODAY: 1}})
    call = repair(
        KEYS, schedules=[("a", None), ("b", None)], ids=["j"], days=[TODAY], mend=False, tend=True, now=at(NOW)
    )
    assert read_repair(call, shard.run(call)) == Repaired("f", "e", "", "lo", (), "")
    leaves_all = {"schedules": {"a": ACTIVE}, "schedules:due": {"a": NOW}, "jobs": {"j": record()}, "days": {TODAY: 1}}
    shard.leaves(leaves_all)


BAD_FIELDS = {
    "beat": "abc", "lease": "inf", "grace": "nan", "keeper_at": "-1", "keeper_end": str(NOW + 86_400_000),
    "second_end": "1e300", "cap": "0", "trimmed": "x", "orphans": "-2", "epoch": "\x1b[31m",
}  # fmt: skip


def test_fields_of_meta_that_cannot_be_go_and_the_rest_stays(shard: Shard) -> None:
    shard.put({"meta": FOUNDED | BAD_FIELDS | {"paused": "1"}})
    assert set(both(shard).fields) == set(BAD_FIELDS)
    leaves(shard, {"meta": {"schema": "1", "epoch": str(NOW_US), "paused": "1"}})


def test_fields_of_meta_that_can_be_stay(shard: Shard) -> None:
    fields = {"beat": NOW_US, "lease": 30_000, "grace": NOW + 30_000, "keeper_at": 2**53, "keeper_end": NOW + 3000}
    shard.put({"meta": founded(**fields, cap=5, trimmed=0, orphans=9, second_end=NOW - 10**9)})
    before = shard.keyspace()
    assert look(shard).fields == ()
    mend(shard)
    leaves(shard, before)


def test_the_keys_of_another_schema_are_not_touched(shard: Shard) -> None:
    shard.put({"schedules:due": {"ghost": 1}, "jobs": {"a": record()}, "meta": {"schema": "2"}})
    before = shard.keyspace()
    call = repair(KEYS, schedules=[("ghost", None)], ids=["a"], mend=True, now=at(NOW))
    with pytest.raises(SchemaMismatch, match="schema 2"):
        read_repair(call, shard.run(call))
    shard.leaves(before)


def place(shard: Shard, *ids: str, days: tuple[str, ...] = (TODAY,), clear: bool = False) -> str:
    call = repair(KEYS, days=days, ids=ids, mend=False, place=not clear, clear=clear, now=at(NOW))
    return read_repair(call, shard.run(call)).jobs


def test_what_another_version_set_aside_is_taken_back_to_where_its_record_says(shard: Shard) -> None:
    jobs = {
        "due": record(fire=NOW - 9),
        "soon": record(fire=NOW + 9),
        "far": record(fire=MIDNIGHT),
        "runs": held(NOW_US - 9),
        "dead": record("x"),
        "newer": record(version="3"),
    }
    aside = dict.fromkeys(jobs, NOW - 5)
    shard.put({"jobs": jobs, "dead": aside, "meta": FOUNDED | {"lease": "7000"}})
    assert place(shard, *jobs) == "ffmfcc"
    left: Keyspace = {
        "jobs": jobs | {"runs": held(NOW_US - 8)},
        f"wheel:{TODAY}": {"due": NOW - 9, "soon": NOW + 9},
        "days": {TODAY: int(TODAY)},
        "processing": {"runs": NOW},
        "dead": dict.fromkeys(("far", "dead", "newer"), NOW - 5),
        "meta": FOUNDED | {"lease": "7000"},
    }
    shard.leaves(left)
    assert place(shard, *jobs) == "ccmccc", "a second send finds nothing"
    assert place(shard, "far", days=(TOMORROW,)) == "f"
    del left["dead"]["far"]
    shard.leaves(left | {f"wheel:{TOMORROW}": {"far": MIDNIGHT}, "wake": ["1"],
                         "days": {TODAY: int(TODAY), TOMORROW: int(TOMORROW)}})  # fmt: skip


def test_a_job_that_went_on_while_it_was_aside_is_cleared_off_the_dead_set_and_stays_where_it_is(shard: Shard) -> None:
    jobs = {"runs": held(NOW_US - 9), "ended": record("d", keep=60, body=b""), "waits": record(fire=NOW + 9)}
    homes = {"processing": {"runs": NOW + 3}, "done": {"ended": NOW + 60}, f"wheel:{TODAY}": {"waits": NOW + 9}}
    index = {"days": {TODAY: int(TODAY)}}
    before = {"jobs": jobs, "dead": dict.fromkeys([*jobs, "gone"], NOW), "meta": FOUNDED} | homes | index
    shard.put(before)
    assert place(shard, *jobs, "gone") == "feee", "one that is held was renewed since"
    shard.leaves(before | {"dead": dict.fromkeys(("ended", "waits", "gone"), NOW)})
    assert place(shard, *jobs, "gone", clear=True) == "cffo"
    shard.leaves({"jobs": jobs, "meta": FOUNDED, "wake": ["1"]} | homes | index)


@pytest.mark.parametrize("clear", [False, True])
def test_taking_back_puts_nothing_else_right(shard: Shard, clear: bool) -> None:
    broken: Keyspace = {
        "days": {LATER: int(LATER)}, "meta": BAD_FIELDS, "schedules:due": {"ghost": NOW}, "processing": {"lost": NOW},
        "jobs": {"a": record("x"), "b": record("x"), "c": record(), "d": record(version="3")},
        "dead": {"a": NOW, "b": NOW + 365 * 86_400_000},
    }  # fmt: skip
    shard.put(broken)
    assert place(shard, "a", "b", "c", "d", "lost", clear=clear) == "ccccc"
    shard.leaves(broken)


def test_taking_back_ends_early_when_the_records_come_to_two_mebibytes(shard: Shard) -> None:
    body = b"x" * 900_000
    names = ["a", "b", "c", "d"]
    shard.put({"jobs": {name: record(body=body) for name in names}, "dead": dict.fromkeys(names, NOW)})
    assert place(shard, *names) == "ffll"
    assert place(shard, "c", "d") == "ff"
    assert set(shard.keyspace()[f"wheel:{TODAY}"]) == set(names)
