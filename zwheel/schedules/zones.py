"""Wall clocks: which instants a wall time stands for in a zone, over gaps and folds.

A zone's time is a row of segments of constant offset. A wall time is looked up segment by segment, in UTC, so that what
comes out rises strictly and never depends on how two datetimes of one zone compare. Example, Europe/Berlin on
2026-10-25: the segment with +2 h ends at 01:00 UTC, and the wall times 02:00 to 02:59 belong to it and to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from itertools import takewhile
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from zwheel.errors import InvalidTime
from zwheel.times import to_datetime

EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - wall times have no zone
#: A jump of the clock by this much or more is no change to or from summer time, s: Debian's cron draws the same line.
LARGEST_CHANGE_S = 3 * 3600
_STEP_S = 12 * 3600
#: No clock is ever this far from UTC, nor moved by this much.
_FAR_S = 3 * 86400
_NO_ZONES = frozenset({"localtime", "posixrules", "Factory", "local"})
#: Gives the wall times of a rhythm, strictly after the one it is given, rising.
Walls = Callable[[datetime], Iterator[datetime]]


class Gap(StrEnum):
    """What happens to a wall time that a change of clocks skips."""

    RUN_AFTER = "run_after"
    """It runs at the first instant after the gap."""
    SKIP = "skip"
    """It does not run that day."""


class Fold(StrEnum):
    """What happens to a wall time that a change of clocks repeats."""

    FIRST = "first"
    SECOND = "second"
    BOTH = "both"


class Instant(NamedTuple):
    """One instant of a rhythm."""

    at_s: int
    """Seconds since the epoch, UTC."""
    wall: datetime
    """The wall time that the rhythm names."""
    note: str = ""
    """Why it is moved, doubled or skipped; '' for an ordinary one."""
    skipped: bool = False


class Segment(NamedTuple):
    """A stretch of constant offset; seconds. Also a stretch that ends only because nobody looked further."""

    start_s: int
    end_s: int
    offset_s: int


@lru_cache(maxsize=512)
def zone(name: str) -> ZoneInfo:
    """Find a zone by its IANA name. Raises: InvalidTime for an offset, an unknown name, or where there is no zone data."""
    try:
        if not isinstance(name, str) or not name or len(name) > 64 or name in _NO_ZONES or name.startswith(("/", ".")):
            raise ValueError
        if name.startswith(("posix/", "right/")):
            raise ValueError
        return ZoneInfo(name)
    except (ValueError, ZoneInfoNotFoundError, OSError):
        from zwheel.schedules.zonenames import zone_hint

        raise InvalidTime(f"{ascii(name)[:60]} is not the IANA name of a zone: {zone_hint(str(name)[:64])}") from None


def wall_of(seconds: int) -> datetime:
    """A wall clock's seconds as a naive datetime."""
    return EPOCH + timedelta(seconds=seconds)


def wall_s(wall: datetime) -> int:
    """A naive datetime as a wall clock's seconds."""
    delta = wall - EPOCH
    return delta.days * 86400 + delta.seconds


def _offset_s(name: str, at_s: int) -> int:
    offset = to_datetime(at_s * 1000).astimezone(zone(name)).utcoffset()
    return _seconds(offset)


def _seconds(offset: timedelta | None) -> int:
    return 0 if offset is None else offset.days * 86400 + offset.seconds


@lru_cache(maxsize=8192)
def transitions(name: str, year: int) -> tuple[tuple[int, int, int], ...]:
    """The changes of a zone's clocks in one UTC year: (when in s, offset before, offset after)."""
    start, end = (wall_s(datetime(y, 1, 1)) for y in (year, year + 1))  # noqa: DTZ001 - both are UTC
    found = []
    at, before = start, _offset_s(name, start)
    there, step = zone(name), timedelta(seconds=_STEP_S)
    when = datetime(year, 1, 1, tzinfo=there)
    while at < end and name != "UTC":
        later = at + _STEP_S
        when += step
        after = _seconds(there.fromutc(when).utcoffset())
        if after != before:
            low, high = at, later
            while high - low > 1:
                middle = (low + high) // 2
                if _offset_s(name, middle) == before:
                    low = middle
                else:
                    high = middle
            found.append((high, before, after))
        at, before = later, after
    return tuple(found)


def forget() -> None:
    """Forget what was read of zones, after their data changed on disk."""
    ZoneInfo.clear_cache()
    zone.cache_clear()
    transitions.cache_clear()


