"""The reaper of one shard: takes back jobs whose lease ran out, and deletes what is past its retention.

It never reads a body. Each shard has its own: one on a node that is dead or slow holds up no other.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence

from zwheel import calls
from zwheel.broker.store import Store
from zwheel.calls import Reaped
from zwheel.doctor import info_fields
from zwheel.errors import BrokerError, BrokerUnavailable, OutcomeUnknown, UndecodableJob
from zwheel.job import JobId, QueueName
from zwheel.keys import ShardKeys
from zwheel.logs import FIELDS, job_fields
from zwheel.outside import Sayer, escaped, flat, whole
from zwheel.plain import counted
from zwheel.record import read_record

from .aside import Aside
from .claims import Observer
from .contact import Contact
from .lookout import Lookout
from .looks import lasts
from .settings import WorkerSettings

log = escaped("zwheel.worker")

_BATCH = 100
#: How many of the jobs that died are named in a pass.
_NAMED = 20
_PRUNE_EVERY = 12
#: Followers look less often: the timekeeper and the second of a shard look at the full rate.
_IDLE_FACTOR = 6
#: A lease that ends so much later than ours could is looked at more closely, ms.
_AHEAD_MS = 1_000
#: When jobs were taken back from the dead set, a worker of an older version may have set aside others, or the same ones
#: again: it is looked at at once, and every second for a minute. Seconds.
_AGAIN_S, _MIXED_PAUSE_S, _MIXED_S = 0.1, 1.0, 60.0
#: A worker that is silent for this long is taken off the list, ms.
_FORGET_MS = 3_600_000


class Reaper:
    """Runs in every worker, jittered; each pass is bounded, and a pass that found much is followed by the next at once.

    It also tells the shard what only a worker can know: that the server's clock jumped.
    """

    def __init__(
        self, store: Store, keys: ShardKeys, settings: WorkerSettings, observer: Observer | None, contact: Contact,
        follows: Callable[[], bool] = lambda: False, taken_back: Callable[[], None] = lambda: None,
        lookout: Lookout | None = None,
    ) -> None:  # fmt: skip
        """follows: whether this worker has nothing to do and others keep time: then it looks less often than they.

        taken_back: called when there may be due jobs again: the wake-up token for them may have gone to a worker that sleeps.
        """
        self._store = store
        self._lookout = lookout or Lookout(store)
        self._keys = keys
        self._settings = settings
        self._observer = observer
        self._contact = contact
        contact.news = self.kick
        self._follows = follows
        self._sayer = Sayer(log)
        self._taken_back = taken_back
        #: What the dead set held when it was last looked at, with the count of jumps then; and until when another version is
        #: thought to set jobs aside, monotonic seconds.
        self._aside = Aside(store, keys)
        self._jumps_then = -1
        self._mixed_until, self._found_aside = 0.0, False
        #: The heartbeat's connection at whose end the shard knows the process of the server.
        self._line = 0
        #: Whether the queue was there at the last look: a queue that nobody founded has nothing to be told.
        self._founded = True
        #: Who keeps time, and when the last job died, as the last look saw it.
        self._keeper: bytes | None = None
        self._newest: tuple[bytes | None] | None = None
        self._kicked = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    @property
    def queue(self) -> str:
        """The shard that it tends."""
        return self._keys.name

    def kick(self) -> None:
        """Look now; from any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._kicked.set)

    async def run(self) -> None:
        """Reap until cancelled."""
        rounds = random.randrange(_PRUNE_EVERY * self._keys.shards)
        while True:
            await self._try(self._tell)
            await self._pause()
            rounds += 1
            if not self._passes_over(rounds):
                await self._try(self._reap)
                await self._try(self._take_back)
                if rounds % _PRUNE_EVERY == 0 and self._contact.calm:
                    await self._try(self._prune)

    def _passes_over(self, number: int) -> bool:
        """Whether this pass does not look. Of a queue with several shards, which others keep time for, it looks at few."""
        return self._keys.shards > 1 and self._follows() and number % (_IDLE_FACTOR * self._keys.shards) != 0

    async def _pause(self) -> None:
        """Until the next pass: it comes sooner when there is something to tell, or when what held it back is over."""
        often = _IDLE_FACTOR if self._follows() else 1
        pause = self._lookout.until_beat(often * self._settings.reap_ms / 1000 * random.uniform(0.6, 1.0))
        if time.monotonic() < self._mixed_until:
            pause = min(pause, _AGAIN_S if self._found_aside else _MIXED_PAUSE_S)
        self._found_aside = False
        held = self._contact.wait_s()
        try:
            async with asyncio.timeout(min(pause, held) if held else pause):
                await self._kicked.wait()
        except TimeoutError:
            return
        finally:
            self._kicked.clear()

    async def _try(self, act: Callable[[], Awaitable[None]]) -> None:
        """Do it; trouble is said, and the next pass comes."""
        try:
            await act()
        except BrokerError as error:
            if isinstance(error, (BrokerUnavailable, OutcomeUnknown)):
                self._contact.lost()
                log.debug("queue %s: reaping waits for Redis: %s", self.queue, error)
                return
            self._sayer.say(logging.WARNING, str(error), "queue %s: reaping waits: %s", self.queue, error)
        except Exception as error:
            self._sayer.say(
                logging.ERROR, repr(error)[:200], "queue %s: the reaper failed; it goes on: %r", self.queue, error,
                trace=True,
            )  # fmt: skip

    async def _tell(self) -> None:
        """Take nothing, but tell of jumps of the server's clock, and that it is another process of the server.

        What could not be told is told in the next pass.
        """
        jumps = self._contact.jumps
        while jumps:
            await self._call(limit=0, jumped_ms=jumps[0])
            jumped_ms = jumps.popleft()
            # Jobs may be due by the new clock, and the worker that sleeps until the next job reckons with the old clock.
            self._taken_back()
            if self._observer is not None:
                self._observer("jumped", {"queue": self.queue, "by_ms": jumped_ms})
        if self._contact.line != self._line and self._founded:
            await self._meet(self._contact.line)

    async def _meet(self, line: int) -> None:
        """Let a queue know the process of the server at the end of a new connection.

        When it is another one the grace begins now, and not when this worker may take something back again.
        """
        asks = [("HMGET", self._keys.meta, "schema", "server"), ("INFO", "server")]
        (schema, known), info = await self._store.send(asks)
        self._founded = schema is not None
        if schema is None:
            return  # There is no such queue yet. When a pass finds it founded, this is asked again.
        if known != info_fields(info).get("run_id", "").encode():
            await self._call(limit=0)
        self._line = line

    async def _call(
        self,
        *,
        limit: int,
        expected_us: int | None = None,
        jumps: int | None = None,
        jumped_ms: int = 0,
    ) -> Reaped:
        session = self._store.session
        while True:
            call = calls.reap(
                self._keys, limit=limit, lease_ms=self._settings.lease_ms, most_dead=self._settings.most_dead,
                now_ms=session.clock.now_ms(), expected_us=expected_us,
                jumped_ms=jumped_ms, jumps=jumps, now=session.now,
            )  # fmt: skip
            (reply,) = await self._store.send([call])
            reaped = calls.read_reap(reply)
            if reaped is not None:
                self._contact.count(reaped.jumps)
                return reaped

    async def _something_lapsed(self) -> bool:
        """Whether a lease ran out, or ends later than one of ours could; takes a reading of the server's clock, of the
        longest lease in use, and of who keeps time.

        An idle worker leaves leases that end too late to the timekeeper and the second.
        """
        session = self._store.session
        seen = await self._lookout.look(self._keys)
        self._contact.in_use(whole(seen.lease) or 0)
        self._founded = seen.schema is not None
        self._keeper = seen.keeper if lasts(seen.keeper_end, session.clock) else None
        self._newest = (seen.newest_dead,)
        if seen.first_lease is None or seen.last_lease is None:
            return False
        now_ms = session.clock.now_ms()
        return (
            float(seen.first_lease) <= now_ms or float(seen.last_lease) > now_ms + self._settings.lease_ms + _AHEAD_MS
        )

    async def _reap(self) -> None:
        if not await self._something_lapsed():
            return
        if self._contact.wait_s():
            # Something is to be taken back, and not by this worker now: a history shall know that.
            if self._observer is not None:
                self._observer("held", {"queue": self.queue})
            return
        named = 0
        while True:
            # First what the clock should show, then the look for jumps. A jump that Redis was not told yet ends this pass.
            expected_us, jumps = self._expected_us(), self._contact.counted
            if self._contact.jumps:
                self.kick()
                return
            reaped = await self._call(limit=_BATCH, expected_us=expected_us, jumps=jumps)
            if reaped.back or reaped.dead:
                log.warning(
                    "queue %s: took back jobs whose lease ran out: %d, %d of them dead",
                    self.queue, len(reaped.back) + len(reaped.dead), len(reaped.dead),
                )  # fmt: skip
                named += await self._say_dead(reaped.dead, _NAMED - named)
                if self._observer is not None:
                    self._observer("reaped", {"back": reaped.back, "dead": reaped.dead})
            if reaped.cancelled:
                log.info(
                    "queue %s: %s of workers that are gone, cancelled as asked for",
                    self.queue,
                    counted(len(reaped.cancelled), "job"),
                )
            if reaped.shortened:
                log.warning(
                    "queue %s: shortened %s that ended later than any can: the server's clock was ahead when it was "
                    "given", self.queue, counted(reaped.shortened, "lease"),
                )  # fmt: skip
            if reaped.back or reaped.cancelled:
                self._taken_back()
            # Not only a full batch has others behind it: large jobs come in smaller ones.
            if not reaped.looked_at and reaped.shortened < _BATCH:
                return

    async def _take_back(self) -> None:
        """Put back jobs that a version which cannot read them set aside.

        An idle worker leaves them to a timekeeper that reads the same.
        """
        aside, jumps = self._aside, self._contact.counted
        mixed = time.monotonic() < self._mixed_until
        if not mixed and self._follows() and await aside.is_seen_to(self._keeper):
            return
        if jumps != self._jumps_then:
            self._jumps_then = jumps
            aside.forget()
        newest, self._newest = self._newest, None
        back = await aside.look(mixed=mixed, newest=newest)
        if back:
            self._mixed_until, self._found_aside = time.monotonic() + _MIXED_S, True
            log.info("queue %s: took back %s that another version set aside", self.queue, counted(back, "job"))
            self._taken_back()
            # Jobs that were held come back with a lease that is over: an older version would set them aside once more.
            await self._reap()

    async def _say_dead(self, ids: Sequence[str], most: int) -> int:
        """Log each of these dead jobs as any other that died, `most` of them at most. Returns how many."""
        for job_id in ids[:most]:
            # One at a time: a record may be large.
            try:
                (raw,) = await self._store.send([("HGET", self._keys.jobs, job_id)])
                job = read_record(JobId(job_id), QueueName(self.queue), raw or b"")
                last = job.failures[-1]
            except (BrokerError, UndecodableJob, IndexError):
                unknown = dict(zip(FIELDS, (job_id, "", self.queue, 0), strict=True))
                log.error("job %s (?): dead: its record cannot be read", job_id, extra=unknown)
                continue
            log.error(
                "job %s (%s): dead after %s: %s, its worker was %s",
                job_id, job.task, counted(job.attempt, "attempt"), last.reason, last.worker, extra=job_fields(job),
            )  # fmt: skip
        if len(ids) > most:
            log.error("queue %s: more dead jobs than are named: %d; see zwheel dead ls", self.queue, len(ids) - most)
        return min(len(ids), most)

    def _expected_us(self) -> int | None:
        session = self._store.session
        return None if session.now else session.clock.now_us()

    async def _prune(self) -> None:
        session = self._store.session
        taken = 1
        # Not only a full batch has others behind it: large jobs come in smaller ones.
        while taken:
            call = calls.prune(
                self._keys, limit=_BATCH, dead_age_ms=self._settings.dead_age_ms,
                expected_us=self._expected_us(), now=session.now,
            )  # fmt: skip
            (reply,) = await self._store.send([call])
            taken = calls.read_count(reply)
        if self._keys.shard:
            return  # The list of workers is in the first shard.
        (entries,) = await self._store.send([("HGETALL", self._keys.workers)])
        now_ms = session.clock.now_ms()
        gone = [
            name for name, value in flat(entries) if not now_ms - _FORGET_MS <= _beat_of(value) <= now_ms + _FORGET_MS
        ]
        if gone:
            await self._store.send([("HDEL", self._keys.workers, *gone)])


def _beat_of(value: bytes) -> int:
    """When a worker beat last, ms; 0 for a row that no worker of this version wrote."""
    try:
        return whole(json.loads(value)["beat"]) or 0
    except Exception:
        return 0
