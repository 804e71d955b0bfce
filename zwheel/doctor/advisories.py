"""Known faults of Redis' and Valkey's Lua engine that a script's caller, or a client like ours, can set off.

Source: the release notes of Redis and Valkey, which name the fault and the first release of each branch without it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

Version = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Advisory:
    """One fault, or several that were mended by the same releases."""

    names: tuple[str, ...]
    what: str
    redis: tuple[Version, ...]
    """The first release of each branch of Redis without it, oldest branch first; none: Redis never had it."""
    valkey: tuple[Version, ...]
    """The same for Valkey."""


ADVISORIES = (
    Advisory(
        ("CVE-2022-24834",),
        "a heap overflow in the cjson and cmsgpack libraries",
        ((7, 0, 12),),
        (),
    ),
    Advisory(
        ("CVE-2024-31449",),
        "a stack overflow in the bit library",
        ((7, 2, 6), (7, 4, 1)),
        ((7, 2, 7), (8, 0, 1)),
    ),
    Advisory(
        ("CVE-2024-46981",),
        "a use after free by way of the garbage collector",
        ((7, 2, 7), (7, 4, 2)),
        ((7, 2, 8), (8, 0, 2)),
    ),
    Advisory(
        ("CVE-2025-49844", "CVE-2025-46817", "CVE-2025-46818", "CVE-2025-46819"),
        "a use after free in the parser that lets a script run any code, and three more",
        ((7, 2, 11), (7, 4, 6), (8, 0, 4), (8, 2, 2)),
        ((7, 2, 11), (8, 0, 6), (8, 1, 4)),
    ),
    Advisory(
        ("CVE-2025-67733",),
        "replies forged by way of error_reply",
        (),
        ((7, 2, 12), (8, 0, 7), (8, 1, 6), (9, 0, 2)),
    ),
    Advisory(
        ("CVE-2026-23631", "CVE-2026-23479"),
        "uses after free in a script during a full synchronisation and when a blocked client is woken",
        ((7, 2, 14), (7, 4, 9), (8, 2, 6), (8, 4, 3), (8, 6, 3)),
        ((7, 2, 13), (8, 0, 9), (8, 1, 7), (9, 0, 4)),
    ),
)


def parse_version(written: str) -> Version | None:
    """Read `7.2.11`; None when it is something else."""
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", written)
    return (int(found[1]), int(found[2]), int(found[3] or 0)) if found else None


def has_fault(version: Version, fixes: tuple[Version, ...]) -> bool:
    """Whether a release comes before the fix of its branch.

    A branch that is not named is judged by its neighbours: one between two named branches got no fix of its own, one
    after the last began with it. Example: fixed in 7.2.11 and 7.4.6, so 7.0.15, 7.2.10 and 7.4.5 have it, 8.0.0 not.
    """
    for fix in fixes:
        if version[:2] == fix[:2]:
            return version < fix
    return any(version < fix for fix in fixes)


def known_faults(family: str, version: Version) -> list[Advisory]:
    """List the faults of a release. family: Redis or Valkey."""
    return [a for a in ADVISORIES if has_fault(version, a.valkey if family == "Valkey" else a.redis)]


def fixed_in(family: str, version: Version) -> str | None:
    """Name the nearest release of the same or a later branch without any known fault; None when there is none to name."""
    for fix in sorted({fix for a in ADVISORIES for fix in (a.valkey if family == "Valkey" else a.redis)}):
        if fix > version and not known_faults(family, fix):
            return ".".join(map(str, fix))
    return None
