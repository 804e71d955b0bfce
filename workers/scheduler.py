"""The scheduler: advances the schedules of one shard when they are due. Every worker has one; none is a leader.

It sleeps until the first schedule must be looked at. Whoever advanced last is first again: it wakes at that very
moment, the others a little later, so that one of a hundred workers does the work and the death of that one costs a
fraction of a second. The script lets each advance through once, whoever asks. Occurrences go on the wheel seconds ahead
of their time and fire with the wheel's own precision; only those that must not overlap with the one before are decided
at their time.
"""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import replace
from typing import Any

from zwheel import calls
from zwheel.calls import BATCH_LIMIT
from zwheel.calls.advance import Advance
from zwheel.codec import Codec
from zwheel.errors import BrokerError, BrokerFull, InvalidInput, UndecodableJob
from zwheel.keys import ShardKeys
from zwheel.occurrence import advance_of
from zwheel.schedules.plan import plan
from zwheel.schedules.state import Status, read_schedule
from zwheel.store import Store, pause_s

log = logging.getLogger("zwheel.scheduler")

#: Those that are not first look this much later than the time, seconds.
LATER_S = (0.05, 0.25)
#: Nobody sleeps longer than this, where there are schedules and where there are none, seconds.
BACKSTOP_S = (2.5, 5.0)
EMPTY_BACKSTOP_S = (5.0, 10.0)
#: A schedule that is further away than this by the estimate of the server's clock is not looked at by its own, seconds.
_FAR_S = 30.0
#: How many schedules one call advances: computing and storing them may not keep running jobs waiting.
_BATCH = 20
#: A schedule that cannot be advanced here is tried again after this, seconds.
_PUT_OFF_S = 30.0
_TIME = ("TIME",)


