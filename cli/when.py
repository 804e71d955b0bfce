"""Times and durations as people type them, and as they read them back.

The zone is never guessed: a time without one takes --tz, or is refused with a sentence that shows how to say it. A
wall time that a change of clocks skips or repeats is refused too, with the times or offsets to choose from.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

from zwheel.errors import InvalidTime
from zwheel.plain import counted, quoted
from zwheel.times import MAX_MS, to_ms

_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_OFFSET = r"Z|z|[+-]\d{2}(?::?\d{2})?"
_ZONE = r"[A-Za-z][A-Za-z0-9_+/-]{0,63}"
_CLOCK = r"(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,](?P<fraction>\d{1,6}))?)?"
_WHEN = re.compile(
    rf"(?:(?P<date>\d{{4}}-\d{{2}}-\d{{2}})[Tt ] ?|(?P<day>[A-Za-z]+) +)?{_CLOCK}"
    rf" ?(?P<offset>{_OFFSET})?(?: ?\[(?P<bracketed>{_ZONE})\]| +(?P<zone>{_ZONE}))?",
    re.ASCII,
)
_EPOCH_SECONDS = re.compile(r"@(\d{1,15})(?:\.(\d{1,6}))?", re.ASCII)
_LOOKS_LIKE_DATE = re.compile(r"\d{4}-\d{1,2}-\d{1,2}$", re.ASCII)
#: Names in a zone directory that are no zones, or mean the zone of whatever machine reads them.
_NO_ZONES = frozenset({"localtime", "posixrules", "factory", "local"})
#: Folders of copies; those in `right` count leap seconds.
_COPIES = ("posix/", "right/")
_LONGEST = 80
_EXAMPLES = "such as '2026-12-01 09:00 Europe/Berlin', '2026-12-01T08:00Z', 'tomorrow 09:00 UTC' or '@1790000000'"


def parse_when(text: str, *, now: datetime, default_tz: tzinfo | None) -> datetime:
    """Turn a point in time into an aware datetime.

        2026-12-01T08:00Z                       ISO 8601 with Z or an offset; T or a space; seconds may follow
        2026-12-01 09:00 Europe/Berlin          with the name of a zone, also in [brackets]
        2026-10-25 02:30+02:00 Europe/Berlin    with both: they must agree
        @1790000000.5                           seconds since the epoch
        09:00 UTC                               the next time it is that late: today, or else tomorrow
        today|tomorrow 09:00 UTC                that day, in the past as well
        fri 17:00 Europe/Berlin                 the next Friday at 17:00, today if that is still to come

    Args:
        now: aware; what today, tomorrow and the next Friday are counted from.
        default_tz: the zone of a time that names none; None: such a time is refused.

    Raises: InvalidTime in one sentence that says what to write instead.
    """
    if now.utcoffset() is None:
        raise InvalidTime("now must be an aware datetime")
    given = text.strip()
    if given.startswith("@"):
        return _epoch(given)
    found = _WHEN.fullmatch(given) if len(given) <= 2 * _LONGEST else None
    if found is None:
        raise InvalidTime(f"{quoted(text)} is not a time: {_when_hint(given if len(given) <= _LONGEST else '')}")
    clock = _clock(found, text)
    offset = _offset(found["offset"], text)
    name = found["zone"] or found["bracketed"]
    zone = find_zone(name) if name else offset or default_tz
    if zone is None:
        raise InvalidTime(
            f"{quoted(text)} has no time zone: add one, as in '{given} Europe/Berlin' or '{given}Z', or give --tz"
        )
    fixed = offset if name else None
    day, step = _day(found, text, now.astimezone(zone))
    if step and _latest(day, clock, fixed or zone) <= now:
        day += timedelta(days=step)
    when = _at(day, clock, zone, fixed, text)
    to_ms(when)
    return when


def find_zone(name: str) -> tzinfo:
    """Return the zone of an IANA name, such as `Europe/Berlin` or `UTC`.

    Raises: InvalidTime for any other, with names that come close; the machine's own zone has no name.
    """
    if name in ("UTC", "Z", "z"):
        return UTC
    if name.lower() not in _NO_ZONES and not name.startswith(_COPIES) and re.fullmatch(_ZONE, name, re.ASCII):
        try:
            return ZoneInfo(name)
        except (OSError, ValueError, LookupError):
            pass
    from zwheel.schedules.zonenames import zone_hint

    raise InvalidTime(f"{quoted(name)} is not the name of a time zone: {zone_hint(name)}")


def _epoch(given: str) -> datetime:
    found = _EPOCH_SECONDS.fullmatch(given)
    if found is None:
        raise InvalidTime(
            f"{quoted(given)} is not a time: after @ come the seconds since 1970, such as @1790000000.250"
        )
    seconds = int(found[1])
    if seconds * 1000 > MAX_MS:
        raise InvalidTime(f"{quoted(given)} lies beyond the year 9999: after @ come seconds, not milliseconds")
    micros = int((found[2] or "").ljust(6, "0"))
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds, microseconds=micros)


def _when_hint(given: str) -> str:
    if re.fullmatch(r"\d+(\.\d+)?", given, re.ASCII):
        return f"seconds since 1970 are written @{given[:20]}"
    if _LOOKS_LIKE_DATE.match(given):
        return f"add the time of day, as in '{given} 09:00 Europe/Berlin'"
    if re.match(r"\d{1,2}[/.]\d{1,2}[/.]\d{2,4}", given):
        return "write the date as year-month-day, such as 2026-12-01"
    if re.search(r"\d *[ap]\.?m\b", given, re.IGNORECASE):
        return "use 24 hours, such as 21:00"
    if re.fullmatch(r"(in +)?[+]?(\d+ *(ms|[smhdw]) *)+", given):
        return "for a time from now use --in, such as --in 10m"
    return _EXAMPLES


def _clock(found: re.Match[str], text: str) -> time:
    hour, minute, second = int(found["hour"]), int(found["minute"]), int(found["second"] or 0)
    if second == 60:
        raise InvalidTime(
            f"{quoted(text)} names a leap second, which clocks here do not have: use 59 or the next minute"
        )
    if hour == 24:
        raise InvalidTime(f"{quoted(text)} has no hour 24: use 00:00 of the next day")
    if hour > 23 or minute > 59 or second > 59:
        raise InvalidTime(f"{quoted(text)} has no such time of day: 00:00 to 23:59:59 exist")
    return time(hour, minute, second, int((found["fraction"] or "").ljust(6, "0")))


def _offset(given: str | None, text: str) -> tzinfo | None:
    if not given:
        return None
    if given in "Zz":
        return UTC
    digits = given[1:].replace(":", "").ljust(4, "0")
    hours, minutes = int(digits[:2]), int(digits[2:])
    if hours > 23 or minutes > 59:
        raise InvalidTime(f"{quoted(text)} has no valid offset: {given} is beyond 23:59")
    offset = timedelta(hours=hours, minutes=minutes)
    return timezone(-offset if given[0] == "-" else offset) if offset else UTC


def _day(found: re.Match[str], text: str, now: datetime) -> tuple[date, int]:
    """Give the day that is meant, and by how many days to go on when its time has passed; 0: not at all."""
    today = now.date()
    if found["date"]:
        try:
            return date.fromisoformat(found["date"]), 0
        except ValueError:
            raise InvalidTime(f"{quoted(text)} names a day that does not exist") from None
    word = (found["day"] or "").lower()
    if not word:
        return today, 1
    if word in ("today", "tomorrow"):
        return today + timedelta(days=word == "tomorrow"), 0
    days = [n for n, name in enumerate(_DAYS) if len(word) >= 3 and name.startswith(word)]
    if not days:
        raise InvalidTime(f"{quoted(text)} is not a time: {quoted(word)} is no day, use today, tomorrow or mon to sun")
    return today + timedelta(days=(days[0] - today.weekday()) % 7), 7


def _at(day: date, clock: time, zone: tzinfo, offset: tzinfo | None, text: str) -> datetime:
    """Put day, time of day and zone together; refuses what the zone's clocks skip, or repeat when `offset` is None."""
    first = datetime.combine(day, clock, zone)
    try:
        times = [when for when in (first, first.replace(fold=1)) if _exists(when)]
        if not times:
            raise InvalidTime(_skipped(first, text))
    except OverflowError:
        raise InvalidTime(f"{quoted(text)} lies outside 1970-01-01 to 9999-12-31") from None
    if offset is not None:
        wanted = offset.utcoffset(None)
        for when in times:
            if when.utcoffset() == wanted:
                return when
        right = " or ".join(dict.fromkeys(_offset_text(when) for when in times))
        raise InvalidTime(f"{quoted(text)} contradicts itself: {zone} is at {right} then")
    if len(times) == 2 and times[0].utcoffset() != times[1].utcoffset():
        raise InvalidTime(_repeated(times, text))
    return times[0]


