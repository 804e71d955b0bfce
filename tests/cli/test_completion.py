from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from .conftest import Shell


def complete(bare: Shell, line: str) -> list[str]:
    """Ask as bash does: the words of the line, the last one not finished."""
    words = line.split(" ")
    environment = {
        **bare.environment,
        "_ZWHEEL_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    done = subprocess.run(bare.command(), capture_output=True, env=environment, check=True, timeout=100)
    return done.stdout.decode().split()


def test_commands_and_options_are_completed(bare: Shell) -> None:
    assert complete(bare, "zwheel q") == ["queue"]
    assert complete(bare, "zwheel job c") == ["cancel"]
    assert complete(bare, "zwheel job ls --sta") == ["--state"]
    assert complete(bare, "zwheel job ls --ur") == ["--url"]
    assert "dead" in complete(bare, "zwheel job ls --state d")


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_is_valid(bare: Shell, tmp_path: Path, name: str) -> None:
    script = bare.ok("completion", name).out
    assert "_ZWHEEL_COMPLETE=complete_" in script
    assert bare.ok("completion", name, "--json").document == {"shell": name, "script": script.rstrip("\n")}
    interpreter = shutil.which(name)
    if interpreter is None:
        return
    file = tmp_path / "script"
    file.write_text(script)
    subprocess.run([interpreter, "-n", str(file)], check=True, timeout=100)


def test_bash_completes_through_the_script(bare: Shell, tmp_path: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash on PATH")
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "zwheel"
    program.write_text(f'#!/bin/sh\nexec {" ".join(bare.command())} "$@"\n')
    program.chmod(0o755)
    (tmp_path / "script").write_text(bare.ok("completion", "bash").out)
    asked = (
        f'PATH="{folder}:$PATH"; source {tmp_path}/script; COMP_WORDS=(zwheel dead re); COMP_CWORD=2; '
        '_zwheel_completion zwheel; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run([bash, "-c", asked], capture_output=True, env=bare.environment, check=True, timeout=100)
    assert done.stdout.decode() == "redrive\n"


def test_an_unknown_shell_is_refused(bare: Shell) -> None:
    done = bare("completion", "tcsh")
    assert done.code == 2
    assert "'tcsh' is not one of bash, zsh, fish" in done.err
