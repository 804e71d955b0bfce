from __future__ import annotations

import pytest

from zwheel.calls import extend, read_letters

from .shard import KEYS, NOW, NOW_US, OTHER_WORKER, Shard, at, digits16, held, meta, record

LEASE = 30_000
HOUR = 3_600_000
TOKEN = NOW_US - 1_000_000


def run(
    shard: Shard, *pairs: tuple[str, int], longest: int = HOUR, lease: int = LEASE, now: str = at(NOW)
) -> str | None:
    held_pairs = [(job_id, digits16(token)) for job_id, token in pairs]
    return read_letters(shard.run(extend(KEYS, held_pairs, lease_ms=lease, longest_ms=longest, now=now)))


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


@pytest.mark.parametrize(
    ("ran_ms", "letter", "deadline"),
    [(HOUR - LEASE, "k", NOW + LEASE), (HOUR - 1, "k", NOW + 1), (HOUR, "c", NOW + 5), (HOUR + 1, "c", NOW + 5)],
)
def test_a_claim_is_renewed_up_to_its_cap_and_not_beyond(shard: Shard, ran_ms: int, letter: str, deadline: int) -> None:
    token = NOW_US - ran_ms * 1000
    shard.put({"jobs": {"a": held(token)}, "processing": {"a": NOW + 5}})
    assert run(shard, ("a", token)) == letter
    shard.leaves({"jobs": {"a": held(token)}, "processing": {"a": deadline}, "meta": meta(beat=True, lease=LEASE)})


def test_a_worker_that_holds_nothing_still_says_that_it_lives(shard: Shard) -> None:
    assert run(shard) == ""
    shard.leaves({"meta": meta(beat=True, lease=LEASE)})


def test_the_longest_lease_that_was_ever_used_is_remembered(shard: Shard) -> None:
    shard.put({"meta": meta(NOW_US - 1, beat=True, lease=LEASE)})
    run(shard, lease=LEASE - 1)
    shard.leaves({"meta": meta(beat=True, lease=LEASE)})
    run(shard, lease=LEASE + 1, now=at(NOW, 1))
    shard.leaves({"meta": meta(NOW_US + 1, beat=True, lease=LEASE + 1)})


@pytest.mark.parametrize(
    ("silence_us", "grace"),
    [(LEASE * 500, None), (LEASE * 500 + 1, NOW + LEASE), (LEASE * 1000, NOW + LEASE)],
    ids=["half a lease", "more than half a lease", "a whole lease"],
)
def test_a_gap_in_which_no_worker_came_through_opens_a_grace_period(
    shard: Shard, silence_us: int, grace: int | None
) -> None:
    shard.put({"meta": meta(NOW_US - silence_us, beat=True, lease=LEASE)})
    assert run(shard) == ""
    shard.leaves({"meta": meta(beat=True, lease=LEASE, **({"grace": grace} if grace else {}))})


def test_a_second_send_renews_again(shard: Shard) -> None:
    shard.put({"jobs": {"a": held(TOKEN)}, "processing": {"a": NOW + 1}})
    assert [run(shard, ("a", TOKEN)) for _ in range(2)] == ["k", "k"]
    assert shard.keyspace()["processing"] == {"a": NOW + LEASE}