class Scheduler:
    """One shard's loop. It owes nothing when it stops: whatever it did not do, another does."""

    def __init__(self, store: Store, keys: ShardKeys, codec: Codec) -> None:
        self._store = store
        self._keys = keys
        self._codec = codec
        self._first = True
        #: Whether the next schedule was far away at the last look: most workers look at nothing else all day.
        self._far = False
        self._kicked = asyncio.Event()
        self._ended: set[str] = set()
        #: Schedules that cannot be read or built here, until when they are left to others: loop time.
        self._put_off: dict[str, float] = {}

    @property
    def queue(self) -> str:
        """The queue whose schedules it advances."""
        return self._keys.queue

    def kick(self) -> None:
        """Look now: a schedule may have been written."""
        self._kicked.set()

    def ended(self, name: str) -> None:
        """The occurrence that others of this schedule wait for has ended: look at the schedule now."""
        self._ended.add(name)
        self._kicked.set()

    async def run(self) -> None:
        """Advance what is due until cancelled."""
        failures = 0
        checked = False
        while True:
            self._kicked.clear()
            try:
                if not checked:
                    await self._recheck()
                    checked = True
                wait = await self._turn()
                failures = 0
            except BrokerFull as error:
                log.warning("queue %s: schedules wait: %s", self.queue, error)
                wait = 1.0
            except BrokerError as error:
                failures += 1
                log.info("queue %s: schedules wait for Redis: %s", self.queue, error)
                wait = pause_s(failures)
            except Exception:
                log.exception("queue %s: the scheduler failed; it goes on", self.queue)
                wait = 1.0
            if wait > 0:
                try:
                    async with asyncio.timeout(wait):
                        await self._kicked.wait()
                except TimeoutError:
                    continue

    async def _recheck(self) -> None:
        """Find the schedules whose next time is another by the zone data of this process, and plan them anew.

        Without it a time that new data moved to an earlier hour would be looked at in the old one.
        """
        cursor: Any = 0
        while True:
            (reply,) = await self._store.send([("HSCAN", self._keys.schedules, cursor, "COUNT", _BATCH)])
            cursor, entries = reply
            names = list(entries) if isinstance(entries, dict) else entries[::2]
            raws = list(entries.values()) if isinstance(entries, dict) else entries[1::2]
            moved = [n.decode() for n, raw in zip(names, raws, strict=True) if _moved(raw)]
            for name in moved:
                log.info("schedule %s: its next time is another by the zone data of this machine", name)
                await self._advance([name], anew=True)
            if int(cursor) == 0:
                return

    async def _turn(self) -> float:
        """Do what is due and say how long to sleep, seconds."""
        keys = self._keys
        if self._ended:
            names, self._ended = list(self._ended)[:_BATCH], set(list(self._ended)[_BATCH:])
            await self._advance(names, again=True)
        ask: list[tuple[Any, ...]] = [("ZRANGE", keys.schedules_due, 0, 0, "WITHSCORES")]
        head, *clocks = await self._store.send(ask if self._far else [*ask, _TIME])
        if not head:
            self._far = True
            return random.uniform(*EMPTY_BACKSTOP_S)
        self._far = self._is_far(_score(head))
        if self._far:
            return random.uniform(*BACKSTOP_S)
        (clock,) = clocks or await self._store.send([_TIME])
        until = _score(head) / 1000 - _seconds(clock)
        if until <= 0:
            if await self._due(clock):
                return 0.0
            return random.uniform(*LATER_S)
        backstop = random.uniform(*BACKSTOP_S)
        if until > backstop:
            return backstop
        if not self._first:
            until += random.uniform(*LATER_S)
        return until

    def _is_far(self, due_ms: float) -> bool:
        clock = self._store.session.clock
        return clock.error_us() < 1_000_000 and clock.seconds_until(int(due_ms)) > _FAR_S

    async def _due(self, clock: Any) -> bool:
        """Advance a batch of those that are due; False when all of them are left to others."""
        now_ms = int(_seconds(clock) * 1000)
        skip = len(self._put_off)
        (names,) = await self._store.send(
            [("ZRANGE", self._keys.schedules_due, "-inf", now_ms, "BYSCORE", "LIMIT", 0, _BATCH + skip)]
        )
        time = asyncio.get_running_loop().time()
        self._put_off = {name: until for name, until in self._put_off.items() if until > time}
        wanted = [n for n in (name.decode() for name in names) if n not in self._put_off][:_BATCH]
        if wanted:
            await self._advance(wanted)
        return bool(wanted)

    async def _advance(self, names: list[str], *, again: bool = False, anew: bool = False) -> None:
        keys = self._keys
        raws, scores, clock = await self._store.send(
            [("HMGET", keys.schedules, *names), ("ZMSCORE", keys.schedules_due, *names), _TIME]
        )
        now_ms = int(_seconds(clock) * 1000)
        batch: list[Advance] = []
        jobs = 0
        for name, raw, score in zip(names, raws, scores, strict=True):
            if raw is None or score is None or (not (again or anew) and float(score) > now_ms):
                # Another was faster, or it was removed meanwhile.
                self._first = False
                continue
            try:
                info = read_schedule(raw)
                if info.status is not Status.ACTIVE or (again and info.state.buffered_ms is None):
                    continue
                state = replace(info.state, next_ms=None) if anew else info.state
                one = advance_of(info, self._codec, plan(info.definition, state, now_ms))
            except (UndecodableJob, InvalidInput) as error:
                self._put_off[name] = asyncio.get_running_loop().time() + _PUT_OFF_S
                log.error("schedule %s: it cannot be advanced here: %s", name, error)
                continue
            if jobs + len(one.free.jobs) > BATCH_LIMIT and batch:
                break
            jobs += len(one.free.jobs)
            batch.append(one)
        if not batch:
            return
        call = calls.advance(keys, batch, now=self._store.session.now)
        (reply,) = await self._store.send([call])
        for one, word in zip(batch, calls.read_advance(call, reply), strict=True):
            if word == "s":
                self._first = False
                continue
            self._first = True
            made = one.free if word[0] == "a" else one.busy
            if made is not None and made.jobs:
                log.debug("schedule %s: %d occurrences are on the wheel", one.name, word.count("c"))


def _moved(raw: bytes) -> bool:
    """Whether a stored schedule names another next time than its rhythm has here."""
    try:
        info = read_schedule(raw)
    except UndecodableJob:
        return False
    definition, state = info.definition, info.state
    if info.status is not Status.ACTIVE or state.next_ms is None or state.buffered_ms is not None:
        return False
    after = max(state.cursor_ms, (definition.start_ms or 0) - 1)
    following = next(iter(info.rhythm().after(after)), None)
    return following is None or following.at_ms != state.next_ms


def _score(head: Any) -> float:
    pair = head[0] if isinstance(head[0], (list, tuple)) else head
    return float(pair[1])


def _seconds(clock: Any) -> float:
    return int(clock[0]) + int(clock[1]) / 1e6
