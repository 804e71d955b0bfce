"""What a worker tells of its jobs: why one failed, in the job and in the log, in the application's own logging too."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.workers.harness import Log, one_kind, running
from tests.workers.processes import worker_process
from tests.workers.test_outcomes import AT_ONCE, died
from zwheel import Discard, JobState, Reason, Retry, Wheel

pytestmark = [pytest.mark.anyio, one_kind]


async def missing() -> None:
    raise KeyError("customer 4711 is missing")


async def fine() -> None:
    await asyncio.sleep(0)


async def in_group(*functions: Callable[[], Awaitable[None]]) -> None:
    async with asyncio.TaskGroup() as group:
        for function in functions:
            group.create_task(function())  # type: ignore[arg-type]


def broken() -> None:
    raise OSError("disk 3 is broken")


def save() -> None:
    try:
        broken()
    except OSError as error:
        raise RuntimeError("could not save") from error


def read() -> None:
    error = ValueError("bad")
    error.add_note("while reading row 17 of f.csv")
    raise error


async def nested() -> None:
    await in_group(fine, lambda: in_group(fine, missing))


TROUBLES: dict[str, tuple[Callable[[], Any], tuple[str, ...]]] = {
    "group": (lambda: in_group(fine, missing), ("KeyError: 'customer 4711 is missing'", "in missing")),
    "nested": (nested, ("KeyError: 'customer 4711 is missing'", "in missing")),
    "chain": (save, ("RuntimeError: could not save", "OSError: disk 3 is broken", "in broken", "direct cause")),
    "notes": (read, ("ValueError: bad", "while reading row 17 of f.csv", "in read")),
}


@pytest.mark.parametrize("name", TROUBLES)
async def test_the_real_error_is_in_the_job_and_in_the_log(
    wheel: Wheel, log: Log, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    function, expected = TROUBLES[name]
    wheel.task(name=name, retries=1, backoff=AT_ONCE)(function)
    with caplog.at_level(logging.INFO, "zwheel.worker"):
        async with running(wheel, log):
            job = await died(wheel, (await wheel.enqueue(name)).job_id)
    for failure in job.failures:
        for text in expected:
            assert text in failure.traceback or text in f"{failure.kind}: {failure.message}"
        assert not any(own in failure.traceback for own in ("runner.py", "functions.py", "thread.py", "forks.py"))
    again, dead = (record for record in caplog.records if record.exc_info)
    assert again.getMessage().startswith(f"job {job.id} ({name}): attempt 1 of 2 failed, again in ")
    assert dead.getMessage().startswith(f"job {job.id} ({name}): dead after 2 attempts: error: ")
    for record in (again, dead):
        assert record.levelno == logging.ERROR
        assert record.exc_info is not None and isinstance(record.exc_info[1], BaseException)
        told = logging.Formatter("%(message)s").format(record)
        assert all(text in told for text in expected)
        assert (record.job_id, record.job_task, record.job_attempt) == (job.id, name, 1 + (record is dead))  # type: ignore[attr-defined]


async def test_what_a_task_says_inside_a_group_counts(wheel: Wheel, log: Log) -> None:
    async def later() -> None:
        raise Retry("not yet", delay=3600)

    async def drop() -> None:
        raise Discard("not wanted")

    async def given_up() -> None:
        raise LookupError("no such customer")

    wheel.task(name="retry", retries=3)(lambda: in_group(fine, later))
    wheel.task(name="discard", retries=3)(lambda: in_group(fine, drop))
    wheel.task(name="give-up", retries=3, give_up_on=LookupError)(lambda: in_group(fine, given_up))
    async with running(wheel, log):
        put_off = await wheel.enqueue("retry")
        for name in ("discard", "give-up"):
            job = await died(wheel, (await wheel.enqueue(name)).job_id)
            assert (job.attempt, job.reason) == (1, Reason.DISCARDED), name
        await log.seen("retried", put_off.job_id)
    left = await wheel.get(put_off.job_id)
    assert left is not None and left.state is JobState.SCHEDULED
    assert 3_590_000 < left.fire_at_ms - put_off.fire_at_ms < 3_700_000


async def test_a_retry_and_a_discard_on_purpose_are_no_errors_in_the_log(
    wheel: Wheel, log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    @wheel.task(retries=1)
    async def twice() -> None:
        raise Retry("not yet", delay=0)

    @wheel.task
    async def unwanted() -> None:
        raise Discard("nobody wants it")

    async def later() -> None:
        raise Retry("not yet", delay=0)

    wheel.task(name="in-group", retries=1)(lambda: in_group(fine, later))
    with caplog.at_level(logging.INFO, "zwheel.worker"):
        async with running(wheel, log):
            await died(wheel, (await unwanted.enqueue()).job_id)
            for number, name in enumerate((twice.name, "in-group"), 1):
                await wheel.enqueue(name)
                await log.seen("retried", count=number)
    assert not [
        record for record in caplog.records if record.levelno >= logging.ERROR and "attempt 1 of" in record.getMessage()
    ]
    (dead,) = (
        r for r in caplog.records if "dead after 1 attempt: discarded: Discard: nobody wants it" in r.getMessage()
    )
    (again,) = (r for r in caplog.records if "attempt 1 of 2 failed, again in 0 ms: Retry: not yet" in r.getMessage())
    assert (dead.levelno, again.levelno, dead.exc_info, again.exc_info) == (logging.WARNING, logging.INFO, None, None)


async def test_a_timeout_tells_where_the_task_was(wheel: Wheel, log: Log) -> None:
    async def stuck_here() -> None:
        await asyncio.Event().wait()

    @wheel.task(timeout=0.1, retries=0)
    async def slow() -> None:
        await stuck_here()

    async with running(wheel, log):
        job = await died(wheel, (await slow.enqueue()).job_id)
    assert job.reason == Reason.TIMEOUT
    assert "in stuck_here" in job.failures[0].traceback


async def test_a_long_chain_keeps_its_first_cause_and_its_last_error(wheel: Wheel, log: Log) -> None:
    @wheel.task(retries=0)
    async def fail() -> None:
        error: Exception = ValueError("the first cause")
        for number in range(100):
            try:
                raise RuntimeError(f"follows {number}") from error
            except RuntimeError as raised:
                error = raised
        raise RuntimeError("the last error") from error

    async with running(wheel, log):
        job = await died(wheel, (await fail.enqueue()).job_id)
    assert "the first cause" in job.failures[0].traceback
    assert "the last error" in job.failures[0].traceback


async def test_a_job_that_ended_well_is_one_line_at_debug_or_where_asked_for_at_info(
    wheel: Wheel, log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    @wheel.task(keep=60)
    async def work() -> None:
        """Do nothing."""

    with caplog.at_level(logging.DEBUG, "zwheel.worker"):
        for more, level in (({}, logging.DEBUG), ({"log_done": True}, logging.INFO)):
            caplog.clear()
            async with running(wheel, log, **more):
                answer = await work.enqueue()
                await wheel.wait(answer.job_id, timeout=10)
            lines = [r for r in caplog.records if "): done in " in r.getMessage()]
            assert [(r.levelno, r.job_id) for r in lines] == [(level, answer.job_id)]  # type: ignore[attr-defined]


async def test_a_job_knows_how_long_it_ran(wheel: Wheel, log: Log) -> None:
    @wheel.task(keep=60, retries=0)
    async def work(fail: bool) -> None:
        await asyncio.sleep(0.3)
        if fail:
            raise ValueError

    async with running(wheel, log):
        for fail in (False, True):
            job = await wheel.wait((await work.enqueue(fail)).job_id, timeout=10)
            assert job.ran_ms is not None and 299 <= job.ran_ms < 9_000


APP = """
import logging, logging.config
from zwheel import Wheel
from zwheel.logs import JobFilter
{setting}
wheel = Wheel(namespace="zw")
log = logging.getLogger("shop.jobs")

