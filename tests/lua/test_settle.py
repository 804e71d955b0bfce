"""Outcomes of every kind in one batch; each kind by itself is in the files beside this one."""

from __future__ import annotations

from typing import Any

import pytest

from zwheel.calls import Call, Ending, Lane, read_letters, settle

from .shard import (
    DIGEST,
    DIGEST2,
    EVENING,
    KEYS,
    LANE,
    LANE2,
    MIDNIGHT,
    NOW,
    NOW_US,
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
    refused,
)

TOKEN = NOW_US - 1_000_000
WHY = b'{"at":1900000000000,"attempt":1,"reason":"error"}\n'


def ending(job_id: str, letter: str, at_ms: int | None = None, delay_ms: int = 0, *, token: int = TOKEN) -> Ending:
    return Ending(job_id, digits16(token), letter, b"" if letter == "b" else WHY, at_ms, delay_ms)


def mixed(lane: Lane = LANE, now: str = at(NOW), estimate: int = NOW, *, most_dead: int = 10) -> Call:
    """Two end well, one is dead, one is tried again, one goes back; of each kind one is not held."""
    done = [("done", digits16(TOKEN)), ("lost", digits16(TOKEN)), ("kept", digits16(TOKEN))]
    others = [
        ending("dead", "x"), ending("retried", "r", delay_ms=5_000), ending("stale", "r", NOW),
        ending("back", "b", MIDNIGHT), ending("never", "b", NOW), ending("later", "x", token=TOKEN - 1),
    ]  # fmt: skip
    return settle(KEYS, done, others, most_dead=most_dead, now_ms=estimate, lane=lane, now=now)


HELD = ("done", "kept", "dead", "retried", "back", "later")
BEFORE: Keyspace = {
    "jobs": {
        "done": held(TOKEN, digest=DIGEST), "kept": held(TOKEN, keep=60_000), "dead": held(TOKEN, digest=DIGEST2),
        "retried": held(TOKEN, attempt=2), "back": held(TOKEN, attempt=2), "later": held(TOKEN),
        "stale": held(TOKEN + 1),
    },
    "processing": {**dict.fromkeys(HELD, NOW + 5), "stale": NOW + 7},
    "dedup": {DIGEST: "done", DIGEST2: "dead"},
}  # fmt: skip


def test_each_job_of_a_batch_gets_its_own_end_and_the_answer_has_those_that_ended_well_first(shard: Shard) -> None:
    shard.put(BEFORE)
    reply = shard.run(mixed())
    assert reply == [b"ok", at(NOW).encode(), b"dmdxrfbmf"]
    shard.leaves(
        {
            "jobs": {
                "kept": record("d", attempt=1, token=TOKEN, worker=WORKER, keep=60_000, body=b""),
                "dead": record("x", attempt=1, token=TOKEN, worker=WORKER, digest=DIGEST2, failures=WHY),
                "retried": record(attempt=2, fire=NOW + 5_000, token=TOKEN, worker=WORKER, failures=WHY),
                "back": record(attempt=1, fire=MIDNIGHT, token=TOKEN, worker=WORKER),
                "later": held(TOKEN),
                "stale": held(TOKEN + 1),
            },
            "processing": {"later": NOW + 5, "stale": NOW + 7},
            "done": {"kept": NOW + 60_000},
            "dead": {"dead": NOW},
            f"wheel:{TODAY}": {"retried": NOW + 5_000},
            f"wheel:{TOMORROW}": {"back": MIDNIGHT},
            "days": {TODAY: int(TODAY), TOMORROW: int(TOMORROW)},
            "wake": ["1"],
            "meta": meta(beat=True),
            "replay:caller:0": f"request-1 {NOW_US} dmdxrfbmf",
        }
    )


def test_one_job_whose_day_is_not_named_keeps_the_whole_batch_as_it_is(shard: Shard) -> None:
    before = {"jobs": {"a": held(TOKEN), "b": held(TOKEN), "c": held(TOKEN)}, "processing": dict.fromkeys("abc", NOW)}
    shard.put(before)
    done, others = [("a", digits16(TOKEN))], [ending("b", "x"), ending("c", "r")]
    late = at(MIDNIGHT - 1, 1)
    call = settle(KEYS, done, others, most_dead=9, now_ms=EVENING, lane=LANE, now=late)
    assert read_letters(shard.run(call)) is None
    shard.leaves(before | refused("moved"))
    again = settle(KEYS, done, others, most_dead=9, now_ms=MIDNIGHT - 1, lane=LANE2, now=late)
    assert read_letters(shard.run(again)) == "dxr"
    assert shard.keyspace()[f"wheel:{TOMORROW}"] == {"c": MIDNIGHT}


def test_a_repeat_tells_every_letter_and_the_clock_of_the_first_answer_and_changes_nothing(shard: Shard) -> None:
    shard.put(BEFORE)
    shard.run(mixed())
    stored = shard.keyspace()
    assert shard.run(mixed(now=at(NOW + 9))) == [b"ok", at(NOW + 9).encode(), b"dmdxrfbmf", at(NOW).encode()]
    shard.leaves(stored)


def test_the_first_of_those_that_go_back_decides_whether_somebody_must_be_woken(shard: Shard) -> None:
    roles: dict[str, Any] = {"keeper": "v7654321", "keeper_at": NOW + 5_000, "keeper_end": NOW + 9_000}
    shard.put({"jobs": {i: held(TOKEN) for i in "abc"}, "processing": dict.fromkeys("abc", NOW), "meta": meta(**roles)})
    later = settle(KEYS, (), [ending("a", "r", NOW + 6_000)], most_dead=9, now_ms=NOW, lane=LANE, now=at(NOW))
    assert read_letters(shard.run(later)) == "r"
    assert "wake" not in shard.keyspace()
    others = [ending("b", "b", NOW + 7_000), ending("c", "r", NOW + 4_999)]
    sooner = settle(KEYS, (), others, most_dead=9, now_ms=NOW, lane=LANE2, now=at(NOW))
    assert read_letters(shard.run(sooner)) == "br"
    assert shard.keyspace()["wake"] == ["1"]


@pytest.mark.parametrize("kind", ["d", "x", "r"])
def test_a_batch_that_moves_no_job_writes_no_more_than_its_answer(shard: Shard, kind: str) -> None:
    before = {"jobs": {"a": held(TOKEN + 1)}, "processing": {"a": NOW + 1}}
    shard.put(before)
    done, others = ([("a", digits16(TOKEN))], ()) if kind == "d" else ((), [ending("a", kind)])
    assert read_letters(shard.run(settle(KEYS, done, others, most_dead=1, now_ms=NOW, lane=LANE, now=at(NOW)))) == "f"
    shard.leaves(before | {"meta": meta(beat=True), "replay:caller:0": f"request-1 {NOW_US} f"})
