"""bury: processing -> dead."""

from __future__ import annotations

from collections.abc import Sequence

from zwheel.calls.call import Arg, Call, Lane
from zwheel.calls.scripts import script
from zwheel.keys import ShardKeys


def bury(
    keys: ShardKeys, ends: Sequence[tuple[bytes | str, bytes, bytes]], *, most_dead: int, lane: Lane, now: str = ""
) -> Call:
    """Build the call. ends: (job id, token as 16 digits, failures), up to 1000. Read with `read_letters`: x, f, m."""
    args: list[Arg] = [now, lane.request, most_dead]
    for end in ends:
        args += end
    names = (
        keys.meta, lane.key(keys), keys.jobs, keys.processing, keys.dead, keys.dedup, keys.dedup_expiry,
    )  # fmt: skip
    return Call(script("bury"), names, args)
