"""The settler: how many outcomes one call carries."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from zwheel.calls import Session
from zwheel.job import QueueName
from zwheel.record import record_tail
from zwheel.workers.claims import Claim
from zwheel.workers.settler import Settler

HEADER = b"2p0001" + b"0" * 15 + b"0" * 16 + b"w" * 8 + record_tail("t", max_attempts=3)[8:]
BOUND = 2 * 1024 * 1024
ENDINGS: dict[str, Callable[[Settler, Claim, bytes], None]] = {
    "complete": lambda settler, claim, failures: settler.complete(claim),
    "retry": lambda settler, claim, failures: settler.retry(claim, 1, failures),
    "release": lambda settler, claim, failures: settler.release(claim, 1, failures),
    "bury": lambda settler, claim, failures: settler.bury(claim, failures),
    "offer": lambda settler, claim, failures: settler.offer(claim, ("g",), failures),
}


@pytest.mark.parametrize(
    ("body", "failures", "count"), [(250_000, 0, 20), (10, 80_000, 60), (3_000_000, 80_000, 3), (0, 0, 1000)]
)
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_call_carries_outcomes_up_to_a_number_of_bytes_and_at_least_one(
    ending: str, body: int, failures: int, count: int
) -> None:
    session = Session("zw", caller="w" * 8)
    settler = Settler(session, session.keys("default"), "w" * 8, 100)
    claims = [Claim(b"j%d" % n, HEADER + b"x" * body, QueueName("default"), 0) for n in range(count)]
    for claim in claims:
        ENDINGS[ending](settler, claim, b"f" * failures)
    size = len(claims[0].raw) + (failures if ending != "complete" else 0)
    most = max(1, -(-BOUND // size))
    told: list[bytes] = []
    batches = []
    while settler.waiting:
        ((call, _),) = settler.take()
        assert call.script.name == ending
        ids = [word for word in call.args if isinstance(word, bytes) and word[:1] == b"j"]
        batches.append(len(ids))
        told += ids
    assert told == [claim.id for claim in claims]
    assert all(batch == min(1000, most) for batch in batches[:-1])
    assert 1 <= batches[-1] <= min(1000, most)
