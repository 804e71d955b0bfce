"""`process=True`: what a task prints, raises and does to its process reaches its job, and nothing else."""

from __future__ import annotations

import logging
import os
import signal
import time
import traceback
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.workers import isolated_app
from tests.workers.harness import eventually, one_kind, running
from tests.workers.processes import worker_process
from tests.workers.stage import Stage
from tests.workers.test_stopping import family, signal_all
from zwheel import JobState, Reason, Wheel
from zwheel.workers.alive import is_running
from zwheel.workers.isolated import cpus

pytestmark = [pytest.mark.anyio, one_kind]
APP = "tests.workers.isolated_app:wheel"
MORE_LINES = r"and [\d,]+ more lines?"


@pytest.fixture
async def stage(tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> AsyncIterator[Stage]:
    async with Stage(tmp_path_factory.mktemp("s") / "stage") as made:
        yield made


async def test_what_a_task_and_its_programs_print_and_log_is_in_the_workers_log_with_the_jobs_id(
    wheel: Wheel, stage: Stage, url: str
) -> None:
    async with worker_process(url, stage.path, app=APP) as worker:
        answer = await wheel.enqueue("speaks", keep=60, retries=0)
        job = await wheel.wait(answer.job_id, timeout=20)
        assert (job.state, job.failures) == (JobState.DONE, ())
        said = f"job {job.id}: "
        for text in ("a program speaks", "a C library speaks", r"stdout .*speaks", "stderr speaks"):
            (line,) = await worker.says(f"INFO .*{said}{text}$")
            assert "\x1b" not in line
        await worker.says(f"WARNING .*{said}a logger speaks$")
        await worker.says(f"WARNING .*{said}in two lines$")
        assert not [line for line in worker.lines if "not at this level" in line]


async def test_much_output_neither_hangs_a_task_nor_floods_the_log(wheel: Wheel, stage: Stage, url: str) -> None:
    async with worker_process(url, stage.path, app=APP) as worker:
        answer = await wheel.enqueue("floods", keep=60, retries=0)
        assert (await wheel.wait(answer.job_id, timeout=30)).state is JobState.DONE
        await worker.says(f"job {answer.job_id}: ... {MORE_LINES}")
        assert len([line for line in worker.lines if answer.job_id in line]) <= 1_010


async def test_what_a_task_raises_arrives_as_what_it_is(wheel: Wheel, stage: Stage, url: str) -> None:
    expected = {
        "own": ("Api", "API said 503: busy", JobState.DEAD, Reason.ERROR),
        "give up": ("ZeroDivisionError", "", JobState.DEAD, Reason.DISCARDED),
        "discard": ("Discard", "never again", JobState.DEAD, Reason.DISCARDED),
        "exit": ("SystemExit", "3", JobState.DEAD, Reason.ERROR),
        "_exit": ("ProcessDied", "its process ended: exit code 0", JobState.DEAD, Reason.ERROR),
    }
    async with worker_process(url, stage.path, app=APP):
        for what, (kind, message, state, reason) in expected.items():
            # The next one runs well: only this one has ended.
            jobs = [
                await wheel.enqueue("raises", args=[what], keep=60, retries=0),
                await wheel.enqueue("speaks", keep=60),
            ]
            job = await wheel.wait(jobs[0].job_id, timeout=20)
            assert (job.state, job.reason) == (state, reason), what
            (failure,) = job.failures
            assert (failure.kind, failure.message) == (kind, message)
            assert what == "_exit" or "isolated_app.py" in failure.traceback
            other = await wheel.wait(jobs[1].job_id, timeout=20)
            assert (other.state, other.attempt) == (JobState.DONE, 1)
        answer = await wheel.enqueue("raises", args=["retry"], keep=60, retries=1)
        job = await wheel.wait(answer.job_id, timeout=20)
        assert (job.state, job.attempt, job.failures[0].kind) == (JobState.DONE, 2, "Retry")
        assert job.fire_at_ms - job.failures[0].at_ms >= 250


async def test_arguments_and_the_current_job_arrive_as_in_any_task(wheel: Wheel, stage: Stage, url: str) -> None:
    at = datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)
    async with worker_process(url, stage.path, app=APP):
        answer = await wheel.enqueue(
            "takes", args=[{"number": 7, "due": at}], kwargs={"at": at, "parts": [1, 2]}, keep=60, retries=0,
            headers={"who": "ann"},
        )  # fmt: skip
        job = await wheel.wait(answer.job_id, timeout=20)
    assert (job.state, job.failures) == (JobState.DONE, ())


