"""Reads the files of a history, line by line, and sorts what they say by job and by queue."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from zwheel.errors import InvalidInput
from zwheel.keys import queue_of
from zwheel.outside import shown
from zwheel.verify.cuts import cut_of, join_cuts
from zwheel.verify.events import (
    ACCEPTED,
    LONG_TRIP_US,
    NEVER,
    SETTLES,
    CallLine,
    Event,
    Fault,
    QueueLine,
    Runs,
    Snapshot,
    Source,
    Span,
)
from zwheel.verify.steps import Sample, Steps

Line = dict[str, Any]

_HANDLER = frozenset({"start", "end"})
_WORKERS = frozenset({"claim", "step_down", "extend", "reap"})
_NAMELESS = frozenset({"claim", "reap", "purge", "prune", "advance", "define"})
#: What a worker's poller asks, one round trip after the other.
_POLLED = SETTLES | {"claim", "step_down"}
#: Changes of schedules: what they put on the wheel is enqueued, what they take back is as good as purged.
_SCHEDULES = frozenset({"advance", "define"})
#: They carry a job to another shard of its queue, and change nothing of it.
_CARRIES = frozenset({"depart", "arrive"})
_PROC_EVERY_US = 1_000


#: What Python raises for a value of another kind, or beyond all bounds.
STRANGE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
#: What a repair says of jobs that it changed nothing of: each newly dead job is looked at by each worker.
_LEFT_ALONE = frozenset("cgml")


class BadHistory(InvalidInput):
    """A file that is no history, or holds values that cannot be."""

    @classmethod
    def at(cls, where: object, error: Exception) -> BadHistory:
        """Say where a value cannot be, and what it led to."""
        if isinstance(error, cls):
            return error
        return cls(f"{where}: {type(error).__name__}: {shown(error)}")


def paths_of(named: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Find the files: those named, and every *.jsonl in the named directories. Raises: BadHistory."""
    found: list[Path] = []
    for name in named:
        path = Path(name)
        if path.is_dir():
            found += sorted(path.rglob("*.jsonl"))
        elif path.exists():
            found.append(path)
        else:
            raise BadHistory(f"{path}: there is no such file or directory")
    if not found:
        raise BadHistory("no history there: a directory of one holds files that end in .jsonl")
    return found


def read(named: Iterable[str | os.PathLike[str]]) -> Runs:
    """Read files and directories. Raises: BadHistory, OSError."""
    paths = paths_of(named)
    samples: dict[str, list[Sample]] = {}
    runs = _read(paths, {}, samples)
    try:
        steps = {host: found for host, told in samples.items() if (found := Steps(told)).back_us}
        if steps:
            # The server's clock was set back: what it told is no order of what happened.
            runs = _read(paths, steps, {})
            runs.back_us = max(found.back_us for found in steps.values())
            runs.backs = sorted(at for found in steps.values() for at in found.backs)
        _settle(runs)
    except STRANGE as error:
        raise BadHistory.at("a value of the history cannot be", error) from error
    return runs


def _read(paths: list[Path], steps: dict[str, Steps], samples: dict[str, list[Sample]]) -> Runs:
    runs = Runs()
    for path in paths:
        runs.files += 1
        _File(runs, path, steps, samples).read()
    return runs


def _lines(path: Path, runs: Runs) -> Iterator[tuple[int, Line]]:
    number = 0
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                line = json.loads(raw)
            except (ValueError, RecursionError):
                if raw.endswith(b"\n"):
                    raise BadHistory(f"{path}, line {number}: this is no JSON") from None
                # The process was killed in the middle of its last write.
                runs.torn += 1
                return
            if not isinstance(line, dict) or "op" not in line or "phase" not in line:
                raise BadHistory(f"{path}, line {number}: this is no line of a history: it has no op and no phase")
            yield number, line
    runs.lines += number


