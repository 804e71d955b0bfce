"""offer: processing -> scheduled, unharmed, and offered to those that know the task; or cancelled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from zwheel.calls.call import Arg, Call, Lane, Reply, Trace, day_name
from zwheel.calls.scripts import script
from zwheel.calls.settle import ENDS
from zwheel.calls.traces import held, traced
from zwheel.keys import ShardKeys
from zwheel.times import DAY_MS

#: How long a job is offered before it is due for everyone again, ms.
OFFER_MS = 60_000
#: The most groups that one job is offered to.
GROUPS_LIMIT = 8


class Offer(NamedTuple):
    """One claimed job that this worker cannot run."""

    job_id: bytes | str
    token: bytes
    """16 digits."""
    failures: bytes
    """Lines of JSON; b"" leaves them as they are, b"none" takes them away."""


def offer(
    keys: ShardKeys, batch: Sequence[Offer], *, groups: Sequence[str], now_ms: int, lane: Lane,
    stands_ms: int = OFFER_MS, now: str = "",
) -> Call:  # fmt: skip
    """Build the call for up to 1000 jobs and 8 groups. Read with `read_letters`: o, c, f, m."""
    number = now_ms // DAY_MS
    day = day_name(number)
    names = [
        keys.meta, lane.key(keys), keys.jobs, keys.processing, keys.days, keys.wake, keys.bodies, keys.done, keys.dedup,
        keys.dedup_expiry, keys.wheel(day),
    ]  # fmt: skip
    told = list(groups[:GROUPS_LIMIT])
    for group in told:
        names += (keys.offered(group), keys.call(group))
    args: list[Arg] = [now, lane.request, day, number * DAY_MS, stands_ms]
    for one in batch:
        args += one
    return Call(script("offer"), names, args, _told, (batch, told))


def _told(about: tuple[Sequence[Offer], list[str]], reply: Reply | None) -> Trace:
    """Without a fire time: that of the job stays what it was for those to whom it is offered."""
    batch, groups = about
    told = traced(reply, [held(one.job_id, one.token) | {"groups": groups} for one in batch])
    for job in told.jobs:
        if job.get("letter") == "c":
            job["end"] = ENDS["c"]
    return told
