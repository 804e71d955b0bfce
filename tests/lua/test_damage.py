"""One damaged value at a time: no script fails on it, waits for ever on it, or hides a job behind it. G11."""

from __future__ import annotations

import contextlib
import re
from typing import Any

import pytest
import redis

from zwheel.calls import Call, Claimed, Lane, cancel, claim, day_name, read_claim, reap, redrive
from zwheel.calls.scripts import NAMES, script
from zwheel.times import DAY_MS

from .batches import prepare
from .going_on import ends, places
from .shard import (
    KEYS,
    MIDNIGHT,
    NOW,
    START,
    TODAY,
    TOMORROW,
    WORKER,
    Keyspace,
    Shard,
    at,
    digits16,
    held,
    record,
    record_of_1,
)

LEASE = 30_000
TEXTS = {"schema", "epoch", "keeper", "second", "jump", "server", "paused", "precise", "shards", "moving"}
NONSENSE = ("abc", "nan", "inf", "-inf", "-5", "-0.0", "1e300", "", b"\xff", "9" * 40, "0x10")
_FIELDS = re.compile(r"(?:redis\.call\('HMGET', |= read_meta\()meta,([^)]*)\)|redis\.call\('HGET', meta, '(\w+)'\)")


def numbers_of(name: str) -> list[str]:
    """The numbers of `meta` that a script reads."""
    found = _FIELDS.findall(script(name).source)
    return sorted(
        {field for pair in found for text in pair for field in re.findall(r"\w+", text)}
        - TEXTS
        - {"field_names", "unpack"}
    )


CASES = [(name, field) for name in NAMES for field in [*numbers_of(name), "orphans", "trimmed"]]


def stored(keyspace: Keyspace) -> Keyspace:
    """What became of the jobs and schedules: not of the marks of the time, and not of tokens that wake."""
    left = {name: value for name, value in keyspace.items() if name not in ("meta", "wake") and "replay" not in name}
    if "jobs" in left:
        # A token may be any that is larger than the last.
        left["jobs"] = {name: raw[:21] + raw[37:] for name, raw in left["jobs"].items()}
    if "schedules" in left:
        left["schedules"] = {name: text[:2] + text[18:] for name, text in left["schedules"].items()}
    return left


@pytest.mark.parametrize(("name", "field"), CASES)
def test_a_damaged_number_of_meta_counts_for_nothing(real_shard: Shard, name: str, field: str) -> None:
    call = prepare(name, real_shard, 6)
    real_shard.client.hdel(KEYS.meta, field)
    expected = real_shard.run(call)
    wanted = stored(real_shard.keyspace())
    for nonsense in NONSENSE:
        real_shard.client.flushall()
        again = prepare(name, real_shard, 6)
        real_shard.client.hset(KEYS.meta, field, nonsense)
        reply = real_shard.run(again)
        assert reply[0] == expected[0], nonsense
        real_shard.client.delete(KEYS.meta)
        assert stored(real_shard.keyspace()) == wanted, nonsense


def take(shard: Shard, *, day: str = TODAY, limit: int = 10, now: int = NOW, tries: int = 20) -> Claimed:
    """Claim as a worker does: again where the answer says so."""
    for number in range(tries):
        lane = Lane("damage", "claim", f"{now}-{number}")
        reply = shard.run(claim(KEYS, day=day, worker=WORKER, lease_ms=LEASE, limit=limit, lane=lane, now=at(now)))
        met = read_claim(reply)
        if met.word != "moved" and (met.jobs or met.role != "none"):
            return met
        day = met.day or day
    raise AssertionError("it claims again and again")


def ids(met: Claimed) -> list[bytes]:
    return met.jobs[::2]


def wheel(shard: Shard, day: str, **fires: float) -> None:
    """Put jobs whose record is right on the wheel with these scores."""
    shard.client.zadd(KEYS.wheel(day), fires)
    shard.client.zadd(KEYS.days, {day: int(day)})


@pytest.mark.parametrize("score", ["-inf", -5, 0, NOW - 400 * DAY_MS, NOW + DAY_MS, 10**15, 10**17, "inf"])
@pytest.mark.parametrize("fire", [NOW - 5, NOW + 5])
def test_a_score_that_is_damaged_gives_way_to_the_record(real_shard: Shard, score: Any, fire: int) -> None:
    real_shard.put({"jobs": {"a": record(fire=fire), "b": record(fire=MIDNIGHT), "c": record(fire=NOW)}})
    wheel(real_shard, TODAY, a=score)
    wheel(real_shard, TOMORROW, b=MIDNIGHT)
    first = take(real_shard)
    assert ids(first) == ([b"a"] if fire <= NOW else [])
    if fire > NOW:
        assert first.next_fire_ms == fire
        assert ids(take(real_shard, now=NOW + 10)) == [b"a"]
    assert ids(take(real_shard, now=MIDNIGHT + 1)) == [b"b"]


