"""redrive: dead -> scheduled, by a person."""

from __future__ import annotations

from collections.abc import Sequence

from zwheel.calls.call import Call, Lane, day_name
from zwheel.keys import ShardKeys
from zwheel.scripts import script
from zwheel.times import DAY_MS


def redrive(keys: ShardKeys, ids: Sequence[str], *, now_ms: int, lane: Lane, now: str = "") -> Call:
    """Build the call for up to 1000 dead jobs. Read with `read_letters`: r, n, k, u; None: build the call again."""
    number = now_ms // DAY_MS
    day = day_name(number)
    names = (
        keys.meta, lane.key(keys), keys.jobs, keys.dead, keys.days, keys.dedup, keys.wake, keys.wheel(day),
    )  # fmt: skip
    return Call(script("redrive"), names, (now, lane.request, day, number * DAY_MS, *ids))
