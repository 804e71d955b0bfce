from __future__ import annotations

import pytest

from zwheel.calls import extend, read_letters

from .shard import KEYS, NOW, NOW_US, OTHER_WORKER, Shard, at, digits16, held, meta, record

LEASE = 30_000
TOKEN = NOW_US - 1_000_000


def run(shard: Shard, *pairs: tuple[str, int], lease: int = LEASE, now: str = at(NOW)) -> str | None:
    held_pairs = [(job_id, digits16(token)) for job_id, token in pairs]
    return read_letters(shard.run(extend(KEYS, held_pairs, lease_ms=lease, now=now)))


def test_a_held_job_keeps_its_record_and_gets_a_new_deadline(shard: Shard) -> None:
    jobs = {"a": held(TOKEN), "late": held(TOKEN)}
    shard.put({"jobs": jobs, "processing": {"a": NOW + 1, "late": NOW - 99_999}})
    assert run(shard, ("a", TOKEN), ("late", TOKEN)) == "kk"
    shard.leaves(
        {"jobs": jobs, "processing": {"a": NOW + LEASE, "late": NOW + LEASE}, "meta": meta(beat=True, lease=LEASE)}
    )


def test_a_stale_token_and_a_missing_job_are_named_and_change_no_lease(shard: Shard) -> None:
    before = {
        "jobs": {"later": held(TOKEN + 1, worker=OTHER_WORKER), "waits": record(token=TOKEN)},
        "processing": {"later": NOW + 7},
        "wheel:20300317": {"waits": NOW},
        "days": {"20300317": 20300317},
    }
    shard.put(before)
    assert run(shard, ("later", TOKEN), ("waits", TOKEN), ("never", TOKEN)) == "ffm"
    shard.leaves(before | {"meta": meta(beat=True, lease=LEASE)})


@pytest.mark.parametrize("token", [TOKEN - 10**12, NOW_US + 10**12], ids=["long ago", "ahead of the clock"])
def test_a_token_is_no_time_and_its_age_does_not_matter(shard: Shard, token: int) -> None:
    shard.put({"jobs": {"a": held(token)}, "processing": {"a": NOW + 5}})
    assert run(shard, ("a", token)) == "k"
    shard.leaves({"jobs": {"a": held(token)}, "processing": {"a": NOW + LEASE}, "meta": meta(beat=True, lease=LEASE)})


def test_a_worker_that_holds_nothing_still_says_that_it_lives(shard: Shard) -> None:
    assert run(shard) == ""
    shard.leaves({"meta": meta(beat=True, lease=LEASE)})


def test_large_jobs_are_renewed_a_few_at_a_time_and_the_rest_is_named(shard: Shard) -> None:
    jobs = {name: held(TOKEN, body=b"x" * 700_000) for name in "abcd"} | {"z": held(TOKEN)}
    shard.put({"jobs": jobs, "processing": dict.fromkeys(jobs, NOW + 1)})
    assert run(shard, *((name, TOKEN) for name in jobs)) == "kklll"
    assert shard.keyspace()["processing"] == dict.fromkeys("cdz", NOW + 1) | dict.fromkeys("ab", NOW + LEASE)
    assert run(shard, *((name, TOKEN) for name in "cdz")) == "kkk"


def test_the_longest_lease_in_use_is_remembered(shard: Shard) -> None:
    shard.put({"meta": meta(NOW_US - 1, beat=True, lease=LEASE)})
    run(shard, lease=LEASE - 1)
    shard.leaves({"meta": meta(beat=True, lease=LEASE)})
    run(shard, lease=LEASE + 1, now=at(NOW, 1))
    shard.leaves({"meta": meta(NOW_US + 1, beat=True, lease=LEASE + 1)})


@pytest.mark.parametrize(
    ("lease", "later", "noted"),
    [(LEASE, LEASE // 2, 0), (LEASE, LEASE // 2 + 1, LEASE // 2 + 1), (LEASE, -LEASE, -LEASE), (LEASE - 1, LEASE, 0)],
    ids=["often", "after half of it", "after a step back", "a shorter one"],
)
def test_that_the_longest_lease_is_still_in_use_is_noted_now_and_then(
    shard: Shard, lease: int, later: int, noted: int
) -> None:
    shard.put({"meta": meta(NOW_US - 10**9, beat=True, lease=LEASE)})
    run(shard, lease=lease, now=at(NOW + later))
    assert shard.keyspace()["meta"]["leased"] == str(NOW + noted)


def test_a_gap_in_which_no_worker_came_through_is_no_outage(shard: Shard) -> None:
    shard.put({"meta": meta(NOW_US - 10 * LEASE * 1000, beat=True, lease=LEASE)})
    assert run(shard) == ""
    assert "grace" not in shard.keyspace()["meta"]


def test_a_second_send_renews_again(shard: Shard) -> None:
    shard.put({"jobs": {"a": held(TOKEN)}, "processing": {"a": NOW + 1}})
    assert [run(shard, ("a", TOKEN)) for _ in range(2)] == ["k", "k"]
    assert shard.keyspace()["processing"] == {"a": NOW + LEASE}


def test_a_held_job_that_another_version_set_aside_is_held_again(shard: Shard) -> None:
    shard.put({"jobs": {"a": held(TOKEN)}, "dead": {"a": NOW - 5}})
    call = extend(KEYS, [("a", digits16(TOKEN))], lease_ms=500, now=at(NOW))
    assert read_letters(shard.run(call)) == "k"
    after = shard.keyspace()
    assert (after["processing"], after["dead"]) == ({"a": NOW + 500}, {"a": NOW - 5})
