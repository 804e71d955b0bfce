"""Promises about what is stored: each job in one place, the index right, dedup keys owned, nothing hidden or undeclared."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from zwheel.keys import queue_of
from zwheel.outside import score_ms, whole
from zwheel.times import day_of
from zwheel.verify.bounds import Bounds
from zwheel.verify.events import NEVER, Event, JobLine, Runs, Snapshot
from zwheel.verify.report import Clue, Findings, clock
from zwheel.verify.safety import may_be_gone, name_of

_NO_SNAPSHOT = "there is no snapshot: write one with zwheel verify --snapshot"
#: The set that a job of each state is in; '?' is a record that this version cannot read.
_PLACES = {"s": "wheel", "p": "processing", "x": "dead", "d": "done", "c": "done", "?": "dead"}
_RECEIPT = re.compile(r"(?:memory|(fsynced)?(?:, )?(?:replicated\((\d+)\))?)\Z")


def _seen(snapshot: Snapshot, job_id: str, seen: dict[str, Any]) -> Clue:
    where = ", ".join(f"{name} at {score}" for name, score in seen.get("in", ())) or "no set"
    state = seen.get("state") or "no record"
    return Clue(
        f"{clock(snapshot.us)} snapshot: {job_id}: {state}, fire time {seen.get('fire')}, in {where}", snapshot.source
    )


def _each(runs: Runs, found: Findings) -> Iterator[Snapshot]:
    if not runs.snapshots:
        found.undecided(_NO_SNAPSHOT)
    _say_left_out(runs, found)
    yield from runs.snapshots


def _say_left_out(runs: Runs, found: Findings) -> None:
    """Of what was not read nothing can be decided."""
    if names := [str(name) for args, _ in runs.keyspaces for name in args.get("away", ())]:
        few = ", ".join(names[:8]) + ", ..." * (len(names) > 8)
        found.undecided(f"the snapshot lacks {few}: a node of the cluster gave no answer")


def i9_one_place(runs: Runs, bounds: Bounds, found: Findings) -> None:
    """In every snapshot each job is in exactly one set, that of its state, by its own time, and its body is where it says."""
    for snapshot in _each(runs, found):
        for job_id, seen in snapshot.jobs.items():
            places, state = seen.get("in", []), seen.get("state")
            job = f"{snapshot.queue}/{job_id}"
            kind = places[0][0].partition(":")[0] if places else ""
            said, there = seen.get("body", (0, 0))
            if said != there:
                what = (
                    "no record asks for" if not said else f"is not the one of {said:,} bytes that the record asks for"
                )
                found.add(f"a body of {there:,} bytes lies apart that {what}", _seen(snapshot, job_id, seen), job=job)
            if state is None and not places:
                continue
            if state is None:
                found.add("a set lists a job that has no record", _seen(snapshot, job_id, seen), job=job)
            elif len(places) != 1:
                what = "is in no set" if not places else f"is in {len(places)} sets"
                found.add(f"the job {what}", _seen(snapshot, job_id, seen), job=job)
            elif _PLACES.get(state) != kind and not (state == "?" and kind == "wheel"):
                found.add(
                    f"the job is listed in {kind}, not where its state belongs", _seen(snapshot, job_id, seen), job=job
                )


def i10_index(runs: Runs, bounds: Bounds, found: Findings) -> None:
    """The index names the non-empty buckets, and each job is in the bucket of its fire time, at its fire time."""
    for snapshot in _each(runs, found):
        filled: dict[str, str] = {}
        for job_id, seen in snapshot.jobs.items():
            for name, score in seen.get("in", ()):
                if not name.startswith("wheel:"):
                    continue
                day = name.removeprefix("wheel:")
                filled.setdefault(day, job_id)
                job = f"{snapshot.queue}/{job_id}"
                fire = seen.get("fire")
                at = score_ms(score)
                if at is None:
                    found.add(
                        "the job is on the wheel at a time that cannot be", _seen(snapshot, job_id, seen), job=job
                    )
                elif day_of(at) != day:
                    found.add("the job is in the bucket of another day", _seen(snapshot, job_id, seen), job=job)
                elif fire is not None and int(fire) != at:
                    found.add(
                        "the job is on the wheel at another time than its record says",
                        _seen(snapshot, job_id, seen),
                        job=job,
                    )
        days = {str(day) for day in snapshot.head.get("days", ())}
        listed = Clue(
            f"{clock(snapshot.us)} snapshot: the index names {', '.join(sorted(days)) or 'no day'}", snapshot.source
        )
        for day in sorted(filled.keys() - days):
            job_id = filled[day]
            proof = _seen(snapshot, job_id, snapshot.jobs[job_id])
            found.add(
                f"the bucket of {day} has jobs and the index does not name it",
                listed,
                proof,
                job=f"{snapshot.queue}/{job_id}",
            )
        for day in sorted(days - filled.keys()):
            found.add(f"the index names {day}, whose bucket is empty", listed)


def i11_dedup(runs: Runs, bounds: Bounds, found: Findings) -> None:
    """A dedup key has one living holder, names a living job or a window that lasts, and refuses for its holder only."""
    _dedup_stored(runs, found)
    by_digest: dict[tuple[str, str], list[tuple[Event, JobLine]]] = {}
    for job in runs.jobs.values():
        for move in job.moves:
            if move.op == "enqueue" and move.digest:
                by_digest.setdefault((queue_of(job.queue), move.digest), []).append((move, job))
    for (queue, _), made in by_digest.items():
        made.sort(key=lambda pair: pair[0].us)
        for (first, holder), (second, job) in pairwise(made):
            if job is holder and second.letter == "r":
                continue  # The key passed on to the job that took its place.
            held_by = _holds(runs, holder, first, second.us)
            if held_by is not None and not (job.shaky or holder.shaky):
                found.add(
                    "two jobs were created for one dedup key while the first held it", first,
                    *([held_by] if held_by is not first else []), second, job=f"{queue}/{job.id}",
                )  # fmt: skip
    for job in runs.jobs.values():
        for refused in job.refused:
            if refused.op == "enqueue" and refused.letter == "k":
                _refusal(runs, job, refused, found)


def _dedup_stored(runs: Runs, found: Findings) -> None:
    for snapshot in _each(runs, found):
        for digest, holder, end in snapshot.head.get("dedup", ()):
            seen = snapshot.jobs.get(holder) if holder is not None else None
            alive = seen is not None and seen.get("state") in ("s", "p", "?")
            if holder is None:
                found.add(
                    "a dedup window has no key",
                    Clue(f"{clock(snapshot.us)} snapshot: {digest} until {end}", snapshot.source),
                )
            elif not alive and end is None:
                text = f"{clock(snapshot.us)} snapshot: dedup {digest} is held by {holder}"
                found.add("a dedup key names a job that ended, and no window keeps it", Clue(text, snapshot.source),
                          *([_seen(snapshot, holder, seen)] if seen else ()), job=f"{snapshot.queue}/{holder}")  # fmt: skip
            elif seen is not None and end is None and seen.get("digest") != digest and seen.get("state") != "?":
                text = f"{clock(snapshot.us)} snapshot: dedup {digest} is held by {holder}, whose key is another"
                found.add(
                    "a dedup key names a job of another key",
                    Clue(text, snapshot.source),
                    job=f"{snapshot.queue}/{holder}",
                )


def _last_before(job: JobLine, since: Event, until: int) -> tuple[Event, bool]:
    """The last move of a job's life from `since` on that certainly happened before `until`; whether another may have."""
    last = since
    unsure = bool(job.maybe and any(event.since <= until for event in job.maybe))
    for move in job.generation(since):
        if move.us < until:
            last = move
        elif move.since <= until:
            unsure = True
    return last, unsure


