"""How long a worker with room rests, and what it looks at meanwhile: whether another claim is called for.

The head of the wheel tells whether a job came for which no worker was woken, or is overdue because the timekeeper and its
second missed it. The roles tell a follower whether a role is free: its holder died, and the next fault must not find it so.
Two followers look on each beat, as the timekeeper and the second do: a token that was lost, and a shard that nobody keeps
time for any more, cost less than a second. The others look now and then, in case those two have no room.

A fleet that spares (`Fleet.spares`) has one worker that sees to a shard: it alone looks on each beat, and keeps no time, so that
it is none of those whose death it is to find. The others make their rounds, and look at a shard when its turn comes (`Rounds`).
"""

from __future__ import annotations

import random
import time

from zwheel.calls import Claimed
from zwheel.calls.claim import LONGEST_ROLE_MS, ROLE_MS
from zwheel.calls.clock import ServerClock
from zwheel.keys import ShardKeys
from zwheel.outside import as_text, score_ms, whole

from .lookout import BEAT_S, Lookout, Seen

BACKSTOP_S = BEAT_S
#: The other followers of a shard together look about this often, and each of them at least and at most so often, seconds.
FOLLOWERS_LOOK_S = 0.15
FOLLOWER_BACKSTOP_S = (1.5, 60.0)
#: Whoever sees to a shard wants no role. When it laid one down it looks after so long whether another took it; where none did, it
#: takes a role for so long, seconds.
_TAKEN_S, _KEEPS_S = 0.1, 60.0
#: A follower that looks at a shard only in its turn is told when that comes; this is for a worker whose rounds failed, seconds.
UNTIL_ITS_TURN_S = 600.0
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
        self._role_ms = min(LONGEST_ROLE_MS, max(ROLE_MS, 2 * beat_ms))
        self._answer: Claimed | None = None
        self._answered_at = 0.0
        #: Who keeps time, as the last look saw it.
        self._keepers: tuple[bytes | None, ...] = ()
        #: Whether the last claim wanted no role, and until when the next ones want one all the same, monotonic seconds.
        self._declined, self._keeps_until = False, 0.0
        #: Whether it calls another with its next claim, since the last look saw that a role is free.
        self._called = False
        #: How many looks found a job that is overdue, or a role that nobody has, and how many claims took jobs.
        self.alarms = 0

    @property
    def follows(self) -> bool:
        """Whether others keep time for this shard, and this worker only waits. A fleet that spares has no work for a second."""
        return self._role == "follower" or (self._role == "second" and self.spares)

    @property
    def listens(self) -> bool:
        """Whether this worker is to hear the wake-up tokens of the shard."""
        return self._lookout.listens(self._keys) or self._has_role

    @property
    def sees_to(self) -> bool:
        """Whether this worker alone looks at the shard on each beat, in a fleet that spares."""
        return self.spares and self._lookout.fleet(self._keys).sees_to(self._keys.name)

    def role_ms(self) -> int:
        """For how long the next claim wants a role, without a further claim, ms; 0: not at all: where a fleet spares, those that
        listen keep time.
        """
        near = not self.spares or self._lookout.listens(self._keys)
        self._declined = not near and time.monotonic() > self._keeps_until
        return 0 if self._declined else self._role_ms

    @property
    def waits(self) -> str:
        """For the history: sees, where this worker alone looks at the shard in time; spares, where another does."""
        return "" if not self.spares else "sees" if self.sees_to else "spares"

    @property
    def in_turn(self) -> bool:
        """Whether it looks only when the turn of the shard comes."""
        return self._role == "follower" and self.spares and not self.sees_to

    @property
    def must_claim(self) -> bool:
        """Whether a look is not enough: it does not see the jobs that are offered to this worker's group, for which a fleet that
        spares calls few.
        """
        return self.spares and self._lookout.fleet(self._keys).mixed

    def hurry(self) -> None:
        """The ranking may be old: somebody called in vain."""
        if self.spares:
            self._lookout.fleet(self._keys).hurry()

    @property
    def _has_role(self) -> bool:
        return self._role in ("timekeeper", "second")

    @property
    def _role(self) -> str:
        return "" if self._answer is None else self._answer.role

    @property
    def spares(self) -> bool:
        """Whether not everybody waits for each shard of the queue, since there are many: see `Fleet.spares`."""
        return self._lookout.spares(self._keys)

    def rest(self, claimed: Claimed) -> tuple[float, bool]:
        """Nothing more is due: how long to rest in the role that the claim gave, seconds, and whether to look then."""
        now, had_role = time.monotonic(), self._has_role
        if claimed is not self._answer:
            self._answer, self._answered_at = claimed, now
        if self._declined and (had_role or self._called):
            return _TAKEN_S, True
        if claimed.role == "follower":
            return self._lookout.until_beat(self._follower_s()), not self.must_claim
        # Another looks for those that listen and keep time. Who keeps time although it should not looks itself.
        seen_to = self.spares and not self.sees_to and self._lookout.listens(self._keys)
        wait = self._confirm_s if seen_to else min(BACKSTOP_S, self._confirm_s)
        if claimed.next_fire_ms is not None:
            until = self._clock.seconds_until(claimed.next_fire_ms)
            until -= claimed.ahead_ms * _AHEAD / 1000
            if claimed.role == "second":
                until += random.uniform(*SECOND_LATER_S)
            if until <= wait:
                return until, False
        wait = self._lookout.until_beat(wait)
        return wait, now + wait < self._answered_at + self._confirm_s and not self.must_claim

    def _follower_s(self) -> float:
        """How long until a follower looks at the latest."""
        if self.spares:
            return BACKSTOP_S if self.sees_to else UNTIL_ITS_TURN_S
        fleet = self._lookout.fleet(self._keys)
        if fleet.watches(self._keys.name, self._worker, self._keepers):
            return BACKSTOP_S
        least, most = FOLLOWER_BACKSTOP_S
        return min(most, max(least, FOLLOWERS_LOOK_S * fleet.size)) * random.uniform(2 / 3, 4 / 3)

    async def look(self) -> Seen:
        """See how the shard stands now, for `read`. Raises: BrokerError."""
        return await self._lookout.look(self._keys, "" if self._answer is None else self._answer.day)

    async def overdue(self) -> bool:
        """Whether a job at the head of the wheel should have started, as Redis has it now. Raises: BrokerError."""
        day = "" if self._answer is None else self._answer.day
        seen = await self._lookout.look(self._keys, day)
        first = as_text(seen.day or b"")
        if first != day:
            seen = await self._lookout.look(self._keys, first)
        return self._overdue(None if seen.head is None else score_ms(seen.head))

    def _overdue(self, fire_ms: int | None) -> bool:
        return fire_ms is not None and self._clock.seconds_until(fire_ms) < -_OVERDUE_S

    def read(self, seen: Seen) -> Claimed | None:
        """The last answer, when things still are as it told; None when they are not: claim."""
        answer = self._answer
        self._keepers = seen.keeper, seen.second
        if answer is None:
            return None
        fire_ms = None if seen.head is None else score_ms(seen.head)
        overdue = self._overdue(fire_ms)
        # Where others look more often, another head is their affair.
        known = as_text(seen.day or b"") == answer.day and (self.in_turn or fire_ms == answer.next_fire_ms)
        ends = (seen.keeper_end, seen.second_end) if answer.role == "follower" else ()
        free = not all(lasts(end, self._clock) for end in ends)
        if free and self._called:
            # It called another, and none came: they are full, or gone.
            self._keeps_until = time.monotonic() + _KEEPS_S
        self._called = free and self._declined
        fine = not overdue and not free
        if not fine:
            self.alarms += 1
            self.hurry()
        return answer if known and fine else None


def lasts(ends: object, clock: ServerClock) -> bool:
    """Whether a role that ends then, as Redis says, is held now."""
    return 0 < clock.seconds_until(whole(ends) or 0) <= LONGEST_ROLE_MS / 1000
