"""Durations as people type them: 10m, 1h30m, PT1H30M."""

from __future__ import annotations

import re
from fractions import Fraction

from zwheel.errors import InvalidTime
from zwheel.plain import quoted
from zwheel.times import MAX_MS

_UNITS = {"w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_NUMBER = r"\d{1,15}(?:\.\d{1,9})?"
_DURATION = re.compile(" ?".join(rf"(?:(?P<{unit}>{_NUMBER}){unit})?" for unit in _UNITS), re.ASCII)
_ISO_DURATION = re.compile(
    rf"P(?:(?P<w>{_NUMBER})W|(?:(?P<d>{_NUMBER})D)?(?:T(?=\d)(?:(?P<h>{_NUMBER})H)?(?:(?P<m>{_NUMBER})M)?(?:(?P<s>{_NUMBER})S)?)?)",
    re.ASCII,
)
_LONGEST = 80


def parse_duration(text: str) -> int:
    """Turn a duration into ms: `10m`, `1h30m`, `90s`, `250ms`, `2d`, `1w`, `1.5h`, or ISO 8601 `PT1H30M`. m is a minute.

    Units go from large to small, each once. Months and years are refused: they have no fixed length.
    Raises: InvalidTime, also for a bare number, a part finer than 1 ms, and more than the calendar holds.
    """
    given = text.strip()
    found = _ISO_DURATION.fullmatch(given) or _DURATION.fullmatch(given) if len(given) <= _LONGEST else None
    parts = {unit: number for unit, number in found.groupdict().items() if number} if found else {}
    if not parts:
        raise InvalidTime(
            f"{quoted(text)} is not a duration: {_duration_hint(given if len(given) <= _LONGEST else '')}"
        )
    ms = sum(Fraction(number) * _UNITS[unit] for unit, number in parts.items())
    if ms.denominator != 1:
        raise InvalidTime(f"{quoted(text)} is finer than a millisecond: use whole ms")
    if ms > MAX_MS:
        raise InvalidTime(f"{quoted(text)} goes beyond the year 9999")
    return int(ms)


def _duration_hint(given: str) -> str:
    if re.fullmatch(r"\d+(\.\d+)?", given, re.ASCII):
        return f"say the unit, {given[:12]}s for seconds or {given[:12]}m for minutes"
    if given.startswith("-"):
        return "it cannot be negative"
    if re.search(r"\d *(mo|month|y|year)", given, re.IGNORECASE) or re.match(r"P[^T]*[MY]", given):
        return "months and years have no fixed length, use days such as 30d"
    return "use numbers with the units w d h m s ms, large to small, such as 10m, 1h30m, 250ms, or ISO as in PT1H30M"
