from __future__ import annotations

import pytest

from zwheel.calls import (
    Call,
    Lane,
    claim,
    clear_shard,
    close_shard,
    end_shard,
    list_cut,
    open_shard,
    prepare_shard,
    read_claim,
)
from zwheel.keys import queues_key

from .shard import KEYS, NOW, NOW_US, TODAY, WORKER, Keyspace, Shard, at, held, meta, record


def run(shard: Shard, call: Call) -> str:
    word, clock = shard.run(call)
    assert clock == at(NOW).encode()
    return str(word, "ascii")


def prepare(shard: Shard, *, stamp: int = 0, former: int = 4, **settings: int) -> str:
    return run(shard, prepare_shard(KEYS, former, stamp_us=stamp, settings=settings, now=at(NOW)))


def test_a_shard_of_the_new_cut_is_made_with_the_settings_of_its_queue_and_is_not_open(shard: Shard) -> None:
    assert prepare(shard, paused=1, cap=7) == "ok"
    shard.leaves({"meta": meta(moving="!4", schema=1, epoch=NOW_US, paused=1, cap=7)})


def test_its_tokens_begin_above_those_of_the_former_cut(shard: Shard) -> None:
    assert prepare(shard, stamp=NOW_US + 9) == "ok"
    assert shard.keyspace()["meta"]["clock"] == str(NOW_US + 9)
    shard.put({"meta": {"clock": str(NOW_US + 20)}})
    assert prepare(shard, stamp=NOW_US + 9) == "ok"
    assert shard.keyspace()["meta"]["clock"] == str(NOW_US + 21)


@pytest.mark.parametrize("stamp", [9 * 10**15, 10**17])
def test_a_stamp_that_is_no_time_counts_for_nothing(shard: Shard, stamp: int) -> None:
    assert prepare(shard, stamp=stamp) == "ok"
    assert shard.keyspace()["meta"]["clock"] == at(NOW)


def test_a_shard_that_was_given_up_in_an_earlier_cut_is_made_anew(shard: Shard) -> None:
    shard.put({"meta": {"shards": "2", "reshard": "2", "epoch": "5", "schema": "1"}, "arrived": {"1of2": "77"}})
    assert prepare(shard) == "ok"
    shard.leaves({"meta": meta(moving="!4", schema=1, epoch=5), "arrived": {"1of2": "77"}})


def test_a_shard_that_is_open_is_not_made_anew(shard: Shard) -> None:
    """Two callers cut the same queue in the same way, or one was frozen meanwhile."""
    before: Keyspace = {"meta": {"moving": "4", "epoch": "5"}}
    shard.put(before)
    assert prepare(shard, paused=1) == "other"
    shard.leaves(before)


def test_a_shard_of_the_former_cut_is_closed_and_calls_a_worker(shard: Shard) -> None:
    jobs: Keyspace = {"jobs": {"a": record(), "b": held(1)}, f"wheel:{TODAY}": {"a": NOW}, "processing": {"b": NOW + 1}}
    shard.put(jobs | {"meta": {"epoch": "5", "schema": "1", "reshard": "8"}})
    assert run(shard, close_shard(KEYS, 8, now=at(NOW))) == "ok"
    closed = jobs | {"meta": meta(shards=8, reshard=8, schema=1, epoch=NOW_US), "wake": ["1"]}
    shard.leaves(closed)
    assert run(shard, close_shard(KEYS, 8, now=at(NOW))) == "other"
    shard.leaves(closed)


def test_each_worker_that_claims_in_a_closed_shard_hears_of_it(shard: Shard) -> None:
    """Not only the one that the token wakes."""
    shard.put(
        {
            "jobs": {"a": record()},
            f"wheel:{TODAY}": {"a": NOW},
            "days": {TODAY: int(TODAY)},
            "meta": {"epoch": "5", "schema": "1", "reshard": "8"},
        }
    )
    run(shard, close_shard(KEYS, 8, now=at(NOW)))
    for number in range(3):
        call = claim(
            KEYS, day=TODAY, worker=WORKER, lease_ms=1_000, limit=1, lane=Lane("c", number, "1"), now=at(NOW), epoch="5"
        )
        assert read_claim(shard.run(call)).word == "flushed"
    call = claim(
        KEYS, day=TODAY, worker=WORKER, lease_ms=1_000, limit=1, lane=Lane("c", 4, "1"), now=at(NOW), epoch=str(NOW_US)
    )
    assert read_claim(shard.run(call)).jobs[::2] == [b"a"], "who serves it as it is now takes what is due"


@pytest.mark.parametrize(("moving", "word"), [("!4", "ok"), ("4", "other"), (None, "other"), ("!3", "other")])
def test_only_a_shard_that_was_made_for_this_cut_is_opened(shard: Shard, moving: str | None, word: str) -> None:
    before: Keyspace = {"meta": {"epoch": "5"} | ({} if moving is None else {"moving": moving})}
    shard.put(before)
    assert run(shard, open_shard(KEYS, 4, now=at(NOW))) == word
    shard.leaves({"meta": {"epoch": "5", "moving": "4"}} if word == "ok" else before)


