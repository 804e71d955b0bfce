"""claim: scheduled -> processing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from zwheel.calls.call import Call, Facts, Lane, Reply, Trace, clock_us, text, word
from zwheel.calls.scripts import script
from zwheel.calls.traces import answered
from zwheel.keys import ShardKeys
from zwheel.outside import score_ms, whole
from zwheel.record import read_fields

ROLE_MS = 3_000
#: How far ahead of its time a worker may have a job of a precise queue, ms; the script has a limit of its own.
AHEAD_MS = 5
#: No role lasts longer than this without a further claim, whatever a caller asks for.
LONGEST_ROLE_MS = 20_000


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a claim met."""

    word: str
    """ok | empty | moved | paused | foreign | flushed."""
    now_us: int
    """The server's clock."""
    next_fire_ms: int | None
    """When the next job of the earliest bucket is due; None: nothing there, or in a day not looked at yet."""
    day: str
    """The earliest bucket, to be named by the next claim; '' when the wheel is empty."""
    role: str
    """timekeeper | second | follower: how to wait; none: do not wait, claim again when there is room."""
    grace_ms: int
    """End of the grace period after an outage, ms; 0: none."""
    jobs: list[bytes]
    """id, record, id, record, ... as Redis sent them."""
    found: str = ""
    """foreign: the schema there; flushed: the epoch there now, '' when there is none."""
    jumps: int | None = None
    """How often the server's clock was seen to jump; None when the answer does not tell."""
    ahead_ms: int = 0
    """How far ahead of their time jobs were taken, ms; 0 unless the queue is precise."""

    @property
    def early(self) -> bool:
        """Whether jobs are among them whose time has not come: the last one is due last."""
        return bool(self.jobs) and int(self.jobs[-1][6:21]) * 1000 > self.now_us


def claim(
    keys: ShardKeys, *, day: str, worker: str, lease_ms: int, limit: int, lane: Lane, role_ms: int = ROLE_MS,
    epoch: str | bytes = "", group: str = "none", ahead_ms: int = 0, now: str = "",
    waits: str = "",
) -> Call:  # fmt: skip
    """Build the call. day: the bucket thought to be the earliest. limit: up to 1000.

    group: of the worker: what is offered to it is claimed first.
    role_ms: how long a role lasts without a further claim; 0: the worker wants none.
    waits: for the history, where a fleet spares: sees: this worker alone looks at the shard in time; spares: another does.
    ahead_ms: how far ahead of its time the worker can hold a job of a precise queue.
    epoch: what `meta.epoch` is known to say; nothing is claimed when it says something else. '' when not known.
    """
    return Call(
        script("claim"),
        (
            keys.meta, lane.key(keys), keys.jobs, keys.bodies, keys.days, keys.processing, keys.dead, keys.wake, keys.wheel(day),
            keys.offered(group),
        ),
        (now, lane.request, worker, lease_ms, limit, day, role_ms, epoch, ahead_ms),
        _told,
        (worker, lease_ms, limit, group, waits),
    )  # fmt: skip


def _told(about: tuple[Any, ...], reply: Reply | None) -> Trace:
    args: Facts = dict(zip(("worker", "lease", "limit", "group"), about[:4], strict=True))
    if about[4]:
        args["waits"] = about[4]
    answer = answered(reply)
    if reply is None or answer not in ("ok", "empty"):
        return Trace(answer, args, [])
    args["next"] = int(float(reply[2])) if reply[2] else None
    args.update(role=text(reply[4]), grace=int(reply[5]))
    if int(reply[7]):
        args["ahead"] = int(reply[7])
    jobs = []
    for i in range(8, len(reply), 2):
        raw: bytes = reply[i + 1]
        job: Facts = {
            "id": text(reply[i]), "token": int(raw[21:37]), "attempt": int(raw[2:6]), "fire": int(raw[6:21]),
            "most": int(raw[45:49]),
        }  # fmt: skip
        digest = read_fields(raw)[0].get("D")
        if digest is not None:
            job["digest"] = text(digest)
        jobs.append(job)
    return Trace(answer, args, jobs)


def read_claim(reply: Reply) -> Claimed:
    """Read the answer."""
    answer = word(reply)
    if answer in ("ok", "empty"):
        next_fire = reply[2]
        return Claimed(
            answer,
            clock_us(reply),
            score_ms(next_fire) if next_fire else None,
            text(reply[3]),
            text(reply[4]),
            whole(reply[5]) or 0,
            reply[8:],
            jumps=whole(reply[6]),
            ahead_ms=whole(reply[7]) or 0,
        )
    day = text(reply[2]) if answer == "moved" else ""
    found = text(reply[2]) if answer in ("foreign", "flushed") else ""
    return Claimed(answer, clock_us(reply), None, day, "none", 0, [], found)
