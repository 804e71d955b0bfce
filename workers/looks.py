"""How long a worker with room rests, and what it looks at meanwhile: whether another claim is called for.

A look is a few plain reads. The head of the wheel tells whether a job came for which no worker was woken, or is overdue
because the timekeeper and its second missed it. The roles tell a follower whether a role is free: its holder died, and
the next fault must not find it so. A token that was lost costs at most the time between two looks.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Any

from zwheel.calls import Claimed
from zwheel.calls.claim import LONGEST_ROLE_MS
from zwheel.calls.clock import ServerClock
from zwheel.keys import ShardKeys
from zwheel.outside import as_text, flat, score_ms, whole

from .peers import read_peer

BACKSTOP_S = 0.9
#: All followers of a shard together look about this often, and each of them at least and at most so often, seconds.
FOLLOWERS_LOOK_S = 0.15
FOLLOWER_BACKSTOP_S = (1.5, 15.0)
#: The second looks this much after the timekeeper's time: by then the role of a dead timekeeper has lapsed.
SECOND_LATER_S = (0.04, 0.08)
#: The timekeeper of a precise queue claims so long ahead of the next fire time, as a part of how far a claim reaches.
_AHEAD = 0.5
#: A job at the head of the wheel that is overdue by this much was missed by the timekeeper and its second, seconds.
_OVERDUE_S = 0.05
#: A follower counts the workers of its shard this often, seconds; of more than so many it asks so many whether they live.
_COUNT_S = 60.0
_SAMPLE = 10


class Looks:
    """Those of one poller."""

    def __init__(self, keys: ShardKeys, clock: ServerClock, beat_ms: int) -> None:
        self._keys = keys
        self._clock = clock
        #: A role lasts for two beats without a claim: it is confirmed after one, seconds.
        self._confirm_s = min(beat_ms, LONGEST_ROLE_MS // 2) / 1000
        self._answer: Claimed | None = None
        self._answered_at = 0.0
        #: How many workers serve this shard, when that was counted, monotonic seconds, and of whom to ask who lives.
        self._fleet = 1
        self._counted_at = 0.0
        self._listed = 0
        self._sample: list[Any] = []

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
            least, most = FOLLOWER_BACKSTOP_S
            return min(most, max(least, FOLLOWERS_LOOK_S * self._fleet)) * random.uniform(2 / 3, 4 / 3), True
        wait = min(BACKSTOP_S, self._confirm_s)
        if claimed.next_fire_ms is not None:
            until = self._clock.seconds_until(claimed.next_fire_ms)
            until -= claimed.ahead_ms * _AHEAD / 1000
            if claimed.role == "second":
                until += random.uniform(*SECOND_LATER_S)
            if until <= wait:
                return until, False
        return wait, now + wait < self._answered_at + self._confirm_s

    def asks(self) -> list[tuple[str, ...]]:
        """What to send for `read`."""
        keys, answer = self._keys, self._answer
        asks: list[tuple[str, ...]] = [("ZRANGE", keys.days, "0", "0")]
        if answer is not None and answer.day:
            asks.append(("ZRANGE", keys.wheel(answer.day), "0", "0", "WITHSCORES"))
        if self.follows:
            asks.append(("HMGET", keys.meta, "keeper_end", "second_end"))
            if self._sample:
                asks.append(("HMGET", keys.workers, *self._sample))
            elif time.monotonic() - self._counted_at > _COUNT_S:
                asks.append(("HKEYS", keys.workers))
        return asks

    def read(self, replies: Sequence[Any]) -> Claimed | None:
        """The last answer, when things still are as it told; None when they are not: claim."""
        answer = self._answer
        if answer is None:
            return None
        rest = iter(replies)
        days = next(rest)
        head = next((score for _, score in flat(next(rest))), None) if answer.day else None
        roles = next(rest) if self.follows else ()
        for about_workers in rest:
            self._count(about_workers)
        fire_ms = None if head is None else score_ms(head)
        overdue = fire_ms is not None and self._clock.seconds_until(fire_ms) < -_OVERDUE_S
        known = (as_text(days[0]) if days else "", fire_ms) == (answer.day, answer.next_fire_ms)
        return answer if known and not overdue and all(lasts(end, self._clock) for end in roles) else None

    def _count(self, reply: Any) -> None:
        """Count the listed workers, or the living ones of a sample: a killed worker is listed for an hour."""
        if self._sample:
            now_ms = self._clock.now_ms()
            alive = sum(raw is not None and read_peer(raw, now_ms) is not None for raw in reply)
            self._fleet = max(1, self._listed * alive // len(self._sample))
            self._sample = []
            return
        self._counted_at, self._listed = time.monotonic(), len(reply)
        if len(reply) > _SAMPLE:
            self._sample = random.sample(list(reply), _SAMPLE)
        else:
            self._fleet = len(reply) or 1


def lasts(ends: object, clock: ServerClock) -> bool:
    """Whether a role that ends then, as Redis says, is held now."""
    return 0 < clock.seconds_until(whole(ends) or 0) <= LONGEST_ROLE_MS / 1000
