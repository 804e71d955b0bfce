"""advance: nothing -> scheduled, for the occurrences of schedules that are due."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from zwheel.calls.call import Arg, Call, Facts, Reply, Trace, day_name, foreign_schema, text, word
from zwheel.calls.scripts import script
from zwheel.calls.traces import answered, in_tail
from zwheel.errors import BrokerRefused
from zwheel.keys import ShardKeys
from zwheel.times import DAY_MS

#: No day has this number.
_PROCESSING = -1


class NewOccurrence(NamedTuple):
    """An occurrence's job, ready to be put on the wheel: id, fire time in ms, record from the worker's field on."""

    id: str
    fire_ms: int
    rest: bytes


class After(NamedTuple):
    """What becomes of a schedule."""

    letter: str
    """Its status: a, p, f; '' deletes it (only in `define`)."""
    due_ms: int | None
    """When to look again, ms; None: never."""
    tail: str
    """The record from its line feed on."""
    jobs: Sequence[NewOccurrence] = ()


class Advance(NamedTuple):
    """One schedule of a batch."""

    name: str
    stamp: str
    """The stamp of the record that was read, 16 digits."""
    free: After
    before: str = ""
    """Job id of the occurrence before, when it matters whether that is still scheduled or processing."""
    busy: After | None = None
    """What becomes of it then."""
    cancels: bool = False
    """Whether that job is to be cancelled then, so that the occurrence which waits may run."""


class Days:
    """Numbers the day buckets that a call needs."""

    def __init__(self, keys: ShardKeys) -> None:
        self._keys = keys
        self._numbers: dict[int, int] = {}

    def number(self, fire_ms: int) -> int:
        """The number of a fire time's bucket, counted from 1."""
        return self._numbers.setdefault(fire_ms // DAY_MS, len(self._numbers) + 1)

    def processing(self) -> int:
        """The number of the set of claimed jobs, which stands among the buckets with no day."""
        return self._numbers.setdefault(_PROCESSING, len(self._numbers) + 1)

    @property
    def head(self) -> list[Arg]:
        """How many buckets there are, and their days."""
        return [len(self._numbers), *("" if n == _PROCESSING else day_name(n) for n in self._numbers)]

    @property
    def names(self) -> list[str]:
        """The buckets' keys."""
        keys = self._keys
        return [keys.processing if n == _PROCESSING else keys.wheel(day_name(n)) for n in self._numbers]

    def jobs(self, jobs: Sequence[NewOccurrence]) -> list[Arg]:
        """How many jobs there are, and each with its bucket."""
        words: list[Arg] = [len(jobs)]
        for job in jobs:
            words += [job.id, f"{job.fire_ms:015d}", self.number(job.fire_ms), job.rest]
        return words


def due_text(due_ms: int | None) -> str:
    """When to look again, as the scripts want it."""
    return "" if due_ms is None else str(due_ms)


def advance(keys: ShardKeys, batch: Sequence[Advance], *, now: str = "") -> Call:
    """Build the call. batch: schedules with at most 1000 jobs in all."""
    days = Days(keys)
    args: list[Arg] = []
    for one in batch:
        args += [one.name, one.stamp, one.before if one.busy is not None else ""]
        for after in (one.free, one.busy):
            if after is not None:
                args += [after.letter, due_text(after.due_ms), after.tail, *days.jobs(after.jobs)]
    names = (keys.meta, keys.jobs, keys.bodies, keys.days, keys.wake, keys.schedules, keys.schedules_due, *days.names)
    return Call(script("advance"), names, [now, *days.head, *args], _told, batch)


def schedule_facts(after: After) -> Facts:
    """What becomes of a schedule: its status, when it is looked at again, its state, and its definition without what it hands on."""
    facts: Facts = {"status": after.letter, "due": after.due_ms}
    if after.tail:
        _, state, definition = after.tail.split("\n", 2)
        facts["state"] = json.loads(state)
        facts["definition"] = {k: v for k, v in json.loads(definition).items() if k != "payload"}
    return facts


def job_facts(schedule: str, jobs: Sequence[NewOccurrence]) -> list[Facts]:
    """The facts of occurrences of a schedule."""
    return [{"id": job.id, "at": job.fire_ms, **in_tail(job.rest), "schedule": schedule} for job in jobs]


def _told(schedules: Sequence[Advance], reply: Reply | None) -> Trace:
    """Which of its outcomes a schedule met is known from the answer only: until then it names the jobs of both."""
    words = [text(found) for found in reply[2:]] if reply is not None and word(reply) == "ok" else None
    batch: list[Facts] = []
    jobs: list[Facts] = []
    for number, one in enumerate(schedules):
        outcomes = {"a": one.free} if one.busy is None else {"a": one.free, "b": one.busy}
        facts: Facts = {"name": one.name, "stamp": one.stamp, "before": "" if one.busy is None else one.before}
        if words is None:
            for after in outcomes.values():
                jobs += job_facts(one.name, after.jobs)
        else:
            answer, letters = words[number][0], words[number][1:]
            facts["word"] = answer
            if answer != "s":
                facts |= schedule_facts(outcomes[answer])
                for job, letter in zip(job_facts(one.name, outcomes[answer].jobs), letters, strict=True):
                    jobs.append(job | {"letter": letter, "fire": job["at"]})
        batch.append(facts)
    return Trace(answered(reply), {"schedules": batch}, jobs)


def read_advance(call: Call, reply: Reply) -> list[str]:
    """Read a word for each schedule: s, or a or b and a letter a job. Raises: SchemaMismatch."""
    answer = word(reply)
    if answer == "foreign":
        raise foreign_schema(call.keys[0], text(reply[2]))
    if answer != "ok":
        raise BrokerRefused(f"advance answered {answer!r}, which this version does not know")
    return [text(found) for found in reply[2:]]
