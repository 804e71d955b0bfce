"""redrive: dead -> scheduled, by a person."""

from __future__ import annotations

from collections.abc import Sequence

from zwheel.calls.call import Call, Lane, Reply, Trace, buckets
from zwheel.calls.scripts import script
from zwheel.calls.traces import named, traced
from zwheel.keys import ShardKeys


def redrive(keys: ShardKeys, ids: Sequence[str] | Sequence[bytes], *, now_ms: int, lane: Lane, now: str = "") -> Call:
    """Build the call for up to 1000 dead jobs. Read with `read_letters`: r, n, k, u, l; None: build the call again."""
    layout = buckets(keys, [(now_ms, True)])
    names = (
        keys.meta, lane.key(keys), keys.jobs, keys.dead, keys.days, keys.dedup, keys.wake, *layout.keys,
    )  # fmt: skip
    return Call(script("redrive"), names, (now, lane.request, *layout.head, *ids), _told, ids)


def _told(ids: Sequence[str] | Sequence[bytes], reply: Reply | None) -> Trace:
    return traced(reply, named(ids))
