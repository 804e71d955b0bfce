"""What is damaged, or of another version, does not hold up a reshard, and is not lost by it."""

from __future__ import annotations

from typing import Any

import pytest

from zwheel.calls import read_depart
from zwheel.calls.depart import WaitingSchedule
from zwheel.errors import BrokerRefused

from .batches import STAMP, schedule
from .shard import DIGEST, KEYS, MIDNIGHT, NOW, NOW_US, TODAY, Keyspace, Shard, held, meta, record, record_of_1
from .test_depart import CLOSED, OTHER_META, day, ended, job, left, plans


def test_what_cannot_be_read_is_set_aside_where_it_arrives(shard: Shard) -> None:
    odd = {
        "newer": record(version="3"), "flagged": record_of_1(flags="08"), "limited": record(more="Lx"),
        "short": b"2s", "nul": b"\x00" * 60, "letter": record("q"), "empty": b"",
    }  # fmt: skip
    shard.put({"jobs": odd, f"wheel:{TODAY}": dict.fromkeys(odd, NOW), "bodies": {"newer": b"far"}, "meta": CLOSED})
    met = day(shard)
    assert {one.name.decode(): (one.kind, one.value) for one in met.batch} == {n: ("x", raw) for n, raw in odd.items()}
    assert [one.body for one in met.batch if one.name == b"newer"] == [b"far"]
    assert shard.keyspace().keys() == {"leaving", "meta"}


def test_a_job_on_the_wheel_of_another_day_leaves_all_the_same(shard: Shard) -> None:
    """It may have no other place, and its record says where it goes."""
    shard.put(
        {
            "jobs": {"a": record(fire=MIDNIGHT)},
            f"wheel:{TODAY}": {"a": NOW},
            "days": {TODAY: int(TODAY)},
            "meta": CLOSED,
        }
    )
    assert [(one.kind, one.value) for one in day(shard).batch] == [("s", record(fire=MIDNIGHT))]


def test_what_contradicts_its_place_or_has_no_record_stays(shard: Shard) -> None:
    jobs = {"runs": held(1), "dead": record("x"), "done": record("d", body=b""), "gone": record("c", body=b"")}
    wheel: Keyspace = {"jobs": jobs, f"wheel:{TODAY}": dict.fromkeys([*jobs, "never"], NOW), "meta": CLOSED}
    shard.put(wheel)
    met = day(shard)
    assert (met.stayed, met.batch, met.number) == (5, [], 0)
    shard.leaves(wheel)
    shard.client.flushall()
    among_dead: Keyspace = {
        "jobs": {"runs": held(1), "done": record("d", body=b"")}, "dead": dict.fromkeys(("runs", "done", "never"), NOW), "meta": CLOSED,
    }  # fmt: skip
    shard.put(among_dead)
    assert ended(shard, "dead").stayed == 3
    shard.leaves(among_dead)
    shard.client.flushall()
    among_done: Keyspace = {
        "jobs": {"runs": held(1), "waits": record(), "dead": record("x"), "newer": record("d", version="3")},
        "done": dict.fromkeys(("runs", "waits", "dead", "newer", "never"), NOW), "meta": CLOSED,
    }  # fmt: skip
    shard.put(among_done)
    assert ended(shard, "done").stayed == 5
    shard.leaves(among_done)


@pytest.mark.parametrize("score", ["-inf", "inf", -5, 1e300, 10**16, 0.5])
def test_a_score_that_is_no_time_breaks_no_batch(shard: Shard, score: Any) -> None:
    shard.put(
        {
            "jobs": {"a": record("x", digest=DIGEST)},
            "dedup": {DIGEST: "a"},
            "schedules": {"s": schedule()},
            "meta": CLOSED,
        }
    )
    shard.client.zadd(KEYS.dead, {"a": score})
    shard.client.zadd(KEYS.dedup_expiry, {DIGEST: score})
    shard.client.zadd(KEYS.schedules_due, {"s": score})
    met = ended(shard, "dead")
    assert [(one.kind, one.name, one.value) for one in met.batch] == [
        ("x", b"a", record("x", digest=DIGEST)), ("k", DIGEST.encode(), b"a"),
    ]  # fmt: skip
    assert all(one.score == "" or one.score.isdigit() for one in met.batch)
    met = plans(shard, WaitingSchedule("s", STAMP, ()), arrived=met.number)
    assert [(one.kind, one.name, one.value) for one in met.batch] == [("n", b"s", schedule().encode())]


def test_names_with_any_bytes_leave_as_they_are(shard: Shard) -> None:
    odd = [b"\x00", b"\xff\xfe", b"a b\nc", b"@", b"@@x", b"x@\x00"]
    for name in odd:
        shard.client.hset(KEYS.jobs, name, record())
        shard.client.zadd(KEYS.wheel(TODAY), {name: NOW})
    shard.put({"meta": CLOSED})
    assert sorted(one.name for one in day(shard).batch) == sorted(odd)


@pytest.mark.parametrize("number", [None, "", "abc", "-3", "nan", "\x00"])
def test_a_batch_whose_number_is_damaged_gets_one_that_none_had(shard: Shard, number: str | None) -> None:
    shard.put({"leaving": {"ja": job("s", record())}, "meta": CLOSED})
    if number is not None:
        shard.client.hset(KEYS.leaving, "#", number)
    met = day(shard, arrived=0)
    assert (met.word, met.number, [one.name for one in met.batch]) == ("again", NOW_US, [b"a"])
    shard.leaves({"leaving": left(ja=job("s", record())), "meta": meta(**OTHER_META)})
    assert day(shard, arrived=met.number).word == "ok"


@pytest.mark.parametrize(
    ("field", "value", "kind"),
    [
        ("ja", b"", "x"),
        ("ja", b"s", "x"),
        ("ja", b"q" + job("s", record())[1:], "x"),
        ("ja", job("s", record()[:10]), "s"),
        ("ja", b"s" + b"abc" * 5 + record(fire=NOW), "s"),
        ("ja", job("s", b"2s0000" + b"9" * 15 + record()[21:]), "x"),
        ("na", b"\x00", "n"),
        ("ka", b"", "k"),
    ],
)
def test_what_is_damaged_on_its_way_is_read_as_far_as_it_can(shard: Shard, field: str, value: bytes, kind: str) -> None:
    shard.put({"leaving": {field: value, "#": b"5"}, "meta": CLOSED})
    (part,) = day(shard).batch
    assert (part.kind, part.name) == (kind, b"a")
    assert part.score == "" or part.score.isdigit()


def test_what_a_newer_version_sent_on_its_way_waits_for_that_version(shard: Shard) -> None:
    shard.put({"leaving": {"za": b"1", "#": b"5"}, "meta": CLOSED})
    with pytest.raises(BrokerRefused, match="does not know what that is"):
        day(shard)
    assert shard.keyspace()["leaving"] == {"za": b"1", "#": b"5"}


def test_an_answer_of_a_newer_version_is_refused() -> None:
    with pytest.raises(BrokerRefused, match="depart answered 'later'"):
        read_depart([b"later", b"1"])