async def test_an_error_tracker_sees_what_a_task_raised_in_its_process(
    wheel: Wheel, caplog: pytest.LogCaptureFixture
) -> None:
    wheel.task(name="raises", keep=60, retries=0, process=True)(isolated_app.raises.function)
    async with running(wheel):
        for what, kind, said in (
            ("own", "Api", "API said 503: busy"),
            ("exit code", "ProcessDied", "its process ended: exit code 0"),
        ):
            answer = await wheel.enqueue("raises", args=[what], keep=60)
            assert (await wheel.wait(answer.job_id, timeout=20)).state is JobState.DEAD
            (record,) = [one for one in caplog.records if vars(one).get("job_id") == answer.job_id]
            assert record.exc_info is not None and record.exc_info[0] is not None
            assert (record.exc_info[0].__name__, str(record.exc_info[1])) == (kind, said)
            text = "".join(traceback.format_exception(*record.exc_info))
            line = logging.Formatter().format(record)
            if what == "own":
                assert text.count("in raises") == line.count("in raises") == 1
            assert (record.levelname, vars(record)["job_task"]) == ("ERROR", "raises")


SHOP = {
    "shop_setup": "ready = False",
    "shop_models": "import shop_setup\nassert shop_setup.ready, 'the apps are not loaded yet'",
    "shop_tasks": """
import logging
from zwheel import Wheel
wheel = Wheel(namespace="zw")
@wheel.task(name="uses_models", keep=60, retries=0, process=True)
def uses_models() -> None:
    import shop_models
    logging.getLogger("shop").warning("the models are there")
@wheel.task(name="needs_none", keep=60)
async def needs_none() -> None: ...
""",
    "shop_worker": """
import logging, os, shop_setup
{first}
shop_setup.ready = True
logging.basicConfig(format="SHOP %(message)s", level="INFO")
from shop_tasks import wheel
""",
}


def _write_shop(folder: Path, first: str = "") -> None:
    for name, text in SHOP.items():
        (folder / f"{name}.py").write_text(text.replace("{first}", first))


async def test_the_process_of_a_task_is_set_up_as_its_workers_app_sets_the_worker_up(
    wheel: Wheel, stage: Stage, url: str, tmp_path: Path
) -> None:
    _write_shop(tmp_path)
    async with worker_process(url, stage.path, app="shop_worker:wheel", cwd=tmp_path) as worker:
        for _ in range(2):
            answer = await wheel.enqueue("uses_models", keep=60)
            job = await wheel.wait(answer.job_id, timeout=20)
            assert (job.state, job.failures) == (JobState.DONE, ())
            # What the app sets up for its own log is the worker's: the line comes once, with its job.
            said = await worker.says("the models are there")
            assert said == [f"SHOP job {answer.job_id}: the models are there"]
            worker.lines.clear()


async def test_an_app_that_cannot_be_imported_in_the_process_of_a_task_fails_its_job_and_nothing_else(
    wheel: Wheel, stage: Stage, url: str, tmp_path: Path
) -> None:
    _write_shop(tmp_path, "open('only once', 'x')")
    async with worker_process(url, stage.path, app="shop_worker:wheel", cwd=tmp_path) as worker:
        answer = await wheel.enqueue("uses_models", keep=60, retries=0)
        job = await wheel.wait(answer.job_id, timeout=20)
        assert (job.state, [failure.kind for failure in job.failures]) == (JobState.DEAD, ["AppError"])
        assert "the app cannot be imported, shop_worker raised: FileExistsError" in job.failures[0].message
        await worker.says(f"{job.id}.*shop_worker raised: FileExistsError")
        other = await wheel.enqueue("needs_none", keep=60)
        assert (await wheel.wait(other.job_id, timeout=20)).state is JobState.DONE


@pytest.mark.parametrize("most", [None, 3])
async def test_as_many_processes_run_as_there_are_cpus_or_as_asked_for(
    wheel: Wheel, stage: Stage, url: str, most: int | None
) -> None:
    options = [] if most is None else ["--task-processes", str(most)]
    places = most or cpus()
    async with worker_process(url, stage.path, *options, app=APP) as worker:
        answers = [await wheel.enqueue("held", args=[f"held {n}"], keep=60) for n in range(places + 2)]
        actors = [await stage.nth(n + 1) for n in range(places)]
        # The others are handed back, unharmed, for workers that have a place.
        await eventually(
            lambda: wheel.queue("default"), lambda info: info is not None and info.processing == places, within=20
        )
        assert len({actor.pid for actor in actors}) == places == len(stage.actors)
        for actor in actors:
            actor.go()
        for number in range(places, places + 2):
            (await stage.nth(number + 1)).go()
        for answer in answers:
            job = await wheel.wait(answer.job_id, timeout=20)
            assert (job.state, job.attempt) == (JobState.DONE, 1)
        assert len({actor.pid for actor in stage.actors}) == places, "processes are used again"
        worker.signal(signal.SIGTERM)
        assert await worker.ended() == 0
        assert not any(is_running(actor.pid) for actor in actors)


async def test_jobs_that_wait_for_a_process_keep_none_waiting_that_needs_none(
    wheel: Wheel, stage: Stage, url: str
) -> None:
    async with worker_process(url, stage.path, "--task-processes", "1", "--concurrency", "3", app=APP) as worker:
        answers = [await wheel.enqueue("held", args=["held"], keep=60)]
        first = await stage.nth(1)
        # At one a second and slot, as they went back before, these took half a minute to go round once.
        answers += [await wheel.enqueue("held", args=["pass"], keep=60) for _ in range(60)]
        for _ in range(3):
            plain = await wheel.enqueue("needs_none", keep=60)
            assert (await wheel.wait(plain.job_id, timeout=10)).attempt == 1
        first.go()
        for answer in answers:
            job = await wheel.wait(answer.job_id, timeout=30)
            assert (job.state, job.attempt) == (JobState.DONE, 1)
        worker.signal(signal.SIGTERM)
        assert await worker.ended() == 0


