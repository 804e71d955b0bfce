"""What a history keeps of each call: one pure function a transition reads its arguments and its answer back.

A trace is small: ids, tokens, times, letters. It never holds a job's arguments. Each function gets the call and its
reply, None before there is one, and gives the word of the answer, a few facts about the call, and a fact sheet a job.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from zwheel.calls.call import Call, Reply, text, word
from zwheel.record import DIGEST_CHARS, FLAG_DEDUP, FLAG_KEEP, HEADER_BYTES

Facts = dict[str, Any]


class Trace(NamedTuple):
    """One call as a history keeps it."""

    word: str
    """What the script answered; '' before it did."""
    args: Facts
    """Facts about the whole call."""
    jobs: list[Facts]
    """Facts about each job of the batch, in its order."""


#: Answers after which nothing has changed: the caller builds the call again, or gives up.
UNCHANGED = frozenset({"moved", "doubt", "full", "oversized", "foreign", "flushed", "stale", "started", "early"})


def trace(call: Call, reply: Reply | None) -> Trace:
    """Read one call back."""
    return _TRACES[call.script.name](call, reply)


def changes(call: Call) -> bool:
    """Whether a call may change anything: a repair may be a look only."""
    return call.script.name != "repair" or call.args[1] != "look"


def request_of(call: Call) -> str | None:
    """Name the request of a call that has a lane: its repeats carry the same name. None: each sending stands alone."""
    if len(call.keys) < 2:
        return None
    _, found, lane = call.keys[1].partition(":replay:")
    return f"{lane}:{_text(call.args[1])}" if found else None


def _text(value: bytes | str | int) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _word(reply: Reply | None) -> str:
    return "" if reply is None else word(reply)


def _when(value: Any) -> Facts:
    when = _text(value)
    return {"delay": int(when[1:])} if when.startswith("+") else {"at": int(when)}


def _fire(job: Facts, reply: Reply, at: int) -> int:
    """The fire time that a script made of `when`: a delay counts from the next whole ms of its clock.

    at: where the answer to a repeat tells the clock of the first answer.
    """
    if "at" in job:
        return int(job["at"])
    return -(-int(reply[at] if len(reply) > at else reply[1]) // 1000) + int(job["delay"])


def _letters(jobs: list[Facts], reply: Reply | None, letters: Sequence[str] | None = None) -> None:
    if reply is None or word(reply) != "ok":
        return
    for job, letter in zip(jobs, text(reply[2]) if letters is None else letters, strict=True):
        job["letter"] = letter


def _after_buckets(args: Sequence[Any]) -> int:
    return 3 + 2 * int(args[2])


def _enqueue(call: Call, reply: Reply | None) -> Trace:
    args = call.args
    jobs = []
    for i in range(_after_buckets(args), len(args), 4):
        job: Facts = {"id": _text(args[i]), **_when(args[i + 1]), **_tail(args[i + 3])}
        dedup = _text(args[i + 2])
        if dedup[:1] in ("!", "="):
            job["replace"] = dedup[0] == "!"
            dedup = dedup[1:]
        if dedup:
            job["digest"] = dedup[:DIGEST_CHARS]
            if dedup[DIGEST_CHARS:]:
                job["window"] = int(dedup[DIGEST_CHARS:])
        jobs.append(job)
    answer = _word(reply)
    if reply is not None and answer == "ok":
        if len(reply[2]) != len(jobs):
            # The first answer of a batch, to somebody who asked for a part of it again: it says which, this call does not.
            return Trace(answer, {}, [])
        _letters(jobs, reply)
        existed = text(reply[3]).split(" ")
        for i in range(0, len(existed) - 1, 4):
            jobs[int(existed[i]) - 1].update(held=existed[i + 1], state=existed[i + 2])
        for job in jobs:
            if job["letter"] in "cr":
                job["fire"] = _fire(job, reply, 4)
    return Trace(answer, {}, jobs)


def _tail(value: Any) -> Facts:
    """The facts in a new record, which begins with the worker's field."""
    raw: bytes = value
    facts: Facts = {"most": int(raw[8:12])}
    flags = int(raw[12:14], 16)
    at = 14 + (DIGEST_CHARS if flags & FLAG_DEDUP else 0)
    if flags & FLAG_KEEP:
        facts["keep"] = int(raw[at : at + 10])
    return facts


