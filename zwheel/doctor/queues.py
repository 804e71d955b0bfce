"""One queue's keys: whether they contradict each other, and putting that right.

A first look, page by page, finds suspects; jobs move meanwhile, so that the `repair` script then decides about each in
one step, and only what it confirms is reported or mended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from zwheel import calls
from zwheel.calls import REPAIR_DAYS, REPAIR_JOBS, Session
from zwheel.doctor.finding import Finding, ok, problem, warning
from zwheel.doctor.jumps import check_jumps
from zwheel.doctor.places import Suspects, look_around
from zwheel.errors import BrokerRefused
from zwheel.keys import SCHEMA, ShardKeys, queues_key
from zwheel.operations.read import bucket_days
from zwheel.store import Steps

Progress = Callable[[int], None]
T = TypeVar("T")
_SHOWN = 3
_CURE = "run `zwheel doctor --repair --queue {}`"


@dataclass(slots=True)
class Health:
    """How one queue stands, and what a repair of it has to look at again."""

    queue: str
    findings: list[Finding] = field(default_factory=list)
    listed: bool = True
    """Whether it is in the list of queues."""
    foreign: bool = False
    """Whether another version wrote it: then nothing here is touched."""
    vanished: bool = False
    """Whether its schema is gone although it has jobs."""
    jobs: list[tuple[tuple[str, ...], list[str]]] = field(default_factory=list)
    """Ids of jobs to mend, with the days of the buckets that they may belong to."""
    days: list[str] = field(default_factory=list)
    """Days whose place in the index is wrong."""
    digests: list[str] = field(default_factory=list)
    """Dedup keys that are held by no one."""

    @property
    def to_mend(self) -> int:
        """How many things a repair would put right."""
        broken = sum(len(ids) for _, ids in self.jobs) + len(self.days) + len(self.digests)
        return broken + self.vanished + (not self.listed)


def check_queue(
    session: Session, queue: str, *, buckets: Iterable[str] = (), listed: bool = True, progress: Progress | None = None
) -> Steps[Health]:
    """Look at every job of a queue, in bounded pages. buckets: days that have a bucket, in the index or not."""
    health = Health(queue, listed=listed)
    try:
        yield from _check(session, session.keys(queue), health, buckets, progress)
    except BrokerRefused as error:
        text = f"its keys cannot be looked at, so workers cannot use them either: {error}"
        cure = "give this Redis user every right on them, and see that no other program uses these names"
        health.findings.append(problem("places", text, cure, queue))
    return health


def _check(
    session: Session, keys: ShardKeys, health: Health, buckets: Iterable[str], progress: Progress | None
) -> Steps[None]:
    queue = health.queue
    say = health.findings.append
    (meta, has_jobs) = yield (("HMGET", keys.meta, "schema", "epoch", "orphans"), ("EXISTS", keys.jobs))
    schema = meta[0].decode() if meta[0] else ""
    if not health.listed:
        text = "it has keys and is not in the list of queues: commands that look at every queue leave it out"
        say(warning("listed", text, _CURE.format(queue), queue))
    if schema not in ("", SCHEMA):
        health.foreign = True
        error = calls.foreign_schema(keys.meta, schema)
        say(problem("schema", str(error), "nothing here is touched: check it with the version that wrote it", queue))
        return
    if not schema and has_jobs:
        health.vanished = True
        text = (
            "it has jobs and no schema: its meta key was deleted, and with it a pause, a cap and all counters; "
            "workers that saw it claim nothing here"
        )
        say(problem("schema", text, _CURE.format(queue) + ", then set its pause and cap again", queue))
    suspects = yield from look_around(session, keys, set(buckets), progress)
    yield from _confirm(session, keys, health, suspects, buckets)
    if not health.findings:
        state = f"schema {SCHEMA}, {suspects.jobs:,} jobs, each in its place" if schema else "not used yet"
        say(ok("places", state, queue))
    if suspects.unreadable:
        number = f"{suspects.unreadable:,} record{'s'[: suspects.unreadable != 1]}"
        text = f"{number} of another version of zwheel: set aside in the dead set, or there as soon as its time comes"
        say(warning("versions", text, "redrive them with a version that knows them (`zwheel dead redrive`)", queue))
    health.findings += yield from check_jumps(session, keys)


def _confirm(
    session: Session, keys: ShardKeys, health: Health, suspects: Suspects, buckets: Iterable[str]
) -> Steps[None]:
    broken: dict[str, list[str]] = {"o": [], "f": [], "p": []}
    for days, ids in suspects.groups():
        answer = yield from _repair(keys, days=days, ids=ids, mend=False, now=session.now)
        wrong = [(job, letter) for job, letter in zip(ids, answer.jobs, strict=True) if letter in broken]
        for job, letter in wrong:
            broken[letter].append(job)
        if wrong:
            health.jobs.append((days, [job for job, _ in wrong]))
    index = {"e": 0, "l": 0}
    listed_days = yield from bucket_days(keys)
    for part in _parts(sorted({*listed_days, *buckets}), REPAIR_DAYS):
        answer = yield from _repair(keys, days=part, mend=False, now=session.now)
        for day, letter in zip(part, answer.days, strict=True):
            if letter in index:
                index[letter] += 1
                health.days.append(day)
    for part in _parts(sorted(suspects.digests), REPAIR_JOBS):
        answer = yield from _repair(keys, digests=part, mend=False, now=session.now)
        found = zip(part, answer.digests, strict=True)
        health.digests += [digest for digest, letter in found if letter == "s"]
    _tell(health, broken, index)


def _tell(health: Health, broken: dict[str, list[str]], index: dict[str, int]) -> None:
    queue, cure = health.queue, _CURE.format(health.queue)
    say = health.findings.append
    if ids := broken["o"]:
        text = f"{_count(ids, 'entry', 'entries')} of its sets {_be(ids)} without a record{_some(ids)}: nothing can run there"
        say(warning("orphans", text, cure, queue))
    if ids := broken["f"]:
        text = f"{_count(ids, 'job', 'jobs')} {_be(ids)} not where the record says{_some(ids)}: it would never run or be found"
        say(problem("places", text, cure, queue))
    if ids := broken["p"]:
        text = f"{_count(ids, 'record', 'records')} of another version {_be(ids)} in no set{_some(ids)}: nobody would see it"
        say(problem("places", text, cure, queue))
    for letter, make, text in (
        ("l", problem, "with jobs and not in the index: these jobs would never fire"),
        ("e", warning, "in the index and without jobs"),
    ):
        if index[letter]:
            say(make("days", f"{index[letter]:,} day bucket{'s'[: index[letter] != 1]} {text}", cure, queue))
    if health.digests:
        number = _count(health.digests, "unique key", "unique keys")
        say(warning("dedup", f"{number} {_be(health.digests)} held by a job that is gone", cure, queue))


def mend_queue(session: Session, health: Health, progress: Progress | None = None) -> Steps[int]:
    """Put right what `check_queue` found, each thing decided anew. Returns how many were still wrong, and are mended."""
    keys = session.keys(health.queue)
    mended = done = 0

    def count(letters: str) -> int:
        return sum(letter in "ofpels" for letter in letters)

    if health.foreign:
        return 0
    if not health.listed:
        (added,) = yield (("HSETNX", queues_key(session.namespace), health.queue, 1),)
        mended += int(added)
    for days, ids in [*health.jobs, *((tuple(part), []) for part in _parts(health.days, REPAIR_DAYS))]:
        answer = yield from _repair(keys, days=days, ids=ids, mend=True, now=session.now)
        mended += count(answer.jobs) if ids else count(answer.days)
        mended += answer.schema == "" and health.vanished
        done += len(ids) or len(days)
        if progress is not None:
            progress(done)
    for part in _parts(health.digests, REPAIR_JOBS):
        answer = yield from _repair(keys, digests=part, mend=True, now=session.now)
        mended += count(answer.digests) + (answer.schema == "" and health.vanished)
        done += len(part)
        if progress is not None:
            progress(done)
    if health.vanished and not (health.jobs or health.days or health.digests):
        answer = yield from _repair(keys, mend=True, now=session.now)
        mended += answer.schema == ""
    if health.vanished:
        # Workers that wait for the schema listen here.
        yield (("RPUSH", keys.wake, "1"),)
    return mended


def _repair(keys: ShardKeys, **named: Any) -> Steps[calls.Repaired]:
    call = calls.repair(keys, **named)
    (reply,) = yield (call,)
    return calls.read_repair(call, reply)


def _count(items: Sequence[str], one: str, many: str) -> str:
    return f"{len(items):,} {one if len(items) == 1 else many}"


def _be(items: Sequence[str]) -> str:
    return "is" if len(items) == 1 else "are"


def _some(ids: Sequence[str]) -> str:
    return f" ({', '.join(ids[:_SHOWN])}{', ...' if len(ids) > _SHOWN else ''})"


def _parts(items: Sequence[T], size: int) -> Iterator[list[T]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
