"""How a server is asked to confirm how safely it stored what was just sent: WAIT and WAITAOF, behind the call.

Both speak of the writes of their own connection. So they go with the call in one exchange, and whoever sends the call
again sends them again behind it. A repeat writes too (`lua/include/replay.lua`), so that they count for it as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from zwheel.job import Durability, Enqueued

#: The commands that wait; the first word of one.
WAITS = frozenset({"WAIT", "WAITAOF"})


def waits(asked: Durability | None, within_ms: int) -> tuple[tuple[Any, ...], ...]:
    """What to send behind a call. within_ms: how long the server waits in all."""
    if not asked:
        return ()
    # For WAIT 0 is for ever.
    within_ms = max(1, within_ms // (1 + (asked.fsynced and asked.replicas > 0)))
    replicas = (("WAIT", asked.replicas, within_ms),) if asked.replicas else ()
    return (*replicas, ("WAITAOF", 1, 0, within_ms)) if asked.fsynced else replicas


def reached(commands: Sequence[Any], replies: Sequence[Any]) -> Durability:
    """What the server confirmed; a refused command confirms nothing."""
    replicas, fsynced = 0, False
    for command, reply in zip(commands, replies, strict=False):
        if isinstance(reply, BaseException):
            continue
        if command[0] == "WAIT":
            replicas = int(reply)
        elif command[0] == "WAITAOF":
            fsynced = int(reply[0]) > 0
    return Durability(replicas=replicas, fsynced=fsynced)


def with_receipt(answers: Sequence[Enqueued], receipt: Durability) -> list[Enqueued]:
    """Answers that say what was confirmed."""
    return [replace(answer, receipt=receipt) for answer in answers]