def _latest(day: date, clock: time, zone: tzinfo) -> datetime:
    """Give the last instant that a wall time can stand for, in UTC."""
    first = datetime.combine(day, clock, zone)
    return max(first.astimezone(UTC), first.replace(fold=1).astimezone(UTC))


def _exists(when: datetime) -> bool:
    """Whether the clocks of its zone ever show this wall time."""
    there = when.astimezone(UTC).astimezone(when.tzinfo)
    return there.replace(tzinfo=None) == when.replace(tzinfo=None)


def _skipped(when: datetime, text: str) -> str:
    """Say which wall times lie on either side of a gap.

    In a gap, fold 0 counts with the offset before it and fold 1 with the offset after. Example, Berlin, 2026-03-29 02:30:
    fold 1 is 00:30Z, before the change at 01:00Z; fold 0 is 01:30Z, after it.
    """
    low, high = (int(when.replace(fold=fold).timestamp()) for fold in (1, 0))
    zone = when.tzinfo
    before = datetime.fromtimestamp(low, zone).utcoffset()
    while high - low > 1:
        middle = (low + high) // 2
        if datetime.fromtimestamp(middle, zone).utcoffset() == before:
            low = middle
        else:
            high = middle
    last = datetime.fromtimestamp(high - 60, zone)
    change = datetime.fromtimestamp(high, zone)
    return (
        f"{quoted(text)} does not exist in {zone}: the clocks there skip it; "
        f"use {last:%Y-%m-%d %H:%M}, the last minute before, or {change:%Y-%m-%d %H:%M}, the first after"
    )


