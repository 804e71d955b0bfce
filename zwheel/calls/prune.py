"""prune: done, cancelled or dead -> gone, past retention."""

from __future__ import annotations

from zwheel.calls.call import Call
from zwheel.keys import ShardKeys
from zwheel.scripts import script


def prune(keys: ShardKeys, *, limit: int, dead_age_ms: int, now: str = "") -> Call:
    """Build the call. limit: most of each kind, up to 1000. Read with `read_count`: `limit` means there may be more."""
    names = (keys.meta, keys.jobs, keys.done, keys.dead, keys.dedup, keys.dedup_expiry)
    return Call(script("prune"), names, (now, limit, dead_age_ms))
