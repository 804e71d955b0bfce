"""Who acts: producers, workers, zombies, reapers, pruners and operators, over the same calls and operations as the real ones."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeVar, cast

from tests.simulator.decisions import Decisions
from tests.simulator.life import ALL, RARE, TASK
from tests.simulator.promise import must
from tests.simulator.strangers import hand_on
from tests.simulator.world import KEYS, LEASE_MS, QUEUE, SECOND_US, Acting, Process, World
from zwheel import calls, operations
from zwheel.broker.store import Steps
from zwheel.calls import Call, Claimed, Ending, Lane, NewJob, day_name
from zwheel.calls.claim import ROLE_MS
from zwheel.calls.define import Late
from zwheel.client.tasks import make_job
from zwheel.current import NOMINAL_HEADER, SCHEDULE_HEADER, START_BY_HEADER
from zwheel.errors import BrokerError, BrokerUnavailable, OutcomeUnknown, QueueFull
from zwheel.job import Failure, JobId, QueueName, Reason
from zwheel.operations.late import give_back
from zwheel.payload.codec import DEFAULT
from zwheel.policy import JobOptions, TaskPolicy
from zwheel.record import failures_of, task_and_body, write_failures
from zwheel.times import DAY_MS, to_datetime
from zwheel.workers.ahead import Ahead, ahead_ms
from zwheel.workers.claims import Claim
from zwheel.workers.settler import Read, Settler
from zwheel.workers.watch import Founding

T = TypeVar("T")
DELAYS_S = (0, 0.4, 0, 0.001, 0, 3, 20, 90, 0, 3600, 86_400, 40 * 86_400)
OFFSETS_MS = (0, 700, -1, -2 * DAY_MS, 60_000, DAY_MS, 400 * DAY_MS, 40 * 365 * DAY_MS)
DURATIONS_US = (0, 50_000, SECOND_US, 45 * SECOND_US, 12 * SECOND_US, 45 * SECOND_US)
FATES = ("complete", "complete", "retry", "bury", "bury", "release", "release later", "hang")
POLICY = TaskPolicy(queue=QueueName(QUEUE), retries=2)
#: Longer than a real poller's, so that a run is not all looking.
BACKSTOP_S = 4.0
_TIME = ("TIME",)


def persist(
    commands: Sequence[Any], decisions: Decisions, *, ever: bool = False
) -> Generator[Any, list[Any], list[Any]]:
    """Send again what got no answer, as the shells do: the very same commands. Gives up at times, unless `ever`."""
    doubtful = False
    while True:
        try:
            return (yield commands)
        except (BrokerUnavailable, OutcomeUnknown) as error:
            doubtful = doubtful or isinstance(error, OutcomeUnknown)
            if not ever and decisions.chance(0.15):
                if doubtful:
                    raise OutcomeUnknown("an earlier try had no answer") from error
                raise
        yield decisions.pick((0.02, 0.3, 1.0))


def drive(steps: Steps[T], decisions: Decisions) -> Generator[Any, list[Any], T]:
    """Carry an operation through."""
    try:
        ask = next(steps)
        while True:
            if isinstance(ask, (int, float)):
                yield float(ask)
                ask = steps.send([])
            else:
                try:
                    replies = yield from persist(ask, decisions)
                except BrokerError as error:
                    ask = steps.throw(error)
                else:
                    ask = steps.send(replies)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        steps.close()


def timed(steps: Steps[Any], world: World) -> Steps[Any]:
    """An operation that asks the server for the time."""
    try:
        ask = next(steps)
        while True:
            if isinstance(ask, (int, float)):
                yield ask
                ask = steps.send([])
                continue
            replies = iter((yield [c for c in ask if c != _TIME]) if any(c != _TIME for c in ask) else [])
            us = world.server_us
            ask = steps.send([(us // SECOND_US, us % SECOND_US) if c == _TIME else next(replies) for c in ask])
    except StopIteration as end:
        return end.value
    finally:
        steps.close()


def producer(world: World, process: Process) -> Acting:
    """Enqueues batches through the real check and encoding; takes up what a producer that died had under way."""
    decisions = world.decisions
    mine: list[tuple[list[NewJob], bool]] = []
    while True:
        yield decisions.pick((0.05, 0.5, 0.5, 5.0))
        if mine and decisions.chance(0.7):
            batch, bulk = mine.pop(0)
            own = True
            world.mark("enqueue repeated by the same process")
        elif world.unfinished and decisions.chance(0.7):
            batch, bulk = world.unfinished.pop(0)
            own = False
            world.mark("enqueue repeated by another process")
        else:
            batch = [_new_job(world) for _ in range(decisions.pick((1, 1, 2, 4)))]
            bulk, own = len(batch) > 2, True
        process.pending = batch, bulk
        ids = {str(job.id) for job in batch}
        world.open |= ids
        try:
            yield from _store(world, process, batch, bulk)
            world.open -= ids
        except QueueFull:
            world.mark("queue full")
            if bulk:
                world.hand_on(batch, bulk)
            process.pending = None
            # Its next request would overtake a late copy of this one.
            yield decisions.pick((90.0, 0.0))
        except BrokerError as error:
            world.mark("enqueue gave up")
            if own and decisions.chance(0.5):
                mine.append((batch, bulk))
                if isinstance(error, OutcomeUnknown):
                    world.judge.promised |= {str(job.id) for job in batch if job.id.startswith("g")}
            else:
                world.hand_on(batch, bulk)
        process.pending = None


def _store(world: World, process: Process, batch: list[NewJob], bulk: bool) -> Acting:
    """Store a batch in one call, or in chunks of two."""
    known: set[str] = {QUEUE}
    if not bulk:
        answers = yield from drive(operations.enqueue_batch(process.session, batch, known), world.decisions)
        world.acked |= {str(answer.job_id) for answer in answers if not answer.existed}
        return
    whole = operations.Bulk(batch, 2)
    for chunk in whole.chunks():
        answers = yield from drive(chunk.store(process.session, known), world.decisions)
        world.acked |= {str(answer.job_id) for answer in answers if not answer.existed}
    # All is stored. Who dies while the keys are forgotten has asked for nothing more; the same call again is a new one.
    process.pending = None
    world.judge.promised -= {str(job.id) for job in batch}
    yield from drive(whole.forget(process.session), world.decisions)


def _new_job(world: World) -> NewJob:
    decisions = world.decisions
    chosen = decisions.chance(0.4)
    options: dict[str, Any] = {"retries": decisions.pick((2, 0, 1))}
    if chosen:
        options["id"] = decisions.pick(("a", "b", "c", "d", "e", "f"))
        options["replace"] = decisions.chance(0.3)
    if decisions.chance(0.5):
        options["dedup"] = decisions.pick(("red", "blue"))
        if decisions.chance(0.3):
            options["within"] = decisions.pick((5, 0.001, 60, 86_400))
    if decisions.chance(0.3):
        ms = max(0, world.server_us // 1000 + decisions.pick(OFFSETS_MS))
        options["at"] = to_datetime(ms)
    else:
        options["delay"] = decisions.pick(DELAYS_S)
    if decisions.chance(0.3):
        options["keep"] = decisions.pick((60, 1, 86_400))
    # Some have a body that is so large that it lies apart.
    args = ["x" * (1500 if options["retries"] == 1 else 1)]
    job = make_job(decisions.pick((TASK, TASK, RARE)), args, {}, cast(JobOptions, options), POLICY)
    if not chosen:
        # Its own id is random by design; here it has to be the same in each run of a seed.
        job.id = JobId(f"g{len(world.ids):03d}")
    world.ids.append(str(job.id))
    return job


class Hands:
    """What one worker process runs: claims with the time at which each ends, and how."""

    def __init__(
        self, world: World, process: Process, worker: str, concurrency: int, most_dead: int, longest_ms: int
    ) -> None:
        self.world = world
        self.process = process
        self.worker = worker
        self.concurrency = concurrency
        self.longest_us = longest_ms * 1000
        self.contact = world.contact(process)
        process.knows_all = world.decisions.chance(0.6)
        #: As whoever sees to a shard in a fleet that spares.
        self.wants_no_role = sum(worker.encode()) % 4 == 0
        #: When each claim was given, by this process's own clock, µs.
        self.since: dict[tuple[str, int], int] = {}
        self.settler = Settler(process.session, KEYS, worker, most_dead, settled=self._settled)
        #: Until when a task blocks the event loop; the heartbeat has a thread of its own.
        self.blocked_until = 0
        #: For how long the last answers waited to be read.
        self.unread_us = 0
        self.founding = Founding(KEYS, lambda event, facts: world.mark(f"queue {event}"))
        self.running: dict[tuple[str, int], tuple[Claim, int, str]] = {}
        self.ahead: Ahead[Claim] = Ahead(process.session.clock)
        self.rest: Claimed | None = None
        #: Occurrences that were claimed too late, of each schedule: they go back to it.
        self.late: dict[str, dict[int, Late]] = {}
        self._day = ""

    def finish(self) -> None:
        """Start what was held and is due; hand what ended to the settler."""
        for claim in self.ahead.due():
            if (claim.id.decode(), int(claim.token)) in self.process.held:
                # After a FLUSHALL nothing is known of it.
                life = self.world.judge.lives.get(claim.id.decode())
                in_time = life is None or life.starts_in_time(self.world.server_us)
                must(in_time, f"I3: {claim.id.decode()} started early: {life}")
                self.world.mark("held until its time")
                self._start(claim)
        for claim in self.ahead.far():
            if (claim.id.decode(), int(claim.token)) in self.process.held:
                self.settler.release(claim)
        for pair, (claim, ends_at, fate) in list(self.running.items()):
            if ends_at <= self.world.time_us and fate != "hang":
                del self.running[pair]
                self._end(claim, fate)

    def _start(self, claim: Claim) -> None:
        decisions = self.world.decisions
        ends_at = self.world.time_us + decisions.pick(DURATIONS_US)
        self.running[claim.id.decode(), int(claim.token)] = claim, ends_at, decisions.pick(FATES)

    def _settled(self, claims: Sequence[Claim]) -> None:
        """Redis has acknowledged the outcomes: up to now the claims were renewed."""
        for claim in claims:
            pair = (claim.id.decode(), int(claim.token))
            self.process.held.pop(pair, None)
            self.since.pop(pair, None)

    def _end(self, claim: Claim, fate: str) -> None:
        life = self.world.judge.lives.get(claim.id.decode())
        if life is not None and life.asked and life.token == int(claim.token) and self.world.decisions.chance(0.5):
            # It heard of that; else it tells what it would tell anyway.
            self.settler.cancel(claim)
        elif fate == "complete":
            self.settler.complete(claim)
        elif fate == "release":
            self.settler.release(claim)
        elif fate == "release later":
            self.settler.release(claim, 5_000)
        else:
            failure = Failure(
                at_ms=claim.fire_at_ms, attempt=claim.attempt, reason=Reason.ERROR, kind="E", message="no"
            )
            failures = write_failures([*failures_of(claim.raw), failure])
            if fate == "bury" or claim.attempt >= claim.max_attempts:
                self.settler.bury(claim, failures)
            else:
                self.settler.retry(claim, self.world.decisions.pick((1_000, 0, 400, 20_000, DAY_MS)), failures)

    def claim(self) -> tuple[Call, Read] | None:
        """A claim for the room there is."""
        room = self.concurrency - len(self.running) - len(self.ahead)
        if room <= 0:
            return None
        session = self.process.session
        day = self._day or day_name(session.clock.now_ms() // DAY_MS)
        call = calls.claim(
            KEYS, day=day, worker=self.worker, lease_ms=LEASE_MS, limit=room,
            lane=Lane(self.worker, "claim", session.request()), epoch=self.founding.epoch,
            group=ALL if self.process.knows_all else "none", ahead_ms=ahead_ms(session.clock),
            role_ms=0 if self.wants_no_role else ROLE_MS,
        )  # fmt: skip
        return call, lambda reply: self._claimed(calls.read_claim(reply))

    def step_down(self) -> Call:
        """Leave the wait."""
        lane = Lane(self.worker, "claim", self.process.session.request())
        return calls.step_down(KEYS, self.worker, lane=lane)

    def _claimed(self, claimed: Claimed) -> None:
        self._day = claimed.day
        self.contact.count(claimed.jumps)
        if claimed.jobs or claimed.day:
            self.founding.met_jobs()
        if claimed.word == "flushed":
            self.founding.doubt()
        for i in range(0, len(claimed.jobs), 2):
            claim = Claim(claimed.jobs[i], claimed.jobs[i + 1], QueueName(QUEUE), 0)
            pair = (claim.id.decode(), int(claim.token))
            self._sort_out(claim)
            if task_and_body(claim.raw)[0] == RARE.encode() and not self.process.knows_all:
                hand_on(self, claim)
            elif claim.fire_at_ms * 1000 > claimed.now_us:
                self.ahead.hold(claim, claim)
            else:
                self._start(claim)
            self.process.held[pair] = claim
            self.process.took.add(pair)
            if self.unread_us > LEASE_MS * 1000 // 3:
                self.process.stale.add(pair)
            self.since[pair] = self.world.time_us
            self.world.ever.append((claim.id, claim.token))
        self.rest = claimed

    def _sort_out(self, claim: Claim) -> None:
        """Keep apart what may not start any more, as it seems here, or not even that."""
        task, body = task_and_body(claim.raw)
        if b"@" not in claim.id or task != b"mail.send":
            return
        _, _, claim.headers = DEFAULT.decode(body)
        fire, _, by = claim.headers.get(START_BY_HEADER, "").partition(" ")
        now_ms = self.process.session.clock.now_ms()
        if by and int(fire) == claim.fire_at_ms and (now_ms > int(by) or self.world.decisions.chance(0.1)):
            late = Late(claim.job_id, claim.token.decode(), int(by))
            self.late.setdefault(claim.headers[SCHEDULE_HEADER], {})[int(claim.headers[NOMINAL_HEADER])] = late

    def give_back(self) -> Acting:
        """Give late occurrences back to their schedules; what Redis does not take now runs."""
        late, self.late = self.late, {}
        for name, held in late.items():
            steps = give_back(self.process.session, QUEUE, name, held)
            try:
                given = yield from drive(timed(steps, self.world), self.world.decisions)
            except BrokerError:
                self.world.mark("gave up giving back")
                continue
            for at in given.gone:
                self.lose((held[at].id, int(held[at].token)))

    def lose(self, pair: tuple[str, int]) -> None:
        """A claim is lost, or was held for longer than any may be."""
        self.since.pop(pair, None)
        self.running.pop(pair, None)
        self.process.held.pop(pair, None)
        self.process.took.discard(pair)

    def give_up(self, heard_us: int) -> None:
        """Stop what was not renewed for most of a lease. What becomes of it is told when Redis answers."""
        world = self.world
        for pair, (claim, _, _) in list(self.running.items()):
            if (world.time_us - max(heard_us, self.since[pair])) * 10 > 9 * LEASE_MS * 1000:
                del self.running[pair]
                self._end(claim, world.decisions.pick(("release", "complete")))
                world.mark("given up in silence")

    def block(self) -> Acting:
        """Now and then a task blocks the event loop, for up to three leases."""
        world = self.world
        if world.decisions.chance(0.1 if self.settler.waiting else 0.015 if self.running else 0):
            world.mark("blocked loop")
            seconds = world.decisions.pick((0.6, 0.2, 1.2, 3.0)) * LEASE_MS / 1000
            self.blocked_until = world.time_us + int(seconds * SECOND_US)
            yield seconds

    def next_end_s(self) -> float:
        """Until the next job ends or may start, seconds."""
        ends = [ends_at for _, ends_at, fate in self.running.values() if fate != "hang"]
        first = max(0.0, (min(ends) - self.world.time_us) / SECOND_US) if ends else 60.0
        return first if self.ahead.rest_s is None else min(first, self.ahead.rest_s)


def poller(hands: Hands, listen: Callable[[bool], None]) -> Acting:
    """A worker's loop: settle and claim in one round trip, and wait in the role that the claim gave."""
    world = hands.world
    due = True
    while True:
        listen(False)
        hands.finish()
        yield from hands.block()
        batch = hands.settler.take()
        if hands.founding.unsure:
            hands.founding.read((yield from persist(hands.founding.asks(), world.decisions, ever=True)))
        claim = hands.claim() if due and hands.founding.halted is None else None
        if claim is not None:
            batch.append(claim)
        if batch:
            replies = yield from persist([call for call, _ in batch], world.decisions, ever=True)
            answered_us = world.time_us
            yield from hands.block()
            hands.unread_us = world.time_us - answered_us
            for (_, read), reply in zip(batch, replies, strict=True):
                read(reply)
        yield from hands.give_back()
        if claim is None and due and world.decisions.chance(0.1):
            yield from persist([hands.step_down()], world.decisions, ever=True)
        if hands.settler.waiting:
            continue
        if claim is None or batch[-1] is not claim:
            yield min(hands.next_end_s(), BACKSTOP_S)
            due = True
            continue
        rest = hands.rest
        assert rest is not None
        if rest.word in ("moved", "flushed") or (
            rest.role == "none" and rest.word != "paused" and len(hands.running) < hands.concurrency
        ):
            yield 0.0
            continue
        wait = BACKSTOP_S * (5 if rest.role == "follower" else 1)
        if rest.role == "timekeeper" and rest.next_fire_ms is not None:
            wait = min(wait, max(0.0, (rest.next_fire_ms * 1000 - hands.process.session.clock.now_us()) / SECOND_US))
            wait = max(0.0, wait - rest.ahead_ms / 2000)
        if rest.role != "none":
            listen(True)
        yield min(wait, hands.next_end_s())