def _claim(call: Call, reply: Reply | None) -> Trace:
    args: Facts = {"worker": _text(call.args[2]), "lease": int(call.args[3]), "limit": int(call.args[4])}
    args["group"] = call.keys[8].rpartition(":")[2]
    answer = _word(reply)
    if reply is None:
        return Trace(answer, args, [])
    if answer not in ("ok", "empty"):
        return Trace(answer, args, [])
    args["next"] = int(float(reply[2])) if reply[2] else None
    args.update(role=text(reply[4]), grace=int(reply[5]))
    jobs = []
    for i in range(7, len(reply), 2):
        raw: bytes = reply[i + 1]
        job: Facts = {
            "id": _text(reply[i]), "token": int(raw[21:37]), "attempt": int(raw[2:6]), "fire": int(raw[6:21]),
            "most": int(raw[45:49]),
        }  # fmt: skip
        if raw[49:51] != b"00" and int(raw[49:51], 16) & FLAG_DEDUP:
            job["digest"] = _text(raw[HEADER_BYTES : HEADER_BYTES + DIGEST_CHARS])
        jobs.append(job)
    return Trace(answer, args, jobs)


def _step_down(call: Call, reply: Reply | None) -> Trace:
    return Trace(_word(reply), {"worker": _text(call.args[2]), "limit": 0, "role": "none"}, [])


def _held(args: Sequence[Any], first: int, width: int) -> Iterator[tuple[int, Facts]]:
    for i in range(first, len(args), width):
        yield i, {"id": _text(args[i]), "token": int(args[i + 1])}


def _complete(call: Call, reply: Reply | None) -> Trace:
    jobs = [job for _, job in _held(call.args, 2, 2)]
    _letters(jobs, reply)
    return Trace(_word(reply), {}, jobs)


def _bury(call: Call, reply: Reply | None) -> Trace:
    jobs = []
    for i, job in _held(call.args, 3, 3):
        job["reason"] = _reason(call.args[i + 2])
        jobs.append(job)
    _letters(jobs, reply)
    return Trace(_word(reply), {}, jobs)


def _reason(failures: Any) -> str:
    lines = _text(failures).splitlines()
    try:
        return str(json.loads(lines[-1])["reason"])
    except (ValueError, KeyError, IndexError, TypeError):
        return ""


def _refile(call: Call, reply: Reply | None) -> Trace:
    jobs = []
    for i, job in _held(call.args, _after_buckets(call.args), 4):
        job.update(_when(call.args[i + 2]))
        jobs.append(job)
    answer = _word(reply)
    if reply is not None and answer == "ok":
        _letters(jobs, reply)
        for job in jobs:
            if job["letter"] in "rb":
                job["fire"] = _fire(job, reply, 3)
    return Trace(answer, {}, jobs)


def _offer(call: Call, reply: Reply | None) -> Trace:
    """Without a fire time: that of the job stays what it was for those to whom it is offered."""
    groups = [key.rpartition(":")[2] for key in call.keys[7::2]]
    jobs = [{**job, "groups": groups} for _, job in _held(call.args, 5, 3)]
    _letters(jobs, reply)
    return Trace(_word(reply), {}, jobs)


def _extend(call: Call, reply: Reply | None) -> Trace:
    jobs = [job for _, job in _held(call.args, 2, 2)]
    _letters(jobs, reply)
    return Trace(_word(reply), {"lease": int(call.args[1])}, jobs)


def _reap(call: Call, reply: Reply | None) -> Trace:
    args: Facts = {"limit": int(call.args[1]), "lease": int(call.args[2])}
    if call.args[6] != "":
        args["jumped"] = int(call.args[6])
    answer = _word(reply)
    jobs: list[Facts] = []
    if reply is not None and answer == "grace":
        args["grace"] = int(reply[3])
    elif reply is not None and answer == "ok":
        args["looked"], args["shortened"] = int(reply[3]), int(reply[6])
        jobs += [{"id": name, "letter": "s"} for name in text(reply[4]).split()]
        jobs += [{"id": name, "letter": "x"} for name in text(reply[5]).split()]
    return Trace(answer, args, jobs)


def _ids(args: Sequence[Any], first: int) -> list[Facts]:
    return [{"id": _text(name)} for name in args[first:]]


def _cancel(call: Call, reply: Reply | None) -> Trace:
    jobs = _ids(call.args, 5)
    _letters(jobs, reply)
    return Trace(_word(reply), {"day": _text(call.args[2])}, jobs)


def _reschedule(call: Call, reply: Reply | None) -> Trace:
    job: Facts = {"id": _text(call.args[2]), **_when(call.args[5])}
    if reply is not None and word(reply) == "ok":
        job["letter"] = text(reply[2])
        if job["letter"] == "s":
            job["fire"] = int(reply[3])
    return Trace(_word(reply), {}, [job])


def _redrive(call: Call, reply: Reply | None) -> Trace:
    jobs = _ids(call.args, _after_buckets(call.args))
    _letters(jobs, reply)
    return Trace(_word(reply), {}, jobs)


