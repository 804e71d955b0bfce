"""huey: takes a job off its list before the run and has no acknowledgement; results off; 8 worker threads in place of 1; no call
for many. Its scheduler looks for delayed jobs once a second, the shortest interval."""

# mypy: disable-error-code="import-not-found, untyped-decorator"
from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime

from huey import RedisHuey

from .harness import PAYLOAD, Adapter, Spec, marks


class Peer(Adapter):
    """huey by calls of its tasks and its consumer."""

    has_bulk = False

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self._huey = RedisHuey("bench", url=spec.url, results=False)

        @self._huey.task(name="noop")
        def noop(text: str) -> None:
            marks.ran()

        @self._huey.task(name="late")
        def late(due_ms: int) -> None:
            marks.late(due_ms)

        self._noop, self._late = noop, late

    async def one(self, jobs: int) -> None:
        noop = self._noop
        for _ in range(jobs):
            noop(PAYLOAD)

    async def at(self, dues: Sequence[int]) -> None:
        for due in dues:
            self._late.schedule((due,), eta=datetime.fromtimestamp(due / 1000, UTC))

    def work(self) -> None:
        logging.getLogger("huey").setLevel(logging.ERROR)
        self._huey.create_consumer(workers=8, periodic=False, scheduler_interval=1).run()
