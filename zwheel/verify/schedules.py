"""Promises about schedules: of each nominal time as many jobs as the policy says, none extra and none missing."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from zwheel.errors import UndecodableJob, ZwheelError
from zwheel.keys import queue_of
from zwheel.schedules.definition import MISFIRE_CAP, Definition
from zwheel.schedules.occurrences import Rhythm
from zwheel.schedules.plan import late_after_ms
from zwheel.verify.bounds import Bounds
from zwheel.verify.events import CallLine, Event, QueueLine, Runs
from zwheel.verify.report import Clue, Findings, clock

#: How long a worker may take from asking whether an occurrence is late to starting it, µs.
_LATE_SLACK_US = 2_000_000
_STAMP_CHARS = 16


@dataclass(slots=True)
class Change:
    """One accepted change of one schedule."""

    queue: str
    name: str
    call: CallLine
    facts: dict[str, Any]
    """What was written: stamp (that was built on), status, state, definition; `word` for an advance."""
    jobs: list[dict[str, Any]]

    @property
    def clue(self) -> Clue:
        """How a witness shows it."""
        built = self.built or "nothing"
        return Clue(f"{clock(self.call.us)} {self.call.op} {self.name}, built on {built}", self.call.source)

    @property
    def built(self) -> int:
        """The stamp of the record that it was built on, µs; 0 for a schedule that is new.

        While its queue is cut anew, a new schedule names how many shards the queue had instead.
        """
        stamp = str(self.facts["stamp"])
        return int(stamp) if len(stamp) == _STAMP_CHARS else 0

    @property
    def state(self) -> dict[str, Any]:
        """The state that was written; empty for a deletion."""
        state: dict[str, Any] = self.facts.get("state") or {}
        return state

    def names(self, before: Change) -> bool:
        """Whether it was built on what `before` wrote: its stamp is the server's µs of that call."""
        # A stamp is the last one and a µs where the clock was set back, until the clock is there again.
        return before.call.since - before.call.shift <= self.built <= before.call.us


def changes(shards: Sequence[QueueLine]) -> list[Change]:
    """The accepted changes of the schedules of these shards, in the order of the server's clock."""
    found: list[Change] = []
    for queue in shards:
        for call in queue.schedules:
            if call.op == "define":
                found.append(Change(queue.name, call.args["name"], call, call.args, call.jobs))
                continue
            for facts in call.args["schedules"]:
                if facts.get("word", "s") != "s":
                    jobs = [job for job in call.jobs if job["schedule"] == facts["name"]]
                    found.append(Change(queue.name, facts["name"], call, facts, jobs))
    #: The stamps that others built on, and that no change of a known time wrote.
    stamps = {(change.name, change.built) for change in found}
    stamps -= {(change.name, change.call.us) for change in found if change.call.since == change.call.us}
    return sorted(found, key=lambda change: _written(change, stamps))


def _written(change: Change, stamps: Collection[tuple[str, int]]) -> int:
    """When a change was made, µs. Where its answer came to a repeat, what was built on it says so."""
    since, us = change.call.since - change.call.shift, change.call.us
    if change.call.since == us:
        return us
    return min((stamp for name, stamp in stamps if name == change.name and since <= stamp <= us), default=us)


def i14_schedules(runs: Runs, bounds: Bounds, found: Findings) -> None:
    """Each nominal time has the jobs that its policy says."""
    queues: dict[str, list[QueueLine]] = {}
    for queue in runs.queues.values():
        # A schedule moves with its queue when that is cut anew.
        queues.setdefault(queue_of(queue.name), []).append(queue)
    for shards in queues.values():
        lines: dict[str, list[Change]] = {}
        for change in changes(shards):
            lines.setdefault(change.name, []).append(change)
        for line in lines.values():
            _chain(runs, shards, line, found)
            _doubled(runs, line, found)
            _late(runs, line, found)
            waited: set[int] = set()
            for change in line:
                _extra(change, waited, found)
                _beside(runs, change, found)
                _dropped(change, found)
                waited.add(int(change.state.get("buffered", 0)))
        for queue in shards:
            _taken_back(runs, queue, found)


def _hidden(shards: Sequence[QueueLine], since: int, until: int) -> bool:
    """Whether something in that time may have changed a schedule, and nobody heard of it."""
    return any(queue.may_have(op, since, until) for queue in shards for op in ("advance", "define"))


