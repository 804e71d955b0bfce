from __future__ import annotations

from tests.endings import Back, release
from zwheel.calls import read_letters

from .shard import KEYS, LANE, NOW, NOW_US, TODAY, WORKER, Shard, at, digits16, held, meta, record

TOKEN = NOW_US - 1_000_000
# What retry and release share is in test_settle_back.py, run for both.


def test_the_attempt_is_taken_back_and_never_falls_below_none(shard: Shard) -> None:
    shard.put(
        {
            "jobs": {"one": held(TOKEN, attempt=1), "none": held(TOKEN, attempt=0), "many": held(TOKEN, attempt=9999)},
            "processing": dict.fromkeys(("one", "none", "many"), NOW + 1),
        }
    )
    batch = [Back(job_id, digits16(TOKEN), NOW, 0, b"") for job_id in ("one", "none", "many")]
    sent = release(KEYS, batch, now_ms=NOW, lane=LANE, now=at(NOW))
    assert read_letters(shard.run(sent)) == "bbb"
    shard.leaves(
        {
            "jobs": {
                "one": record(attempt=0, token=TOKEN, worker=WORKER),
                "none": record(attempt=0, token=TOKEN, worker=WORKER),
                "many": record(attempt=9998, token=TOKEN, worker=WORKER),
            },
            f"wheel:{TODAY}": dict.fromkeys(("one", "none", "many"), NOW),
            "days": {TODAY: int(TODAY)},
            "wake": ["1"],
            "meta": meta(beat=True),
            "replay:caller:0": f"request-1 {NOW_US} bbb",
        }
    )


def test_a_released_job_can_be_claimed_again_only_with_a_larger_token(shard: Shard) -> None:
    from zwheel.calls import claim, read_claim

    shard.put({"jobs": {"a": held(NOW_US + 5)}, "processing": {"a": NOW + 1}})
    sent = release(KEYS, [Back("a", digits16(NOW_US + 5), NOW, 0, b"")], now_ms=NOW, lane=LANE, now=at(NOW))
    shard.run(sent)
    again = claim(KEYS, day=TODAY, worker=WORKER, lease_ms=1000, limit=1, lane=LANE._replace(request="2"), now=at(NOW))
    assert read_claim(shard.run(again)).jobs == [b"a", held(NOW_US + 6)]
