"""What one advance of a schedule does, decided from its record and the server's time alone, without I/O.

Example: `0 9 * * *`, looked at at 08:59:55 with 10 s ahead: the occurrence of 09:00 goes on the wheel, the cursor moves
to 09:00, and the schedule is looked at again tomorrow at 08:59:55. Looked at at 11:30 after an outage: 09:00 is older
than the grace of a minute, so it is missed, and the misfire policy says whether it still runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from zwheel.schedules import promise
from zwheel.schedules.definition import MISFIRE_CAP, Definition, Misfire, Overlap, jitter_of
from zwheel.schedules.occurrences import Occurrence, Rhythm
from zwheel.schedules.state import RAN, RECENT, Decided, Promise, ScheduleInfo, State, Status, Verdict

#: Occurrences go on the wheel up to this much before their time, and at least half of it, ms.
AHEAD_MS = 10_000
#: How many go on the wheel in one advance at the most, besides missed ones.
MOST_AHEAD = 100
#: How soon a schedule with a waiting occurrence is looked at again, in case no worker tells that the one before ended, ms.
BUFFER_LOOK_MS = 1_000
#: An occurrence may start this late in any case, ms: as late as the death of one worker can make it.
LEAST_GRACE_MS = 1_000
#: A time that lies further ahead than planning explains, and this, was written by a clock that was wrong, ms.
_CLOCK_SLACK_MS = 1_000


#: An occurrence that goes on the wheel, and why.
Fire = tuple[Occurrence, Verdict]


class Due(NamedTuple):
    """An occurrence that goes on the wheel."""

    at_ms: int
    fire_ms: int
    catch_up: bool
    previous_ms: int | None
    by_ms: int | None = None
    """The latest time at which it may start, ms; None: any time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the record becomes, when the schedule is looked at again (ms; None: never), and what goes on the wheel."""

    state: State
    due_ms: int | None
    jobs: tuple[Due, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What an advance does. With `after_ms`, the script chooses by whether that occurrence's job is still active."""

    free: Outcome
    busy: Outcome | None = None
    after_ms: int | None = None


def plan(definition: Definition, state: State, now_ms: int, again: Iterable[int] = ()) -> Plan:
    """Decide what to do with an active schedule at `now_ms` of the server's time.

    again: nominal times, up to now, that an edit took off the wheel: they fire if the definition still has them.
    """
    state = drawn_back(definition, state, now_ms)
    rhythm, end = definition.rhythm(state.anchor_ms), _end(definition)
    left = _coming(definition, rhythm, state, now_ms)
    due = [o for o in left.past if _delayed_ms(definition, o) <= now_ms]
    fires, dropped = _choose(definition, state, due, now_ms)
    missed = sorted([*(o.at_ms for o in dropped), *left.lost])
    delayed = (o for o in left.past if _delayed_ms(definition, o) > now_ms)
    fires += [(o, Verdict.FIRED) for o in (*_kept(definition, rhythm, again), *delayed, *left.upcoming)]
    fires.sort(key=lambda fire: fire[0].at_ms)
    if definition.max_count is not None:
        fires = fires[: max(0, definition.max_count - state.fired)]
    moved = replace(
        state, cursor_ms=left.reached_ms, missed=state.missed + len(missed) + left.cut, taken=(), owed=left.owed,
        recent=_recent(state.recent, [Decided(at_ms=at, fire_ms=0, verdict=Verdict.MISSED) for at in missed]),
        newest=_newest(state, [*left.past, *left.upcoming]), caught=_caught(definition, state, fires, now_ms),
    )  # fmt: skip
    if definition.overlap is not Overlap.ALLOW:
        planned = _guarded(definition, rhythm, moved, fires, now_ms, end)
        if left.upcoming and planned.busy is not None:
            # The one before may still end in time: the occurrence is decided at its time.
            planned = replace(planned, busy=Outcome(state=state, due_ms=state.next_ms))
        return planned
    if state.buffered_ms is not None:  # it waited under another policy, and need not any more
        fires.insert(0, _waiting(state.buffered_ms))
        moved = replace(moved, buffered_ms=None)
    return Plan(free=_settle(definition, rhythm, moved, fires, now_ms, end, first=state.taken))


