"""The invariants find what they are for, in states and histories made by hand to break one each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.lua.shard import DIGEST, NOW, NOW_US, TODAY, TOMORROW, Keyspace, held, record
from zwheel.job import Job, JobState

from .invariants import History, check_dedup, check_places, check_step, read

GOOD: Keyspace = {
    "jobs": {"s": record(), "p": held(5, digest=DIGEST), "d": record("d", body=b""), "x": record("x")},
    f"wheel:{TODAY}": {"s": NOW},
    "days": {TODAY: int(TODAY)},
    "processing": {"p": NOW},
    "done": {"d": NOW},
    "dead": {"x": NOW},
    "dedup": {DIGEST: "p"},
}
LEASE = 30_000


def check(keyspace: Keyspace) -> None:
    jobs = read(keyspace)
    check_places(keyspace, jobs)
    check_dedup(keyspace, jobs)


def test_a_sound_shard_passes() -> None:
    check(GOOD)


@pytest.mark.parametrize(
    ("number", "change"),
    [
        ("I9", {"processing": {}}),
        ("I9", {"processing": {"p": NOW, "s": NOW}}),
        ("I9", {"dead": {"d": NOW}, "done": {"x": NOW}}),
        ("I9", {"dead": {"x": NOW, "gone": NOW}}),
        ("I10", {f"wheel:{TODAY}": {"s": NOW + 1}}),
        ("I10", {f"wheel:{TODAY}": {}, f"wheel:{TOMORROW}": {"s": NOW}}),
        ("I10", {"days": {}}),
        ("I10", {"days": {TODAY: int(TODAY), TOMORROW: int(TOMORROW)}}),
        ("I10", {"days": {TODAY: 5}}),
        ("I11", {"dedup": {}}),
        ("I11", {"dedup": {DIGEST: "s"}}),
        ("I11", {"dedup": {DIGEST: "p", "9" * 32: "d"}}),
        ("I11", {"jobs": GOOD["jobs"] | {"s": record(digest=DIGEST)}}),
    ],
)  # fmt: skip
def test_a_broken_shard_is_found(number: str, change: Keyspace) -> None:
    with pytest.raises(AssertionError, match=rf"^{number}:"):
        check(GOOD | change)


@pytest.mark.parametrize(
    ("number", "before", "after", "allowed"),
    [
        ("I1", {"a": record()}, {}, {}),
        ("I2", {}, {"a": record()}, {}),
        ("I8", {"a": record()}, {"a": held(5, attempt=4, most=3)}, {}),
        ("I13", {"a": record("d", body=b"")}, {"a": record()}, {"redriven": True}),
        ("I13", {"a": record("c", body=b"")}, {"a": held(5)}, {"redriven": True}),
        ("I13", {"a": record("x")}, {"a": record()}, {}),
        ("I13", {"a": record("d", keep=5, body=b"")}, {"a": record("d", keep=6, body=b"")}, {}),
        ("I13", {"a": record("x")}, {"a": record(token=NOW_US)}, {"replaced": {"a": False}}),
        ("I13", {"a": record("c", body=b"")}, {"a": record(token=NOW_US)}, {"replaced": {"a": None}}),
        ("I13", {"a": held(5)}, {"a": record(token=NOW_US)}, {"replaced": {"a": True}}),
        ("I6", {"a": record("c", body=b"")}, {"a": record()}, {"replaced": {"a": False}}),
    ],
)
def test_a_step_that_must_not_be_is_found(
    number: str, before: dict[str, bytes], after: dict[str, bytes], allowed: dict[str, Any]
) -> None:
    steps: dict[str, Any] = {"redriven": False, "deletes": False, "adds": False} | allowed
    with pytest.raises(AssertionError, match=rf"^{number}:"):
        check_step(read({"jobs": before}), read({"jobs": after}), **steps)


def start(token: int = NOW_US, fire: int = NOW) -> Job:
    return read({"jobs": {"a": held(token, fire=fire)}})["a"]


def begun() -> History:
    history = History()
    history.enqueued("a")
    return history


def test_a_sound_history_passes() -> None:
    history = begun()
    history.claimed(start(), NOW, LEASE)
    history.extended("a", NOW_US, NOW + 2 * LEASE)
    history.reaped("a", NOW + 2 * LEASE, back=True)
    history.claimed(start(NOW_US + 1), NOW + 2 * LEASE, LEASE)
    history.accepted("a", NOW_US + 1, back=False)


def test_a_start_that_must_not_be_is_found() -> None:
    def rejected(number: str, history: History, job: Job, now_ms: int = NOW) -> None:
        with pytest.raises(AssertionError, match=rf"^{number}:"):
            history.claimed(job, now_ms, LEASE)

    rejected("I2", History(), start())
    rejected("I3", begun(), start(fire=NOW + 1))
    twice = begun()
    twice.claimed(start(), NOW, LEASE)
    rejected("I4", twice, start(NOW_US + 1))
    again = begun()
    again.claimed(start(), NOW, LEASE)
    again.accepted("a", NOW_US, back=True)
    rejected("I6", again, start())
    uncaused = begun()
    uncaused.claimed(start(), NOW, LEASE)
    uncaused.accepted("a", NOW_US, back=False)
    rejected("I7", uncaused, start(NOW_US + 1))
    cancelled = begun()
    cancelled.lives["a"].cancelled = True
    rejected("I12", cancelled, start())


def test_tokens_outlive_the_job() -> None:
    history = begun()
    history.claimed(start(), NOW, LEASE)
    history.accepted("a", NOW_US, back=False)
    history.enqueued("a")
    with pytest.raises(AssertionError, match="^I6:"):
        history.claimed(start(), NOW, LEASE)


@pytest.mark.parametrize("act", ["accepted", "extended"])
def test_a_stale_token_that_was_obeyed_is_found(act: str) -> None:
    history = begun()
    history.claimed(start(), NOW, LEASE)
    arguments: dict[str, Any] = {"back": True} if act == "accepted" else {"until": NOW}
    with pytest.raises(AssertionError, match="^I5:"):
        getattr(history, act)("a", NOW_US - 1, **arguments)


def test_a_lease_that_was_cut_short_is_found() -> None:
    history = begun()
    history.claimed(start(), NOW, LEASE)
    with pytest.raises(AssertionError, match="^I4:"):
        history.reaped("a", NOW + LEASE - 1, back=True)


def test_the_same_job_read_twice_is_the_same() -> None:
    job = start()
    assert job == start()
    assert replace(job, state=JobState.DEAD) != job
