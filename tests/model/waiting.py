"""Who waits for a shard, as it is meant to be: the moves between the roles, and when a token calls a listener."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from tests.lua.shard import KEYS, Shard

#: A timekeeper that did not claim this long after its time has lost its role; no role lasts longer than this, ms.
LATE, LONGEST = 30, 20_000
NEVER = 2**53


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """The roles of a shard and whether a token lies there. Times in ms; '' where nobody has a role."""

    keeper: str = ""
    keeper_at: int = 0
    keeper_end: int = 0
    second: str = ""
    second_end: int = 0
    token: bool = False

    @staticmethod
    def read(shard: Shard) -> Waiting:
        """What Redis holds."""
        names = ("keeper", "keeper_at", "keeper_end", "second", "second_end")
        found: Any = shard.client.hmget(KEYS.meta, *names)
        keeper, at, keeper_end, second, second_end = (text.decode() if text else "" for text in found)
        return Waiting(
            keeper=keeper, keeper_at=int(at or 0), keeper_end=int(keeper_end or 0), second=second,
            second_end=int(second_end or 0), token=bool(shard.client.llen(KEYS.wake)),
        )  # fmt: skip

    def keeps_time(self, fire: int, now_ms: int) -> bool:
        """Whether a timekeeper wakes for a job in time."""
        return lasts(self.keeper_end, now_ms) and self.keeper_at <= fire

    def covers(self, fire: int, now_ms: int) -> bool:
        """Whether somebody will look in time: the timekeeper, or whoever the token wakes."""
        return self.token or self.keeps_time(fire, now_ms)

    def without(self, worker: str) -> Waiting:
        """A worker lays its role down, and calls another if it had one."""
        left = self
        if self.keeper == worker:
            left = replace(left, keeper="", keeper_at=0, keeper_end=0, token=True)
        if self.second == worker:
            left = replace(left, second="", second_end=0, token=True)
        return left

    def claimed(
        self, worker: str, *, full: bool, head: int | None, more: bool, now_ms: int, role_ms: int, reach: int = 0
    ) -> tuple[Waiting, str]:
        """After a claim, and the role that it answers. head: the next fire time in the bucket; more: anything is left.
        reach: how far ahead the claim took jobs."""
        if full or (head is not None and head <= now_ms + reach):
            left = self.without(worker)
            if head is None:
                alone = more and not lasts(left.keeper_end, now_ms)
            else:
                alone = head <= now_ms or not left.keeps_time(head, now_ms)
            return replace(left, token=left.token or alone), "none"
        if head is None and more:
            return self, "none"
        wanted, ends = NEVER if head is None else head, now_ms + min(role_ms, LONGEST)
        if role_ms == 0:
            left = replace(self.without(worker), token=self.token)
            calls = not left.keeps_time(wanted, now_ms) or not lasts(left.second_end, now_ms)
            return replace(left, token=left.token or calls), "follower"
        if self.keeper == worker or not lasts(self.keeper_end, now_ms) or self.keeper_at > wanted:
            was_second = self.second == worker
            return replace(
                self, keeper=worker, keeper_at=wanted, keeper_end=min(wanted + LATE, ends),
                second="" if was_second else self.second, second_end=0 if was_second else self.second_end,
                token=self.token or was_second,
            ), "timekeeper"  # fmt: skip
        if self.second == worker or not lasts(self.second_end, now_ms):
            return replace(self, second=worker, second_end=ends), "second"
        return self, "follower"


def lasts(ends: int, now_ms: int) -> bool:
    """Whether a role is held. One that lasts longer than any can is not."""
    return now_ms < ends <= now_ms + LONGEST
