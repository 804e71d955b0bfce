from __future__ import annotations

from typing import Any

import pytest

from zwheel.calls import After, Lane, ShardsChanged, define, read_define
from zwheel.calls.define import Defined, Late
from zwheel.times import DAY_MS

from .batches import STAMP, TAIL, schedule
from .shard import KEYS, LANE, LANE2, MIDNIGHT, NOW, TODAY, TOMORROW, Keyspace, Shard, at, held, meta, record, refused
from .test_advance import NEXT, TOKEN, job, stored

FOUNDED: dict[str, Any] = {"schema": "1", "epoch": "5"}
DELETED = After("", None, "")


def run(
    shard: Shard,
    after: After,
    *,
    stamp: str = STAMP,
    back: dict[str, int] | None = None,
    name: str = "s",
    lane: Lane = LANE,
) -> Defined:
    call = define(
        KEYS, name, stamp=stamp, after=after, back=list((back or {}).items()), lane=lane, now=at(NOW)
    )  # fmt: skip
    reply = shard.run(call)
    assert reply[1] == at(NOW).encode()
    return read_define(call, reply)


def test_a_new_schedule_founds_its_queue_and_fires_at_once(shard: Shard) -> None:
    assert run(shard, After("a", NOW + 9, TAIL, [job("s@1", NOW + 5)]), stamp="") == Defined("ok", "c")
    shard.leaves(
        {
            "schedules": {"s": f"1a{TOKEN}{TAIL}"},
            "schedules:due": {"s": NOW + 9},
            "jobs": {"s@1": stored(NOW + 5)},
            f"wheel:{TODAY}": {"s@1": NOW + 5},
            "days": {TODAY: int(TODAY)},
            "wake": ["1"],
            "meta": meta(schema="1", epoch=at(NOW)),
            "replay:caller:0": "request-1 c",
        }
    )


def test_a_schedule_that_is_not_as_it_was_read_stays_as_it_is(shard: Shard) -> None:
    before: Keyspace = {"schedules": {"s": schedule(TOKEN)}, "schedules:due": {"s": NOW}, "meta": FOUNDED}
    shard.put(before)
    after = After("a", NOW, NEXT, [job("s@1", NOW)])
    assert run(shard, after).word == "stale"
    shard.leaves(before | refused("stale"))
    assert run(shard, after, stamp="", lane=LANE2).word == "stale"
    assert run(shard, after, name="gone", lane=LANE).word == "stale"
    shard.leaves(before | refused("stale"))


def test_the_shard_of_a_queue_that_has_others_takes_no_new_schedule(shard: Shard) -> None:
    before: Keyspace = {"meta": {"shards": "8"}}
    shard.put(before)
    after = After("a", NOW + 9, TAIL, [job("s@1", NOW + 5)])
    with pytest.raises(ShardsChanged) as met:
        run(shard, after, stamp="")
    assert (met.value.count, met.value.former) == (8, None)
    shard.leaves(before | refused("shards", "8"))


def test_a_schedule_of_the_former_cut_goes_on_until_it_leaves(shard: Shard) -> None:
    shard.put({"schedules": {"s": schedule()}, "meta": {**FOUNDED, "shards": "8"}})
    assert run(shard, After("a", NOW + 9, NEXT, [job("s@1", NOW)])) == Defined("ok", "c")
    assert shard.keyspace()["schedules"] == {"s": f"1a{TOKEN}{NEXT}"}


@pytest.mark.parametrize(("moving", "stamp"), [("4", ""), ("4", "3"), ("!4", ""), ("!4", "4"), ("4", "0000000000004")])
def test_a_new_cut_takes_new_schedules_from_those_who_looked_in_the_former_one(
    shard: Shard, moving: str, stamp: str
) -> None:
    before: Keyspace = {"meta": {**FOUNDED, "moving": moving}}
    shard.put(before)
    after = After("a", NOW + 9, TAIL, [job("s@1", NOW + 5)])
    with pytest.raises(ShardsChanged) as met:
        run(shard, after, stamp=stamp)
    assert (met.value.count, met.value.former, met.value.unopened) == (None, 4, moving[0] == "!")
    shard.leaves(before | refused("moving", moving))
    if moving == "4":
        assert run(shard, after, stamp="4", lane=LANE2) == Defined("ok", "c")
        assert shard.keyspace()["schedules"] == {"s": f"1a{TOKEN}{TAIL}"}
        assert run(shard, after, stamp="4", lane=LANE._replace(request="request-3")).word == "stale"


