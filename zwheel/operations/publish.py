"""Publishing tasks, as workers do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from zwheel.broker.store import Steps
from zwheel.calls import Session
from zwheel.keys import tasks_key

#: So many rows are written in one call.
_PAGE = 200


def publish(session: Session, rows: Mapping[str, bytes]) -> Steps[None]:
    """Write rows of tasks."""
    names = list(rows)
    for start in range(0, len(names), _PAGE):
        fields = [word for name in names[start : start + _PAGE] for word in (name, rows[name])]
        yield (("HSET", tasks_key(session.namespace), *fields),)


def unpublish(session: Session, names: Sequence[str]) -> Steps[None]:
    """Take rows of tasks away."""
    for start in range(0, len(names), _PAGE):
        yield (("HDEL", tasks_key(session.namespace), *names[start : start + _PAGE]),)
