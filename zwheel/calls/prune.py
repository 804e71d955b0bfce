"""prune: done, cancelled or dead -> gone, past retention."""

from __future__ import annotations

from zwheel.calls.call import Call
from zwheel.calls.scripts import script
from zwheel.keys import ShardKeys


def prune(keys: ShardKeys, *, limit: int, dead_age_ms: int, expected_us: int | None = None, now: str = "") -> Call:
    """Build the call. limit: most of each kind, up to 1000. Read with `read_count`: ask again until it is 0.

    expected_us: the server's clock by the caller's own; when that cannot be, nothing is taken. None: not known.
    """
    names = (keys.meta, keys.jobs, keys.done, keys.dead, keys.dedup, keys.dedup_expiry)
    return Call(script("prune"), names, (now, limit, dead_age_ms, "" if expected_us is None else expected_us))
