"""bury: processing -> dead."""

from __future__ import annotations

import json
from collections.abc import Sequence

from zwheel.calls.call import Arg, Call, Lane, Reply, Trace, text
from zwheel.calls.scripts import script
from zwheel.calls.traces import held, traced
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
    return Call(script("bury"), names, args, _told, ends)


def _told(ends: Sequence[tuple[bytes | str, bytes, bytes]], reply: Reply | None) -> Trace:
    return traced(reply, [held(job, token) | {"reason": _reason(failures)} for job, token, failures in ends])


def _reason(failures: bytes) -> str:
    lines = text(failures).splitlines()
    try:
        return str(json.loads(lines[-1])["reason"])
    except (ValueError, KeyError, IndexError, TypeError):
        return ""
