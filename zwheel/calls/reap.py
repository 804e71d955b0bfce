"""reap: processing -> scheduled, or dead."""

from __future__ import annotations

from dataclasses import dataclass

from zwheel.calls.call import Call, Reply, clock_us, day_name, text, word
from zwheel.keys import ShardKeys
from zwheel.record import FAILURES_KEPT
from zwheel.scripts import script
from zwheel.times import DAY_MS


@dataclass(frozen=True, slots=True)
class Reaped:
    """What a reap met."""

    now_us: int
    grace_ms: int
    """End of the grace period, ms; 0: none."""
    looked_at: int
    back: list[str]
    """Ids that are due again."""
    dead: list[str]
    """Ids that used up their attempts."""


def reap(keys: ShardKeys, *, limit: int, lease_ms: int, most_dead: int, now_ms: int, now: str = "") -> Call:
    """Build the call. now_ms: the estimate of the server's clock, for the bucket of today."""
    number = now_ms // DAY_MS
    day = day_name(number)
    names = (
        keys.meta, keys.jobs, keys.processing, keys.days, keys.dead, keys.dedup, keys.dedup_expiry, keys.wake,
        keys.wheel(day),
    )  # fmt: skip
    return Call(script("reap"), names, (now, limit, lease_ms, most_dead, FAILURES_KEPT, day, number * DAY_MS))


def read_reap(reply: Reply) -> Reaped | None:
    """Read the answer; None: the day changed, build the call again."""
    answer = word(reply)
    if answer == "moved":
        return None
    if answer == "grace":
        return Reaped(clock_us(reply), int(reply[2]), 0, [], [])
    return Reaped(clock_us(reply), 0, int(reply[2]), text(reply[3]).split(), text(reply[4]).split())
