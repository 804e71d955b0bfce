"""What a history keeps of each call, as far as all calls share it. Each call's own part stands beside what builds it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from zwheel.calls.call import Call, Facts, Reply, Trace, text, word
from zwheel.record import read_fields


def request_of(call: Call) -> str | None:
    """Name the request of a call that has a lane: its repeats carry the same name. None: each sending stands alone."""
    if len(call.keys) < 2:
        return None
    _, found, lane = call.keys[1].partition(":replay:")
    return f"{lane}:{text(call.args[1])}" if found else None


def traced(reply: Reply | None, jobs: Iterable[Facts], args: Facts | None = None) -> Trace:
    """Make the trace of a call whose answer is one letter a job."""
    facts = list(jobs)
    if reply is not None and word(reply) == "ok":
        lettered(facts, text(reply[2]))
    return Trace(answered(reply), args or {}, facts)


def answered(reply: Reply | None) -> str:
    """The word of an answer, '' before there is one."""
    return "" if reply is None else word(reply)


def lettered(jobs: Sequence[Facts], letters: str) -> None:
    """Give each job its letter."""
    for job, letter in zip(jobs, letters, strict=True):
        job["letter"] = letter


def named(ids: Iterable[str | bytes]) -> list[Facts]:
    """The facts of jobs of which no more is known than their ids."""
    return [{"id": text(name)} for name in ids]


def held(job_id: str | bytes, token: bytes) -> Facts:
    """The facts of a job that is held by a token of 16 digits."""
    return {"id": text(job_id), "token": int(token)}


def when(at_ms: int | None, delay_ms: int) -> Facts:
    """When a job is to fire, as its caller said it."""
    return {"delay": delay_ms} if at_ms is None else {"at": at_ms}


def fire_of(job: Facts, reply: Reply, at: int) -> int:
    """The fire time that a script made of `when`: a delay counts from the next whole ms of its clock.

    at: where the answer to a repeat tells the clock of the first answer.
    """
    if "at" in job:
        return int(job["at"])
    return -(-int(reply[at] if len(reply) > at else reply[1]) // 1000) + int(job["delay"])


def in_tail(raw: Any) -> Facts:
    """The facts in a new record, which begins with the worker's field."""
    facts: Facts = {"most": int(raw[8:12])}
    fields, _ = read_fields(raw, first=37)
    if "k" in fields:
        facts["keep"] = int(fields["k"])
    return facts
