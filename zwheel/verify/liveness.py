"""Promises about time: what was lost by its worker comes back soon, due jobs start, and no one is robbed after a gap."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import pairwise

from zwheel.verify.bounds import Bounds
from zwheel.verify.events import NEVER, Event, JobLine, QueueLine, Runs, Span, overlap
from zwheel.verify.report import Clue, Findings, clock
from zwheel.verify.safety import lease_end, name_of, proof_of


def gaps(queue: QueueLine, longest_us: int) -> list[Span]:
    """When no worker's call was answered for longer than that: no worker was there, or Redis was not."""
    times = queue.answered
    return [(a, b) for a, b in pairwise(times) if b - a > longest_us]


def i23_recovery(runs: Runs, bounds: Bounds, found: Findings) -> None:
    """A job whose worker vanished is taken back within lease, reap interval and slack."""
    limit_us = (bounds.reap_ms + bounds.slack_ms) * 1000
    disturbed = runs.disturbed()
    for name, queue in runs.queues.items():
        # Leases that end later than any can, since the clock was set back, are shortened to one from then.
        longer = [(at, at + queue.lease_ms * 2000 + limit_us) for at in runs.backs]
        silent = longer + gaps(queue, max(limit_us // 2, 1_000_000)) + queue.graces + queue.holds + disturbed
        final = runs.final(name)
        for job in runs.jobs.values():
            if job.queue != name or job.shaky or job.moved:
                continue
            for claim, end in _spells(job):
                until = end.us if end is not None else final.us if final is not None else 0
                seen = final.jobs.get(job.id) if final is not None else None
                if end is None and (seen is None or seen.get("state") != "p" or seen.get("token") != claim.token):
                    continue
                if end is not None and end.op != "reap":
                    continue
                deadline, proof = lease_end(job, claim, until)
                if any(e.op == "extend" and e.token == claim.token for e in job.maybe):
                    deadline += int(claim.facts.get("lease", 0)) * 1000
                late = until - deadline - overlap(silent, deadline, until)
                if end is None:
                    # Without a worker that reaps after the deadline nobody broke the promise.
                    late = min(late, queue.answered[-1] - deadline) if queue.answered else 0
                if late > limit_us:
                    last = end or Clue(
                        f"{clock(until)} snapshot: the job is still processing",
                        final.source if final is not None else None,
                    )
                    found.add(
                        f"the job came back {late / 1e6:.1f} s after its lease ran out" if end
                        else f"the job was not taken back {late / 1e6:.1f} s after its lease ran out",
                        claim, *proof_of(proof), last, job=name_of(job),
                    )  # fmt: skip


def _spells(job: JobLine) -> Iterator[tuple[Event, Event | None]]:
    """Each claim with the move that ended it; None when no known move did."""
    held: Event | None = None
    for move in job.moves:
        if move.op == "claim":
            held = move
        elif held is not None and (move.op == "reap" or move.token == held.token):
            yield held, move
            held = None
    if held is not None and not job.may_have({"complete", "retry", "release", "offer", "bury"}, NEVER, held.token):
        yield held, None


def lateness(runs: Runs) -> list[tuple[int, JobLine, Event]]:
    """Start minus fire time of each start, µs, sorted; without starts that a fault of the whole run delayed."""
    found = []
    for job in runs.jobs.values():
        for start in job.starts:
            fire = (start.fire or 0) * 1000
            middle = (start.since + start.us) // 2 - start.shift
            if fire and not runs.disturbances.touch(fire + 1, middle - 1):
                found.append((max(0, middle - fire), job, start))
    found.sort(key=lambda entry: entry[0])
    return found


def i24_lateness(runs: Runs, bounds: Bounds, found: Findings) -> None:
    """The 99th percentile of the lateness is within the target."""
    if bounds.lateness_ms is None:
        found.undecided("no target was given: name one with --lateness")
        return
    late = lateness(runs)
    if not late:
        found.undecided("nothing started")
        return
    us, job, start = late[min(len(late) - 1, len(late) * 99 // 100)]
    if us > bounds.lateness_ms * 1000:
        found.add(f"the 99th percentile of the lateness is {us / 1000:.1f} ms", start, job=name_of(job))


def i26_no_mass_redelivery(runs: Runs, bounds: Bounds, found: Findings) -> None:
    """After a time in which nobody could renew a lease, or that no clock but the server's passed, the living keep theirs."""
    disturbed = runs.disturbed()
    for name, queue in runs.queues.items():
        least_us = (bounds.lease_ms or queue.lease_ms) * 1000 // 2
        away = [gap for gap in gaps(queue, least_us) if _nobody_was_heard(queue, gap, disturbed, least_us)]
        spans = sorted([(first, last, False) for first, last in away] + [(*jump, True) for jump in queue.jumps])
        if not spans:
            continue
        ends = [last for _, last, _ in spans]
        for job in runs.jobs.values():
            if job.queue != name or job.shaky or job.moved:
                continue
            for claim, end in _spells(job):
                if end is None or end.op != "reap":
                    continue
                at = bisect_right(ends, end.us) - 1
                if at < 0:
                    continue
                first, last, jumped = spans[at]
                deadline, proof = lease_end(job, claim, end.us)
                if deadline < first or _had_its_turn(queue, job, claim, proof or claim, (last, end.us)):
                    continue
                if _ran(runs, queue, claim, (last, end.us), 0 if jumped else first):
                    said = (
                        f"the server's clock jumped to {clock(last)}"
                        if jumped
                        else f"Redis answered nobody until {clock(last)}"
                    )
                    gone = Clue(f"{clock(first)} {said}", None)
                    after = "the server's clock jumped ahead" if jumped else "Redis was away"
                    found.add(
                        f"a job was taken from a living worker right after {after}", claim, *proof_of(proof), gone, end,
                        job=name_of(job),
                    )  # fmt: skip


def _had_its_turn(queue: QueueLine, job: JobLine, claim: Event, granted: Event, span: Span) -> bool:
    """Whether a job's holder could renew its lease between a gap's end and the reap, gave it up, or was cut off alone.

    Its own lease counts, not the longest in use: a worker asks for its jobs more often than once in that.
    """
    last, taken = span
    return (
        granted.us >= last
        or taken - last >= int(granted.facts.get("lease", 0)) * 1000
        or any(e.letter in ("lost", "released") and e.token == claim.token and e.since <= taken for e in job.ends)
        or any(e.op == "extend" and e.token == claim.token and last <= e.since <= taken for e in job.maybe)
        or bisect_right(queue.refused, taken) > bisect_left(queue.refused, last)
    )


def _ran(runs: Runs, queue: QueueLine, claim: Event, span: Span, asked: int) -> bool:
    """Whether a claim's worker ran from before `span` until after it, and wrote something between `asked` and `span`.

    The worker ran when it was never silent for half a lease meanwhile: a worker that holds jobs renews them more often.
    """
    times = runs.procs.get(claim.source.proc, [])
    before, after = bisect_left(times, span[0]) - 1, bisect_left(times, span[1])
    if before < 0 or times[before] <= asked or after == len(times):
        return False
    longest_us = int(claim.facts.get("lease", 0)) * 1000 // 2
    silent = pairwise(times[before : after + 1])
    return all(b - a - overlap(queue.jumps, a, b) <= longest_us for a, b in silent)


def _nobody_was_heard(queue: QueueLine, gap: Span, disturbed: list[Span], least_us: int) -> bool:
    """Whether Redis was away in a gap: someone said so, or workers that asked were refused and none may have got through."""

    def among(times: list[int]) -> bool:
        return bisect_right(times, gap[1]) > bisect_left(times, gap[0] + 1)

    return overlap(disturbed, *gap) > least_us or (among(queue.refused) and not among(queue.unheard))