def _holds(runs: Runs, job: JobLine, made: Event, until: int) -> Event | None:
    """What proves that a job still holds its dedup key at `until`; None when it need not."""
    last, unsure = _last_before(job, made, until)
    queue = runs.queue(job.queue)
    if unsure or queue.may_have("reap", made.us, until) or queue.may_have("purge", made.us, until):
        return None
    if any(made.us <= call.us <= until and call.args.get("count", 1) for call in queue.purges):
        return None
    if not last.terminal:
        return last
    window = made.facts.get("window")
    if last.cancels or window is None:
        return None
    return last if (made.us // 1000 + int(window)) > until // 1000 else None


def _refusal(runs: Runs, job: JobLine, refused: Event, found: Findings) -> None:
    """A refused enqueue must name the job that held the key."""
    holder = runs.known(job.queue, str(refused.facts.get("held")))
    if holder is None or not (holder.moves or holder.maybe or holder.kept):
        found.add("an enqueue was refused for a job that never was", refused, job=name_of(job))
        return
    if holder.shaky or holder.kept or holder.maybe:
        return
    made = [m for m in holder.moves if m.op == "enqueue" and m.since <= refused.us]
    keyed = [m for m in made if m.digest == refused.digest]
    if not keyed:
        found.add("an enqueue was refused for a job of another dedup key", *made[-1:], refused, job=name_of(job))
        return
    # It may have ended, and been enqueued again without the key, while its window lasts.
    last, unsure = _last_before(holder, keyed[-1], refused.since)
    window = keyed[-1].facts.get("window")
    made_us, asked_us = keyed[-1].us - keyed[-1].shift, refused.since - refused.shift
    lasts = window is not None and made_us // 1000 + int(window) >= asked_us // 1000
    if last.terminal and not unsure and last.us < refused.since and not lasts:
        found.add("an enqueue was refused for a job that no longer held the key", last, refused, job=name_of(job))


def i19_parked(runs: Runs, bounds: Bounds, found: Findings) -> None:
    """What could not be run is dead with a reason, not gone."""
    buried = [
        (job, move) for job in runs.jobs.values() for move in job.moves[-1:]
        if move.op == "bury" or (move.op == "reap" and move.letter == "x")
    ]  # fmt: skip
    if buried and not runs.snapshots:
        found.undecided(_NO_SNAPSHOT)
    for job, move in buried:
        final = runs.final(job.queue)
        if final is None or final.us < move.us or job.shaky or job.maybe:
            continue
        queue = runs.queue(job.queue)
        trimmed = runs.trimmed(job)
        removed = any(c.args["set"] == "dead" and c.args.get("count", 1) and c.us >= move.since for c in queue.purges)
        if job.id not in final.jobs and not trimmed and not removed and not queue.may_have("purge", move.us, final.us):
            absent = Clue(f"{clock(final.us)} snapshot: it is not there, and no dead job was trimmed", final.source)
            found.add("a dead job is gone without a trace", move, absent, job=name_of(job))
        elif move.op == "bury" and not move.facts.get("reason"):
            found.add("a job was buried without a reason", move, job=name_of(job))
    for snapshot in runs.snapshots:
        for job_id, seen in snapshot.jobs.items():
            if seen.get("state") == "x" and not seen.get("reason"):
                found.add("a dead job has no reason", _seen(snapshot, job_id, seen), job=f"{snapshot.queue}/{job_id}")


def i20_keys(runs: Runs, bounds: Bounds, found: Findings) -> None:
    """Every key is declared and of its type; keys that must stay have no time to live, all others have one."""
    if not runs.keyspaces:
        found.undecided(_NO_SNAPSHOT)
    _say_left_out(runs, found)
    for args, source in runs.keyspaces:
        for kind, text in (
            ("unknown", "a key that no version declares"),
            ("no_ttl", "a key that would stay for ever"),
            ("ttl", "a key that would go by itself"),
            ("type", "a key of another type: another program's"),
            ("strange", "an entry of the list of queues that is no name of a queue"),
        ):
            for key in args.get(kind, ()):
                found.add(text, Clue(f"snapshot: {key}", source))


def i21_receipts(runs: Runs, bounds: Bounds, found: Findings) -> None:
    """A receipt claims no more than what the server confirmed, and its jobs survive what it stands for."""
    for receipt, line, source in runs.receipts:
        parsed = _RECEIPT.fullmatch(receipt)
        args = line.get("args", {})
        replicas, fsynced = (int(parsed[2] or 0), bool(parsed[1])) if parsed else (NEVER, True)
        shown = Clue(f"{clock(int(line['redis_us']))} enqueue with receipt {receipt}", source)
        if (whole(args.get("wait")) or 0) < replicas or (whole(args.get("waitaof")) or 0) < fsynced:
            told = Clue(f"the server answered {args.get('wait')} to WAIT and {args.get('waitaof')} to WAITAOF", source)
            found.add("a receipt claims more than the server confirmed", shown, told)
            continue
        for facts in line["jobs"]:
            job = runs.known(line["queue"], facts.get("held", facts["id"]))
            if job is not None and (proof := _lost(runs, job, int(line["redis_us"]), replicas, fsynced)) is not None:
                found.add(f"a job whose receipt says {receipt} is gone", shown, proof, job=name_of(job))


def _lost(runs: Runs, job: JobLine, asked: int, replicas: int, fsynced: bool) -> Clue | None:
    """What proves that a job with a receipt is gone, although nobody ended it and the receipt survives what was lost."""
    final = runs.final(job.queue)
    born = next((move for move in reversed(job.moves) if move.op == "enqueue"), None)
    if final is None or born is None or not born.since <= asked <= final.us or job.id in final.jobs:
        return None
    survived = all(
        fsynced if fault.kind == "loss" else fault.kind == "failover" and replicas >= fault.args.get("replicas", NEVER)
        for fault in runs.losses(job.queue, born.since, born.us)
    )
    if not survived or may_be_gone(runs, job, job.generation(born), final):
        return None
    return Clue(f"{clock(final.us)} snapshot: the job is not there", final.source)
