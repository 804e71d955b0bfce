"""The scheduler: advances the schedules of one shard when they are due. Every worker has one; none is a leader.

It sleeps until the first schedule must be looked at. The worker that advanced last is first again: it wakes at that very
moment, the others a little later, so that one of a hundred workers does the work and its death costs a fraction of a
second. The script lets each advance through once, whichever worker asks. New schedules are looked for every few
seconds, by an idle worker less often than by the timekeeper and the second. Occurrences go on the wheel seconds ahead of
their time and fire with the wheel's own precision. An occurrence that must not overlap with the one before is decided at
its time, when the one before is still active seconds ahead of it.

At the start, when the server's clock was set, and about once a minute by one worker of the shard, all records are looked
at, for changes that no due time tells.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

from zwheel import calls
from zwheel.broker.store import Store, pause_s
from zwheel.calls import BATCH_LIMIT, REPAIR_JOBS
from zwheel.calls.advance import Advance
from zwheel.errors import BrokerError, BrokerFull, BrokerRefused, BrokerUnavailable, OutcomeUnknown, SchemaMismatch
from zwheel.keys import ShardKeys
from zwheel.operations.late import give_back, late_ones
from zwheel.operations.occurrence import advance_of
from zwheel.operations.schedules import awaken
from zwheel.outside import Sayer, as_text, escaped, flat, is_text, score_ms, shown, whole
from zwheel.payload.codec import Codec
from zwheel.plain import counted
from zwheel.schedules.plan import misplanned, plan
from zwheel.schedules.state import ScheduleInfo, Status, read_schedule

from .overlap import Others

log = escaped("zwheel.scheduler")

#: A worker that was not the first one to advance a schedule looks this much after the next time, seconds.
LATER_S = (0.05, 0.25)
#: Nobody sleeps longer than this, where there are schedules and where there are none, seconds.
BACKSTOP_S = (2.5, 5.0)
EMPTY_BACKSTOP_S = (5.0, 10.0)
#: An idle worker sleeps so many times as long as the timekeeper and the second, but no longer than until the first
#: schedule that it knows is due.
_IDLE_FACTOR = 4
#: A schedule that is further away than this by the estimate of the server's clock is not looked at by its own, seconds.
_FAR_S = 30.0
#: How many schedules one call advances: computing and storing them may not keep running jobs waiting.
_BATCH = 20
#: How long a page is of a list that begins with very many that this worker cannot read.
_PAGE = 500
#: A schedule that cannot be advanced here is tried again after this, seconds.
_PUT_OFF_S = 30.0
#: One worker of the shard looks at all schedules this often, seconds: somebody may have changed the list of what is due,
#: or the server's clock was wrong for a moment.
RECHECK_S = 60.0
#: The server's clock was set when it moves this much against the monotonic one here, µs.
_JUMP_US = 1_000_000
#: How probable that is at each look at a list that is still empty.
_LOOK_AGAIN = 0.15
_TIME = ("TIME",)


class Scheduler:
    """One shard's loop. It owes nothing when it stops: whatever it did not do, another does."""

    def __init__(self, store: Store, keys: ShardKeys, codec: Codec, idle: Callable[[], bool] = lambda: False) -> None:
        """idle: whether this worker has nothing to do, and other workers keep time."""
        self._store = store
        self._others = Others(store, keys.queue)
        self._keys = keys
        self._codec = codec
        self._idle = idle
        self._first = True
        #: Whether the next schedule was far away at the last look: most workers look at nothing else all day.
        self._far = False
        #: Whether the shard was left to those that keep time for it at the last look.
        self._left = False
        self._kicked = asyncio.Event()
        self._ended: set[str] = set()
        #: Schedules that cannot be read or built here: until when they are left to others, loop time, in this order, and when
        #: they are due, once that was seen.
        self._put_off: dict[bytes, tuple[float, Any]] = {}
        #: How many schedules at the beginning of the due list are put off, and the last of them; when to look at the
        #: beginning again, loop time; and whether the next page is a long one.
        self._passed, self._edge = 0, b""
        self._begin_at, self._passing = 0.0, False
        self._sayer = Sayer(log)
        #: How often in a row a look brought nothing although something was due.
        self._fruitless = 0
        #: Whether nothing was due at the last look: the list of what is due may have been deleted.
        self._empty = False
        #: When to look at all schedules, loop time, and whether whatever others did.
        self._check_at, self._own = 0.0, True
        #: The server's clock less the monotonic one here at the last look, µs.
        self._offset_us: int | None = None

    @property
    def queue(self) -> str:
        """The shard whose schedules it advances."""
        return self._keys.name

    def kick(self) -> None:
        """Look now: a schedule may have been written."""
        self._kicked.set()

    def keep(self) -> None:
        """This worker keeps time for the shard from now on: look now, if it left the shard to others until now."""
        if self._left:
            self._kicked.set()

    def ended(self, name: str) -> None:
        """The occurrence that others of this schedule wait for has ended: look at the schedule now."""
        self._ended.add(name)
        self._kicked.set()

    async def run(self) -> None:
        """Advance what is due until cancelled."""
        failures = 0
        while True:
            self._kicked.clear()
            try:
                await self._check()
                wait = await self._turn()
                failures = 0
            except BrokerFull as error:
                self._sayer.say(logging.WARNING, "full", "queue %s: schedules wait: %s", self.queue, error)
                wait = 1.0
            except (BrokerUnavailable, OutcomeUnknown) as error:
                failures += 1
                log.debug("queue %s: schedules wait for Redis: %s", self.queue, error)
                wait = pause_s(failures)
            except BrokerError as error:
                failures += 1
                self._sayer.say(logging.ERROR, str(error), "queue %s: schedules wait: %s", self.queue, error)
                wait = _back_off(failures)
            except Exception as error:
                failures += 1
                self._sayer.say(
                    logging.ERROR, repr(error), "queue %s: the scheduler failed; it goes on", self.queue, trace=True
                )
                wait = _back_off(failures)
            if wait > 0:
                try:
                    async with asyncio.timeout(wait):
                        await self._kicked.wait()
                except TimeoutError:
                    continue

    def _watch_clock(self, clock: Any = None) -> None:
        """Notice that the server's clock was set: what was planned by a clock that was wrong is planned anew."""
        estimate = self._store.session.clock
        if clock is None and estimate.error_us() >= _JUMP_US:
            return
        now_us = estimate.now_us() if clock is None else int(clock[0]) * 1_000_000 + int(clock[1])
        before, self._offset_us = self._offset_us, now_us - time.monotonic_ns() // 1000
        if before is not None and abs(self._offset_us - before) > _JUMP_US:
            self._check_at, self._own = 0.0, True

    async def _check(self) -> None:
        """Look at all schedules when it is time to; once a minute is enough for all workers together."""
        self._watch_clock()
        loop_time = asyncio.get_running_loop().time()
        if loop_time < self._check_at or (self._leaves_it() and not self._own):
            return
        meta = self._keys.meta
        last, clock = await self._store.send([("HGET", meta, "rechecked"), _TIME])
        now_ms, last_ms = int(_seconds(clock) * 1000), whole(last)
        if self._own or last_ms is None or not 0 <= now_ms - last_ms < RECHECK_S * 1000:
            await self._recheck()
            await self._store.send([("HSET", meta, "rechecked", now_ms)])
        self._check_at, self._own = loop_time + RECHECK_S * random.uniform(1.0, 1.5), False

    async def _recheck(self) -> None:
        """Look at all schedules, and plan those anew whose next time is another by the data or the clock of now.

        A time that new zone data moved to an earlier hour would be looked at in the old hour, and a schedule that was
        planned while the server's clock was an hour ahead would be silent for that hour.
        """
        cursor: Any = 0
        keys = self._keys
        while True:
            (reply,) = await self._store.send([("HSCAN", keys.schedules, cursor, "COUNT", _BATCH)])
            cursor, entries = reply
            page = [(name, raw) for name, raw in flat(entries) if is_text(name)]
            if page:
                ask = ("ZMSCORE", keys.schedules_due, *(name for name, _ in page))
                scores, clock = await self._store.send([ask, _TIME])
                now_ms, lost = int(_seconds(clock) * 1000), []
                for (name, raw), score in zip(page, map(score_ms, scores), strict=True):
                    if score is None and raw[:2] == b"1a":
                        lost.append(name)
                    await self._look_at(as_text(name), raw, score, now_ms)
                await self._tend(lost)
            if int(cursor) == 0:
                return

    async def _look_at(self, name: str, raw: bytes, score: int | None, now_ms: int) -> None:
        try:
            info = read_schedule(raw, name, self._keys.queue)
            wrong = misplanned(info, score, now_ms)
        except Exception:
            return  # it says so when it is due
        if not wrong:
            return
        self._sayer.say(logging.WARNING, (name, wrong), "queue %s: schedule %s %s", self.queue, name, wrong)
        try:
            if info.status is Status.ACTIVE:
                await self._advance([name], anew=True)
            else:
                await self._store.drive(awaken(self._store.session, self.queue, name))
        except (BrokerUnavailable, OutcomeUnknown, BrokerFull):
            raise
        except Exception as error:
            self._cannot(name, error)

    async def _tend(self, names: Sequence[bytes], *, leave: bool = False) -> None:
        """Let the script put right when these schedules are looked at, each decided in one step by its record.

        leave: schedules that stay as they are cannot be handled here, and are left to others.
        """
        for start in range(0, len(names), REPAIR_JOBS):
            part = names[start : start + REPAIR_JOBS]
            call = calls.repair(
                self._keys, schedules=[(name, None) for name in part], mend=False, tend=True,
                now=self._store.session.now,
            )  # fmt: skip
            try:
                (reply,) = await self._store.send([call])
            except BrokerRefused as error:
                # Without the right to mend the list the others are served all the same.
                self._sayer.say(logging.WARNING, "tend", "queue %s: %s", self.queue, error)
                for name in part if leave else ():
                    self._leave(name)
                continue
            letters = calls.read_repair(call, reply).schedules
            for name, letter in zip(part, letters, strict=True):
                if leave and letter in "cu":
                    self._leave(name)
            for letter, what in (
                ("o", "in the list of what is due without a record: taken off it"),
                ("p", "in the list of what is due and not active: taken off it"),
                ("l", "active and not in the list of what is due: put there again"),
                ("s", "in the list of what is due with a time that cannot be: looked at now"),
            ):
                some = [name for name, found in zip(part, letters, strict=True) if found == letter]
                if some:
                    few = ", ".join(shown(name) for name in some[:3])
                    self._sayer.say(
                        logging.WARNING, (letter, some[0]), "queue %s: %s (%s): %s",
                        self.queue, counted(len(some), "schedule"), few + ", ..." * (len(some) > 3), what,
                    )  # fmt: skip

    async def _turn(self) -> float:
        """Do what is due and say how long to sleep, seconds."""
        if self._ended:
            names, self._ended = list(self._ended)[:_BATCH], set(list(self._ended)[_BATCH:])
            await self._advance(names, again=True)
        await self._try_again()
        page, *clocks = await self._store.send([self._page()] if self._far else [self._page(), _TIME])
        entries = await self._beyond(list(flat(page)))
        if entries is None:
            return 0.0
        if not entries:
            self._far = True
            await self._look_for_lost(bool(page))
            return self._backstop(EMPTY_BACKSTOP_S)
        head = entries[0]
        self._empty = False
        due_ms = score_ms(head[1])
        if due_ms is None:
            await self._tend([head[0]], leave=True)
            return 0.0
        self._far = self._is_far(due_ms)
        if self._far:
            return self._backstop(BACKSTOP_S)
        (clock,) = clocks or await self._store.send([_TIME])
        self._watch_clock(clock)
        until = due_ms / 1000 - _seconds(clock)
        if until <= 0:
            if await self._due(entries, clock):
                self._fruitless = 0
                return 0.0
            # As a rule another was faster. What stays due all the same is looked at ever less often.
            self._fruitless = min(self._fruitless + 1, 6)
            return min(BACKSTOP_S[0], random.uniform(*LATER_S) * 2.0 ** (self._fruitless - 1))
        self._fruitless = 0
        backstop = self._backstop(BACKSTOP_S)
        if until > backstop:
            return backstop
        if not self._first:
            until += random.uniform(*LATER_S)
        return until

    def _backstop(self, between: tuple[float, float]) -> float:
        self._left = self._leaves_it()
        often = _IDLE_FACTOR * self._keys.shards if self._left else _IDLE_FACTOR if self._idle() else 1
        return random.uniform(*between) * often

    def _leaves_it(self) -> bool:
        """Whether this worker leaves a shard to those that keep time for it, since it has several and nothing to do."""
        return self._keys.shards > 1 and self._idle()

    async def _look_for_lost(self, any_due: bool) -> None:
        """Nothing is due, ever: where there are schedules all the same, somebody may have deleted the list of them."""
        if any_due or (self._empty and random.random() > _LOOK_AGAIN):
            return
        self._empty = True
        (count,) = await self._store.send([("EXISTS", self._keys.schedules)])
        if count:
            await self._recheck()

    def _page(self) -> tuple[Any, ...]:
        """Ask for the first schedules that are not left to others, as far as that is known, and the schedule before them."""
        now = asyncio.get_running_loop().time()
        if now > self._begin_at:
            # A schedule that is due before those, and came when one of them was removed, would not be seen.
            self._passed, self._begin_at = 0, now + _PUT_OFF_S
        first = max(0, self._passed - 1)
        size = _PAGE if self._passing else 1 if self._far else _BATCH
        return "ZRANGE", self._keys.schedules_due, first, first + size, "WITHSCORES"

    async def _beyond(self, entries: list[tuple[bytes, Any]]) -> list[tuple[bytes, Any]] | None:
        """Pass over those at the beginning that are left to others. None: look again, from where the list is now.

        Schedules that no worker here can read stay in the list, for workers that can, and may be very many.
        """
        if self._passed:
            if not entries or entries[0][0] != self._edge or not self._is_left(*entries[0]):
                (rank,) = await self._store.send([("ZRANK", self._keys.schedules_due, self._edge)])
                # Further to the front: some before it were removed. Else another came before it, or it was written anew.
                self._passed = rank + 1 if rank is not None and rank < self._passed - 1 else 0
                return None
            del entries[0]
        for place, (name, score) in enumerate(entries):
            if not self._is_left(name, score):
                self._passing = False
                return entries[place:]
            self._passed, self._edge = self._passed + 1, name
        # Where one page was full of them, the next is longer.
        self._passing = bool(entries)
        return None if entries else []

    def _is_left(self, name: bytes, score: Any) -> bool:
        """Whether a schedule is left to others. A schedule that was written since, and so is due at another time, is not."""
        until, before = self._put_off.get(name, (0.0, None))
        if not until:
            return False
        if before is None:
            self._put_off[name] = until, score
        elif before != score:
            del self._put_off[name]
            return False
        return True

    def _leave(self, name: bytes) -> None:
        """Leave a schedule to others for a while."""
        self._put_off.pop(name, None)
        self._put_off[name] = asyncio.get_running_loop().time() + _PUT_OFF_S, None

    async def _try_again(self) -> None:
        """Try a few again that were left to others for long: very many cost no more than some."""
        now = asyncio.get_running_loop().time()
        over = [name for name, (until, _) in islice(self._put_off.items(), _BATCH) if until <= now]
        for name in over:
            del self._put_off[name]
        if over:
            await self._take(over)

    def _is_far(self, due_ms: float) -> bool:
        clock = self._store.session.clock
        return clock.error_us() < 1_000_000 and clock.seconds_until(int(due_ms)) > _FAR_S

    async def _due(self, entries: list[tuple[bytes, Any]], clock: Any) -> bool:
        """Advance a batch of the due schedules; False when all of them are left to others."""
        now_ms = int(_seconds(clock) * 1000)
        due = [name for name, score in entries if (score_ms(score) or 0) <= now_ms and not self._is_left(name, score)]
        return await self._take(due[:_BATCH])

    async def _take(self, names: list[bytes]) -> bool:
        """Advance these. Returns whether anything became of any."""
        strange = [name for name in names if not is_text(name)]
        if strange:
            await self._tend(strange, leave=True)
        texts = [as_text(name) for name in names if is_text(name)]
        moved = await self._advance(texts) if texts else False
        return moved or bool(strange)

    async def _advance(self, names: list[str], *, again: bool = False, anew: bool = False) -> bool:
        """Advance these. Returns whether anything became of any: it was advanced, put off, or taken off the list.

        again: only schedules whose occurrence waits for the one before it. anew: whenever they are due.
        """
        keys = self._keys
        raws, scores, clock = await self._store.send(
            [("HMGET", keys.schedules, *names), ("ZMSCORE", keys.schedules_due, *names), _TIME]
        )
        now_ms = int(_seconds(clock) * 1000)
        batch: list[Advance] = []
        wrong: list[bytes] = []
        jobs = done = 0
        for name, raw, score in zip(names, raws, scores, strict=True):
            if score is not None and (raw is None or raw[:2] in (b"1p", b"1f")):
                wrong.append(name.encode())
                continue
            if raw is None or score is None or not (again or anew or float(score) <= now_ms):
                # Another worker was faster, or somebody removed the schedule meanwhile.
                self._first = False
                continue
            try:
                info = read_schedule(raw, name, self._keys.queue)
                if info.status is not Status.ACTIVE or (again and info.state.buffered_ms is None):
                    continue
                if await self._gave_back(info, now_ms):
                    done += 1
                    continue
                one = advance_of(info, self._codec, plan(info.definition, info.state, now_ms))
            except BrokerError:
                raise
            except Exception as error:
                # Written by a newer version, damaged, or it needs what is missing here: the others go on.
                self._cannot(name, error)
                done += 1
                continue
            if jobs + len(one.free.jobs) > BATCH_LIMIT and batch:
                break
            jobs += len(one.free.jobs)
            batch.append(one)
        if wrong:
            await self._tend(wrong, leave=True)
            done += len(wrong)
        if batch:
            done += await self._carry_out(batch)
        return done > 0

    async def _gave_back(self, info: ScheduleInfo, now_ms: int) -> bool:
        """Whether some of its occurrences may not start any more: they are taken off the wheel, and it is due again."""
        if not late_ones(info, now_ms):
            return False
        given = await self._store.drive(give_back(self._store.session, self.queue, info.name, {}))
        if given.waited:
            log.warning(
                "schedule %s: occurrences that no worker started in time, or that came on the wheel while the server's "
                "clock was ahead, were taken off it; the schedule decides what becomes of them", info.name,
            )  # fmt: skip
        return given.waited

    def _cannot(self, name: str, error: Exception) -> None:
        self._leave(name.encode())
        told = str(error).removeprefix(f"schedule {name} of queue {self._keys.queue} ") or type(error).__name__
        self._sayer.say(
            logging.ERROR, (name, told), "queue %s: schedule %s: it cannot be advanced here, others go on: %s",
            self.queue, name, told,
        )  # fmt: skip

    async def _carry_out(self, batch: list[Advance]) -> int:
        """Send a batch, or, when it is refused, each for itself, so that one cannot stop the others. Returns how many moved."""
        call = calls.advance(self._keys, batch, now=self._store.session.now)
        try:
            (reply,) = await self._store.send([call])
            words = calls.read_advance(call, reply)
        except (BrokerUnavailable, OutcomeUnknown, BrokerFull, SchemaMismatch):
            raise
        except Exception as error:
            if len(batch) == 1:
                self._cannot(batch[0].name, error)
                return 1
            return sum([await self._carry_out([one]) for one in batch])
        moved = 0
        for one, word in zip(batch, words, strict=False):
            if word == "s":
                self._first = False
                continue
            self._first = True
            moved += 1
            if word[0] == "b" and one.cancels and await self._others.cancel(one):
                self.ended(one.name)
            made = one.free if word[0] == "a" else one.busy
            if made is not None and made.jobs:
                log.debug("schedule %s: put %s on the wheel", one.name, counted(word.count("c"), "occurrence"))
        return moved


def _back_off(failures: int) -> float:
    """How long to wait after so many failures in a row that are not for the network, seconds: 1 to 30."""
    return random.uniform(0.5, 1.0) * min(30.0, 2.0 ** min(failures, 6))


def _seconds(clock: Any) -> float:
    return int(clock[0]) + int(clock[1]) / 1e6
