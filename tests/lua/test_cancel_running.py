"""Cancelling what runs: the request is in the record and on a list, and every way out of processing but a good end heeds it."""

from __future__ import annotations

from typing import Any

import pytest

from zwheel.calls import Ending, Offer, cancel, extend, offer, read_letters, read_reap, reap, settle
from zwheel.calls.cancel import LEAST_KEPT_MS

from .shard import DIGEST, KEYS, LANE, LANE2, NOW, NOW_US, TODAY, Keyspace, Shard, at, digits16, held, meta, record

TOKEN = NOW_US - 1_000_000
DAY_MS = 86_400_000
WHY = b'{"at":1,"attempt":1,"reason":"error"}\n'


def ask(shard: Shard, *ids: str, now: int = NOW, lane: Any = LANE) -> str | None:
    return read_letters(shard.run(cancel(KEYS, ids, day=TODAY, lane=lane, now=at(now))))


def running(shard: Shard, **fields: Any) -> None:
    """A job that WORKER holds, with a dedup key, and that it is asked to cancel."""
    shard.put(
        {
            "jobs": {"a": held(TOKEN, digest=DIGEST, asked=NOW, **fields)},
            "processing": {"a": NOW},
            "dedup": {DIGEST: "a"},
            "dedup:expiry": {DIGEST: NOW + 999_999},
        }
    )


def cancelled(**fields: Any) -> Keyspace:
    """What is left of it."""
    return {
        "jobs": {
            "a": record("c", attempt=1, token=TOKEN, worker="w1234567", digest=DIGEST, asked=NOW, body=b"", **fields)
        },
        "done": {"a": NOW + LEAST_KEPT_MS},
    }


def test_a_running_job_keeps_its_place_and_is_told_of_once(shard: Shard) -> None:
    shard.put(
        {
            "jobs": {"a": held(TOKEN, digest=DIGEST), "plain": held(TOKEN), "large": held(TOKEN, apart=2000, keep=9)},
            "bodies": {"large": b"x" * 2000},
            "processing": {"a": NOW + 5, "plain": NOW + 5, "large": NOW + 5},
            "asked": {"gone 1": NOW - DAY_MS, "young 1": NOW - DAY_MS + 10},
        }
    )
    assert ask(shard, "a", "plain", "large") == "qqq"
    assert ask(shard, "a", now=NOW + 7, lane=LANE2) == "q"
    token = f"{TOKEN:016d}"
    shard.leaves(
        {
            # When it was first asked is kept.
            "jobs": {
                "a": held(TOKEN, digest=DIGEST, asked=NOW),
                "plain": held(TOKEN, asked=NOW),
                "large": held(TOKEN, apart=2000, keep=9, asked=NOW),
            },
            "bodies": {"large": b"x" * 2000},
            "processing": {"a": NOW + 5, "plain": NOW + 5, "large": NOW + 5},
            "asked": {
                "young 1": NOW - DAY_MS + 10,
                f"a {token}": NOW + 7,
                f"plain {token}": NOW,
                f"large {token}": NOW,
            },
            "meta": meta(NOW_US + 7000),
            "replay:caller:0": "request-2 q",
        }
    )


@pytest.mark.parametrize("letter", ["x", "r", "b", "c"])
def test_however_it_ends_it_is_cancelled_and_its_key_is_free_at_once(shard: Shard, letter: str) -> None:
    running(shard)
    ending = Ending("a", digits16(TOKEN), letter, WHY if letter in "xr" else b"", None, 5_000)
    call = settle(KEYS, [], [ending], most_dead=9, now_ms=NOW, lane=LANE, now=at(NOW))
    assert read_letters(shard.run(call)) == "c"
    assert call.trace(["ok", NOW_US, "c"]).jobs[0]["end"] == "cancelled"
    found = shard.keyspace()
    assert {key: found[key] for key in ("jobs", "done")} == cancelled()
    assert found.keys() == {"jobs", "done", "meta", "replay:caller:0"}


