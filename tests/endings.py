"""How claimed jobs end, as tests write it where all of a batch end alike: each is a `settle`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from zwheel.calls import Call, Ending, Lane, settle
from zwheel.keys import ShardKeys

Id = bytes | str


class Back(NamedTuple):
    """One claimed job that goes back on the wheel."""

    job_id: Id
    token: bytes
    at_ms: int | None
    delay_ms: int
    failures: bytes


def complete(keys: ShardKeys, ends: Sequence[tuple[Id, bytes]], *, lane: Lane, now: str = "") -> Call:
    """The jobs ended well."""
    return settle(keys, ends, most_dead=0, now_ms=0, lane=lane, now=now)


def bury(
    keys: ShardKeys, ends: Sequence[tuple[Id, bytes, bytes]], *, most_dead: int, lane: Lane, now: str = ""
) -> Call:
    """The jobs are dead. ends: id, token, failures."""
    graves = [Ending(job_id, token, "x", failures) for job_id, token, failures in ends]
    return settle(keys, (), graves, most_dead=most_dead, now_ms=0, lane=lane, now=now)


def retry(keys: ShardKeys, batch: Sequence[Back], **more: Any) -> Call:
    """The attempts failed."""
    return _back(keys, batch, "r", **more)


def release(keys: ShardKeys, batch: Sequence[Back], **more: Any) -> Call:
    """The jobs go back unharmed."""
    return _back(keys, batch, "b", **more)


def _back(keys: ShardKeys, batch: Sequence[Back], letter: str, *, now_ms: int, lane: Lane, now: str = "") -> Call:
    ends = [Ending(one.job_id, one.token, letter, one.failures, one.at_ms, one.delay_ms) for one in batch]
    return settle(keys, (), ends, most_dead=0, now_ms=now_ms, lane=lane, now=now)
