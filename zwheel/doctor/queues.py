"""One queue's keys: whether they contradict each other, and putting that right.

A first look, page by page, finds suspects; jobs move meanwhile, so that the `repair` script then decides about each in
one step, and only what it confirms is reported or mended.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass, field
from typing import Any, TypeVar

from zwheel import calls
from zwheel.broker.store import Steps
from zwheel.calls import REPAIR_DAYS, REPAIR_JOBS, Session
from zwheel.doctor.finding import Finding, doctor_user, ok, problem, warning
from zwheel.doctor.jumps import check_jumps
from zwheel.doctor.offers import Offers, groups_of, look_at_offers, mend_offers
from zwheel.doctor.places import Suspects, look_around
from zwheel.doctor.workers import check_workers
from zwheel.errors import BrokerError, BrokerRefused, BrokerUnavailable, OutcomeUnknown
from zwheel.keys import SCHEMA, ShardKeys, queue_of, queues_key
from zwheel.operations.read import bucket_days
from zwheel.operations.rights import lacks
from zwheel.outside import as_text, shown
from zwheel.plain import counted

Progress = Callable[[int], None]
T = TypeVar("T")
_SHOWN = 3
#: More wake-up tokens than this are none that a script pushed.
_MOST_TOKENS = 100
_UNANSWERED = "see why that node of the cluster gives no answer; until then what lies there waits"
_CURE = "run `zwheel doctor --repair --queue {}`"


@dataclass(slots=True)
class Health:
    """How one queue stands, and what a repair of it has to look at again."""

    queue: str
    findings: list[Finding] = field(default_factory=list)
    listed: bool = True
    """Whether it is in the list of queues."""
    unseen: list[tuple[str, str]] = field(default_factory=list)
    """What was not looked at, and the right that this user lacks for it."""
    foreign: bool = False
    """Whether another version wrote it: then nothing here is touched."""
    vanished: bool = False
    """Whether its schema is gone although it has jobs."""
    jobs: list[tuple[tuple[str, ...], list[bytes]]] = field(default_factory=list)
    """Ids of jobs to mend, with the days of the buckets that they may belong to."""
    days: list[str] = field(default_factory=list)
    """Days whose place in the index is wrong."""
    odd_days: list[bytes] = field(default_factory=list)
    """What the index of days names and is no day."""
    digests: list[bytes] = field(default_factory=list)
    """Dedup keys that are held by no one."""
    schedules: list[tuple[bytes, int | None]] = field(default_factory=list)
    """Schedules whose place on the list of what is due is wrong, and until when each must be looked at, ms."""
    fields: tuple[str, ...] = ()
    """Fields of `meta` that say what cannot be."""
    tokens: int = 0
    """How many wake-up tokens lie there, when they are too many."""
    offers: Offers = field(default_factory=Offers)
    """What is wrong in the notes of jobs that are offered to groups of workers."""
    waiting: dict[str, int] = field(default_factory=dict)
    """How many jobs of each task are on the wheel."""
    held: int = 0
    """How many jobs workers hold."""

    @property
    def to_mend(self) -> int:
        """How many things a repair would put right."""
        lists: tuple[Sized, ...] = (self.days, self.odd_days, self.digests, self.schedules, self.fields)
        broken = sum(len(ids) for _, ids in self.jobs) + sum(map(len, lists))
        return broken + self.vanished + (not self.listed) + (self.tokens > 0) + self.offers.count


def check_queue(
    session: Session, queue: str, *, buckets: Iterable[str] = (), groups: Iterable[str] = (), listed: bool = True,
    others: Sequence[Health] | None = (), progress: Progress | None = None,
) -> Steps[Health]:  # fmt: skip
    """Look at every job of a queue or shard, in bounded pages.

    buckets: days that have a bucket, in the index or not. groups: of workers that something is kept for. others: how the
    other shards of the queue stand; None while they are still to be looked at: the last one tells of the queue's workers.
    """
    health = Health(queue, listed=listed)
    try:
        yield from _check(session, session.keys(queue), health, buckets, groups, others, progress)
    except BrokerRefused as error:
        cure = "see what the server says of them, and that no other program uses these names"
        health.findings.append(problem("places", f"its keys cannot be looked at: {error}", cure, queue))
    if health.unseen:
        rights = " ".join(dict.fromkeys(sorted((right for _, right in health.unseen), reverse=True)))
        left_out = ", ".join(what for what, _ in health.unseen)
        text = f"not looked at, since this user lacks {rights}: {left_out}"
        health.findings.append(warning("places", text, f"check as {doctor_user([queue])}", queue))
    return health


def unanswered_queue(queue: str, error: BrokerError) -> Health:
    """A queue or shard on a node of a cluster that gives no answer."""
    told = warning("places", f"not looked at: {error}", _UNANSWERED, queue)
    return Health(queue, findings=[told], unseen=[("all of it", "")])


def _as_allowed(keys: ShardKeys, health: Health, what: str, steps: Steps[T]) -> Steps[T | None]:
    """Take steps of the check; None when this user lacks a right for them, which is noted."""
    try:
        return (yield from steps)
    except BrokerRefused as error:
        right = lacks(error, f"~{keys.tag}:*")
        if not right:
            raise
        health.unseen.append((what, right))
        return None


def _check(
    session: Session, keys: ShardKeys, health: Health, buckets: Iterable[str], groups: Iterable[str],
    others: Sequence[Health] | None, progress: Progress | None,
) -> Steps[None]:  # fmt: skip
    queue = health.queue
    say = health.findings.append
    if not health.listed and (yield from _was_removed(keys)):
        return
    if not health.listed:
        text = "it has keys and is not in the list of queues: commands that look at every queue leave it out"
        say(warning("listed", text, _CURE.format(queue_of(queue)), queue))
    if (yield from _as_allowed(keys, health, "the types of its keys", _other_types(keys, health))):
        return
    schema = yield from _as_allowed(keys, health, "its schema, pause and wake-up tokens", _check_meta(keys, health))
    if health.foreign:
        return
    yield from _as_allowed(keys, health, "jobs that are offered to workers", _check_offers(keys, health, groups))
    looked = look_around(session, keys, set(buckets), progress)
    suspects = yield from _as_allowed(keys, health, "its jobs, unique keys, days and schedules", looked)
    if suspects is not None:
        health.odd_days = suspects.odd_days
        confirmed = _confirm(session, keys, health, suspects, buckets)
        yield from _as_allowed(keys, health, "whether its jobs stand where their records say", confirmed)
        if not health.findings and not health.unseen:
            state = f"schema {SCHEMA}, {counted(suspects.jobs, 'job')}, each in its place" if schema else "not used yet"
            say(ok("places", state, queue))
        _tell_unreadable(health, suspects)
    if suspects is not None:
        health.waiting, health.held = dict(suspects.tasks), suspects.held
    if others is not None:
        shards = [*others, health]
        waiting = sum((Counter(shard.waiting) for shard in shards), Counter[str]())
        checked = check_workers(session, keys, waiting, sum(shard.held for shard in shards))
        try:
            health.findings += (yield from _as_allowed(keys, health, "its workers", checked)) or []
        except (BrokerUnavailable, OutcomeUnknown) as error:
            # The list of workers, or what they publish of their tasks, may be on another node, which gives no answer.
            say(warning("workers", f"not looked at: {error}", _UNANSWERED, keys.queue))
    if not keys.shard:  # Of the clock the first shard tells.
        health.findings += (
            yield from _as_allowed(keys, health, "jumps of the clock", check_jumps(session, keys))
        ) or []


def _was_removed(keys: ShardKeys) -> Steps[bool]:
    """Whether this is a shard of a removed queue, of which only the mark is left that it takes no jobs."""
    (shards,), jobs = yield (("HMGET", keys.meta, "shards"), ("EXISTS", keys.jobs))
    return shards is not None and as_text(shards) == "0" and not jobs


def _check_meta(keys: ShardKeys, health: Health) -> Steps[str]:
    """Look at the schema and the tokens. Returns the schema, '' when there is none."""
    queue, say = health.queue, health.findings.append
    (meta, has_jobs, tokens) = yield (
        ("HMGET", keys.meta, "schema", "epoch", "orphans", "paused"), ("EXISTS", keys.jobs), ("LLEN", keys.wake),
    )  # fmt: skip
    schema = as_text(meta[0]) if meta[0] else ""
    if schema not in ("", SCHEMA):
        health.foreign = True
        error = calls.foreign_schema(keys.meta, schema)
        say(problem("schema", str(error), "nothing here is touched: check it with the version that wrote it", queue))
        return schema
    if meta[3] is not None:
        text = "it is paused: its jobs wait until it is resumed"
        say(warning("paused", text, f"if the pause is over: `zwheel queue resume {queue_of(queue)}`", queue))
    if not schema and has_jobs:
        health.vanished = True
        text = (
            "it has jobs and no schema: its meta key was deleted, and with it a pause, a cap and all counters; "
            "workers that saw it claim nothing here"
        )
        say(problem("schema", text, _CURE.format(queue_of(queue)) + ", then set its pause and cap again", queue))
    if tokens > _MOST_TOKENS:
        health.tokens = tokens
        text = f"{tokens:,} wake-up tokens lie there, and a few are enough: workers are woken for nothing"
        say(warning("wake", text, _CURE.format(queue_of(queue)), queue))
    return schema


def _tell_unreadable(health: Health, suspects: Suspects) -> None:
    queue, say = health.queue, health.findings.append
    if suspects.unreadable:
        number = f"{suspects.unreadable:,} record{'s'[: suspects.unreadable != 1]}"
        text = f"{number} of another version of zwheel: set aside in the dead set, or there as soon as its time comes"
        say(warning("versions", text, "redrive them with a version that knows them (`zwheel dead redrive`)", queue))
    if suspects.strange:
        names = [name for name, _ in suspects.strange]
        text = (
            f"{_count(names, 'schedule', 'schedules')} cannot be read by this version{_some(names)}: workers of this "
        )
        text += f"version do not fire {'it' if len(names) == 1 else 'them'}: {suspects.strange[0][1]}"
        cure = "run workers of the version that wrote it, or remove it and add it anew"
        say(warning("versions", text, cure, queue))


def _check_offers(keys: ShardKeys, health: Health, groups: Iterable[str]) -> Steps[None]:
    """Look at what is offered to the groups that have keys, and to those of the workers."""
    try:
        known = yield from groups_of(keys)
    except (BrokerUnavailable, OutcomeUnknown):
        if not keys.shard:
            raise
        known = set()  # The list of workers is on another node, which gives no answer.
    ((seconds, _),) = yield (("TIME",),)
    found = yield from look_at_offers(keys, {*known, *groups}, int(seconds) * 1000, _MOST_TOKENS)
    health.offers = found
    say, queue = health.findings.append, health.queue
    for key, there, kind in found.other_types:
        text = f"its key {key} is a {there} and not a {kind}: workers whose tasks differ find each other late"
        say(problem("offers", text, f"see which program wrote it, then DEL {key}", queue))
    void = [note for notes in found.void.values() for note in notes]
    if void:
        text = f"{_count(void, 'note', 'notes')} of jobs that are offered to workers {_be(void)} of none{_some(void)}"
        say(warning("offers", text, _CURE.format(queue_of(queue)), queue))
    for keyed, what in ((found.crowded, "notes of offered jobs"), (found.calls, "calls to workers")):
        for key in keyed:
            say(
                warning(
                    "offers", f"far more {what} than there can be lie in {key}", _CURE.format(queue_of(queue)), queue
                )
            )


def _other_types(keys: ShardKeys, health: Health) -> Steps[bool]:
    """Whether a key is kept by another program under our name: then nothing here can be looked at or mended."""
    wanted = {
        "hash": (keys.jobs, keys.bodies, keys.dedup, keys.meta, keys.schedules, keys.leaving, keys.arrived),
        "list": (keys.wake,),
        "zset": (keys.days, keys.processing, keys.dead, keys.done, keys.dedup_expiry, keys.schedules_due, keys.asked),
    }  # fmt: skip
    pairs = [(key, kind) for kind, names in wanted.items() for key in names]
    if not keys.shard:
        pairs.append((keys.workers, "hash"))
    kinds = yield [("TYPE", key) for key, _ in pairs]
    found = False
    for (key, kind), there in zip(pairs, kinds, strict=True):
        if as_text(there) not in ("none", kind):
            found = True
            text = (
                f"its key {key} is a {as_text(there)} and not a {kind}: scripts fail on it, and what was there is lost"
            )
            cure = f"see which program wrote it, then DEL {key} and run `zwheel doctor --repair --queue {keys.queue}`"
            health.findings.append(problem("places", text, cure, keys.name))
    return found


def _confirm(
    session: Session, keys: ShardKeys, health: Health, suspects: Suspects, buckets: Iterable[str]
) -> Steps[None]:
    broken: dict[str, list[bytes]] = {"o": [], "f": [], "p": [], "t": [], "b": []}
    hollow: list[bytes] = []
    for days, ids in suspects.groups():
        answer = yield from _repair(keys, days=days, ids=ids, mend=False, now=session.now)
        wrong = [(job, letter) for job, letter in zip(ids, answer.jobs, strict=True) if letter in broken]
        hollow += [job for job, letter in zip(ids, answer.jobs, strict=True) if letter == "n"]
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
    for keyed in _parts(sorted(suspects.digests), REPAIR_JOBS):
        answer = yield from _repair(keys, digests=keyed, mend=False, now=session.now)
        found = zip(keyed, answer.digests, strict=True)
        health.digests += [digest for digest, letter in found if letter == "s"]
    lists: dict[str, list[bytes]] = {"o": [], "p": [], "l": [], "s": []}
    for chunk in _parts(sorted(suspects.schedules.items()), REPAIR_JOBS):
        answer = yield from _repair(keys, schedules=chunk, mend=False, now=session.now)
        for one, letter in zip(chunk, answer.schedules, strict=True):
            if letter in lists:
                lists[letter].append(one[0])
                health.schedules.append(one)
    answer = yield from _repair(keys, mend=False, now=session.now)
    health.fields = answer.fields
    _tell(health, broken, index)
    _tell_bodies(health, broken["b"], hollow)
    _tell_more(health, broken["t"], lists)


def _tell_bodies(health: Health, unused: list[bytes], gone: list[bytes]) -> None:
    queue = health.queue
    if unused:
        text = f"{_count(unused, 'large body', 'large bodies')} without a job that needs {'it' if len(unused) == 1 else 'them'}"
        health.findings.append(warning("bodies", text + _some(unused), _CURE.format(queue_of(queue)), queue))
    if gone:
        text = (
            f"{_count(gone, 'job', 'jobs')} whose large {'body is' if len(gone) == 1 else 'bodies are'} gone{_some(gone)}: "
            "a worker makes it dead, since it cannot know the arguments"
        )
        cure = "see which program deleted it, and enqueue the job again; nothing here can bring the arguments back"
        health.findings.append(problem("bodies", text, cure, queue))


def _tell_more(health: Health, times: list[bytes], lists: dict[str, list[bytes]]) -> None:
    queue, cure = health.queue, _CURE.format(queue_of(health.queue))
    say = health.findings.append
    if times:
        text = (
            f"{_count(times, 'job', 'jobs')} with a lease, a death or an end at a time that cannot be{_some(times)}: "
        )
        say(problem("times", text + "it would never be taken back, or never go", cure, queue))
    if health.odd_days:
        text = f"{_count(health.odd_days, 'entry', 'entries')} in the index of days that {_be(health.odd_days)} none"
        say(problem("days", text + _some(health.odd_days), cure, queue))
    if health.fields:
        text = f"its meta says what cannot be in {', '.join(health.fields)}: workers wait for it, or never wait"
        say(problem("meta", text, cure, queue))
    for letter, make, text in (
        ("l", problem, "active and not on the list of what is due: it would never fire"),
        ("s", problem, "on the list of what is due with a time that cannot be, or too late: it would never fire"),
        ("o", warning, "on the list of what is due without a record"),
        ("p", warning, "on the list of what is due although not active"),
    ):
        if names := lists[letter]:
            text = f"{_count(names, 'schedule', 'schedules')} {_be(names)} {text}{_some(names)}"
            say(make("schedules", text, cure, queue))


def _tell(health: Health, broken: dict[str, list[bytes]], index: dict[str, int]) -> None:
    queue, cure = health.queue, _CURE.format(queue_of(health.queue))
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
        return sum(letter in "ofptelsb" for letter in letters)

    if health.foreign:
        return 0
    if not health.listed:
        queue = queue_of(health.queue)
        (added,) = yield (("HSETNX", queues_key(session.namespace), queue, session.counts.get(queue, 1)),)
        mended += int(added)
    for days, ids in [*health.jobs, *((tuple(part), []) for part in _parts(health.days, REPAIR_DAYS))]:
        answer = yield from _repair(keys, days=days, ids=ids, mend=True, now=session.now)
        mended += count(answer.jobs) if ids else count(answer.days)
        mended += answer.schema == "" and health.vanished
        done += len(ids) or len(days)
        if progress is not None:
            progress(done)
    for keyed in _parts(health.digests, REPAIR_JOBS):
        answer = yield from _repair(keys, digests=keyed, mend=True, now=session.now)
        mended += count(answer.digests) + (answer.schema == "" and health.vanished)
        done += len(keyed)
        if progress is not None:
            progress(done)
    if health.vanished and not (health.jobs or health.days or health.digests):
        answer = yield from _repair(keys, mend=True, now=session.now)
        mended += answer.schema == ""
    mended += yield from _mend_more(session, keys, health)
    if health.vanished or health.fields or health.schedules:
        # Workers that wait for the schema, or keep the time by what was damaged, listen here.
        yield (("RPUSH", keys.wake, "1"),)
    return mended


def _mend_more(session: Session, keys: ShardKeys, health: Health) -> Steps[int]:
    """Put right what is no job: fields of meta, the index of days, the list of what is due, the tokens."""
    mended = 0
    if health.fields:
        answer = yield from _repair(keys, mend=True, now=session.now)
        mended += len(answer.fields)
    if health.tokens:
        yield (("LTRIM", keys.wake, 0, 0),)
        mended += 1
    mended += yield from mend_offers(health.offers)
    for odd in _parts(health.odd_days, REPAIR_JOBS):
        (gone,) = yield (("ZREM", keys.days, *odd),)
        mended += int(gone)
    for chunk in _parts(health.schedules, REPAIR_JOBS):
        answer = yield from _repair(keys, schedules=chunk, mend=True, now=session.now)
        mended += sum(letter in "opls" for letter in answer.schedules)
    return mended


def _repair(keys: ShardKeys, **named: Any) -> Steps[calls.Repaired]:
    call = calls.repair(keys, **named)
    (reply,) = yield (call,)
    return calls.read_repair(call, reply)


def _count(items: Sequence[object], one: str, many: str) -> str:
    return f"{len(items):,} {one if len(items) == 1 else many}"


def _be(items: Sequence[object]) -> str:
    return "is" if len(items) == 1 else "are"


def _some(ids: Sequence[bytes]) -> str:
    return f" ({', '.join(shown(name, 60) for name in ids[:_SHOWN])}{', ...' if len(ids) > _SHOWN else ''})"


def _parts(items: Sequence[T], size: int) -> Iterator[list[T]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
