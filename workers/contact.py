"""What a worker knows of its contact with one shard: since when it is steady, and how the server's clock jumped.

Each shard has its own: on a cluster one may be on a node that is dead or slow, and nothing of that concerns the others.

A reaper takes jobs from workers that it believes dead. They may live and have had no chance to renew a lease: Redis was
away, or its clock jumped ahead. So nothing is taken back by a worker that was itself cut off or slow a moment ago, or
that has only just begun: it waits until every worker that lives has had its turn, for the longest lease in use.

A jump need not be seen by all. Example: the clock is set back by an hour, a worker renews its lease by that, and the
clock is right again before another worker looks: it sees no jump, and a lease that ended an hour ago. But the renewal
was counted as a jump in the queue. So a worker that hears of a jump which it did not know takes nothing back for one
lease either, by its own clock, and `reap` takes nothing for a worker that knows another number of jumps than the queue.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable

from zwheel.outside import Sayer, escaped

from .settings import WorkerSettings

log = escaped("zwheel.worker")

_NEVER = float("inf")
#: A worker that just began waits this much longer than one reaping interval, as a part of it.
_MARGIN = 1.1
#: A jump that another worker counted is mentioned when none was seen here for so long, ns.
_SAME_NS = 60_000_000_000
#: So long after a jump nothing is deleted for its age, ns.
_CALM_NS = 600_000_000_000


def say_jumps() -> Sayer:
    """What the contacts of one worker share: a jump of the server's clock, which concerns all its shards, is said once."""
    return Sayer(log, every_s=_SAME_NS / 1e9)


class Contact:
    """How steady the contact with a shard is, and how the clock of its server jumped. The heartbeat (in its thread) and
    the shard's reaper report here; the reaper asks whether it may take jobs back.
    """

    def __init__(
        self, settings: WorkerSettings, queue: str = "default", sayer: Sayer | None = None,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:  # fmt: skip
        self._queue = queue
        self._sayer = sayer or say_jumps()
        self._now_ns = now_ns
        self._beat_ns = settings.beat_ms * 1_000_000
        self._lease_ns = settings.lease_ms * 1_000_000
        #: Called from any thread when there is something to tell the shard at once.
        self.news: Callable[[], None] = lambda: None
        #: Until when this worker takes no job back, monotonic ns; and for how long it does not after its start, ns.
        self._until_ns = 0
        self._first_ns = int(max(settings.reap_ms, settings.beat_ms / 2) * _MARGIN) * 1_000_000
        #: When the last heartbeat that was answered had been sent; None before the first.
        self._heard_ns: int | None = None
        #: How long an answer takes as a rule: a long way is no trouble, a longer one than usual is.
        self._usual_ns = 0
        self._jumped_ns = self._now_ns() - _CALM_NS
        #: How often the clock was seen to jump, as an answer said last; -1: none did yet.
        self.counted = -1
        #: The longest lease in use, ns, as the reaper saw it last.
        self._used_ns = 0
        self._most_lease_ns = settings.longest_ms * 1_000_000
        #: Which of the heartbeat's connections the last answer came on, counted from 1; 0: none did.
        self.line = 0
        #: How often the contact was lost so far.
        self.breaks = 0
        #: Jumps of the server's clock that the shard was not told yet, ms. Any thread adds to them.
        self.jumps: deque[int] = deque()

    def heard(self, sent_ns: int, line: int = 0) -> None:
        """Take in that Redis answered a heartbeat. An answer that took longer than usual, or was late, breaks the contact.

        line: the number of its connection. At the end of a new one there may be another process of the server.
        """
        now_ns = self._now_ns()
        took_ns = now_ns - sent_ns
        if self._heard_ns is None:
            self._hold(self._first_ns)
            self._usual_ns = took_ns
        elif took_ns - self._usual_ns > self._beat_ns // 2 or sent_ns - self._heard_ns > self._beat_ns * 3 // 2:
            self.lost()
        self._usual_ns = min(took_ns, self._usual_ns * 5 // 4 + 1000)
        self._heard_ns = sent_ns
        if line != self.line:
            self.line = line
            self.news()

    def lost(self) -> None:
        """A call got no answer: Redis is away, for this worker or for all. One lease of steady contact comes next."""
        self.breaks += 1
        self._hold(self._longest_ns())

    def in_use(self, lease_ms: int) -> None:
        """Take in the longest lease in use, ms. A worker with that lease renews as seldom as it allows."""
        self._used_ns = min(lease_ms * 1_000_000, self._most_lease_ns)

    def _longest_ns(self) -> int:
        return max(self._lease_ns, self._used_ns)

    def _hold(self, ns: int) -> None:
        """Take nothing back for so long from now on: every worker that lives has its turn meanwhile."""
        self._until_ns = max(self._until_ns, self._now_ns() + ns)

    def wait_s(self) -> float:
        """How long until jobs may be taken back, seconds; 0: now; for ever: not before a heartbeat is answered."""
        now_ns = self._now_ns()
        if self._heard_ns is None or now_ns - self._heard_ns > self._beat_ns * 3 // 2:
            return _NEVER
        return max(0.0, (self._until_ns - now_ns) / 1e9)

    @property
    def calm(self) -> bool:
        """Whether jobs past their retention may be deleted: not soon after a jump, since the clock may soon jump back."""
        return not self.jumps and not self.wait_s() and self._now_ns() - self._jumped_ns > _CALM_NS

    def jumped(self, by_us: int) -> None:
        """The server's clock jumped, as a reading of it showed: say it, and have the shard told."""
        self._sayer.say(
            logging.WARNING, by_us,
            "the server's clock jumped %s by %.1f s, or this machine stood still: jobs follow the server's clock as it is",
            "ahead" if by_us > 0 else "back", abs(by_us) / 1e6,
        )  # fmt: skip
        self._jumped_ns = self._now_ns()
        self.jumps.append(by_us // 1000)
        self.news()

    def count(self, jumps: int | None) -> None:
        """An answer told how often the clock was seen to jump, by any worker; None: it did not tell. Say it when it is news."""
        before = self.counted
        if jumps is None or jumps == before:
            return
        self.counted = jumps
        self._hold(self._first_ns if before < 0 else self._longest_ns())
        if jumps > before >= 0 and self._now_ns() - self._jumped_ns > _SAME_NS:
            self._jumped_ns = self._now_ns()
            self._sayer.say(
                logging.WARNING, "seen", "queue %s: a worker saw the server's clock jump; `zwheel doctor` says how far",
                self._queue,
            )  # fmt: skip
