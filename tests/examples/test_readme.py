"""The schedule of the README fires. That its commands and programs do what it says is tested with the other pages."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.docs.pages import ROOT, blocks
from tests.servers import RedisServer


def test_the_readmes_schedule_fires(tmp_path: Path, fresh: RedisServer) -> None:
    files = {
        block.about: block.text
        for block in blocks((ROOT / "README.md").read_text(encoding="utf-8"))
        if block.kind == "python"
    }
    often = files["reports.py"].replace('"0 9 * * MON-FRI"', '"* * * * * *"')
    (tmp_path / "app.py").write_text(files["app.py"], encoding="utf-8")
    (tmp_path / "reports.py").write_text(often + "    print(kind, occurrence.nominal)\n", encoding="utf-8")
    worker = subprocess.Popen(
        [sys.executable, "-m", "zwheel.cli", "worker", "app:wheel", "--include", "reports"],
        cwd=tmp_path, env={**os.environ, "ZWHEEL_URL": fresh.url, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert worker.stdout is not None
        assert re.fullmatch(r"daily 20\d\d-.*\+0[12]:00\n", worker.stdout.readline())
    finally:
        worker.terminate()
        worker.communicate(timeout=100)
    assert worker.returncode == 0
