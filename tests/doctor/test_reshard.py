"""A queue that is cut anew, in the middle and afterwards: no alarm about what is on its way, and nothing of it goes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from tests.doctor.conftest import Diagnosis, Doctor
from tests.lua.shard import record
from zwheel import SyncWheel
from zwheel.broker.store import SyncStore
from zwheel.calls import Session, depart_day
from zwheel.keys import ShardKeys, shard_names
from zwheel.operations.reshard import begin_reshard, how_far, move
from zwheel.times import day_of

HOUR_S, JOBS = 3_600, 40


@pytest.fixture
def store(url: str) -> Iterator[SyncStore]:
    """One who cuts the queue anew, a step at a time."""
    made = SyncStore(url, Session("zw", "cutter"))
    yield made
    made.close()


def fill(url: str, shards: int) -> None:
    with SyncWheel(url, namespace="zw") as wheel:
        wheel.create_queue("orders", shards=shards)
        for n in range(JOBS):
            wheel.enqueue("t", queue="orders", id=f"job-{n}", delay=HOUR_S, dedup=f"key-{n}", args=["x" * 40 * n])
        wheel.cancel("job-0")


def alarms(told: Diagnosis) -> list[str]:
    """What it says of the keys; not of the server, and not that nobody works here."""
    others = ("server", "faults", "persistence", "version", "unserved")
    return [
        f["check"] + ": " + f["text"]
        for f in told.findings
        if f.get("level", "ok") != "ok" and f["check"] not in others
    ]


def count(client: redis.Redis, *counts: int) -> int:
    """The jobs of the queue, those on their way included."""
    found = 0
    for keys in (ShardKeys.of("zw", name) for number in counts for name in shard_names("orders", number)):
        leaving: Any = client.hkeys(keys.leaving)
        found += client.hlen(keys.jobs) + sum(field.startswith(b"j") for field in leaving)
    return found


@pytest.mark.parametrize(("before", "after"), [(4, 8), (1, 4), (4, 1)])
def test_what_is_on_its_way_is_no_finding_and_no_repair_takes_it(
    client: redis.Redis, doctor: Doctor, url: str, store: SyncStore, before: int, after: int
) -> None:
    client.delete("zw:queues")
    fill(url, before)
    session = store.session
    assert store.drive(begin_reshard(session, "orders", after))
    former = [session.keys(name) for name in shard_names("orders", before)]
    day = day_of((int(store.send([("TIME",)])[0][0]) + HOUR_S) * 1000)
    for keys in former:
        store.send([depart_day(keys, day, arrived=None, past=0, limit=3)])
    assert sum(client.exists(keys.leaving) for keys in former), "batches are on their way, and their movers are gone"
    for words in ((), ("--repair", "--yes")):
        told = doctor(url, *words)
        assert alarms(told) == []
        assert "of no kind" not in str(told.findings)
        looked = {f["queue"] for f in told.findings if f.get("check") == "places"}
        assert looked >= {keys.name for keys in former}
        assert looked >= set(shard_names("orders", after))
        assert count(client, before, after) == JOBS
    while not store.drive(how_far(session, "orders")).done:
        store.drive(move(session, "orders"))
    told = doctor(url)
    assert alarms(told) == []
    assert count(client, after) == JOBS
    doctor(url, "--repair", "--yes")
    assert client.hget("zw:queues", "orders") == str(after).encode()
    assert count(client, after) == JOBS


def test_a_job_in_no_place_of_a_former_cut_is_found(
    client: redis.Redis, doctor: Doctor, url: str, store: SyncStore
) -> None:
    """It would hold up the reshard for ever."""
    client.delete("zw:queues")
    fill(url, 2)
    assert store.drive(begin_reshard(store.session, "orders", 3))
    keys = next(keys for name in shard_names("orders", 2) if client.hlen((keys := store.session.keys(name)).jobs))
    store.drive(move(store.session, "orders"))
    client.hset(keys.jobs, "lost", record())
    assert not store.drive(how_far(store.session, "orders")).done
    assert len(alarms(doctor(url))) == 1
    doctor(url, "--repair", "--yes")
    store.drive(move(store.session, "orders"))
    assert store.drive(how_far(store.session, "orders")).done