def test_one_that_is_cancelled_without_a_request_is_cancelled_too(shard: Shard) -> None:
    shard.put({"jobs": {"a": held(TOKEN, keep=LEAST_KEPT_MS + 5)}, "processing": {"a": NOW}})
    ending = Ending("a", digits16(TOKEN), "c", b"")
    call = settle(KEYS, [], [ending], most_dead=9, now_ms=NOW, lane=LANE, now=at(NOW))
    assert read_letters(shard.run(call)) == "c"
    assert shard.keyspace()["done"] == {"a": NOW + LEAST_KEPT_MS + 5}


def test_one_that_is_done_is_done(shard: Shard) -> None:
    running(shard, keep=9)
    call = settle(KEYS, [("a", digits16(TOKEN))], most_dead=9, now_ms=NOW, lane=LANE, now=at(NOW))
    assert read_letters(shard.run(call)) == "d"
    found = shard.keyspace()
    assert (found["jobs"]["a"][:2], found["done"]) == (b"2d", {"a": NOW + 9})
    assert ask(shard, "a", lane=LANE2) == "e"


def test_one_whose_task_is_not_known_is_offered_to_nobody(shard: Shard) -> None:
    running(shard)
    batch = [Offer("a", digits16(TOKEN), b"")]
    call = offer(KEYS, batch, groups=("0123456789abcdef",), now_ms=NOW, lane=LANE, now=at(NOW))
    assert read_letters(shard.run(call)) == "c"
    assert call.trace(["ok", NOW_US, "c"]).jobs[0]["end"] == "cancelled"
    found = shard.keyspace()
    assert {key: found[key] for key in ("jobs", "done")} == cancelled()
    assert found.keys() == {"jobs", "done", "meta", "replay:caller:0"}


@pytest.mark.parametrize("attempt", [1, 3])
def test_one_of_a_dead_worker_is_cancelled_at_reaping(shard: Shard, attempt: int) -> None:
    running(shard, attempt=attempt)
    shard.put({"jobs": {"b": held(TOKEN)}, "processing": {"b": NOW}})
    call = reap(KEYS, limit=10, lease_ms=30_000, most_dead=9, now_ms=NOW, now=at(NOW + 1))
    reaped = read_reap(shard.run(call))
    assert reaped is not None
    assert (reaped.back, reaped.dead, reaped.cancelled, reaped.looked_at) == (["b"], [], ["a"], 2)
    found = shard.keyspace()
    assert found["jobs"]["a"][:6] == f"2c{attempt:04d}".encode()
    assert (found["done"], "dedup" in found) == ({"a": NOW + 1 + LEAST_KEPT_MS}, False)
    assert found[f"wheel:{TODAY}"].keys() == {"b"}


def test_its_lease_is_renewed_until_it_ends_and_no_other_token_cancels_it(shard: Shard) -> None:
    running(shard)
    assert read_letters(shard.run(extend(KEYS, [("a", digits16(TOKEN))], lease_ms=30_000, now=at(NOW)))) == "k"
    ending = Ending("a", digits16(TOKEN - 1), "c", b"")
    call = settle(KEYS, [], [ending], most_dead=9, now_ms=NOW, lane=LANE, now=at(NOW))
    assert read_letters(shard.run(call)) == "f"
    assert shard.keyspace()["processing"] == {"a": NOW + 30_000}


def test_a_list_that_another_program_keeps_refuses_the_request_whole(real_shard: Shard) -> None:
    shard = real_shard
    before: Keyspace = {"jobs": {"a": held(TOKEN)}, "processing": {"a": NOW}}
    shard.put(before)
    shard.client.rpush(KEYS.asked, "theirs")
    with pytest.raises(Exception, match="WRONGTYPE"):
        ask(shard, "a")
    shard.client.delete(KEYS.asked)
    shard.leaves(before)
