"""A namespace as an older version left it: this version reads, lists and changes all of it, and writes its own version."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.endings import Back, bury, complete, release, retry
from tests.fixtures.make_namespace import FAILED, KEEP_MS, KEYS, MIXTURES, QUEUE, Maker, digest_of, ids, restore
from tests.fixtures.make_records import FAILURES, FIRE, LATER, NOW, WORKER
from tests.servers import RedisServer
from zwheel import SyncWheel, calls
from zwheel.calls import Call, Lane
from zwheel.job import CancelOutcome, Job, JobId, JobState
from zwheel.payload.codec import DEFAULT
from zwheel.record import STATES, read_record
from zwheel.times import day_of

CLOCK = str(NOW * 1000)
#: When every lease of the namespace is over, ms; the servers' own clock is somewhere before NOW.
LATE = NOW + 60_000
LANE = Lane("upgrade", 1, "1")

Stored = dict[str, bytes]


def stored(server: RedisServer) -> Stored:
    """Every record by its id."""
    with server.client() as client:
        found: Any = client.hgetall(KEYS.jobs)
    return {name.decode(): raw for name, raw in found.items()}


def held(records: Stored, prefix: str = "p-") -> list[tuple[str, bytes]]:
    """The jobs that WORKER holds, with their tokens."""
    return [(name, raw[21:37]) for name, raw in sorted(records.items()) if name.startswith(prefix)]


def of(state: str) -> list[str]:
    """The ids of a state."""
    return [name for name in ids() if name[0] == state]


def _back(records: Stored, failures: bytes) -> list[Back]:
    return [Back(name, token, LATER, 0, failures) for name, token in held(records)]


#: Each transition of a job, over every mixture of fields: its call, and the jobs that it changes.
MOVES: dict[str, tuple[str, Callable[[Stored], Call]]] = {
    "claim": (
        "s",
        lambda jobs: calls.claim(
            KEYS, day=day_of(FIRE), worker=WORKER, lease_ms=30_000, limit=100, lane=LANE, now=CLOCK
        ),
    ),
    "complete": ("p", lambda jobs: complete(KEYS, held(jobs), lane=LANE, now=CLOCK)),
    "retry": ("p", lambda jobs: retry(KEYS, _back(jobs, FAILED), now_ms=NOW, lane=LANE, now=CLOCK)),
    "release": ("p", lambda jobs: release(KEYS, _back(jobs, b""), now_ms=NOW, lane=LANE, now=CLOCK)),
    "bury": (
        "p",
        lambda jobs: bury(
            KEYS, [(name, token, FAILED) for name, token in held(jobs)], most_dead=100, lane=LANE, now=CLOCK
        ),
    ),
    "offer": (
        "p",
        lambda jobs: calls.offer(
            KEYS, [calls.Offer(name, token, b"") for name, token in held(jobs)], groups=("0" * 16,), now_ms=NOW,
            lane=LANE, now=CLOCK,
        ),
    ),
    "reap": (
        "p",
        lambda jobs: calls.reap(KEYS, limit=100, lease_ms=0, most_dead=100, now_ms=LATE, now=str(LATE * 1000)),
    ),
    "cancel": ("s", lambda jobs: calls.cancel(KEYS, of("s"), day=day_of(FIRE), lane=LANE, now=CLOCK)),
    "redrive": ("x", lambda jobs: calls.redrive(KEYS, of("x"), now_ms=NOW, lane=LANE, now=CLOCK)),
    **{
        f"reschedule {name}": (
            name,
            lambda jobs, name=name: calls.reschedule(  # type: ignore[misc]
                KEYS, name, day=day_of(FIRE), at_ms=LATER + 7, delay_ms=0, now_ms=NOW, lane=LANE, now=CLOCK
            ),
        )
        for name in (f"s-{mixture}" for mixture in MIXTURES)
    },
}  # fmt: skip


@pytest.mark.parametrize("move", MOVES)
def test_a_transition_of_an_old_record_leaves_what_that_of_a_new_one_leaves(fresh: RedisServer, move: str) -> None:
    which, make = MOVES[move]
    left = []
    for old in (True, False):
        with fresh.client() as client:
            client.flushall()
            if old:
                restore(client, "v1")
        maker = Maker(fresh.url)
        if not old:
            maker.make()
        before = stored(fresh)
        assert {raw[:1] for raw in before.values()} == {b"1" if old else b"2"}
        maker.run(make(before))
        maker.store.close()
        after = stored(fresh)
        moved = [name for name in before if which in (name, name[0])]
        assert moved
        assert all(after.get(name) != before[name] for name in moved)
        left.append({name: after.get(name) for name in moved})
    # Which of two scripts in one µs got which stamp is not the same in both.
    assert _without_tokens(left[0]) == _without_tokens(left[1])
    assert all(raw[:1] == b"2" for raw in left[0].values() if raw)


def _without_tokens(records: dict[str, bytes | None]) -> dict[str, bytes | None]:
    return {name: raw and raw[:21] + raw[37:] for name, raw in records.items()}


def look(job: Job) -> tuple[Any, ...]:
    """What a job carries, whatever its record."""
    return job.task, job.dedup, job.keep_ms, job.failures, job.body


def test_every_job_of_the_old_namespace_is_listed_and_shown(fresh: RedisServer, url: str) -> None:
    with fresh.client() as client:
        restore(client, "v1")
    with SyncWheel(url, namespace="zw") as wheel:
        listed = wheel.jobs(QUEUE, limit=1000)
        assert not listed.unreadable
        assert {str(job.id) for job in listed} == {*ids(), "later"}
        for job in listed:
            assert wheel.get(job.id, QUEUE) == job
            mixture = ids().get(job.id, "")
            assert job.dedup == (digest_of(job.id) if "D" in mixture else None)
            assert job.keep_ms == (KEEP_MS if "k" in mixture else 0)
            assert job.failures == (tuple(FAILURES) if "f" in mixture else ())
            if job.id != "later":
                assert job.state is STATES[job.id[0]]
            if job.state not in (JobState.DONE, JobState.CANCELLED):
                assert DEFAULT.decode(job.body) == ([job.id], {}, {})
        assert sorted(info.name for info in wheel.schedules()) == ["daily", "paused", "yearly"]
        assert wheel.schedule("paused").status.name == "PAUSED"


def test_people_change_what_the_old_namespace_holds(fresh: RedisServer, url: str) -> None:
    with fresh.client() as client:
        restore(client, "v1")
    with SyncWheel(url, namespace="zw") as wheel:
        assert wheel.cancel("s-Dkf", QUEUE) is CancelOutcome.CANCELLED
        assert wheel.cancel("p-D", QUEUE) is CancelOutcome.CANCEL_REQUESTED
        wheel.reschedule("s-Df", queue=QUEUE, delay=5)
        assert wheel.redrive(QUEUE) == len(of("x"))
        assert wheel.enqueue("mail.send", queue=QUEUE, id="s-D").existed
        assert not wheel.enqueue("mail.send", queue=QUEUE, id="c-Dkf").existed
        wheel.resume_schedule("paused")
        wheel.remove_schedule("daily")
        assert wheel.purge(QUEUE, JobState.DONE) == len(of("d")) + len(of("c"))
    for name, raw in stored(fresh).items():
        read_record(JobId(name), QUEUE, raw)
