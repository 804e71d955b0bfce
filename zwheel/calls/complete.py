"""complete: processing -> done."""

from __future__ import annotations

from collections.abc import Sequence

from zwheel.calls.call import Arg, Call, Lane, Reply, Trace
from zwheel.calls.scripts import script
from zwheel.calls.traces import held, traced
from zwheel.keys import ShardKeys


def complete(keys: ShardKeys, ends: Sequence[tuple[bytes | str, bytes]], *, lane: Lane, now: str = "") -> Call:
    """Build the call. ends: (job id, token as 16 digits), up to 1000. Read with `read_letters`: d, f, m."""
    args: list[Arg] = [now, lane.request]
    for end in ends:
        args += end
    names = (
        keys.meta, lane.key(keys), keys.jobs, keys.processing, keys.done, keys.dedup, keys.dedup_expiry,
    )  # fmt: skip
    return Call(script("complete"), names, args, _told, ends)


def _told(ends: Sequence[tuple[bytes | str, bytes]], reply: Reply | None) -> Trace:
    return traced(reply, [held(*end) for end in ends])