def _chain(runs: Runs, shards: Sequence[QueueLine], line: list[Change], found: Findings) -> None:
    for before, change in pairwise(line):
        name = f"{change.queue}/{change.name}"
        if runs.losses(change.queue, before.call.since, change.call.us):
            continue
        if change.built and change.built == before.built:
            found.add("two changes were built on the same record", before.clue, change.clue, job=name)
            continue
        if _hidden(shards, before.call.since, change.call.us):
            continue
        gone = not before.facts["status"]
        if gone != (not change.built) or not (gone or change.names(before)):
            found.add("a change was built on another record than the last", before.clue, change.clue, job=name)
            continue
        _forgotten(before, change, found)
        if change.call.op == "advance":
            if before.facts["status"] != "a":
                found.add("a schedule fired that was not active", before.clue, change.clue, job=name)
            _missing(before, change, found)
        elif before.facts["status"] == change.facts["status"] == "a" and _same_times(before, change):
            _missing(before, change, found)


def _same_times(before: Change, change: Change) -> bool:
    old, new = _definition(before), _definition(change)
    return old is not None and new is not None and new.same_times(old)


def _forgotten(before: Change, change: Change, found: Findings) -> None:
    """Find an occurrence that waited for an earlier one, and then neither waits nor runs; unless the schedule was deleted."""
    waiting = before.state.get("buffered")
    if waiting is None or not change.facts["status"] or change.state.get("buffered") == waiting:
        return
    if waiting not in {nominal_ms(job["id"]) for job in change.jobs}:
        name = f"{change.queue}/{change.name}"
        found.add("an occurrence that waited was dropped", before.clue, change.clue, job=name)


def _missing(before: Change, change: Change, found: Findings) -> None:
    """Count what became of each occurrence between two cursors, and of the occurrences that a pause took off the wheel."""
    definition = _definition(change)
    if definition is None or definition.max_count is not None:
        return
    low, high = int(before.state.get("cursor", 0)), int(change.state.get("cursor", 0))
    if high < low:
        return  # the server's clock was ahead when the record before was written: nothing of that counts
    low = max(low, (definition.start_ms or 0) - 1)
    high = high if definition.end_ms is None else min(high, definition.end_ms)
    rhythm = definition.rhythm(int(change.state.get("anchor", 0)))
    wanted = [o.at_ms for o in rhythm.between(low, high, MISFIRE_CAP + 1)]
    if len(wanted) > MISFIRE_CAP:
        return
    wanted += [at for at in before.state.get("taken", ()) if at not in wanted and _has(definition, rhythm, at)]
    fired = {nominal_ms(job["id"]) for job in change.jobs}
    fired |= {at for at, _ in before.state.get("ahead", ())}
    fired |= set(change.state.get("taken", ()))  # decided later
    accounted = sum(at in fired for at in wanted)
    for count in ("missed", "skipped"):
        accounted += int(change.state.get(count, 0)) - int(before.state.get(count, 0))
    accounted += change.state.get("buffered") in wanted
    if accounted < len(wanted):
        text = f"{len(wanted) - accounted} of {len(wanted)} occurrences were left out"
        found.add(text, before.clue, change.clue, job=f"{change.queue}/{change.name}")


def _has(definition: Definition, rhythm: Rhythm, at_ms: int) -> bool:
    """Whether it is a time of the rhythm between the definition's start and its end."""
    ended = definition.end_ms is not None and at_ms > definition.end_ms
    return (definition.start_ms or 0) <= at_ms and not ended and bool(rhythm.between(at_ms - 1, at_ms, 1))


def _dropped(change: Change, found: Findings) -> None:
    """Find what an edit took off the wheel, and neither put there again nor left to be decided, though its time stays."""
    definition = _definition(change)
    if definition is None or definition.max_count is not None:
        return
    rhythm = definition.rhythm(int(change.state.get("anchor", 0)))
    placed = {job["id"] for job in change.jobs}
    open_ = {*change.state.get("taken", ()), change.state.get("buffered")}
    for job_id in change.facts.get("back", ()):
        at = nominal_ms(job_id)
        if at is None or job_id in placed or at in open_ or at > int(change.state.get("cursor", 0)):
            continue
        if _has(definition, rhythm, at):
            found.add(
                "an edit took an occurrence off the wheel and dropped it", change.clue, job=f"{change.queue}/{job_id}"
            )


def _extra(change: Change, waited: set[int], found: Findings) -> None:
    """Find jobs at no time of their schedule; an occurrence that waited may be of an earlier definition."""
    definition = _definition(change)
    if definition is None:
        return
    rhythm = definition.rhythm(int(change.state.get("anchor", 0)))
    for job in change.jobs:
        at = nominal_ms(job["id"])
        if job.get("letter") != "c" or at is None or at in waited:
            continue
        if not rhythm.between(at - 1, at, 1):
            found.add("an occurrence is none of its schedule's times", change.clue, job=f"{change.queue}/{job['id']}")


