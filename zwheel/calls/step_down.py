"""step_down: a worker leaves the role in which it waits."""

from __future__ import annotations

from zwheel.calls.call import Call, Lane, Reply, Trace
from zwheel.calls.scripts import script
from zwheel.calls.traces import answered
from zwheel.keys import ShardKeys


def step_down(keys: ShardKeys, worker: str, *, lane: Lane, now: str = "") -> Call:
    """Build the call. lane: that of the worker's claims, so that a late copy of it takes back no later role."""
    return Call(script("step_down"), (keys.meta, lane.key(keys), keys.wake), (now, lane.request, worker), _told, worker)


def _told(worker: str, reply: Reply | None) -> Trace:
    """It is known as a claim for no jobs, since it ends the same wait."""
    return Trace(answered(reply), {"worker": worker, "limit": 0, "role": "none"}, [])
