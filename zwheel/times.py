"""Where datetimes and durations of the public edge become integer milliseconds.

Inside zwheel a time is an `int` with its unit in the name; aware `datetime`s exist only here and in what a user reads.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

from zwheel.errors import InvalidTime

#: 9999-12-31T23:59:59.999Z: the last millisecond a datetime can name, 15 digits in a record.
MAX_MS = 253_402_300_799_999
DAY_MS = 86_400_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def to_ms(when: datetime) -> int:
    """Turn an aware datetime into ms since the epoch, a fraction of a millisecond rounded up: never early.

    Raises: InvalidTime for a naive datetime, or one before 1970.
    """
    if when.tzinfo is None or when.utcoffset() is None:
        raise InvalidTime(
            f"{when.isoformat()} has no time zone: pass an aware datetime, "
            'such as datetime(2026, 12, 1, 9, tzinfo=ZoneInfo("Europe/Berlin"))'
        )
    ms = -((_EPOCH - when) // _MILLISECOND)
    return check_ms(ms)


def check_ms(ms: int) -> int:
    """Return `ms` when it lies between 1970 and the end of 9999, else raise InvalidTime."""
    if not 0 <= ms <= MAX_MS:
        raise InvalidTime(f"{ms} ms since the epoch lies outside 1970-01-01 to 9999-12-31")
    return ms


def to_datetime(ms: int) -> datetime:
    """Turn ms since the epoch into an aware UTC datetime."""
    return _EPOCH + timedelta(milliseconds=ms)


def duration_ms(duration: timedelta | float, *, what: str = "duration") -> int:
    """Turn a timedelta or seconds into ms, a fraction rounded up.

    Raises: InvalidTime when it is negative, not finite, or longer than the calendar.
    """
    if isinstance(duration, timedelta):
        ms = -(-duration // _MILLISECOND)
    elif isinstance(duration, bool) or not isinstance(duration, (int, float)) or not math.isfinite(duration):
        raise InvalidTime(f"{what}: {duration!r} is not a timedelta or a finite number of seconds")
    elif isinstance(duration, int):
        ms = duration * 1000
    else:
        ms = math.ceil(round(duration * 1000, 6))
    if not 0 <= ms <= MAX_MS:
        raise InvalidTime(f"{what}: {duration!r} is negative or beyond the year 9999")
    return ms


def day_of(ms: int) -> str:
    """Name the UTC day bucket of a fire time: `20261120`."""
    return (_EPOCH + timedelta(milliseconds=ms)).strftime("%Y%m%d") if ms >= 0 else "19700101"


def is_day(text: str) -> bool:
    """Whether a text names the day of a bucket: `20261120`, from 1970 on."""
    if len(text) != 8 or not (text.isascii() and text.isdigit()):
        return False
    try:
        return datetime(int(text[:4]), int(text[4:6]), int(text[6:8]), tzinfo=UTC) >= _EPOCH
    except ValueError:
        return False


def day_start_ms(day: str) -> int:
    """Give the first millisecond of a day bucket's day."""
    start = datetime(int(day[:4]), int(day[4:6]), int(day[6:8]), tzinfo=UTC)
    return (start - _EPOCH) // _MILLISECOND
