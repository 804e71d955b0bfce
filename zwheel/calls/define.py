"""define: nothing -> scheduled and scheduled -> nothing, for the occurrences of a schedule that is written or deleted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from zwheel.calls.advance import After, Days, due_text
from zwheel.calls.call import Arg, Call, Lane, Reply, foreign_schema, text, word
from zwheel.errors import BrokerRefused
from zwheel.keys import ShardKeys
from zwheel.scripts import script


class Defined(NamedTuple):
    """What a `define` met."""

    word: str
    """ok, stale or started."""
    letters: str = ""
    """With ok, a letter a job: c created, i the id exists."""
    started: tuple[str, ...] = ()
    """With started, the occurrences to take back that have left their place on the wheel: they count as decided."""


def define(
    keys: ShardKeys,
    name: str,
    *,
    stamp: str,
    after: After,
    back: Sequence[tuple[str, int]] = (),
    lane: Lane,
    now: str = "",
) -> Call:
    """Build the call. stamp: '' when there must be no such schedule; back: ids and fire times (ms) to take back."""
    days = Days(keys)
    taken: list[Arg] = [len(back)]
    for job_id, fire_ms in back:
        taken += [job_id, f"{fire_ms:015d}", days.number(fire_ms)]
    jobs = days.jobs(after.jobs)
    names = (
        keys.meta, lane.key(keys), keys.jobs, keys.days, keys.wake, keys.schedules, keys.schedules_due, *days.names,
    )  # fmt: skip
    args: list[Arg] = [
        now, lane.request, name, stamp, after.letter, due_text(after.due_ms), after.tail, *days.head, *taken, *jobs,
    ]  # fmt: skip
    return Call(script("define"), names, args)


def read_define(call: Call, reply: Reply) -> Defined:
    """Read the answer. Raises: SchemaMismatch."""
    answer = word(reply)
    if answer == "foreign":
        raise foreign_schema(call.keys[0], text(reply[2]))
    if answer == "stale":
        return Defined("stale")
    if answer == "started":
        return Defined("started", started=tuple(text(found) for found in reply[2:]))
    if answer != "ok":
        raise BrokerRefused(f"define answered {answer!r}, which this version does not know")
    return Defined("ok", letters=text(reply[2]))
