"""A worker that ends by itself: when nothing is due any more, or when it took as many jobs as it may."""

from __future__ import annotations

import asyncio

from zwheel.outside import escaped
from zwheel.plain import counted

from .claims import Slots
from .poller import Poller
from .runner import Runner
from .settings import WorkerSettings
from .shards import Shards

log = escaped("zwheel.worker")

#: How often to look whether it is time, seconds.
_LOOK_S = 0.02


async def time_to_end(settings: WorkerSettings, shards: Shards, runner: Runner, slots: Slots) -> str:
    """Wait until a worker is to end by itself. Returns why; never returns for one that goes on."""
    if not settings.burst and not settings.max_jobs:
        await asyncio.Event().wait()
    while True:
        await asyncio.sleep(_LOOK_S)
        if runner.held:
            continue
        if slots.spent:
            return f"it took {counted(settings.max_jobs, 'job')}, and may take no more"
        if settings.burst and await _nothing_is_due(shards, runner, slots):
            return "nothing is due any more"


async def _nothing_is_due(shards: Shards, runner: Runner, slots: Slots) -> bool:
    """Claim once more in each shard: a job that ended may have put others there. Whether all these claims found nothing."""
    before = {poller: poller.rested for poller in shards.pollers}
    for poller in before:
        poller.claim()
    while any(not _answered(poller, rested) for poller, rested in before.items()):
        await asyncio.sleep(_LOOK_S)
        if runner.held or slots.spent:
            return False
    return not runner.held and shards.pollers == [*before]


def _answered(poller: Poller, rested: int) -> bool:
    return poller.rested > rested or poller.founding.halted is not None
