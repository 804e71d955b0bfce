"""What to write in the place of a name that is no time zone."""

from __future__ import annotations

import difflib
import re
import zoneinfo

#: Names that people use, and where those clocks are. An abbreviation can mean several zones: this is a question.
_USUAL = {
    "PST": "America/Los_Angeles", "PDT": "America/Los_Angeles", "PT": "America/Los_Angeles", "MDT": "America/Denver",
    "MT": "America/Denver", "CST": "America/Chicago", "CDT": "America/Chicago", "CT": "America/Chicago",
    "EDT": "America/New_York", "ET": "America/New_York", "AKST": "America/Anchorage", "AKDT": "America/Anchorage",
    "BRT": "America/Sao_Paulo", "BST": "Europe/London", "WEST": "Europe/Lisbon", "CEST": "Europe/Berlin",
    "MEZ": "Europe/Berlin", "MESZ": "Europe/Berlin", "EEST": "Europe/Athens", "MSK": "Europe/Moscow",
    "SAST": "Africa/Johannesburg", "IST": "Asia/Kolkata", "PKT": "Asia/Karachi", "ICT": "Asia/Bangkok",
    "WIB": "Asia/Jakarta", "SGT": "Asia/Singapore", "HKT": "Asia/Hong_Kong", "KST": "Asia/Seoul", "JST": "Asia/Tokyo",
    "AWST": "Australia/Perth", "AEST": "Australia/Sydney", "AEDT": "Australia/Sydney", "NZST": "Pacific/Auckland",
    "NZDT": "Pacific/Auckland",
}  # fmt: skip
_OFFSET = re.compile(r"(?:UTC|GMT)? ?([+-])(\d{1,2})(?::?(\d{2}))?\Z", re.ASCII | re.IGNORECASE)


def zone_hint(name: str) -> str:
    """Say what to write in the place of a name that is no zone, as the end of a sentence."""
    known = sorted(zoneinfo.available_timezones())
    if not known:
        return "this machine has no time zone data, install the package tzdata (pip install tzdata)"
    if name.lower() in ("am", "pm"):
        return "use 24 hours, such as 21:00"
    if offset := _OFFSET.match(name):
        return _fixed(offset)
    lower = {zone.lower(): zone for zone in known}
    cities = {zone.rpartition("/")[2].lower(): zone for zone in known}
    exact = lower.get(name.lower()) or cities.get(name.lower().replace(" ", "_"))
    if exact:
        return f"did you mean {exact}?"
    if _USUAL.get(name.upper()) in known:
        return f"an abbreviation can mean several zones, did you mean {_USUAL[name.upper()]}?"
    if 0 < len(name.strip()) <= 4 and "/" not in name:
        return "an abbreviation can mean several zones, use a name such as Europe/Berlin"
    close = difflib.get_close_matches(name.lower(), lower, 2, 0.7)
    return f"did you mean {' or '.join(lower[zone] for zone in close)}?" if close else "use one such as Europe/Berlin"


def _fixed(offset: re.Match[str]) -> str:
    """An offset is no zone: its sign is turned round in the names of Etc, and it knows no summer time."""
    text = "an offset knows no summer time, use the name of a place such as Europe/Berlin"
    hours = int(offset[2])
    if int(offset[3] or 0) or not 1 <= hours <= (14 if offset[1] == "+" else 12):
        return text
    way = "ahead of" if offset[1] == "+" else "behind"
    fixed = f"Etc/GMT{'-' if offset[1] == '+' else '+'}{hours}"
    return f"{text}; {hours} h {way} UTC all year is {fixed}, whose sign is turned round"
