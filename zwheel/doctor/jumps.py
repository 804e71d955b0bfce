"""Jumps of the server's clock that workers saw, and the jobs that one of them started before their time."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from zwheel.broker.store import Steps
from zwheel.calls import Session
from zwheel.doctor.finding import Finding, warning
from zwheel.keys import ShardKeys
from zwheel.outside import flat, shown
from zwheel.record import HEADER_BYTES
from zwheel.times import to_datetime

_JUMP = re.compile(rb"(\d{1,16}) (-?\d{1,15}) (\d{1,16})\Z")
_HEADER = re.compile(rb"[12][a-z]\d{35}")
_PAGE = 200
#: So many records are looked at; a queue with more is said to be cut short.
_MOST_PAGES = 1_000
_SHOWN = 10
#: A start that was early by less than this, ms, is not told: the clocks of a jump are known so well.
_EARLY_MS = 1_000
_CURE = "let the server's machine follow NTP by slewing, not by steps (chrony: `makestep` only at the start)"


class Jump(NamedTuple):
    """The last jump that was noted."""

    at_us: int
    """The server's clock after it."""
    by_ms: int
    """How far: ahead, or back when negative."""
    floor_us: int
    """The last stamp then: after a step back, tokens from `at_us` to it were given in the time that was ahead."""

    def early_ms(self, raw: bytes) -> int:
        """By how much a job was started before its time because of it, ms; 0: it was not."""
        fire_ms, token_us = int(raw[6:21]), int(raw[21:37])
        ahead = self.by_ms > 0
        if not (token_us >= self.at_us if ahead else self.at_us < token_us <= self.floor_us):
            return 0
        early = fire_ms - (token_us // 1000 - abs(self.by_ms))
        return early if early > _EARLY_MS and int(raw[2:6]) > 0 else 0


def read_jump(text: bytes | None) -> Jump | None:
    """Read `meta.jump`; None when there is none, or it is damaged."""
    found = _JUMP.match(text or b"")
    return None if found is None else Jump(*(int(part) for part in found.groups()))


def check_jumps(session: Session, keys: ShardKeys) -> Steps[list[Finding]]:
    """Whether workers of this queue saw the server's clock jump; a look at its records only when they did."""
    ((count, text),) = yield (("HMGET", keys.meta, "jumps", "jump"),)
    jump = read_jump(text)
    if jump is None or not (count or b"").isdigit():
        return []
    way = "ahead" if jump.by_ms > 0 else "back"
    times = f"{int(count):,} time{'s'[: int(count) != 1]}"
    said = (
        f"the server's clock was seen to jump {times}, the last time {way} by {abs(jump.by_ms) / 1000:,.1f} s, to "
        f"{to_datetime(jump.at_us // 1000):%Y-%m-%d %H:%M:%S} UTC: jobs follow the server's clock as it is"
    )
    findings = [warning("jumps", said, _CURE, keys.queue)]
    early, whole = yield from _started_early(keys, jump)
    if early:
        names = ", ".join(shown(name) for name in early[:_SHOWN])
        more = f" and {len(early) - _SHOWN:,} more" if len(early) > _SHOWN else ""
        text_of = f"{len(early):,} job{'s'[: len(early) != 1]} started before the time by this jump: {names}{more}"
        if not whole:
            text_of += f" (among the first {_PAGE * _MOST_PAGES:,} records)"
        findings.append(
            warning("early", text_of, "see whether starting early did harm: what is done is done", keys.queue)
        )
    return findings


def _started_early(keys: ShardKeys, jump: Jump) -> Steps[tuple[list[str], bool]]:
    """Ids of the jobs still on record that started early, and whether every record was looked at."""
    found: list[str] = []
    cursor: Any = b"0"
    for _ in range(_MOST_PAGES):
        ((cursor, page),) = yield (("HSCAN", keys.jobs, cursor, "COUNT", _PAGE),)
        for name, raw in flat(page):
            if len(raw) >= HEADER_BYTES and _HEADER.match(raw) and jump.early_ms(raw):
                found.append(name.decode("utf-8", "backslashreplace"))
        if int(cursor) == 0:
            return sorted(found), True
    return sorted(found), False
