"""cancel: scheduled -> cancelled; and asks the worker of a running job to cancel it."""

from __future__ import annotations

from collections.abc import Sequence

from zwheel.calls.call import Arg, Call, Lane, Reply, Trace
from zwheel.calls.scripts import script
from zwheel.calls.traces import named, traced
from zwheel.keys import ShardKeys
from zwheel.times import day_start_ms

#: A cancelled job can be read for at least this long, ms; `lua/include/moves.lua` has the same number.
LEAST_KEPT_MS = 600_000


def cancel(keys: ShardKeys, ids: Sequence[str], *, day: str, lane: Lane, now: str = "") -> Call:
    """Build the call for jobs of one bucket, up to 1000. Read with `read_letters`: c, q, a, e, m, v, u."""
    names = (
        keys.meta, lane.key(keys), keys.jobs, keys.bodies, keys.days, keys.done, keys.dedup, keys.dedup_expiry, keys.wheel(day),
        keys.asked,
    )  # fmt: skip
    args: list[Arg] = [now, lane.request, day, day_start_ms(day), LEAST_KEPT_MS, *ids]
    return Call(script("cancel"), names, args, _told, (day, ids))


def _told(about: tuple[str, Sequence[str]], reply: Reply | None) -> Trace:
    day, ids = about
    return traced(reply, named(ids), {"day": day})
