"""How long a worker with room rests, and what it looks at meanwhile: whether another claim is called for.

The head of the wheel tells whether a job came for which no worker was woken, or is overdue because the timekeeper and its
second missed it. The roles tell a follower whether a role is free: its holder died, and the next fault must not find it so.
Two followers look on each beat, as the timekeeper and the second do: a token that was lost, and a shard that nobody keeps
time for any more, cost less than a second. The others look now and then, in case those two have no room.
"""

from __future__ import annotations

import random
import time

from zwheel.calls import Claimed
from zwheel.calls.claim import LONGEST_ROLE_MS
from zwheel.calls.clock import ServerClock
from zwheel.keys import ShardKeys
from zwheel.outside import as_text, score_ms, whole

from .lookout import BEAT_S, Lookout, Seen

BACKSTOP_S = BEAT_S
#: The other followers of a shard together look about this often, and each of them at least and at most so often, seconds.
FOLLOWERS_LOOK_S = 0.15
FOLLOWER_BACKSTOP_S = (1.5, 60.0)
#: The second looks this much after the timekeeper's time: by then the role of a dead timekeeper has lapsed.
SECOND_LATER_S = (0.04, 0.08)
#: The timekeeper of a precise queue claims so long ahead of the next fire time, as a part of how far a claim reaches.
_AHEAD = 0.5
#: A job at the head of the wheel that is overdue by this much was missed by the timekeeper and its second, seconds.
_OVERDUE_S = 0.05


class Looks:
    """Those of one poller."""

    def __init__(self, keys: ShardKeys, clock: ServerClock, beat_ms: int, worker: str, lookout: Lookout) -> None:
        self._keys = keys
        self._clock = clock
        self._worker = worker.encode()
        self._lookout = lookout
        #: A role lasts for two beats without a claim: it is confirmed after one, seconds.
        self._confirm_s = min(beat_ms, LONGEST_ROLE_MS // 2) / 1000
        self._answer: Claimed | None = None
        self._answered_at = 0.0
        #: Who keeps time, as the last look saw it.
        self._keepers: tuple[bytes | None, ...] = ()

    @property
    def follows(self) -> bool:
        """Whether others keep time for this shard, and this worker only listens."""
        return self._answer is not None and self._answer.role == "follower"

    def rest(self, claimed: Claimed) -> tuple[float, bool]:
        """Nothing more is due: how long to rest in the role that the claim gave, seconds, and whether to look then."""
        now = time.monotonic()
        if claimed is not self._answer:
            self._answer, self._answered_at = claimed, now
        if claimed.role == "follower":
            return self._lookout.until_beat(self._follower_s()), True
        wait = min(BACKSTOP_S, self._confirm_s)
        if claimed.next_fire_ms is not None:
            until = self._clock.seconds_until(claimed.next_fire_ms)
            until -= claimed.ahead_ms * _AHEAD / 1000
            if claimed.role == "second":
                until += random.uniform(*SECOND_LATER_S)
            if until <= wait:
                return until, False
        wait = self._lookout.until_beat(wait)
        return wait, now + wait < self._answered_at + self._confirm_s

    def _follower_s(self) -> float:
        """How long until a follower looks at the latest."""
        fleet = self._lookout.fleet(self._keys)
        if fleet.watches(self._keys.name, self._worker, self._keepers):
            return BACKSTOP_S
        least, most = FOLLOWER_BACKSTOP_S
        return min(most, max(least, FOLLOWERS_LOOK_S * fleet.size)) * random.uniform(2 / 3, 4 / 3)

    async def look(self) -> Seen:
        """See how the shard stands now, for `read`. Raises: BrokerError."""
        return await self._lookout.look(self._keys, "" if self._answer is None else self._answer.day)

    def read(self, seen: Seen) -> Claimed | None:
        """The last answer, when things still are as it told; None when they are not: claim."""
        answer = self._answer
        self._keepers = seen.keeper, seen.second
        if answer is None:
            return None
        fire_ms = None if seen.head is None else score_ms(seen.head)
        overdue = fire_ms is not None and self._clock.seconds_until(fire_ms) < -_OVERDUE_S
        known = (as_text(seen.day or b""), fire_ms) == (answer.day, answer.next_fire_ms)
        ends = (seen.keeper_end, seen.second_end) if self.follows else ()
        return answer if known and not overdue and all(lasts(end, self._clock) for end in ends) else None


def lasts(ends: object, clock: ServerClock) -> bool:
    """Whether a role that ends then, as Redis says, is held now."""
    return 0 < clock.seconds_until(whole(ends) or 0) <= LONGEST_ROLE_MS / 1000
