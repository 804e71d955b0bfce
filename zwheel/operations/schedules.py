"""Schedules: read them and write them. `past` tells what they did."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any

from zwheel import calls
from zwheel.broker.store import Steps
from zwheel.calls import NewOccurrence, Session, ShardsChanged
from zwheel.calls.advance import After
from zwheel.errors import (
    BrokerRefused,
    InvalidInput,
    ScheduleChanged,
    ScheduleExists,
    ScheduleNotFound,
    UndecodableJob,
    ZwheelError,
)
from zwheel.job import Enqueued, JobId, QueueName
from zwheel.keys import ShardKeys, check_name
from zwheel.operations.former import schedule_keys, schedule_place
from zwheel.operations.listing import joined, may_join
from zwheel.operations.occurrence import after_of, occurrence_job
from zwheel.operations.read import each_alone, queues
from zwheel.operations.shards import follow, refresh_shards
from zwheel.outside import Listing, Unreadable, as_text, flat, score_ms
from zwheel.payload.codec import Codec
from zwheel.schedules.definition import Definition, occurrence_id
from zwheel.schedules.plan import Due, Outcome, drawn_back, replan
from zwheel.schedules.state import (
    RECENT,
    Decided,
    ScheduleInfo,
    State,
    Status,
    Verdict,
    read_schedule,
    schedule_tail,
    undecided,
    unreadable_schedule,
)

_TRIES = 50
#: The name of a listing's entry for the schedules of a whole queue.
EVERY = "(all)"
#: A function that changes a schedule: it gets the schedule as read, and gives its new definition and state, or None to
#: leave it.
Change = Callable[[ScheduleInfo | None], tuple[Definition, State] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncReport:
    """What a sync did, or would do: names, sorted."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    """Left as they are, because their records cannot be read by this version."""
    kept: tuple[str, ...] = ()
    """Of the owner and not among the definitions, and left all the same, because the caller said so."""
    refused: tuple[str, ...] = ()
    """Declared by an application and not written: another owner has a schedule of that name."""


def schedules(session: Session, queue: str | None) -> Steps[Listing[ScheduleInfo]]:
    """Read every schedule of a queue, or of all, sorted by name. An unreadable schedule is named with the reason."""
    names = [QueueName(queue)] if queue else (yield from queues(session))
    found: Listing[ScheduleInfo] = Listing()
    counts: list[Any] = []
    yield from refresh_shards(session, names)
    shards = [(name, shard) for name in names for shard in session.shards(name)]
    for start in range(0, len(shards), 1000):
        part = shards[start : start + 1000]
        counts += yield from each_alone([("HSCAN", session.keys(s).schedules, 0, "COUNT", 1) for _, s in part])
    for (name, shard), count in zip(shards, counts, strict=True):
        if isinstance(count, BrokerRefused):
            # A key of another type, or without the right to read it, hides the schedules of this queue alone.
            found.unreadable.append(Unreadable(name=EVERY, queue=name, reason=str(count)))
            continue
        stored = (yield from _stored(session, shard)) if int(count[0]) or count[1] else {}
        for field, raw in sorted(stored.items()):
            try:
                found.append(read_schedule(raw, as_text(field), name))
            except UndecodableJob as error:
                found.unreadable.append(unreadable_schedule(field, name, error))
    found.sort(key=lambda info: (info.name, info.queue))
    return found


def _stored(session: Session, shard: str) -> Steps[dict[bytes, bytes]]:
    """Every schedule record of a shard by its name, as they are."""
    keys = session.keys(shard)
    cursor: Any = 0
    seen: dict[bytes, bytes] = {}
    while True:
        (reply,) = yield (("HSCAN", keys.schedules, cursor, "COUNT", 500),)
        cursor, entries = reply
        seen.update(flat(entries))
        if int(cursor) == 0:
            return seen


def schedule(session: Session, name: str, queue: str | None) -> Steps[ScheduleInfo]:
    """Read one schedule, looking in every known queue when none is named.

    Raises: ScheduleNotFound, InvalidInput, UndecodableJob when the only one of this name cannot be read.
    """
    check_name(name, "schedule")
    names = [QueueName(queue)] if queue else (yield from queues(session))
    yield from refresh_shards(session, names)
    shards = yield from _shards_of(session, names, name)
    raws = yield from each_alone([("HGET", keys.schedules, name) for keys in shards])
    found: list[ScheduleInfo] = []
    damaged: ZwheelError | None = None
    for where, raw in zip(names, raws, strict=True):
        try:
            if isinstance(raw, BrokerRefused):
                raise raw
            found += [read_schedule(raw, name, where)] if raw is not None else []
        except (UndecodableJob, BrokerRefused) as error:
            damaged = error
    if not found:
        raise damaged or ScheduleNotFound(name)
    if len(found) > 1:
        places = ", ".join(info.queue for info in found)
        raise InvalidInput(f"schedule {name} is in several queues: say which of {places}")
    return found[0]


def _shards_of(session: Session, queues: Iterable[str], name: str) -> Steps[list[ShardKeys]]:
    """The keys of the shard of each queue in which a schedule of this name is, or would be."""
    found: list[ShardKeys] = []
    for queue in queues:
        found += [(yield from schedule_keys(session, queue, name))]
    return found


def _now_ms(reply: Any) -> int:
    return int(reply[0]) * 1000 + int(reply[1]) // 1000


def _write(session: Session, codec: Codec, queue: str, name: str, change: Change) -> Steps[ScheduleInfo | None]:
    """Write a schedule as `change` makes it: its scheduled occurrences are taken back, and planned anew.

    Old and new never both fire: what has left the wheel counts as decided. What the old one had not decided yet, since
    no worker was there, is left to the new one; a state whose cursor is 0 begins now.
    """
    yield from refresh_shards(session, [queue])
    started: set[int] = set()
    yield from may_join(session, queue)
    for _ in range(_TRIES):
        keys, former = yield from schedule_place(session, queue, name)
        raw, clock = yield (("HGET", keys.schedules, name), ("TIME",))
        info = None if raw is None else read_schedule(raw, name, queue)
        made = change(info)
        if made is None:
            return info
        definition, state = made
        now_ms = _now_ms(clock)
        ahead = info.state.ahead if info is not None else ()
        back = [pair for pair in ahead if pair[0] not in started]
        kept = tuple(pair for pair in ahead if pair[0] in started and pair[0] > now_ms)
        again = tuple(at for at, _ in back if at <= now_ms)
        cursor = min(state.cursor_ms, now_ms) or now_ms
        state = replace(
            undecided(state, {at for at, _ in back}), cursor_ms=cursor, next_ms=None, next_wall="", owed=(), ahead=kept,
            newest=state.newest if state.cursor_ms else None,
        )  # fmt: skip
        if state.status is Status.ACTIVE:
            outcome = replan(definition, state, now_ms, again)
        else:
            outcome = Outcome(state=replace(state, taken=(*state.taken, *again)), due_ms=None)
        after = after_of(definition, codec, outcome)
        with session.lane() as lane:
            call = calls.define(
                keys, name, stamp=info.stamp if info is not None else str(former or ""), after=after,
                back=[(occurrence_id(name, at), fire) for at, fire in back], lane=lane, now=session.now,
            )  # fmt: skip
            (reply,) = yield (call,)
        try:
            met = calls.read_define(call, reply)
        except ShardsChanged as changed:
            yield from follow(session, queue, changed)
            continue
        if met.word == "ok":
            yield from joined(session, queue)
            return ScheduleInfo(definition=definition, state=outcome.state, stamp=info.stamp if info else "")
        started.update(at for at, _ in back if occurrence_id(name, at) in met.started)
    raise BrokerRefused(f"schedule {name} changes faster than it can be written")


def add_schedule(session: Session, codec: Codec, definition: Definition, replace_it: bool) -> Steps[ScheduleInfo]:
    """Write a new schedule, or with `replace_it` an existing one. Raises: ScheduleExists; nothing was changed."""
    definition.check()
    names = yield from queues(session)
    others = [n for n in names if n != definition.queue]
    shards = yield from _shards_of(session, others, definition.name)
    raws = yield from each_alone([("HEXISTS", keys.schedules, definition.name) for keys in shards])
    for other, exists in zip(others, raws, strict=True):
        if exists == 1:
            raise ScheduleExists(definition.name, other)

    def change(info: ScheduleInfo | None) -> tuple[Definition, State] | None:
        if info is None:
            return definition, State(declared=definition.digest() if definition.owner else "")
        if not replace_it:
            raise ScheduleExists(definition.name, info.queue)
        return definition, _carried_on(info, definition)

    return (yield from _created(session, codec, definition, change))


def _carried_on(info: ScheduleInfo, definition: Definition) -> State:
    """The state that a new definition takes over. One with other times, or that was finished, has nothing to make up."""
    state = info.state
    if state.status is Status.FINISHED:
        return replace(state, status=Status.ACTIVE, cursor_ms=0)
    if not definition.same_times(info.definition):
        return replace(state, cursor_ms=0, taken=())
    return state


def _created(session: Session, codec: Codec, definition: Definition, change: Change) -> Steps[ScheduleInfo]:
    (clock,) = yield (("TIME",),)
    now_ms = _now_ms(clock)

    def stamped(info: ScheduleInfo | None) -> tuple[Definition, State] | None:
        made = change(info)
        if made is None:
            return None
        new, state = made
        if not state.created_ms:
            state = replace(state, created_ms=now_ms, anchor_ms=now_ms)
        return new, state

    written = yield from _write(session, codec, definition.queue, definition.name, stamped)
    assert written is not None
    return written


def edit_schedule(
    session: Session, codec: Codec, definition: Definition, before: Definition | None
) -> Steps[ScheduleInfo]:
    """Give an existing schedule another definition. Raises: ScheduleNotFound; ScheduleChanged when it was not `before`."""
    definition.check()

    def change(info: ScheduleInfo | None) -> tuple[Definition, State] | None:
        if info is None:
            raise ScheduleNotFound(definition.name)
        if before is not None and info.definition != before:
            raise ScheduleChanged(definition.name)
        return definition, _carried_on(info, definition)

    return (yield from _created(session, codec, definition, change))


def _known(session: Session, codec: Codec, name: str, queue: str | None, change: Change) -> Steps[ScheduleInfo]:
    found = yield from schedule(session, name, queue)
    written = yield from _write(session, codec, found.queue, name, change)
    if written is None:
        raise ScheduleNotFound(name)
    return written


def pause_schedule(session: Session, codec: Codec, name: str, queue: str | None) -> Steps[ScheduleInfo]:
    """Take the scheduled occurrences off the wheel and put no more there. Raises: ScheduleNotFound."""

    def change(info: ScheduleInfo | None) -> tuple[Definition, State] | None:
        if info is None or info.status is not Status.ACTIVE:
            return None
        return info.definition, replace(info.state, status=Status.PAUSED)

    return (yield from _known(session, codec, name, queue, change))


def resume_schedule(
    session: Session, codec: Codec, name: str, queue: str | None, catch_up: bool
) -> Steps[ScheduleInfo]:
    """Let a paused schedule go on from now, or with `catch_up` treat what it left out as missed.

    What was due before the pause and had not started is owed in any case: it follows the misfire policy.
    """
    found = yield from schedule(session, name, queue)
    if found.status is not Status.PAUSED:
        return found
    if catch_up:
        return (yield from _catch_up(session, codec, found))

    def change(info: ScheduleInfo | None) -> tuple[Definition, State] | None:
        if info is None or info.status is not Status.PAUSED:
            return None
        return info.definition, replace(info.state, status=Status.ACTIVE, cursor_ms=0)

    return (yield from _known(session, codec, name, found.queue, change))


def _catch_up(session: Session, codec: Codec, found: ScheduleInfo) -> Steps[ScheduleInfo]:
    """Make a paused schedule active again with its old cursor, due now: a worker applies its misfire policy."""
    for _ in range(_TRIES):
        keys = yield from schedule_keys(session, found.queue, found.name)
        raw, clock = yield (("HGET", keys.schedules, found.name), ("TIME",))
        if raw is None:
            raise ScheduleNotFound(found.name)
        info = read_schedule(raw, found.name, found.queue)
        if info.status is not Status.PAUSED:
            return info
        state = replace(info.state, status=Status.ACTIVE, next_ms=None, next_wall="", owed=())
        after = After(Status.ACTIVE.letter, _now_ms(clock), schedule_tail(state, info.definition))
        with session.lane() as lane:
            call = calls.define(keys, found.name, stamp=info.stamp, after=after, lane=lane, now=session.now)
            (reply,) = yield (call,)
        if calls.read_define(call, reply).word == "ok":
            return replace(info, state=state)
    raise BrokerRefused(f"schedule {found.name} changes faster than it can be written")


def awaken(session: Session, queue: str, name: str) -> Steps[None]:
    """Let a schedule go on that was finished by a clock that was ahead: a worker looks at it at once."""
    keys = yield from schedule_keys(session, queue, name)
    raw, clock = yield (("HGET", keys.schedules, name), ("TIME",))
    if raw is None:
        return
    info = read_schedule(raw, name, keys.queue)
    state = drawn_back(info.definition, info.state, _now_ms(clock))
    if state.status is not Status.ACTIVE:
        return
    after = After(state.status.letter, _now_ms(clock), schedule_tail(state, info.definition))
    with session.lane() as lane:
        yield (calls.define(keys, name, stamp=info.stamp, after=after, lane=lane, now=session.now),)


def remove_schedule(session: Session, name: str, queue: str | None) -> Steps[None]:
    """Delete a schedule and take its scheduled occurrences off the wheel. Raises: ScheduleNotFound."""
    found = yield from schedule(session, name, queue)
    started: set[str] = set()
    for _ in range(_TRIES):
        keys = yield from schedule_keys(session, found.queue, name)
        (raw,) = yield (("HGET", keys.schedules, name),)
        if raw is None:
            return
        info = read_schedule(raw)
        back = [(i, fire) for at, fire in info.state.ahead if (i := occurrence_id(name, at)) not in started]
        with session.lane() as lane:
            call = calls.define(
                keys, name, stamp=info.stamp, after=After("", None, ""), back=back, lane=lane, now=session.now
            )
            (reply,) = yield (call,)
        met = calls.read_define(call, reply)
        if met.word == "ok":
            return
        started.update(met.started)
    raise BrokerRefused(f"schedule {name} changes faster than it can be removed")


def trigger_schedule(session: Session, codec: Codec, name: str, queue: str | None) -> Steps[Enqueued]:
    """Run a schedule's job now, whatever its status, beside its occurrences. Raises: ScheduleNotFound."""
    found = yield from schedule(session, name, queue)
    for _ in range(_TRIES):
        keys = yield from schedule_keys(session, found.queue, name)
        raw, score, clock = yield (
            ("HGET", keys.schedules, name), ("ZSCORE", keys.schedules_due, name), ("TIME",),
        )  # fmt: skip
        if raw is None:
            raise ScheduleNotFound(name)
        info = read_schedule(raw, name, found.queue)
        now_ms = _now_ms(clock) + 1
        due = Due(now_ms, now_ms, False, info.state.last_ms)
        job = occurrence_job(info.definition, codec, due, None, suffix=":trigger")
        mark = Decided(at_ms=now_ms, fire_ms=now_ms, verdict=Verdict.TRIGGERED)
        recent = tuple(sorted([*info.state.recent, mark], key=lambda d: d.at_ms))[-RECENT:]
        outcome = Outcome(
            state=replace(info.state, recent=recent), due_ms=score_ms(score)
        )  # fmt: skip
        after = after_of(info.definition, codec, outcome, [job])
        with session.lane() as lane:
            call = calls.define(keys, name, stamp=info.stamp, after=after, lane=lane, now=session.now)
            (reply,) = yield (call,)
        if calls.read_define(call, reply).word == "ok":
            return Enqueued(job_id=JobId(job.id), existed=False, queue=info.queue, fire_at_ms=now_ms)
    raise BrokerRefused(f"schedule {name} changes faster than it can be triggered")


