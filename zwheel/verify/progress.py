"""The promise that nobody waits in vain: a due job and an idle worker that can run it are not together for long.

A worker is idle in a queue from a claim that left it room to its next request there. What it says of itself counts:
looks that wait for their answer, and times in which its event loop did not turn. The timekeeper and its second look by
themselves in time, so that no other worker's fault excuses them. Followers may sleep longer while two workers are struck.

Where a fleet spares, one worker sees to a shard, and it alone looks in time. The others come round to the shard in turn.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

from zwheel.calls.claim import LONGEST_ROLE_MS, ROLE_MS
from zwheel.verify.bounds import Bounds
from zwheel.verify.events import NEVER, CallLine, Event, JobLine, QueueLine, Runs, Span, overlap
from zwheel.verify.report import Clue, Findings, clock
from zwheel.verify.safety import name_of, proof_of

#: Delays that are too short to be recorded may add up to this much between two looks, µs.
_UNTOLD_US = 250_000
#: While a request waits longer than this for its answer, its worker counts as cut off, µs.
_CUT_OFF_US = 300_000


@dataclass(slots=True)
class _Rest:
    """One worker with room, waiting in one queue."""

    span: Span
    claim: CallLine
    away: list[Span]
    """When it did not wait: it asked, its loop did not turn, or other queues had filled it."""

    @property
    def follows(self) -> bool:
        return self.claim.args.get("role") == "follower"

    @property
    def sees_to(self) -> bool:
        return self.claim.args.get("waits") == "sees"

    @property
    def spared(self) -> bool:
        """Whether it leaves it to another to look in time."""
        return self.claim.args.get("waits") == "spares"


def i25_progress(runs: Runs, bounds: Bounds, found: Findings) -> None:
    """No due job waits while a worker of its queue has room and sleeps."""
    one_us, both_us = bounds.idle_ms * 1000 + _UNTOLD_US, bounds.both_ms * 1000 + _UNTOLD_US
    rounds_us = bounds.rounds_ms * 1000 + _UNTOLD_US
    full = _full(runs)
    for name, queue in runs.queues.items():
        rests = _rests(runs, queue, full, one_us)
        if not rests:
            continue
        ends = [rest.span[1] for rest in rests]
        struck = _two_struck(runs, queue, bounds)
        final, closed = runs.final(name), runs.closed(name)
        for job in runs.jobs.values():
            if job.queue != name or job.shaky or job.moved:
                continue
            for since, until, first, last in _waits(
                job, queue, final.us if final is not None else runs.last_us, runs.back_us
            ):
                if until - since <= one_us:
                    continue
                for rest in rests[bisect_left(ends, since) :]:
                    if rest.span[0] >= until:
                        break
                    groups = first.facts.get("groups")
                    if groups is not None and rest.claim.args.get("group") not in groups:
                        # The job was offered to workers that know its task: the others may sleep.
                        continue
                    low, high = max(rest.span[0], since), min(rest.span[1], until)
                    slept = high - low - overlap(rest.away + queue.pauses + closed, low, high)
                    if rest.spared:
                        late = slept > rounds_us
                    else:
                        alone = slept - overlap(struck, low, high) if rest.follows and not rest.sees_to else slept
                        late = alone > one_us or slept > both_us
                    if late:
                        found.add(
                            f"the job was due for {slept / 1e6:.1f} s while a worker slept", first, _clue(rest),
                            *proof_of(last), job=name_of(job),
                        )  # fmt: skip
                        break


def _clue(rest: _Rest) -> Clue:
    call = rest.claim
    room = int(call.args["limit"]) - call.taken
    return Clue(
        f"{clock(rest.span[0])} worker {call.args.get('worker')} had room for {room} more and waited as "
        f"{call.args.get('role')} until {clock(rest.span[1])}", call.source,
    )  # fmt: skip


def _full(runs: Runs) -> dict[str, list[Span]]:
    """When each process had no room, as far as is known: from a claim that filled it to the next claim that did not."""
    by_proc: dict[str, list[CallLine]] = {}
    for queue in runs.queues.values():
        for call in queue.claims:
            by_proc.setdefault(call.source.proc, []).append(call)
    found: dict[str, list[Span]] = {}
    for proc, calls in by_proc.items():
        calls.sort(key=lambda call: call.us)
        since = 0
        for call in calls:
            if call.taken >= int(call.args["limit"]):
                since = since or call.us
            elif since:
                found.setdefault(proc, []).append((since, call.us))
                since = 0
        if since:
            found.setdefault(proc, []).append((since, NEVER))
    return found


def _rests(runs: Runs, queue: QueueLine, full: dict[str, list[Span]], least_us: int) -> list[_Rest]:
    """When a worker had room and waited for long: from a claim to the next one, or to its last look without one."""
    by_proc: dict[str, list[CallLine]] = {}
    for call in queue.claims:
        by_proc.setdefault(call.source.proc, []).append(call)
    found = []
    for proc, calls in by_proc.items():
        looks = queue.looks.get(proc, [])
        away = [*looks, *queue.trips.get(proc, ()), *runs.stalls.get(proc, ()), *full.get(proc, ())]
        for position, call in enumerate(calls):
            if call.word not in ("ok", "empty") or call.args.get("role") in (None, "none"):
                continue
            if position + 1 < len(calls):
                end = calls[position + 1].asked
            else:
                end = max([since for since, _ in looks if since > call.heard], default=call.heard)
                end = max(end, queue.asking.get(proc, 0))
            if end - call.heard > least_us:
                found.append(
                    _Rest((call.heard, end), call, [span for span in away if span[0] < end and span[1] > call.heard])
                )
    found.sort(key=lambda rest: rest.span[1])
    return found


def _two_struck(runs: Runs, queue: QueueLine, bounds: Bounds) -> list[Span]:
    """When two workers of a queue, or more, were dead, frozen or cut off, or had been so shortly before.

    The role of a dead worker lasts for a while, and followers look for a free role now and then.
    """
    lease_ms = bounds.lease_ms or queue.lease_ms
    role_ms = min(LONGEST_ROLE_MS, max(ROLE_MS, lease_ms * 2 // 3))
    after_us = (role_ms + bounds.both_ms) * 1000
    by_pid: dict[str, list[Span]] = {}
    for fault in runs.faults:
        if "pid" in fault.args:
            by_pid.setdefault(str(fault.args["pid"]), []).append(fault.span)
    edges: list[tuple[int, int]] = []
    for proc in {call.source.proc for call in queue.claims}:
        asked = [*queue.trips.get(proc, ()), *queue.looks.get(proc, ())]
        dead_us = runs.procs[proc][-1]
        if proc in queue.asking:
            asked.append((queue.asking[proc], dead_us))
        pid = proc.split(":")[1] if proc.count(":") > 1 else ""
        strikes = [
            *(span for span in asked if span[1] - span[0] > _CUT_OFF_US), *runs.stalls.get(proc, ()),
            *by_pid.get(pid, ()), (dead_us, dead_us),
        ]  # fmt: skip
        for first, last in _merged([(first, last + after_us) for first, last in strikes]):
            edges += [(first, 1), (last, -1)]
    found, count, since = [], 0, 0
    for at, step in sorted(edges):
        count += step
        if count == 2 and step == 1:
            since = at
        elif count == 1 and step == -1:
            found.append((since, at))
    return found


def _merged(spans: list[Span]) -> list[Span]:
    found: list[Span] = []
    for first, last in sorted(spans):
        if found and first <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return found


def _waits(job: JobLine, queue: QueueLine, end_us: int, back_us: int) -> Iterator[tuple[int, int, Event, Event | None]]:
    """When the job was due and unclaimed: from, until, what put it there, the claim that took it."""
    placed: Event | None = None
    for move in job.moves:
        if move.op == "claim":
            if placed is not None:
                yield _due(placed, move.shift), move.us, placed, move
            placed = None
        elif move.terminal:
            placed = None
        else:
            placed = move
    if placed is not None and not job.maybe and not queue.may_have("claim", placed.since, end_us):
        yield _due(placed, back_us), end_us, placed, None


def _due(placed: Event, shift_us: int) -> int:
    return max(placed.us, (placed.fire or 0) * 1000 + shift_us)
