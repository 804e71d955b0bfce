"""What holds for every transition alike: repeats, full batches, empty ones, a full server, the clock, the conformance."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from tests.servers import RedisServer
from zwheel.broker.store import SyncStore
from zwheel.calls import Call, Lane, Session
from zwheel.calls.scripts import NAMES, script
from zwheel.errors import BrokerFull

from .batches import PREPARE, prepare
from .shard import KEYS, LANE, NOW, NOW_US, Keyspace, Shard, at

#: They carry a request id; the others do what is left when they are sent again.
WITH_LANE = (
    "enqueue",
    "claim",
    "step_down",
    "settle",
    "offer",
    "cancel",
    "reschedule",
    "redrive",
    "define",
)
#: They let a job end, or another worker have it, or make room; or what has left another shard arrive.
WHEN_FULL = (
    "claim", "step_down", "settle", "offer", "extend", "reap", "purge", "prune", "repair", "arrive",
)  # fmt: skip

each = pytest.mark.parametrize("name", NAMES)


def test_every_transition_has_a_batch() -> None:
    assert tuple(PREPARE) == NAMES


def test_what_may_run_on_a_full_server_says_so_in_its_first_line() -> None:
    assert tuple(n for n in NAMES if script(n).source.startswith("#!lua flags=allow-oom\n")) == WHEN_FULL


@each
def test_a_call_says_what_a_history_keeps_of_it_before_its_answer_and_with_it(shard: Shard, name: str) -> None:
    call = prepare(name, shard, 3)
    asked = call.trace(None)
    assert asked.word == ""
    assert call.tell is not None, "it may change something"
    told = call.trace(shard.run(call))
    assert told.word == "ok"
    assert asked.args.items() <= told.args.items() or name == "advance"
    answered = {job["id"]: job for job in told.jobs}
    assert all(job.items() <= answered.get(job["id"], job).items() for job in asked.jobs)


def without_clock(keyspace: Keyspace) -> Keyspace:
    """What must not change by a repeat that does its work again: everything but the marks of the time."""
    left = {name: value for name, value in keyspace.items() if name != "meta"}
    marks = ("clock", "beat")
    return left | {"meta": {field: text for field, text in keyspace["meta"].items() if field not in marks}}


@pytest.mark.parametrize("name", WITH_LANE)
def test_a_repeat_gets_the_first_answer_and_changes_nothing(shard: Shard, name: str) -> None:
    call = prepare(name, shard, 40)
    first = shard.run(call)
    stored = shard.keyspace()
    later = (at(NOW + 1_234), *call.args[1:])
    repeat = shard.run(call._replace(args=later))
    assert repeat[0] == first[0]
    # A delay counts from the clock of the first answer: a repeat tells that clock too.
    counted = [first[1]] if name in ("enqueue", "settle") else []
    assert _payload(name, repeat) == _payload(name, first) + counted
    assert repeat[1] == at(NOW + 1_234).encode(), "the clock of an answer is the time as it is"
    shard.leaves(stored)


def _payload(name: str, reply: list[Any]) -> list[Any]:
    """What of an answer a repeat must give again; a claim's sleep and role are not asked for a second time."""
    return reply[8:] if name == "claim" else reply[2:]


@pytest.mark.parametrize("name", [n for n in NAMES if n not in WITH_LANE])
def test_a_transition_without_a_request_id_changes_nothing_when_sent_again(shard: Shard, name: str) -> None:
    call = prepare(name, shard, 40)
    shard.run(call)
    stored = shard.keyspace()
    shard.run(call)
    assert without_clock(shard.keyspace()) == without_clock(stored)


@pytest.mark.parametrize("name", WITH_LANE)
def test_another_request_on_the_same_lane_is_not_a_repeat(shard: Shard, name: str) -> None:
    call = prepare(name, shard, 1)
    lane = "replay:caller:0"
    shard.put({lane: "request-10 answer-of-another"})
    reply = shard.run(call)
    assert b"answer-of-another" not in reply
    assert shard.keyspace()[lane].startswith("request-1 ")


