"""What a worker that waits looks at, and when that calls for another claim."""

from __future__ import annotations

from typing import Any

import pytest

from zwheel.calls import Claimed, Session
from zwheel.calls.clock import ServerClock
from zwheel.keys import ShardKeys
from zwheel.workers import looks
from zwheel.workers.lookout import Lookout, Seen
from zwheel.workers.looks import Looks

KEYS = ShardKeys.of("zw", "q")
DAY = "20300317"
FIRE_MS = 1_900_000_800_000
#: A quarter of an hour before that.
NOW_MS = FIRE_MS - 900_000
LASTS, LAPSED = b"%d" % (NOW_MS + 5_000), b"%d" % (NOW_MS - 1)
NOBODY = Seen(None, None, None, None, None, None, None, None, None, None, None)


class Clock(ServerClock):
    def now_us(self) -> int:
        return NOW_MS * 1000


class NoStore:
    session = Session("zw")


def made(beat_ms: int = 10_000) -> Looks:
    store: Any = NoStore()
    return Looks(KEYS, Clock(), beat_ms, "self", Lookout(store))


def answer(role: str) -> Claimed:
    return Claimed("empty", NOW_MS * 1000, FIRE_MS, DAY, role, 0, [])


def resting(role: str) -> Looks:
    some = made()
    some.rest(answer(role))
    return some


def seen(*, ends: tuple[bytes | None, ...] = (LASTS, LASTS), fire_ms: int = FIRE_MS) -> Seen:
    return NOBODY._replace(
        day=DAY.encode(), head=str(fire_ms).encode(), keeper=b"k", second=b"s", keeper_end=ends[0], second_end=ends[1]
    )


def test_a_follower_rests_on_while_all_is_as_it_was() -> None:
    assert resting("follower").read(seen()) == answer("follower")


@pytest.mark.parametrize("ends", [(LAPSED, LASTS), (LASTS, LAPSED), (None, LASTS), (LASTS, None), (LASTS, b"nonsense")])
def test_a_follower_that_sees_a_free_role_claims(ends: tuple[bytes | None, ...]) -> None:
    assert resting("follower").read(seen(ends=ends)) is None


@pytest.mark.parametrize("role", ["timekeeper", "second", "follower"])
def test_whoever_sees_another_head_of_the_wheel_claims(role: str) -> None:
    assert resting(role).read(seen(fire_ms=FIRE_MS - 1)) is None
    assert resting(role).read(NOBODY._replace(keeper_end=LASTS, second_end=LASTS)) is None


def test_those_that_keep_time_look_on_each_beat_and_claim_before_their_role_ends() -> None:
    for role in ("timekeeper", "second"):
        seconds, looked = made().rest(answer(role))
        assert (0 < seconds <= looks.BACKSTOP_S, looked) == (True, True)
    seconds, looked = made(500).rest(answer("timekeeper"))
    assert (0 < seconds <= 0.5, seconds < 0.5) == (True, looked)


def test_a_follower_that_watches_looks_on_each_beat_and_the_others_ever_less_often_the_more_there_are() -> None:
    watching, far = resting("follower"), resting("follower")
    for some, others in ((watching, 1), (far, 60)):
        fleet = some._lookout.fleet(KEYS)
        fleet.know([b"self", *(b"w%02d" % number for number in range(others))], others + 1)
    # The rank of a name is the same everywhere and always: the name `self` is far from the first of these.
    assert max(watching.rest(answer("follower"))[0] for _ in range(50)) <= looks.BACKSTOP_S
    rests = [far.rest(answer("follower"))[0] for _ in range(200)]
    assert min(rests) > 4
    assert max(rests) < 13
