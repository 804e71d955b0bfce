"""Commands as jobs: real processes, started by a real worker, and none of them left behind."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.servers import RedisServer
from tests.workers.harness import Log, eventually, one_kind, published, running
from zwheel import Job, JobState, Reason, Wheel
from zwheel.shell import SHELL_TASK, shell_kwargs
from zwheel.workers import group, shell
from zwheel.workers.shell import register_shell

pytestmark = [pytest.mark.anyio, one_kind]

#: Its processes hold the pipe that a test reads: the pipe ends when the last of them does.
HOLD = 'exec 3>"$PIPE"; '


@pytest.fixture
def any_shell(wheel: Wheel) -> Wheel:
    """A wheel whose workers run whatever they are asked to."""
    register_shell(wheel, ["*"])
    return wheel


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What commands wrote to the log so far."""
    caplog.set_level(logging.INFO, "zwheel.shell")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "zwheel.shell"]


@asynccontextmanager
async def pipe(path: Path) -> AsyncIterator[asyncio.StreamReader]:
    """A named pipe, opened for reading."""
    os.mkfifo(path)
    reader = asyncio.StreamReader()
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), file)
    try:
        yield reader
    finally:
        transport.close()


async def said(reader: asyncio.StreamReader, line: str) -> None:
    async with asyncio.timeout(10):
        assert (await reader.readline()).decode() == f"{line}\n"


async def all_gone(reader: asyncio.StreamReader) -> None:
    """Wait until no process holds the other end."""
    async with asyncio.timeout(10):
        await reader.read()


async def ended(wheel: Wheel, options: dict[str, Any] | None = None, **command: Any) -> Job:
    answer = await wheel.enqueue(SHELL_TASK, kwargs=shell_kwargs(**command), keep=60, **options or {})
    return await wheel.wait(answer.job_id, timeout=20)


async def test_a_command_that_ends_well_is_done_and_its_output_is_logged(
    any_shell: Wheel, logged: Callable[[], list[str]]
) -> None:
    async with running(any_shell):
        job = await ended(any_shell, argv=["printf", "%s\n", "one two", "$HOME", "\x1b[31mred\x07"])
        both = await ended(any_shell, line="echo out | cat; echo err >&2")
    assert (job.state, both.state) == (JobState.DONE, JobState.DONE)
    assert logged() == [
        *(f"job {job.id}: {line}" for line in ("one two", "$HOME", "\\x1b[31mred\\x07")),
        *(f"job {both.id}: {line}" for line in ("out", "err")),
    ]


async def test_of_much_output_the_first_lines_are_logged_and_the_middle_is_cut(
    any_shell: Wheel, logged: Callable[[], list[str]]
) -> None:
    async with running(any_shell):
        many = await ended(any_shell, argv=["seq", "5000"])
        of_many = logged()
        more = await ended(any_shell, argv=["seq", "30000"])
        of_more = logged()[201:]
        wide = await ended(any_shell, line="awk 'BEGIN { for (i = 0; i < 1000; i++) printf \"%01023d\\n\", i }'")
    assert of_many == [f"job {many.id}: {n}" for n in range(1, 201)] + [f"job {many.id}: ... and 4,800 more lines"]
    assert of_more[-1] == f"job {more.id}: ... and 29,800 more lines", "what was cut in the middle counts too"
    of_wide = [line.removeprefix(f"job {wide.id}: ").lstrip("0") for line in logged()[402:]]
    assert of_wide[1:8] == [str(n) for n in range(1, 8)]
    # 1,000 lines of 1,024 bytes, of which 8 + 56 KiB are kept.
    assert [line for line in of_wide if "cut" in line] == ["... 958,464 bytes cut ..."]
    assert of_wide[-1] == "999"


