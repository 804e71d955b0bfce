"""Jobs that may start only until some time, and jobs that ask for more time."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from tests.servers import RedisServer
from tests.workers import isolated_app
from tests.workers.harness import QUICK, Log, eventually, one_kind, running
from zwheel import InvalidTime, Job, JobState, Reason, Snooze, Wheel
from zwheel.policy import EXPIRES_HEADER, expires_ms

pytestmark = pytest.mark.anyio


def now() -> datetime:
    return datetime.now(UTC)


@one_kind
async def test_a_job_that_no_worker_started_in_time_is_dead_and_says_so(url: str, fresh: RedisServer) -> None:
    log = Log()
    async with Wheel(url) as wheel:

        @wheel.task(name="t", keep=60)
        async def t() -> None:
            pass

        late = [
            await t.options(expires=now() + timedelta(seconds=0.2)).enqueue(),
            await t.options(delay=0.1, expires=0.1).enqueue(),
        ]
        in_time = [
            await t.options(expires=now() + timedelta(hours=1)).enqueue(),
            await t.options(delay=0.1, expires=timedelta(hours=1)).enqueue(),
            await wheel.enqueue("t", expires=3600),
            await t.enqueue(),
        ]
        await asyncio.sleep(0.5)
        async with running(wheel, log, **QUICK):
            ends = [await wheel.wait(job.job_id, timeout=60) for job in late]
            assert [(job.state, job.reason) for job in ends] == [(JobState.DEAD, Reason.EXPIRED)] * 2
            assert [job.attempt for job in ends] == [1, 1]
            assert [(await wheel.wait(job.job_id, timeout=60)).state for job in in_time] == [JobState.DONE] * 4
        assert not any(job.job_id in log.starts() for job in late)


@one_kind
async def test_a_time_holds_for_every_attempt_and_a_duration_for_each_from_its_own_fire_time(
    url: str, fresh: RedisServer
) -> None:
    async with Wheel(url) as wheel:
        tries: list[str] = []

        @wheel.task(name="t", keep=60, retries=2)
        async def t(which: str) -> None:
            tries.append(which)
            raise Snooze(1.0) if tries.count(which) == 1 else ValueError(which)

        fixed = await t.options(expires=now() + timedelta(seconds=0.8), retries=0).enqueue("fixed")
        own = await t.options(expires=60, retries=0).enqueue("own")
        async with running(wheel, Log(), **QUICK):
            ended = await wheel.wait(fixed.job_id, timeout=60)
            assert (ended.reason, ended.attempt) == (Reason.EXPIRED, 1)
            ended = await wheel.wait(own.job_id, timeout=60)
            # The attempt that snoozed did not count.
            assert (ended.reason, ended.attempt) == (Reason.ERROR, 1)
        assert tries == ["fixed", "own", "own"]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"expires": 0}, "expires: must be longer than nothing"),
        ({"expires": -1}, "expires"),
        ({"expires": datetime(2020, 1, 1, tzinfo=UTC)}, "is not after the job's fire time: it would never start"),
        ({"expires": datetime(2030, 1, 1, tzinfo=UTC), "at": datetime(2030, 1, 1, tzinfo=UTC)}, "not after"),
        ({"expires": datetime(2030, 1, 1, tzinfo=UTC), "delay": timedelta(days=365 * 50)}, "not after"),
        ({"expires": datetime(2030, 1, 1)}, "aware|time zone|tzinfo"),
        ({"expires": "tomorrow"}, "expires"),
    ],
)
async def test_what_cannot_be_meant_is_refused_where_the_job_is_made(options: dict[str, object], why: str) -> None:
    wheel = Wheel("redis://127.0.0.1:1")
    with pytest.raises(InvalidTime, match=why):
        wheel.new_job("t", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "+", "x", "-5", "+-5", "1" * 16, "٣"])
def test_a_header_that_says_nothing_expires_nothing(text: str) -> None:
    assert expires_ms({EXPIRES_HEADER: text}, 7) is None


def test_a_header_is_a_time_or_a_span_after_the_fire_time() -> None:
    assert (expires_ms({EXPIRES_HEADER: "12"}, 7), expires_ms({EXPIRES_HEADER: "+12"}, 7), expires_ms({}, 7)) == (
        12,
        19,
        None,
    )


@one_kind
async def test_a_job_that_snoozes_runs_later_and_spends_no_attempt(url: str, fresh: RedisServer) -> None:
    log = Log()
    async with Wheel(url) as wheel:
        wheel.tasks.update(isolated_app.wheel.tasks)
        began: list[float] = []

        @wheel.task(name="waits", keep=60, retries=0)
        async def waits() -> None:
            began.append(time.monotonic())
            if len(began) < 4:
                raise Snooze(0.2, "the file is not there yet")

        @wheel.task(name="threads", keep=60, retries=0)
        def threads() -> None:
            if len(log.of("released", thread.job_id)) < 2:
                raise Snooze(timedelta(seconds=0.05))

        async with running(wheel, log, **QUICK):
            job, thread = await waits.enqueue(), await threads.options(id="thread").enqueue()
            process = await wheel.enqueue("snoozes", keep=60, retries=0)
            ended = await wheel.wait(job.job_id, timeout=60)
            assert (ended.state, ended.attempt, ended.failures) == (JobState.DONE, 1, ())
            assert all(later - earlier >= 0.2 for earlier, later in pairwise(began))
            assert (await wheel.wait(thread.job_id, timeout=60)).attempt == 1

            async def look() -> Job | None:
                return await wheel.get(process.job_id)

            later = await eventually(
                look, lambda job: job is not None and job.state is JobState.SCHEDULED and job.worker
            )
            assert later is not None
            assert (later.attempt, later.fire_at_ms - int(time.time() * 1000) > 3_000_000) == (0, True)
