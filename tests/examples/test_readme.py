"""The first program of the README does what the README says, typed as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.servers import RedisServer

README = Path(__file__).parents[2] / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_the_readmes_program_fires_its_job(tmp_path: Path, fresh: RedisServer) -> None:
    program, _ = blocks("python")
    (tmp_path / "app.py").write_text(program, encoding="utf-8")
    env = {**os.environ, "ZWHEEL_URL": fresh.url, "PYTHONUNBUFFERED": "1"}
    worker = subprocess.Popen(
        [sys.executable, "-m", "zwheel.cli", "worker", "app:wheel"],
        cwd=tmp_path,
        env=env,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        subprocess.run([sys.executable, "app.py"], cwd=tmp_path, env=env, check=True, timeout=30)
        assert worker.stdout is not None
        assert worker.stdout.readline() == "order 7 is still unpaid\n"
    finally:
        worker.terminate()
        worker.communicate(timeout=30)
    assert worker.returncode == 0


def test_the_readmes_schedule_fires(tmp_path: Path, fresh: RedisServer) -> None:
    _, schedule = blocks("python")
    before = "from zwheel import Wheel, current_job\n\nwheel = Wheel()\n\n\n"
    often = schedule.replace('"0 9 * * MON-FRI"', '"* * * * * *"')
    (tmp_path / "app.py").write_text(before + often + "    print(kind, occurrence.nominal)\n", encoding="utf-8")
    worker = subprocess.Popen(
        [sys.executable, "-m", "zwheel.cli", "worker", "app:wheel"],
        cwd=tmp_path, env={**os.environ, "ZWHEEL_URL": fresh.url, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert worker.stdout is not None
        assert re.fullmatch(r"daily 20\d\d-.*\+0[12]:00\n", worker.stdout.readline())
    finally:
        worker.terminate()
        worker.communicate(timeout=30)
    assert worker.returncode == 0


def test_every_command_the_readme_shows_exists(tmp_path: Path) -> None:
    lines = [line.partition("#")[0].split() for block in blocks("sh") for line in block.splitlines()]
    commands = {line[1] for line in lines if line[:1] == ["zwheel"]}
    assert {"dev", "enqueue", "day", "worker"} <= commands
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-m", "zwheel.cli", command, "--help"], cwd=tmp_path, capture_output=True, timeout=30
        )
        assert done.returncode == 0, done.stderr