async def test_what_is_still_in_the_pipe_when_a_command_has_ended_is_read(
    any_shell: Wheel, logged: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shell, "_CHUNK_BYTES", 7)
    monkeypatch.setattr(shell, "_CHUNKS", 10_000)
    async with running(any_shell):
        job = await ended(any_shell, argv=["seq", "5000"])
    assert logged()[-1] == f"job {job.id}: ... and 4,800 more lines"


async def test_another_exit_code_is_a_failure_with_the_end_of_the_output(any_shell: Wheel) -> None:
    async with running(any_shell):
        job = await ended(any_shell, line="seq 2000; echo 'no space left' >&2; echo; exit 3")
        silent = await ended(any_shell, argv=["false"])
    assert (job.state, job.attempt, job.reason) == (JobState.DEAD, 1, Reason.ERROR)
    (failure,) = job.failures
    assert (failure.kind, failure.message) == ("ShellFailed", "exit 3: no space left")
    assert failure.traceback.endswith("1999\n2000\nno space left\n\n")
    assert len(failure.traceback) == 2000
    assert (silent.failures[0].message, silent.failures[0].traceback) == ("exit 1", "")


async def test_death_by_a_signal_is_said_by_name(any_shell: Wheel) -> None:
    async with running(any_shell):
        job = await ended(any_shell, line="echo nearly; kill -SEGV $$")
        other = await ended(any_shell, line="kill -KILL $$")
    assert job.failures[0].message == "killed by SIGSEGV: nearly"
    assert other.failures[0].message == "killed by SIGKILL (out of memory?)"