def replan(definition: Definition, state: State, now_ms: int, again: Iterable[int]) -> Outcome:
    """Decide what an edit of an active schedule does at once. again: as for `plan`.

    What depends on whether the job before is still active is left to a worker, which looks without delay: only
    `advance` sees that.
    """
    if definition.overlap is Overlap.ALLOW:
        return plan(definition, state, now_ms, again).free
    rhythm, end = definition.rhythm(state.anchor_ms), _end(definition)
    fires = [(o, Verdict.FIRED) for o in _kept(definition, rhythm, again)]
    outcome = _settle(definition, rhythm, state, fires, now_ms, end)
    if state.buffered_ms is None and not state.taken:
        return outcome
    return replace(outcome, state=replace(outcome.state, status=Status.ACTIVE), due_ms=now_ms)


def furthest_ms(definition: Definition, now_ms: int) -> int:
    """What lies further ahead than this was written by a clock that was ahead, or before the clock was set back."""
    return max(now_ms + AHEAD_MS, (definition.start_ms or 0) - 1) + _CLOCK_SLACK_MS


def drawn_back(definition: Definition, state: State, now_ms: int) -> State:
    """A state as if the server's clock had not been ahead, where it was; any other as it is.

    A cursor that lies ahead of the time beyond what planning ahead explains was written by such a clock. Example: the
    clock jumps from 10:00 to 11:00 for two seconds, and meanwhile all of that hour is decided. Occurrences of it that
    run are remembered as on the wheel already; missed ones are undecided again.
    """
    if state.cursor_ms <= furthest_ms(definition, now_ms) and state.anchor_ms <= now_ms + _CLOCK_SLACK_MS:
        return state
    state = replace(state, anchor_ms=min(state.anchor_ms, now_ms), created_ms=min(state.created_ms, now_ms))
    coming = [d for d in state.recent if d.at_ms > now_ms and d.verdict is not Verdict.TRIGGERED]
    ran = {d.at_ms: max(d.at_ms, d.fire_ms) for d in coming if d.verdict in RAN}
    until = min(state.cursor_ms, _end(definition))
    found, cut = definition.rhythm(state.anchor_ms).newest(now_ms, until, MISFIRE_CAP + 1)
    others = len(found) + cut - len(ran)
    missed = others if any(d.verdict is Verdict.MISSED for d in coming) else 0
    return replace(
        state, cursor_ms=min(state.cursor_ms, now_ms), next_ms=None, next_wall="", owed=(), newest=None, caught=(0, 0),
        status=Status.ACTIVE if state.status is Status.FINISHED else state.status,
        taken=tuple(at for at in state.taken if at <= now_ms), ahead=tuple(sorted({**dict(state.ahead), **ran}.items())),
        recent=tuple(d for d in state.recent if d not in coming),
        missed=max(0, state.missed - missed), fired=max(0, state.fired - (0 if missed else max(0, others))),
    )  # fmt: skip


def misplanned(info: ScheduleInfo, score: int | None, now_ms: int) -> str:
    """What is wrong with when a schedule is looked at, in words; '' when nothing is."""
    state, definition = info.state, info.definition
    if info.status is Status.PAUSED:
        return ""
    if drawn_back(definition, state, now_ms) is not state:
        return "was planned while the server's clock was ahead: planned anew"
    if info.status is not Status.ACTIVE or state.next_ms is None or state.buffered_ms is not None:
        return ""
    if score is not None and score > state.next_ms:
        return "was to be looked at later than it is due: looked at now"
    if promise.is_stale(info.rhythm(), state, max(state.cursor_ms, (definition.start_ms or 0) - 1)):
        return "has another next time by the zone data or the holidays of this machine: planned anew"
    return ""


