"""Promises about single jobs: none lost, none invented, never early, one holder, fenced, bounded, final."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

from zwheel.outside import whole
from zwheel.plain import counted
from zwheel.verify.bounds import Bounds
from zwheel.verify.events import NEVER, SETTLES, Event, JobLine, Runs, Snapshot
from zwheel.verify.report import Clue, Findings, clock

#: No claim of a precise queue takes a job further ahead of its time, ms.
_FARTHEST_MS = 10
_BACK = frozenset({"retry", "release", "offer", "reap", "redrive", "enqueue", "reschedule", "repair"})


def name_of(job: JobLine) -> str:
    """`queue/id`."""
    return f"{job.queue}/{job.id}"


def i1_no_loss(runs: Runs, bounds: Bounds, found: Findings) -> None:
    """Each enqueue that was answered led to an end, or the job is still there."""
    unseen = 0
    for job in runs.jobs.values():
        born = next((move for move in reversed(job.moves) if move.op == "enqueue"), None)
        if born is None:
            continue
        after = job.generation(born)
        ended = [move for move in after if move.terminal]
        final = runs.final(job.queue)
        if final is None or final.us < born.us:
            unseen += not ended
            continue
        seen = final.jobs.get(job.id)
        if seen is None and not job.shaky and not may_be_gone(runs, job, after, final):
            last = after[-1]
            found.add("the job is gone and nothing ended it", last, _absent(final), job=name_of(job))
        elif seen is not None and bounds.drained and not job.shaky and _unfinished(seen, final):
            found.add("the job was due and has not ended", after[-1], _present(final, seen), job=name_of(job))
    if unseen:
        found.undecided(f"no end is in the history of {counted(unseen, 'job')}, and there is no snapshot after them")


def _unfinished(seen: dict[str, Any], final: Snapshot) -> bool:
    state = seen.get("state")
    return state == "p" or (state == "s" and int(seen["fire"]) * 1000 < final.us - final.shift)


def _absent(final: Snapshot) -> Clue:
    return Clue(f"{clock(final.us)} snapshot: the job is not there", final.source)


def _present(final: Snapshot, seen: dict[str, Any]) -> Clue:
    return Clue(f"{clock(final.us)} snapshot: state {seen.get('state')}, listed in {seen.get('in')}", final.source)


def may_be_gone(runs: Runs, job: JobLine, moves: list[Event], final: Snapshot) -> bool:
    """Whether the job's absence is explained: it ended, or someone removed it."""
    last = moves[-1]
    if job.moved and _is_leaving(runs, job):
        return True
    if job.may_have({"complete", "purge", "cancel", "cancelled", "repair"}, NEVER):
        return True
    queue = runs.queue(job.queue)
    if queue.may_have("purge", last.since, final.us):
        return True
    if last.op == "complete" or (last.cancels and _purged(runs, job, last, "done", final)):
        return True
    if last.cancels:
        # Its tombstone goes by itself, after ten minutes at the least.
        return bool(queue.prunes) or queue.may_have("prune", last.since, final.us)
    if last.terminal or job.may_have({"bury"}, NEVER) or queue.may_have("reap", last.since, final.us):
        return runs.trimmed(job) > 0 or _purged(runs, job, last, "dead", final)
    return last.op != "claim" and _purged(runs, job, last, "wheel", final)


def _is_leaving(runs: Runs, job: JobLine) -> bool:
    """Whether it was on its way to another shard of its queue when the last snapshots were taken."""
    return any(job.id in snapshot.head.get("leaving", ()) for snapshot in runs.finals(job.queue))


def _purged(runs: Runs, job: JobLine, last: Event, kind: str, final: Snapshot) -> bool:
    return any(
        call.args["set"].startswith(kind) and call.args.get("count", 1) and last.since <= call.us <= final.us
        for call in runs.queue(job.queue).purges
    )


def i2_no_invention(runs: Runs, bounds: Bounds, found: Findings) -> None:
    """Each job that was claimed, started or seen had been enqueued."""
    for job in runs.jobs.values():
        known = job.kept or job.may_have({"enqueue"}, NEVER) or any(move.op == "enqueue" for move in job.moves)
        if known:
            first_made = min((e.since for e in (*job.moves, *job.maybe) if e.op == "enqueue"), default=0)
            early = next((m for m in job.moves if m.op == "claim" and m.us < first_made), None)
            # What the first sending of an enqueue did may have been lost, before its repeat did it again.
            if early is not None and not job.kept and not job.shaky:
                found.add("the job was claimed before it was enqueued", early, job=name_of(job))
            continue
        proof = [*(m for m in job.moves if m.op == "claim"), *job.starts]
        if proof:
            found.add("the job ran and was never enqueued", proof[0], job=name_of(job))
    for snapshot in runs.snapshots:
        if snapshot.us <= runs.queue(snapshot.queue).began:
            continue
        for job_id, seen in snapshot.jobs.items():
            line = runs.known(snapshot.queue, job_id)
            if line is None or not (line.kept or line.moves or line.may_have({"enqueue"}, NEVER) or line.starts):
                found.add(
                    "the job is stored and no enqueue of it was carried out", _present(snapshot, seen),
                    *(line.refused[:1] if line else ()), job=f"{snapshot.queue}/{job_id}",
                )  # fmt: skip


