"""The schedules that applications declare in their code: written when a worker starts, beside those of other services."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from zwheel.broker.store import Steps
from zwheel.calls import Session
from zwheel.errors import BrokerRefused
from zwheel.operations.read import each_alone, queues
from zwheel.operations.schedules import SyncReport, make_so, schedules
from zwheel.operations.shards import workers_key
from zwheel.outside import as_text, flat
from zwheel.payload.codec import Codec
from zwheel.schedules.definition import Definition

#: The longest list of declared names that a worker publishes, bytes; with a longer one it says that it may be any name.
_MOST_BYTES = 16_384
_ROW_BYTES = 65_536
#: How many queues are asked at a time.
_QUEUES = 1_000
#: How long a worker counts as living after its last heartbeat, at least, and the longest lease that counts, ms.
_LEAST_ALIVE_MS, _MOST_LEASE_MS = 60_000, 86_400_000


def about_declared(definitions: Iterable[Definition]) -> dict[str, object]:
    """What a worker publishes of the schedules that it declares: their names by owner, or True for any name."""
    names: dict[str, list[str]] = {}
    for definition in definitions:
        names.setdefault(definition.owner, []).append(definition.name)
    if len(json.dumps(names)) > _MOST_BYTES:
        return {"declares": dict.fromkeys(list(names)[:100], True)}
    return {"declares": names} if names else {}


class Elsewhere:
    """What other living workers declare."""

    def __init__(self) -> None:
        self._names: dict[str, set[str]] = {}
        self._any: set[str] = set()

    def add(self, raw: bytes, now_ms: int) -> None:
        """Take what a worker's row declares; nothing when the worker may be dead or the row is damaged."""
        if len(raw) > _ROW_BYTES:
            return
        try:
            row = json.loads(raw)
            beat, lease, declares = row["beat"], row.get("lease"), row.get("declares")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return
        alive_ms = max(_LEAST_ALIVE_MS, min(_MOST_LEASE_MS, lease) if isinstance(lease, int) else 0)
        if not isinstance(beat, int) or abs(now_ms - beat) > alive_ms or not isinstance(declares, Mapping):
            return
        for owner, names in declares.items():
            if names is True:
                self._any.add(owner)
            elif isinstance(names, list):
                self._names.setdefault(owner, set()).update(name for name in names if isinstance(name, str))

    def has(self, owner: str, name: str) -> bool:
        """Whether one of these workers declares this schedule for this owner."""
        return owner in self._any or name in self._names.get(owner, ())


def _elsewhere(session: Session, worker: str) -> Steps[Elsewhere]:
    names = yield from queues(session)
    found = Elsewhere()
    for start in range(0, len(names), _QUEUES):
        asks: list[tuple[Any, ...]] = [("HGETALL", workers_key(session, n)) for n in names[start : start + _QUEUES]]
        *replies, clock = yield from each_alone([*asks, ("TIME",)])
        now_ms = int(clock[0]) * 1000 + int(clock[1]) // 1000
        for raw in replies:
            for name, row in () if isinstance(raw, BrokerRefused) else flat(raw):
                if as_text(name) != worker:
                    found.add(row, now_ms)
    return found


def sync_declared(
    session: Session, codec: Codec, definitions: Iterable[Definition], owners: Collection[str], *, app: str,
    tasks: Collection[str], worker: str, again: SyncReport | None = None,
) -> Steps[SyncReport]:  # fmt: skip
    """Make Redis hold the schedules that an application declares, and take no schedule from another living service.

    What another living worker declares for the same owner is not removed: it is another service of that name, or a
    version that is about to end. A schedule whose task is unknown here is not removed at once either: the service that
    has the task may be about to start. A name that another owner has is not written, unless that owner is this application
    under another queue, and no living worker declares it so any more.

    Args:
        definitions: What is declared, each with its owner.
        owners: The owners that this application has; other schedules of these owners are removed.
        app: The application's name, with which the owners begin that it has by default.
        tasks: The tasks that this application has.
        worker: The worker that asks.
        again: The report of an earlier call. Only what that call could not do is tried: there may be a newer version now.
    """
    wanted = {definition.name: definition.check() for definition in definitions}
    if again is not None:
        wanted = {name: definition for name, definition in wanted.items() if name in again.refused}
    listed = yield from schedules(session, None)
    foreign = [info for info in listed if info.name in wanted and info.owner not in owners]
    surplus = [info for info in listed if info.owner in owners and info.name not in wanted]
    keep = {info.name for info in surplus if again is not None and info.name not in again.kept}
    left = [info for info in surplus if info.name not in keep]
    refused: set[str] = set()
    if foreign or left:
        others = yield from _elsewhere(session, worker)
        soon = again is None
        keep |= {
            info.name for info in left
            if others.has(info.owner, info.name) or (soon and info.definition.task not in tasks)
        }  # fmt: skip
        refused = {
            info.name for info in foreign
            if not (app and info.owner.startswith(f"{app}@")) or others.has(info.owner, info.name)
        }  # fmt: skip
    wanted = {name: definition for name, definition in wanted.items() if name not in refused}
    report = yield from make_so(session, codec, listed, wanted, owners, keep, False)
    kept = tuple(name for name in report.kept if again is None or name in again.kept)
    return replace(report, kept=kept, refused=tuple(sorted(refused)))