@pytest.mark.parametrize("score", [NOW - 5, "-inf", "inf", NOW + 3 * DAY_MS])
def test_a_job_of_another_day_is_set_aside_where_it_can_be_seen(real_shard: Shard, score: Any) -> None:
    fire = NOW + 400 * DAY_MS
    real_shard.put({"jobs": {"a": record(fire=fire), "b": record(fire=MIDNIGHT)}})
    wheel(real_shard, TODAY, a=score)
    wheel(real_shard, TOMORROW, b=MIDNIGHT)
    assert ids(take(real_shard)) == []
    found = real_shard.keyspace()
    assert found["dead"] == {"a": NOW}
    assert found["jobs"]["a"] == record(fire=fire)
    assert ids(take(real_shard, now=MIDNIGHT)) == [b"b"]
    reply = real_shard.run(redrive(KEYS, ["a"], now_ms=MIDNIGHT, lane=Lane("c", 1, "1"), now=at(MIDNIGHT + 5)))
    assert reply[2] == b"r"


@pytest.mark.parametrize("state", ["p", "x", "d", "c"])
def test_what_does_not_wait_is_never_claimed_from_the_wheel(real_shard: Shard, state: str) -> None:
    raw = held(NOW * 1000 - 5, fire=NOW) if state == "p" else record(state, fire=NOW)
    real_shard.put({"jobs": {"a": raw, "b": record(fire=NOW)}})
    wheel(real_shard, TODAY, a=NOW - 1, b=NOW)
    met = take(real_shard)
    assert ids(met) == [b"b"]
    found = real_shard.keyspace()
    assert found["jobs"]["a"] == raw
    assert found.get(f"wheel:{TODAY}") is None
    if state == "p":
        assert found["processing"]["a"] == NOW + LEASE, "its worker, or the reaper, decides"
    if state == "x":
        assert found["dead"] == {"a": NOW}


@pytest.mark.parametrize(
    "member", [b"abc", b"\xff\xfe", b"", b"99999999", b"20301301", b"2030031", b"203003171", b"x" * 5000]
)
@pytest.mark.parametrize("score", [1, 20300101, "-inf"])
def test_what_is_no_day_hides_no_day(real_shard: Shard, member: bytes, score: Any) -> None:
    real_shard.put({"jobs": {"a": record(fire=NOW)}})
    wheel(real_shard, TODAY, a=NOW)
    real_shard.client.zadd(KEYS.days, {member: score})
    assert ids(take(real_shard)) == [b"a"]


def test_a_day_in_the_wrong_place_hides_no_day(real_shard: Shard) -> None:
    real_shard.put({"jobs": {"a": record(fire=NOW), "b": record(fire=MIDNIGHT)}})
    wheel(real_shard, TODAY, a=NOW)
    wheel(real_shard, TOMORROW, b=MIDNIGHT)
    real_shard.client.zadd(KEYS.days, {TODAY: 99999999, TOMORROW: 3})
    assert ids(take(real_shard)) == [b"a"]
    assert real_shard.keyspace()["days"] == {TOMORROW: int(TOMORROW)}


def test_thousands_of_false_days_cost_a_few_calls(real_shard: Shard) -> None:
    real_shard.put({"jobs": {"a": record(fire=NOW)}})
    wheel(real_shard, TODAY, a=NOW)
    real_shard.client.zadd(KEYS.days, {f"{10_000_000 + n}": n for n in range(30_000)})
    assert ids(take(real_shard)) == [b"a"]


@pytest.mark.parametrize("key", ["wake", f"wheel:{TODAY}"])
@pytest.mark.raw_keys
def test_a_key_of_another_type_costs_no_more_than_what_it_held(real_shard: Shard, key: str) -> None:
    real_shard.put({"jobs": {"a": record(fire=START - 5), "b": record(fire=MIDNIGHT)}})
    wheel(real_shard, TOMORROW, b=MIDNIGHT)
    real_shard.client.zadd(KEYS.days, {TODAY: int(TODAY)})
    real_shard.client.set(f"{KEYS.tag}:{key}", "another program's")
    assert ids(take(real_shard, now=MIDNIGHT)) == [b"b"]


def names_of(name: str) -> list[str]:
    """The keys of a script, as its header calls them."""
    section = script(name).header.split("KEYS")[1].split("ARGV")[0]
    return re.findall(r"\d+(?:\.\.)? +([a-z:]+)", section)


