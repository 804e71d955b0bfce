"""Queues that were cut into another number of shards: what the shards of all cuts say of a job is put together.

A job has one line, in the shard of the last cut where it belongs. So a job that is lost, doubled or invented on its way from
one shard to another shows as any other.
"""

from __future__ import annotations

from collections.abc import Sequence

from zwheel.keys import queue_of, shard_names, shard_number
from zwheel.verify.events import JobLine, Runs


def join_cuts(runs: Runs) -> None:
    """Put together what the shards of all cuts of a queue say of each of its jobs."""
    for queue, (_, count) in runs.cuts.items():
        names = shard_names(queue, count)
        _join_queues(runs, queue, names)
        lines: dict[str, list[JobLine]] = {}
        for name, job_id in [key for key in runs.jobs if queue_of(key[0]) == queue]:
            lines.setdefault(job_id, []).append(runs.jobs[name, job_id])
        # In which shard each job is by the last snapshots.
        stored = {
            job_id: final.queue for final in runs.finals(queue) for job_id, seen in final.jobs.items() if seen.get("state")
        }  # fmt: skip
        for job_id, found in lines.items():
            home = stored.get(job_id) or names[shard_number(_placed_by(job_id, found), count)]
            if len(found) > 1 or found[0].queue != home:
                _join(runs, home, found)


def _placed_by(job_id: str, lines: Sequence[JobLine]) -> str:
    """What decides in which shard a job is: its dedup digest, else its id up to an `@`."""
    asked = [event for line in lines for event in (*line.moves, *line.maybe, *line.refused)]
    made = [event for event in asked if event.op == "enqueue"]
    digest = max(made, key=lambda event: event.us).digest if made else ""
    return digest or job_id.partition("@")[0]


def _join(runs: Runs, home: str, lines: Sequence[JobLine]) -> None:
    joined = JobLine(home, lines[0].id)
    joined.moved = True
    for line in lines:
        joined.moves += line.moves
        joined.extends += line.extends
        joined.maybe += line.maybe
        joined.refused += line.refused
        joined.starts += line.starts
        joined.ends += line.ends
        joined.shaky |= line.shaky
        joined.kept |= line.kept
        if line.queue != home:
            del runs.jobs[line.queue, line.id]
            runs.aliases[line.queue, line.id] = joined
    runs.jobs[home, joined.id] = joined


def _join_queues(runs: Runs, queue: str, names: Sequence[str]) -> None:
    """Let the shards of the last cut know what was done to those of the cuts before it: jobs of theirs moved there."""
    former = [line for line in runs.queues.values() if queue_of(line.name) == queue and line.name not in names]
    for name in names:
        here = runs.queue(name)
        for line in former:
            here.purges += line.purges
            here.prunes += line.prunes
            for kind, spans in line.unknown.items():
                here.unknown.setdefault(kind, []).extend(spans)


def cut_of(shard: str) -> int:
    """How many shards the cut has that a shard belongs to, by the shard's name."""
    _, _, count = shard.partition("/")[2].partition("of")
    return int(count or 1)
