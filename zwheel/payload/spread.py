"""Maps and sets from bytes that anyone may have written: built only when their members' hashes are spread.

Text and bytes have hashes that nobody can foresee. All else has not: members can be chosen so that they share one hash,
or follow each other through the table, and then n of them cost n² steps. 26,000 such members made 55 s of a body of
100 KB. So the hashes are looked at first, and a large map or set is built by and by. Where that takes long for its size, the
leaps through the table are counted: they decide, and not the time, which a busy machine may take as well.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from operator import eq
from typing import Any

#: Members up to which nothing is looked at: they cost little whatever they are.
_FEW = 32
#: How many members may have one hash. Members that are chosen at random never do; -1 and -2 do by nature, and the powers
#: of two up to 2¹⁰⁰⁰ come to 17 of each.
_ALIKE = 32
#: Members up to which only their hashes are looked at, and how many are added at a time beyond that.
_CHUNK = 512
#: Beyond so many times the sorting of the hashes, and this on top, ns of processor time, the leaps are counted.
_TIMES, _ALLOWANCE_NS = 6, 4_000_000
#: How many leaps a member may take through the table on the average, and how many there may be on top. Members that are
#: chosen at random take less than two, multiples of 2³² eight.
_LEAPS, _MORE_LEAPS = 16, 1_000
#: How CPython looks for a free place: a set looks at so many neighbours before it leaps.
_NEIGHBOURS = 9
_UNFORESEEN = frozenset({str, bytes})


class Colliding(ValueError):
    """The members of a map or a set are chosen to collide."""


def build_map(pairs: Sequence[tuple[Any, Any]]) -> dict[Any, Any]:
    """Make a map; of a key that comes twice the last value stays. Raises: Colliding, TypeError for a key without a hash."""
    if len(pairs) <= _FEW or _UNFORESEEN.issuperset([type(key) for key, _ in pairs]):
        return dict(pairs)
    found: dict[Any, Any] = {}
    _add(found, pairs, [key for key, _ in pairs])
    return found


def build_set(members: Sequence[Any]) -> set[Any]:
    """Make a set of members, of which some may be equal. Raises: Colliding, TypeError for one without a hash."""
    if len(members) <= _FEW or _UNFORESEEN.issuperset(map(type, members)):
        return set(members)
    found: set[Any] = set()
    _add(found, members, members)
    return found


def _add(found: Any, items: Sequence[Any], members: Sequence[Any]) -> None:
    """Add items to a dict or a set while that is cheap. members: what is hashed of each item."""
    began = time.thread_time_ns()
    foreseen = [member for member in members if type(member) not in _UNFORESEEN]
    hashes = sorted(map(hash, foreseen))
    if any(map(eq, hashes, hashes[_ALIKE:])) and _too_many_alike(foreseen):
        raise Colliding("the members of a map or a set are chosen to have the same hash")
    if len(items) <= _CHUNK:
        found.update(items)
        return
    now = time.thread_time_ns()
    limit = now + _ALLOWANCE_NS + _TIMES * (now - began)
    for start in range(0, len(items), _CHUNK):
        found.update(items[start : start + _CHUNK])
        spent = time.thread_time_ns() - now
        if now + spent > limit:
            added = dict.fromkeys(members[: start + _CHUNK])
            if _walk(list(map(hash, added)), 0 if isinstance(found, dict) else _NEIGHBOURS):
                raise Colliding("the members of a map or a set are chosen to collide")
            limit = now + 2 * spent


def _walk(hashes: Sequence[int], neighbours: int) -> bool:
    """Whether members with these hashes take too many leaps through a table of any size that it may have had by now."""
    size = 8
    while size * 2 < len(hashes):
        size *= 2
    return any(_too_many_leaps(hashes, size << more, neighbours) for more in range(5))


def _too_many_leaps(hashes: Sequence[int], size: int, neighbours: int) -> bool:
    """Put the hashes into a table as CPython does, as far as they fit, and count its leaps."""
    mask = size - 1
    taken = bytearray(size)
    left = _LEAPS * len(hashes) + _MORE_LEAPS
    for number in hashes[: size * 3 // 5]:
        at, rest = number & mask, number & 0xFFFF_FFFF_FFFF_FFFF
        while True:
            end = at + (neighbours if at + neighbours <= mask else 0) + 1
            free = taken.find(0, at, end)
            if free >= 0:
                break
            left -= 1
            if left < 0:
                return True
            rest >>= 5
            at = (at * 5 + rest + 1) & mask
        taken[free] = 1
    return False


def _too_many_alike(members: Sequence[Any]) -> bool:
    """Whether more members than may be have one hash, and are not few values that come again and again."""
    hashes = list(map(hash, members))
    shared: int | None = None
    alike: list[Any] = []
    for at in sorted(range(len(members)), key=hashes.__getitem__):
        if hashes[at] != shared:
            shared, alike = hashes[at], []
        if members[at] not in alike:
            alike.append(members[at])
            if len(alike) > _ALIKE:
                return True
    return False
