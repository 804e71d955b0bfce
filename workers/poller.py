"""The poller of one shard: claims when there is room, settles what ended in the same round trip, and waits without polling.

A claim that finds nothing due names a role. The timekeeper sleeps here until the next fire time; everyone listens for a
wake-up token, which an enqueue pushes when its job comes before what the timekeeper sleeps for. A token that was lost
costs at most the backstop: less than a second for the timekeeper and for the second in line, longer for the rest. A
backstop is a plain look at the head of the wheel; only when that changed or is overdue, or when the role must be
confirmed, is it a claim. The second looks a little after each time the timekeeper slept for: a timekeeper's death makes
jobs late by less than 0.1 s.

A worker without room holds no role: it lays its own down, and sees to it that another takes it. A poller in trouble
holds no room: what its claim reserved is given back until the answer comes.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from zwheel import calls
from zwheel.broker.listener import LOOK, Listener, Token
from zwheel.broker.store import Store, pause_s
from zwheel.calls import BATCH_LIMIT, Call, Claimed, Lane, day_name, read_claim
from zwheel.errors import BrokerError, OutcomeUnknown
from zwheel.job import QueueName
from zwheel.keys import ShardKeys
from zwheel.operations.listing import join
from zwheel.outside import Sayer, escaped
from zwheel.times import DAY_MS

from .ahead import ahead_ms
from .claims import Claim, Observer, Slots
from .ear import Ear, own_list
from .garbage import GARBAGE
from .lookout import Lookout
from .looks import Looks
from .role import Role
from .runner import Runner
from .scheduler import Scheduler
from .settings import WorkerSettings
from .settler import Read, Settler
from .timer import Timer
from .watch import Founding

log = escaped("zwheel.worker")
T = TypeVar("T")

PAUSED_BACKSTOP_S = (1.0, 3.0)
HALTED_BACKSTOP_S = (1.0, 3.0)
#: How often an absent Redis is mentioned in the log, seconds.
_SAY_S = 10.0
#: So many claims or tokens in a row may be in vain before they are slowed down: such a token came sooner than so.
_VAIN = 20
_AT_ONCE_S = 0.25
#: A poller that failed waits at the most so long, and counts as well again after it worked for so long, seconds.
_LONGEST_S = 5.0
_CALM_S = 60.0
#: How long a claim may hold room without an answer, where other nodes may answer meanwhile, seconds.
_SILENT_S = 0.25
#: How often a worker that stops with nothing in its hands repeats a claim that gets no answer.
_LAST_TRIES = 5


class Poller:
    """One shard's loop. Every call it makes is safe to send again, so what gets no answer is sent until it does."""

    def __init__(
        self, store: Store, keys: ShardKeys, settings: WorkerSettings, worker: str, slots: Slots, runner: Runner,
        observer: Observer | None = None, scheduler: Scheduler | None = None,
        jumps_counted: Callable[[int | None], None] = lambda jumps: None, group: str = "none",
        ear: Ear | None = None, lookout: Lookout | None = None,
    ) -> None:  # fmt: skip
        """Take ear: what hears for all shards of the queue, and lookout: what looks for all parts; None: it has its own."""
        #: The group of the workers that know the same tasks: jobs that are offered to it are claimed first.
        self._group = group
        self._scheduler = scheduler
        #: Called with how often the server's clock was seen to jump, whenever the answer to a claim says it.
        self._jumps_counted = jumps_counted
        self._store = store
        #: Those of its shard.
        self.keys = keys
        self._settings = settings
        self._worker = worker
        self._slots = slots
        self._runner = runner
        #: The shard it claims from.
        self.queue = QueueName(keys.name)
        self._observer = observer
        self.founding = Founding(keys, observer)
        self.settler = Settler(store.session, keys, worker, settings.most_dead, self._occurrence_ended, runner.settled)
        self._ear = ear or Ear(store, Listener(store.url), keys.call(own_list()))
        self._own_ear = self._ear if ear is None else None
        self._ear.add(self)
        self._kicked = asyncio.Event()
        self._timer = Timer(self._on_time)
        self._due = True
        self._day = ""
        self._wake_at = 0.0
        #: Whether the next look at the clock is a peek at the wheel, and not a claim.
        self._peeks = False
        self.looks = Looks(keys, store.session.clock, settings.beat_ms, worker, lookout or Lookout(store))
        self._stopping = False
        #: The most jobs of the next claim: half as many after an answer that did not come, then ever more again; and how
        #: many the last one asked for.
        self._most = self._asked = BATCH_LIMIT
        self._reserved = 0
        #: Jobs that a claim took and the runner does not hold yet: the answer to it, and when it was sent.
        self._arrived: list[tuple[Claimed, int]] = []
        self._role = Role(store, keys, worker)
        #: A token that no claim was sent after; and whether the last claim came after one.
        self._token: Token | None = None
        self._called = False
        #: Called with what a token says, when it calls for more than a look at this shard.
        self.on_summons: Callable[[str], None] = lambda shard: None
        #: Claims in a row that took nothing and asked for another at once; tokens in a row that were in vain.
        self._vain = 0
        self._head = ("", 0)
        self._tokens = 0
        #: How many claims found nothing that is due.
        self.rested = 0
        self._sayer = Sayer(log)
        self._said = 0.0

    def _occurrence_ended(self, schedule: str) -> None:
        if self._scheduler is not None:
            self._scheduler.ended(schedule)

    def kick(self) -> None:
        """Let the loop look again: an outcome is there, or room, or a stop."""
        self._kicked.set()

    def claim(self) -> None:
        """Claim now, as far as there is room: something became due that nobody may have been woken for."""
        self._due = True
        self.kick()

    def look(self) -> None:
        """Look at the shard now, if this worker rests."""
        if not self._due and not self._stopping:
            self._peeks, self._due, self._wake_at = True, self.looks.must_claim, time.monotonic()
            self.kick()

    def stop(self) -> None:
        """Claim no more. The loop ends when all that was claimed here is settled."""
        if not self._stopping and self.looks.spares and (self.listens or self.looks.sees_to):
            # Another is called, so that it looks who there is instead of this one.
            self._token = Token(self.keys.wake, LOOK)
        self._stopping = True
        self.kick()

    async def run(self) -> None:
        """Work until `stop`, and until nothing is left to settle. An error here costs this queue alone."""
        try:
            await self._go_on()
        finally:
            if self._own_ear is not None:
                await self._own_ear.aclose()

    async def _go_on(self) -> None:
        failures = 0
        while True:
            began = time.monotonic()
            try:
                await self._work()
                return
            except Exception as error:
                # An answer that no script gives, or a fault of our own: said, and tried again ever less often.
                failures = 1 if time.monotonic() - began > _CALM_S else failures + 1
                self._give_room_back()
                self._sayer.say(
                    logging.ERROR, repr(error)[:200], "queue %s: its poller failed; it goes on: %r",
                    self.queue, error, trace=True,
                )  # fmt: skip
                await asyncio.sleep(min(_LONGEST_S, 0.05 * 2.0 ** min(failures, 10)) * random.uniform(0.5, 1.0))
                self._due = True

    async def _work(self) -> None:
        try:
            while True:
                self._kicked.clear()
                if self._stopping and self._token:
                    await self._hand_on()
                if self._stopping and self._role.keeps:
                    await self._role.resign()
                if self.founding.unsure and not self._stopping and (self._due or self.founding.halted is None):
                    await self._see_founding()
                batch = self.settler.take()
                if self._may_claim():
                    batch.append(self._claim())
                if batch:
                    await self._exchange(batch)
                elif self._stopping and not self._owes():
                    break
                elif self._peeks and not self._due and time.monotonic() >= self._wake_at:
                    await self._look_at_wheel()
                else:
                    await self._wait()
        finally:
            self._timer.close()

    def _owes(self) -> bool:
        return bool(self._arrived) or any(claim.queue == self.queue for claim in list(self._runner.held))

    def _may_claim(self) -> bool:
        if self._stopping or not self._due or self.founding.halted is not None:
            return False
        if self._slots.room() <= 0:
            self._slots.when_room(self.kick)
            return False
        return True

    async def _see_founding(self) -> None:
        """See whether the queue is still the queue that was served; while it is not, look again now and then."""
        replies = await self._persist(partial(self._store.send, self.founding.asks()), settles=False)
        if replies and self.founding.read(replies):
            try:
                # An emptied database lost the list of queues too, and producers believe that the queue is on it.
                await self._store.drive(join(self._store.session, self.keys.queue))
            except BrokerError as error:
                log.info("queue %s: it could not be put on the list of queues: %s", self.queue, error)
        if self.founding.halted is not None:
            # A token is of no use here: no worker claims there now.
            self._token = None
            self._sleep(random.uniform(*HALTED_BACKSTOP_S))

    def _claim(self) -> tuple[Call, Read]:
        limit = self._reserved = self._asked = min(self._slots.share(), self._most)
        self._slots.reserve(limit)
        self._called, self._token = self._token is not None, None
        sent_ns = time.monotonic_ns()
        session = self._store.session
        day = self._day or day_name(session.clock.now_ms() // DAY_MS)
        call = calls.claim(
            self.keys, day=day, worker=self._worker, lease_ms=self._settings.lease_ms, limit=limit,
            lane=Lane(self._worker, "claim", session.request()), epoch=self.founding.epoch, now=session.now,
            group=self._group, ahead_ms=ahead_ms(session.clock),
            role_ms=self.looks.role_ms(), waits=self.looks.waits,
        )  # fmt: skip
        return call, lambda reply: self._claimed(read_claim(reply), sent_ns, limit)

    def _give_room_back(self) -> None:
        self._slots.answered(self._reserved)
        self._reserved = 0

    def _claimed(self, claimed: Claimed, sent_ns: int, limit: int) -> None:
        taken = len(claimed.jobs) // 2
        full = taken == limit
        if limit <= self._most < BATCH_LIMIT:
            self._most = min(BATCH_LIMIT, 2 * self._most)
        # After trouble there may be less room than that by now: jobs without room wait, and their leases are renewed.
        self._slots.answered(self._reserved, taken)
        self._reserved = 0
        now_ns = time.monotonic_ns()
        job_bytes = sum(map(len, claimed.jobs)) / taken if taken else 0.0
        self._slots.turn(now_ns / 1e9, (now_ns - sent_ns) / 1e9, job_bytes)
        self._arrived.append((claimed, sent_ns))
        if full and not self._stopping:
            # More is due: the next claim goes out first, and Redis works on it while these jobs are started.
            asyncio.get_running_loop().call_soon(self._start_arrived)
        else:
            self._start_arrived()
        self._day = claimed.day
        if claimed.word in ("ok", "empty"):
            if self._role.answered(claimed.role, full=full) and self._scheduler is not None:
                self._scheduler.keep()
            self._jumps_counted(claimed.jumps)
        if taken or claimed.day:
            self.founding.met_jobs()
        if claimed.word in ("flushed", "foreign"):
            self.founding.doubt()
            self._due = True
        elif claimed.word == "paused":
            self._sleep(random.uniform(*PAUSED_BACKSTOP_S))
        elif claimed.word == "moved" or full or claimed.role == "none" or (self._role.keeps and self._slots.yields()):
            self._due = True
        else:
            self._rest(claimed)
        if self._called and not taken and claimed.role == "follower":
            self.looks.hurry()
        if taken:
            self._tokens = 0
            self.looks.alarms += 1
        # A claim that took entries off which hid others, such as the days of buckets that are gone, was not in vain.
        head, before = (claimed.day, claimed.next_fire_ms or 0), self._head
        self._head = head
        self._vain = self._vain + 1 if self._due and not taken and head <= before else 0
        self.rested += not self._due and not taken
        if self._vain > _VAIN:
            # Whatever is wrong there: asking faster does not help.
            self._sleep(min(1.0, 0.01 * 2.0 ** min(self._vain - _VAIN, 10)))

    def _start_arrived(self) -> None:
        arrived, self._arrived = self._arrived, []
        for claimed, sent_ns in arrived:
            jobs = claimed.jobs
            take = self._runner.hold if claimed.early else self._runner.submit
            for i in range(0, len(jobs), 2):
                take(Claim(jobs[i], jobs[i + 1], self.queue, sent_ns), self.settler, self.kick)
            if claimed.early:
                self._runner.start_due()

    def _rest(self, claimed: Claimed) -> None:
        seconds, peeks = self.looks.rest(claimed)
        self._sleep(seconds)
        self._peeks = peeks

    async def _look_at_wheel(self) -> None:
        """Look, and claim when it is not as the last claim told, else rest on."""
        asked_at = time.monotonic()
        seen = await self._persist(self.looks.look, settles=False)
        if self._observer is not None:
            self._observer("looked", {"queue": self.queue, "since": asked_at, "until": time.monotonic()})
        if seen is None or self._due:
            return
        answer = self.looks.read(seen)
        if answer is None:
            self._due = True
        else:
            self._rest(answer)

    def _sleep(self, seconds: float) -> None:
        self._due = self._token is not None
        self._peeks = False
        self._wake_at = time.monotonic() + seconds

    async def _wait(self) -> None:
        if self._stopping or self._due:
            full = self._slots.full()
            if full and self._token:
                await self._hand_on()
            elif full and self._role.keeps:
                # Due, but no room: another must keep time, for we can be full for long.
                await self._exchange([(self._role.step_down(), lambda reply: None)])
            elif self._role.left and not self._stopping:
                await self._role.see_it_taken(self._kicked)
            else:
                await self._kicked.wait()
            return
        if self.listens:
            self._ear.listen(self)
        GARBAGE.tidy(self._wake_at - time.monotonic())
        if self._wake_at > time.monotonic():
            self._timer.set(self._wake_at)
            try:
                await self._kicked.wait()
            finally:
                self._timer.cancel()
        else:
            self._due = not self._peeks

    async def _hand_on(self) -> None:
        """Let another worker have the token that no claim of this one followed."""
        token, self._token = self._token, None
        if token is None:
            return
        try:
            await self._store.send([("RPUSH", token.list, token.says)])
        except BrokerError as error:
            log.info("queue %s: cannot hand a wake-up token on: %s", self.queue, error)

    def _on_time(self) -> None:
        self._due = not self._peeks
        self.kick()

    @property
    def rests(self) -> bool:
        """Whether a wake-up token is to wake it."""
        return not self._stopping and not self._due and self.listens

    @property
    def listens(self) -> bool:
        """Whether wake-up tokens of its shard concern this worker at all."""
        return self.looks.listens

    @property
    def lists(self) -> tuple[str, str]:
        """Where its wake-up tokens come."""
        return self.keys.wake, self.keys.call(self._group)

    async def called(self, token: Token, waited_s: float) -> float:
        """A wake-up token came. One that comes when there is no room is handed on. Returns how long to hear none, seconds."""
        self._tokens = self._tokens + 1 if waited_s < _AT_ONCE_S else 0
        self._token = token
        if self._stopping or self._slots.full():
            await self._hand_on()
        elif token.says != LOOK:
            self.on_summons(token.says)
        self._due = True
        self.kick()
        if self._scheduler is not None:
            self._scheduler.kick()
        if self._tokens <= _VAIN:
            return 0.0
        # More tokens than any script pushes: each is still worth a look, but not thousands in a second.
        return min(0.25, 0.005 * 2.0 ** min(self._tokens - _VAIN, 10))

    async def _exchange(self, batch: list[tuple[Call, Read]]) -> None:
        """One round trip, sent again until all is answered; each reply goes to its reader.

        A refused call is sent again alone, so that the replies of the others are known.
        """
        settles = len(batch) > 1 or not self._reserved
        left = batch
        failures = 0
        while left:
            sending = partial(self._store.send, [call for call, _ in left], each=True)
            replies = await self._persist(sending, settles) or []
            refused: list[tuple[Call, Read]] = []
            for (call, read), reply in zip(left, replies, strict=False):
                if isinstance(reply, BrokerError):
                    refused.append((call, read))
                    self._say_waiting(reply)
                    continue
                try:
                    read(reply)
                except Exception as error:
                    self._give_room_back()
                    self._sayer.say(
                        logging.ERROR, repr(error)[:200], "queue %s: the answer of Redis to %s cannot be read: %r",
                        self.queue, call.script.name, error, trace=True,
                    )  # fmt: skip
                    self._vain = max(self._vain, _VAIN) + 1
            if not replies:
                return
            left = refused
            if left:
                failures += 1
                self._give_room_back()
                settles = any(call.script.name not in ("claim", "step_down") for call, _ in left)
                if self._stopping and failures > _LAST_TRIES and not settles and not self._owes():
                    return
                await self._pause(failures)
            elif failures:
                log.warning("queue %s: Redis answers again", self.queue)

    def _say_waiting(self, error: BrokerError) -> None:
        now = time.monotonic()
        if now - self._said > _SAY_S:
            self._said = now
            log.warning("queue %s: waiting for Redis: %s", self.queue, error)

    async def _pause(self, failures: int) -> None:
        # Outcomes of jobs wait here too. After an outage Redis must hear of them well within the grace.
        await asyncio.sleep(min(pause_s(failures), self._settings.beat_ms / 2000))

    async def _persist(self, send: Callable[[], Awaitable[T]], settles: bool) -> T | None:
        """Send until Redis answers. A worker that stops and holds no job gives up on a claim: None."""
        failures = 0
        claims = self._reserved > 0
        # Where there are several nodes, this one may be silent alone: what it keeps waiting keeps no room from other shards.
        apart = claims and self._store.in_parts
        silent = asyncio.get_running_loop().call_later(_SILENT_S, self._give_room_back) if apart else None
        try:
            while True:
                try:
                    replies = await send()
                except BrokerError as error:
                    failures += 1
                    if isinstance(error, OutcomeUnknown) and claims:
                        self._most = max(1, self._asked // 2)
                    self._give_room_back()
                    if self._stopping and failures > _LAST_TRIES and not settles and not self._owes():
                        return None
                    self._say_waiting(error)
                    await self._pause(failures)
                else:
                    if failures:
                        log.warning("queue %s: Redis answers again", self.queue)
                        self._ear.interrupt()
                    return replies
        finally:
            if silent is not None:
                silent.cancel()