def i3_never_early(runs: Runs, bounds: Bounds, found: Findings) -> None:
    """No start before the fire time, nor a claim, but for the few ms of a precise queue. The fire time is the one asked for."""
    for job in runs.jobs.values():
        by_token = {}
        before: Event | None = None
        for move in job.moves:
            if move.op != "claim":
                before = move if move.fire is not None or move.op == "reap" else before
                continue
            by_token[move.token] = move
            fire = move.fire or 0
            ahead = min(whole(move.facts.get("ahead")) or 0, _FARTHEST_MS)
            if move.us - move.shift < (fire - ahead) * 1000:
                found.add("the job was claimed before its fire time", move, job=name_of(job))
            elif (
                before is not None and before.fire is not None and before.us == before.since and fire < before.fire
                and not job.shaky and not job.maybe
            ):  # fmt: skip
                found.add(
                    "the job was claimed by an earlier fire time than it was given", before, move, job=name_of(job)
                )
        for start in job.starts:
            claim = by_token.get(start.token)
            fire = (claim.fire if claim is not None else start.fire) or 0
            if start.us - start.shift < fire * 1000:
                found.add("the job started before its fire time", *((claim,) if claim else ()), start, job=name_of(job))


def i4_single_holder(runs: Runs, bounds: Bounds, found: Findings) -> None:
    """At each moment one token holds a job: the next claim comes after the end of the claim before."""
    for job in runs.jobs.values():
        if job.shaky:
            continue
        held: Event | None = None
        for move in job.moves:
            if move.op == "claim":
                deadline, proof = lease_end(job, held, move.us) if held else (0, None)
                ended = held is not None and (
                    job.may_have(SETTLES, move.us, held.token) or job.may_be_anew(held.us, move.us)
                )
                if held is not None and move.us < deadline and not ended:
                    found.add(
                        "two workers held the job at the same time", held, *proof_of(proof), move, job=name_of(job)
                    )
                held = move
            elif move.op == "reap":
                deadline, proof = lease_end(job, held, move.us) if held else (0, None)
                if held is not None and move.us // 1000 * 1000 < deadline:
                    text = "the job was taken from its worker before its lease ran out"
                    found.add(text, held, *proof_of(proof), move, job=name_of(job))
                held = None
            elif held is not None and (move.token == held.token or move.op == "enqueue"):
                held = None


def proof_of(event: Event | None) -> tuple[Event, ...]:
    """The event as a part of a witness, or nothing."""
    return () if event is None else (event,)