async def test_workers_share_the_jobs_that_wait_for_a_process(wheel: Wheel, stage: Stage, url: str) -> None:
    options = "--task-processes", "1", "--concurrency", "10"
    async with (
        worker_process(url, stage.path, *options, app=APP) as one,
        worker_process(url, stage.path, *options, app=APP) as other,
    ):
        await wheel.enqueue_many([wheel.new_job("naps", keep=0) for _ in range(300)])

        async def naps() -> list[int]:
            return [sum("napped" in line for line in worker.lines) for worker in (one, other)]

        shares = await eventually(naps, lambda shares: sum(shares) == 300)
        # The worker that sleeps until the next job is due must not take all due jobs: the other has a free process.
        assert min(shares) >= 60, shares


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_to_every_process_of_the_unit_lets_the_task_end(
    wheel: Wheel, stage: Stage, url: str, number: signal.Signals
) -> None:
    async with worker_process(url, stage.path, app=APP, drain="60s") as worker:
        answer = await wheel.enqueue("held", args=["held"], keep=60)
        held = await stage.nth(1)
        signal_all(family(worker.pid), number)
        await worker.says("draining")
        held.go()
        assert await worker.ended() == 0
        job = await wheel.wait(answer.job_id, timeout=2)
    assert (job.state, job.attempt, job.failures) == (JobState.DONE, 1, ())


@pytest.mark.parametrize("task", ["held", "hogs"])
async def test_the_process_of_a_task_ends_with_its_worker(wheel: Wheel, stage: Stage, url: str, task: str) -> None:
    async with worker_process(url, stage.path, app=APP, lease="60s") as worker:
        await wheel.enqueue(task, args=["held"])
        actor = await stage.nth(1)
        assert is_running(actor.pid)
        os.kill(worker.pid, signal.SIGKILL)

        async def lives() -> bool:
            return is_running(actor.pid)

        await eventually(lives, lambda living: not living)


async def test_a_signal_that_finds_the_process_before_it_has_begun_costs_no_attempt(
    wheel: Wheel, stage: Stage, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Python imports this before anything else: as if the signal to the whole unit came in that moment.
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        f"if sys.orig_argv[1:3] == ['-P', '-c'] and not os.path.exists({str(tmp_path / 'once')!r}):\n"
        f"    open({str(tmp_path / 'once')!r}, 'w').close()\n"
        "    os.kill(os.getpid(), 15)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    async with worker_process(url, stage.path, app=APP):
        answer = await wheel.enqueue("held", args=["held"], keep=60, retries=0)
        (await stage.nth(1)).go()
        job = await wheel.wait(answer.job_id, timeout=10)
    assert (tmp_path / "once").exists()
    assert (job.state, job.attempt, job.failures) == (JobState.DONE, 1, ())


async def test_a_job_whose_process_ended_because_its_worker_was_stopped_goes_back_unharmed(
    wheel: Wheel, stage: Stage, url: str
) -> None:
    lease_s = 9
    async with worker_process(url, stage.path, app=APP, lease=f"{lease_s}s") as worker:
        answer = await wheel.enqueue("held", args=["held"], keep=60)
        first = await stage.nth(1)
        worker.signal(signal.SIGSTOP)

        async def lives() -> bool:
            return is_running(first.pid)

        # It waits until its lease was renewed 0.9 of one ago: when its worker was stopped that was a third ago at most.
        began = time.monotonic()
        await eventually(lives, lambda alive: not alive, within=20)
        assert time.monotonic() - began > lease_s / 2
        worker.signal(signal.SIGCONT)
        (await stage.nth(2, within=20)).go()
        job = await wheel.wait(answer.job_id, timeout=20)
    assert (job.state, job.attempt, job.failures) == (JobState.DONE, 1, ())
    assert [line for line in worker.lines if "this worker was stopped" in line and "handed back" in line]


async def test_the_process_of_a_task_does_not_go_on_beside_its_successor_when_its_worker_is_stopped(
    wheel: Wheel, stage: Stage, url: str
) -> None:
    async with worker_process(url, stage.path, app=APP, lease="3s") as first:
        answer = await wheel.enqueue("held", args=["held"], keep=60)
        old = await stage.nth(1)
        first.signal(signal.SIGSTOP)
        async with worker_process(url, stage.path, app=APP, lease="3s"):
            new = await stage.nth(2, within=20)
            # Asked at once: by then it had to be gone.
            assert not is_running(old.pid)
            first.signal(signal.SIGCONT)
            await first.says(f"{answer.job_id}.*lease|lease.*{answer.job_id}")
            new.go()
            job = await wheel.wait(answer.job_id, timeout=10)
    assert (job.state, job.attempt, job.token) == (JobState.DONE, 2, new.token)
