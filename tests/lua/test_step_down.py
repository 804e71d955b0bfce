from __future__ import annotations

from typing import Any

import pytest

from zwheel.calls import step_down

from .shard import KEYS, LANE, LANE2, NOW, NOW_US, OTHER_WORKER, TODAY, WORKER, Keyspace, Shard, at, meta, record

WHEEL: Keyspace = {"jobs": {"a": record()}, f"wheel:{TODAY}": {"a": NOW}, "days": {TODAY: int(TODAY)}}


def keeper(worker: str = WORKER) -> dict[str, Any]:
    return {"keeper": worker, "keeper_at": NOW, "keeper_end": NOW + 30}


def second(worker: str = WORKER) -> dict[str, Any]:
    return {"second": worker, "second_end": NOW + 3_000}


STEPPING: list[Any] = [
    pytest.param(keeper() | second(OTHER_WORKER), second(OTHER_WORKER), ["1"], id="the timekeeper"),
    pytest.param(keeper(OTHER_WORKER) | second(), keeper(OTHER_WORKER), ["1"], id="the second"),
    pytest.param(
        keeper(OTHER_WORKER) | second("u1111111"), keeper(OTHER_WORKER) | second("u1111111"), [], id="a follower"
    ),
]


@pytest.mark.parametrize(("before", "after", "woken"), STEPPING)
def test_who_steps_down_gives_up_its_role_and_wakes_another_and_takes_nothing(
    shard: Shard, before: dict[str, Any], after: dict[str, Any], woken: list[str]
) -> None:
    shard.put(WHEEL | {"meta": meta(NOW_US - 1, **before)})
    for number, lane in enumerate((LANE, LANE2)):
        reply = shard.run(step_down(KEYS, WORKER, lane=lane, now=at(NOW)))
        assert reply == [b"ok", at(NOW).encode()]
        shard.leaves(
            WHEEL
            | {
                "meta": meta(NOW_US, beat=True, **after) | {"clock": str(NOW_US + number)},
                "wake": woken or None,
                "replay:caller:0": f"{lane.request} ",
            }
        )


def test_a_late_copy_takes_back_no_role_that_was_taken_since(shard: Shard) -> None:
    call = step_down(KEYS, WORKER, lane=LANE, now=at(NOW))
    shard.run(call)
    shard.put({"meta": meta(**keeper())})
    before = shard.keyspace()
    assert shard.run(call)[0] == b"ok"
    shard.leaves(before)
