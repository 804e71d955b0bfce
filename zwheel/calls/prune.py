"""prune: done, cancelled or dead -> gone, past retention."""

from __future__ import annotations

from zwheel.calls.call import Call, Facts, Reply, Trace, word
from zwheel.calls.scripts import script
from zwheel.calls.traces import answered
from zwheel.keys import ShardKeys


def prune(keys: ShardKeys, *, limit: int, dead_age_ms: int, expected_us: int | None = None, now: str = "") -> Call:
    """Build the call. limit: most of each kind, up to 1000. Read with `read_count`: ask again until it is 0.

    expected_us: the server's clock by the caller's own; when that cannot be, nothing is taken. None: not known.
    """
    names = (keys.meta, keys.jobs, keys.bodies, keys.done, keys.dead, keys.dedup, keys.dedup_expiry)
    args = (now, limit, dead_age_ms, "" if expected_us is None else expected_us)
    return Call(script("prune"), names, args, _told, (limit, dead_age_ms))


def _told(about: tuple[int, int], reply: Reply | None) -> Trace:
    args: Facts = {"limit": about[0], "dead_age": about[1]}
    if reply is not None and word(reply) == "ok":
        args["count"] = int(reply[2])
    return Trace(answered(reply), args, [])
