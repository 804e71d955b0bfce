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
    in_parts = False


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


class Cluster(NoStore):
    in_parts = True


MANY = ShardKeys.of("zw", "q/0of64")


def sparing(worker: str, role: str, mates: int = 40, *, mixed: bool = False) -> Looks:
    """One worker of a fleet that spares, after a claim that answered this role."""
    store: Any = Cluster()
    some = Looks(MANY, Clock(), 10_000, worker, Lookout(store, worker))
    fleet = some._lookout.fleet(MANY)
    fleet.know([b"w%02d" % number for number in range(mates)], mates)
    fleet.mixed = mixed
    some.role_ms()
    some.rest(answer(role))
    return some


def seer(role: str, **about: bool) -> Looks:
    return next(some for some in (sparing(f"w{number:02d}", role, **about) for number in range(40)) if some.sees_to)


def test_where_a_fleet_spares_one_looks_on_each_beat_those_that_keep_time_only_confirm_and_the_others_wait_for_their_turn() -> (
    None
):
    assert seer("follower").rest(answer("follower"))[0] <= looks.BACKSTOP_S
    other = next(some for some in (sparing(f"w{n:02d}", "follower") for n in range(40)) if not some.sees_to)
    assert (other.in_turn, other.rest(answer("follower"))[0] > 60) == (True, True)
    keepers = [sparing(f"w{n:02d}", "timekeeper") for n in range(40)]
    keeper = next(some for some in keepers if some._lookout.listens(MANY))
    wrong = next(some for some in keepers if some.in_turn or not (some.sees_to or some._lookout.listens(MANY)))
    assert keeper.rest(answer("timekeeper"))[0] > 5
    # One that should not keep time listens and looks until another does.
    assert (wrong.listens, wrong.role_ms()) == (True, 0)
    wrong._declined = False
    assert wrong.rest(answer("timekeeper"))[0] <= looks.BACKSTOP_S
    assert (keeper.follows, seer("second").follows) == (False, True)


def test_whoever_sees_to_a_shard_wants_no_role_until_nobody_comes_for_it() -> None:
    some = seer("follower")
    assert some.role_ms() == 0
    for come in (True, False):
        # A role is free: it claims, and so calls another.
        assert some.read(seen(ends=(None, LASTS))) is None
        assert some.role_ms() == 0
        assert some.rest(answer("follower")) == (looks._TAKEN_S, True)
        # It came, or it did not.
        assert (some.read(seen(ends=(LASTS if come else None, LASTS))) is None) is not come
        assert (some.role_ms() == 0) is come


def test_whoever_sees_to_a_shard_and_had_a_role_looks_soon_whether_another_took_it() -> None:
    some = seer("timekeeper")
    assert some.role_ms() == 0
    assert some.rest(answer("follower")) == (looks._TAKEN_S, True)


def test_a_worker_alone_in_its_group_takes_a_role_although_it_sees_to_the_shard() -> None:
    some = sparing("only", "follower", mates=0)
    some._lookout.fleet(MANY).size = 100
    assert (some.sees_to, some.role_ms() > 0) == (True, True)


def test_one_that_looks_in_its_turn_leaves_another_head_to_others_and_takes_what_is_overdue() -> None:
    some = next(some for some in (sparing(f"w{n:02d}", "follower") for n in range(40)) if some.in_turn)
    assert some.read(seen(fire_ms=FIRE_MS + 5)) is not None
    assert some.alarms == 0
    assert some.read(seen(fire_ms=NOW_MS - 1_000)) is None
    assert some.read(seen(ends=(LASTS, LAPSED))) is None
    assert some.alarms == 2


def test_where_workers_know_different_tasks_a_look_is_a_claim() -> None:
    assert seer("follower", mixed=True).rest(answer("follower"))[1] is False
    assert seer("follower").rest(answer("follower"))[1] is True
