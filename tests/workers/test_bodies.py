"""A large body is written to disk once, however often its job is tried, on a real server with an append-only file."""

from __future__ import annotations

import os

import pytest

from tests.servers import KINDS, RedisServer, binary_of
from zwheel import Wheel
from zwheel.job import JobState

from .app import AT_ONCE
from .harness import running

pytestmark = pytest.mark.anyio

BODY = os.urandom(100_000)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_large_job_that_is_tried_ten_times_is_written_to_disk_once(kind: str) -> None:
    binary = binary_of(kind)
    if binary is None:
        pytest.skip(f"no {kind}-server on PATH")
    with RedisServer(binary, appendonly=True) as server:
        wheel = Wheel(server.url)
        seen: list[bool] = []

        @wheel.task(retries=9, backoff=AT_ONCE)
        async def send(letter: bytes) -> None:
            seen.append(letter == BODY)
            raise ValueError("no such address")

        job = await send.enqueue(BODY)
        async with running(wheel, queues=("default",)):
            found = await wheel.wait(job.job_id, timeout=60)
        assert (found.state, found.attempt, seen) == (JobState.DEAD, 10, [True] * 10)
        await wheel.aclose()
        written = b"".join(path.read_bytes() for path in sorted(server.directory.glob("appendonlydir/*.aof")))
    assert written.count(BODY) == 1, "the body is in the append-only file more than once"
    assert len(written) < 2 * len(BODY), f"{len(written):,} bytes for ten tries"
