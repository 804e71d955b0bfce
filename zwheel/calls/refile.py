"""What retry and release share: claimed jobs that go back on the wheel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from zwheel.calls.call import Arg, Buckets, Call, Lane, Reply, buckets, text, unshuffle, when_text, word
from zwheel.errors import BrokerRefused
from zwheel.keys import ShardKeys
from zwheel.scripts import script


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


class Refile(NamedTuple):
    """The call with its batch's layout."""

    call: Call
    layout: Buckets


def refile(name: str, keys: ShardKeys, batch: Sequence[Back], *, now_ms: int, lane: Lane, now: str) -> Refile:
    """Build the call of `retry` or `release` for up to 1000 jobs."""
    layout = buckets(keys, batch, lambda back: now_ms + back.delay_ms if back.at_ms is None else back.at_ms)
    args: list[Arg] = [now, lane.request, *layout.head]
    for position in layout.order:
        back = batch[position]
        args += (back.job_id, back.token, when_text(back.at_ms, back.delay_ms), back.failures)
    names = (keys.meta, lane.key(keys), keys.jobs, keys.processing, keys.days, keys.wake, *layout.keys)
    return Refile(Call(script(name), names, args), layout)


def read_refile(sent: Refile, reply: Reply) -> list[str] | None:
    """Read one letter a job in the batch's order; None: the day changed, build the call again."""
    answer = word(reply)
    if answer == "moved":
        return None
    if answer != "ok":
        raise BrokerRefused(f"{sent.call.script.name} answered {answer!r}, which this version does not know")
    return unshuffle(sent.layout.order, list(text(reply[2])))