class _Left(NamedTuple):
    """What is not decided yet."""

    past: list[Occurrence]
    upcoming: list[Occurrence]
    lost: list[int]
    """What was promised or taken back, and is no occurrence by the data here, ms."""
    owed: tuple[Promise, ...]
    reached_ms: int
    """The new cursor."""
    cut: bool
    """Whether there are more past ones than can be counted."""


def _coming(definition: Definition, rhythm: Rhythm, state: State, now_ms: int) -> _Left:
    """Find what is not decided yet, up to some seconds ahead.

    An occurrence that may not overlap goes on the wheel ahead of its time too, alone: when nothing else is to be decided.
    """
    if definition.overlap is Overlap.ALLOW:
        return _undecided(definition, rhythm, state, now_ms, now_ms + AHEAD_MS, MOST_AHEAD)
    coming = state.next_ms
    if coming is not None and now_ms < coming <= now_ms + AHEAD_MS and state.buffered_ms is None:
        left = _undecided(definition, rhythm, state, now_ms, coming, 1)
        if not left.past and not left.lost and [o.at_ms for o in left.upcoming] == [coming]:
            return left
    return _undecided(definition, rhythm, state, now_ms, now_ms, 0)


def _undecided(definition: Definition, rhythm: Rhythm, state: State, now_ms: int, until: int, most: int) -> _Left:
    """Find what is not decided yet, up to a time that is now or later; at most so many that are still to come."""
    after, end = max(state.cursor_ms, (definition.start_ms or 0) - 1), _end(definition)
    past: list[Occurrence] = []
    cut = False
    if now_ms > after:
        past, cut = rhythm.newest(after, min(now_ms, end), MISFIRE_CAP + 1)
    reached = max(after, now_ms)
    upcoming = rhythm.between(reached, min(until, end), most) if most else []
    if upcoming:
        reached = upcoming[-1].at_ms
    promised = promise.kept(rhythm, state, [*past, *upcoming], after, reached, until)
    past += [o for o in promised.runs if o.at_ms <= now_ms]
    upcoming += [o for o in promised.runs if o.at_ms > now_ms]
    known = {*(at for at, _ in state.ahead), *state.taken}
    past, upcoming = (
        sorted((o for o in some if o.at_ms not in known and promise.is_open(rhythm, state, o)), key=lambda o: o.at_ms)
        for some in (past, upcoming)
    )
    taken = _kept(definition, rhythm, state.taken)
    lost = [*promised.lost, *({*state.taken} - {o.at_ms for o in taken})]
    return _Left([*taken, *past], upcoming, lost, promised.owed, promised.reached_ms, cut)


def _newest(state: State, decided: Sequence[Occurrence]) -> Promise | None:
    """The newest that follows a wall clock."""
    newest = max((o for o in decided if o.wall is not None), key=lambda o: o.at_ms, default=None)
    if newest is None or (state.newest is not None and newest.at_ms <= state.newest.at_ms):
        return state.newest
    return Promise(newest.at_ms, promise.wall_text(newest.wall))


def _caught(definition: Definition, state: State, fires: Sequence[Fire], now_ms: int) -> tuple[int, int]:
    """Count the occurrences that are caught up, so that occurrences which come back one by one share one limit."""
    caught = [o.at_ms for o, verdict in fires if verdict is Verdict.CATCH_UP]
    if definition.misfire is not Misfire.FIRE_ALL or not caught:
        return state.caught
    until, count = state.caught
    return (until, count + len(caught)) if caught[-1] <= until else (now_ms, len(caught))


def _end(definition: Definition) -> int:
    return definition.end_ms if definition.end_ms is not None else 1 << 62


def _kept(definition: Definition, rhythm: Rhythm, times: Iterable[int]) -> list[Occurrence]:
    """The occurrences at these times, if the definition still has them."""
    start, end = definition.start_ms or 0, _end(definition)
    return [o for at in times if start <= at <= end for o in rhythm.between(at - 1, at, 1)]


