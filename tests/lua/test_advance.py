from __future__ import annotations

from zwheel.calls import Advance, After, NewOccurrence, advance, read_advance
from zwheel.record import record_tail
from zwheel.times import DAY_MS

from .batches import STAMP, TAIL, schedule
from .shard import KEYS, LATER, MIDNIGHT, NOW, NOW_US, TODAY, TOMORROW, Shard, at, held, meta, record

TOKEN = f"{NOW_US:016d}"
REST = record_tail("mail.send", max_attempts=3, keep_ms=60_000) + b"\x01\x00\xff\n"
NEXT = '\n{"cursor":2}\n{"name":"s"}'


def job(name: str, fire: int) -> NewOccurrence:
    return NewOccurrence(name, fire, REST)


def stored(fire: int) -> bytes:
    return record(fire=fire, token=NOW_US, keep=60_000)


def run(shard: Shard, *batch: Advance) -> list[str]:
    call = advance(KEYS, batch, now=at(NOW))
    reply = shard.run(call)
    assert reply[1] == at(NOW).encode()
    return read_advance(call, reply)


def test_an_occurrence_goes_on_the_wheel_and_the_schedule_moves_on(shard: Shard) -> None:
    shard.put({"schedules": {"s": schedule()}, "schedules:due": {"s": NOW}})
    free = After("a", NOW + DAY_MS, NEXT, [job("s@1", NOW + 5), job("s@2", MIDNIGHT)])
    assert run(shard, Advance("s", STAMP, free)) == ["acc"]
    shard.leaves(
        {
            "schedules": {"s": f"1a{TOKEN}{NEXT}"},
            "schedules:due": {"s": NOW + DAY_MS},
            "jobs": {"s@1": stored(NOW + 5), "s@2": stored(MIDNIGHT)},
            f"wheel:{TODAY}": {"s@1": NOW + 5},
            f"wheel:{TOMORROW}": {"s@2": MIDNIGHT},
            "days": {TODAY: int(TODAY), TOMORROW: int(TOMORROW)},
            "wake": ["1"],
            "meta": meta(),
        }
    )


def test_whoever_built_on_an_older_record_changes_nothing(shard: Shard) -> None:
    before = {
        "schedules": {"s": schedule(TOKEN), "paused": schedule(letter="p"), "newer": "2" + schedule()[1:]},
        "schedules:due": {"s": NOW, "paused": NOW, "newer": NOW},
    }
    shard.put(before)
    free = After("a", NOW + 9, NEXT, [job("s@1", NOW)])
    batch = [Advance(name, STAMP, free) for name in ("s", "paused", "newer", "gone")]
    assert run(shard, *batch) == ["s", "s", "s", "s"]
    shard.leaves(before | {"meta": meta()})


def test_two_callers_that_read_the_same_record_put_one_job_on_the_wheel(shard: Shard) -> None:
    shard.put({"schedules": {"s": schedule()}, "schedules:due": {"s": NOW}})
    one = Advance("s", STAMP, After("a", NOW + 9, NEXT, [job("s@1", NOW + 5)]))
    assert run(shard, one) == ["ac"]
    call = advance(KEYS, [one], now=at(NOW, 7))
    assert read_advance(call, shard.run(call)) == ["s"]
    assert shard.keyspace()[f"wheel:{TODAY}"] == {"s@1": NOW + 5}


def test_an_occurrence_that_exists_is_not_put_there_again(shard: Shard) -> None:
    tombstone = record("d", keep=60_000, body=b"")
    shard.put(
        {
            "schedules": {"s": schedule()}, "schedules:due": {"s": NOW}, "jobs": {"s@1": tombstone},
            "done": {"s@1": NOW + 9},
        }
    )  # fmt: skip
    free = After("f", None, NEXT, [job("s@1", NOW), job("s@2", NOW + 2 * DAY_MS), job("s@2", NOW)])
    assert run(shard, Advance("s", STAMP, free)) == ["aici"]
    shard.leaves(
        {
            "schedules": {"s": f"1f{TOKEN}{NEXT}"},
            "jobs": {"s@1": tombstone, "s@2": stored(NOW + 2 * DAY_MS)},
            "done": {"s@1": NOW + 9},
            f"wheel:{LATER}": {"s@2": NOW + 2 * DAY_MS},
            "days": {LATER: int(LATER)},
            "wake": ["1"],
            "meta": meta(),
        }
    )


def test_while_the_occurrence_before_is_active_the_other_outcome_holds(shard: Shard) -> None:
    jobs = {
        "waits": record(fire=NOW), "runs": held(1), "ended": record("d", keep=9, body=b""), "dead": record("x"),
        "cancelled": record("c", keep=9, body=b""),
    }  # fmt: skip
    names = [*jobs, "missing"]
    shard.put(
        {
            "schedules": dict.fromkeys(names, schedule()),
            "schedules:due": dict.fromkeys(names, NOW),
            "jobs": jobs,
            "processing": {"runs": NOW + 1},
            "done": {"ended": NOW + 9, "cancelled": NOW + 9},
            "dead": {"dead": NOW},
            f"wheel:{TODAY}": {"waits": NOW},
            "days": {TODAY: int(TODAY)},
        }
    )
    busy = After("a", NOW + 1000, TAIL)
    batch = [
        Advance(name, STAMP, After("a", NOW + 9, NEXT, [job(f"{name}@1", NOW)]), before=name, busy=busy)
        for name in names
    ]
    assert run(shard, *batch) == ["b", "b", "ac", "ac", "ac", "ac"]
    left = shard.keyspace()
    assert left["schedules"]["waits"] == left["schedules"]["runs"] == f"1a{TOKEN}{TAIL}"
    assert left["schedules:due"] == {
        "waits": NOW + 1000, "runs": NOW + 1000, "ended": NOW + 9, "dead": NOW + 9, "cancelled": NOW + 9,
        "missing": NOW + 9,
    }  # fmt: skip
    assert left[f"wheel:{TODAY}"] == {
        "waits": NOW, "ended@1": NOW, "dead@1": NOW, "cancelled@1": NOW, "missing@1": NOW
    }  # fmt: skip


def test_nothing_is_touched_that_another_version_wrote(shard: Shard) -> None:
    before = {"schedules": {"s": schedule()}, "schedules:due": {"s": NOW}, "meta": {"schema": "9"}}
    shard.put(before)
    reply = shard.run(advance(KEYS, [Advance("s", STAMP, After("a", 5, NEXT))], now=at(NOW)))
    assert reply == [b"foreign", at(NOW).encode(), b"9"]
    shard.leaves(before)
