"""Two versions of the scripts on the same keys: each is called by its content, so neither replaces the other's."""

from __future__ import annotations

import random

from tests.endings import Back, bury, release
from tests.servers import RedisServer
from tests.skew.hand import Hand, other_version
from zwheel import calls
from zwheel.calls.scripts import all_scripts


def test_another_release_of_a_script_has_another_name_on_the_server(old: Hand, new: Hand, fresh: RedisServer) -> None:
    for script in all_scripts():
        other = other_version(script)
        assert other.sha != script.sha
        old.store.send([("SCRIPT", "LOAD", script.source)])
        new.store.send([("SCRIPT", "LOAD", other.source)])
        assert old.store.send([("SCRIPT", "EXISTS", script.sha, other.sha)]) == [[True, True]]


def test_what_one_version_took_the_other_refuses_or_takes_over(old: Hand, new: Hand) -> None:
    assert old.enqueue("a", "b") == [False, False]
    assert new.enqueue("a", "c") == [True, False]
    held = old.claim(2)
    assert list(held) == ["a", "b"]
    assert list(new.claim()) == ["c"]
    # Fencing does not ask for the version: the token decides.
    assert new.complete({"a": held["a"]}) == "d"
    assert old.complete(held) == "md"
    assert old.enqueue("a") == [False]
    held = new.claim()
    assert old.end(bury, [("a", held["a"], b"{}\n")], most_dead=10) == "x"
    assert new.end(calls.redrive, ["a"], now_ms=new.now_ms()) == "r"
    assert list(old.claim()) == ["a"]


def test_a_random_load_of_both_versions_ends_every_job_once(old: Hand, new: Hand, fresh: RedisServer) -> None:
    chance = random.Random(20)
    ended: list[str] = []
    dedup = "0123456789abcdef" * 2
    for turn in range(60):
        hand, other = (old, new) if chance.random() < 0.5 else (new, old)
        hand.enqueue(*(f"job-{turn}-{n}" for n in range(chance.randrange(1, 8))))
        held = other.claim(chance.randrange(1, 12))
        one = chance.choice([old, new])
        failing = {job_id: token for job_id, token in held.items() if chance.random() < 0.2}
        if failing:
            back = [Back(job_id, token, None, 0, b"") for job_id, token in failing.items()]
            with one.session.lane() as lane:
                sent = release(one.keys, back, now_ms=one.now_ms(), lane=lane)
                assert set(calls.read_letters(one.send(sent)) or "") == {"b"}
        fine = {job_id: token for job_id, token in held.items() if job_id not in failing}
        if fine:
            assert set(one.complete(fine)) == {"d"}
            assert set(other.complete(fine)) == {"m"}, "it ended once"
            ended += fine
    while held := chance.choice([old, new]).claim(100):
        assert set(chance.choice([old, new]).complete(held)) == {"d"}
        ended += held
    assert len(ended) == len(set(ended)) > 100
    assert old.enqueue("x", dedup=dedup) == [False]
    assert new.enqueue("y", dedup=dedup) == [True]
    with fresh.client() as client:
        assert client.hlen(old.keys.jobs) == 1


def test_a_server_that_forgot_the_scripts_gets_both_versions_again(old: Hand, new: Hand, fresh: RedisServer) -> None:
    old.enqueue("a")
    new.enqueue("b")
    with fresh.client() as client:
        client.script_flush()
    assert sorted({**old.claim(1), **new.claim(1)}) == ["a", "b"]
