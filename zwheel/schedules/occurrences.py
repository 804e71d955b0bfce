"""The occurrences of a rhythm: instants in UTC, strictly rising, the same from wherever one begins to count."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from itertools import islice

from zwheel.errors import InvalidTime
from zwheel.schedules.calendars import LONGEST_MOVE_DAYS, Calendar, OnBlocked
from zwheel.schedules.cron import CronLine
from zwheel.schedules.kinds import Cron, Every, Interval, Kind, Times, words
from zwheel.schedules.zones import Fold, Gap, Instant, instants, next_change, place, segment, wall_of, wall_s, zone
from zwheel.times import MAX_MS, to_datetime

_DAY_S = 86_400
#: Where all is blocked for this long, nothing is looked for any more.
_HORIZON_MS = 60 * 366 * _DAY_S * 1000
#: Nor where so many blocked days or times of day follow each other without a run between. A calendar lists 2000 days at
#: the most: with the weekends between them they are 2800 in a row.
_MOST_SKIPPED = 4000
#: A rhythm with more times a day does not move to other days: those of one day would crowd another.
_MOST_MOVED = 100
#: How far other zone data may move a wall time, and how many occurrences are looked at to find it again.
_NEAR_MS, _NEAR_MOST = 26 * 3600 * 1000, 500


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One firing of a rhythm."""

    at_ms: int
    """Its nominal time, ms since the epoch, UTC."""
    wall: datetime | None = None
    """The wall time that the rhythm names, without a zone; None for intervals and given instants."""
    note: str = ""
    """Why it is moved, doubled or skipped; '' for an ordinary one."""
    skipped: bool = False
    """It does not run; only told when asked for."""


