"""The settler: how many outcomes one call carries, and what becomes of refused outcomes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from zwheel.calls import Session
from zwheel.current import SCHEDULE_HEADER
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
        assert call.script.name == ("offer" if ending == "offer" else "settle")
        ids = [word for word in call.args if isinstance(word, bytes) and word[:1] == b"j"]
        batches.append(len(ids))
        told += ids
    assert told == [claim.id for claim in claims]
    assert all(batch == min(1000, most) for batch in batches[:-1])
    assert 1 <= batches[-1] <= min(1000, most)


def claims_of(*names: str) -> list[Claim]:
    return [Claim(name.encode(), HEADER, QueueName("default"), 0) for name in names]


def settler_of(**told: Any) -> Settler:
    session = Session("zw", caller="w" * 8)
    return Settler(session, session.keys("default"), "w" * 8, 100, **told)


def end_each(settler: Settler, claims: Sequence[Claim], endings: Sequence[str]) -> None:
    for claim, ending in zip(claims, endings, strict=True):
        ENDINGS[ending](settler, claim, b"f")


def test_outcomes_of_every_kind_go_out_in_one_call_and_each_is_acknowledged_with_its_own_letter() -> None:
    settled: list[list[bytes]] = []
    settler = settler_of(settled=lambda batch: settled.append([claim.id for claim in batch]))
    end_each(settler, claims_of(*"abcde"), ("retry", "complete", "bury", "release", "complete"))
    ((call, read),) = settler.take()
    assert not settler.waiting
    told = call.trace(None).jobs
    assert [(job["id"], job["end"]) for job in told] == [
        ("b", "complete"), ("e", "complete"), ("a", "retry"), ("c", "bury"), ("d", "release"),
    ]  # fmt: skip
    read(["ok", 1, b"ddrxb"])
    assert settled == [[b"b", b"e", b"a", b"c", b"d"]]
    assert settler.lost == 0


def test_whose_letter_is_another_than_was_asked_for_has_lost_its_lease(caplog: pytest.LogCaptureFixture) -> None:
    settler = settler_of()
    end_each(settler, claims_of(*"abc"), ("complete", "bury", "retry"))
    ((_, read),) = settler.take()
    with caplog.at_level("WARNING"):
        read(["ok", 1, b"fxm"])
    assert settler.lost == 2
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["job a", "job c"]


def test_a_batch_whose_day_has_changed_is_sent_again_whole() -> None:
    settler = settler_of()
    end_each(settler, claims_of(*"abc"), ("complete", "bury", "retry"))
    ((first, read),) = settler.take()
    read(["moved", 1])
    ((again, read),) = settler.take()
    assert again.trace(None) == first.trace(None)
    assert again.args[1] != first.args[1], "another request: the refusal of the first is remembered"
    read(["ok", 1, b"dxr"])
    assert settler.lost == 0 and not settler.waiting


@pytest.mark.parametrize(("ending", "told"), [("complete", ["s"]), ("bury", ["s"]), ("retry", []), ("release", [])])
def test_an_occurrence_that_ended_is_told_to_who_waits_for_it_once_redis_knows(ending: str, told: list[str]) -> None:
    ended: list[str] = []
    settler = settler_of(occurrence_ended=ended.append)
    (claim,) = claims_of("a")
    claim.headers = {SCHEDULE_HEADER: "s"}
    end_each(settler, [claim], [ending])
    ((_, read),) = settler.take()
    assert ended == []
    read(["ok", 1, {"complete": b"d", "bury": b"x", "retry": b"r", "release": b"b"}[ending]])
    assert ended == told


def test_neither_those_that_ended_well_nor_the_others_keep_each_other_from_being_told() -> None:
    settler = settler_of()
    end_each(settler, claims_of(*(f"j{n}" for n in range(1500))), ["retry"] * 1500)
    end_each(settler, claims_of(*(f"k{n}" for n in range(1500))), ["complete"] * 1500)
    batches = []
    while settler.waiting:
        ((call, read),) = settler.take()
        ends = Counter(job["end"] for job in call.trace(None).jobs)
        batches.append((ends["complete"], ends["retry"]))
        read(["ok", 1, b"d" * ends["complete"] + b"r" * ends["retry"]])
    assert batches == [(500, 500), (500, 500), (500, 500)]


def test_a_call_of_many_kinds_carries_no_more_bytes_than_one_of_one_kind() -> None:
    settler = settler_of()
    large = [Claim(b"j%d" % n, HEADER + b"x" * 700_000, QueueName("default"), 0) for n in range(6)]
    end_each(settler, large, ("retry", "complete") * 3)
    batches = []
    while settler.waiting:
        ((call, _),) = settler.take()
        batches.append([job["end"] for job in call.trace(None).jobs])
    assert batches == [["retry"] * 3, ["complete"] * 3]
