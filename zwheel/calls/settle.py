"""settle: processing -> done, dead, scheduled or cancelled."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from zwheel.calls.call import Arg, Call, Facts, Lane, Reply, Trace, buckets, text, when_text
from zwheel.calls.scripts import script
from zwheel.calls.traces import fire_of, held, traced, when
from zwheel.keys import ShardKeys

#: What a history calls the end of a claim, by the letter with which it is asked for.
ENDS = {"d": "complete", "x": "bury", "r": "retry", "b": "release", "c": "cancelled"}


class Ending(NamedTuple):
    """What becomes of one claimed job that did not end well."""

    job_id: bytes | str
    token: bytes
    """16 digits."""
    letter: str
    """x: it is dead; r: it is tried again, its attempt counts; b: it goes back unharmed; c: it is cancelled."""
    failures: bytes
    """Lines of JSON; b"" leaves those of a job that lives as they are."""
    at_ms: int | None = None
    """The new fire time of one that goes back; None: `delay_ms` from the server's now."""
    delay_ms: int = 0


Done = Sequence[tuple[bytes | str, bytes]]


def settle(
    keys: ShardKeys,
    done: Done,
    others: Sequence[Ending] = (),
    *,
    most_dead: int,
    now_ms: int,
    lane: Lane,
    now: str = "",
) -> Call:
    """Build the call for up to 1000 jobs. done: (job id, token as 16 digits) of those that ended well.

    most_dead: how many dead jobs are kept. now_ms: the estimate of the server's clock, for the buckets.
    Read with `read_letters`, those of `done` first: d, x, r, b, c as asked for, or c, f, m; None: build the call again.
    """
    args: list[Arg] = [now, lane.request]
    for end in done:
        args += end
    names: Sequence[str] = (
        keys.meta, lane.key(keys), keys.jobs, keys.bodies, keys.processing, keys.done, keys.dedup, keys.dedup_expiry,
    )  # fmt: skip
    if others:
        layout = buckets(
            keys,
            {
                (now_ms + one.delay_ms, True) if one.at_ms is None else (one.at_ms, False)
                for one in others
                if one.letter not in "xc"
            },
        )
        args += ("", most_dead, *layout.head)
        for one in others:
            fire = "" if one.letter in "xc" else when_text(one.at_ms, one.delay_ms)
            args += (one.job_id, one.letter.encode() + one.token, fire, one.failures)
        names = (*names, keys.dead, keys.days, keys.wake, *layout.keys)
    return Call(script("settle"), names, args, _told, (done, others))


def _told(about: tuple[Done, Sequence[Ending]], reply: Reply | None) -> Trace:
    done, others = about
    jobs = [held(*end) | {"end": ENDS["d"]} for end in done] + [_facts(one) for one in others]
    told = traced(reply, jobs)
    for job in told.jobs:
        if reply is not None and job.get("letter", "") in ("r", "b"):
            job["fire"] = fire_of(job, reply, 3)
        elif job.get("letter") == "c":
            job["end"] = ENDS["c"]
    return told


def _facts(one: Ending) -> Facts:
    if one.letter == "c":
        return held(one.job_id, one.token) | {"end": ENDS["c"]}
    more = {"reason": _reason(one.failures)} if one.letter == "x" else when(one.at_ms, one.delay_ms)
    return held(one.job_id, one.token) | {"end": ENDS[one.letter], **more}


def _reason(failures: bytes) -> str:
    lines = text(failures).splitlines()
    try:
        return str(json.loads(lines[-1])["reason"])
    except (ValueError, KeyError, IndexError, TypeError):
        return ""