def _beside(runs: Runs, change: Change, found: Findings) -> None:
    """Find an occurrence that was put on the wheel while the one before it was active, where none may overlap."""
    before, us = change.facts.get("before"), change.call.us
    if not before or not any(job.get("letter") == "c" for job in change.jobs):
        return
    job = runs.known(change.queue, before)
    if job is None or job.shaky or job.moved or job.maybe or change.call.shift:
        return
    if any(move.us >= change.call.since and move.since <= us for move in job.moves):
        return  # at the same time
    last = max((move for move in job.moves if move.us < us), key=lambda move: move.at, default=None)
    if last is None or last.terminal or last.shift:
        return
    queue = runs.queue(job.queue)
    gone = any(last.since <= call.us <= us and call.args.get("count", 1) for call in queue.purges)
    back = any(before in call.args.get("back", ()) and last.since <= call.us <= us for call in queue.schedules)
    if not gone and not back and not any(queue.may_have(op, last.since, us) for op in ("purge", "reap", "define")):
        text = "an occurrence was put on the wheel while the one before it was active"
        found.add(text, last, change.clue, job=f"{change.queue}/{change.name}")


def _doubled(runs: Runs, line: list[Change], found: Findings) -> None:
    made: dict[str, Change] = {}
    for change in line:
        for job_id in change.facts.get("back", ()):
            made.pop(job_id, None)
        for job in change.jobs:
            if job.get("letter") != "c":
                continue
            earlier = made.get(job["id"])
            known = runs.known(change.queue, job["id"])
            if earlier is not None and not (known and (known.shaky or known.maybe)):
                found.add(
                    "an occurrence was put on the wheel twice", earlier.clue, change.clue,
                    job=f"{change.queue}/{job['id']}",
                )  # fmt: skip
            made[job["id"]] = change


def _late(runs: Runs, line: list[Change], found: Findings) -> None:
    """Find occurrences whose first attempt started later than the grace allows after they were put on the wheel."""
    placed: dict[str, list[tuple[Change, int]]] = {}
    for change in line:
        for job in change.jobs:
            if job.get("letter") == "c" and nominal_ms(job["id"]) is not None:
                placed.setdefault(job["id"], []).append((change, job["at"]))
    for job_id, places in placed.items():
        known = runs.known(line[0].queue, job_id)
        for start in known.starts if known is not None else ():
            before = [place for place in places if place[0].call.since <= start.token]
            if not before or start.attempt != 1 or start.fire != before[-1][1]:
                continue
            change, fire_ms = before[-1]
            if known is not None and known.may_be_anew(change.call.us, start.token):
                continue
            definition = _definition(change)
            # The grace of a missed occurrence counts from the moment in which it was put on the wheel again.
            latest_ms = max(fire_ms, change.call.us // 1000 + 1)
            if (
                definition is None
                or start.since - start.shift <= late_after_ms(definition, latest_ms) * 1000 + _LATE_SLACK_US
            ):
                continue
            text = "an occurrence started after its grace was over"
            found.add(text, change.clue, start, job=f"{change.queue}/{job_id}")


def _taken_back(runs: Runs, queue: QueueLine, found: Findings) -> None:
    for call in queue.schedules:
        if call.op != "define":
            continue
        anew = {job["id"] for job in call.jobs}
        for job_id in call.args.get("back", ()):
            if job_id in anew:
                continue
            job = runs.known(queue.name, job_id)
            if job is None or job.shaky:
                continue
            after: list[Event] = [move for move in job.moves if move.since > call.us]
            if after and after[0].op == "claim" and not job.may_have({"enqueue"}, after[0].us):
                clue = Clue(f"{clock(call.us)} define {call.args['name']} took it back", call.source)
                found.add("an occurrence ran that had been taken back", clue, after[0], job=f"{queue.name}/{job_id}")


def _definition(change: Change) -> Definition | None:
    """The definition that was written; None where there is none, or this version cannot read it."""
    given = change.facts.get("definition")
    if not given:
        return None
    try:
        return Definition.parse(json.dumps(given | {"payload": ""}))
    except (UndecodableJob, ZwheelError):
        return None


def nominal_ms(job_id: str) -> int | None:
    """The nominal time in an occurrence's id, ms; None when it was started by hand."""
    text = job_id.rpartition("@")[2]
    if text.endswith(":trigger"):
        return None
    try:
        return round(datetime.fromisoformat(text).timestamp() * 1000)
    except ValueError:
        return None
