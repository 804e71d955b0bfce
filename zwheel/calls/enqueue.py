"""enqueue: nothing -> scheduled."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from zwheel.calls.call import Arg, Call, Facts, Lane, Reply, Trace, buckets, foreign_schema, text, when_text, word
from zwheel.calls.scripts import script
from zwheel.calls.traces import answered, fire_of, in_tail, lettered, when
from zwheel.errors import BrokerRefused, PayloadTooLarge, QueueFull
from zwheel.job import Durability, Enqueued, JobId, JobState, QueueName
from zwheel.keys import MOST_SHARDS, ShardKeys
from zwheel.outside import whole
from zwheel.payload.codec import MOST
from zwheel.record import STATES
from zwheel.times import MAX_MS


class NewJob:
    """A job that is checked and encoded, ready to be enqueued. Made by `Task.job` and `Wheel.new_job`."""

    __slots__ = (
        "at_ms",
        "body",
        "dedup",
        "delay_ms",
        "durable",
        "id",
        "queue",
        "replace",
        "tail",
        "unsettled",
        "window_ms",
    )

    def __init__(
        self,
        *,
        job_id: JobId,
        queue: QueueName,
        at_ms: int | None,
        delay_ms: int,
        tail: bytes,
        body: bytes,
        dedup: str = "",
        window_ms: int | None = None,
        replace: bool | None = False,
        durable: Durability | None = None,
    ) -> None:
        self.id = job_id
        self.queue = queue
        #: Fire time in ms, or None for a delay from the moment the server takes it in.
        self.at_ms = at_ms
        self.delay_ms = delay_ms
        #: The record from the worker's field up to the body (`record_tail`).
        self.tail = tail
        self.body = body
        #: Digest of the dedup key, '' without one; its window in ms, None for until-done.
        self.dedup = dedup
        self.window_ms = window_ms
        #: Which job of its id gives way to it: True any that has ended, False a cancelled one, None not even that.
        self.replace = replace
        #: How safely it is to be stored; None: as its client is set.
        self.durable = durable
        #: What it was made from, when it was not known what its task asks for (`zwheel/client/by_name.py`); else None.
        self.unsettled: Any = None

    def __repr__(self) -> str:
        return f"NewJob(id={self.id!r}, queue={self.queue!r})"


class EnqueueCall(NamedTuple):
    """A batch for one shard and the call that stores it."""

    call: Call
    batch: Sequence[NewJob]
    queue: QueueName
    shard: str
    """The name of the shard."""


class ShardsChanged(Exception):
    """The queue has other shards than the caller believed: nothing was stored, and the batch is to be cut anew."""

    def __init__(self, *, count: int | None = None, moving: str = "") -> None:
        """count: how many shards it has; moving: what a shard of a new cut says, to which jobs of the former are on their way."""
        super().__init__(count, moving)
        self.count = count
        #: How many shards it had; and whether some of those still take jobs.
        self.former = whole(moving.lstrip("!"), 1, MOST_SHARDS)
        self.unopened = moving.startswith("!")


def enqueue(
    keys: ShardKeys, batch: Sequence[NewJob], *, now_ms: int, lane: Lane, now: str = "", chunk: bool = False,
    former: int | None = None,
) -> EnqueueCall:  # fmt: skip
    """Build the call for up to 1000 jobs of one shard. now_ms: the estimate of the server's clock, for the buckets.

    chunk: the last key is to hold the answer for the same batch of another call. former: of a queue that is cut anew, how
    many shards it had: the caller has looked for these jobs there.
    """
    # A set: the jobs of a bulk share few times, as a rule.
    layout = buckets(
        keys, {(now_ms + job.delay_ms, True) if job.at_ms is None else (job.at_ms, False) for job in batch}
    )
    args: list[Arg] = [now, lane.request, "" if former is None else former, *layout.head]
    for job in batch:
        args += (
            job.id,
            "+0" if job.at_ms is None and not job.delay_ms else when_text(job.at_ms, job.delay_ms),
            job.dedup if job.window_ms is None and job.replace is False else _dedup(job),
            job.tail + job.body,
        )
    names = (
        keys.meta, lane.key(keys), keys.jobs, keys.bodies, keys.days, keys.dedup, keys.dedup_expiry, keys.wake, keys.dead, keys.done,
        *layout.keys, *((_chunk_key(keys, args[3 + len(layout.head) :]),) if chunk else ()),
    )  # fmt: skip
    return EnqueueCall(Call(script("enqueue"), names, args, _told, batch), batch, QueueName(keys.queue), keys.name)


def _told(batch: Sequence[NewJob], reply: Reply | None) -> Trace:
    jobs = []
    for new in batch:
        job: Facts = {"id": new.id, **when(new.at_ms, new.delay_ms), **in_tail(new.tail)}
        if new.replace is not False:
            job["replace"] = new.replace is True
        if new.dedup:
            job["digest"] = new.dedup
            if new.window_ms is not None:
                job["window"] = new.window_ms
        jobs.append(job)
    answer = answered(reply)
    if reply is not None and answer == "ok":
        if len(reply[2]) != len(jobs):
            # The first answer of a batch, to somebody who asked for a part of it again: it says which, this call does not.
            return Trace(answer, {}, [])
        lettered(jobs, text(reply[2]))
        existed = text(reply[3]).split(" ")
        for i in range(0, len(existed) - 1, 4):
            jobs[int(existed[i]) - 1].update(held=existed[i + 1], state=existed[i + 2])
        for job in jobs:
            if job["letter"] in "cr":
                job["fire"] = fire_of(job, reply, 4)
    return Trace(answer, {}, jobs)


def _dedup(job: NewJob) -> str:
    mark = "!" if job.replace else "=" if job.replace is None else ""
    return f"{mark}{job.dedup}{'' if job.window_ms is None else job.window_ms}"


def _chunk_key(keys: ShardKeys, jobs: list[Any]) -> str:
    """The replay key of a chunk: a digest of all that makes its jobs."""
    words = "\n".join([*jobs[0::4], *jobs[1::4], *jobs[2::4]])
    content = hashlib.sha256(words.encode())
    content.update(b"\n".join(jobs[3::4]))
    return keys.replay("chunk", content.hexdigest()[:32])


# The fields of a frozen dataclass, set at a third of its constructor's cost: this runs once for every job enqueued.
_new: Callable[[type[Enqueued]], Enqueued] = object.__new__
_fields: Any = vars(Enqueued)
_set_job_id = _fields["job_id"].__set__
_set_existed = _fields["existed"].__set__
_set_queue = _fields["queue"].__set__
_set_state = _fields["state"].__set__
_set_fire_at_ms = _fields["fire_at_ms"].__set__
_set_replaced = _fields["replaced"].__set__
_set_receipt = _fields["receipt"].__set__


def _created(job: NewJob, queue: QueueName, fire_at_ms: int) -> Enqueued:
    made = _new(Enqueued)
    _set_job_id(made, job.id)
    _set_existed(made, False)
    _set_queue(made, queue)
    _set_state(made, JobState.SCHEDULED)
    _set_fire_at_ms(made, fire_at_ms)
    _set_replaced(made, False)
    _set_receipt(made, None)
    return made


def read_enqueue(sent: EnqueueCall, reply: Reply) -> list[Enqueued] | None:
    """Read the answer, one for each job in the batch's order; None: the day changed, build the call again.

    Raises: QueueFull, PayloadTooLarge, SchemaMismatch, ShardsChanged; nothing was stored.
    """
    answer = word(reply)
    if answer == "ok" and reply[2] == b"c":
        job = sent.batch[0]
        fire = _taken_ms(reply) + job.delay_ms if job.at_ms is None else job.at_ms
        return [_created(job, sent.queue, fire)]
    if answer == "moved":
        return None
    if answer == "full":
        raise QueueFull(sent.queue, int(reply[2]), sent.shard)
    if answer == "foreign":
        raise foreign_schema(sent.call.keys[0], text(reply[2]))
    if answer == "shards":
        raise ShardsChanged(count=whole(reply[2], 0, MOST_SHARDS) or 0)
    if answer == "moving":
        raise ShardsChanged(moving=text(reply[2]))
    if answer == "oversized":
        raise PayloadTooLarge(max(len(job.body) for job in sent.batch), MOST)
    if answer != "ok":
        raise BrokerRefused(f"enqueue answered {answer!r}, which this version does not know")
    now_ms = _taken_ms(reply)
    letters = text(reply[2])
    queue = sent.queue
    batch = sent.batch
    if letters.count("c") == len(batch):
        return [_created(j, queue, now_ms + j.delay_ms if j.at_ms is None else j.at_ms) for j in batch]
    existed = _existed(text(reply[3])) if reply[3] else {}
    result: list[Enqueued] = []
    for index, job in enumerate(batch):
        letter = letters[index]
        if letter in "cra":
            fire = now_ms + job.delay_ms if job.at_ms is None else job.at_ms
            made = _created(job, queue, fire)
            result.append(made if letter == "c" else replace(made, existed=letter == "a", replaced=letter == "r"))
        else:
            held, state, fire = existed.get(index, (job.id, JobState.DONE, 0))
            result.append(Enqueued(job_id=held, existed=True, queue=queue, state=state, fire_at_ms=fire))
    return result


def _taken_ms(reply: Reply) -> int:
    """When the server took the batch in, the ms from which delays count: a repeat is told the clock of the first answer."""
    return -(-int(reply[4] if len(reply) > 4 else reply[1]) // 1000)


def letters_repeated(reply: Reply) -> int:
    """For how many jobs a repeat tells the first answer; 0: it is no repeat, or a refusal."""
    return len(reply[2]) if len(reply) > 4 else 0


def _existed(words: str) -> dict[int, tuple[JobId, JobState, int]]:
    """What a batch met, by position. A record or a holder that somebody damaged is answered as far as it can be read."""
    found = {}
    parts = words.split(" ")
    for i in range(0, len(parts) - 3, 4):
        index = whole(parts[i], 1)
        if index is None:
            break
        state = STATES.get(parts[i + 2], JobState.DONE)
        found[index - 1] = (JobId(parts[i + 1]), state, whole(parts[i + 3], 0, MAX_MS) or 0)
    return found