@each
def test_a_full_batch_of_a_thousand_works(shard: Shard, name: str) -> None:
    call = prepare(name, shard, 1000)
    reply = shard.run(call)
    assert reply[0] == b"ok"
    after = shard.keyspace()
    homes = [n for n in after if n in ("processing", "dead", "done") or n.startswith("wheel:")]
    placed = sorted(member for home in homes for member in after[home])
    assert placed == sorted(after["jobs"]), "every job is in one place"


@pytest.mark.parametrize(
    "name",
    [
        n
        for n in NAMES
        if n
        not in (
            "extend",
            "reschedule",
            "reap",
            "claim",
            "step_down",
            "purge",
            "prune",
            "repair",
            "define",
            "depart",
            "arrive",
            "reshard",
        )
    ],
)
def test_an_empty_batch_is_refused_by_redis_and_changes_nothing(shard: Shard, name: str) -> None:
    call = prepare(name, shard, 1)
    before = shard.keyspace()
    fixed = {"settle": 2, "offer": 5, "cancel": 5, "redrive": 4}.get(name)
    empty = call.args[:fixed] if fixed else (call.args[0], call.args[1], 0)
    with pytest.raises(redis.exceptions.ResponseError):
        shard.run(call._replace(args=empty))
    shard.leaves(before)


@each
def test_the_answer_has_the_time_as_it_is_and_the_stamp_is_later_than_the_last(shard: Shard, name: str) -> None:
    # A repair, by a person, does not believe a stamp more than a minute ahead of the time.
    ahead_us = 30_000_007 if name == "repair" else 3_600_000_007
    call = prepare(name, shard, 3)
    shard.put({"meta": {"clock": str(NOW_US + ahead_us)}})
    assert int(shard.run(call)[1]) == NOW_US
    assert shard.keyspace()["meta"]["clock"] == str(NOW_US + ahead_us + 1)


@pytest.mark.parametrize("text", ["nan", "inf", "1e300", "9000000000000000", "-7", "x"])
@each
def test_a_last_stamp_that_is_no_time_counts_for_nothing(shard: Shard, name: str, text: str) -> None:
    call = prepare(name, shard, 3)
    shard.put({"meta": {"clock": text}})
    reply = shard.run(call)
    assert (reply[0], int(reply[1])) == (b"ok", NOW_US)
    assert shard.keyspace()["meta"]["clock"] == str(NOW_US)


@each
def test_the_server_reads_its_own_clock_when_none_is_given(shard: Shard, name: str) -> None:
    seconds, micros = shard.client.time()
    call = prepare(name, shard, 3)
    reply = shard.run(call._replace(args=("", *call.args[1:])))
    late_seconds, late_micros = shard.client.time()
    assert seconds * 1_000_000 + micros <= int(reply[1]) <= late_seconds * 1_000_000 + late_micros


@each
def test_a_full_server_takes_no_more_work_but_lets_every_job_end(
    real_shard: Shard, fresh: RedisServer, name: str
) -> None:
    shard = real_shard
    call = prepare(name, shard, 20)
    before = shard.keyspace()
    store = SyncStore(fresh.url, Session("zw"))
    try:
        store.send([("SCRIPT", "LOAD", call.script.source)])
        shard.client.config_set("maxmemory", "1")
        if name in WHEN_FULL:
            (reply,) = store.send([call])
            assert reply[0] == b"ok"
        else:
            with pytest.raises(BrokerFull):
                store.send([call])
    finally:
        shard.client.config_set("maxmemory", "0")
        store.close()
    if name not in WHEN_FULL:
        shard.leaves(before)
        assert shard.run(call)[0] == b"ok"
        return
    full = shard.keyspace()
    shard.client.flushall()
    roomy = prepare(name, shard, 20)
    shard.run(roomy)
    assert full == shard.keyspace(), "it does the same as with room"


@pytest.mark.parametrize("name", WITH_LANE)
def test_two_lanes_do_not_answer_for_each_other(shard: Shard, name: str) -> None:
    call: Call = prepare(name, shard, 5, lane=Lane("other", 3, LANE.request))
    shard.put({LANE.key(KEYS).removeprefix(f"{KEYS.tag}:"): f"{LANE.request} nonsense"})
    assert shard.run(call)[0] == b"ok"
    assert shard.keyspace()["replay:caller:0"] == f"{LANE.request} nonsense"
