"""The snapshot of a real server: what it takes for a stored job, and what it leaves out."""

from __future__ import annotations

import json
from pathlib import Path

import redis

from tests.servers import RedisServer
from zwheel import SyncWheel
from zwheel.broker.store import SyncStore
from zwheel.calls import Session
from zwheel.keys import ShardKeys
from zwheel.verify import Bounds, check, read, take_snapshot

GROUP = "0123456789abcdef"


def test_notes_of_offers_and_calls_for_them_are_no_stored_jobs(fresh: RedisServer, tmp_path: Path) -> None:
    """A note lasts until it is read: here that of a job that another worker claimed and ended long ago."""
    with SyncWheel(fresh.url, namespace="zw", history=tmp_path) as wheel:
        job_id = wheel.enqueue("t", delay=60).job_id
    keys = ShardKeys.of("zw", "default")
    store = SyncStore(fresh.url, Session("zw"))
    with redis.Redis.from_url(fresh.url) as client:
        client.zadd(keys.offered(GROUP), {f"{job_id} {1:015d} {2:016d}": 3, f"gone {1:015d} {2:016d}": 3})
        client.rpush(keys.call(GROUP), "")
    try:
        final = list(take_snapshot(store))
    finally:
        store.close()
    (tmp_path / "final.jsonl").write_text("".join(json.dumps(line) + "\n" for line in final), encoding="utf-8")
    assert [[job["id"] for job in line["jobs"]] for line in final] == [[], [job_id], []]
    report = check(read([tmp_path]), Bounds())
    assert [(verdict.number, verdict.breaches) for verdict in report.broken] == []
