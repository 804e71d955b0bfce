"""extend: processing stays processing, its lease renewed."""

from __future__ import annotations

from collections.abc import Sequence

from zwheel.calls.call import Arg, Call
from zwheel.calls.scripts import script
from zwheel.keys import ShardKeys


def extend(keys: ShardKeys, held: Sequence[tuple[bytes | str, bytes]], *, lease_ms: int, now: str = "") -> Call:
    """Build the call. held: (job id, token as 16 digits), up to 1000; none still says that this worker lives.

    Read with `read_letters`: k, f, m; l for what another call must ask for, since the records are large.
    """
    args: list[Arg] = [now, lease_ms]
    for pair in held:
        args += pair
    return Call(script("extend"), (keys.meta, keys.jobs, keys.processing), args)
