"""What is offered to groups of workers: notes that name nothing, too many calls, and keys of other programs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from zwheel.broker.store import Steps
from zwheel.keys import ShardKeys
from zwheel.outside import as_text, flat, score_ms

#: So many groups, and of each so many notes, are looked at; more notes than that are told as too many.
_GROUPS, _NOTES, _PAGE = 1_000, 10_000, 500
_ROW_BYTES = 65_536
_GROUP = re.compile(r"[0-9a-f]{16}\Z")
_NOTE = re.compile(rb"(\S+) \d{15} \d{16}\Z")
#: An offer stands for a minute; a note that says much more was not written by a worker, ms.
_LONGEST_MS = 120_000


@dataclass(slots=True)
class Offers:
    """What is wrong there."""

    void: dict[str, list[bytes]] = field(default_factory=dict)
    """The key of a group's notes -> those that name nothing."""
    crowded: list[str] = field(default_factory=list)
    """Keys with more notes than were looked at."""
    calls: list[str] = field(default_factory=list)
    """Lists with more calls than anyone needs."""
    other_types: list[tuple[str, str, str]] = field(default_factory=list)
    """Keys that are something else: the key, what it is, what it should be."""

    @property
    def count(self) -> int:
        """How many notes and lists a repair would put right."""
        return sum(map(len, self.void.values())) + len(self.calls) + len(self.crowded)


def groups_of(keys: ShardKeys) -> Steps[set[str]]:
    """The groups that workers of a queue said they belong to."""
    found: set[str] = set()
    cursor = 0
    while len(found) < _GROUPS:
        (reply,) = yield (("HSCAN", keys.workers, cursor, "COUNT", _PAGE),)
        for _, raw in flat(reply[1]):
            try:
                group = json.loads(raw)["group"] if len(raw) <= _ROW_BYTES else None
            except (ValueError, LookupError, TypeError, RecursionError):
                continue
            if isinstance(group, str) and _GROUP.match(group):
                found.add(group)
        cursor = int(reply[0])
        if cursor == 0:
            break
    return found


def look_at_offers(keys: ShardKeys, groups: Iterable[str], now_ms: int, most_calls: int) -> Steps[Offers]:
    """Look at the notes and calls of some groups."""
    found = Offers()
    for group in sorted(groups)[:_GROUPS]:
        notes, calls = keys.offered(group), keys.call(group)
        kinds = yield (("TYPE", notes), ("TYPE", calls))
        notes_kind, calls_kind = (as_text(kind) for kind in kinds)
        if calls_kind == "list":
            (tokens,) = yield (("LLEN", calls),)
            if tokens > most_calls:
                found.calls.append(calls)
        elif calls_kind != "none":
            found.other_types.append((calls, calls_kind, "list"))
        if notes_kind == "zset":
            yield from _look_at_notes(keys, found, notes, now_ms)
        elif notes_kind != "none":
            found.other_types.append((notes, notes_kind, "zset"))
    return found


def _look_at_notes(keys: ShardKeys, found: Offers, notes: str, now_ms: int) -> Steps[None]:
    cursor = looked = 0
    while True:
        (reply,) = yield (("ZSCAN", notes, cursor, "COUNT", _PAGE),)
        page = flat(reply[1])
        named = {note: match[1] for note, _ in page if (match := _NOTE.match(note))}
        there = yield [("HSTRLEN", keys.jobs, job) for job in named.values()]
        sizes = dict(zip(named, there, strict=True))
        for note, until in page:
            at = score_ms(until)
            if not sizes.get(note) or at is None or at > now_ms + _LONGEST_MS:
                found.void.setdefault(notes, []).append(note)
        looked += len(page)
        cursor = int(reply[0])
        if cursor == 0:
            return
        if looked >= _NOTES:
            found.crowded.append(notes)
            return


def mend_offers(found: Offers) -> Steps[int]:
    """Take void notes and needless calls away. Of a crowded key all: a job that was noted there waits a minute at most."""
    mended = 0
    for notes, void in found.void.items():
        if notes in found.crowded:
            continue
        for start in range(0, len(void), _PAGE):
            (gone,) = yield (("ZREM", notes, *void[start : start + _PAGE]),)
            mended += int(gone)
    for notes in found.crowded:
        yield (("UNLINK", notes),)
        mended += 1
    for calls in found.calls:
        yield (("LTRIM", calls, 0, 0),)
        mended += 1
    return mended
