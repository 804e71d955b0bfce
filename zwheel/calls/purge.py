"""purge: scheduled, done or dead -> gone, by a person."""

from __future__ import annotations

from collections.abc import Sequence

from zwheel.calls.call import BATCH_LIMIT, Call
from zwheel.keys import ShardKeys
from zwheel.scripts import script


def purge(
    keys: ShardKeys,
    zset: str,
    *,
    day: str = "",
    limit: int = BATCH_LIMIT,
    highest: int | None = None,
    ids: Sequence[str] = (),
    now: str = "",
) -> Call:
    """Build the call. zset: a bucket (with its day), `keys.dead` or `keys.done`. highest: highest score to take.

    ids: only these, up to 1000. Read with `read_count`.
    """
    names = (keys.meta, keys.jobs, keys.days, keys.dedup, keys.dedup_expiry, zset)
    return Call(script("purge"), names, (now, day, limit, "+inf" if highest is None else highest, *ids))
