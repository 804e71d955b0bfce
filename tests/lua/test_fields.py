"""Fields of a record that this version does not know: a lower-case one is copied through by every transition."""

from __future__ import annotations

from typing import Any

import pytest

from tests.endings import Back, bury, complete, release, retry
from zwheel.calls import (
    Lane,
    Offer,
    cancel,
    claim,
    offer,
    reap,
    redrive,
    reschedule,
)
from zwheel.job import JobId, QueueName
from zwheel.record import read_record

from .shard import DIGEST, KEYS, NOW, TODAY, WORKER, Shard, at, digits16, held, record

LANE = Lane("c", 1, "1")
TOKEN = NOW * 1000 - 5_000_000
WHY = b'{"at":1,"attempt":1,"reason":"error"}\n'
NOTE = b"z00005hello"
GIVEN: dict[str, Any] = {"digest": DIGEST, "keep": 60_000, "failures": WHY, "more": "zhello"}
HOLD = [("a", digits16(TOKEN))]
BACK = [Back("a", digits16(TOKEN), NOW + 5, 0, WHY)]
MOVES = {
    "claim": ("s", claim(KEYS, day=TODAY, worker=WORKER, lease_ms=500, limit=1, lane=LANE, now=at(NOW))),
    "complete": ("p", complete(KEYS, HOLD, lane=LANE, now=at(NOW))),
    "retry": ("p", retry(KEYS, BACK, now_ms=NOW, lane=LANE, now=at(NOW))),
    "release": ("p", release(KEYS, [Back("a", digits16(TOKEN), NOW, 0, b"")], now_ms=NOW, lane=LANE, now=at(NOW))),
    "bury": ("p", bury(KEYS, [("a", digits16(TOKEN), WHY)], most_dead=9, lane=LANE, now=at(NOW))),
    "offer": ("p", offer(KEYS, [Offer("a", digits16(TOKEN), b"none")], groups=("0" * 16,), now_ms=NOW, lane=LANE, now=at(NOW))),
    "reap": ("p", reap(KEYS, limit=1, lease_ms=500, most_dead=9, now_ms=NOW, now=at(NOW))),
    "cancel": ("s", cancel(KEYS, ["a"], day=TODAY, lane=LANE, now=at(NOW))),
    "reschedule": ("s", reschedule(KEYS, "a", day=TODAY, at_ms=NOW + 5, delay_ms=0, now_ms=NOW, lane=LANE, now=at(NOW))),
    "redrive": ("x", redrive(KEYS, ["a"], now_ms=NOW, lane=LANE, now=at(NOW))),
}  # fmt: skip


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("most", [1, 3])
def test_a_lower_case_field_that_is_not_known_is_copied(shard: Shard, move: str, most: int) -> None:
    state, call = MOVES[move]
    raw = held(TOKEN, most=most, **GIVEN) if state == "p" else record(state, most=most, **GIVEN)
    place = {"s": f"wheel:{TODAY}", "p": "processing", "x": "dead"}[state]
    shard.put({"jobs": {"a": raw}, place: {"a": NOW}, "days": {TODAY: int(TODAY)}, "dedup": {DIGEST: "a"}})
    shard.run(call)
    after = shard.keyspace()["jobs"]["a"]
    assert after != raw
    assert after.count(NOTE) == 1
    before, job = (read_record(JobId("a"), QueueName("q"), found) for found in (raw, after))
    assert (job.dedup, job.keep_ms, job.task) == (before.dedup, before.keep_ms, before.task)
    assert job.body == (b"" if job.state.value in ("done", "cancelled") else before.body)


def test_a_reader_passes_over_a_field_that_it_does_not_know() -> None:
    job = read_record(JobId("a"), QueueName("q"), record("s", **GIVEN))
    assert (job.dedup, job.keep_ms, len(job.failures)) == (DIGEST, 60_000, 1)
