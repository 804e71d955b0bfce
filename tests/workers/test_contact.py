"""What a worker knows of its contact with Redis, and so whether it may take jobs back from others."""

from __future__ import annotations

import pytest

from zwheel.workers.contact import Contact, say_jumps
from zwheel.workers.settings import WorkerSettings

LEASE_S, BEAT_S, REAP_S = 30.0, 10.0, 5.0
NEVER = float("inf")


class Played:
    """A contact at a time that is given."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.news = 0
        self.sayer = say_jumps()
        self.contact, self.other = self._made("q"), self._made("other")
        self.contact.news = self._told

    def _made(self, queue: str) -> Contact:
        return Contact(WorkerSettings(), queue, self.sayer, now_ns=lambda: int(self.now_s * 1e9))

    def _told(self) -> None:
        self.news += 1

    def beat(self, took_s: float = 0.001) -> None:
        sent = self.now_s
        self.now_s += took_s
        self.contact.heard(int(sent * 1e9))

    def beats(self, seconds: float, took_s: float = 0.001) -> None:
        until = self.now_s + seconds
        while self.now_s < until:
            self.now_s = min(until, self.now_s + BEAT_S - took_s)
            self.beat(took_s)


@pytest.fixture
def played() -> Played:
    return Played()


def test_one_that_just_began_waits_for_a_reaping_interval_from_its_first_answer_on(played: Played) -> None:
    assert played.contact.wait_s() == NEVER
    played.now_s += 300
    played.beat()
    assert REAP_S <= played.contact.wait_s() <= 1.2 * REAP_S
    played.now_s += 1.2 * REAP_S
    assert played.contact.wait_s() == 0


def test_steady_beats_let_it_reap_and_silence_does_not(played: Played) -> None:
    played.beat()
    played.beats(60)
    assert played.contact.wait_s() == 0
    played.now_s += 1.4 * BEAT_S
    assert played.contact.wait_s() == 0
    played.now_s += 0.2 * BEAT_S
    assert played.contact.wait_s() == NEVER


@pytest.mark.parametrize("how", ["failed", "slow", "late"])
def test_after_trouble_comes_one_lease_of_steady_contact(played: Played, how: str) -> None:
    played.beat()
    played.beats(60)
    if how == "failed":
        played.contact.lost()
    elif how == "slow":
        played.beat(took_s=0.6 * BEAT_S)
    else:
        played.now_s += 1.6 * BEAT_S
    played.beat()
    assert played.contact.breaks == 1
    assert LEASE_S - 1 <= played.contact.wait_s() <= LEASE_S
    played.beats(LEASE_S)
    assert played.contact.wait_s() == 0


def test_it_holds_back_for_the_longest_lease_that_the_queue_knows(played: Played) -> None:
    """A worker with that lease renews as seldom as that lets it: it may need all of it to be heard again."""
    contact = played.contact
    contact.in_use(int(3 * LEASE_S * 1000))
    played.beat()
    played.beats(60)
    contact.lost()
    assert contact.wait_s() == 3 * LEASE_S
    played.beats(3 * LEASE_S)
    contact.count(1)
    played.beats(10)
    contact.count(2)
    assert contact.wait_s() == 3 * LEASE_S
    # Nobody uses it any more.
    contact.in_use(0)
    played.beats(3 * LEASE_S)
    contact.lost()
    assert contact.wait_s() == LEASE_S


def test_a_lease_that_is_longer_than_any_claim_may_last_is_damage(played: Played) -> None:
    played.contact.in_use(10**15)
    played.contact.lost()
    assert played.contact.wait_s() <= WorkerSettings().longest_ms / 1000 or played.contact.wait_s() == NEVER
    played.beat()
    assert played.contact.wait_s() <= WorkerSettings().longest_ms / 1000


def test_the_queues_are_told_at_once_when_the_heartbeat_comes_over_a_new_connection(played: Played) -> None:
    for line in (1, 1, 2, 2):
        played.contact.heard(int(played.now_s * 1e9), line)
    assert played.news == 2
    assert played.contact.line == 2


def test_a_way_that_is_always_long_is_no_trouble(played: Played) -> None:
    played.beats(600, took_s=0.7 * BEAT_S)
    assert played.contact.breaks == 0
    assert played.contact.wait_s() == 0


def test_a_jump_is_kept_for_the_queues_and_they_are_told_at_once(played: Played) -> None:
    played.beat()
    played.contact.jumped(3_600_000_000)
    played.contact.jumped(-3_600_000_000)
    assert list(played.contact.jumps) == [3_600_000, -3_600_000]
    assert played.news == 2


def test_a_jump_that_was_seen_elsewhere_holds_it_back_for_one_lease(played: Played) -> None:
    contact = played.contact
    assert contact.counted == -1, "which no queue says: nothing is taken back before it is known"
    contact.count(3)
    played.beat()
    played.beats(60)
    for known in (None, 3):
        contact.count(known)
        assert contact.wait_s() == 0
    for other in (4, 0):
        contact.count(other)
        assert contact.counted == other
        assert contact.wait_s() == LEASE_S
        played.beats(LEASE_S)
        assert contact.wait_s() == 0


def test_a_queue_that_tells_its_jumps_for_the_first_time_waits_as_one_that_just_began(played: Played) -> None:
    played.beat()
    played.beats(60)
    played.contact.count(7)
    assert REAP_S <= played.contact.wait_s() <= 1.2 * REAP_S


def test_nothing_is_deleted_for_its_age_soon_after_a_jump(played: Played) -> None:
    played.beat()
    played.beats(60)
    assert played.contact.calm
    played.contact.jumped(10**15)
    played.contact.jumps.clear()
    played.beats(300)
    assert not played.contact.calm
    played.beats(400)
    assert played.contact.calm


def test_a_jump_that_a_claim_tells_of_is_said_when_it_is_news(played: Played, caplog: pytest.LogCaptureFixture) -> None:
    played.contact.count(3)
    assert caplog.messages == [], "it was before this worker"
    played.contact.count(4)
    assert len(caplog.messages) == 1
    played.contact.count(4)
    played.other.count(4)
    played.other.count(5)
    assert len(caplog.messages) == 1, "the same jump, in another queue of the server"
