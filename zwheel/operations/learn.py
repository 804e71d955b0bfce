"""Learning what workers publish of tasks, before jobs are made by their names."""

from __future__ import annotations

from collections.abc import Sequence

from zwheel.broker.store import Steps
from zwheel.calls import Session
from zwheel.errors import BrokerRefused
from zwheel.keys import tasks_key
from zwheel.outside import as_text
from zwheel.published.task import PublishedTask, read_row

#: So many rows are read in one call.
_PAGE = 200


def published(session: Session, names: Sequence[str]) -> Steps[dict[str, PublishedTask]]:
    """Read what is published of these tasks; tasks that no worker published are left out.

    A user that may not read it knows of none.
    """
    try:
        rows = yield from published_rows(session, names)
    except BrokerRefused:
        return {}
    read = ((name, None if raw is None else read_row(name, raw)) for name, raw in zip(names, rows, strict=True))
    return {name: task for name, task in read if task is not None}


def learn(session: Session, names: Sequence[str]) -> Steps[tuple[dict[str, PublishedTask], list[str]]]:
    """Read what is published of these tasks; when one of them is not published, also the names of all published tasks."""
    found = yield from published(session, names)
    others: list[str] = []
    if len(found) < len(names):
        others = yield from task_names(session)
    return found, others


def published_rows(session: Session, names: Sequence[str]) -> Steps[list[bytes | None]]:
    """Read the rows of these tasks as they are; None where there is none. Raises: BrokerRefused."""
    found: list[bytes | None] = []
    for start in range(0, len(names), _PAGE):
        (rows,) = yield (("HMGET", tasks_key(session.namespace), *names[start : start + _PAGE]),)
        found += rows
    return found


def task_names(session: Session) -> Steps[list[str]]:
    """Name every task that a worker published, sorted; none when this user may not read them."""
    try:
        (names,) = yield (("HKEYS", tasks_key(session.namespace)),)
    except BrokerRefused:
        return []
    return sorted(as_text(name) for name in names)
