"""Commands as jobs: `zwheel enqueue -- command`, and the worker that may run them."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from zwheel.cli.worker import _one_process

from .conftest import Shell


def stored(shell: Shell) -> dict[str, object]:
    (job,) = shell.ok("job", "ls", "--json").documents
    return shell.ok("job", "show", str(job["id"]), "--json").document


def test_words_after_two_dashes_are_a_command(shell: Shell) -> None:
    done = shell.ok(
        *("enqueue", "--in", "10m", "--id", "a", "-q", "ops", "--unique", "k", "--timeout", "30s", "--"),
        *("backup.sh", "--full", "--in", "--json", "--", "a b"),
    )
    assert done.out.startswith("a enqueued in ops, fires ")
    assert re.search(r"Z, in (10 m|9 m 59 s): backup.sh --full --in --json -- 'a b'\n$", done.out)
    job = stored(shell)
    assert (job["task"], job["queue"], job["max_attempts"], job["args"]) == ("zwheel.shell", "ops", 1, [])
    assert job["kwargs"] == {"argv": ["backup.sh", "--full", "--in", "--json", "--", "a b"]}
    assert (job["timeout_ms"], job["dedup"] is not None) == (30_000, True)


def test_a_line_is_for_a_shell(shell: Shell) -> None:
    done = shell.ok("enqueue", "--shell", "pg_dump shop | gzip", "--retries", "2", "--id", "a")
    assert done.out.endswith("now, in a shell: pg_dump shop | gzip\n")
    job = stored(shell)
    assert (job["kwargs"], job["max_attempts"]) == ({"line": "pg_dump shop | gzip"}, 3)
    assert "in a shell" not in shell("enqueue", "--shell", "other", "--id", "a").out


def test_with_json_the_command_is_told(shell: Shell) -> None:
    assert shell.ok("enqueue", "--json", "--", "ls", "-l").document["argv"] == ["ls", "-l"]
    assert shell.ok("enqueue", "--json", "--shell", "ls | wc", "--id", "a").document["line"] == "ls | wc"
    assert "line" not in shell("enqueue", "--json", "--shell", "other", "--id", "a").document


def test_after_a_task_two_dashes_only_end_the_options(bare: Shell) -> None:
    for words in (("t", "--", "-1"), ("t", "1", "--dry-run", "--", "-1"), ("--in", "1h", "t", "--", "-1")):
        document = bare.ok("enqueue", "--dry-run", "--json", *words).document
        assert (document["task"], document["args"][-1]) == ("t", -1)
    assert bare.ok("enqueue", "--dry-run", "--json", "t", "--").document["args"] == []


@pytest.mark.parametrize(
    "words", [("--wait", "--"), ("--wait=5", "--"), ("-q", "t", "--"), ("--queue=t", "--"), ("--quiet", "--")]
)
def test_the_value_of_an_option_is_no_task(bare: Shell, words: tuple[str, ...]) -> None:
    document = bare.ok("enqueue", "--dry-run", "--json", *words, "t", "-x").document
    assert (document["task"], document["kwargs"]) == ("zwheel.shell", {"argv": ["t", "-x"]})
    assert document["retries"] == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--",), "-- needs a command after it"),
        (("--in", "--", "ls"), "'--in' requires an argument"),
        (("--nonsense", "--", "ls"), "No such option: --nonsense"),
        (("--", ""), "the name of the program is empty"),
        (("--shell", " "), "no command in it"),
        (("--shell", "a\0"), "a NUL character"),
        (("--shell", "a", "t"), "give neither a TASK nor -- beside it"),
        (("--shell", "a", "--", "ls"), "give neither a TASK nor -- beside it"),
        (("--jsonl", "-", "--", "ls"), "TASK belongs to one job"),
        (("--jsonl", "-", "--shell", "ls"), "--shell belongs to one job"),
    ],
)
def test_what_is_wrong_with_a_command_is_said_in_one_sentence(
    bare: Shell, words: tuple[str, ...], sentence: str
) -> None:
    done = bare("enqueue", *words)
    assert (done.code, done.out) == (2, "")
    assert sentence in done.err
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize("name", ["worker", "dev"])
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--allow-shell",), "--allow-shell needs --allow"),
        (("--allow", "ls"), "--allow needs --allow-shell"),
        (("--allow-shell", "tests.workers.app:wheel"), "--allow-shell needs --allow"),
        ((), "which app?"),
    ],
)
def test_a_worker_takes_both_options_or_none(bare: Shell, name: str, words: tuple[str, ...], sentence: str) -> None:
    done = bare(name, *words)
    assert (done.code, done.out) == (2, "")
    assert sentence in done.err
    assert len(done.err.splitlines()) == 1


def test_an_entry_that_allows_nothing_is_refused(bare: Shell) -> None:
    done = bare.piped("worker", "--allow-shell", "--allow", "--processes")
    assert done.code == 2
    assert done.err == "zwheel: --allow --processes: name a program, a whole line in quotes, or '*'\n"


def test_each_process_of_a_supervisor_may_run_the_same() -> None:
    own = ["--allow-shell", "--allow", "backup.sh", "--allow", "a -p 2 | b"]
    expected = [sys.executable, "-P", "-m", "zwheel.cli", "worker", *own]
    assert _one_process(["worker", "-p", "2", *own]) == expected
    assert _one_process(["worker", *own, "--processes=3"]) == expected


@contextmanager
def started(shell: Shell, *options: str, workers: int = 1) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that may run what the options say, from when it claims until it was told to end."""
    process = shell.process("worker", *options, stdin=subprocess.DEVNULL)
    assert process.stderr is not None
    said = b""
    while len(re.findall(rb"worker \w{8}: 1 task,", said)) < workers:
        line = process.stderr.readline()
        assert line, said.decode()
        said += line
    yield process
    process.send_signal(signal.SIGTERM)
    _, rest = process.communicate(timeout=100)
    assert process.returncode == 0, (said + rest).decode()


