"""Enqueues that say how safely they are stored: whether the server can confirm it, and whether it did."""

from __future__ import annotations

from collections.abc import Sequence

from zwheel.broker.store import Steps
from zwheel.calls import Session, waits
from zwheel.calls.scripts import script
from zwheel.errors import BrokerRefused, NotDurable
from zwheel.job import Durability, Enqueued
from zwheel.keys import ShardKeys
from zwheel.plain import counted


def may_confirm(session: Session, keys: ShardKeys, asked: Durability) -> Steps[None]:
    """Find out, before anything is stored, whether the server of a shard can confirm what is asked. It is asked once.

    Raises: BrokerRefused.
    """
    for command in waits(asked, 1):
        if (keys.name, command[0]) in session.confirms:
            continue
        # The key leads to the server of the shard. A wait behind a script that is not loaded yet would be for nothing.
        get = ("GET", keys.replay(session.caller, "durable"))
        *_, answer = yield (get, ("SCRIPT", "LOAD", script("enqueue").source), command)
        if isinstance(answer, BaseException):
            raise BrokerRefused(f"{_cure(str(answer))}; nothing was stored") from answer
        session.confirms.add((keys.name, command[0]))


def _cure(refusal: str) -> str:
    if "unknown command" in refusal:
        return "durable: this server does not tell what is on its disk: fsynced takes Redis 7.2 or Valkey"
    if "appendonly" in refusal:
        return "durable: this server keeps no append-only file, so nothing is fsynced: set appendonly yes"
    return f"durable: {refusal}"


def confirmed(answers: Sequence[Enqueued], asked: Durability) -> list[Enqueued]:
    """The answers, when the server confirmed for each job what was asked. Raises: NotDurable."""
    lacking = [one for one in answers if one.receipt is None or not one.receipt.covers(asked)]
    if lacking:
        first = lacking[0]
        others = f" and {counted(len(lacking) - 1, 'other')}" if lacking[1:] else ""
        raise NotDurable(
            f"job {first.job_id}{others} of queue {first.queue}: stored, but not confirmed as {asked} in time, only as "
            f"{first.receipt or 'memory'}; enqueue it again with this id to ask once more, which makes no second job",
            answers,
        )
    return list(answers)
