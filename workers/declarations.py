"""Makes Redis hold the schedules that the application declares: at the start, and later what could not be done then."""

from __future__ import annotations

import asyncio
import logging
import random

from zwheel.broker.store import Store
from zwheel.client.registry import Registry
from zwheel.errors import BrokerError
from zwheel.operations.declared import about_declared, sync_declared
from zwheel.operations.schedules import SyncReport
from zwheel.outside import Sayer, escaped

log = escaped("zwheel.worker")

#: How long the start of a worker waits for this at the most, seconds.
_START_S = 2.0
#: After how long, and how often, to try again what could not be done, seconds: a service that restarts is back by then.
AGAIN_S = 60.0


class Declarations:
    """The schedules that one worker's application declares."""

    def __init__(self, wheel: Registry, worker: str) -> None:
        self._wheel = wheel
        self._worker = worker
        self._sayer = Sayer(log)
        self.definitions = [one.with_owner(wheel.owner_of(one.queue)) for one in wheel.declared.values()]

    def about(self) -> dict[str, object]:
        """What the worker publishes, so that no other service removes them."""
        return about_declared(self.definitions)

    async def sync(self, store: Store, again: SyncReport | None = None) -> SyncReport | None:
        """Write the declared schedules and remove those no longer declared. None: it failed, which is logged."""
        wheel, whose = self._wheel, self._wheel.owner or self._wheel.app
        if not whose:
            return SyncReport()
        steps = sync_declared(
            store.session, wheel.codec, self.definitions, wheel.owners, app=wheel.app, tasks=wheel.tasks,
            worker=self._worker, again=again,
        )  # fmt: skip
        try:
            report = await store.drive(steps)
        except BrokerError as error:
            self._sayer.say(logging.ERROR, "broker", "the schedules of %s are not synced: %s", whose, error)
            return None
        except Exception:
            # Whatever is stored there, in any queue: jobs go on.
            self._sayer.say(logging.ERROR, "odd", "the schedules of %s are not synced", whose, trace=True)
            return None
        self._tell(whose, report)
        return report

    def _tell(self, whose: str, report: SyncReport) -> None:
        for names, level, text in (
            (report.skipped, logging.WARNING, "cannot be read by this version and stay as they are"),
            (report.kept, logging.WARNING,
             "are not declared here, and may be another service's: they are removed when no living worker declares them. "
             "Services that share an application's name and a queue need an owner each"),
            (report.refused, logging.ERROR,
             "are not written: others have schedules of these names. Rename them, or remove those with "
             "`zwheel schedule remove`"),
        ):  # fmt: skip
            if names:
                self._sayer.say(level, names, "schedules of %s: %s %s", whose, ", ".join(names), text)
        for what, names in (("added", report.added), ("changed", report.changed), ("removed", report.removed)):
            if names:
                log.info("schedules of %s: %s %s", whose, what, ", ".join(names))

    async def start(self, store: Store) -> asyncio.Task[SyncReport | None]:
        """Begin to sync. What takes long goes on while the worker serves its queues: a node of a cluster may be away."""
        first = asyncio.create_task(self.sync(store))
        await asyncio.wait({first}, timeout=_START_S)
        return first

    async def run(self, store: Store, first: asyncio.Task[SyncReport | None]) -> None:
        """Try again what could not be done, until all is; then there is nothing more to do."""
        report = await first
        while report is None or report.kept or report.refused:
            await asyncio.sleep(AGAIN_S * random.uniform(0.8, 1.2))
            report = await self.sync(store, report)
        await asyncio.Event().wait()
