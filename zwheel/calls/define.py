"""define: nothing -> scheduled and scheduled -> nothing, for the occurrences of a schedule that is written or deleted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from zwheel.calls.advance import After, Days, due_text, job_facts, schedule_facts
from zwheel.calls.call import Arg, Call, Facts, Lane, Reply, Trace, foreign_schema, text, word
from zwheel.calls.enqueue import ShardsChanged
from zwheel.calls.scripts import script
from zwheel.calls.traces import traced
from zwheel.errors import BrokerRefused
from zwheel.keys import MOST_SHARDS, ShardKeys
from zwheel.outside import whole


class Late(NamedTuple):
    """An occurrence that a worker claimed too late: who holds it, and until when it may still start."""

    id: str
    token: str
    """The token of the claim, 16 digits."""
    by_ms: int
    """It is taken back only when the server's clock is past this."""


class Defined(NamedTuple):
    """What a `define` met."""

    word: str
    """ok, stale, started or early."""
    letters: str = ""
    """With ok, a letter a job: c created, i the id exists."""
    started: tuple[str, ...] = ()
    """With started, the occurrences to take back that have left their place on the wheel: they count as decided. With
    early, those that may still start."""


def define(
    keys: ShardKeys,
    name: str,
    *,
    stamp: str,
    after: After,
    back: Sequence[tuple[str, int]] = (),
    late: Sequence[Late] = (),
    lane: Lane,
    now: str = "",
) -> Call:
    """Build the call. stamp: '' when there must be no such schedule or, of a queue that is cut anew, how many shards it had:
    the caller has looked for it there; back: ids and fire times (ms) to take back.

    late: further ones to take back, which their holder claimed too late.
    """
    days = Days(keys)
    taken: list[Arg] = [len(back) + len(late)]
    for job_id, fire_ms in back:
        taken += [job_id, f"{fire_ms:015d}", days.number(fire_ms), ""]
    for job_id, token, by_ms in late:
        taken += [job_id, token, days.processing(), by_ms]
    jobs = days.jobs(after.jobs)
    names = (
        keys.meta, lane.key(keys), keys.jobs, keys.bodies, keys.days, keys.wake, keys.schedules, keys.schedules_due, *days.names,
    )  # fmt: skip
    args: list[Arg] = [
        now, lane.request, name, stamp, after.letter, due_text(after.due_ms), after.tail, *days.head, *taken, *jobs,
    ]  # fmt: skip
    return Call(script("define"), names, args, _told, (name, stamp, after, back, late))


def _told(about: tuple[str, str, After, Sequence[tuple[str, int]], Sequence[Late]], reply: Reply | None) -> Trace:
    name, stamp, after, back, late = about
    facts: Facts = {"name": name, "stamp": stamp, **schedule_facts(after)}
    facts["back"] = [job_id for job_id, _ in back] + [one.id for one in late]
    if late:
        facts["late"] = {one.id: int(one.token) for one in late}
    told = traced(reply, job_facts(name, after.jobs), facts)
    for job in told.jobs:
        if job.get("letter") == "c":
            job["fire"] = job["at"]
    return told


def read_define(call: Call, reply: Reply) -> Defined:
    """Read the answer. Raises: SchemaMismatch, ShardsChanged."""
    answer = word(reply)
    if answer == "foreign":
        raise foreign_schema(call.keys[0], text(reply[2]))
    if answer == "shards":
        raise ShardsChanged(count=whole(reply[2], 1, MOST_SHARDS) or 1)
    if answer == "moving":
        raise ShardsChanged(moving=text(reply[2]))
    if answer == "stale":
        return Defined(answer)
    if answer in ("started", "early"):
        return Defined(answer, started=tuple(text(reply[2]).split()))
    if answer != "ok":
        raise BrokerRefused(f"define answered {answer!r}, which this version does not know")
    return Defined("ok", letters=text(reply[2]))
