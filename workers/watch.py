"""What a worker watches besides its jobs: that its queues are the ones it knew, and that Redis may not delete them.

Each ends in a state that a person can read in the log; none ends the worker once it runs.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any

from zwheel.broker.store import Store
from zwheel.calls import foreign_schema
from zwheel.doctor import Policy, eviction_policy, refusal
from zwheel.errors import BrokerError, BrokerRefused, SchemaMismatch
from zwheel.keys import SCHEMA, ShardKeys
from zwheel.outside import as_text, escaped, is_text

from .claims import Observer
from .settings import WorkerSettings

log = escaped("zwheel.worker")

#: How often a state that needs a person is said again, seconds.
_SAY_S = 60.0


class Founding:
    """Knows which founding of a queue this worker serves, and whether claims have to stop.

    A queue's first enqueue writes its schema and an epoch into `meta`. When they vanish under a worker, somebody emptied
    the queue or deleted its `meta`, and with it a pause or a cap: nothing is claimed until a person repaired it, or
    until an enqueue founded the emptied queue anew.
    """

    def __init__(self, keys: ShardKeys, observer: Observer | None) -> None:
        self._keys = keys
        self._observer = observer
        #: The epoch that claims name; '' while the queue was never seen in use.
        self.epoch: str | bytes = ""
        #: Why claims stopped, as a person may read it; None while they go on.
        self.halted: SchemaMismatch | None = None
        #: Called when the shard belongs to a former cut of its queue.
        self.on_cut: Callable[[], None] = lambda: None
        self._seen = False
        self._unsure = True
        self._said = 0.0

    @property
    def unsure(self) -> bool:
        """Whether to look at `meta` before the next claim."""
        return self._unsure or self.halted is not None

    def doubt(self) -> None:
        """A claim met another founding, or the first jobs of a queue that was never in use: look."""
        self._unsure = True

    def met_jobs(self) -> None:
        """A claim saw jobs: from the first of them on, the founding is known."""
        if not self._seen:
            self._unsure = True

    def asks(self) -> list[tuple[str, ...]]:
        """What to send for `read`."""
        return [("HMGET", self._keys.meta, "schema", "epoch", "shards"), ("EXISTS", self._keys.jobs)]

    def read(self, replies: list[Any]) -> bool:
        """Take in what `meta` says now, and decide whether claims go on. Returns whether the queue was founded anew."""
        (schema, epoch, cut), has_jobs = replies
        self._unsure = False
        if schema is not None and as_text(schema) != SCHEMA:
            self._halt(foreign_schema(self._keys.meta, as_text(schema)))
        elif schema is None and (self._seen or has_jobs):
            what = (
                "its meta key is gone and its jobs are there (DEL by a person)"
                if has_jobs
                else "all its keys are gone (FLUSHALL or DEL by a person, or Redis started without its data)"
            )
            self._halt(
                SchemaMismatch(
                    f"queue {self._keys.name}: {what}: nothing is claimed until "
                    + (
                        f"`zwheel doctor --repair --queue {self._keys.queue}`"
                        if has_jobs
                        else "it is enqueued to again"
                    )
                )
            )
        elif schema is not None:
            # Claims name an epoch that is no text just as it is.
            now = as_text(epoch or b"") if is_text(epoch or b"") else epoch
            # A shard that its queue left behind has another epoch, so that workers hear of it.
            anew = self._seen and now != self.epoch and cut is None
            if cut is not None:
                self.on_cut()
            if anew:
                log.error(
                    "queue %s: it was emptied, lost by Redis or repaired by a person, and founded anew; going on with what is there",
                    self._keys.name,
                )
                self._tell("refounded")
            self._seen, self.epoch = True, now
            self._go_on()
            return anew
        else:
            self._go_on()
        return False

    def _halt(self, error: SchemaMismatch) -> None:
        now = time.monotonic()
        if self.halted is None or now - self._said > _SAY_S:
            self._said = now
            log.error("%s", error)
        if self.halted is None:
            self._tell("halted")
        self.halted = error

    def _go_on(self) -> None:
        if self.halted is not None:
            self.halted = None
            log.warning("queue %s: claiming again", self._keys.name)
            self._tell("resumed")

    def _tell(self, event: str) -> None:
        if self._observer is not None:
            self._observer(event, {"queue": self._keys.name})


class Watch:
    """Looks at the eviction policy: before the first claim, and then every `watch_ms`."""

    def __init__(self, store: Store, settings: WorkerSettings, observer: Observer | None) -> None:
        self._store = store
        self._settings = settings
        self._observer = observer
        #: What the server would do when its memory is full, as seen last.
        self.policy = Policy(None, "not looked at yet")

    async def admit(self) -> None:
        """Look before anything is claimed. Raises: BrokerRefused when the server may delete queue keys."""
        await self._read_policy()
        if not self.policy.deletes:
            return
        if not self._settings.accept_data_loss:
            raise BrokerRefused(refusal(self.policy))
        log.warning("maxmemory-policy is %s: going on, jobs may be lost, as was accepted", self.policy.name)

    async def run(self) -> None:
        """Look again and again until cancelled; say it when jobs are in danger."""
        while True:
            await asyncio.sleep(self._settings.watch_ms / 1000 * random.uniform(0.9, 1.0))
            try:
                await self._read_policy()
            except BrokerError as error:
                log.info("the eviction policy could not be looked at: %s", error)
                continue
            if self.policy.deletes:
                log.error("jobs are in danger: %s", refusal(self.policy))
            if self._observer is not None:
                self._observer("policy", {"name": self.policy.name, "deletes": self.policy.deletes})

    async def _read_policy(self) -> None:
        self.policy = await self._store.drive(eviction_policy(), give_up_s=0.0)
