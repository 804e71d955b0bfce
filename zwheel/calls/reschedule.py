"""reschedule: scheduled stays scheduled, at another time."""

from __future__ import annotations

from zwheel.calls.call import Call, Facts, Lane, Reply, Trace, buckets, text, when_text, word
from zwheel.calls.scripts import script
from zwheel.calls.traces import answered, when
from zwheel.keys import ShardKeys
from zwheel.times import day_start_ms


def reschedule(
    keys: ShardKeys, job_id: str, *, day: str, at_ms: int | None, delay_ms: int, now_ms: int, lane: Lane, now: str = ""
) -> Call:
    """Build the call. day: the bucket the job is in. at_ms: its new fire time; None: delay_ms from the server's now."""
    layout = buckets(keys, [(now_ms + delay_ms, True) if at_ms is None else (at_ms, False)])
    names = (
        keys.meta, lane.key(keys), keys.jobs, keys.days, keys.wake, keys.wheel(day), *layout.keys,
    )  # fmt: skip
    return Call(
        script("reschedule"),
        names,
        (
            now, lane.request, job_id, day, day_start_ms(day), when_text(at_ms, delay_ms), *layout.head,
        ),
        _told,
        (job_id, at_ms, delay_ms),
    )  # fmt: skip


def _told(about: tuple[str, int | None, int], reply: Reply | None) -> Trace:
    job: Facts = {"id": about[0], **when(*about[1:])}
    if reply is not None and word(reply) == "ok":
        job["letter"] = text(reply[2])
        if job["letter"] == "s":
            job["fire"] = int(reply[3])
    return Trace(answered(reply), {}, [job])


def read_reschedule(reply: Reply) -> str | None:
    """Read the letter: s, r, e, m, v, u; None: the target day changed, build the call again."""
    return None if word(reply) == "moved" else text(reply[2])
