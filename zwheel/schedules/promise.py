"""What a schedule's record promised, where the data of who reads it says otherwise: other zone data, other holidays.

A record says which occurrence comes next, by the data of the worker that wrote it, with the wall time that it stands
for. Workers with different data may look at the record in turn while a fleet is upgraded. One wall time is one
occurrence for all of them, and a promised occurrence is decided, whichever worker looks.

Example: a worker with old zone data promises 09:00 as 08:00 UTC. For new data it is 07:40 UTC. A worker with new data
looks at 07:59:55: 09:00 is 20 minutes late, and runs at once if that is within the grace. The old data's 08:00 UTC is
the same wall time, and does not run beside it.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from zwheel.schedules.occurrences import Occurrence, Rhythm
from zwheel.schedules.state import Promise, State

#: At most so many promises wait at a time.
MOST_OWED = 20


class Kept(NamedTuple):
    """What becomes of the promises of a record."""

    runs: list[Occurrence]
    """They run at the time that was promised."""
    lost: list[int]
    """Nominal times that come no more by the data here, ms: they are missed."""
    owed: tuple[Promise, ...]
    """They are decided later."""
    reached_ms: int
    """The cursor, past all that is decided."""


def wall_text(wall: datetime | None) -> str:
    """A wall time as the record holds it, so that later ones sort later; '' for a rhythm that follows no wall clock."""
    return "" if wall is None else wall.isoformat()


def has(rhythm: Rhythm, at_ms: int) -> bool:
    """Whether a rhythm has an occurrence at this very time."""
    return bool(rhythm.between(at_ms - 1, at_ms, 1))


def same_data(rhythm: Rhythm, state: State) -> bool:
    """Whether the newest occurrence that was decided is one by the data here too."""
    return state.newest is None or has(rhythm, state.newest.at_ms)


def is_open(rhythm: Rhythm, state: State, occurrence: Occurrence) -> bool:
    """Whether an occurrence after the cursor is not decided under another time yet."""
    wall = wall_text(occurrence.wall)
    return state.newest is None or not wall or wall > state.newest.wall or same_data(rhythm, state)


def is_stale(rhythm: Rhythm, state: State, after_ms: int) -> bool:
    """Whether what the record promises next comes at another time by the data here."""
    if state.promise is None:
        return False
    following = next((o for o in rhythm.after(after_ms) if is_open(rhythm, state, o)), None)
    if following is not None and following.at_ms <= state.promise.at_ms:
        return following.at_ms < state.promise.at_ms
    moved = _here(rhythm, state.promise)
    return moved is not None and moved.at_ms > after_ms


def kept(
    rhythm: Rhythm, state: State, found: Iterable[Occurrence], after_ms: int, reached_ms: int, until_ms: int
) -> Kept:
    """Decide the promises up to `until_ms` that `found`, the occurrences here up to there, does not have."""
    times = {o.at_ms for o in found}
    made = Kept([], [], (), reached_ms)
    promises = dict.fromkeys((*state.owed, *([] if state.promise is None else [state.promise])))
    for promise in sorted(promises):
        if promise.at_ms <= after_ms or promise.at_ms in times:
            continue
        made = _keep(rhythm, state, promise, after_ms, until_ms, made)
    return made._replace(owed=made.owed[:MOST_OWED])


def _keep(rhythm: Rhythm, state: State, promise: Promise, after_ms: int, until_ms: int, made: Kept) -> Kept:
    if promise.at_ms > until_ms:
        moved = None if has(rhythm, promise.at_ms) else _here(rhythm, promise)
        if moved is not None and moved.at_ms > after_ms:
            return made
        return made._replace(owed=(*made.owed, promise))
    if has(rhythm, promise.at_ms):
        return made
    decided = state.newest is not None and promise.wall != "" and promise.wall <= state.newest.wall
    moved = None if decided else _here(rhythm, promise)
    if moved is not None and moved.at_ms <= after_ms:
        made.runs.append(Occurrence(promise.at_ms, datetime.fromisoformat(promise.wall)))
    elif moved is None and not decided:
        made.lost.append(promise.at_ms)
    elif moved is not None:
        return made
    return made._replace(reached_ms=max(made.reached_ms, promise.at_ms))


def _here(rhythm: Rhythm, promise: Promise) -> Occurrence | None:
    """What a promised wall time is by the data here."""
    return rhythm.at_wall(datetime.fromisoformat(promise.wall), promise.at_ms) if promise.wall else None
