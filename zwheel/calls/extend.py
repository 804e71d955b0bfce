"""extend: processing stays processing, its lease renewed."""

from __future__ import annotations

from collections.abc import Sequence

from zwheel.calls.call import Arg, Call, Reply, Trace
from zwheel.calls.scripts import script
from zwheel.calls.traces import held as held_facts
from zwheel.calls.traces import traced
from zwheel.keys import ShardKeys


def extend(keys: ShardKeys, held: Sequence[tuple[bytes | str, bytes]], *, lease_ms: int, now: str = "") -> Call:
    """Build the call. held: (job id, token as 16 digits), up to 1000; none still says that this worker lives.

    Read with `read_letters`: k, f, m; l for what another call must ask for, since the records are large.
    """
    args: list[Arg] = [now, lease_ms]
    for pair in held:
        args += pair
    return Call(script("extend"), (keys.meta, keys.jobs, keys.processing), args, _told, (held, lease_ms))


def _told(about: tuple[Sequence[tuple[bytes | str, bytes]], int], reply: Reply | None) -> Trace:
    held, lease_ms = about
    return traced(reply, [held_facts(*pair) for pair in held], {"lease": lease_ms})
