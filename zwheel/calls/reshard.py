"""reshard: where a shard is in a reshard of its queue. No job is changed."""

from __future__ import annotations

from collections.abc import Mapping

from zwheel.calls.call import Arg, Call, Reply, Trace
from zwheel.calls.scripts import script
from zwheel.calls.traces import answered
from zwheel.keys import ShardKeys, queues_key


def prepare_shard(keys: ShardKeys, former: int, *, stamp_us: int, settings: Mapping[str, Arg], now: str = "") -> Call:
    """Build the call that makes a shard of the new cut, which takes no jobs yet.

    former: how many shards the queue had; stamp_us: the largest stamp of those; settings: fields of `meta`.
    """
    fields = [word for pair in settings.items() for word in pair]
    return _call(keys, [now, "prepare", former, stamp_us, *fields])


def close_shard(keys: ShardKeys, count: int, *, now: str = "") -> Call:
    """Build the call after which a shard of the former cut takes no new jobs. count: how many shards the queue has now."""
    return _call(keys, [now, "close", count])


def open_shard(keys: ShardKeys, former: int, *, now: str = "") -> Call:
    """Build the call after which a shard of the new cut takes new jobs."""
    return _call(keys, [now, "open", former])


def end_shard(keys: ShardKeys, former: int, *, trimmed: int, now: str = "") -> Call:
    """Build the call that says to a shard of the new cut that all has arrived. trimmed: so many dead jobs more were deleted."""
    return _call(keys, [now, "end", former, trimmed])


def clear_shard(keys: ShardKeys, count: int, *, now: str = "") -> Call:
    """Build the call that clears up an empty shard of the former cut. count: how many shards the queue has now."""
    return _call(keys, [now, "clear", count])


def list_cut(namespace: str, queue: str, before: str, after: str, *, now: str = "") -> Call:
    """Build the call that writes into the list of queues how many shards one has, if it says what the caller read there."""
    args: list[Arg] = [now, "list", queue, before, after]
    return Call(script("reshard"), (queues_key(namespace),), args, _told, "list")


def _call(keys: ShardKeys, args: list[Arg]) -> Call:
    names = (
        keys.meta, keys.wake, keys.jobs, keys.schedules, keys.leaving, keys.days, keys.dedup_expiry, keys.schedules_due,
    )  # fmt: skip
    return Call(script("reshard"), names, args, _told, args[1])


def _told(step: str, reply: Reply | None) -> Trace:
    return Trace(answered(reply), {"step": step}, [])
