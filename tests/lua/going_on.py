"""Where jobs are, and a system that goes on after something went wrong: what the tests of broken scripts share."""

from __future__ import annotations

from tests.endings import complete
from zwheel.calls import Lane, claim, prune, read_claim, reap, repair
from zwheel.times import DAY_MS

from .shard import KEYS, NOW, TODAY, WORKER, Keyspace, Shard, at


def places(keyspace: Keyspace) -> dict[str, list[str]]:
    """The sets that each job is in."""
    found: dict[str, list[str]] = {job_id: [] for job_id in keyspace.get("jobs", {})}
    for name, members in keyspace.items():
        if name in ("processing", "dead", "done") or name.startswith("wheel:"):
            for job_id in members:
                found.setdefault(job_id, []).append(name)
    return found


def ends(shard: Shard) -> set[str]:
    """Let the system go on, days after: reap, claim and complete until nothing is left. The ids that ran."""
    ran: set[str] = set()
    now, request, day = NOW + 5 * DAY_MS, 0, TODAY
    epoch: bytes | str = ""
    while True:
        now += 10_000
        request += 1
        assert request < 200, "it never ends"
        shard.run(reap(KEYS, limit=100, lease_ms=30_000, most_dead=1000, now_ms=now, now=at(now)))
        lane = Lane("system", "claim", str(request))
        met = read_claim(
            shard.run(
                claim(KEYS, day=day, worker=WORKER, lease_ms=30_000, limit=50, lane=lane, epoch=epoch, now=at(now))
            )
        )
        day = met.day or day
        if met.word == "flushed":
            epoch = shard.client.hget(KEYS.meta, "epoch") or b""
        held = [(raw.decode(), met.jobs[i + 1][21:37]) for i, raw in enumerate(met.jobs) if i % 2 == 0]
        ran |= {job_id for job_id, _ in held}
        if held:
            shard.run(complete(KEYS, held, lane=Lane("system", "complete", str(request)), now=at(now)))
        elif met.word == "empty" and not shard.client.exists(KEYS.processing, KEYS.days):
            break
    found = shard.keyspace()
    ids, days = sorted(places(found)), sorted(name[6:] for name in found if name.startswith("wheel:"))
    if ids:
        shard.run(repair(KEYS, days=days, digests=[], ids=ids, mend=True, now=at(now)))
    shard.run(prune(KEYS, limit=100, dead_age_ms=10 * DAY_MS, now=at(now)))
    return ran
