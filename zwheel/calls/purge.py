"""purge: scheduled, done or dead -> gone, by a person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from zwheel.calls.call import BATCH_LIMIT, Call, Facts, Reply, Trace, read_count
from zwheel.calls.scripts import script
from zwheel.calls.traces import answered, named
from zwheel.keys import ShardKeys


class Purged(NamedTuple):
    """What became of one call's jobs. There may be more of them, unless both are 0."""

    gone: int
    """How many were deleted."""
    left: int
    """How many were left alone: they stand in the set by damage, and their records say that they are elsewhere."""


def purge(
    keys: ShardKeys,
    zset: str,
    *,
    day: str = "",
    limit: int = BATCH_LIMIT,
    highest: int | None = None,
    past: int = 0,
    ids: Sequence[str] = (),
    now: str = "",
) -> Call:
    """Build the call. zset: a bucket (with its day), `keys.dead` or `keys.done`. highest: highest score to take.

    ids: only these, up to 1000. past: how many to pass over, those that calls before this one left alone.
    """
    names = (keys.meta, keys.jobs, keys.bodies, keys.days, keys.dedup, keys.dedup_expiry, zset)
    states = "s" if day else "x" if zset == keys.dead else "dc"
    most = "+inf" if highest is None else highest
    about = (zset.rpartition("}:")[2], limit, most, ids)
    return Call(script("purge"), names, (now, day, limit, most, states, past, *ids), _told, about)


def _told(about: tuple[str, int, int | str, Sequence[str]], reply: Reply | None) -> Trace:
    """Which jobs went is not in the answer, only how many: the set, the highest score and the ids bound them."""
    zset, limit, highest, ids = about
    args: Facts = {"set": zset, "most": limit, "highest": str(highest)}
    if reply is not None:
        args["count"] = int(reply[2])
    return Trace(answered(reply), args, named(ids))


def read_purge(reply: Reply) -> Purged:
    """Read the answer. Raises: BrokerRefused."""
    return Purged(read_count(reply), int(reply[3]))