@pytest.mark.parametrize(("moving", "word"), [("!4", "other"), ("4", "ok"), (None, "other"), ("3", "other")])
def test_a_shard_to_which_all_has_come_is_like_any_other(shard: Shard, moving: str | None, word: str) -> None:
    """What arrived is remembered: a mover may be frozen until the queue is cut in the same way once more."""
    before: Keyspace = {
        "meta": {"epoch": "5"} | ({} if moving is None else {"moving": moving}),
        "arrived": {"1of4": "77"},
    }
    shard.put(before)
    assert run(shard, end_shard(KEYS, 4, trimmed=0, now=at(NOW))) == word
    shard.leaves({"meta": {"epoch": "5"}, "arrived": {"1of4": "77"}} if word == "ok" else before)


@pytest.mark.parametrize(("before", "after"), [(None, "7"), ("3", "10"), ("abc", "7")])
def test_dead_jobs_that_were_deleted_in_the_former_cut_stay_counted(
    shard: Shard, before: str | None, after: str
) -> None:
    shard.put({"meta": {"moving": "4"} | ({} if before is None else {"trimmed": before})})
    assert run(shard, end_shard(KEYS, 4, trimmed=7, now=at(NOW))) == "ok"
    shard.leaves({"meta": {"trimmed": after}})
    assert run(shard, end_shard(KEYS, 4, trimmed=7, now=at(NOW))) == "other", "once"
    shard.leaves({"meta": {"trimmed": after}})


def test_an_empty_shard_of_the_former_cut_is_cleared_up_and_calls_a_worker(shard: Shard) -> None:
    """Who still believes in that cut claims there, and hears that it is over."""
    shard.put(
        {
            "meta": {"shards": "8", "schema": "1", "epoch": "5", "reshard": "8", "paused": "1", "precise": "1", "cap": "7", "trimmed": "3"},
            "days": {TODAY: int(TODAY)}, "dedup:expiry": {"a": NOW}, "schedules:due": {"s": NOW}, "arrived": {"1of2": "77"},
        }
    )  # fmt: skip
    assert run(shard, clear_shard(KEYS, 8, now=at(NOW))) == "ok"
    shard.leaves({"meta": meta(shards=8, schema=1, epoch=NOW_US), "wake": ["1"], "arrived": {"1of2": "77"}})


@pytest.mark.parametrize(
    "before",
    [
        {"meta": {"shards": "4"}},
        {"meta": {"schema": "1"}},
        {"meta": {"shards": "8"}, "jobs": {"a": record()}, f"wheel:{TODAY}": {"a": NOW}},
        {"meta": {"shards": "8"}, "schedules": {"s": "1a"}, "schedules:due": {"s": NOW}},
        {"meta": {"shards": "8"}, "leaving": {"#": b"5"}},
    ],
    ids=["of another cut", "in use", "with jobs", "with schedules", "with what is leaving"],
)
def test_what_is_no_empty_shard_of_the_former_cut_is_not_cleared_up(shard: Shard, before: Keyspace) -> None:
    """One who was to end a cut was frozen, while others ended it and began another."""
    before = before | {"days": {TODAY: int(TODAY)}}
    shard.put(before)
    assert run(shard, clear_shard(KEYS, 8, now=at(NOW))) == "other"
    shard.leaves(before)


@pytest.mark.raw_keys
@pytest.mark.parametrize(("there", "word"), [("8 4", "ok"), ("8", "other"), ("16 8", "other"), (None, "other")])
def test_the_list_of_queues_is_written_where_it_says_what_was_read_there(
    shard: Shard, there: str | None, word: str
) -> None:
    key = queues_key("zw")
    if there is not None:
        shard.client.hset(key, "q", there)
    assert run(shard, list_cut("zw", "q", "8 4", "8", now=at(NOW))) == word
    found = shard.client.hget(key, "q")
    assert found == (b"8" if word == "ok" else None if there is None else there.encode())
    shard.client.delete(key)


def test_a_shard_that_was_never_used_is_closed_too(shard: Shard) -> None:
    shard.put({"meta": {"reshard": "8"}})
    assert run(shard, close_shard(KEYS, 8, now=at(NOW))) == "ok"
    shard.leaves({"meta": meta(shards=8, reshard=8, schema=1, epoch=NOW_US), "wake": ["1"]})


@pytest.mark.parametrize("mark", [{}, {"reshard": "4"}])
def test_a_shard_that_nobody_marked_for_this_cut_stays_open(shard: Shard, mark: dict[str, str]) -> None:
    """Who asks believes in a cut that is over: by now the shard may be one of the present cut again."""
    before: Keyspace = {"meta": {"epoch": "5", "schema": "1", **mark}}
    shard.put(before)
    assert run(shard, close_shard(KEYS, 8, now=at(NOW))) == "whole"
    shard.leaves(before)
