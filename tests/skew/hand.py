"""A worker by hand whose scripts can be those of another version: the same text with a comment more, and so another SHA."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from tests.endings import complete
from zwheel import calls
from zwheel.broker.store import SyncStore
from zwheel.calls import Call, NewJob, Session
from zwheel.calls.scripts import Script
from zwheel.job import JobId, QueueName
from zwheel.payload.codec import DEFAULT
from zwheel.record import record_tail
from zwheel.times import day_of

QUEUE = QueueName("q")
LEASE_MS = 60_000


def other_version(script: Script) -> Script:
    """The script as another release may have it."""
    source = script.source + "\n-- of another release\n"
    return Script(script.name, source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


class Hand:
    """Enqueues, claims and ends jobs, one call at a time, by the server's own clock."""

    def __init__(self, url: str, worker: str, version: Callable[[Script], Script] = lambda script: script) -> None:
        self.session = Session("zw", caller=worker)
        self.store = SyncStore(url, self.session)
        self.keys = self.session.keys(QUEUE)
        self.worker = worker
        self._version = version

    def send(self, call: Call) -> calls.Reply:
        """Send a call with the scripts of this hand's version."""
        (reply,) = self.store.send([call._replace(script=self._version(call.script))])
        return list(reply)

    def now_ms(self) -> int:
        """The server's time."""
        (reply,) = self.store.send([("TIME",)])
        return int(reply[0]) * 1000 + int(reply[1]) // 1000

    def enqueue(self, *ids: str, dedup: str = "") -> list[bool]:
        """Enqueue jobs that are due; tells which of them existed."""
        tail = record_tail("mail.send", max_attempts=3, dedup=dedup or None)
        batch = [
            NewJob(
                job_id=JobId(i),
                queue=QUEUE,
                at_ms=None,
                delay_ms=0,
                tail=tail,
                body=DEFAULT.encode([], {}),
                dedup=dedup,
            )
            for i in ids
        ]
        with self.session.lane() as lane:
            sent = calls.enqueue(self.keys, batch, now_ms=self.now_ms(), lane=lane)
            answers = calls.read_enqueue(sent, self.send(sent.call))
        assert answers is not None
        return [answer.existed for answer in answers]

    def claim(self, limit: int = 10) -> dict[str, bytes]:
        """Claim what is due, what was enqueued in this very ms included: ids with their tokens."""
        start = self.now_ms()
        while self.now_ms() <= start:
            pass
        day = day_of(start)
        while True:
            with self.session.lane() as lane:
                call = calls.claim(self.keys, day=day, worker=self.worker, lease_ms=LEASE_MS, limit=limit, lane=lane)
                claimed = calls.read_claim(self.send(call))
            if claimed.word != "moved":
                jobs = claimed.jobs
                return {job.decode(): raw[21:37] for job, raw in zip(jobs[::2], jobs[1::2], strict=True)}
            day = claimed.day

    def end(self, make: Callable[..., Any], *args: Any, **options: Any) -> str:
        """Run a call on a lane of its own that answers with letters."""
        with self.session.lane() as lane:
            letters = calls.read_letters(self.send(make(self.keys, *args, lane=lane, **options)))
        assert letters is not None
        return letters

    def complete(self, held: dict[str, bytes]) -> str:
        """End claimed jobs well."""
        return self.end(complete, list(held.items()))

    def reap(self) -> calls.Reaped:
        """Take back what ran out."""
        call = calls.reap(self.keys, limit=100, lease_ms=0, most_dead=100, now_ms=self.now_ms())
        reaped = calls.read_reap(self.send(call))
        assert reaped is not None
        return reaped
