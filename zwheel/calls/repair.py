"""repair: anywhere -> where the record says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zwheel.calls.call import Call, Reply, text
from zwheel.keys import ShardKeys
from zwheel.scripts import script
from zwheel.times import day_start_ms

REPAIR_JOBS = 500
"""The most jobs, and the most dedup keys, of one call."""
REPAIR_DAYS = 20
"""The most day buckets of one call: each job is looked for in each of them."""


@dataclass(frozen=True, slots=True)
class Repaired:
    """What a look found, or a repair mended: one letter for each thing that was named, in its order."""

    jobs: str
    """c consistent, g gone, o without a record, f in the wrong place, p unreadable and in no set, m day not named."""
    days: str
    """c consistent, e in the index and empty, l not in the index."""
    digests: str
    """c consistent, s stale."""
    schema: str
    """What `meta.schema` said before; '' for none."""


def repair(
    keys: ShardKeys,
    *,
    days: Sequence[str] = (),
    digests: Sequence[str] = (),
    ids: Sequence[str] = (),
    mend: bool,
    now: str = "",
) -> Call:
    """Build the call for up to REPAIR_JOBS ids and digests and REPAIR_DAYS buckets. mend: put right what is found."""
    names = (
        keys.meta, keys.jobs, keys.days, keys.processing, keys.dead, keys.done, keys.dedup, keys.dedup_expiry, keys.wake,
        *(keys.wheel(day) for day in days),
    )  # fmt: skip
    layout = [word for day in days for word in (day, day_start_ms(day))]
    args = (now, "mend" if mend else "look", len(days), len(digests), *layout, *digests, *ids)
    return Call(script("repair"), names, args)


def read_repair(reply: Reply) -> Repaired:
    """Read the answer."""
    return Repaired(text(reply[2]), text(reply[3]), text(reply[4]), text(reply[5]))
