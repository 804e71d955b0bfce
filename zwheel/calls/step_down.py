"""step_down: a worker leaves the role in which it waits."""

from __future__ import annotations

from zwheel.calls.call import Call, Lane
from zwheel.calls.scripts import script
from zwheel.keys import ShardKeys


def step_down(keys: ShardKeys, worker: str, *, lane: Lane, now: str = "") -> Call:
    """Build the call. lane: that of the worker's claims, so that a late copy of it takes back no later role."""
    return Call(script("step_down"), (keys.meta, lane.key(keys), keys.wake), (now, lane.request, worker))