def heartbeat(hands: Hands) -> Acting:
    """Renews every lease each third of one; asks again soon when nobody answers. Settles while the loop is blocked."""
    process, world = hands.process, hands.world
    beside: list[tuple[Call, Read]] = []
    heard_us = world.time_us
    while True:
        for pair, claim in list(process.held.items()):
            if not claim.ended and world.time_us - hands.since[pair] >= hands.longest_us:
                hands.lose(pair)
                world.mark("capped")
        held = list(process.held)
        sent_us = world.time_us
        pairs = [(job_id.encode(), b"%016d" % token) for job_id, token in held]
        call = calls.extend(KEYS, pairs, lease_ms=LEASE_MS)
        try:
            (reply,) = yield (call,)
        except BrokerError:
            hands.contact.lost()
            hands.give_up(heard_us)
            yield LEASE_MS / 1000 / 15
            continue
        heard_us = sent_us
        hands.contact.heard(sent_us * 1000)
        process.stale -= set(held)
        for pair, letter in zip(held, calls.read_letters(reply) or "", strict=True):
            # One that ended is left to the settler: its outcome under way may be what took the job out of our hands.
            if letter != "k" and pair in process.held and not process.held[pair].ended:
                hands.lose(pair)
        process.troubled = False
        # Sent again as it is until it is answered, once after each beat.
        if hands.blocked_until > world.time_us and not beside:
            beside = hands.settler.take("beside-")
        if beside:
            try:
                replies = yield [call for call, _ in beside]
            except BrokerError:
                hands.contact.lost()
                yield LEASE_MS / 1000 / 15
                continue
            world.mark("settled beside a blocked loop")
            for (_, read), answer in zip(beside, replies, strict=True):
                read(answer)
            beside = []
        yield LEASE_MS / 1000 / 3