def _delayed_ms(definition: Definition, occurrence: Occurrence) -> int:
    """Its nominal time with its jitter, ms."""
    return occurrence.at_ms + jitter_of(definition.name, occurrence.at_ms, definition.jitter_ms)


def _choose(
    definition: Definition, state: State, past: Sequence[Occurrence], now_ms: int
) -> tuple[list[Fire], list[Occurrence]]:
    """Tell which of the past occurrences still run, and as what, and which do not."""
    if not past:
        return [], []
    on_time = now_ms - _delayed_ms(definition, past[-1]) <= definition.grace_ms
    missed = list(past[:-1]) if on_time else list(past)
    eligible = missed
    if definition.window_ms is not None:
        eligible = [o for o in missed if o.at_ms >= now_ms - (definition.window_ms or 0)]
    if definition.misfire is Misfire.SKIP:
        runs = []
    elif definition.misfire is Misfire.FIRE_ONCE:
        # A newer occurrence that is on the wheel already, or ran, stands for the missed ones before it.
        newest = eligible[-1].at_ms if eligible else now_ms
        covered = on_time or any(newest < d.at_ms <= now_ms for d in state.recent if d.verdict in RAN)
        runs = [] if covered else eligible[-1:]
    else:
        until, count = state.caught
        used = count if eligible and eligible[-1].at_ms <= until else 0
        limit = max(0, min(definition.misfire_limit, MISFIRE_CAP) - used)
        runs = eligible[-limit:] if limit else []
    kept = {o.at_ms for o in runs}
    dropped = [o for o in missed if o.at_ms not in kept]
    fires = [(o, Verdict.CATCH_UP) for o in runs]
    if on_time:
        fires.append((past[-1], Verdict.FIRED))
    return fires, dropped


def _recent(recent: tuple[Decided, ...], more: Sequence[Decided]) -> tuple[Decided, ...]:
    return tuple(sorted([*recent, *more], key=lambda decided: decided.at_ms))[-RECENT:]


def _waiting(at_ms: int) -> Fire:
    return Occurrence(at_ms=at_ms, wall=None), Verdict.BUFFERED


def _fire_ms(definition: Definition, occurrence: Occurrence, verdict: Verdict, now_ms: int) -> int:
    """The fire time of an occurrence: now when it was missed or had to wait, else its own time and its jitter."""
    if verdict is not Verdict.FIRED:
        return max(now_ms, occurrence.at_ms)
    return _delayed_ms(definition, occurrence)


def late_after_ms(definition: Definition, fire_ms: int) -> int:
    """The latest time at which an occurrence may start, ms."""
    return fire_ms + max(definition.grace_ms, LEAST_GRACE_MS)


def _settle(
    definition: Definition, rhythm: Rhythm, state: State, fires: Sequence[Fire], now_ms: int, end: int,
    first: Iterable[int] = (),
) -> Outcome:  # fmt: skip
    """Put these on the wheel, and say when to look again. first: missed ones that run before what is due since."""
    returned = set(first)
    jobs: list[Due] = []
    decided: list[Decided] = []
    previous = state.last_ms
    for occurrence, verdict in fires:
        fire = _fire_ms(definition, occurrence, verdict, now_ms)
        by = late_after_ms(definition, fire)
        if occurrence.at_ms in returned:
            fire = min(fire, _delayed_ms(definition, occurrence))
        jobs.append(
            Due(occurrence.at_ms, fire, verdict is Verdict.CATCH_UP, previous, max(by, now_ms + LEAST_GRACE_MS))
        )
        decided.append(Decided(at_ms=occurrence.at_ms, fire_ms=fire, verdict=verdict))
        previous = occurrence.at_ms
    ahead = sorted(pair for pair in (*state.ahead, *((job.at_ms, job.fire_ms) for job in jobs)) if pair[1] > now_ms)
    state = replace(
        state, last_ms=previous, fired=state.fired + len(jobs), ahead=tuple(ahead),
        recent=_recent(state.recent, decided),
    )  # fmt: skip
    return _look_again(definition, rhythm, state, tuple(jobs), now_ms, end)


