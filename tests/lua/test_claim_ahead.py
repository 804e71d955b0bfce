"""Claims of a precise queue: they take jobs a few ms ahead of their time."""

from __future__ import annotations

import pytest

from zwheel.calls import Claimed

from .shard import MIDNIGHT, NOW, NOW_US, TODAY, TOMORROW, Keyspace, Shard, at, held, record
from .test_claim import LEASE, keeper, take, today, worker_meta


def precise(**fires: int) -> Keyspace:
    """The same of a precise queue."""
    return today(**fires) | {"meta": {"precise": "1"}}


def test_of_a_precise_queue_a_claim_takes_what_is_due_within_the_next_ms(shard: Shard) -> None:
    shard.put(precise(now=NOW, soon=NOW + 5, late=NOW + 6))
    taken = [held(NOW_US + 999), held(NOW_US + 999, fire=NOW + 5)]
    claimed = take(shard, now=at(NOW, 999), ahead=5)
    assert claimed == Claimed(
        "ok", NOW_US + 999, NOW + 6, TODAY, "timekeeper", 0, [b"now", taken[0], b"soon", taken[1]], jumps=0, ahead_ms=5
    )
    assert claimed.early
    shard.leaves(
        {
            "jobs": {"now": taken[0], "soon": taken[1], "late": record(fire=NOW + 6)},
            "processing": {"now": NOW + LEASE, "soon": NOW + LEASE},
            f"wheel:{TODAY}": {"late": NOW + 6},
            "days": {TODAY: int(TODAY)},
            "meta": worker_meta(NOW_US + 999, precise=1, **keeper(NOW + 6)),
            "replay:caller:0": f"request-1 {NOW_US + 999:016d} now soon",
        }
    )


@pytest.mark.parametrize(("precisely", "ahead"), [(False, 5), (True, 0)])
def test_any_other_claim_takes_only_what_is_due(shard: Shard, precisely: bool, ahead: int) -> None:
    shard.put((precise if precisely else today)(now=NOW, soon=NOW + 1))
    claimed = take(shard, now=at(NOW, 999), ahead=ahead)
    assert (claimed.jobs[::2], claimed.next_fire_ms, claimed.ahead_ms, claimed.early) == ([b"now"], NOW + 1, 0, False)


def test_no_claim_reaches_further_ahead_than_ten_ms(shard: Shard) -> None:
    shard.put(precise(ten=NOW + 10, eleven=NOW + 11))
    claimed = take(shard, ahead=86_400_000)
    assert (claimed.jobs[::2], claimed.ahead_ms) == ([b"ten"], 10)


def test_a_full_claim_of_a_precise_queue_calls_another_for_what_is_nearly_due(shard: Shard) -> None:
    shard.put(precise(a=NOW + 1, b=NOW + 2))
    claimed = take(shard, 1, ahead=5)
    assert (claimed.jobs[::2], claimed.role, claimed.next_fire_ms) == ([b"a"], "none", NOW + 2)
    assert shard.keyspace()["wake"] == ["1"]


def test_a_repeat_of_a_claim_that_was_ahead_gets_the_same_jobs(shard: Shard) -> None:
    shard.put(precise(soon=NOW + 5))
    first, again = take(shard, ahead=5), take(shard, now=at(NOW + 1), ahead=5)
    assert (again.word, again.jobs, again.ahead_ms, again.early) == ("ok", first.jobs, 5, True)


def test_a_job_of_a_precise_queue_may_lie_behind_midnight(shard: Shard) -> None:
    shard.put(
        {"meta": {"precise": "1"}, "jobs": {"a": record(fire=MIDNIGHT + 2)}, "days": {TOMORROW: int(TOMORROW)}}
        | {f"wheel:{TOMORROW}": {"a": MIDNIGHT + 2}}
    )
    assert take(shard, day=TOMORROW, now=at(MIDNIGHT - 3), ahead=5).jobs[::2] == [b"a"]
