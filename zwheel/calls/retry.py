"""retry: processing -> scheduled, later; the attempt counts."""

from __future__ import annotations

from collections.abc import Sequence

from zwheel.calls.call import Call, Lane
from zwheel.calls.refile import Back, refile
from zwheel.keys import ShardKeys


def retry(keys: ShardKeys, batch: Sequence[Back], *, now_ms: int, lane: Lane, now: str = "") -> Call:
    """Build the call for up to 1000 jobs. Read with `read_refile`: r, f, m."""
    return refile("retry", keys, batch, now_ms=now_ms, lane=lane, now=now)
