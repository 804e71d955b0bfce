"""The settler: gathers how jobs of one shard ended and turns them into batched calls, safe to send again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from zwheel import calls
from zwheel.calls import BATCH_LIMIT, Back, Call, Lane, Refile, Reply, Session
from zwheel.context import SCHEDULE_HEADER
from zwheel.errors import LeaseLost
from zwheel.keys import ShardKeys
from zwheel.outside import escaped

from .claims import Claim

log = escaped("zwheel.worker")

Read = Callable[[Reply], None]


class Settler:
    """Outcomes of one shard, waiting to be sent. One batch of each kind is under way at a time."""

    def __init__(
        self, session: Session, keys: ShardKeys, worker: str, most_dead: int,
        occurrence_ended: Callable[[str], None] = lambda schedule: None,
    ) -> None:  # fmt: skip
        self._session = session
        self._keys = keys
        self._worker = worker
        self._most_dead = most_dead
        self._done: list[tuple[bytes, bytes]] = []
        self._retried: list[Back] = []
        self._released: list[Back] = []
        self._buried: list[tuple[bytes, bytes, bytes]] = []
        self.lost = 0
        #: Told of the schedules whose occurrences ended, once Redis knows it: another may wait for that.
        self._occurrence_ended = occurrence_ended
        self._schedules: set[str] = set()

    def complete(self, claim: Claim) -> None:
        """The job ended well."""
        self._done.append((claim.id, claim.token))
        if claim.headers:
            self._ends(claim)

    def _ends(self, claim: Claim) -> None:
        schedule = claim.headers.get(SCHEDULE_HEADER)
        if schedule is not None:
            self._schedules.add(schedule)

    def retry(self, claim: Claim, delay_ms: int, failures: bytes) -> None:
        """The attempt failed; another follows after `delay_ms`."""
        self._retried.append(Back(claim.id, claim.token, None, delay_ms, failures))

    def release(self, claim: Claim, delay_ms: int | None = None, failures: bytes = b"") -> None:
        """The job goes back unharmed: to its own fire time, or to `delay_ms` from now."""
        at_ms = claim.fire_at_ms if delay_ms is None else None
        self._released.append(Back(claim.id, claim.token, at_ms, delay_ms or 0, failures))

    def bury(self, claim: Claim, failures: bytes) -> None:
        """The job is dead; the last of its failures says why."""
        self._buried.append((claim.id, claim.token, failures))
        self._ends(claim)

    @property
    def waiting(self) -> bool:
        """Whether there is anything to send."""
        return bool(self._done or self._retried or self._released or self._buried)

    def take(self) -> list[tuple[Call, Read]]:
        """Turn what waits into calls, each with what reads its reply."""
        session, keys = self._session, self._keys
        taken: list[tuple[Call, Read]] = []
        if self._done:
            ends, self._done = self._done[:BATCH_LIMIT], self._done[BATCH_LIMIT:]
            call = calls.complete(keys, ends, lane=self._lane("complete"), now=session.now)
            taken.append((call, lambda reply: self._read(ends, calls.read_letters(reply), "d")))
        if self._buried:
            graves, self._buried = self._buried[:BATCH_LIMIT], self._buried[BATCH_LIMIT:]
            call = calls.bury(keys, graves, most_dead=self._most_dead, lane=self._lane("bury"), now=session.now)
            taken.append(
                (call, lambda reply: self._read([(i, t) for i, t, _ in graves], calls.read_letters(reply), "x"))
            )
        if self._retried:
            again, self._retried = self._retried[:BATCH_LIMIT], self._retried[BATCH_LIMIT:]
            sent = calls.retry(keys, again, now_ms=session.clock.now_ms(), lane=self._lane("retry"), now=session.now)
            taken.append((sent.call, lambda reply: self._read_back(sent, again, self._retried, reply, "r")))
        if self._released:
            back, self._released = self._released[:BATCH_LIMIT], self._released[BATCH_LIMIT:]
            freed = calls.release(
                keys, back, now_ms=session.clock.now_ms(), lane=self._lane("release"), now=session.now
            )
            taken.append((freed.call, lambda reply: self._read_back(freed, back, self._released, reply, "b")))
        return taken

    def _lane(self, name: str) -> Lane:
        return Lane(self._worker, name, self._session.request())

    def _read_back(self, sent: Refile, batch: list[Back], waiting: list[Back], reply: Reply, good: str) -> None:
        letters = calls.read_refile(sent, reply)
        if letters is None:
            waiting[:0] = batch
        else:
            self._read([(back.job_id, back.token) for back in batch], "".join(letters), good)

    def _read(self, batch: Sequence[tuple[bytes | str, bytes]], letters: str | None, good: str) -> None:
        if self._schedules and good in "dx":
            ended, self._schedules = self._schedules, set()
            for schedule in ended:
                self._occurrence_ended(schedule)
        if letters is None or letters.count(good) == len(batch):
            return
        for (job_id, token), letter in zip(batch, letters, strict=True):
            if letter != good:
                self.lost += 1
                log.warning("%s", LeaseLost(job_id.decode() if isinstance(job_id, bytes) else job_id, int(token)))
