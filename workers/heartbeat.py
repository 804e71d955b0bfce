"""The heartbeat: a thread with a connection of its own that renews every lease, also while a task blocks the event loop."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections.abc import Callable, Sequence

from zwheel import calls
from zwheel.calls import BATCH_LIMIT, Call, Reply
from zwheel.errors import BrokerError, BrokerFull, BrokerUnavailable, OutcomeUnknown
from zwheel.keys import ShardKeys
from zwheel.outside import escaped
from zwheel.store import SyncStore

from .claims import Claim
from .settings import WorkerSettings

log = escaped("zwheel.worker")

#: A lease is given up this much before it ends, as a part of it, when Redis cannot be asked.
_MARGIN = 0.1
#: How often in a lease the event loop looks for claims that were not renewed.
_LOOKS = 20


class Heartbeat(threading.Thread):
    """Beats every third of a lease. Tells the event loop of each claim that was lost."""

    def __init__(
        self,
        store: SyncStore,
        shards: Sequence[ShardKeys],
        settings: WorkerSettings,
        worker: str,
        held: set[Claim],
        lost: Callable[[Claim], None],
        describe: Callable[[], dict[str, object]],
        on_beat: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(name="zwheel-heartbeat", daemon=True)
        self._store = store
        self._shards = shards
        self._settings = settings
        self._worker = worker
        self._held = held
        self._lost = lost
        self._describe = describe
        self._on_beat = on_beat
        self._loop = asyncio.get_running_loop()
        self._end = threading.Event()
        #: When the server was last seen to be away, monotonic ns.
        self._away_ns = 0

    def run(self) -> None:
        """Beat until `stop`."""
        interval = self._settings.beat_ms / 1000
        pause = 0.0
        while not self._end.wait(pause):
            started = time.monotonic()
            if self._on_beat is not None:
                self._on_beat()
            try:
                self._beat()
                pause = interval * random.uniform(0.9, 1.0) - (time.monotonic() - started)
            except BrokerError as error:
                if server_is_away(error):
                    self._away_ns = time.monotonic_ns()
                pause = min(1.0, interval / 5) * random.uniform(0.5, 1.0)
            except Exception:
                log.exception("the heartbeat failed; it goes on")
                pause = interval / 5
            pause = max(0.0, pause)

    def _beat(self) -> None:
        settings = self._settings
        started_ns = time.monotonic_ns()
        claims = list(self._held)
        info = self._describe()
        refused: BrokerError | None = None
        for keys in self._shards:
            mine = [claim for claim in claims if claim.queue == keys.queue]
            info["beat"] = self._store.session.clock.now_ms()
            beat = ("HSET", keys.workers, self._worker, json.dumps(info))
            for start in range(0, max(1, len(mine)), BATCH_LIMIT):
                part = mine[start : start + BATCH_LIMIT]
                call = calls.extend(
                    keys, [(claim.id, claim.token) for claim in part],
                    lease_ms=settings.lease_ms, longest_ms=settings.longest_ms, now=self._store.session.now,
                )  # fmt: skip
                try:
                    if not part:
                        # Nothing to renew; that workers reach Redis is told by the claims of those that wait.
                        self._store.send([beat])
                        continue
                    replies = self._send(call, None if start else beat)
                except (BrokerUnavailable, OutcomeUnknown):
                    raise
                except BrokerError as error:
                    # One shard's trouble does not cost the others their leases.
                    refused = error
                    continue
                for claim, letter in zip(part, calls.read_letters(replies[0]) or "", strict=True):
                    if letter == "k":
                        claim.leased_ns = started_ns
                    else:
                        self._tell(claim)
        if refused is not None:
            raise refused

    def _send(self, call: Call, beat: tuple[str, ...] | None) -> list[Reply]:
        try:
            return self._store.send([call] if beat is None else [call, beat])
        except BrokerFull:
            # A full Redis renews leases, but takes no news about this worker.
            return self._store.send([call])

    async def watch(self) -> None:
        """Give up, in time, what was not renewed and may soon run elsewhere. Runs in the event loop, until cancelled.

        Not in the thread, which may hang on a network that swallows everything until long after a lease ended. Not
        while the server itself is away: then no one can claim, and after its return a grace period of one lease lets
        every worker renew first. And not before the heartbeat had its turn when this whole process did not run.
        """
        lease_ns = self._settings.lease_ms * 1_000_000
        limit_ns = int(lease_ns * (1 - _MARGIN))
        looked_ns = time.monotonic_ns()
        patience = 0
        while True:
            await asyncio.sleep(lease_ns / 1e9 / _LOOKS)
            now_ns = time.monotonic_ns()
            patience = 3 if now_ns - looked_ns > 4 * lease_ns // _LOOKS else max(0, patience - 1)
            looked_ns = now_ns
            if patience:
                continue
            for claim in list(self._held):
                if claim.stop is None and now_ns - max(claim.leased_ns, self._away_ns) > limit_ns:
                    log.warning("job %s: no contact with Redis for a whole lease: giving it up", claim.job_id)
                    self._lost(claim)

    def _tell(self, claim: Claim) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._lost, claim)

    def stop(self) -> None:
        """Beat no more; join it afterwards."""
        self._end.set()


def server_is_away(error: BaseException | None) -> bool:
    """Whether a connection was refused, or the server is loading or busy with somebody's script: it runs for nobody."""
    while error is not None:
        said = str(error)[:40].upper()
        if (
            isinstance(error, (ConnectionRefusedError, FileNotFoundError))
            or "LOADING" in said
            or said.startswith("BUSY ")
        ):
            return True
        error = error.__cause__ or error.__context__
    return False
