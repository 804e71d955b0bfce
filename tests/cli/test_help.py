from __future__ import annotations

import json
import os
import resource
import subprocess
import sys

import pytest

from zwheel import __version__
from zwheel.cli.app import COMMANDS

from .commands import leaves, written
from .conftest import Shell

#: What a help text must not need: they take longer to import than all the rest.
HEAVY = ("rich", "redis", "pydantic", "zwheel.client.wheel", "asyncio")
#: How often longer a page of help may take than the libraries that draw it.
HELP_TIMES = 2.5


def test_each_name_in_the_table_has_its_module() -> None:
    assert written() == list(COMMANDS)


@pytest.mark.parametrize("words", leaves(), ids=" ".join)
def test_each_command_has_an_example_and_the_shared_options(bare: Shell, words: tuple[str, ...]) -> None:
    text = bare.ok(*words, "--help").out
    assert f"zwheel {' '.join(words)}" in text.split("Example")[1]
    for option in ("--json", "--url", "--namespace", "--quiet", "--tz", "--yes", "--debug"):
        assert option in text


@pytest.mark.parametrize("words", [(), *[(name,) for name in written()], *leaves()], ids=" ".join)
def test_no_option_is_declared_twice(bare: Shell, words: tuple[str, ...]) -> None:
    text = bare.ok(*words, "--help").out
    options = [line.split()[0] for line in text.splitlines() if line.startswith("  -")]
    assert len(options) == len(set(options))


def test_the_root_lists_all_commands_with_their_lines(bare: Shell) -> None:
    text = bare.ok("--help").out
    for name, (_, line) in COMMANDS.items():
        assert any(shown.split() == [name, *line.split()] for shown in text.splitlines())


def test_the_version_is_shown(bare: Shell) -> None:
    assert bare.ok("--version").out == f"zwheel {__version__}\n"


def test_a_group_without_a_command_shows_its_help_and_is_an_error(bare: Shell) -> None:
    done = bare("job")
    assert done.code == 2
    assert "reschedule" in done.err
    assert done.out == ""


@pytest.mark.parametrize("words", [("--help",), ("--version",), ("job", "--help"), ("enqueue", "--help")], ids=" ".join)
def test_help_needs_nothing_heavy(bare: Shell, words: tuple[str, ...]) -> None:
    code = (
        "import atexit, json, sys; atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr));"
        f"from zwheel.cli import main; main({list(words)!r})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env=bare.environment, check=True, timeout=100
    )
    loaded = set(json.loads(done.stderr.splitlines()[-1]))
    assert "typer" in loaded
    assert not loaded & set(HEAVY)


def processor_s(command: list[str], environment: dict[str, str]) -> float:
    """What a command takes of a processor, seconds, so that other work on the machine does not count; the best of five."""
    taken = []
    for _ in range(6):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True, env=environment, timeout=100)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(taken[1:])


@pytest.mark.parametrize("words", [("--help",), ("job", "--help"), ("enqueue", "--help")], ids=" ".join)
def test_help_answers_at_once(bare: Shell, words: tuple[str, ...]) -> None:
    """In little more than the libraries take that it is made with."""
    environment = {**bare.environment, "PYTHONDONTWRITEBYTECODE": ""}
    floor = processor_s([sys.executable, "-c", "import typer, rich.console, rich.table"], environment)
    assert processor_s(bare.command(*words), environment) < HELP_TIMES * floor


def test_a_mistyped_command_gets_a_hint(bare: Shell) -> None:
    done = bare("quueue", "ls")
    assert done.code == 2
    assert done.err == "zwheel: No such command 'quueue'. Did you mean queue or enqueue?; see zwheel --help\n"


def test_the_environment_is_not_changed(bare: Shell) -> None:
    before = dict(os.environ)
    bare("--help")
    assert dict(os.environ) == before
