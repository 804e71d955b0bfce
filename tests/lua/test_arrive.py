from __future__ import annotations

from typing import Any

import pytest

from zwheel.calls import Leaving, arrive, close_shard, end_shard, open_shard, prepare_shard, read_arrive
from zwheel.errors import BrokerRefused
from zwheel.keys import ShardKeys

from .batches import schedule
from .shard import (
    DIGEST,
    DIGEST2,
    KEYS,
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

FORMER, OTHER = ShardKeys.of("zw", "q/1of4"), ShardKeys.of("zw", "q/2of4")
NUMBER = NOW_US - 1_000
OPEN = {"moving": "4"}


def come(shard: Shard, *parts: Leaving, number: int = NUMBER, former: ShardKeys = FORMER) -> str | None:
    reply = shard.run(arrive(KEYS, parts, former=4, shard=former, number=number, now=at(NOW)))
    assert reply[1] == at(NOW).encode()
    return read_arrive(reply)


def job(name: str, kind: str = "s", raw: bytes | None = None, *, score: int = NOW, body: bytes = b"") -> Leaving:
    return Leaving(kind, name.encode(), str(score), raw if raw is not None else record(kind), body)


def test_each_kind_comes_to_its_place_and_the_batch_is_noted(shard: Shard) -> None:
    shard.put({"meta": OPEN})
    large = record(fire=MIDNIGHT, apart=2_000, digest=DIGEST)
    done, gone, dead = record("d", keep=9, body=b""), record("c", body=b""), record("x")
    parts = [
        job("a", raw=record(fire=NOW + 5)), job("b", raw=large, body=b"x" * 2_000),
        job("done", "d", done, score=NOW + 9), job("gone", "d", gone, score=NOW + 8), job("dead", "x", dead, score=NOW - 7),
        Leaving("k", DIGEST.encode(), str(NOW + 9), b"b", b""), Leaving("k", DIGEST2.encode(), "", b"ended", b""),
        Leaving("n", b"s", str(NOW + 3), schedule().encode(), b""),
        Leaving("n", b"p", "", schedule(letter="p").encode(), b""),
    ]  # fmt: skip
    assert come(shard, *parts) == "a" * 9
    shard.leaves(
        {
            "jobs": {"a": record(fire=NOW + 5), "b": large, "done": done, "gone": gone, "dead": dead},
            "bodies": {"b": b"x" * 2_000},
            f"wheel:{TODAY}": {"a": NOW + 5},
            f"wheel:{TOMORROW}": {"b": MIDNIGHT},
            "days": {TODAY: int(TODAY), TOMORROW: int(TOMORROW)},
            "done": {"done": NOW + 9, "gone": NOW + 8},
            "dead": {"dead": NOW - 7},
            "dedup": {DIGEST: "b", DIGEST2: "ended"},
            "dedup:expiry": {DIGEST: NOW + 9},
            "schedules": {"s": schedule(), "p": schedule(letter="p")},
            "schedules:due": {"s": NOW + 3},
            "arrived": {"1of4": str(NUMBER)},
            "wake": ["1"],
            "meta": meta(moving=4),
        }
    )


def test_a_batch_arrives_once(shard: Shard) -> None:
    """Two movers bring it, or one of them twice: what became of its jobs meanwhile stays so."""
    shard.put({"meta": OPEN})
    assert come(shard, job("a"), job("b")) == "aa"
    shard.client.flushall()
    ended: Keyspace = {"meta": {**OPEN, "clock": at(NOW)}, "arrived": {"1of4": str(NUMBER)}}
    shard.put(ended)
    assert come(shard, job("a"), job("b")) == ""
    shard.leaves(ended)
    assert come(shard, job("c"), number=NUMBER - 1) == "", "a late copy of the batch before"
    shard.leaves(ended)
    assert come(shard, job("c"), former=OTHER) == "a", "each former shard counts for itself"
    assert come(shard, job("d"), number=NUMBER + 1) == "a"
    assert shard.keyspace()["arrived"] == {"1of4": str(NUMBER + 1), "2of4": str(NUMBER)}


def test_what_is_here_already_stays(shard: Shard) -> None:
    before: Keyspace = {
        "jobs": {"runs": held(7, digest=DIGEST), "done": record("d", body=b"")},
        "bodies": {"done": b"own"},
        "processing": {"runs": NOW + 1}, "done": {"done": NOW + 9},
        "dedup": {DIGEST: "runs"}, "schedules": {"s": schedule()}, "schedules:due": {"s": NOW + 1},
    }  # fmt: skip
    shard.put(before | {"meta": OPEN})
    parts = [
        job("runs"), job("done", raw=record(apart=2_000), body=b"x" * 2_000), job("done", "x", record("x")),
        Leaving("k", DIGEST.encode(), str(NOW + 9), b"other", b""),
        Leaving("n", b"s", "5", schedule(letter="p").encode(), b""),
    ]  # fmt: skip
    assert come(shard, *parts) == "iiiii"
    shard.leaves(before | {"meta": meta(moving=4), "arrived": {"1of4": str(NUMBER)}})


@pytest.mark.parametrize("moving", [None, "!4", "3", "44", "", "\x00"])
def test_nothing_arrives_where_nothing_is_on_its_way(shard: Shard, moving: str | None) -> None:
    before: Keyspace = {"meta": {"schema": "1"} if moving is None else {"schema": "1", "moving": moving}}
    shard.put(before)
    assert come(shard, job("a")) is None
    shard.leaves(before)


def test_a_batch_that_was_held_up_until_the_queue_is_cut_in_the_same_way_once_more_does_not_arrive_again(
    shard: Shard,
) -> None:
    """4 shards become 8, 4 again, and 8 again: a mover was frozen since the first time."""
    prepare = prepare_shard(KEYS, 4, stamp_us=0, settings={}, now=at(NOW))
    for call in (prepare, open_shard(KEYS, 4, now=at(NOW))):
        shard.run(call)
    assert come(shard, job("a")) == "a"
    shard.run(end_shard(KEYS, 4, trimmed=0, now=at(NOW)))
    shard.client.hdel(KEYS.jobs, "a")
    shard.client.delete(KEYS.wheel(TODAY), KEYS.days)
    shard.client.hset(KEYS.meta, "reshard", "4")
    for call in (close_shard(KEYS, 4, now=at(NOW)), prepare, open_shard(KEYS, 4, now=at(NOW))):
        assert shard.run(call)[0] == b"ok"
    assert come(shard, job("a")) == ""
    assert "jobs" not in shard.keyspace()


def test_a_fire_time_outside_the_named_days_changes_nothing(shard: Shard) -> None:
    shard.put({"meta": OPEN})
    call = arrive(KEYS, [job("a"), job("b", raw=record(fire=NOW + 1))], former=4, shard=FORMER, number=1, now=at(NOW))
    args = [str(MIDNIGHT) if one == NOW - NOW % 86_400_000 else one for one in call.args]
    reply = shard.run(call._replace(args=args))
    assert reply == [b"moved", at(NOW).encode()]
    shard.leaves({"meta": OPEN})
    with pytest.raises(BrokerRefused, match="arrive answered 'moved'"):
        read_arrive(reply)


def test_tokens_rise_where_the_clock_of_the_former_server_was_ahead(shard: Shard) -> None:
    ahead = NOW_US + 7_000_000
    shard.put({"meta": OPEN})
    come(shard, job("a", raw=record(token=ahead)), job("x", "x", record("x", token=ahead + 5)), job("b"))
    assert shard.keyspace()["meta"]["clock"] == str(ahead + 5)
    come(shard, Leaving("n", b"s", "", schedule(f"{ahead + 9:016d}").encode(), b""), number=NUMBER + 1)
    assert shard.keyspace()["meta"]["clock"] == str(ahead + 9)
    come(shard, job("c"), number=NUMBER + 2)
    assert shard.keyspace()["meta"]["clock"] == str(ahead + 10)


@pytest.mark.parametrize("raw", [record(token=9_999_999_999_999_999), record(version="3", token=NOW_US * 2)])
def test_a_token_that_is_no_time_moves_no_clock(shard: Shard, raw: bytes) -> None:
    shard.put({"meta": OPEN})
    come(shard, job("a", "x", raw))
    assert shard.keyspace()["meta"]["clock"] == at(NOW)


def test_what_cannot_be_read_is_set_aside_as_it_is_and_as_if_it_had_come_now(shard: Shard) -> None:
    """So a worker that can read it finds it: it looks for what came into the dead set since it looked last."""
    odd = {
        "newer": record(version="3"), "flagged": record_of_1(flags="08"), "nul": b"\x00" * 60, "empty": b"",
        "waits": record(fire=10**15 - 1),
    }  # fmt: skip
    shard.put({"meta": OPEN})
    assert come(shard, *(job(name, "x", raw, score=5) for name, raw in odd.items())) == "a" * 5
    # Damaged in `leaving` itself.
    assert come(shard, Leaving("s", b"cut", "", record()[:20], b""), number=NUMBER + 1) == "a"
    shard.leaves(
        {
            "jobs": odd | {"cut": record()[:20]}, "dead": dict.fromkeys([*odd, "cut"], NOW),
            "arrived": {"1of4": str(NUMBER + 1)}, "meta": meta(NOW_US + 1, moving=4),
        }
    )  # fmt: skip


def test_the_end_of_a_tombstone_that_was_damaged_is_over(shard: Shard) -> None:
    shard.put({"meta": OPEN})
    come(shard, Leaving("d", b"a", "", record("d", body=b""), b""), Leaving("x", b"b", "", record("x"), b""))
    assert (shard.keyspace()["done"], shard.keyspace()["dead"]) == ({"a": 0}, {"b": 0})


def test_a_name_may_have_any_bytes(shard: Shard) -> None:
    shard.put({"meta": OPEN})
    odd = [b"\x00", b"\xff\xfe", b"a b\nc", b""]
    parts = [Leaving("s", name, "5", record(), b"") for name in odd]
    reply = shard.run(arrive(KEYS, parts, former=4, shard=FORMER, number=NUMBER, now=at(NOW)))
    assert read_arrive(reply) == "aaaa"
    found: Any = shard.client.hkeys(KEYS.jobs)
    assert sorted(found) == sorted(odd)


@pytest.mark.parametrize(
    ("fields", "part", "wakes"),
    [
        ({}, job("a", raw=record(fire=NOW + 50)), True),
        ({"keeper_at": NOW + 40, "keeper_end": NOW + 70}, job("a", raw=record(fire=NOW + 50)), False),
        ({"keeper_at": NOW + 60, "keeper_end": NOW + 90}, job("a", raw=record(fire=NOW + 50)), True),
        ({"keeper_at": NOW + 60, "keeper_end": NOW + 90}, Leaving("n", b"s", str(NOW), schedule().encode(), b""), True),
        ({"paused": 1}, job("a", raw=record(fire=NOW + 50)), False),
        ({}, job("a", "x"), False),
    ],
)
def test_somebody_wakes_for_what_arrives(shard: Shard, fields: dict[str, int], part: Leaving, wakes: bool) -> None:
    shard.put({"meta": {**OPEN, **{name: str(value) for name, value in fields.items()}}})
    come(shard, part)
    assert shard.keyspace().get("wake") == (["1"] if wakes else None)


@pytest.mark.parametrize("number", ["", "abc", "-3", "nan", "1e300", "\x00"])
def test_a_number_that_is_damaged_counts_for_nothing(shard: Shard, number: str) -> None:
    shard.put({"meta": OPEN, "arrived": {"1of4": number}})
    assert come(shard, job("a")) == "a"
    assert shard.keyspace()["arrived"] == {"1of4": str(NUMBER)}


def test_an_answer_of_a_newer_version_is_refused() -> None:
    with pytest.raises(BrokerRefused, match="arrive answered 'later'"):
        read_arrive([b"later", b"1"])