def sync_schedules(
    session: Session, codec: Codec, definitions: Iterable[Definition], owner: str, dry_run: bool,
    keep: Collection[str] = (),
) -> Steps[SyncReport]:  # fmt: skip
    """Make the schedules of one owner exactly these; those of others, and by hand, stay as they are.

    A definition that its owner did not change since the last sync is left alone, with whatever was edited by hand; where
    only its description changed, that alone is written.
    keep: names of the owner's that stay although they are not among the definitions.
    Raises: ScheduleExists when a name is taken by another owner; nothing was changed.
    """
    if not owner:
        raise InvalidInput("sync_schedules: name the owner")
    wanted = {d.name: d.with_owner(owner).check() for d in definitions}
    listed = yield from schedules(session, None)
    for info in listed:
        if info.name in wanted and info.owner != owner:
            raise ScheduleExists(info.name, info.queue, info.owner)
    return (yield from make_so(session, codec, listed, wanted, {owner}, keep, dry_run))


def make_so(
    session: Session, codec: Codec, listed: Listing[ScheduleInfo], wanted: dict[str, Definition],
    owners: Collection[str], keep: Collection[str], dry_run: bool,
) -> Steps[SyncReport]:  # fmt: skip
    """Write the wanted schedules, and remove the other schedules of these owners except the names in `keep`."""
    present = {info.name: info for info in listed}
    # What another version wrote stays as it is: it is neither changed nor taken for missing.
    strange = {one.name for one in listed.unreadable if one.name not in present}
    closed = {one.queue for one in listed.unreadable if one.name == EVERY}
    skipped = {name for name, definition in wanted.items() if name in strange or definition.queue in closed}
    wanted = {name: definition for name, definition in wanted.items() if name not in skipped}
    added = [name for name in wanted if name not in present]
    moved = [n for n, d in wanted.items() if n in present and present[n].queue != d.queue]
    changed = [n for n, d in wanted.items() if n in present and present[n].state.declared != d.digest()]
    gone = [n for n, info in present.items() if info.owner in owners and n not in wanted]
    removed = [name for name in gone if name not in keep]
    report = SyncReport(
        added=tuple(sorted(added)), changed=tuple(sorted({*changed, *moved})), removed=tuple(sorted(removed)),
        unchanged=tuple(sorted(set(wanted) - set(added) - set(changed) - set(moved))),
        skipped=tuple(sorted(skipped)), kept=tuple(sorted(set(gone) - set(removed))),
    )  # fmt: skip
    if dry_run:
        return report
    for name in [*removed, *moved]:
        try:
            yield from remove_schedule(session, name, present[name].queue)
        except (ScheduleNotFound, UndecodableJob):
            continue  # another worker was faster
    for name in [*added, *report.changed]:
        yield from _put(session, codec, wanted[name])
    return report


def _put(session: Session, codec: Codec, definition: Definition) -> Steps[ScheduleInfo]:
    digest = definition.digest()

    def change(info: ScheduleInfo | None) -> tuple[Definition, State] | None:
        if info is None:
            return definition, State(declared=digest)
        if info.state.declared == digest:
            return None
        if replace(definition, description=info.definition.description).digest() == info.state.declared:
            # Only the description changed: what was edited by hand stays.
            return replace(info.definition, description=definition.description), replace(info.state, declared=digest)
        return definition, replace(_carried_on(info, definition), declared=digest)

    return (yield from _created(session, codec, definition, change))


__all__ = [
    "NewOccurrence", "SyncReport", "add_schedule", "edit_schedule", "pause_schedule", "remove_schedule",
    "resume_schedule", "schedule", "schedules", "sync_schedules", "trigger_schedule",
]  # fmt: skip