def zombie(world: World, process: Process, most_dead: int) -> Acting:
    """Acts with tokens of the dead, and with old ones of anybody: whatever is not the newest must be refused."""
    decisions = world.decisions
    while True:
        yield decisions.pick((0.5, 5.0, 15.0))
        held = {pair for other in world.actors for pair in other.process.held}
        old = [(i, t) for i, t in world.ever if (i.decode(), int(t)) not in held]
        lives = world.judge.lives
        running = [pair for pair in old if (life := lives.get(pair[0].decode())) and life.state == "p"]
        pool = world.graves if world.graves and decisions.chance(0.4) else running or old
        if not pool:
            continue
        job_id, token = decisions.pick(pool)
        session = process.session
        with session.lane() as lane:
            kind = decisions.pick(("d", "extend", "r", "b", "x"))
            life = world.judge.lives.get(job_id.decode())
            if kind == "r" and life is not None and life.attempt >= life.most:
                continue
            if kind == "extend":
                call = calls.extend(KEYS, [(job_id, token)], lease_ms=LEASE_MS)
            else:
                failures = b'{"at":1,"attempt":1,"reason":"error"}\n' if kind == "x" else b""
                call = calls.settle(
                    KEYS, [(job_id, token)] if kind == "d" else (),
                    [] if kind == "d" else [Ending(job_id, token, kind, failures, None, 0 if kind == "x" else 500)],
                    most_dead=most_dead, now_ms=session.clock.now_ms(), lane=lane,
                )  # fmt: skip
            try:
                yield from persist((call,), decisions)
            except BrokerError:
                continue
