"""Cron lines of other schedulers: what to write in their place."""

from __future__ import annotations

import re

_CALL = re.compile(r"(?i)cron\s*\((.*)\)\Z")
_RATE = re.compile(r"(?i)rate\s*\(\s*(\d{1,6})\s+(minute|hour|day)s?\s*\)\Z")
_ZONE = re.compile(r"(?:CRON_TZ|TZ)\s*=\s*(\"[^\"]*\"|'[^']*'|\S+)\s+(\S.*)\Z", re.DOTALL)
_WEEKDAY_NUMBER = re.compile(r"(?<![#/\d])[1-7](?!\d)")


def split_zone(text: str) -> tuple[str, str | None]:
    """Part `CRON_TZ=Asia/Tokyo 0 5 * * *` into what follows and the zone; any other text comes back as it is, with None."""
    found = _ZONE.match(text.strip()) if isinstance(text, str) else None
    return (text, None) if found is None else (found[2], found[1].strip("\"'"))


def cure(given: str) -> str:
    """What is said of a line in the form of another scheduler, as the end of a sentence; '' for any other."""
    if _ZONE.match(given):
        return "names a zone before its fields: give that zone as tz= or --zone"
    if found := _CALL.match(given):
        return _aws(found[1].split())
    if found := _RATE.match(given):
        return f"is the form of AWS: write '@every {found[1]}{found[2][0].lower()}'"
    fields = given.split()
    comment = next((i for i, field in enumerate(fields) if re.match(r"#(?![1-5]\Z)", field)), None)
    if comment is not None and comment >= 5:
        said, line = " ".join(fields[comment:]), " ".join(fields[:comment])
        return f"ends with a comment, {ascii(said)[:60]}: write {line!a}, and the comment as a description"
    if len(fields) == 6 and fields[4] == "?":
        return _aws(fields)
    if len(fields) == 7 and fields[6] != "*":
        return "has 7 fields: a year is not supported, write '*' there and give --start and --end, or start= and end="
    return ""


def _aws(fields: list[str]) -> str:
    """What to write in the place of AWS's line, which has a year at its end and counts weekdays from Sunday = 1."""
    if len(fields) != 6:
        return "is not understood: write the five fields of a cron line, without cron( )"
    *line, year = fields
    line[4] = _WEEKDAY_NUMBER.sub(lambda found: str(int(found[0]) - 1), line[4])
    bounds = "" if year == "*" else f", and for the year {ascii(year)[:20]} give --start and --end, or start= and end="
    return f"is the form of AWS, with a year at its end and Sunday = 1: write {' '.join(line)!a}{bounds}"


def notes(fields: list[str]) -> list[str]:
    """What a person who comes from Quartz should know of a line of six fields."""
    if len(fields) != 6 or "?" not in fields or not _WEEKDAY_NUMBER.search(fields[5]):
        return []
    return [
        f"day-of-week {fields[5]} counts from Sunday = 0: Quartz counts from Sunday = 1, so write names such as MON"
    ]
