"""Every Redis key, put together here and nowhere else, with its type and its members.

All keys of a shard carry the hash tag `{<namespace>:<queue>:<shard>}`, so that they share one cluster slot.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

from zwheel.errors import InvalidInput, InvalidName

NAME_LIMIT = 128
SCHEMA = "1"
"""What `meta.schema` says of keys that this version reads and writes."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")
_TASK = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._:/-]{0,127}\Z")
_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/=+-]{0,127}\Z")


def check_name(name: str, what: str = "queue") -> str:
    """Return a queue, namespace or worker name, or raise InvalidName: `[A-Za-z0-9][A-Za-z0-9._-]{0,127}`."""
    return _check(_NAME, name, what, "letters, digits and . _ -")


def check_task(name: str) -> str:
    """Return a task name, or raise InvalidName."""
    return _check(_TASK, name, "task", "letters, digits and . _ - : /")


def check_job_id(job_id: str) -> str:
    """Return a job id, or raise InvalidName."""
    return _check(_JOB_ID, job_id, "job id", "letters, digits and . _ - : @ / = +")


def _check(pattern: re.Pattern[str], name: str, what: str, allowed: str) -> str:
    if not isinstance(name, str) or pattern.match(name) is None:
        shown = ascii(name)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        raise InvalidName(
            f"{shown} is not a valid {what}: use 1 to {NAME_LIMIT} {allowed}, starting with a letter or digit"
        )
    return name


#: The most shards of a queue.
MOST_SHARDS = 1024


def check_count(count: int) -> int:
    """Return a caller's number of shards, or raise InvalidInput; True is none."""
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MOST_SHARDS:
        raise InvalidInput(f"shards: {count!r} is not a whole number between 1 and {MOST_SHARDS:,}")
    return count


_SHARD = re.compile(r"([^/]+)/(0|[1-9][0-9]{0,3})of([1-9][0-9]{0,3})\Z")


def shard_names(queue: str, count: int) -> list[str]:
    """Name the shards of a queue: that of a queue with one shard is called as the queue itself.

    Example: of `orders` with 2 shards `orders/0of2` and `orders/1of2`. No queue can be called so.
    """
    return [queue] if count == 1 else [f"{queue}/{number}of{count}" for number in range(count)]


def shard_number(key: str, count: int) -> int:
    """Tell which shard a job's key belongs to: its dedup digest, else its id up to an `@`, which occurrences have.

    The same in every version, since whoever looks for the job must come to the same answer.
    """
    return zlib.crc32(key.encode()) % count


#: A shard's tag in a key: namespace, queue, and what tells the shard.
TAG = r"\{([^:{}]+):([^:{}]+):(0|[0-9]+of[0-9]+)\}"


def shard_named(queue: str, label: str) -> str:
    """The name of a shard, by its queue and by what tells the shard in its tag."""
    return queue if label == "0" else f"{queue}/{label}"


def queue_of(shard: str) -> str:
    """The queue of a shard, by the shard's name."""
    return shard.partition("/")[0]


@dataclass(frozen=True, slots=True)
class ShardKeys:
    """The keys of one shard of one queue."""

    namespace: str
    queue: str
    #: What the shard is called: as its queue, when the queue has no other shard.
    name: str
    shard: int
    #: How many shards its queue has.
    shards: int
    #: What tells the shard in its tag: `0`, or `1of4`.
    label: str
    tag: str
    jobs: str
    """HASH job id -> record (see `zwheel/record.py`)."""
    bodies: str
    """HASH job id -> the body of a job where it is larger than 1,024 bytes."""
    days: str
    """ZSET yyyymmdd -> the same number: the non-empty day buckets."""
    processing: str
    """ZSET job id -> lease deadline, ms."""
    dead: str
    """ZSET job id -> time of death, ms."""
    done: str
    """ZSET job id -> end of its tombstone, ms: done and cancelled jobs."""
    dedup: str
    """HASH digest of a dedup key -> job id that holds it."""
    dedup_expiry: str
    """ZSET digest -> end of its window, ms."""
    wake: str
    """LIST of wake-up tokens for blocked pollers, at most a few."""
    meta: str
    """HASH: schema and epoch (when the queue was founded, µs), clock, beat, grace, paused, cap, counters, the timekeeper."""
    workers: str
    """HASH worker id -> JSON about a worker that serves this queue; in the first of its shards."""
    schedules: str
    """HASH schedule name -> record (see `zwheel/schedules/state.py`)."""
    schedules_due: str
    """ZSET schedule name -> when a worker must look at it, ms: the active ones."""
    leaving: str
    """HASH what left for another shard of its queue and has not arrived there (see `lua/depart.lua`)."""
    asked: str
    """ZSET `id token` of running jobs that it was asked to cancel -> when, ms; lives for a day after the last one."""
    arrived: str
    """HASH shard of the former cut -> number of its last batch that arrived here."""

    @classmethod
    def of(cls, namespace: str, name: str) -> ShardKeys:
        """Put the keys of a shard together, by its name. Raises: InvalidName."""
        check_name(namespace, "namespace")
        found = _SHARD.match(name)
        queue, shard, shards, label, first = name, 0, 1, "0", "0"
        if found is not None and int(found[2]) < int(found[3]) <= MOST_SHARDS:
            queue, shard, shards = found[1], int(found[2]), int(found[3])
            label, first = f"{shard}of{shards}", f"0of{shards}"
        check_name(queue)
        tag = f"{{{namespace}:{queue}:{label}}}"
        own = {
            key: f"{tag}:{key.replace('dedup_', 'dedup:').replace('schedules_', 'schedules:')}" for key in _OF_A_SHARD
        }
        own["workers"] = f"{{{namespace}:{queue}:{first}}}:workers"
        return cls(namespace=namespace, queue=queue, name=name, shard=shard, shards=shards, label=label, tag=tag, **own)

    def wheel(self, day: str) -> str:
        """ZSET job id -> fire time, ms: the bucket of one UTC day, `yyyymmdd`. Never given a TTL."""
        return f"{self.tag}:wheel:{day}"

    def offered(self, group: str) -> str:
        """ZSET `id`, fire time and token of jobs that only workers of this group know -> until when, ms."""
        return f"{self.tag}:offered:{group}"

    def call(self, group: str) -> str:
        """LIST of wake-up tokens for the workers of one group, at most one."""
        return f"{self.tag}:call:{group}"

    def replay(self, caller: str, lane: int | str) -> str:
        """STRING with a TTL: the last request of one caller on one lane and its answer, given again to a repeat."""
        return f"{self.tag}:replay:{caller}:{lane}"


_OF_A_SHARD = (
    "jobs", "bodies", "days", "processing", "dead", "done", "dedup", "dedup_expiry", "wake", "meta", "workers", "schedules",
    "schedules_due", "leaving", "asked", "arrived",
)  # fmt: skip


def queues_key(namespace: str) -> str:
    """HASH queue name -> shard count, and while it is cut anew the former one: every queue that was ever used."""
    return f"{check_name(namespace, 'namespace')}:queues"


def tasks_key(namespace: str) -> str:
    """HASH task name -> JSON: what workers publish of their tasks (see `zwheel/published/task.py`)."""
    return f"{check_name(namespace, 'namespace')}:tasks"


def namespace_keys(namespace: str) -> frozenset[str]:
    """The keys that a namespace has beside those of its queues."""
    return frozenset({queues_key(namespace), tasks_key(namespace)})
