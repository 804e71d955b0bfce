"""Who reads a job sees its large body too, where it lies apart from the record."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.lua.shard import record
from tests.servers import RedisServer
from zwheel import Wheel
from zwheel.job import Job, JobState
from zwheel.keys import ShardKeys
from zwheel.operations.read import with_bodies
from zwheel.payload.codec import Codec

pytestmark = pytest.mark.anyio
KEYS = ShardKeys.of("zw", "default")
PLAIN = Codec(compress_over=None)
LARGE = "x" * 200_000


@pytest.fixture
async def wheel(url: str, anyio_backend: str) -> AsyncIterator[Wheel]:
    async with Wheel(url, namespace="zw", codec=PLAIN) as made:
        yield made


def args(job: Job | None) -> list[Any]:
    assert job is not None and job.bytes_apart == len(job.body)
    return list(PLAIN.decode(job.body, context=b"")[0])


async def test_a_large_job_is_read_with_its_arguments_one_by_one_and_in_pages(wheel: Wheel) -> None:
    for number in range(5):
        await wheel.enqueue("t", args=[number, LARGE], id=f"j{number}", delay=60)
    await wheel.enqueue("t", args=[9], id="small", delay=61)
    assert args(await wheel.get("j3")) == [3, LARGE]
    page = await wheel.jobs("default")
    assert [args(job) for job in page[:5]] == [[number, LARGE] for number in range(5)]
    assert page[5].bytes_apart == 0 and PLAIN.decode(page[5].body, context=b"")[0] == [9]


async def test_a_cancelled_job_has_no_body_any_more(wheel: Wheel, fresh: RedisServer) -> None:
    await wheel.enqueue("t", args=[LARGE], id="a", delay=60)
    await wheel.cancel("a")
    job = await wheel.get("a")
    assert job is not None and (job.state, job.body, job.bytes_apart) == (JobState.CANCELLED, b"", 0)
    with fresh.client() as client:
        assert not client.exists(KEYS.bodies)


async def test_a_body_that_is_gone_leaves_the_rest_of_the_job_to_be_read(wheel: Wheel, fresh: RedisServer) -> None:
    await wheel.enqueue("t", args=[LARGE], id="a", delay=60)
    with fresh.client() as client:
        client.delete(KEYS.bodies)
    job = await wheel.get("a")
    assert job is not None and (job.task, job.body) == ("t", b"") and job.bytes_apart > 200_000


async def test_a_job_that_ends_between_its_record_and_its_body_is_read_again() -> None:
    """The answers are given by hand: a and b were read, then a ended, b was replaced by another job, and c is as it was."""
    first = {"a": record(apart=2_000), "b": record(apart=3_000), "c": record(apart=1_100)}
    steps = with_bodies(KEYS, list(first), list(first.values()))
    assert next(steps) == [("HMGET", KEYS.bodies, "a", "b", "c")]
    assert steps.send([[None, None, b"c" * 1_100]]) == (("HMGET", KEYS.jobs, "a", "b"),)
    tombstone, another = record("d", body=b""), record(apart=1_500)
    assert steps.send([[tombstone, another]]) == [("HMGET", KEYS.bodies, "b")]
    with pytest.raises(StopIteration) as ended:
        steps.send([[b"b" * 1_500]])
    assert ended.value.value == [tombstone, another + b"b" * 1_500, first["c"] + b"c" * 1_100]