def _repeated(times: list[datetime], text: str) -> str:
    first, second = (_offset_text(when) for when in times)
    wall = times[0]
    return (
        f"{quoted(text)} happens twice in {wall.tzinfo}, when the clocks go back: add {first} for the first or {second} "
        f"for the second, as in '{wall:%Y-%m-%d} {_clock_text(wall)}{first} {wall.tzinfo}'"
    )


def describe_when(when: datetime, now: datetime) -> str:
    """Show a time so that a mistake is seen: `Tue 2026-12-01 09:00:00 Europe/Berlin = 2026-12-01T08:00:00Z, in 10 d 9 h`.

    Raises: InvalidTime for a naive datetime.
    """
    away = to_ms(when) - to_ms(now)
    utc = when.astimezone(UTC)
    zone = str(when.tzinfo) if isinstance(when.tzinfo, ZoneInfo) else ""
    twice = zone and when.utcoffset() != when.replace(fold=1 - when.fold).utcoffset()
    if not zone or twice:
        offset = "UTC" if when.tzinfo is UTC else _offset_text(when)
        zone = f"{offset} {zone}".strip()
    distance = "now" if away == 0 else f"in {human_duration(away)}" if away > 0 else f"{human_duration(-away)} ago"
    day = _DAYS[when.weekday()][:3].title()
    return f"{day} {when:%Y-%m-%d} {_clock_text(when)} {zone} = {utc:%Y-%m-%d}T{_clock_text(utc)}Z, {distance}"


def human_duration(ms: float) -> str:
    """Show a duration by its two largest units, the rest cut off: `250 ms`, `4.2 s`, `42 s`, `4 m 12 s`, `10 d 9 h`."""
    if ms < 0:
        return f"-{human_duration(-ms)}"
    whole = int(ms)
    if 0 < whole < 1000:
        return f"{whole} ms"
    seconds = whole // 1000
    if seconds < 10:
        tenths = whole % 1000 // 100
        return f"{seconds}.{tenths} s" if tenths else f"{seconds} s"
    for unit, size, smaller, part in (("d", 86_400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if seconds >= size:
            rest = seconds % size // part
            return f"{seconds // size:,} {unit} {rest} {smaller}" if rest else f"{seconds // size:,} {unit}"
    return f"{seconds} s"


def human_count(count: int, noun: str = "") -> str:
    """Show a count with its thousands, and a regular noun in its number: `48,112`, `1 job`, `2 jobs`."""
    return counted(count, noun) if noun else f"{count:,}"


def _clock_text(when: datetime) -> str:
    """Write the time of day to the second, with a fraction only when there is one."""
    text = f"{when:%H:%M:%S}"
    if when.microsecond % 1000:
        return f"{text}.{when.microsecond:06d}"
    return f"{text}.{when.microsecond // 1000:03d}" if when.microsecond else text


def _offset_text(when: datetime) -> str:
    offset = when.utcoffset()
    return str(timezone(offset))[3:] if offset else "+00:00"