def lease_end(job: JobLine, claim: Event, until: int) -> tuple[int, Event | None]:
    """When the lease of a claim ends for certain no earlier, µs, by its renewals up to `until`; and the last of them."""
    end = (claim.us // 1000 + int(claim.facts.get("lease", 0))) * 1000
    last = None
    for renewal in job.extends:
        if renewal.token == claim.token and renewal.us < until:
            renewed = (renewal.us // 1000 + int(renewal.facts["lease"])) * 1000
            if renewed != end:
                end, last = renewed, renewal
    return end, last


def i5_fencing(runs: Runs, bounds: Bounds, found: Findings) -> None:
    """No change by a token after a larger one was issued, or after it was reaped, or after it had ended the claim."""
    for job in runs.jobs.values():
        claims = {move.token: move for move in job.moves if move.op == "claim"}
        takes = _Takes(job)
        settled: dict[int, Event] = {}
        for change in sorted([*job.moves, *job.extends], key=lambda e: (e.since, e.us)):
            if not change.token or change.op == "claim":
                continue
            own = claims.get(change.token)
            if own is None:
                # A keeper renews what its worker claimed also when no answer to that claim was heard: a token is its time.
                unheard = runs.queue(job.queue).may_have("claim", change.token, change.token + runs.back_us)
                if not job.kept and not unheard:
                    found.add("a token that was never issued was accepted", change, job=name_of(job))
                continue
            if not job.shaky:
                _stale(job, takes, own, settled.get(change.token), change, found)
            if change.op in SETTLES:
                settled.setdefault(change.token, change)


class _Takes:
    """The claims and reaps of a job, by time: of a job that was claimed thousands of times, few are looked at."""

    def __init__(self, job: JobLine) -> None:
        self._moves = sorted((move for move in job.moves if move.op in ("claim", "reap")), key=lambda move: move.us)
        self._times = [move.us for move in self._moves]

    def between(self, since: int, until: int) -> list[Event]:
        """Those from one time on, before another one."""
        return self._moves[bisect_left(self._times, since) : bisect_left(self._times, until)]


def _stale(job: JobLine, takes: _Takes, own: Event, earlier: Event | None, change: Event, found: Findings) -> None:
    """Look for what made the token of an accepted change stale before it happened."""
    between = takes.between(own.us, change.since)
    larger = next((m for m in between if m.op == "claim" and m.token > change.token), None)
    reap = next((m for m in between if m.op == "reap" and own.us < m.since), None)
    if earlier is not None and earlier is not change and earlier.us < change.since:
        found.add("a token was accepted again after it had ended its claim", earlier, change, job=name_of(job))
    elif larger is not None:
        found.add("a stale token was accepted", own, larger, change, job=name_of(job))
    elif reap is not None:
        found.add("a token was accepted after its lease was reaped", own, reap, change, job=name_of(job))


def i6_token_order(runs: Runs, bounds: Bounds, found: Findings) -> None:
    """The tokens of a job increase strictly, whatever happens to it."""
    for job in runs.jobs.values():
        last: Event | None = None
        for move in job.moves:
            if move.op == "claim":
                if last is not None and move.token <= last.token and (last.us < move.us or last.token == move.token):
                    found.add("a later claim got a token that is not larger", last, move, job=name_of(job))
                last = move


def i7_duplicate_cause(runs: Runs, bounds: Bounds, found: Findings) -> None:
    """Each claim and start after the first has a cause: the job was released, retried, reaped or redriven before."""
    for job in runs.jobs.values():
        tokens: dict[int, Event] = {}
        for start in job.starts:
            if start.token in tokens:
                found.add("the job was started twice by one claim", tokens[start.token], start, job=name_of(job))
            tokens[start.token] = start
        if job.shaky:
            continue
        last: Event | None = None
        cause = True
        for move in job.moves:
            if move.op == "claim":
                if last is not None and not cause and not _hidden_cause(runs, job, last, move):
                    found.add("the job was claimed again without a cause", last, move, job=name_of(job))
                last, cause = move, False
            elif move.op in _BACK:
                cause = True
        known = {move.token for move in job.moves if move.op == "claim"}
        for token, start in tokens.items():
            if token not in known and not job.kept:
                found.add("the job was started without a claim", start, job=name_of(job))


def _hidden_cause(runs: Runs, job: JobLine, last: Event, claim: Event) -> bool:
    return job.may_have(_BACK, claim.us) or runs.queue(job.queue).may_have("reap", last.us, claim.us)


def i8_attempts(runs: Runs, bounds: Bounds, found: Findings) -> None:
    """Crashes count, releases do not, and no attempt follows the last one."""
    for job in runs.jobs.values():
        least = most = 0
        last: Event | None = None
        for move in job.moves:
            if move.op == "claim":
                if move.attempt > int(move.facts.get("most", NEVER)):
                    found.add("the job got more attempts than it may have", move, job=name_of(job))
                if move.attempt < least + 1 and not job.shaky and not job.kept and not job.maybe:
                    found.add("an attempt was not counted", *proof_of(last), move, job=name_of(job))
                elif last is not None and move.attempt > most + 1 and not _phantoms(runs, job, last, move):
                    found.add("an attempt was counted that never was", last, move, job=name_of(job))
                least = most = move.attempt
                last = move
            elif move.op in ("release", "offer"):
                least, most = max(0, least - 1), max(0, most - 1)
            elif move.op in ("redrive", "enqueue"):
                least = most = 0
                last = None
            elif move.op == "reap" and move.letter == "s" and _used_up(last) and not (job.shaky or job.maybe):
                found.add(
                    "the job was put back although its attempts were used up", *proof_of(last), move, job=name_of(job)
                )


def _used_up(claim: Event | None) -> bool:
    return claim is not None and claim.attempt >= int(claim.facts.get("most", NEVER))


def _phantoms(runs: Runs, job: JobLine, last: Event, claim: Event) -> bool:
    return bool(job.shaky or job.kept or job.maybe) or runs.queue(job.queue).may_have("claim", last.us, claim.us)


def i12_cancel(runs: Runs, bounds: Bounds, found: Findings) -> None:
    """After the answer `cancelled` nothing starts, and what ran was not called cancelled. What was asked for while it ran ends
    with that claim.
    """
    for job in runs.jobs.values():
        if job.shaky:
            continue
        _ends_when_asked(job, found)
        running: Event | None = None
        cancelled: Event | None = None
        for move in job.moves:
            if move.op == "claim":
                if (
                    cancelled is not None
                    and cancelled.us < move.us
                    and not job.may_have({"enqueue", "repair"}, move.us)
                ):
                    found.add("the job was claimed after it was cancelled", cancelled, move, job=name_of(job))
                running = move
            elif move.op == "cancel":
                hidden = runs.queue(job.queue).may_have("reap", running.us, move.us) if running else False
                if running is not None and running.us < move.since and not hidden and not job.maybe:
                    found.add("a running job was answered to be cancelled", running, move, job=name_of(job))
                cancelled = move
            elif move.op == "enqueue":
                cancelled = running = None
            else:
                running, cancelled = None, move if move.cancels else cancelled
        for start in job.starts:
            if (
                cancelled is not None
                and start.since > cancelled.us
                and not any(move.op == "claim" and move.token == start.token for move in job.moves)
            ):
                found.add("the job started after it was cancelled", cancelled, start, job=name_of(job))


def _ends_when_asked(job: JobLine, found: Findings) -> None:
    for ask in job.refused:
        if ask.op != "cancel" or ask.letter != "q" or job.maybe:
            continue
        held = next((move for move in reversed(job.moves) if move.us <= ask.since), None)
        after = next((move for move in job.moves if move.since > ask.us), None)
        if held is None or held.op != "claim" or after is None or any(ask.since < m.us <= ask.us for m in job.moves):
            continue
        if not after.terminal and after.op != "enqueue":
            found.add("the job went on although it was asked to cancel it", held, ask, after, job=name_of(job))


def i13_terminal_is_final(runs: Runs, bounds: Bounds, found: Findings) -> None:
    """Nothing moves a job that ended, but a redrive of a dead one. A new job takes its place as its caller asked only."""
    for job in runs.jobs.values():
        if job.shaky:
            continue
        ended: Event | None = None
        for move in sorted([*job.moves, *job.extends], key=lambda e: (e.since, e.us)):
            if move.op == "enqueue" and move.letter == "r":
                _gave_way(runs, job, move, found)
            elif move.op == "enqueue":
                _made_anew(runs, job, move, found)
            hidden = job.may_have({"redrive", "enqueue", "repair"}, move.us)
            if ended is None or hidden or move.op == "enqueue":
                pass
            elif move.op != "redrive" and move.since > ended.us and not _revived(job, ended, move):
                found.add("a job that had ended was moved", ended, move, job=name_of(job))
            elif move.op == "redrive" and (ended.op == "complete" or ended.cancels):
                found.add("a job that was not dead was redriven", ended, move, job=name_of(job))
            ended = move if move.terminal else None if move.op in ("enqueue", "redrive") else ended


def _before(job: JobLine, made: Event) -> list[Event]:
    """What happened to a job before an enqueue of it; nothing, where something may have happened beside it."""
    if job.maybe or any(move is not made and move.us >= made.since and move.since <= made.us for move in job.moves):
        return []
    return [move for move in job.moves if move.us < made.since]


def _gave_way(runs: Runs, job: JobLine, made: Event, found: Findings) -> None:
    """Judge what an enqueue put a new job in the place of: a cancelled job, or any that ended when it asked for that."""
    before = _before(job, made)
    if not before or runs.queue(job.queue).may_have("reap", before[0].us, made.us):
        return
    # What may have been the last word: a repeat says only by when it was.
    begun = max((move.since for move in before if move.op in ("enqueue", "redrive")), default=0)
    ends = [move for move in before if move.terminal and move.us >= begun]
    asked = made.facts.get("replace")
    if not ends:
        found.add("a job that lived gave way to a new one", before[-1], made, job=name_of(job))
    elif not asked and (asked is not None or not any(end.cancels for end in ends)):
        text = "a job that had ended gave way although that was not asked for"
        found.add(text, ends[-1], made, job=name_of(job))


def _made_anew(runs: Runs, job: JobLine, made: Event, found: Findings) -> None:
    """See that no job of this id lived when one was created: it had ended and was not kept, or somebody deleted it."""
    before = _before(job, made)
    if not before or before[-1].terminal:
        return
    queue, last = runs.queue(job.queue), before[-1]
    hidden = any(queue.may_have(op, last.since, made.us) for op in ("purge", "reap", "claim"))
    purged = any(last.since <= call.us <= made.us and call.args.get("count", 1) for call in queue.purges)
    if not (hidden or purged):
        found.add("a job was created while one of its id lived", last, made, job=name_of(job))


def _revived(job: JobLine, ended: Event, move: Event) -> bool:
    """Whether the job may have been redriven or enqueued anew in between: a repeat says only by when it was."""
    return any(e.op in ("enqueue", "redrive") and e.us > ended.since and e.since < move.us for e in job.moves)