class _File:
    """One process's file: pairs each outcome with what was asked."""

    def __init__(self, runs: Runs, path: Path, steps: dict[str, Steps], samples: dict[str, list[Sample]]) -> None:
        """steps: of the server's clock, as each machine saw them. samples: take what tells of such steps."""
        self.runs = runs
        self.path = path
        self.steps = steps
        self.samples = samples
        #: Asked and not yet answered, by sequence number.
        self.open: dict[Any, tuple[Line, Source]] = {}
        #: Sendings of a request whose outcome is unknown, until a repeat of it is answered.
        self.unheard: dict[str, list[tuple[Line, Source]]] = {}
        #: When the poller of each process asked a queue for something and got no answer yet.
        self.asking: dict[tuple[str, str], int] = {}
        #: Requests that were answered, with the tokens they gave. A request is sent again when others of its round trip failed.
        self.heard: dict[str, set[int]] = {}

    def read(self) -> None:
        last_us = 0
        for number, line in _lines(self.path, self.runs):
            source = Source(self.path.name, number, str(line.get("proc", "")))
            try:
                self._set_right(line, source)
                last_us = self._line(line, source) or last_us
            except STRANGE as error:
                raise BadHistory.at(f"{self.path}, line {number}", error) from error
        for line, source in self.open.values():
            self._unheard(line, source)
        for (name, proc), us in self.asking.items():
            self.runs.queue(name).asking[proc] = us
        for request in self.unheard.values():
            for line, source in request:
                self._unknown(line, source)

    def _set_right(self, line: Line, source: Source) -> None:
        """Give a line times that rise on where the server's clock was set back, and tell by how much they differ."""
        mono_us = int(line.get("mono_ns") or 0) // 1000
        if not mono_us:
            return
        host = source.proc.partition(":")[0]
        steps = self.steps.get(host)
        asked = self.open.get(line.get("seq")) if "redis_us" in line else None
        asked_us = int(asked[0]["mono_ns"]) // 1000 if asked else mono_us
        if steps is None:
            if asked:
                self.samples.setdefault(host, []).append((asked_us, mono_us, int(line["redis_us"])))
        elif "redis_us" in line:
            line["shift"] = steps.shift(asked_us, mono_us, int(line["redis_us"]))
            line["redis_us"] += line["shift"]
        elif "est_us" in line:
            now_us, wrong_us, line["shift"] = steps.now(mono_us)
            line["err_us"] = max(wrong_us, int(line.get("err_us", 0)))
            window = line.get("args", {}).get("window", [])
            window[:] = [now_us - int(line["est_us"]) + int(us) for us in window]
            line["est_us"] = now_us

    def _line(self, line: Line, source: Source) -> int:
        op, phase = line["op"], line["phase"]
        us = int(line.get("redis_us") or line.get("est_us") or 0)
        if us:
            times = self.runs.procs.setdefault(source.proc, [])
            written_us = self._written(line, us)
            if not times or written_us - times[-1] > _PROC_EVERY_US:
                times.append(written_us)
            if "redis_us" in line and us > self.runs.last_us:
                self.runs.last_us = us
        if op == "final":
            self._final(line, source)
        elif op == "fault":
            self._fault(line, source)
        elif op in _HANDLER:
            self._handler(line, source)
        elif op == "hold":
            self.runs.queue(line["queue"]).reaps.append((source.proc, us, True))
        elif op == "look":
            self.runs.queue(line["queue"]).looks.setdefault(source.proc, []).append(_window(line))
        elif op == "stall":
            self.runs.stalls.setdefault(source.proc, []).append(_window(line))
        elif phase == "invoke":
            self.open[line["seq"]] = (line, source)
            if op in _POLLED:
                self.asking.setdefault((line["queue"], source.proc), _earliest(line))
        else:
            asked = self.open.pop(line["seq"], None)
            if phase == "info":
                self._unheard(asked[0] if asked else line, source)
            elif phase == "ok":
                self._ok(line, source, asked)
            elif phase == "fail" and op in _WORKERS and asked:
                queue = self.runs.queue(line["queue"])
                if "redis_us" in line:
                    queue.answered.append(int(line["redis_us"]))
                else:
                    queue.refused.append(_earliest(asked[0]))
        return us

    def _written(self, line: Line, us: int) -> int:
        """When a line of this time was written: a process that was frozen hears an answer long after it was given."""
        asked = self.open.get(line.get("seq")) if "redis_us" in line else None
        if asked is None:
            return us
        return max(us, int(asked[0]["est_us"]) + (int(line["mono_ns"]) - int(asked[0]["mono_ns"])) // 1000)

    def _unheard(self, line: Line, source: Source) -> None:
        op = line["op"]
        self.runs.infos[op] = self.runs.infos.get(op, 0) + 1
        if op in _WORKERS or op in SETTLES:
            self.runs.queue(line["queue"]).unheard.append(_earliest(line))
        request = line.get("request")
        if request is None:
            self._unknown(line, source)
        else:
            self.unheard.setdefault(f"{line['queue']} {request}", []).append((line, source))

    def _unknown(self, line: Line, source: Source) -> None:
        since = _earliest(line)
        op, queue = line["op"], line["queue"]
        if op in _NAMELESS:
            self.runs.queue(queue).unknown.setdefault(op, []).append((since, NEVER))
        if op == "pause":
            self.runs.queue(queue).pauses.append((since, NEVER))
        for job in line["jobs"]:
            if op in _CARRIES:
                self.runs.job(queue, job["id"]).carried.append((since, NEVER))
                continue
            known_as = "enqueue" if op in _SCHEDULES else job.get("end", op)
            self.runs.job(queue, job["id"]).maybe.append(Event(known_as, since, NEVER, job, source, sure=False))
        self._take_back(line, since, NEVER, source)

    def _take_back(self, line: Line, since: int, until: int, source: Source) -> None:
        for job_id in line.get("args", {}).get("back", ()) if line["op"] == "define" else ():
            event = Event("purge", since, until, {"id": job_id}, source, sure=False)
            self.runs.job(line["queue"], job_id).maybe.append(event)

    def _ok(self, line: Line, source: Source, asked: tuple[Line, Source] | None) -> None:
        op, name = line["op"], line["queue"]
        queue = self.runs.queue(name)
        if op in ("pause", "resume"):
            if asked and op == "pause":
                queue.pauses.append((_earliest(asked[0]), NEVER))
            elif asked:
                queue.resumes.append(_latest(asked[0]))
            return
        us = since = int(line["redis_us"])
        queue.began = min(queue.began, us)
        request = line.get("request")
        earlier = self.unheard.pop(f"{name} {request}", None) if request is not None else None
        if earlier:
            since = min(since, *(_earliest(sent) for sent, _ in earlier))
            if op == "claim":
                # An earlier sending may have claimed what ran out before the answer arrived.
                queue.unknown.setdefault("claim", []).append((since, us))
        args = line.get("args", {})
        heard = _earliest(asked[0]) + (int(line["mono_ns"]) - int(asked[0]["mono_ns"])) // 1000 if asked else us
        sent, heard = since, max(us, heard)
        if op in _POLLED:
            sent = min(since, self.asking.pop((name, source.proc), since))
            if heard - sent > LONG_TRIP_US:
                queue.trips.setdefault(source.proc, []).append((sent, heard))
        call = CallLine(op, line.get("word", ""), since, us, args, source, len(line["jobs"]), sent, heard)
        call.shift = shift = int(line.get("shift", 0))
        self._queue_call(queue, call, line)
        self._take_back(line, since, us, source)
        job_of = self.runs.job
        op = "enqueue" if op in _SCHEDULES else op
        told = self.heard.get(f"{name} {request}")
        if request is not None:
            tokens = {facts["token"] for facts in line["jobs"] if "token" in facts}
            self.heard[f"{name} {request}"] = tokens if told is None else told | tokens
        for facts in line["jobs"]:
            if told is not None and (op != "claim" or facts["token"] in told):
                # The first answer once more.
                continue
            job = job_of(name, facts["id"])
            if op in _CARRIES:
                job.carried.append((since, us))
            elif op == "claim":
                taken = min(us, max(since, facts["token"])) if earlier else us
                event = Event(op, taken, taken, facts, source, sure=True)
                event.facts = facts | args
                event.shift = shift
                job.moves.append(event)
            elif op == "repair" and facts.get("letter", "?") in _LEFT_ALONE:
                continue
            elif op in ("purge", "repair"):
                job.maybe.append(Event(op, since, us, facts, source, sure=False))
            else:
                # A job that was settled says how.
                kind = facts.get("end", op)
                event = Event(kind, min(us, max(since, _made(facts) + shift)), us, facts, source, sure=True)
                event.shift = shift
                if event.letter not in ACCEPTED.get(kind, ""):
                    job.refused.append(event)
                elif op == "extend":
                    event.facts = facts | args
                    job.extends.append(event)
                else:
                    job.moves.append(event)

    def _queue_call(self, queue: Any, call: CallLine, line: Line) -> None:
        op = call.op
        if op in _WORKERS:
            queue.answered.append(call.us)
        if op in ("claim", "step_down"):
            # Who steps down asks for nothing more: it has no room.
            queue.claims.append(call)
            queue.lease_ms = max(queue.lease_ms, int(call.args.get("lease", 0)))
        elif op == "purge":
            queue.purges.append(call)
        elif op == "prune":
            queue.prunes.append(call)
        elif op == "reshard" and call.args["step"] in ("prepare", "open", "end"):
            # Files are read one after the other: the latest cut counts.
            name = queue_of(queue.name)
            self.runs.cuts[name] = max(self.runs.cuts.get(name, (0, 0)), (call.us, cut_of(queue.name)))
        elif op in _SCHEDULES:
            call.jobs = line["jobs"]
            queue.schedules.append(call)
        elif op == "enqueue":
            receipt = str(line.get("receipt", ""))
            self.runs.receipts_seen += bool(receipt)
            if receipt not in ("", "memory"):
                self.runs.receipts.append((receipt, line, call.source))
        if op == "reap":
            queue.reaps.append((call.source.proc, call.us, False))
        jumped_us = int(call.args.get("jumped") or 0) * 1000
        if jumped_us > 0:
            queue.jumps.append((call.us - jumped_us, call.us))
        grace = int(call.args.get("grace") or 0) * 1000 + call.shift
        if grace > call.us:
            queue.graces.append((call.us, grace))

    def _handler(self, line: Line, source: Source) -> None:
        for facts in line["jobs"]:
            job = self.runs.job(line["queue"], facts["id"])
            est, err = int(line["est_us"]), int(line.get("err_us", 0))
            event = Event(line["op"], est - err, est + err, facts, source, sure=True)
            event.shift = int(line.get("shift", 0))
            event.letter = str(line.get("args", {}).get("outcome", ""))
            (job.starts if line["op"] == "start" else job.ends).append(event)

    def _fault(self, line: Line, source: Source) -> None:
        args = line.get("args", {})
        if args.get("window"):
            span = _window(line)
        else:
            at = int(line.get("redis_us") or line.get("est_us") or line["wall_ns"] // 1000)
            span = (at, at)
        self.runs.faults.append(Fault(str(args["kind"]), span, args, source))

    def _final(self, line: Line, source: Source) -> None:
        args = line["args"]
        if args["part"] == "keys":
            self.runs.keyspaces.append((args, source))
            return
        number, name = str(args.get("snapshot", "")), line["queue"]
        found = [s for s in self.runs.snapshots if s.number == number and s.queue == name]
        snapshot = found[0] if found else Snapshot(name, int(line["redis_us"]), number)
        snapshot.shift = int(line.get("shift", 0))
        if not found:
            self.runs.snapshots.append(snapshot)
        if args["part"] == "queue":
            snapshot.head, snapshot.source = args, source
        for job in line["jobs"]:
            snapshot.jobs[job["id"]] = job


def _made(facts: Line) -> int:
    """When a job was made at the earliest by its fire time and its delay, µs; 0 when that is not known.

    A repeat of an enqueue says only by when it was carried out, and the fire time when.
    """
    delay, fire = facts.get("delay"), facts.get("fire")
    return (fire - delay - 1) * 1000 if isinstance(delay, int) and isinstance(fire, int) else 0


def _earliest(line: Line) -> int:
    return int(line["est_us"]) - int(line.get("err_us", 0))


def _window(line: Line) -> Span:
    first, last = line["args"]["window"]
    return int(first), int(last)


def _latest(line: Line) -> int:
    return int(line["est_us"]) + int(line.get("err_us", 0))


def _holds(queue: QueueLine) -> list[Span]:
    """From each time that a worker held itself back to its next reap, or to the longest time it may wait for that."""
    longest_us = queue.lease_ms * 1000 * 4 // 3
    spans: list[Span] = []
    since: dict[str, int] = {}
    for proc, us, held in sorted(queue.reaps, key=lambda reap: reap[1]):
        before = since.pop(proc, None)
        if before is not None:
            spans.append((before, min(us, before + longest_us)))
        if held:
            since[proc] = us
    return spans + [(us, us + longest_us) for us in since.values()]


def _settle(runs: Runs) -> None:
    for times in runs.procs.values():
        times.sort()
    for queue in runs.queues.values():
        queue.answered.sort()
        queue.refused.sort()
        queue.unheard.sort()
        queue.claims.sort(key=lambda call: call.us)
        queue.jumps.sort()
        queue.holds = _holds(queue)
        resumes = sorted(queue.resumes)
        queue.pauses = [(s, next((r for r in resumes if r >= s), NEVER)) for s, _ in queue.pauses]
    runs.settle_faults()
    if runs.lost.parts:
        for job in runs.jobs.values():
            job.shaky = any(
                runs.losses(job.queue, since, until)
                for since, until in [*((event.since, event.us) for event in (*job.moves, *job.extends)), *job.carried]
            )
    join_cuts(runs)
    for job in runs.jobs.values():
        job.settle()
    for snapshot in runs.snapshots:
        if snapshot.us <= runs.queue(snapshot.queue).began:
            for job_id in snapshot.jobs:
                runs.job(snapshot.queue, job_id).kept = True
