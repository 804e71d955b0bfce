"""docs/history.md is true: its commands, typed line by line into an empty directory, do what it says."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import RedisServer, binary_of
from zwheel.verify.check import INVARIANTS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "history.md").read_text(encoding="utf-8")
#: The shell finds no installed `zwheel`: its commands are those of this tree.
ZWHEEL = f'zwheel() {{ {shlex.quote(sys.executable)} -m zwheel.cli "$@"; }}\n'


@pytest.fixture
def server() -> Iterator[RedisServer]:
    binary = binary_of("valkey")
    assert binary is not None
    with RedisServer(binary) as running:
        yield running


def blocks(language: str, text: str = PAGE) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def shell(commands: str, home: Path, server: RedisServer, **env: str) -> subprocess.CompletedProcess[str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("ZWHEEL_", "REDIS_"))}
    return subprocess.run(
        ["bash", "-euc", ZWHEEL + commands], cwd=home, capture_output=True, text=True, timeout=50, check=False,
        env=plain | {"HOME": str(home), "PYTHONPATH": str(ROOT), "ZWHEEL_URL": server.url, **env},
    )  # fmt: skip


@pytest.mark.timeout(120)
def test_a_newcomer_who_follows_it_line_by_line_gets_a_verdict(tmp_path: Path, server: RedisServer) -> None:
    app = next(block for block in blocks("python", (ROOT / "README.md").read_text()) if block.startswith("# app.py"))
    (tmp_path / "app.py").write_text(app)
    before, after = blocks("sh")
    record, work, produce = re.split(r"^(zwheel worker .*)\n", before.replace("zwheel server start", ":"), flags=re.M)
    words = shlex.split(work, comments=True)[1:]
    assert shell(record, tmp_path, server).returncode == 0
    history = {"ZWHEEL_HISTORY": str(tmp_path / "history")}
    with subprocess.Popen(
        [sys.executable, "-m", "zwheel.cli", *words], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env=os.environ | history | {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "ZWHEEL_URL": server.url}, text=True,
    ) as worker:  # fmt: skip
        assert worker.stdout is not None
        try:
            produced = shell(produce.replace("python ", f"{shlex.quote(sys.executable)} "), tmp_path, server, **history)
            assert produced.returncode == 0, produced.stderr
            assert "order 7" in worker.stdout.readline()
        finally:
            worker.send_signal(signal.SIGINT)
        assert worker.wait(30) == 0
    judged = shell(after.replace("50ms", "60s"), tmp_path, server)
    assert judged.returncode == 0, judged.stderr
    assert "I1   held" in judged.stdout
    assert "starts                 1\n" in judged.stdout
    assert '"broken": []' in judged.stdout


def test_its_fault_is_a_line_that_is_read(tmp_path: Path, server: RedisServer) -> None:
    (fault,) = blocks("json")
    (tmp_path / "driver.jsonl").write_text(fault)
    judged = shell("zwheel verify driver.jsonl", tmp_path, server)
    assert judged.returncode == 0, judged.stderr
    assert "redis_kill 1" in judged.stdout


def test_it_tells_of_every_promise_that_is_judged() -> None:
    told = re.findall(r"^\| (I\d+) \|", PAGE, re.MULTILINE)
    assert told == [number for number, _, _ in INVARIANTS]
