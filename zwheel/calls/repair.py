"""repair: anywhere -> where the record says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zwheel.calls.call import Call, Reply, Trace, foreign_schema, text, word
from zwheel.calls.scripts import script
from zwheel.calls.traces import named, traced
from zwheel.errors import BrokerRefused
from zwheel.keys import ShardKeys
from zwheel.times import day_start_ms

REPAIR_JOBS = 500
"""The most jobs, the most dedup keys, and the most schedules of one call."""
REPAIR_DAYS = 20
"""The most day buckets of one call: each job is looked for in each of them."""


@dataclass(frozen=True, slots=True)
class Repaired:
    """What a look found, or a repair mended: one letter for each thing that was named, in its order."""

    jobs: str
    """c consistent, g gone, o without a record, f in the wrong place, p unreadable and in no set, t its time cannot be,
    m day not named, b with a body that no record asks for, n its body is gone; with `place` e in the dead set and elsewhere, and left there, l left for another call."""
    days: str
    """c consistent, e in the index and empty, l not in the index."""
    digests: str
    """c consistent, s stale."""
    schedules: str
    """c consistent, o due without a record, p due and not active, l active and not in the list of what is due, s active
    with a time that cannot be, u of another version."""
    fields: tuple[str, ...]
    """The damaged fields of meta."""
    schema: str
    """What `meta.schema` said before; '' for none."""


def repair(
    keys: ShardKeys,
    *,
    days: Sequence[str] = (),
    digests: Sequence[str | bytes] = (),
    schedules: Sequence[tuple[str | bytes, int | None]] = (),
    ids: Sequence[str | bytes] = (),
    mend: bool,
    tend: bool = False,
    place: bool = False,
    clear: bool = False,
    now: str = "",
) -> Call:
    """Build the call for up to REPAIR_JOBS ids, digests and schedules and REPAIR_DAYS buckets.

    schedules: names, and until when each must be looked at, ms. mend: put right what is found. tend: only the schedules.
    place: only jobs that another version set aside, as many as come to 2 MiB; clear: also those that went on since.
    """
    names = (
        keys.meta, keys.jobs, keys.bodies, keys.days, keys.processing, keys.dead, keys.done, keys.dedup,
        keys.dedup_expiry, keys.wake, keys.schedules, keys.schedules_due, *(keys.wheel(day) for day in days),
    )  # fmt: skip
    layout = [word for day in days for word in (day, day_start_ms(day))]
    listed = [word for name, latest in schedules for word in (name, "" if latest is None else latest)]
    how = "mend" if mend else "tend" if tend else "clear" if clear else "place" if place else "look"
    counts = (len(days), len(digests), len(schedules))
    args = (now, how, *counts, *layout, *digests, *listed, *ids)
    return Call(script("repair"), names, args, None if how == "look" else _told, (counts, ids))


def _told(about: tuple[tuple[int, int, int], Sequence[str | bytes]], reply: Reply | None) -> Trace:
    counts, ids = about
    return traced(reply, named(ids), dict(zip(("days", "digests", "schedules"), counts, strict=True)))


def read_repair(call: Call, reply: Reply) -> Repaired:
    """Read the answer. Raises: SchemaMismatch, BrokerRefused."""
    answer = word(reply)
    if answer == "foreign":
        raise foreign_schema(call.keys[0], text(reply[2]))
    if answer != "ok":
        raise BrokerRefused(f"repair answered {answer!r}, which this version does not know")
    jobs, days, digests, schedules, fields, schema = (text(found) for found in reply[2:8])
    return Repaired(jobs, days, digests, schedules, tuple(fields.split()), schema)