@pytest.fixture
def run(shell: Shell) -> Callable[..., tuple[int, str]]:
    """Enqueue a command, and give how it ended."""

    def enqueue(*words: str) -> tuple[int, str]:
        done = shell("enqueue", "--quiet", "--wait=30", *words)
        return done.code, done.out.splitlines()[-1]

    return enqueue


def test_a_worker_needs_no_python_to_run_commands(shell: Shell, run: Callable[..., tuple[int, str]]) -> None:
    with started(shell, "--allow-shell", "--allow", "test", "--allow", "exit 3", "--unknown-ttl", "50ms"):
        assert run("--", "test", "-n", "x")[0] == 0
        code, how = run("--shell", "exit 3")
        assert (code, how.partition(" ")[2]) == (8, "dead, error: ShellFailed: exit 3")
        code, how = run("--", "id")
        assert code == 8
        assert "start it with --allow id to let it" in how


def test_a_command_that_no_worker_may_run_is_said_where_it_is_made(shell: Shell) -> None:
    with started(shell, "--allow-shell", "--allow", "ls", "--allow", "echo a"):
        for allowed in (("--", "ls", "-l"), ("--shell", "echo a")):
            assert "no live worker" not in shell.ok("enqueue", *allowed).err
        for words in (("enqueue", "--shell", "it's"), ("schedule", "add", "s", "@daily", "--shell", "it's")):
            said = shell.ok(*words).err
            assert "no live worker of queue default may run it, as one with --allow 'it'\"'\"'s' does" in said
        assert shell("enqueue", "--strict", "--", "id").code == 6


def test_a_supervisor_passes_the_options_on(shell: Shell, run: Callable[..., tuple[int, str]]) -> None:
    words = (
        "--allow-shell",
        "--allow",
        "true && test -p",
        "--processes",
        "2",
        "--queue",
        "ops",
        "--unknown-ttl",
        "50ms",
    )
    with started(shell, *words, workers=2):
        assert run("-q", "ops", "--shell", "true && test -p")[0] == 0
        assert run("-q", "ops", "--", "true")[0] == 8
