"""The list of queues: a queue joins it with the first that is stored in it, and not with what is refused."""

from __future__ import annotations

from zwheel.broker.acl import Role
from zwheel.broker.store import Steps
from zwheel.calls import Session
from zwheel.errors import BrokerError, BrokerRefused
from zwheel.keys import queues_key
from zwheel.operations.rights import refusal_of_rights, refused


def may_join(session: Session, queue: str) -> Steps[None]:
    """Refuse a user that may not put a queue on the list, before a job is stored that nobody would find.

    Asked once by a client: the list is one key. Raises: BrokerRefused.
    """
    if session.may_list:
        return
    command = _join(session, queue)
    try:
        closed = yield from refused([command])
    except BrokerRefused as error:
        if "script|load" not in str(error):
            raise
        # This user may not load scripts and uses scripts that others loaded: the queue joins now, or is refused now.
        yield (command,)
        return
    if closed:
        missing = ["+hsetnx", f"%W~{queues_key(session.namespace)}"]
        raise refusal_of_rights(Role.PRODUCER, session.namespace, [queue], missing)
    session.may_list = True


def join(session: Session, queue: str) -> Steps[None]:
    """Put a queue on the list. A list whose key holds another program's data stays as it is."""
    try:
        (added,) = yield (_join(session, queue),)
    except BrokerRefused as error:
        if error.code != "WRONGTYPE":
            raise
        added = 1
    if added:
        session.counts.setdefault(queue, 1)


def joined(session: Session, queue: str) -> Steps[bool]:
    """Put a queue on the list after a job was stored in it. A failure here does not undo that.

    Returns whether the queue is on the list.
    """
    try:
        yield from join(session, queue)
    except BrokerError:
        return False
    return True


def _join(session: Session, queue: str) -> tuple[str, str, str, int]:
    return "HSETNX", queues_key(session.namespace), queue, session.counts.get(queue, 1)
