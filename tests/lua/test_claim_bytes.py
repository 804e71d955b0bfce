"""claim: how many bytes it takes at a time."""

from __future__ import annotations

import pytest

from .shard import LANE, NOW, TODAY, Shard, record
from .test_claim import take, today

LARGE = b"\x01\x00" + b"x" * 250_000


def test_a_claim_ends_when_its_bytes_are_used_and_wakes_another_for_the_rest(shard: Shard) -> None:
    names = [f"j{n:02d}" for n in range(20)]
    shard.put(
        {
            "jobs": {name: record(body=LARGE) for name in names},
            f"wheel:{TODAY}": dict.fromkeys(names, NOW),
            "days": {TODAY: int(TODAY)},
        }
    )
    first = take(shard, 20)
    assert [bytes(name).decode() for name in first.jobs[::2]] == names[:8]
    assert (first.word, first.next_fire_ms, first.role) == ("ok", NOW, "none")
    after = shard.keyspace()
    assert after["wake"] == ["1"], "another worker may have room and bytes"
    assert sorted(after[f"wheel:{TODAY}"]) == names[8:]
    assert sorted(after["processing"]) == names[:8]
    assert [record for name, record in after["jobs"].items() if name in names[8:]] == [record(body=LARGE)] * 12
    second = take(shard, 20, lane=LANE._replace(request="2"))
    assert [bytes(name).decode() for name in second.jobs[::2]] == names[8:16]
    last = take(shard, 20, lane=LANE._replace(request="3"))
    assert [bytes(name).decode() for name in last.jobs[::2]] == names[16:]


def test_the_first_job_is_claimed_however_large_it_is(shard: Shard) -> None:
    huge = b"\x01\x00" + b"x" * 3_000_000
    shard.put(
        {
            "jobs": {"a": record(body=huge), "b": record(body=huge), "c": record()},
            f"wheel:{TODAY}": {"a": NOW - 2, "b": NOW - 1, "c": NOW},
            "days": {TODAY: int(TODAY)},
        }
    )
    for number, name in enumerate((b"a", b"b", b"c")):
        assert take(shard, lane=LANE._replace(request=str(number + 1))).jobs[::2] == [name]


def test_what_is_damaged_and_large_counts_too_and_ends_no_claim_for_good(shard: Shard) -> None:
    jobs = {f"o{n}": b"nonsense" + LARGE for n in range(20)} | {"z": record()}
    shard.put({"jobs": jobs, f"wheel:{TODAY}": dict.fromkeys(jobs, NOW - 1) | {"z": NOW}, "days": {TODAY: int(TODAY)}})
    claimed = [take(shard, 20, lane=LANE._replace(request=str(n))).jobs[::2] for n in range(1, 4)]
    assert claimed == [[], [], [b"z"]]


@pytest.mark.parametrize("count", [1, 3, 4, 5, 19, 20, 21, 83, 84, 85, 86, 300])
def test_small_jobs_are_claimed_all_at_once_whatever_slices_they_are_read_in(shard: Shard, count: int) -> None:
    shard.put(today(**{f"j{n:03d}": NOW for n in range(count)}))
    assert len(take(shard, 300).jobs) == 2 * count
    assert f"wheel:{TODAY}" not in shard.keyspace()
