"""What a worker that waits looks at, and when that calls for another claim."""

from __future__ import annotations

import json
from typing import Any

import pytest

from zwheel.calls import Claimed
from zwheel.calls.clock import ServerClock
from zwheel.keys import ShardKeys
from zwheel.workers import looks
from zwheel.workers.looks import Looks

KEYS = ShardKeys.of("zw", "q")
DAY = "20300317"
FIRE_MS = 1_900_000_800_000
#: A quarter of an hour before that.
NOW_MS = FIRE_MS - 900_000
LASTS, LAPSED = b"%d" % (NOW_MS + 5_000), b"%d" % (NOW_MS - 1)


class Clock(ServerClock):
    def now_us(self) -> int:
        return NOW_MS * 1000


def answer(role: str) -> Claimed:
    return Claimed("empty", NOW_MS * 1000, FIRE_MS, DAY, role, 0, [])


def following() -> Looks:
    """Those of a follower that has counted the workers just now: it is alone."""
    made = Looks(KEYS, Clock(), 10_000)
    made.rest(answer("follower"))
    assert made.read([*seen(), [b"one"]]) is not None
    return made


def seen(*, ends: tuple[bytes | None, ...] = (LASTS, LASTS), fire_ms: int = FIRE_MS) -> list[Any]:
    return [[DAY.encode()], [b"job", str(fire_ms).encode()], list(ends)]


def row(beat_ms: int) -> bytes:
    return json.dumps({"beat": beat_ms, "lease": 30_000}).encode()


def test_a_follower_rests_on_while_all_is_as_it_was() -> None:
    made = following()
    assert [ask[0] for ask in made.asks()] == ["ZRANGE", "ZRANGE", "HMGET"]
    assert made.read(seen()) == answer("follower")


@pytest.mark.parametrize("ends", [(LAPSED, LASTS), (LASTS, LAPSED), (None, LASTS), (LASTS, None), (LASTS, b"nonsense")])
def test_a_follower_that_sees_a_free_role_claims(ends: tuple[bytes | None, ...]) -> None:
    assert following().read(seen(ends=ends)) is None


def test_whoever_sees_another_head_of_the_wheel_claims() -> None:
    for role in ("timekeeper", "second", "follower"):
        made = Looks(KEYS, Clock(), 10_000)
        made.rest(answer(role))
        replies = seen(fire_ms=FIRE_MS - 1)
        assert made.read(replies if role == "follower" else replies[:2]) is None


def test_those_that_keep_time_look_every_second_and_claim_before_their_role_ends() -> None:
    for role in ("timekeeper", "second"):
        made = Looks(KEYS, Clock(), 10_000)
        assert made.rest(answer(role)) == (looks.BACKSTOP_S, True)
        assert len(made.asks()) == 2
    made = Looks(KEYS, Clock(), 500)
    assert made.rest(answer("timekeeper")) == (0.5, False)


@pytest.mark.parametrize(("alive", "most_s"), [(0, 2.0), (2, 2.0), (10, 8.0)])
def test_dead_workers_that_are_still_listed_do_not_make_followers_look_less_often(
    monkeypatch: pytest.MonkeyPatch, alive: int, most_s: float
) -> None:
    made = following()
    monkeypatch.setattr(looks, "_COUNT_S", 0.0)
    assert made.asks()[-1] == ("HKEYS", KEYS.workers)
    names = [b"w%d" % number for number in range(40)]
    assert made.read([*seen(), names]) is not None
    ask = made.asks()[-1]
    assert ask[:2] == ("HMGET", KEYS.workers)
    assert len(ask) == 12
    rows = [row(NOW_MS - 10_000)] * alive + [row(NOW_MS - 600_000)] * (9 - alive) + [None]
    assert made.read([*seen(), rows[:10]]) is not None
    longest = max(made.rest(answer("follower"))[0] for _ in range(200))
    assert longest <= most_s
    assert longest > most_s * 0.8
