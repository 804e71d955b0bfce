"""What a client knows of tasks whose code it does not have: read once from what workers publish, and kept for a while."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from zwheel.errors import UnknownTask
from zwheel.outside import Sayer, escaped
from zwheel.published.task import PublishedTask

log = escaped("zwheel.client")

#: A published task that was read is used for so long; after that it is read again beside the next call, and after the second
#: time before it.
FRESH_S, OLDEST_S = 60.0, 600.0
#: A task that no worker published is looked for again after this, seconds.
ABSENT_S = 5.0
#: So many names are kept.
_MOST = 10_000


class Entry(NamedTuple):
    """The answer for one task's name, and when it was read."""

    task: PublishedTask | None
    at: float
    """On the monotonic clock."""
    others: Sequence[str]
    """Of a name that no worker published: the names that workers did publish."""


class Catalogue:
    """The published tasks that one client asked for. Threads may share it."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._sayer = Sayer(log)

    def get(self, name: str) -> PublishedTask | None:
        """The published task of this name; None: not known."""
        entry = self._entries.get(name)
        return None if entry is None else entry.task

    def known(self, names: Iterable[str]) -> dict[str, PublishedTask]:
        """The published tasks of these names that are known, by name."""
        found = ((name, self.get(name)) for name in names)
        return {name: task for name, task in found if task is not None}

    def others(self, name: str) -> Sequence[str]:
        """The names that workers have published, when this one was looked for and was not among them."""
        entry = self._entries.get(name)
        return () if entry is None else entry.others

    def due(self, names: Iterable[str], *, oldest_s: float = OLDEST_S) -> tuple[list[str], list[str]]:
        """Which of these names are to be read before they are used, and which may be read meanwhile."""
        now = time.monotonic()
        first, meanwhile = [], []
        for name in names:
            entry = self._entries.get(name)
            age_s = oldest_s if entry is None else now - entry.at
            if age_s >= oldest_s or (entry is not None and entry.task is None and age_s >= ABSENT_S):
                first.append(name)
            elif age_s >= FRESH_S:
                meanwhile.append(name)
        return first, meanwhile

    def learn(self, names: Iterable[str], found: Mapping[str, PublishedTask], others: Sequence[str]) -> None:
        """Keep what was read of these names."""
        now = time.monotonic()
        if len(self._entries) >= _MOST:
            self._entries.clear()
        for name in names:
            self._entries[name] = Entry(found.get(name), now, () if name in found else others)

    def unknown(self, name: str, queue: str | None, *, strict: bool) -> None:
        """Say that no worker published a task, when that was looked for. queue: the queue that the caller named.

        Raises: UnknownTask, when the client is strict.
        """
        entry = self._entries.get(name)
        if entry is None or entry.task is not None:
            return
        text = unknown_task(name, entry.others)
        if strict:
            raise UnknownTask(text)
        # Where workers have published nothing at all, none has been started yet, or none that does so: no slip then.
        level = logging.WARNING if entry.others or queue is None else logging.INFO
        where = (
            " Its jobs go to the queue default, and wait there for a worker that serves it." if queue is None else ""
        )
        end = "" if text.endswith("?") else "."
        self._sayer.say(level, name, "%s%s%s", text, end, where)


def unknown_task(name: str, others: Sequence[str]) -> str:
    """Say that no worker published a task, and which name may be meant."""
    from difflib import get_close_matches

    near = get_close_matches(name, others[:_MOST], n=1, cutoff=0.7) or [
        other for other in others if other.rpartition(".")[2] == name.rpartition(".")[2]
    ]
    return f"no worker has published a task {name}" + (f": did you mean {near[0]}?" if near else "")
