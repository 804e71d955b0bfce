"""Many jobs at once when processes die: K-20 and K-23."""

from __future__ import annotations

import signal

import pytest

from tests.faults.witness import bury_all, found, python
from tests.servers import RedisServer
from tests.workers.harness import Log, eventually, one_kind, running
from tests.workers.processes import worker_process
from tests.workers.stage import Stage
from zwheel import JobState, Reason, Wheel
from zwheel.calls import Session

pytestmark = [pytest.mark.anyio, one_kind]
APP = "tests.faults.app:wheel"
IN_FLIGHT, DEAD = 1_000, 10_000
BATCH = 100


async def test_a_whole_fleet_that_dies_gets_all_its_jobs_back_in_batches(
    wheel: Wheel, stage: Stage, url: str, log: Log
) -> None:
    @wheel.task(name="hang_once", keep=600, retries=5)
    async def hang_once() -> None:
        """The second time it ends."""

    answers = await wheel.enqueue_many(wheel.new_job("hang_once") for _ in range(IN_FLIGHT))
    room = ("--concurrency", str(IN_FLIGHT // 2))
    async with (
        worker_process(url, stage.path, *room, app=APP, lease="1s", wait=False) as first,
        worker_process(url, stage.path, *room, app=APP, lease="1s", wait=False) as second,
    ):
        await eventually(lambda: wheel.count("default", JobState.PROCESSING), lambda n: n == IN_FLIGHT, 20)
        for process in (first, second):
            process.signal(signal.SIGKILL)
        for process in (first, second):
            assert await process.ended() == -signal.SIGKILL
    async with running(wheel, log, lease_ms=1000, reap_ms=100, concurrency=200):
        await eventually(lambda: wheel.count("default", JobState.DONE), lambda n: n == IN_FLIGHT, 20)
    back = [len(about["back"]) for about in log.of("reaped")]
    assert sum(back) == IN_FLIGHT
    assert max(back) <= BATCH
    assert set(log.starts().values()) == {1}
    for answer in answers[::100]:
        job = await found(wheel, answer.job_id)
        assert (job.attempt, [failure.reason for failure in job.failures]) == (2, [Reason.LEASE_EXPIRED])


@pytest.mark.parametrize("side", ["before", "after"])
async def test_a_redrive_that_is_cut_short_moves_each_job_once(
    wheel: Wheel, url: str, fresh: RedisServer, side: str
) -> None:
    await wheel.enqueue_many((wheel.new_job("t") for _ in range(DEAD)), chunk=1000)
    bury_all(url, DEAD)
    assert await wheel.count("default", JobState.DEAD) == DEAD
    words = ("zwheel.cli", "dead", "redrive", "--queue", "default", "--yes", "--url", url)
    code, _ = await python(*words, ZWHEEL_FAILPOINTS=f"redrive.{side}=kill@5")
    assert code == -signal.SIGKILL
    moved = await wheel.count("default", JobState.SCHEDULED)
    assert 0 < moved < DEAD
    assert await wheel.count("default", JobState.DEAD) == DEAD - moved
    code, said = await python(*words, "--json")
    assert code == 0, said
    assert f'"redriven": {DEAD - moved}' in said
    keys = Session("zw").keys("default")
    with fresh.client() as client:
        (day,) = client.zrange(keys.days, 0, -1)
        assert client.zcard(keys.wheel(day.decode())) == client.hlen(keys.jobs) == DEAD
        assert client.zcard(keys.dead) == 0
