"""The reaper: takes back jobs whose lease ran out, and deletes what is past its retention. It never reads a body."""

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

    It also tells the queues what only a worker can know: that the server's clock jumped.
    """

    def __init__(
        self, store: Store, shards: Sequence[ShardKeys], settings: WorkerSettings, observer: Observer | None,
        contact: Contact, follows: Callable[[str], bool] = lambda shard: False,
        taken_back: Callable[[str], None] = lambda queue: None,
    ) -> None:  # fmt: skip
        self._store = store
        self._shards = shards
        self._settings = settings
        self._observer = observer
        self._contact = contact
        #: Whether this worker has nothing to do and others keep time for a shard: then it looks less often than they.
        self._follows = follows
        self._sayer = Sayer(log)
        #: Called with a queue that may have due jobs again: the wake-up token for them may have gone to a worker that sleeps.
        self._taken_back = taken_back
        #: For each queue, the jumps of the clock that Redis was not told there yet, ms. Until then nothing is taken back.
        self._untold: dict[str, list[int]] = {keys.name: [] for keys in shards}
        #: What each queue's dead set held when it was last looked at, with the count of jumps then; and until when another
        #: version is thought to set jobs aside, monotonic seconds.
        self._aside = {keys.name: Aside(store, keys) for keys in shards}
        self._jumps_then = {keys.name: -1 for keys in shards}
        self._mixed_until, self._found_aside = 0.0, False
        #: The heartbeat's connection at whose end a queue knows the process of the server.
        self._lines = {keys.name: 0 for keys in shards}
        #: Whether a queue was there at the last look: a queue that nobody founded has nothing to be told.
        self._founded = {keys.name: True for keys in shards}
        #: Who keeps time for each shard, as the last look of an idle worker saw it.
        self._keepers: dict[str, bytes | None] = {}
        #: The shards that this pass leaves out.
        self._passed_over: set[str] = set()
        self._kicked = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def kick(self) -> None:
        """Look now; from any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._kicked.set)

    async def run(self) -> None:
        """Reap until cancelled."""
        rounds = random.randrange(_PRUNE_EVERY)
        while True:
            while self._contact.jumps:
                jumped_ms = self._contact.jumps.popleft()
                for untold in self._untold.values():
                    untold.append(jumped_ms)
            await self._each(self._tell)
            await self._pause()
            rounds += 1
            self._passed_over = {
                keys.name for n, keys in enumerate(self._shards) if self._passes_over(keys, rounds + n)
            }
            await self._each(self._reap)
            await self._each(self._take_back)
            if rounds % _PRUNE_EVERY == 0 and self._contact.calm:
                await self._each(self._prune)

    def _passes_over(self, keys: ShardKeys, number: int) -> bool:
        """Whether this pass leaves a shard out. Of a queue with several shards, which others keep time for, it looks at few."""
        return keys.shards > 1 and self._follows(keys.name) and number % (_IDLE_FACTOR * keys.shards) != 0

    def _idle(self) -> bool:
        return all(self._follows(keys.name) for keys in self._shards)

    async def _pause(self) -> None:
        """Until the next pass: it comes sooner when there is something to tell, or when what held it back is over."""
        often = _IDLE_FACTOR if self._idle() else 1
        pause = often * self._settings.reap_ms / 1000 * random.uniform(0.6, 1.0)
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

    async def _each(self, act: Callable[[ShardKeys], Awaitable[None]]) -> None:
        """Do it for every shard; the trouble of one is not that of the others."""
        for keys in self._shards:
            try:
                await act(keys)
            except BrokerError as error:
                if isinstance(error, (BrokerUnavailable, OutcomeUnknown)):
                    self._contact.lost()
                    log.debug("queue %s: reaping waits for Redis: %s", keys.name, error)
                    continue
                self._sayer.say(
                    logging.WARNING, (keys.name, str(error)), "queue %s: reaping waits: %s", keys.name, error
                )
            except Exception as error:
                self._sayer.say(
                    logging.ERROR, (keys.name, repr(error)[:200]), "queue %s: the reaper failed; it goes on: %r",
                    keys.name, error, trace=True,
                )  # fmt: skip

    async def _tell(self, keys: ShardKeys) -> None:
        """Take nothing, but tell of jumps of the server's clock, and that it is another process of the server.

        What could not be told is told in the next pass.
        """
        untold = self._untold[keys.name]
        while untold:
            await self._call(keys, limit=0, jumped_ms=untold[0])
            jumped_ms = untold.pop(0)
            # Jobs may be due by the new clock, and the worker that sleeps until the next job reckons with the old clock.
            self._taken_back(keys.name)
            if self._observer is not None:
                self._observer("jumped", {"queue": keys.name, "by_ms": jumped_ms})
        if self._contact.line != self._lines[keys.name] and self._founded[keys.name]:
            await self._meet(keys, self._contact.line)

    async def _meet(self, keys: ShardKeys, line: int) -> None:
        """Let a queue know the process of the server at the end of a new connection.

        When it is another one the grace begins now, and not when this worker may take something back again.
        """
        asks = [("HMGET", keys.meta, "schema", "server"), ("INFO", "server")]
        (schema, known), info = await self._store.send(asks)
        self._founded[keys.name] = schema is not None
        if schema is None:
            return  # There is no such queue yet. When a pass finds it founded, this is asked again.
        if known != info_fields(info).get("run_id", "").encode():
            await self._call(keys, limit=0)
        self._lines[keys.name] = line

    async def _call(
        self,
        keys: ShardKeys,
        *,
        limit: int,
        expected_us: int | None = None,
        jumps: int | None = None,
        jumped_ms: int = 0,
    ) -> Reaped:
        session = self._store.session
        while True:
            call = calls.reap(
                keys, limit=limit, lease_ms=self._settings.lease_ms, most_dead=self._settings.most_dead,
                now_ms=session.clock.now_ms(), expected_us=expected_us,
                jumped_ms=jumped_ms, jumps=jumps, now=session.now,
            )  # fmt: skip
            (reply,) = await self._store.send([call])
            reaped = calls.read_reap(reply)
            if reaped is not None:
                self._contact.counted(keys.name, reaped.jumps)
                return reaped

    async def _something_lapsed(self, keys: ShardKeys) -> bool:
        """Whether a lease ran out, or ends later than one of ours could; takes a reading of the server's clock, of the
        longest lease in use, and of who keeps time.

        An idle worker leaves leases that end too late to the timekeeper and the second.
        """
        session = self._store.session
        sent_ns = time.monotonic_ns()
        first, (lease, schema, keeper, keeper_end), (seconds, micros) = await self._store.send(
            [
                ("ZRANGE", keys.processing, "0", "0", "WITHSCORES"),
                ("HMGET", keys.meta, "lease", "schema", "keeper", "keeper_end"),
                ("TIME",),
            ]
        )
        self._contact.in_use(keys.name, whole(lease) or 0)
        self._founded[keys.name] = schema is not None
        if not session.now:
            session.clock.observe(int(seconds) * 1_000_000 + int(micros), sent_ns, time.monotonic_ns())
        self._keepers[keys.name] = keeper if lasts(keeper_end, session.clock) else None
        now_ms = session.clock.now_ms()
        lapsed = bool(first) and float(first[1]) <= now_ms
        if lapsed or not first or self._follows(keys.name):
            return lapsed
        (last,) = await self._store.send([("ZRANGE", keys.processing, "-1", "-1", "WITHSCORES")])
        return bool(last) and float(last[1]) > now_ms + self._settings.lease_ms + _AHEAD_MS

    async def _reap(self, keys: ShardKeys) -> None:
        if keys.name in self._passed_over or not await self._something_lapsed(keys):
            return
        if self._contact.wait_s():
            # Something is to be taken back, and not by this worker now: a history shall know that.
            if self._observer is not None:
                self._observer("held", {"queue": keys.name})
            return
        named = 0
        while True:
            # First what the clock should show, then the look for jumps. A jump that Redis was not told yet ends this pass.
            expected_us, jumps = self._expected_us(), self._contact.jumps_in(keys.name)
            if self._contact.jumps or self._untold[keys.name]:
                self.kick()
                return
            reaped = await self._call(keys, limit=_BATCH, expected_us=expected_us, jumps=jumps)
            if reaped.back or reaped.dead:
                log.warning(
                    "queue %s: took back jobs whose lease ran out: %d, %d of them dead",
                    keys.name, len(reaped.back) + len(reaped.dead), len(reaped.dead),
                )  # fmt: skip
                named += await self._say_dead(keys, reaped.dead, _NAMED - named)
                if self._observer is not None:
                    self._observer("reaped", {"back": reaped.back, "dead": reaped.dead})
            if reaped.shortened:
                log.warning(
                    "queue %s: shortened %s that ended later than any can: the server's clock was ahead when it was "
                    "given", keys.name, counted(reaped.shortened, "lease"),
                )  # fmt: skip
            if reaped.back:
                self._taken_back(keys.name)
            # Not only a full batch has others behind it: large jobs come in smaller ones.
            if not reaped.looked_at and reaped.shortened < _BATCH:
                return

    async def _take_back(self, keys: ShardKeys) -> None:
        """Put back jobs that a version which cannot read them set aside.

        An idle worker leaves them to a timekeeper that reads the same.
        """
        if keys.name in self._passed_over:
            return
        aside, jumps = self._aside[keys.name], self._contact.jumps_in(keys.name)
        mixed = time.monotonic() < self._mixed_until
        if not mixed and self._follows(keys.name) and await aside.is_seen_to(self._keepers.get(keys.name)):
            return
        if jumps != self._jumps_then[keys.name]:
            self._jumps_then[keys.name] = jumps
            aside.forget()
        back = await aside.look(mixed=mixed)
        if back:
            self._mixed_until, self._found_aside = time.monotonic() + _MIXED_S, True
            log.info("queue %s: took back %s that another version set aside", keys.name, counted(back, "job"))
            self._taken_back(keys.name)
            # Jobs that were held come back with a lease that is over: an older version would set them aside once more.
            await self._reap(keys)

    async def _say_dead(self, keys: ShardKeys, ids: Sequence[str], most: int) -> int:
        """Log each of these dead jobs as any other that died, `most` of them at most. Returns how many."""
        for job_id in ids[:most]:
            # One at a time: a record may be large.
            try:
                (raw,) = await self._store.send([("HGET", keys.jobs, job_id)])
                job = read_record(JobId(job_id), QueueName(keys.name), raw or b"")
                last = job.failures[-1]
            except (BrokerError, UndecodableJob, IndexError):
                unknown = dict(zip(FIELDS, (job_id, "", keys.name, 0), strict=True))
                log.error("job %s (?): dead: its record cannot be read", job_id, extra=unknown)
                continue
            log.error(
                "job %s (%s): dead after %s: %s, its worker was %s",
                job_id, job.task, counted(job.attempt, "attempt"), last.reason, last.worker, extra=job_fields(job),
            )  # fmt: skip
        if len(ids) > most:
            log.error("queue %s: more dead jobs than are named: %d; see zwheel dead ls", keys.name, len(ids) - most)
        return min(len(ids), most)

    def _expected_us(self) -> int | None:
        session = self._store.session
        return None if session.now else session.clock.now_us()

    async def _prune(self, keys: ShardKeys) -> None:
        session = self._store.session
        taken = 1
        # Not only a full batch has others behind it: large jobs come in smaller ones.
        while taken:
            call = calls.prune(
                keys, limit=_BATCH, dead_age_ms=self._settings.dead_age_ms,
                expected_us=self._expected_us(), now=session.now,
            )  # fmt: skip
            (reply,) = await self._store.send([call])
            taken = calls.read_count(reply)
        (entries,) = await self._store.send([("HGETALL", keys.workers)])
        now_ms = session.clock.now_ms()
        gone = [
            name for name, value in flat(entries) if not now_ms - _FORGET_MS <= _beat_of(value) <= now_ms + _FORGET_MS
        ]
        if gone:
            await self._store.send([("HDEL", keys.workers, *gone)])


def _beat_of(value: bytes) -> int:
    """When a worker beat last, ms; 0 for a row that no worker of this version wrote."""
    try:
        return whole(json.loads(value)["beat"]) or 0
    except Exception:
        return 0