def test_a_schedule_that_came_to_a_new_cut_is_written_by_its_stamp(shard: Shard) -> None:
    shard.put({"schedules": {"s": schedule()}, "meta": {**FOUNDED, "moving": "4"}})
    assert run(shard, After("p", None, NEXT)) == Defined("ok")


@pytest.mark.parametrize("moving", ["", "abc", "-4", "!", "4 8", "\x00", b"\xff"])
def test_what_no_cut_can_be_moves_nothing(shard: Shard, moving: Any) -> None:
    shard.put({"meta": {**FOUNDED, "moving": moving}})
    assert run(shard, After("p", None, NEXT), stamp="") == Defined("ok")


def test_an_edit_takes_back_what_waits_and_puts_the_new_there(shard: Shard) -> None:
    shard.put(
        {
            "schedules": {"s": schedule()},
            "schedules:due": {"s": NOW},
            "jobs": {"s@1": record(fire=NOW + 1), "s@2": record(fire=MIDNIGHT), "other": record(fire=MIDNIGHT)},
            f"wheel:{TODAY}": {"s@1": NOW + 1},
            f"wheel:{TOMORROW}": {"s@2": MIDNIGHT, "other": MIDNIGHT},
            "days": {TODAY: int(TODAY), TOMORROW: int(TOMORROW)},
            "meta": FOUNDED,
        }
    )
    after = After("a", NOW + DAY_MS, NEXT, [job("s@2", MIDNIGHT + 1)])
    assert run(shard, after, back={"s@1": NOW + 1, "s@2": MIDNIGHT}) == Defined("ok", "c")
    shard.leaves(
        {
            "schedules": {"s": f"1a{TOKEN}{NEXT}"},
            "schedules:due": {"s": NOW + DAY_MS},
            "jobs": {"s@2": stored(MIDNIGHT + 1), "other": record(fire=MIDNIGHT)},
            f"wheel:{TOMORROW}": {"s@2": MIDNIGHT + 1, "other": MIDNIGHT},
            "days": {TOMORROW: int(TOMORROW)},
            "wake": ["1"],
            "meta": meta(**FOUNDED),
            "replay:caller:0": "request-1 c",
        }
    )


def test_what_has_left_the_wheel_is_named_and_nothing_changes(shard: Shard) -> None:
    jobs = {
        "runs": held(1), "done": record("d", keep=9, body=b""), "dead": record("x"), "again": record(attempt=1),
        "waits": record(), "moved": record(fire=NOW + 1), "cancelled": record("c", keep=9, body=b""),
    }  # fmt: skip
    before: Keyspace = {
        "schedules": {"s": schedule()},
        "schedules:due": {"s": NOW},
        "jobs": jobs,
        "processing": {"runs": NOW + 1},
        "done": {"done": NOW + 9, "cancelled": NOW + 9},
        "dead": {"dead": NOW},
        f"wheel:{TODAY}": {"again": NOW, "waits": NOW, "moved": NOW + 1},
        "days": {TODAY: int(TODAY)},
        "meta": FOUNDED,
    }
    shard.put(before)
    back = dict.fromkeys([*jobs, "never"], NOW)
    met = run(shard, After("a", NOW, NEXT, [job("s@1", NOW)]), back=back)
    assert met == Defined("started", started=("runs", "done", "dead", "again", "moved", "cancelled", "never"))
    shard.leaves(before | refused("started", "runs done dead again moved cancelled never"))
    assert run(shard, After("a", NOW, NEXT), back=back) == met, "the first answer again"
    met = run(shard, After("p", None, NEXT), back={"waits": NOW}, lane=LANE2)
    assert met == Defined("ok")
    left = shard.keyspace()
    assert left[f"wheel:{TODAY}"] == {"again": NOW, "moved": NOW + 1}
    assert set(left["jobs"]) == {"runs", "done", "dead", "again", "moved", "cancelled"}
    assert left["schedules"] == {"s": f"1p{TOKEN}{NEXT}"}
    assert "schedules:due" not in left


def test_a_deleted_schedule_leaves_nothing_behind(shard: Shard) -> None:
    shard.put(
        {
            "schedules": {"s": schedule()}, "schedules:due": {"s": NOW}, "jobs": {"s@1": record()},
            f"wheel:{TODAY}": {"s@1": NOW}, "days": {TODAY: int(TODAY)}, "meta": FOUNDED,
        }
    )  # fmt: skip
    assert run(shard, DELETED, back={"s@1": NOW}) == Defined("ok")
    shard.leaves({"meta": meta(**FOUNDED), "replay:caller:0": "request-1 "})


