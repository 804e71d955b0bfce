"""Producing: a batch of new jobs of one queue, and a bulk, which is many of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from zwheel.broker.store import Steps
from zwheel.calls import (
    BATCH_LIMIT,
    Doubt,
    NewJob,
    Session,
    ShardsChanged,
    enqueue,
    letters_repeated,
    placed,
    reached,
    read_enqueue,
    waits,
    with_receipt,
)
from zwheel.errors import (
    BrokerError,
    BrokerRefused,
    InvalidInput,
    OutcomeUnknown,
    PayloadTooLarge,
    QueueFull,
    SchemaMismatch,
)
from zwheel.job import Durability, Enqueued
from zwheel.operations.durable import confirmed, may_confirm
from zwheel.operations.former import look_back
from zwheel.operations.gather import gather
from zwheel.operations.listing import joined, may_join
from zwheel.operations.shards import follow, learn_shards
from zwheel.plain import counted

#: How often a call may meet another day than the one it named before something is plainly wrong.
_MOVES = 20
#: How long to wait before a batch is sent to other shards once more, a little longer each time, seconds.
_TURN_S = 0.01
#: So many shards are sent their part of a batch in one round trip.
_ABREAST = 16
_CHUNK_BYTES = 8 * 1024 * 1024
#: How many keys of a bulk are forgotten in one round trip.
_FORGET = 500


class Bulk:
    """One `enqueue_many`: its chunks, and the keys under which Redis keeps their answers until all of them are stored.

    These keys are there for a call that raises or dies half way: the same call again, also from another process, then
    gets the first answers for the chunks that were stored, though their jobs may have ended and left nothing.
    """

    def __init__(self, jobs: Iterable[NewJob], most: int, durable: Durability | None = None) -> None:
        """Take the jobs of a call. durable: of those that do not say it themselves. Raises: InvalidInput."""
        if not 1 <= most <= BATCH_LIMIT:
            raise InvalidInput(f"chunk: {most} is not between 1 and {BATCH_LIMIT}")
        self._jobs = jobs
        self._most = most
        self.durable = durable
        self._keys: list[str] = []

    def chunks(self) -> Iterator[Chunk]:
        """Cut the jobs into chunks of at most so many, and of at most 8 MiB: large bodies make smaller chunks."""
        part: list[NewJob] = []
        size = 0
        first = True
        for job in self._jobs:
            if len(part) >= self._most or size >= _CHUNK_BYTES:
                yield Chunk(part, self, alone=False)
                part, size, first = [], 0, False
            part.append(job)
            size += len(job.body)
        if part:
            yield Chunk(part, self, alone=first)

    def remember(self, key: str) -> None:
        """Take the key of a chunk that is stored."""
        self._keys.append(key)

    @property
    def remembered(self) -> bool:
        """Whether there is anything to forget."""
        return bool(self._keys)

    def forget(self, session: Session) -> Steps[None]:
        """All is stored: take the keys away, so that a new round of the very same jobs is not taken for a repeat."""
        for start in range(0, len(self._keys), _FORGET):
            try:
                # Not DEL: a producer has the right to SET, and needs no other one for this.
                yield [("SET", key, "", "PX", 1) for key in self._keys[start : start + _FORGET]]
            except BrokerError:
                return  # They end by themselves, within the hour.


class Chunk:
    """Some jobs of a bulk; those of one queue are stored all or none."""

    def __init__(self, jobs: list[NewJob], bulk: Bulk, *, alone: bool) -> None:
        self.jobs = jobs
        self._bulk = bulk
        #: How safely the whole chunk is stored: what satisfies each of its jobs.
        self._durable = bulk.durable
        for job in jobs:
            if job.durable is not None:
                self._durable = job.durable | (self._durable or job.durable)
        one = len({job.queue for job in jobs}) == 1
        #: The places of the jobs of each queue.
        self._places = [range(len(jobs))] if one else _grouped(range(len(jobs)), lambda n: jobs[n].queue).values()
        self._sole, self._alone = alone, alone and one

    @property
    def unsettled(self) -> set[str]:
        """The tasks of its jobs that were made before the client knew what workers publish of these tasks."""
        return {job.unsettled.task for job in self.jobs if job.unsettled is not None}

    def of(self, jobs: list[NewJob]) -> Chunk:
        """The same chunk with these jobs in the place of its own."""
        return Chunk(jobs, self._bulk, alone=self._sole)

    def store(self, session: Session, known: set[str]) -> Steps[list[Enqueued]]:
        """Store the chunk; answers in its order. Raises: QueueFull, PayloadTooLarge, NotDurable."""
        answers: list[Any] = [None] * len(self.jobs)
        for places in self._places:
            batch = [self.jobs[i] for i in places]
            stored = yield from enqueue_batch(session, batch, known, None if self._alone else self._bulk, self._durable)
            for i, answer in zip(places, stored, strict=True):
                answers[i] = answer
        return confirmed(answers, self._durable) if self._durable else answers


def _grouped(places: Iterable[int], group_of: Callable[[int], str]) -> dict[str, list[int]]:
    """Group -> its places among those of a batch, in the order of the first of each."""
    groups: dict[str, list[int]] = {}
    for place in places:
        groups.setdefault(group_of(place), []).append(place)
    return groups


def enqueue_batch(
    session: Session,
    batch: Sequence[NewJob],
    known: set[str],
    bulk: Bulk | None = None,
    durable: Durability | None = None,
) -> Steps[list[Enqueued]]:
    """Store up to 1000 jobs of one queue, those of each shard all or none; answers in the batch's order.

    known: queues that are already in the list of queues; this one joins it once the jobs are stored.
    bulk: what this is a chunk of; Redis then keeps the answer for the same chunk of another call.
    durable: how safely they are to be stored; the answers have receipts then, which may say less.
    Raises: QueueFull, PayloadTooLarge.
    """
    # Not a generator itself: one less to pass through for every job.
    if session.former or session.doubts or session.counts.get(batch[0].queue) != 1:
        return _by_shard(session, batch, known, bulk, durable)
    return _send(session, batch, batch[0].queue, None, known, bulk, durable, sole=True)


def _by_shard(
    session: Session, batch: Sequence[NewJob], known: set[str], bulk: Bulk | None, durable: Durability | None
) -> Steps[list[Enqueued]]:
    """The same where the queue has several shards, or the session does not know how many: one call for each shard.

    Where a shard says that the queue has other shards by now, its jobs are cut anew.
    """
    queue = batch[0].queue
    answers: list[Any] = [None] * len(batch)
    left: list[int] = list(range(len(batch)))
    for turn in range(_MOVES):
        yield from learn_shards(session, [queue])
        # Others may tell this session of another cut meanwhile. A turn goes by one cut from its beginning to its end.
        count, former = session.counts.get(queue, 1), session.former.get(queue)
        groups = _grouped(left, lambda n, count=count: placed(queue, count, batch[n].id, batch[n].dedup))  # type: ignore[misc]
        parts = [
            _part(session, [batch[place] for place in places], shard, former, known, bulk, durable)
            for shard, places in groups.items()
        ]
        # A request in doubt may be about jobs of several shards. And a wait for a receipt speaks of one connection.
        abreast = 1 if session.doubts or durable else _ABREAST
        stored: list[list[Enqueued] | ShardsChanged] = []
        for start in range(0, len(parts), abreast):
            some = parts[start : start + abreast]
            stored += (yield from gather(some)) if len(some) > 1 else [(yield from some[0])]
        changed: dict[str, ShardsChanged] = {}
        for (shard, places), answer in zip(groups.items(), stored, strict=True):
            if isinstance(answer, ShardsChanged):
                changed[shard] = answer
            else:
                for place, one in zip(places, answer, strict=True):
                    answers[place] = one
        if not changed:
            return answers
        left = [place for shard in changed for place in groups[shard]]
        shard, first = next(iter(changed.items()))
        yield from _follow(session, batch[left[0]], shard, first, known)
        if turn > 1:
            yield _TURN_S * turn
    raise BrokerRefused(
        f"queue {queue}: its shards and the list of queues say different things; {counted(len(left), 'job')} not stored, "
        "see `zwheel doctor`"
    )


def _part(
    session: Session, batch: Sequence[NewJob], shard: str, former: int | None, known: set[str], bulk: Bulk | None,
    durable: Durability | None,
) -> Steps[list[Enqueued] | ShardsChanged]:  # fmt: skip
    """Store a batch of one shard; what the shard says, when its queue has other shards by now."""
    store = _after_doubts if session.doubts else _store
    try:
        return (yield from store(session, batch, shard, former, known, bulk, durable))
    except ShardsChanged as changed:
        return changed


def _store(
    session: Session, batch: Sequence[NewJob], shard: str, former: int | None, known: set[str], bulk: Bulk | None,
    durable: Durability | None,
) -> Steps[list[Enqueued]]:  # fmt: skip
    """Store a batch of one shard. former: how many shards its queue had, while it is being cut anew."""
    # Not a generator itself: one less to pass through for every job.
    if former is None:
        return _send(session, batch, shard, former, known, bulk, durable)
    return _beside_former(session, batch, shard, former, known, bulk, durable)


def _beside_former(
    session: Session, batch: Sequence[NewJob], shard: str, former: int, known: set[str], bulk: Bulk | None,
    durable: Durability | None,
) -> Steps[list[Enqueued]]:  # fmt: skip
    """The same while the queue is cut anew: what stands in the former cut is found there, and only the others are stored."""
    found = yield from look_back(session, batch, former)
    left = [job for place, job in enumerate(batch) if place not in found]
    made = iter((yield from _send(session, left, shard, former, known, bulk, durable)) if left else [])
    return [found[place] if place in found else next(made) for place in range(len(batch))]


def _send(
    session: Session, batch: Sequence[NewJob], shard: str, former: int | None, known: set[str], bulk: Bulk | None,
    durable: Durability | None, *, sole: bool = False,
) -> Steps[list[Enqueued]]:  # fmt: skip
    """Send a batch to its shard. sole: the queue has no other; else this raises ShardsChanged where that is wrong."""
    queue = batch[0].queue
    keys = session.keys(shard)
    if queue not in known:
        yield from may_join(session, queue)
    if durable:
        yield from may_confirm(session, keys, durable)
    loan = session.lane()
    with loan as lane:
        for _ in range(_MOVES):
            sent = enqueue(
                keys, batch, now_ms=session.clock.now_ms(), lane=lane, now=session.now, chunk=bulk is not None,
                former=former,
            )  # fmt: skip
            began = time.monotonic()
            try:
                commands = (sent.call, *waits(durable, session.confirm_ms)) if durable else (sent.call,)
                replies = yield commands
            except (OutcomeUnknown, GeneratorExit):
                session.doubts.keep(Doubt(loan, sent, began))
                raise
            try:
                answers = read_enqueue(sent, replies[0])
            except ShardsChanged as error:
                changed = error
                break
            if answers is not None:
                if bulk is not None:
                    bulk.remember(sent.call.keys[-1])
                if queue not in known and (yield from joined(session, queue)):
                    known.add(queue)
                if durable:
                    receipt = reached(commands, replies)
                    if not receipt.covers(durable):
                        session.doubts.keep(Doubt(loan, sent, began))  # Who asks again gets this answer, confirmed.
                    answers = with_receipt(answers, receipt)
                return answers
            # The jobs are laid out for other days now, so the next call has a request id of its own. Under the old id Redis
            # has remembered the answer 'the day changed', and gives it to late copies of this call.
            lane = loan.lane = lane._replace(request=session.request())
        else:
            raise BrokerRefused(
                f"queue {queue}: the server's clock and this machine's estimate of it do not come together"
            )
    if not sole:
        raise changed
    yield from _follow(session, batch[0], shard, changed, known)
    return (yield from _by_shard(session, batch, known, bulk, durable))


def _follow(session: Session, job: NewJob, shard: str, changed: ShardsChanged, known: set[str]) -> Steps[None]:
    """Learn how many shards the queue of a job has by now. Raises: BrokerRefused, while it is being removed."""
    queue = job.queue
    if changed.count != 0:
        yield from follow(session, queue, changed)
        return
    known.discard(queue)
    session.counts.pop(queue, None)
    yield from learn_shards(session, [queue])
    if session.shard_of(queue, job.id, job.dedup) == shard:
        raise BrokerRefused(
            f"queue {queue} is being removed, and nothing was stored; if that was cut off: `zwheel queue rm {queue}`"
        )


def _after_doubts(
    session: Session, batch: Sequence[NewJob], shard: str, former: int | None, known: set[str], bulk: Bulk | None,
    durable: Durability | None,
) -> Steps[list[Enqueued]]:  # fmt: skip
    """Store a batch of which some jobs were asked for before, and their caller was not told what became of them."""
    doubts, queue = session.doubts, batch[0].queue
    own = doubts.take_own(queue, batch)
    if own is not None:
        yield from _find_out(session, own, batch, bulk, durable)
    elif bulk is not None and (yield from _is_repeat(session, batch, shard)):
        # A part of it would not be known as the chunk that it is.
        return (yield from _store(session, batch, shard, former, known, bulk, durable))
    found: dict[str, Enqueued] = {}
    for job in batch:
        if job.id in found:
            continue
        answer = doubts.answer(queue, job)
        if answer is None and (doubt := doubts.take(queue, job.id)) is not None:
            yield from _find_out(session, doubt, batch, bulk, durable)
            answer = doubts.answer(queue, job)
        if answer is not None:
            found[job.id] = answer
    rest = [job for job in batch if job.id not in found]
    if len(rest) == len(batch):
        return (yield from _store(session, batch, shard, former, known, bulk, durable))
    made: list[Enqueued] = []
    if rest:
        # When this raises, the answers that were found stay: the callers of the batch are asked for one by one.
        made = yield from _store(session, rest, shard, former, known, None, durable)
    elif queue not in known and (yield from joined(session, queue)):
        known.add(queue)
    doubts.told(queue, found)
    return list(_in_order(batch, found, made))


def _in_order(batch: Sequence[NewJob], found: dict[str, Enqueued], made: Sequence[Enqueued]) -> Iterator[Enqueued]:
    """The answers of a batch, in its order: jobs that were found by id, and the jobs that were made."""
    told: set[str] = set()
    others = iter(made)
    for job in batch:
        answer = found.get(job.id)
        if answer is None:
            yield next(others)
        else:
            # The second of one batch that asks for the id meets the job of the first.
            yield answer if job.id not in told else replace(answer, existed=True, replaced=False)
            told.add(job.id)


def _is_repeat(session: Session, batch: Sequence[NewJob], shard: str) -> Steps[bool]:
    """Whether an earlier call stored this chunk, and Redis has its answer, though jobs of it are in doubt by another request."""
    if not session.doubts.about(batch):
        return False
    keys = session.keys(shard)
    with session.lane() as lane:
        sent = enqueue(keys, batch, now_ms=session.clock.now_ms(), lane=lane, chunk=True)
    (answer,) = yield (("GET", sent.call.keys[-1]),)
    return bool(answer)


def _find_out(
    session: Session, doubt: Doubt, batch: Sequence[NewJob], bulk: Bulk | None, durable: Durability | None
) -> Generator[Any, list[Any], None]:
    """Ask for jobs of an earlier request once more, on its lane and by its name.

    Was that carried out, its answer comes, a letter for each of its jobs. Else the jobs are stored now, and a late copy
    of the earlier request finds the lane taken.
    """
    places = {job_id: place for place, job_id in enumerate(doubt.ids)}
    mine = {job.id: job for job in reversed(batch) if job.id in places}
    again = doubt.again or [mine[job_id] for job_id in places if job_id in mine]
    whole = bulk is not None and len(again) == len(batch)
    sent = enqueue(
        session.keys(doubt.sent.shard), again, now_ms=session.clock.now_ms(), lane=doubt.loan.lane, now=session.now,
        chunk=whole,
    )  # fmt: skip
    commands = (sent.call, *waits(durable, session.confirm_ms))
    try:
        replies = yield commands
    except (OutcomeUnknown, GeneratorExit):
        doubt.again = again
        session.doubts.keep(doubt)
        raise
    except BrokerError:
        session.doubts.keep(doubt)
        raise
    first = letters_repeated(replies[0]) == len(doubt.ids)
    try:
        answers = read_enqueue(doubt.sent if first else sent, replies[0])
    except (QueueFull, PayloadTooLarge, SchemaMismatch, ShardsChanged):
        # Not carried out, and a late copy will not be either: they are asked for anew.
        answers = None
    if answers is not None and whole and bulk is not None:
        bulk.remember(sent.call.keys[-1])
    if not first:
        doubt.freed.clear()  # The job stored now is not the job that was cancelled or purged.
    receipt = reached(commands, replies)
    if durable and answers is not None:
        answers = with_receipt(answers, receipt)
    session.doubts.settle(
        doubt, (doubt.sent.batch if first else again) if answers is not None else (), answers or (),
        confirmed=answers is None or not durable or receipt.covers(durable),
    )  # fmt: skip