def _purge(call: Call, reply: Reply | None) -> Trace:
    """Which jobs went is not in the answer, only how many: the set, the highest score and the ids bound them."""
    args: Facts = {
        "set": call.keys[5].rpartition("}:")[2], "most": int(call.args[2]), "highest": _text(call.args[3]),
    }  # fmt: skip
    if reply is not None:
        args["count"] = int(reply[2])
    return Trace(_word(reply), args, _ids(call.args, 6))


def _prune(call: Call, reply: Reply | None) -> Trace:
    args: Facts = {"limit": int(call.args[1]), "dead_age": int(call.args[2])}
    if reply is not None and word(reply) == "ok":
        args["count"] = int(reply[2])
    return Trace(_word(reply), args, [])


def _repair(call: Call, reply: Reply | None) -> Trace:
    days, digests, schedules = int(call.args[2]), int(call.args[3]), int(call.args[4])
    jobs = _ids(call.args, 5 + 2 * days + digests + 2 * schedules)
    _letters(jobs, reply)
    return Trace(_word(reply), {"days": days, "digests": digests, "schedules": schedules}, jobs)


def _schedule(letter: Any, due: Any, tail: Any) -> Facts:
    """What becomes of a schedule: its status, when it is looked at again, its state, and its definition without what it hands on."""
    facts: Facts = {"status": _text(letter), "due": int(due) if due != "" else None}
    if tail:
        _, state, definition = _text(tail).split("\n", 2)
        facts["state"] = json.loads(state)
        facts["definition"] = {k: v for k, v in json.loads(definition).items() if k != "payload"}
    return facts


def _occurrences(args: Sequence[Any], at: int) -> tuple[list[Facts], int]:
    """The jobs from their number on, and where what follows them begins."""
    count = int(args[at])
    jobs = [
        {"id": _text(args[i]), "at": int(args[i + 1]), **_tail(args[i + 3])}
        for i in range(at + 1, at + 1 + 4 * count, 4)
    ]
    return jobs, at + 1 + 4 * count


def _advance(call: Call, reply: Reply | None) -> Trace:
    """Which of its outcomes a schedule met is known from the answer only: until then it names the jobs of both."""
    args = call.args
    at = 2 + int(args[1])
    words = [text(found) for found in reply[2:]] if reply is not None and word(reply) == "ok" else None
    batch: list[Facts] = []
    jobs: list[Facts] = []
    while at < len(args):
        one: Facts = {"name": _text(args[at]), "stamp": _text(args[at + 1]), "before": _text(args[at + 2])}
        at += 3
        outcomes = []
        for _ in range(2 if one["before"] else 1):
            facts = _schedule(*args[at : at + 3])
            made, at = _occurrences(args, at + 3)
            outcomes.append((facts, made))
        if words is None:
            jobs += [job | {"schedule": one["name"]} for _, made in outcomes for job in made]
        else:
            answer = words[len(batch)]
            one["word"] = answer[0]
            if answer[0] != "s":
                facts, made = outcomes["ab".index(answer[0])]
                one |= facts
                for job, letter in zip(made, answer[1:], strict=True):
                    jobs.append(job | {"schedule": one["name"], "letter": letter, "fire": job["at"]})
        batch.append(one)
    return Trace(_word(reply), {"schedules": batch}, jobs)


def _define(call: Call, reply: Reply | None) -> Trace:
    args = call.args
    facts: Facts = {"name": _text(args[2]), "stamp": _text(args[3]), **_schedule(*args[4:7])}
    at = 8 + int(args[7])
    count = int(args[at])
    back = range(at + 1, at + 1 + 4 * count, 4)
    facts["back"] = [_text(args[i]) for i in back]
    late = {_text(args[i]): int(args[i + 1]) for i in back if args[i + 3] != ""}
    if late:
        facts["late"] = late
    jobs, _ = _occurrences(args, at + 1 + 4 * count)
    for job in jobs:
        job["schedule"] = facts["name"]
    _letters(jobs, reply)
    for job in jobs:
        if job.get("letter") == "c":
            job["fire"] = job["at"]
    return Trace(_word(reply), facts, jobs)


_TRACES: dict[str, Callable[[Call, Reply | None], Trace]] = {
    "enqueue": _enqueue,
    "claim": _claim,
    "step_down": _step_down,
    "complete": _complete,
    "retry": _refile,
    "bury": _bury,
    "release": _refile,
    "offer": _offer,
    "extend": _extend,
    "reap": _reap,
    "cancel": _cancel,
    "reschedule": _reschedule,
    "redrive": _redrive,
    "purge": _purge,
    "prune": _prune,
    "repair": _repair,
    "advance": _advance,
    "define": _define,
}
