"""The settler: gathers how jobs of one shard ended and turns them into one batched call, safe to send again.

The event loop hands outcomes in and sends them, as a rule. While a task blocks the loop, the heartbeat's thread takes
the outcomes that wait and sends them on lanes of its own: a lock lets one of the two take at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import accumulate
from threading import Lock
from typing import TypeVar

from zwheel import calls
from zwheel.calls import BATCH_LIMIT, OFFER_MS, Call, Ending, Lane, Offer, Reply, Session
from zwheel.current import SCHEDULE_HEADER
from zwheel.errors import LeaseLost
from zwheel.keys import ShardKeys
from zwheel.outside import escaped

from .claims import Claim

log = escaped("zwheel.worker")

T = TypeVar("T")
#: How many bytes of records and failures one call may make its script read and write: that takes a few ms.
_BATCH_BYTES = 2 * 1024 * 1024
Read = Callable[[Reply], None]
#: Groups of workers, and how long an offer to them stands, ms.
_To = tuple[tuple[str, ...], int]


class Settler:
    """Outcomes of one shard, waiting to be sent. One batch and one of offers are under way at a time, on each set of lanes."""

    def __init__(
        self, session: Session, keys: ShardKeys, worker: str, most_dead: int,
        occurrence_ended: Callable[[str], None] = lambda schedule: None,
        settled: Callable[[Sequence[Claim]], None] = lambda claims: None,
    ) -> None:  # fmt: skip
        self._session = session
        self._keys = keys
        self._worker = worker
        self._most_dead = most_dead
        #: Claims of jobs that ended well, of jobs that ended otherwise, and of jobs that are offered to other workers.
        self._done: deque[Claim] = deque()
        self._others: deque[tuple[Claim, Ending]] = deque()
        self._offered: deque[tuple[Claim, Offer, _To]] = deque()
        self.lost = 0
        #: Held by the thread that takes outcomes. A thread that adds an outcome needs no lock.
        self._taking = Lock()
        #: Called with a schedule's name when Redis knows that one of its occurrences ended: the next one may wait for that.
        self._occurrence_ended = occurrence_ended
        self._schedules: set[str] = set()
        #: Called with the claims whose outcomes Redis has acknowledged: the heartbeat need not renew their leases any more.
        self._settled = settled

    @property
    def queue(self) -> str:
        """The queue whose jobs it settles."""
        return self._keys.name

    def complete(self, claim: Claim) -> None:
        """The job ended well."""
        claim.ended = True
        if claim.headers:
            self._ends(claim)
        self._done.append(claim)

    def _ends(self, claim: Claim) -> None:
        schedule = claim.headers.get(SCHEDULE_HEADER)
        if schedule is not None:
            self._schedules.add(schedule)

    def retry(self, claim: Claim, delay_ms: int, failures: bytes) -> None:
        """The attempt failed; another follows after `delay_ms`."""
        claim.ended = True
        self._others.append((claim, Ending(claim.id, claim.token, "r", failures, None, delay_ms)))

    def release(
        self, claim: Claim, delay_ms: int | None = None, failures: bytes = b"", at_ms: int | None = None
    ) -> None:
        """The job goes back unharmed: to its own fire time, to `at_ms`, or to `delay_ms` from now."""
        claim.ended = True
        if at_ms is None and delay_ms is None:
            at_ms = claim.fire_at_ms
        self._others.append((claim, Ending(claim.id, claim.token, "b", failures, at_ms, delay_ms or 0)))

    def offer(self, claim: Claim, groups: tuple[str, ...], failures: bytes = b"", stands_ms: int = OFFER_MS) -> None:
        """The job goes back unharmed, and is offered for so long to groups of workers that know its task."""
        claim.ended = True
        self._offered.append((claim, Offer(claim.id, claim.token, failures), (groups, stands_ms)))

    def cancel(self, claim: Claim) -> None:
        """The job is cancelled."""
        claim.ended = True
        self._others.append((claim, Ending(claim.id, claim.token, "c", b"")))

    def bury(self, claim: Claim, failures: bytes) -> None:
        """The job is dead; the last of its failures says why."""
        claim.ended = True
        self._ends(claim)
        self._others.append((claim, Ending(claim.id, claim.token, "x", failures)))

    @property
    def waiting(self) -> bool:
        """Whether there is anything to send."""
        return bool(self._done or self._others or self._offered)

    def take(self, lanes: str = "") -> list[tuple[Call, Read]]:
        """Turn the outcomes that wait into calls, each with what reads its reply.

        lanes: whose lanes to use, '' for the event loop's own; a lane carries one request at a time.
        """
        session, keys = self._session, self._keys
        taken: list[tuple[Call, Read]] = []
        # One call for both: neither keeps the other from being told.
        others: list[tuple[Claim, Ending]] = []
        size = 0
        if self._others:
            room = max(BATCH_LIMIT // 2, BATCH_LIMIT - len(self._done))
            others, size = self._some(self._others, _sizes, room)
        done, _ = self._some(
            self._done,
            lambda some: [len(one.raw) for one in some],
            BATCH_LIMIT - len(others),
            _BATCH_BYTES - size,
        )
        if done or others:
            call = calls.settle(
                keys, [(claim.id, claim.token) for claim in done], [one for _, one in others], most_dead=self._most_dead,
                now_ms=session.clock.now_ms() if others else 0, lane=self._lane(lanes + "settle"), now=session.now,
            )  # fmt: skip
            taken.append((call, lambda reply: self._read_settled(done, others, reply)))
        offered, _ = self._some(
            self._offered, lambda some: [len(one.raw) + len(offer.failures) for one, offer, _ in some], BATCH_LIMIT
        )
        if offered:
            # One call goes to one set of groups: the others wait for the next round trip.
            groups, stands_ms = to = offered[0][2]
            self._offered.extendleft(reversed([one for one in offered if one[2] != to]))
            mine = [one for one in offered if one[2] == to]
            sent = calls.offer(
                keys, [one for _, one, _ in mine], groups=groups, now_ms=session.clock.now_ms(),
                lane=self._lane(lanes + "offer"), stands_ms=stands_ms, now=session.now,
            )  # fmt: skip
            taken.append((sent, lambda reply: self._read_offered(mine, reply)))
        return taken

    def _some(
        self, waiting: deque[T], bytes_of: Callable[[list[T]], list[int]], most: int, most_bytes: int = _BATCH_BYTES
    ) -> tuple[list[T], int]:
        """Take the oldest of them, as many as one call may carry, and say how many bytes these make its script read and
        write; what is left goes out with the next round trip.
        """
        if not waiting or most_bytes <= 0:
            return [], 0
        pop = waiting.popleft
        with self._taking:
            taken = [pop() for _ in range(min(len(waiting), most))]
            sizes = bytes_of(taken)
            size = sum(sizes)
            if size > most_bytes:
                # The outcome that crosses the limit still goes, so that an outcome of any size is sent.
                fits = next(number for number, size in enumerate(accumulate(sizes), 1) if size >= most_bytes)
                waiting.extendleft(reversed(taken[fits:]))
                del taken[fits:]
        return taken, size

    def _read_settled(self, done: list[Claim], others: list[tuple[Claim, Ending]], reply: Reply) -> None:
        letters = calls.read_letters(reply)
        if letters is None:
            self._done.extendleft(reversed(done))
            self._others.extendleft(reversed(others))
            return
        batch, good = done, "d" * len(done)
        if others:
            batch = [*done, *(claim for claim, _ in others)]
            good += "".join([one.letter for _, one in others])
        self._settled(batch)
        if letters != good:
            self._lost(batch, letters, good)
        if self._schedules and not {"d", "x", "c"}.isdisjoint(letters):
            ended, self._schedules = self._schedules, set()
            for schedule in ended:
                self._occurrence_ended(schedule)

    def _read_offered(self, batch: list[tuple[Claim, Offer, _To]], reply: Reply) -> None:
        letters = calls.read_letters(reply)
        if letters is None:
            self._offered.extendleft(reversed(batch))
            return
        claims = [claim for claim, _, _ in batch]
        self._settled(claims)
        self._lost(claims, letters, "o" * len(claims))

    def _lane(self, name: str) -> Lane:
        return Lane(self._worker, name, self._session.request())

    def _lost(self, batch: list[Claim], letters: str, good: str) -> None:
        for claim, letter, asked in zip(batch, letters, good, strict=True):
            if letter == "c":
                # It was asked to cancel the job, also where this worker had not heard of that yet.
                self._ends(claim)
            elif letter != asked:
                self.lost += 1
                log.warning("%s", LeaseLost(claim.job_id, int(claim.token)))


def _sizes(others: list[tuple[Claim, Ending]]) -> list[int]:
    return [len(claim.raw) + len(one.failures) for claim, one in others]
