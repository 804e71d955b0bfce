"""arrive: what left a shard of the former cut comes to the shard of the new cut where it belongs."""

from __future__ import annotations

from collections.abc import Sequence

from zwheel.calls.call import Arg, Call, Facts, Reply, Trace, buckets, text, word
from zwheel.calls.depart import Leaving
from zwheel.calls.scripts import script
from zwheel.calls.traces import answered, lettered
from zwheel.errors import BrokerRefused
from zwheel.keys import ShardKeys


def arrive(
    keys: ShardKeys, parts: Sequence[Leaving], *, former: int, shard: ShardKeys, number: int, now: str = ""
) -> Call:
    """Build the call for the parts of one batch that belong to one shard.

    former: how many shards the queue had; shard: which of them the batch is from; number: that of the batch.
    """
    layout = buckets(keys, {(int(part.value[6:21]), False) for part in parts if part.kind == "s"})
    args: list[Arg] = [now, former, shard.label, number, *layout.head]
    for part in parts:
        args += (part.kind, part.name, part.score or ("0" if part.kind in "xd" else ""), part.value, part.body)
    names = (
        keys.meta, keys.jobs, keys.bodies, keys.days, keys.dead, keys.done, keys.dedup, keys.dedup_expiry,
        keys.schedules, keys.schedules_due, keys.arrived, keys.wake, *layout.keys,
    )  # fmt: skip
    return Call(script("arrive"), names, args, _told, (parts, shard.name, number))


def _told(about: tuple[Sequence[Leaving], str, int], reply: Reply | None) -> Trace:
    parts, shard, number = about
    jobs: list[Facts] = [{"id": text(part.name), "kind": part.kind} for part in parts]
    if reply is not None and word(reply) == "ok":
        # A batch that had arrived before is answered without letters.
        lettered(jobs, text(reply[2]) or "i" * len(jobs))
    return Trace(answered(reply), {"from": shard, "number": number}, [job for job in jobs if job["kind"] in "sxd"])


def read_arrive(reply: Reply) -> str | None:
    """Read the answer: a letter a part, a arrived, i something of that name was there; '' for a batch that had arrived before.

    None: no jobs are on their way to this shard any more. Raises: BrokerRefused.
    """
    answer = word(reply)
    if answer == "over":
        return None
    if answer != "ok":
        raise BrokerRefused(f"arrive answered {answer!r}, which this version does not know")
    return text(reply[2])