def _look_again(
    definition: Definition, rhythm: Rhythm, state: State, jobs: tuple[Due, ...], now_ms: int, end: int
) -> Outcome:
    """Find what comes after the cursor, and from when on it can go on the wheel."""
    counted = definition.max_count is not None and state.fired >= definition.max_count
    open_ = (o for o in rhythm.after(state.cursor_ms) if promise.is_open(rhythm, state, o))
    following = None if counted else next(open_, None)
    coming = [] if counted else [p for p in state.owed if p.at_ms > state.cursor_ms]
    if following is not None and following.at_ms <= end:
        coming.append(Promise(following.at_ms, promise.wall_text(following.wall)))
    if not coming:
        status = state.status if state.buffered_ms is not None else Status.FINISHED
        state = replace(state, next_ms=None, next_wall="", owed=(), status=status)
        return Outcome(state=state, due_ms=None, jobs=jobs)
    first, *owed = sorted(dict.fromkeys(coming))
    owed = [p for p in owed if following is None or p.at_ms != following.at_ms]
    lead = AHEAD_MS // 2
    if definition.overlap is not Overlap.ALLOW:
        # The occurrence on the wheel gets half of the time to the next one to end, or nearly each look would be in vain.
        since = max((now_ms, *(fire for _, fire in state.ahead)))
        lead = min(lead, max(0, first.at_ms - since) // 2)
    state = replace(state, next_ms=first.at_ms, next_wall=first.wall, owed=tuple(owed))
    return Outcome(state=state, due_ms=max(0, first.at_ms - lead), jobs=jobs)


def _guarded(
    definition: Definition, rhythm: Rhythm, state: State, fires: Sequence[Fire], now_ms: int, end: int
) -> Plan:
    """Decide for both cases: the occurrence before is still active (`busy`), or it is not (`free`)."""
    waiting = state.buffered_ms
    if waiting is not None:
        first, rest = [_waiting(waiting)], list(fires)
    else:
        first, rest = list(fires[:1]), list(fires[1:])
    if not first:
        return Plan(free=_settle(definition, rhythm, state, [], now_ms, end))
    # An occurrence that may not run beside the first one waits, or is skipped.
    free = _settle(definition, rhythm, replace(state, buffered_ms=None), first, now_ms, end)
    free = _hold(definition, rhythm, free, rest, now_ms, end)
    blocked = rest if waiting is not None else [*first, *rest]
    busy = _hold(definition, rhythm, _look_again(definition, rhythm, state, (), now_ms, end), blocked, now_ms, end)
    return Plan(free=free, busy=busy if state.last_ms is not None else None, after_ms=state.last_ms)


def _hold(
    definition: Definition, rhythm: Rhythm, outcome: Outcome, blocked: Sequence[Fire], now_ms: int, end: int,
) -> Outcome:  # fmt: skip
    """Let one of the blocked ones wait where the policy buffers and none waits yet; the others are skipped."""
    state = outcome.state
    rest = list(blocked)
    counted = definition.max_count is not None and state.fired >= definition.max_count
    if rest and definition.overlap.buffers and state.buffered_ms is None and not counted:
        state = replace(state, buffered_ms=rest.pop(0)[0].at_ms)
    skipped = [Decided(at_ms=o.at_ms, fire_ms=0, verdict=Verdict.SKIPPED) for o, _ in rest]
    state = replace(state, skipped=state.skipped + len(skipped), recent=_recent(state.recent, skipped))
    due = outcome.due_ms
    if state.buffered_ms is not None:
        state = replace(state, status=Status.ACTIVE)
        due = min(now_ms + BUFFER_LOOK_MS, due if due is not None else 1 << 62)
    return replace(outcome, state=state, due_ms=due)