def segment(name: str, at_s: int) -> Segment:
    """The stretch of constant offset that an instant lies in."""
    year = to_datetime(at_s * 1000).year
    start, end = wall_s(datetime(max(1970, year - 1), 1, 1)), wall_s(datetime(min(year + 1, 9998), 12, 31))  # noqa: DTZ001
    for near in (year - 1, year, year + 1):
        if not 1970 <= near <= 9998:
            continue
        for when, _, _ in transitions(name, near):
            if when <= at_s:
                start = when
            else:
                return Segment(start, when, _offset_s(name, at_s))
    return Segment(start, end if at_s < end else 1 << 60, _offset_s(name, at_s))


def next_change(name: str, at_s: int) -> tuple[int, int, int] | None:
    """The next change of clocks within two years: (when in s, offset before, offset after)."""
    year = to_datetime(at_s * 1000).year
    for near in range(year, min(year + 3, 9998)):
        for change in transitions(name, near):
            if change[0] > at_s:
                return change
    return None


def instants(walls: Walls, name: str, gap: Gap, fold: Fold, fixed: bool, after_s: int) -> Iterator[Instant]:
    """Turn wall times into instants, strictly after `after_s` and rising; also skipped times, marked so.

    fixed: the policies hold. Otherwise each real instant whose wall time is named counts: none in a gap, two in a fold.
    """
    here = segment(name, after_s)
    low = wall_of(after_s + here.offset_s)
    stream = walls(low)
    wall = next(stream, None)
    last = after_s
    while wall is not None:
        at = wall_s(wall) - here.offset_s
        if at < here.end_s:
            note, runs = _folded(name, here, wall_s(wall), fold) if fixed else ("", True)
            if runs and at > last:
                yield Instant(at, wall, note)
                last = at
            low = wall
            wall = next(stream, None)
            continue
        if wall_s(wall) - here.end_s > 2 * _FAR_S:
            # No wall time is named before this one: what changes of clocks lie between touch none.
            here = segment(name, wall_s(wall) - _FAR_S)
            continue
        following = segment(name, here.end_s)
        begins = wall_of(here.end_s + following.offset_s)
        if following.offset_s > here.offset_s and wall < begins:
            if fixed:
                skipped = _skipped(name, here, following, gap, wall)
                if skipped.skipped or skipped.at_s > last:
                    yield skipped
                    last = last if skipped.skipped else skipped.at_s
            low = begins - timedelta(seconds=1)
            stream = walls(low)
            wall = next(stream, None)
        elif begins <= low:
            # A fold: wall times that were passed come once more.
            low = begins - timedelta(seconds=1)
            stream = walls(low)
            wall = next(stream, None)
        here = following


def _folded(name: str, here: Segment, wall: int, fold: Fold) -> tuple[str, bool]:
    """Whether a wall time of this segment runs: a time that comes twice runs as the policy says."""
    before = _offset_s(name, here.start_s - 1) if here.start_s > 0 else here.offset_s
    if here.start_s + here.offset_s <= wall < here.start_s + before:
        note = f"{wall_of(wall):%H:%M} comes twice: this is the second"
        return note, fold is not Fold.FIRST
    after = _offset_s(name, here.end_s)
    if here.end_s + after <= wall < here.end_s + here.offset_s:
        note = f"{wall_of(wall):%H:%M} comes twice: this is the first"
        return note, fold is not Fold.SECOND
    return "", True


def _skipped(name: str, here: Segment, following: Segment, gap: Gap, wall: datetime) -> Instant:
    """What becomes of a wall time that does not exist."""
    missing = f"{wall:%H:%M} does not exist on {wall:%Y-%m-%d}"
    if following.offset_s - here.offset_s >= LARGEST_CHANGE_S:
        return Instant(here.end_s, wall, f"{missing}: the zone left that time out", skipped=True)
    if gap is Gap.SKIP:
        return Instant(here.end_s, wall, f"{missing}: skipped", skipped=True)
    return Instant(here.end_s, wall, f"{missing}: runs after the clock change")


def place(wall: datetime, name: str, gap: Gap, fold: Fold) -> list[Instant]:
    """The instants of one wall time under the policies: one as a rule, two for both passes of a fold, or a skipped one."""
    seconds = wall_s(wall)
    start = max(0, seconds - 36 * 3600)
    # A second wall time, two days later, lets the walk go on past a fold: it may need the second pass of the first one.
    both = (wall, wall + timedelta(days=2))
    found = instants(lambda low: iter([w for w in both if w > low]), name, gap, fold, True, start)
    return list(takewhile(lambda instant: instant.wall == wall, found))
