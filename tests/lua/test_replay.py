"""A lane gives a repeat its first answer, and carries out nothing that a later request of it overtook."""

from __future__ import annotations

import pytest
from redis.exceptions import ResponseError

from tests.lua.shard import KEYS, LANE, MIDNIGHT, NOW, NOW_US, TODAY, Shard, at, held, record
from tests.lua.test_enqueue import new
from zwheel.calls import Lane, cancel, enqueue, reschedule


def test_a_request_that_a_later_one_overtook_changes_nothing(shard: Shard) -> None:
    """Sent, cut off, repeated, answered; the next one answered too; then the first one arrives after all."""
    state = {"jobs": {"a": record(), "b": record()}}
    shard.put(state)
    early, later = Lane("c", 0, "9"), Lane("c", 0, "10")
    shard.run(cancel(KEYS, ["nobody"], day="20261120", lane=early))
    shard.run(cancel(KEYS, ["nobody"], day="20261120", lane=later))
    before = shard.keyspace()
    with pytest.raises(ResponseError, match="ZWLATE"):
        shard.run(cancel(KEYS, ["a"], day="20261120", lane=early))
    assert shard.keyspace() == before


@pytest.mark.parametrize(("word", "meta"), [("full", {"cap": "1", "schema": "1"}), ("foreign", {"schema": "9"})])
def test_what_was_refused_stays_refused_when_a_copy_comes_late(shard: Shard, word: str, meta: dict[str, str]) -> None:
    """Sent, held up; repeated, refused; room is made; then the first copy arrives."""
    shard.put({"jobs": {"a": record()}, "meta": meta})
    call = enqueue(KEYS, [new("b")], now_ms=NOW, lane=LANE, now=at(NOW)).call
    assert shard.run(call)[0] == word.encode()
    shard.client.hset(KEYS.meta, mapping={"cap": "1000", "schema": "1"})
    assert shard.run(call)[0] == word.encode()
    assert set(shard.keyspace()["jobs"]) == {"a"}


def test_a_job_that_could_not_be_moved_is_not_moved_by_a_late_copy(shard: Shard) -> None:
    shard.put({"jobs": {"a": held(NOW_US)}, "processing": {"a": NOW + 9}})
    call = reschedule(KEYS, "a", day=TODAY, at_ms=MIDNIGHT, delay_ms=0, now_ms=NOW, lane=LANE, now=at(NOW))
    told = shard.run(call)
    assert told[2] == b"r"
    shard.put({"jobs": {"a": record()}, f"wheel:{TODAY}": {"a": NOW}})
    assert shard.run(call) == told
    assert shard.keyspace()["jobs"] == {"a": record()}


def test_a_repeat_writes_so_that_a_wait_behind_it_waits(shard: Shard) -> None:
    """A WAIT on a connection that wrote nothing is over at once."""
    call = cancel(KEYS, ["nobody"], day=TODAY, lane=LANE)
    told = shard.run(call)
    shard.client.expire(LANE.key(KEYS), 5)
    assert shard.run(call)[2:] == told[2:]
    assert shard.client.ttl(LANE.key(KEYS)) > 5
