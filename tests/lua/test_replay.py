"""A lane gives a repeat its first answer, and carries out nothing that a later request of it overtook."""

from __future__ import annotations

import pytest
from redis.exceptions import ResponseError

from tests.lua.shard import KEYS, Shard, record
from zwheel.calls import Lane, cancel


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
