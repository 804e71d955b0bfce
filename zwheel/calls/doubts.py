"""Enqueues whose outcome their caller was not told. Each keeps its lane, so that asking again gets the first answer."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from zwheel.calls.call import Loan
from zwheel.calls.enqueue import EnqueueCall, NewJob
from zwheel.job import Enqueued, JobId

#: How long a request is kept, seconds: a little less than Redis keeps its answer.
KEPT_S = 290
#: The most jobs that are kept so; the oldest are forgotten first.
MOST_JOBS = 20_000


class Doubt:
    """One request: sent, and not answered."""

    __slots__ = ("again", "freed", "ids", "loan", "sent", "until")

    def __init__(self, loan: Loan, sent: EnqueueCall, began: float) -> None:
        self.loan = loan
        self.ids = [job.id for job in sent.batch]
        #: The call that was sent, without the bodies: it is only read, never sent again.
        self.sent = sent._replace(call=sent.call._replace(args=(), about=()), batch=[_light(job) for job in sent.batch])
        #: The jobs of this request that were asked for again, when that got no answer either.
        self.again: Sequence[NewJob] | None = None
        #: Those of its jobs that were cancelled or purged since: their ids are free.
        self.freed: set[str] = set()
        self.until = began + KEPT_S


class Doubts:
    """What one session is in doubt about, by the ids of the jobs. Most of the time nothing."""

    def __init__(self) -> None:
        self._doubts: dict[tuple[str, str], Doubt] = {}
        #: The answer, until when it is kept, and whether an ended job was to give way.
        self._answers: dict[tuple[str, str], tuple[Enqueued, float, bool | None]] = {}

    def __bool__(self) -> bool:
        return bool(self._doubts or self._answers)

    def keep(self, doubt: Doubt) -> None:
        """Be in doubt about a request. Its lane stays with it."""
        doubt.loan.keep()
        queue = doubt.sent.queue
        for job_id in doubt.ids:
            self._doubts[queue, job_id] = doubt
        self._forget()

    def answer(self, queue: str, job: NewJob) -> Enqueued | None:
        """The answer of a job whose request was found out about. It stays until its caller is `told`.

        That it existed is no answer to one who asks otherwise about replacing it.
        """
        found = self._answers.get((queue, job.id))
        if found is None or found[1] < time.monotonic():
            return None
        if found[0].existed and found[2] != job.replace:
            self.told(queue, (job.id,))
            return None
        return found[0]

    def told(self, queue: str, job_ids: Iterable[str]) -> None:
        """These answers go to their callers: who asks for such a job from now on asks for another one."""
        for job_id in job_ids:
            self._answers.pop((queue, job_id), None)

    def over(self, queue: str, job_id: str) -> None:
        """A job was cancelled or purged: who asks for its id from now on asks for another one."""
        self._answers.pop((queue, job_id), None)
        doubt = self._doubts.get((queue, job_id))
        if doubt is not None:
            doubt.freed.add(job_id)

    def about(self, batch: Sequence[NewJob]) -> bool:
        """Whether it is in doubt about a job of a batch, or has an answer for one that was not told."""
        return any((job.queue, job.id) in held for job in batch for held in (self._doubts, self._answers))

    def of(self, queue: str) -> list[str]:
        """The jobs of a queue that it is in doubt about, or has an answer for that was not told."""
        return [job_id for name, job_id in (*self._doubts, *self._answers) if name == queue]

    def take_own(self, queue: str, batch: Sequence[NewJob]) -> Doubt | None:
        """Take the doubt about a request for exactly these jobs, as `take` does. Some may be in doubt by another one too."""
        ids = [job.id for job in batch]
        for job_id in ids:
            doubt = self._doubts.get((queue, job_id))
            if doubt is not None and doubt.ids == ids:
                return self.take(queue, job_id)
        return None

    def take(self, queue: str, job_id: JobId) -> Doubt | None:
        """Take the doubt about a job's request, to find it out; `keep` it again, or `settle` it."""
        doubt = self._doubts.get((queue, job_id))
        if doubt is None:
            return None
        self._drop(doubt)
        if doubt.until < time.monotonic():
            doubt.loan.back()
            return None
        return doubt

    def settle(
        self, doubt: Doubt, asked: Sequence[NewJob], answers: Sequence[Enqueued], *, confirmed: bool = True
    ) -> None:
        """A request was found out about. asked: those of its jobs that were carried out; answers: theirs.

        confirmed: whether the server confirmed all that was asked of it; else it can be asked for again.
        """
        if confirmed:
            doubt.loan.back()
        else:
            self.keep(doubt)
        # The first of several of one id is the one that made the job.
        for job, answer in zip(reversed(asked), reversed(answers), strict=True):
            if job.id not in doubt.freed:
                self._answers[doubt.sent.queue, job.id] = answer, doubt.until, job.replace

    def _drop(self, doubt: Doubt) -> None:
        for job_id in doubt.ids:
            if self._doubts.get((doubt.sent.queue, job_id)) is doubt:
                del self._doubts[doubt.sent.queue, job_id]

    def _forget(self) -> None:
        now = time.monotonic()
        while self._doubts and (len(self._doubts) > MOST_JOBS or next(iter(self._doubts.values())).until < now):
            oldest = next(iter(self._doubts.values()))
            self._drop(oldest)
            oldest.loan.back()
        while self._answers and (len(self._answers) > MOST_JOBS or next(iter(self._answers.values()))[1] < now):
            del self._answers[next(iter(self._answers))]


def _light(job: NewJob) -> NewJob:
    return NewJob(
        job_id=job.id, queue=job.queue, at_ms=job.at_ms, delay_ms=job.delay_ms, tail=b"", body=b"", dedup=job.dedup,
        window_ms=job.window_ms, replace=job.replace,
    )  # fmt: skip
