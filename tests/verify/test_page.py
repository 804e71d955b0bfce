"""docs/history.md is true beyond its commands, which are tested with those of the other pages."""

from __future__ import annotations

import os
import re
import shlex
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
        ["bash", "-euc", ZWHEEL + commands], cwd=home, capture_output=True, text=True, timeout=100, check=False,
        env=plain | {"HOME": str(home), "PYTHONPATH": str(ROOT), "ZWHEEL_URL": server.url, **env},
    )  # fmt: skip


def test_its_fault_is_a_line_that_is_read(tmp_path: Path, server: RedisServer) -> None:
    (fault,) = blocks("json")
    (tmp_path / "driver.jsonl").write_text(fault)
    judged = shell("zwheel verify driver.jsonl", tmp_path, server)
    assert judged.returncode == 0, judged.stderr
    assert "redis_kill 1" in judged.stdout


def test_it_tells_of_every_promise_that_is_judged() -> None:
    told = re.findall(r"^\| (I\d+) \|", PAGE, re.MULTILINE)
    assert told == [number for number, _, _ in INVARIANTS]
