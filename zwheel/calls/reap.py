"""reap: processing -> scheduled, dead or cancelled."""

from __future__ import annotations

from dataclasses import dataclass, field

from zwheel.calls.call import Call, Facts, Reply, Trace, buckets, clock_us, text, word
from zwheel.calls.scripts import script
from zwheel.calls.traces import answered
from zwheel.keys import ShardKeys
from zwheel.record import FAILURES_KEPT


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
    shortened: int = 0
    """How many leases ended later than any can, and were shortened."""
    doubted: bool = False
    """Whether nothing was done because the server's clock was not what the caller expected, or jumped unknown to it."""
    cancelled: list[str] = field(default_factory=list)
    """Ids of jobs that it was asked to cancel."""
    jumps: int = 0
    """How often the server's clock was seen to jump, by anybody."""


def reap(
    keys: ShardKeys, *, limit: int, lease_ms: int, most_dead: int, now_ms: int, expected_us: int | None = None,
    jumped_ms: int = 0, jumps: int | None = None, now: str = "",
) -> Call:  # fmt: skip
    """Build the call. now_ms: the estimate of the server's clock, for the bucket of today.

    expected_us: the server's clock by the caller's own, in µs; None: not known. jumped_ms: how far the caller saw the
    server's clock jump; 0: it did not. jumps: how often the clock is known to have jumped, as an answer said; nothing is
    taken back when it did so once more. None: not known.
    """
    layout = buckets(keys, [(now_ms, True)])
    names = (
        keys.meta, keys.jobs, keys.bodies, keys.processing, keys.days, keys.dead, keys.dedup, keys.dedup_expiry, keys.wake,
        keys.done, *layout.keys,
    )  # fmt: skip
    return Call(
        script("reap"),
        names,
        (
            now, limit, lease_ms, most_dead, FAILURES_KEPT, "" if expected_us is None else expected_us,
            jumped_ms or "", "" if jumps is None else jumps, *layout.head,
        ),
        _told,
        (limit, lease_ms, jumped_ms),
    )  # fmt: skip


def _told(about: tuple[int, int, int], reply: Reply | None) -> Trace:
    limit, lease_ms, jumped_ms = about
    args: Facts = {"limit": limit, "lease": lease_ms}
    if jumped_ms:
        args["jumped"] = jumped_ms
    answer = answered(reply)
    jobs: list[Facts] = []
    if reply is not None and answer == "grace":
        args["grace"] = int(reply[3])
    elif reply is not None and answer == "ok":
        args["looked"], args["shortened"] = int(reply[3]), int(reply[6])
        jobs += [{"id": name, "letter": "s"} for name in text(reply[4]).split()]
        jobs += [{"id": name, "letter": "x"} for name in text(reply[5]).split()]
        jobs += [{"id": name, "letter": "c"} for name in text(reply[7]).split()]
    return Trace(answer, args, jobs)


def read_reap(reply: Reply) -> Reaped | None:
    """Read the answer; None: the day changed, build the call again."""
    answer = word(reply)
    if answer == "moved":
        return None
    jumps = int(reply[2])
    if answer == "doubt":
        return Reaped(clock_us(reply), 0, 0, [], [], doubted=True, jumps=jumps)
    if answer == "grace":
        return Reaped(clock_us(reply), int(reply[3]), 0, [], [], jumps=jumps)
    back, dead = text(reply[4]).split(), text(reply[5]).split()
    cancelled = text(reply[7]).split()
    return Reaped(clock_us(reply), 0, int(reply[3]), back, dead, int(reply[6]), cancelled=cancelled, jumps=jumps)