#: But for the records: without these there are no jobs.
@pytest.mark.parametrize(("name", "key"), [(name, key) for name in NAMES for key in names_of(name) if key != "jobs"])
def test_a_script_that_meets_a_key_of_another_type_leaves_every_job_in_a_place(
    real_shard: Shard, name: str, key: str
) -> None:
    call = prepare(name, real_shard, 30)
    broken = call.keys[names_of(name).index(key)]
    before = {job_id for job_id, sets in places(real_shard.keyspace()).items() if sets}
    real_shard.client.delete(broken)
    had = places(real_shard.keyspace())
    real_shard.client.set(broken, "another program's")
    with contextlib.suppress(redis.exceptions.ResponseError):
        real_shard.run(call)
    real_shard.client.delete(broken)
    found = real_shard.keyspace()
    now = places(found)
    lost = {job_id for job_id in before if had.get(job_id) and job_id in found.get("jobs", {}) and not now[job_id]}
    assert lost == set()
    assert {job_id: sets for job_id, sets in now.items() if len(sets) > 2} == {}
    ends(real_shard)
    left = places(real_shard.keyspace())
    assert {job_id: sets for job_id, sets in left.items() if len(sets) > 1} == {}


@pytest.mark.parametrize("score", ["-inf", -5, 0])
def test_a_lease_that_is_damaged_ends(real_shard: Shard, score: Any) -> None:
    real_shard.put({"jobs": {"a": held(NOW * 1000 - 5)}, "meta": {"lease": str(LEASE)}})
    real_shard.client.zadd(KEYS.processing, {"a": score})
    reply = real_shard.run(reap(KEYS, limit=10, lease_ms=LEASE, most_dead=10, now_ms=NOW, now=at(NOW)))
    assert reply[0] == b"ok"
    assert reply[4] == b"a", "it is back on the wheel"


@pytest.mark.parametrize("count", ["9998", "9999"])
def test_an_attempt_that_is_as_large_as_can_be_breaks_no_record(real_shard: Shard, count: str) -> None:
    real_shard.put({"jobs": {"a": record(fire=NOW, attempt=int(count))}})
    wheel(real_shard, TODAY, a=NOW)
    (_, raw) = take(real_shard).jobs
    assert raw[2:6] == b"9999"
    assert len(raw) == len(record())


@pytest.mark.parametrize("keep", [b"nan       ", b"inf       ", b"0x10      ", b"-999999999", b"1e300     "])
@pytest.mark.parametrize("before", [record_of_1(flags="02")[:51], record()[:49] + b"01k00010"], ids=["1", "2"])
def test_a_keep_time_that_is_damaged_counts_for_nothing(real_shard: Shard, before: bytes, keep: bytes) -> None:
    real_shard.put({"jobs": {"a": before + keep + record()[51:]}})
    wheel(real_shard, TODAY, a=NOW)
    reply = real_shard.run(cancel(KEYS, ["a"], day=TODAY, lane=Lane("c", 1, "1"), now=at(NOW)))
    assert reply[2] == b"c"
    assert NOW < real_shard.keyspace()["done"]["a"] <= NOW + DAY_MS


def test_a_token_that_is_no_time_is_set_aside(real_shard: Shard) -> None:
    raw = record(fire=NOW, token=9_999_999_999_999_999)
    real_shard.put({"jobs": {"a": raw, "b": record(fire=NOW, token=8_999_999_999_999_998)}})
    wheel(real_shard, TODAY, a=NOW, b=NOW)
    met = take(real_shard)
    assert ids(met) == [b"b"]
    assert met.jobs[1][21:37] == digits16(8_999_999_999_999_999)
    assert real_shard.keyspace()["dead"] == {"a": NOW}


@pytest.mark.parametrize("schema", [b"\xff", b"2\x1b[31m\nFAKE", b"7" * 5000])
def test_a_schema_that_is_no_text_is_told_as_text(real_shard: Shard, schema: bytes) -> None:
    for name in ("enqueue", "claim", "advance", "define"):
        real_shard.client.flushall()
        call: Call = prepare(name, real_shard, 3)
        real_shard.client.hset(KEYS.meta, "schema", schema)
        reply = real_shard.run(call)
        assert reply[0] == b"foreign"
        assert re.fullmatch(rb"[\w.?-]{1,32}", reply[2])


def test_every_day_has_its_first_ms(real_shard: Shard) -> None:
    days = [*range(400), *range(10_000, 60_000, 997), 47_540, 47_541, 51_193, 2_932_896]
    source = script("claim").source
    start = source.index("local function day_start")
    function = source[start : source.index("\nend\n", start) + 5]
    code = f"{function} local found = {{}} for i = 1, #ARGV do found[i] = string.format('%.0f', day_start(ARGV[i])) end return found"
    answer: Any = real_shard.client.eval(code, 0, *[day_name(number) for number in days])
    assert [int(text) for text in answer] == [number * DAY_MS for number in days]
