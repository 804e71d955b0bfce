from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import zwheel.errors
from zwheel import Wheel
from zwheel.cli import context
from zwheel.cli.exits import ExitCode, exit_code
from zwheel.errors import ConfigError, PayloadTooLarge, ZwheelError
from zwheel.workers import Worker

from .commands import leaves
from .conftest import Shell

#: What each command that talks to Redis is called with. A new command must be named here or below.
ARGUMENTS: dict[str, tuple[str, ...]] = {
    "enqueue": ("t", "--in", "1h"),
    "job show": ("a",),
    "job ls": (),
    "job cancel": ("a",),
    "job reschedule": ("a", "--in", "1h"),
    "job wait": ("a",),
    "queue ls": (),
    "queue show": ("q",),
    "queue create": ("q",),
    "queue reshard": ("q", "--shards", "4"),
    "queue pause": ("q",),
    "queue precise": ("q", "on"),
    "queue resume": ("q",),
    "queue cap": ("q", "5"),
    "queue rm": ("q",),
    "queue purge": ("q", "--state", "dead", "--yes"),
    "task ls": (),
    "task show": ("t",),
    "day ls": (),
    "day show": (),
    "dead ls": (),
    "dead show": ("a",),
    "dead redrive": ("a",),
    "dead purge": ("--queue", "q", "--yes"),
    "schedule add": ("s", "@daily", "t"),
    "schedule edit": ("s", "--max-count", "3"),
    "schedule ls": (),
    "schedule show": ("s",),
    "schedule next": ("s",),
    "schedule history": ("s",),
    "schedule import": (str(Path(__file__).parents[1] / "fixtures" / "crontab"),),
    "schedule pause": ("s",),
    "schedule resume": ("s",),
    "schedule trigger": ("s",),
    "schedule remove": ("s",),
    "schedule backfill": ("s", "--from", "2021-01-01T00:00Z", "--to", "2021-01-02T00:00Z"),
    "schedule sync": (str(Path(__file__).parents[1] / "fixtures" / "schedules.toml"),),
    "workers ls": (),
    "doctor": (),
}
#: These use no Redis of a URL, or wait until it comes.
OTHERS = {
    "schedule explain",
    "acl",
    "completion",
    "verify",
    "server start",
    "server status",
    "server stop",
    "server reset",
    "worker",
    "dev",
    "demo",
}


def test_every_command_is_called_here_or_named_as_another() -> None:
    assert {" ".join(words) for words in leaves()} == ARGUMENTS.keys() | OTHERS


@pytest.mark.parametrize("words", ARGUMENTS)
def test_an_unreachable_redis_is_one_sentence_and_exit_3(
    bare: Shell, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "PATIENT_GIVE_UP_S", 0.1)
    line = [*words.split(), *ARGUMENTS[words], "--url", "redis://:hidden@127.0.0.1:1/0", "--redis-timeout", "100ms"]
    done = bare(*line)
    assert done.code == 3
    assert done.out == ""
    assert len(done.err.splitlines()) == 1
    assert done.err.startswith("zwheel: ")
    assert "Traceback" not in done.err
    assert "hidden" not in done.err
    (error,) = bare(*line, "--json").errors
    assert (error["kind"], error["exit"]) == ("BrokerUnavailable", 3)


def test_no_redis_at_all_names_the_choices(bare: Shell) -> None:
    done = bare("queue", "ls")
    assert done.code == 3
    assert "ZWHEEL_URL" in done.err
    assert "zwheel server start" in done.err


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("ZwheelError", 1),
        ("InvalidInput", 2),
        ("InvalidName", 2),
        ("InvalidTime", 2),
        ("PayloadError", 2),
        ("BadArguments", 2),
        ("UndecodableJob", 6),
        ("UnknownTask", 4),
        ("BrokerError", 6),
        ("BrokerUnavailable", 3),
        ("OutcomeUnknown", 3),
        ("BrokerFull", 6),
        ("BrokerRefused", 6),
        ("SchemaMismatch", 6),
        ("WaitTimeout", 7),
        ("ConfigError", 2),
        ("HookFailed", 1),
        ("AppError", 2),
        ("EmbeddedServerError", 3),
    ],
)
def test_each_error_has_its_exit_code(name: str, code: int) -> None:
    assert exit_code(getattr(zwheel.errors, name)("why")) == code


def test_errors_with_fields_have_theirs_too() -> None:
    assert exit_code(PayloadTooLarge(2, 1)) == 2
    assert exit_code(zwheel.errors.QueueFull("q", 1)) == 6
    assert exit_code(zwheel.errors.LeaseLost("a", 1)) == 6
    assert exit_code(zwheel.errors.NotDurable("stored", [])) == 5
    assert exit_code(zwheel.errors.JobNotFound("a")) == 4
    assert exit_code(zwheel.errors.ScheduleNotFound("a")) == 4
    assert exit_code(zwheel.errors.ScheduleExists("a", "q")) == 6
    assert exit_code(zwheel.errors.ScheduleChanged("a")) == 6
    assert exit_code(KeyboardInterrupt()) == ExitCode.INTERRUPTED
    assert exit_code(RuntimeError()) == ExitCode.UNEXPECTED