def test_an_occurrence_that_exists_is_not_put_there_again(shard: Shard) -> None:
    shard.put({"jobs": {"s@1": held(1)}, "processing": {"s@1": NOW + 1}, "meta": FOUNDED})
    assert run(shard, After("f", None, TAIL, [job("s@1", NOW)]), stamp="") == Defined("ok", "i")
    left = shard.keyspace()
    assert left["jobs"] == {"s@1": held(1)}
    assert left["schedules"] == {"s": f"1f{TOKEN}{TAIL}"}
    assert "schedules:due" not in left
    assert "wake" not in left


def test_nothing_is_touched_that_another_version_wrote(shard: Shard) -> None:
    before: Keyspace = {"schedules": {"s": schedule()}, "meta": {"schema": "9"}}
    shard.put(before)
    call = define(KEYS, "s", stamp=STAMP, after=DELETED, lane=LANE, now=at(NOW))
    assert shard.run(call) == [b"foreign", at(NOW).encode(), b"9"]
    shard.leaves(before | refused("foreign", "9"))


def test_a_job_of_a_paused_schedule_wakes_a_worker(shard: Shard) -> None:
    shard.put({"schedules": {"s": schedule(letter="p")}, "meta": FOUNDED})
    assert run(shard, After("p", None, TAIL, [job("s@1", NOW)])) == Defined("ok", "c")
    assert shard.keyspace()["wake"] == ["1"]


def give_back(shard: Shard, *late: Late, back: dict[str, int] | None = None) -> Defined:
    after = After("a", NOW, NEXT)
    call = define(
        KEYS, "s", stamp=STAMP, after=after, back=list((back or {}).items()), late=late, lane=LANE, now=at(NOW)
    )
    return read_define(call, shard.run(call))


def test_what_was_claimed_too_late_goes_back_to_its_schedule_with_what_waits_as_late(shard: Shard) -> None:
    shard.put(
        {
            "schedules": {"s": schedule()}, "schedules:due": {"s": NOW + 9}, "meta": FOUNDED,
            "jobs": {"s@1": held(7), "s@2": record(fire=NOW - 9), "other": held(8)},
            "processing": {"s@1": NOW + 1, "other": NOW + 1},
            f"wheel:{TODAY}": {"s@2": NOW - 9}, "days": {TODAY: int(TODAY)},
        }
    )  # fmt: skip
    assert give_back(shard, Late("s@1", f"{7:016d}", NOW - 1), back={"s@2": NOW - 9}) == Defined("ok", "")
    shard.leaves(
        {
            "schedules": {"s": f"1a{TOKEN}{NEXT}"}, "schedules:due": {"s": NOW},
            "jobs": {"other": held(8)}, "processing": {"other": NOW + 1},
            "wake": ["1"], "meta": meta(**FOUNDED), "replay:caller:0": "request-1 ",
        }
    )  # fmt: skip


def test_what_another_holds_or_nobody_is_not_given_back(shard: Shard) -> None:
    before: Keyspace = {
        "schedules": {"s": schedule()}, "schedules:due": {"s": NOW}, "meta": FOUNDED,
        "jobs": {"s@1": held(7), "s@2": record(fire=NOW - 9)}, "processing": {"s@1": NOW + 1},
        f"wheel:{TODAY}": {"s@2": NOW - 9}, "days": {TODAY: int(TODAY)},
    }  # fmt: skip
    shard.put(before)
    late = [Late(job_id, f"{6:016d}", NOW - 1) for job_id in ("s@1", "s@2", "gone")]
    assert give_back(shard, *late) == Defined("started", started=("s@1", "s@2", "gone"))
    shard.leaves(before | refused("started", "s@1 s@2 gone"))


def test_what_may_still_start_is_not_given_back(shard: Shard) -> None:
    before: Keyspace = {
        "schedules": {"s": schedule()}, "schedules:due": {"s": NOW}, "meta": FOUNDED,
        "jobs": {"s@1": held(7), "s@2": held(7)}, "processing": {"s@1": NOW + 1, "s@2": NOW + 1},
    }  # fmt: skip
    shard.put(before)
    late = [Late("s@1", f"{7:016d}", NOW), Late("s@2", f"{7:016d}", NOW - 1)]
    assert give_back(shard, *late) == Defined("early", started=("s@1",))
    shard.leaves(before | refused("early", "s@1"))
