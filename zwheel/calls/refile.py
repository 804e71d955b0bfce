"""What retry and release share: claimed jobs that go back on the wheel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from zwheel.calls.call import Arg, Call, Lane, Reply, Trace, buckets, text, when_text, word
from zwheel.calls.scripts import script
from zwheel.calls.traces import fire_of, held, traced, when
from zwheel.errors import BrokerRefused
from zwheel.keys import ShardKeys


class Back(NamedTuple):
    """One claimed job that goes back on the wheel."""

    job_id: bytes | str
    token: bytes
    """16 digits."""
    at_ms: int | None
    """Its new fire time; None: `delay_ms` from the server's now."""
    delay_ms: int
    failures: bytes
    """Lines of JSON; b"" leaves them as they are."""


def refile(name: str, keys: ShardKeys, batch: Sequence[Back], *, now_ms: int, lane: Lane, now: str) -> Call:
    """Build the call of `retry` or `release` for up to 1000 jobs."""
    layout = buckets(
        keys, [(now_ms + back.delay_ms, True) if back.at_ms is None else (back.at_ms, False) for back in batch]
    )
    args: list[Arg] = [now, lane.request, *layout.head]
    for back in batch:
        args += (back.job_id, back.token, when_text(back.at_ms, back.delay_ms), back.failures)
    names = (keys.meta, lane.key(keys), keys.jobs, keys.processing, keys.days, keys.wake, *layout.keys)
    return Call(script(name), names, args, _told, batch)


def _told(batch: Sequence[Back], reply: Reply | None) -> Trace:
    told = traced(reply, [held(back.job_id, back.token) | when(back.at_ms, back.delay_ms) for back in batch])
    for job in told.jobs:
        if reply is not None and job.get("letter", "") in ("r", "b"):
            job["fire"] = fire_of(job, reply, 3)
    return told


def read_refile(sent: Call, reply: Reply) -> list[str] | None:
    """Read one letter a job in the batch's order; None: the day changed, build the call again."""
    answer = word(reply)
    if answer == "moved":
        return None
    if answer != "ok":
        raise BrokerRefused(f"{sent.script.name} answered {answer!r}, which this version does not know")
    return list(text(reply[2]))