def test_a_fault_of_our_own_is_one_sentence_and_with_debug_a_traceback(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("\x1b[31mbroken")

    monkeypatch.setattr("zwheel.client.wheel.Wheel.queues", broken)
    done = shell("queue", "ls")
    assert done.code == 1
    assert done.err == "zwheel: unexpected RuntimeError: broken; repeat it with --debug and report what it shows\n"
    debug = shell("queue", "ls", "--debug")
    assert "Traceback (most recent call last)" in debug.err
    assert "in broken" in debug.err


def test_debug_shows_where_a_known_error_came_from(shell: Shell) -> None:
    done = shell("job", "show", "a", "--debug")
    assert done.code == 4
    assert "Traceback" in done.err
    assert done.err.splitlines()[-1].startswith("zwheel: no job a")


def test_a_bad_settings_file_is_a_usage_error(bare: Shell) -> None:
    with open("zwheel.toml", "w", encoding="utf-8") as file:
        file.write("[zwheel]\nulr = 'redis://localhost'\n")
    done = bare("queue", "ls")
    assert done.code == 2
    assert "unknown setting 'ulr'" in done.err


def test_a_reader_that_goes_away_ends_the_command_quietly(shell: Shell) -> None:
    jobs = b"".join(b'{"task": "t", "in": "1h"}\n' for _ in range(2000))
    assert shell.piped("enqueue", "--jsonl", "-", stdin=jobs).code == 0
    for arguments in (("job", "ls", "--limit", "2000"), ("job", "ls", "--limit", "2000", "--json")):
        read, write = os.pipe()
        process = shell.process(*arguments, stdout=write)
        os.close(write)
        os.close(read)
        _, err = process.communicate(timeout=100)
        assert (process.returncode, err) == (141, b"")


def test_help_into_a_closed_pipe_is_quiet(bare: Shell) -> None:
    read, write = os.pipe()
    os.close(read)
    process = bare.process("--help", stdout=write)
    os.close(write)
    _, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (141, b"")


def test_output_that_the_encoding_cannot_hold_is_escaped(shell: Shell) -> None:
    shell.ok("enqueue", "t", "x=zażółć明", "--id", "a")
    environment = {**shell.environment, "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        shell.command("job", "show", "a"), capture_output=True, env=environment, check=True, timeout=100
    )
    assert b'{"x": "za\\u017c\\xf3\\u0142\\u0107\\u660e"}' in done.stdout


def test_every_error_class_is_mapped_on_purpose() -> None:
    """A new class of error must be given its code in the table above."""
    known = {"LeaseLost", "NotDurable", "JobNotFound", "QueueExists", "QueueFull", "QueueInUse", "PayloadTooLarge"}
    known |= {"ReshardUnderWay", "JobCancelled"}
    known |= {"ScheduleExists", "ScheduleNotFound", "ScheduleChanged"}
    (marker,) = [mark for mark in test_each_error_has_its_exit_code.pytestmark if mark.name == "parametrize"]  # type: ignore[attr-defined]
    known |= {name for name, _ in marker.args[1]}
    classes = {
        name
        for name, value in vars(zwheel.errors).items()
        if isinstance(value, type) and issubclass(value, ZwheelError)
    }
    assert classes == known


def test_a_server_that_was_not_named_is_always_said(bare: Shell) -> None:
    done = bare("queue", "ls", "--url", "memory://test_errors")
    assert done.code == 0
    assert "IN-MEMORY" in done.err
    assert "IN-MEMORY" not in bare("queue", "ls", "--url", "memory://test_errors", "--quiet").err


@pytest.mark.parametrize(
    "words", [("worker", "app"), ("worker", "app", "-p", "2"), ("dev", "app"), ("dev", "app", "--no-reload")]
)
def test_a_worker_of_a_store_in_memory_ends_at_once_with_one_sentence(
    bare: Shell, tmp_path: Path, words: tuple[str, ...]
) -> None:
    (tmp_path / "app.py").write_text("from zwheel import Wheel\nwheel = Wheel()\n@wheel.task\ndef t() -> None: ...\n")
    done = subprocess.run(
        [sys.executable, "-m", "zwheel.cli", *words], cwd=tmp_path, timeout=100, check=False, capture_output=True, text=True,
        env={**bare.environment, "ZWHEEL_URL": "memory://"}, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (ExitCode.USAGE, "")
    (line,) = done.stderr.splitlines()
    assert "a worker needs a Redis; memory:// is for tests" in line


@pytest.mark.anyio
async def test_a_worker_in_code_refuses_a_store_in_memory() -> None:
    with pytest.raises(ConfigError, match="a worker needs a Redis; memory:// is for tests"):
        await Worker(Wheel("memory://refused", namespace="zw")).run()