@wheel.task(name="work", retries=0)
async def work():
    log.info("an order is packed")
    raise KeyError("customer 4711")
"""
BASIC = 'logging.basicConfig(level="INFO", format="BASIC %(levelname)s %(name)s %(message)s")'
DICT = """
logging.config.dictConfig({
    "version": 1,
    "filters": {"job": {"()": JobFilter}},
    "formatters": {"own": {"format": "DICT %(levelname)s %(name)s <%(job_task)s %(job_id)s %(job_attempt)s> %(message)s"}},
    "handlers": {"own": {"class": "logging.StreamHandler", "formatter": "own", "filters": ["job"]}},
    "root": {"handlers": ["own"], "level": "INFO"},
})
"""


@pytest.fixture
def app(tmp_path: Path) -> Callable[[str], Path]:
    """Write an application whose logging is set up so, and give the folder it is in."""

    def write(setting: str) -> Path:
        (tmp_path / "shop_app.py").write_text(APP.format(setting=setting))
        return tmp_path

    return write


async def _lines(url: str, folder: Path, wheel: Wheel, *words: str) -> tuple[str, list[str]]:
    async with worker_process(url, folder / "stage", *words, app="shop_app.py", cwd=folder, wait=False) as worker:
        answer = await wheel.enqueue("work", retries=0)
        await died(wheel, answer.job_id)
        await worker.says("KeyError")
        worker.child.terminate()
        await worker.ended()
        return answer.job_id, worker.lines


async def test_the_logging_of_an_application_is_its_own(wheel: Wheel, url: str, app: Callable[[str], Path]) -> None:
    job, lines = await _lines(url, app(BASIC), wheel)
    assert "BASIC INFO shop.jobs an order is packed" in lines
    assert any(line.startswith(f"BASIC ERROR zwheel.worker job {job} (work): dead after 1 attempt") for line in lines)


async def test_a_config_that_disables_existing_loggers_does_not_hide_why_a_job_failed(
    wheel: Wheel, url: str, app: Callable[[str], Path]
) -> None:
    job, lines = await _lines(url, app(DICT), wheel, "--log-level", "warning", "--log-format", "json")
    assert f"DICT INFO shop.jobs <work {job} 1> an order is packed" in lines
    assert any(line.startswith(f"DICT ERROR zwheel.worker <work {job} 1> job {job}") for line in lines)
    assert any("this changes nothing" in line for line in lines)
    assert not any("DICT INFO zwheel" in line for line in lines), "--log-level was given"


async def test_lines_carry_date_level_logger_and_job(wheel: Wheel, url: str, app: Callable[[str], Path]) -> None:
    job, lines = await _lines(url, app(""), wheel)
    (own,) = (line for line in lines if "an order is packed" in line)
    date, level, _, logger, about = own.split(None, 4)
    assert len(date) == len("2026-11-28T00:59:09.123Z")
    assert (level, logger, about) == ("INFO", "shop.jobs:", f"[{job} work 1] an order is packed")


async def test_lines_are_json_where_asked_for(wheel: Wheel, url: str, app: Callable[[str], Path]) -> None:
    job, lines = await _lines(url, app(""), wheel, "--log-format", "json")
    found = [json.loads(line) for line in lines]
    (own,) = (entry for entry in found if entry["logger"] == "shop.jobs")
    assert own["message"] == "an order is packed"
    assert (own["level"], own["job_id"], own["job_task"], own["job_queue"], own["job_attempt"]) == (
        "info", job, "work", "default", 1,
    )  # fmt: skip
    (dead,) = (entry for entry in found if "dead after" in entry["message"])
    assert dead["level"] == "error" and "KeyError: 'customer 4711'" in dead["exception"]
    assert dead["job_id"] == job