async def test_a_program_that_is_not_there_is_a_failure(any_shell: Wheel, tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("no program")
    async with running(any_shell):
        job = await ended(any_shell, argv=["no-such-program"])
        other = await ended(any_shell, argv=[str(tmp_path / "plain")])
    assert job.failures[0].message == "cannot start no-such-program: No such file or directory"
    assert other.failures[0].message == f"cannot start {tmp_path}/plain: Permission denied"


async def test_a_failed_command_is_tried_again_when_its_job_says_so(any_shell: Wheel) -> None:
    async with running(any_shell):
        line = '[ "$ZWHEEL_ATTEMPT" = 2 ]'
        assert (await ended(any_shell, line=line)).state is JobState.DEAD
        again = await ended(any_shell, {"retries": 1}, line=line)
    assert (again.state, again.attempt) == (JobState.DONE, 2)


async def test_a_command_reads_its_input_or_leaves_it(any_shell: Wheel, logged: Callable[[], list[str]]) -> None:
    async with running(any_shell):
        much = "é" * 100_000
        read = await ended(any_shell, argv=["wc", "-c"], stdin=much)
        assert (await ended(any_shell, argv=["true"], stdin=much)).state is JobState.DONE
        empty = await ended(any_shell, argv=["wc", "-c"])
    assert [line.split() for line in logged()] == [["job", f"{read.id}:", "200000"], ["job", f"{empty.id}:", "0"]]


async def test_a_command_sees_a_clean_environment_and_whose_job_it_is(
    any_shell: Wheel, logged: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("ZWHEEL_URL", "redis://:hidden@host"), ("SECRET", "hidden"), ("HOME", "/home/w")):
        monkeypatch.setenv(name, value)
    for name in ("LANG", "TZ", "USER", "LOGNAME"):
        monkeypatch.delenv(name, raising=False)
    job_env = {"MINE": "a b", "ZWHEEL_TOKEN": "7", "ZWHEEL_NOMINAL": "never", "TZ": "UTC"}
    async with running(any_shell):
        job = await ended(any_shell, argv=["env"], env=job_env)
    seen = dict(line.removeprefix(f"job {job.id}: ").split("=", 1) for line in logged())
    assert seen == {
        "PATH": os.environ["PATH"], "HOME": "/home/w", "TZ": "UTC", "MINE": "a b", "ZWHEEL_JOB_ID": job.id,
        "ZWHEEL_ATTEMPT": "1", "ZWHEEL_TOKEN": str(job.token),
    }  # fmt: skip


async def test_an_occurrence_is_told_its_schedule_and_nominal_time(
    any_shell: Wheel, logged: Callable[[], list[str]]
) -> None:
    command = shell_kwargs(line='echo "$ZWHEEL_SCHEDULE $ZWHEEL_NOMINAL"')
    definition = any_shell.new_schedule("nightly", "@yearly", SHELL_TASK, kwargs=command, tz="Asia/Tokyo")
    await any_shell.add_schedule(definition)
    async with running(any_shell):
        answer = await any_shell.trigger_schedule("nightly")
        await any_shell.wait(answer.job_id, timeout=10)
    (line,) = logged()
    name, nominal = line.removeprefix(f"job {answer.job_id}: ").split()
    assert name == "nightly"
    assert nominal.endswith("+09:00")
    assert f"{datetime.fromisoformat(nominal).astimezone(UTC):%Y-%m-%dT%H:%M:%S}" in answer.job_id


async def test_what_no_worker_may_run_is_dead_after_a_while_with_what_would_allow_it(
    wheel: Wheel, log: Log, logged: Callable[[], list[str]]
) -> None:
    register_shell(wheel, ["echo", "echo a | cat"])
    async with running(wheel, log, unknown_ttl_ms=50):
        assert (await ended(wheel, argv=["echo", "$(id)"])).state is JobState.DONE
        assert (await ended(wheel, line="echo a | cat")).state is JobState.DONE
        refused = await ended(wheel, {"retries": 5}, argv=["rm", "x"])
        line = await ended(wheel, line="echo b | cat")
        setting = await ended(wheel, argv=["echo"], env={"LD_PRELOAD": "x"})
    assert [message.partition(": ")[2] for message in logged()] == ["$(id)", "a"]
    for job, needed in ((refused, "rm"), (line, "'echo b | cat'"), (setting, "LD_PRELOAD=")):
        assert (job.state, job.attempt, job.reason) == (JobState.DEAD, 1, Reason.UNKNOWN_TASK)
        waited, dead = job.failures
        assert (waited.kind, dead.kind) == ("NotAllowed", "UnknownTask")
        assert f"--allow {needed} " in waited.message
        assert f"--allow {needed} " in dead.message
        assert dead.message.startswith("no worker was allowed to run it for ")
        assert log.of("unknown", job.id)
        assert not log.of("start", job.id), "what was refused never started"


async def test_a_command_goes_on_to_a_worker_that_may_run_it(
    wheel: Wheel, log: Log, fresh: RedisServer, url: str
) -> None:
    register_shell(wheel, ["ls", "GREETING="])
    commands: list[dict[str, Any]] = [
        {"argv": ["true"]}, {"line": "exit 0"}, {"argv": ["true"], "env": {"GREETING": "x"}}, {"argv": ["echo"]},
    ]  # fmt: skip
    async with AsyncExitStack() as stack:
        for allowed in (["true", "exit 0", "GREETING="], ["true"], ["*"]):
            able = await stack.enter_async_context(Wheel(url, namespace="zw"))
            register_shell(able, allowed)
            await stack.enter_async_context(running(able, log, unknown_ttl_ms=1))
        await stack.enter_async_context(running(wheel, log, unknown_ttl_ms=1))
        await published(fresh, 4)
        for n in range(1000):
            job = await ended(wheel, **commands[n % 4])
            assert (job.state, job.attempt, job.failures) == (JobState.DONE, 1, ())
            if n > 8 and log.of("offered"):
                break
    assert log.of("offered")
    assert not log.of("unknown"), "it went round on the wheel"


async def test_a_command_that_a_stranger_hands_to_workers_that_may_not_run_it_is_dead_in_the_end(
    wheel: Wheel, log: Log, fresh: RedisServer, url: str
) -> None:
    """The stranger does not know the task at all. What it hands on keeps the time for which it waits."""
    async with Wheel(url, namespace="zw") as other:
        register_shell(other, ["ls"])
        async with running(other, log, unknown_ttl_ms=200), running(wheel, log, unknown_ttl_ms=200):
            await published(fresh, 2)
            for _ in range(1000):
                job = await ended(wheel, argv=["true"])
                assert (job.state, job.reason) == (JobState.DEAD, Reason.UNKNOWN_TASK)
                assert "--allow true " in job.failures[-1].message
                if log.of("offered"):
                    break


@pytest.mark.parametrize(
    "kwargs", [{}, {"argv": ["a"], "line": "a"}, {"argv": ["a\0"]}, {"argv": []}, {"line": "a", "shell": "sh"}]
)
async def test_a_job_that_is_no_command_is_dead_at_once(any_shell: Wheel, kwargs: dict[str, Any]) -> None:
    async with running(any_shell):
        answer = await any_shell.enqueue(SHELL_TASK, kwargs=kwargs, retries=5)
        job = await any_shell.wait(answer.job_id, timeout=10)
    assert (job.state, job.attempt, job.reason) == (JobState.DEAD, 1, Reason.DISCARDED)


@pytest.mark.parametrize("stubborn", [False, True])
async def test_a_timeout_ends_the_whole_group(
    any_shell: Wheel, tmp_path: Path, stubborn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group, "GRACE_S", 0.3 if stubborn else 60.0)
    trap = 'trap "" TERM; ' if stubborn else ""
    line = f'{HOLD}{trap}echo far; (sh -c "sleep 1000; true" & sleep 1000) & echo ready >&3; sleep 1000; true'
    async with pipe(tmp_path / "pipe") as reader, running(any_shell):
        env = {"PIPE": str(tmp_path / "pipe")}
        answer = await any_shell.enqueue(SHELL_TASK, kwargs=shell_kwargs(line=line, env=env), timeout=1.5, retries=0)
        await said(reader, "ready")
        job = await any_shell.wait(answer.job_id, timeout=20)
        await all_gone(reader)
    assert (job.state, job.reason) == (JobState.DEAD, Reason.TIMEOUT)
    assert (job.failures[0].message, job.failures[0].traceback) == ("stopped while it ran: far", "far\n")


async def test_a_command_may_tidy_up_after_sigterm(any_shell: Wheel, tmp_path: Path) -> None:
    line = f"{HOLD}trap 'echo tidy >&3; echo tidied; exit 0' TERM; echo ready >&3; while true; do sleep 0.05; done"
    async with pipe(tmp_path / "pipe") as reader, running(any_shell):
        env = {"PIPE": str(tmp_path / "pipe")}
        job = await ended(any_shell, {"timeout": 1.5, "retries": 0}, line=line, env=env)
        await said(reader, "ready")
        await said(reader, "tidy")
        await all_gone(reader)
    # It ended well, but not by itself: whether its work is done nobody knows.
    assert (job.reason, job.failures[0].message) == (Reason.TIMEOUT, "stopped while it ran: tidied")


@pytest.mark.parametrize("how", ["drain", "lost"])
async def test_a_drain_gives_the_job_back_and_leaves_no_process(
    any_shell: Wheel, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group, "GRACE_S", 0.3)
    line = f"{HOLD}trap '' TERM; echo ready >&3; sleep 1000; true"
    async with pipe(tmp_path / "pipe") as reader:
        env = {"PIPE": str(tmp_path / "pipe")}
        answer = await any_shell.enqueue(SHELL_TASK, kwargs=shell_kwargs(line=line, env=env), keep=60)
        async with running(any_shell, drain_ms=50) as worker:
            await said(reader, "ready")
            await (worker.stop() if how == "drain" else worker.vanish())
        await all_gone(reader)
        job = await any_shell.get(answer.job_id)
    assert job is not None
    if how == "drain":
        assert (job.state, job.attempt, job.failures) == (JobState.SCHEDULED, 0, ())
    else:
        assert (job.state, job.attempt) == (JobState.PROCESSING, 1)


async def test_a_drain_outlasts_a_command_that_ignores_sigterm(any_shell: Wheel, tmp_path: Path) -> None:
    """With the true times: the worker waits longer than the command may take to end."""
    line = f"{HOLD}trap '' TERM; echo ready >&3; sleep 1000; true"
    async with pipe(tmp_path / "pipe") as reader:
        env = {"PIPE": str(tmp_path / "pipe")}
        answer = await any_shell.enqueue(SHELL_TASK, kwargs=shell_kwargs(line=line, env=env), keep=60)
        async with running(any_shell, drain_ms=50) as worker:
            await said(reader, "ready")
            await worker.stop(within=20)
        await all_gone(reader)
        job = await any_shell.get(answer.job_id)
    assert job is not None
    assert (job.state, job.attempt) == (JobState.SCHEDULED, 0)


async def test_what_a_command_leaves_running_ends_with_it(
    any_shell: Wheel, tmp_path: Path, logged: Callable[[], list[str]]
) -> None:
    line = f"{HOLD}(sleep 1000; true) & echo left >&3; echo said"
    async with pipe(tmp_path / "pipe") as reader, running(any_shell):
        job = await ended(any_shell, line=line, env={"PIPE": str(tmp_path / "pipe")})
        await said(reader, "left")
        await all_gone(reader)
    assert job.state is JobState.DONE
    assert logged() == [f"job {job.id}: said"]


async def test_a_process_in_a_session_of_its_own_is_not_waited_for(
    any_shell: Wheel, tmp_path: Path, logged: Callable[[], list[str]]
) -> None:
    """It holds the command's output open; the job ends nevertheless, with all that was written before."""
    go = tmp_path / "go"
    os.mkfifo(go)
    # The command goes on when the other has left its group: what is still in it is killed with the command's end.
    line = (
        f'{HOLD}setsid sh -c \': > "$GO.in"; read word < "$GO"\' & '
        'until [ -e "$GO.in" ]; do sleep 0.01; done; seq 3; echo ready >&3'
    )
    async with pipe(tmp_path / "pipe") as reader, running(any_shell):
        job = await ended(any_shell, line=line, env={"PIPE": str(tmp_path / "pipe"), "GO": str(go)})
        await said(reader, "ready")
        writing = await eventually(lambda: _open(go), lambda fd: fd is not None)
        assert writing is not None
        os.write(writing, b"go\n")
        os.close(writing)
        await all_gone(reader)
    assert job.state is JobState.DONE
    assert logged() == [f"job {job.id}: {n}" for n in (1, 2, 3)]


async def _open(path: Path) -> int | None:
    try:
        return os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return None


async def test_many_commands_at_a_time(any_shell: Wheel, log: Log) -> None:
    async with running(any_shell, log, concurrency=20):
        jobs = [any_shell.new_job(SHELL_TASK, kwargs=shell_kwargs(argv=["true"]), keep=60) for _ in range(100)]
        await any_shell.enqueue_many(jobs)
        await log.seen("done", count=100, within=30)
    assert set(log.starts().values()) == {1}


async def test_a_line_of_a_crontab_runs_in_home_and_nowhere_else(
    any_shell: Wheel, tmp_path: Path, logged: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    async with running(any_shell):
        job = await ended(any_shell, line="pwd; echo $SHELL", home=True)
        monkeypatch.delenv("HOME")
        monkeypatch.setattr(os.path, "expanduser", lambda path: str(tmp_path))
        unset = await ended(any_shell, line="echo $HOME", home=True)
        gone = await ended(any_shell, line="touch here", home=True, env={"HOME": str(tmp_path / "gone")})
    assert logged() == [
        *(f"job {job.id}: {line}" for line in (str(tmp_path), "/bin/sh")), f"job {unset.id}: {tmp_path}",
    ]  # fmt: skip
    assert gone.state is JobState.DEAD
    assert "there is no directory" in gone.failures[-1].message