class Rhythm:
    """A kind of rhythm in a zone, under policies. Built once and asked often; keeps nothing between two questions."""

    def __init__(
        self,
        kind: Kind,
        tz: str = "UTC",
        gap: Gap = Gap.RUN_AFTER,
        fold: Fold = Fold.FIRST,
        calendar: Calendar | None = None,
        on_blocked: OnBlocked = OnBlocked.SKIP,
        anchor_ms: int = 0,
        name: str = "",
    ) -> None:
        """Raises: InvalidTime, also for a rhythm that cannot be moved as `on_blocked` says."""
        zone(tz)
        self._kind, self._tz, self._gap, self._fold = kind, tz, gap, fold
        self._calendar = calendar if calendar is not None and calendar.blocks else None
        self._on_blocked = on_blocked
        self._anchor_ms = anchor_ms
        self._name = name
        self._line = CronLine.parse(kind.text, name) if isinstance(kind, Cron) else None
        self.fixed = self._line.fixed if self._line is not None else not isinstance(kind, Every)
        if self._calendar is not None and on_blocked is not OnBlocked.SKIP:
            if not self.fixed:
                raise InvalidTime(
                    "only fixed times can move to another day: with a rhythm such as */5 or @every, on a blocked day "
                    "it can only skip"
                )
            if on_blocked is OnBlocked.PREVIOUS and self._calendar.windows:
                raise InvalidTime("a blocked time of day has no previous day: use skip or next with it")
            if self._times_a_day > _MOST_MOVED:
                raise InvalidTime(
                    f"with {self._times_a_day:,} times a day it cannot move to another day: on a blocked day it can only "
                    f"skip, or it names {_MOST_MOVED} times a day at the most"
                )

    def after(self, ms: int, *, skipped: bool = False) -> Iterator[Occurrence]:
        """Give the occurrences strictly after `ms`, rising; with `skipped` also occurrences that do not run, and why."""
        found = self._moved(ms) if self._moves else self._unmoved(ms, skipped)
        last = ms
        in_a_row, since = 0, 0
        for occurrence in found:
            if in_a_row >= _MOST_SKIPPED or (in_a_row and occurrence.at_ms > since + _HORIZON_MS):
                return
            if occurrence.skipped:
                since = since if in_a_row else occurrence.at_ms
                in_a_row += 1
                if skipped and occurrence.at_ms > ms:
                    yield occurrence
            elif last < occurrence.at_ms <= MAX_MS:
                last, in_a_row = occurrence.at_ms, 0
                yield occurrence

    def between(self, after_ms: int, until_ms: int, limit: int) -> list[Occurrence]:
        """The first `limit` occurrences after `after_ms`, up to `until_ms`."""
        found: list[Occurrence] = []
        if limit <= 0 or until_ms <= after_ms:
            return found
        for occurrence in self.after(after_ms):
            if occurrence.at_ms > until_ms:
                break
            found.append(occurrence)
            if len(found) >= limit:
                break
        return found

    def newest(self, after_ms: int, until_ms: int, limit: int) -> tuple[list[Occurrence], bool]:
        """The newest `limit` occurrences after `after_ms`, up to `until_ms`, oldest first, and whether there are more.

        Looks at the end of the time first: the cost is that of `limit` occurrences, not of a year of seconds.
        """
        if isinstance(self._kind, Every):
            after_ms = max(after_ms, self._anchor_ms)
            count = (until_ms - self._anchor_ms) // self._kind.ms - (after_ms - self._anchor_ms) // self._kind.ms
            start = max(after_ms, until_ms - limit * self._kind.ms)
            return list(self.between(start, until_ms, limit)), count > limit
        found = self.between(after_ms, until_ms, limit + 1)
        if len(found) <= limit:
            return found, False
        low, high = after_ms, until_ms  # enough occurrences come after `low`, too few after `high`
        start = max(low, until_ms - max(1000, (found[-1].at_ms - found[0].at_ms) * 5 // 4))
        while True:
            found = self.between(start, until_ms, 2 * limit + 1)
            if limit <= len(found) <= 2 * limit:
                return found[-limit:], True
            earlier = until_ms - 2 * (until_ms - start)
            if len(found) < limit:
                high = start
                start = earlier if earlier > low else (low + high) // 2
            else:
                low = start
                start = (low + high) // 2

    def at_wall(self, wall: datetime, near_ms: int) -> Occurrence | None:
        """The occurrence that stands for a wall time; a moved occurrence is looked for around `near_ms`."""
        for instant in place(wall, self._tz, self._gap, self._fold):
            for occurrence in self.between(instant.at_s * 1000 - 1, instant.at_s * 1000, 1):
                if occurrence.wall == wall:
                    return occurrence
        if not self._moves:
            return None
        nearby = islice(self.after(near_ms - _NEAR_MS), _NEAR_MOST)
        return next((o for o in nearby if o.wall == wall and o.at_ms <= near_ms + _NEAR_MS), None)

    def rhythm_words(self) -> str:
        """The rhythm in English."""
        return words(self._kind, self._name)

    def clock_change(self, after_ms: int) -> str:
        """What happens at the next change of the zone's clocks, in words; '' when none comes within two years."""
        change = next_change(self._tz, after_ms // 1000)
        if change is None:
            return ""
        at_s, before, after = change
        old, new = wall_of(at_s + before), wall_of(at_s + after)
        way = "forward" if after > before else "back"
        text = f"{old:%a %Y-%m-%d}: clocks go {way} from {old:%H:%M} to {new:%H:%M}; "
        notes = [
            f"{o.note}" for o in self._near(at_s)
            if o.note and ("does not exist" in o.note or "comes twice" in o.note)
        ]  # fmt: skip
        if notes:
            return text + "; ".join(dict.fromkeys(notes))
        if self._line is not None and not self.fixed:
            return text + "it keeps its real rhythm: nothing in the gap, and every pass of a repeated hour"
        if isinstance(self._kind, (Every, Times)):
            return text + "it does not follow the wall clock and is not touched"
        return text + "no occurrence is touched"

    def _near(self, at_s: int) -> list[Occurrence]:
        found: list[Occurrence] = []
        for occurrence in self.after((at_s - _DAY_S) * 1000, skipped=True):
            if occurrence.at_ms > (at_s + _DAY_S) * 1000 or len(found) > 3000:
                break
            found.append(occurrence)
        return found

    @property
    def _moves(self) -> bool:
        return self._calendar is not None and self._on_blocked is not OnBlocked.SKIP

    def _walls(self) -> Callable[[datetime], Iterator[datetime]]:
        if self._line is not None:
            return self._line.walls
        assert isinstance(self._kind, Interval)
        return self._kind.walls

    def _plain(self, ms: int) -> Iterator[Occurrence]:
        """The occurrences without a calendar."""
        kind = self._kind
        if isinstance(kind, Every):
            number = (ms - self._anchor_ms) // kind.ms + 1
            at = self._anchor_ms + max(1, number) * kind.ms
            while at <= MAX_MS:
                yield Occurrence(at)
                at += kind.ms
        elif isinstance(kind, Times):
            for at in kind.times_ms:
                if at > ms:
                    yield Occurrence(at)
        else:
            for instant in instants(self._walls(), self._tz, self._gap, self._fold, self.fixed, max(0, ms // 1000)):
                yield _occurrence(instant)

    def _wall(self, occurrence: Occurrence) -> datetime:
        """The local time that an occurrence is judged by."""
        if occurrence.wall is not None:
            return occurrence.wall
        at_s = occurrence.at_ms // 1000
        return wall_of(at_s + segment(self._tz, at_s).offset_s)

    @property
    def _times_a_day(self) -> int:
        if self._line is not None:
            return self._line.times_a_day
        return len(self._kind.at) if isinstance(self._kind, Interval) else 0

    def _unmoved(self, ms: int, every: bool) -> Iterator[Occurrence]:
        """With blocked ones marked. A blocked day is not walked through: it goes on where that ends.

        every: give each fixed time of a blocked day, not only the first.
        """
        calendar = self._calendar
        if calendar is None:
            yield from self._plain(ms)
            return
        start: int | None = ms
        while start is not None:
            begin, start = start, None
            for occurrence in self._plain(begin):
                wall = self._wall(occurrence)
                why = "" if occurrence.skipped else calendar.blocked(wall)
                if not why:
                    yield occurrence
                    continue
                yield Occurrence(occurrence.at_ms, occurrence.wall, f"{why}: skipped", True)
                if not (every and self.fixed):
                    start = self._unblocked(calendar, wall, occurrence.at_ms)
                    break

    def _unblocked(self, calendar: Calendar, wall: datetime, at_ms: int) -> int:
        """The ms before which a blocked day or time of day ends; not before the occurrence that met it."""
        if calendar.day_blocked(wall.date()):
            end = datetime.combine(calendar.open_day(wall.date()), time())
        else:
            end = calendar.window_end(wall)
        here = segment(self._tz, at_ms // 1000)
        return max(at_ms, min(wall_s(end) - here.offset_s, here.end_s) * 1000 - 1)

    def _moved(self, ms: int) -> Iterator[Occurrence]:
        """With blocked occurrences moved. One is held back until no earlier one can come any more."""
        # Where a moved occurrence meets a plain one, the plain one comes first.
        waiting: list[tuple[int, bool, int, Occurrence]] = []
        number = 0
        for occurrence in self._plain(self._begin(ms)):
            if occurrence.skipped:
                yield occurrence
                continue
            wall = self._wall(occurrence)
            target = self._target(wall)
            # Targets never lie before an earlier one's day: the occurrences held back for an earlier day are complete.
            limit = target.date() if target is not None else wall.date() - timedelta(days=LONGEST_MOVE_DAYS + 1)
            while waiting and self._wall_day(waiting[0][3]) < limit:
                yield heapq.heappop(waiting)[3]
            if target is None:
                yield Occurrence(occurrence.at_ms, wall, "no open day within a month: skipped", True)
                continue
            placed = [occurrence] if target == wall else self._placed(target, wall)
            for made in placed:
                number += 1
                heapq.heappush(waiting, (made.at_ms, target != wall, number, made))
        while waiting:
            yield heapq.heappop(waiting)[3]

    def _wall_day(self, occurrence: Occurrence) -> date:
        at_s = occurrence.at_ms // 1000
        return wall_of(at_s + segment(self._tz, at_s).offset_s).date()

    def _placed(self, target: datetime, wall: datetime) -> list[Occurrence]:
        assert self._calendar is not None
        why = self._calendar.blocked(wall)
        found = []
        for instant in place(target, self._tz, self._gap, self._fold):
            note = f"{why}: moved from {wall:%a %Y-%m-%d %H:%M}"
            found.append(Occurrence(instant.at_s * 1000, wall, note, instant.skipped))
        return found

    def _target(self, wall: datetime) -> datetime | None:
        """Where a wall time goes: itself when it is open; None when nothing within a month is."""
        calendar = self._calendar
        assert calendar is not None
        step = timedelta(days=1 if self._on_blocked is OnBlocked.NEXT else -1)
        target = wall
        for _ in range(2 * LONGEST_MOVE_DAYS):
            if calendar.day_blocked(target.date()):
                target += step
            elif calendar.window_blocked(target.time()):
                target = calendar.window_end(target)
            else:
                return target
            if abs(target - wall) > timedelta(days=LONGEST_MOVE_DAYS):
                return None
        return None

    def _begin(self, ms: int) -> int:
        """From where to look for what may be moved to after `ms`: with `next`, before the blocked days that end here."""
        if self._on_blocked is not OnBlocked.NEXT or self._calendar is None:
            return ms
        at_s = ms // 1000
        day = wall_of(at_s + segment(self._tz, at_s).offset_s).date()
        back = 1
        while back <= LONGEST_MOVE_DAYS and self._calendar.day_blocked(day - timedelta(days=back)):
            back += 1
        return max(0, ms - (back + 2) * _DAY_S * 1000)


def _occurrence(instant: Instant) -> Occurrence:
    return Occurrence(instant.at_s * 1000, instant.wall, instant.note, instant.skipped)


def local(at_ms: int, tz: str) -> datetime:
    """An instant on the clock of a zone."""
    return to_datetime(at_ms).astimezone(zone(tz))
