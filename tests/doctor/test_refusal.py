"""The command line's worker on a Redis that may delete queue keys: one sentence, exit code 6, no process started again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import RedisServer

ROOT = Path(__file__).resolve().parents[2]
APP = """
from zwheel import Wheel
wheel = Wheel()

@wheel.task(name="work")
async def work(): pass
"""


@pytest.mark.parametrize("processes", ["1", "2"])
def test_it_ends_with_the_cure_and_is_not_started_again(fresh: RedisServer, tmp_path: Path, processes: str) -> None:
    (tmp_path / "refused_app.py").write_text(APP, encoding="utf-8")
    command = [sys.executable, "-m", "zwheel.cli", "worker", "refused_app:wheel", "--processes", processes]
    environment = {**os.environ, "ZWHEEL_URL": fresh.url, "PYTHONPATH": str(ROOT)}
    with fresh.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=100, check=False)
        finally:
            client.config_set("maxmemory-policy", "noeviction")
    told = done.stderr.decode()
    assert done.returncode == 6, told
    assert "maxmemory-policy allkeys-lru" in told
    assert "--accept-data-loss" in told
    assert "Traceback" not in told
    if processes == "2":
        assert "starting no other" in told
        assert told.count("started") <= 2
