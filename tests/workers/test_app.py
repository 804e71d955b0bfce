"""What `zwheel worker` says of an application that it cannot import, that has no tasks, or that has them elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workers.harness import one_kind
from tests.workers.processes import ROOT, worker_process
from zwheel import JobState, Wheel

APPS = {
    "mistyped.py": "import zwheel\nwheel = zwheel.Weel()\n",
    "needs_more.py": "def load():\n    import no_such_library\n\nload()\n",
    "no_syntax.py": "wheel = (\n",
    "leaves.py": "import sys\nsys.exit('set SHOP_KEY first')\n",
    "twice.py": (
        "from zwheel import Wheel\nwheel = Wheel()\n\n@wheel.task(name='a')\ndef a(): ...\n\n"
        "@wheel.task(name='a')\ndef b(): ...\n"
    ),
    "caused.py": "try:\n    {}['key']\nexcept KeyError as error:\n    raise RuntimeError('no \\x1b[2J key') from error\n",
    "whole.py": "from zwheel import Wheel\nwheel = Wheel(include=['gone.jobs'])\n",
}
SAYS = {
    "mistyped": ("module 'zwheel' has no attribute 'Weel'", "mistyped.py, line 2", True),
    "needs_more": ("ModuleNotFoundError: No module named 'no_such_library'", "needs_more.py, line 2", True),
    "no_syntax": ("SyntaxError: '(' was never closed", "no_syntax.py, line 1", True),
    "leaves": ("SystemExit: set SHOP_KEY first", "leaves.py, line 2", True),
    "twice": ("two functions are registered as task 'a'", "twice.py, line 7", False),
    "caused": ("RuntimeError: no \\x1b[2J key", "caused.py, line 4", True),
    "whole": ("there is no module 'gone.jobs' here: an included module is named as it is imported", "", False),
    "missing": ("there is no module 'missing' here: name the app as module:attribute", "", False),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with applications, good and bad."""
    for name, text in APPS.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "empty_app.py").write_text("from zwheel import Wheel\nwheel = Wheel(namespace='zw')\n")
    for part in ("one", "two"):
        (tmp_path / f"{part}_jobs.py").write_text(
            f"from empty_app import wheel\n\n@wheel.task(name='{part}', keep=60)\nasync def work(): ...\n"
        )
    (tmp_path / "parts_app.py").write_text(
        "from zwheel import Wheel\nimport empty_app\nwheel = empty_app.wheel\nwheel.include = ('one_jobs',)\n"
    )
    return tmp_path


def zwheel(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ZWHEEL_URL": "redis://127.0.0.1:1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-P", "-m", "zwheel.cli", *words],
        cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize("name", SAYS)
def test_an_app_that_cannot_be_imported_is_told_as_its_own_fault(folder: Path, name: str) -> None:
    what, where, frames = SAYS[name]
    ended = zwheel(folder, "worker", f"{name}:wheel")
    *above, sentence = ended.stderr.strip().splitlines()
    assert ended.returncode == 2
    assert sentence.startswith("zwheel: ") and what in sentence and where in sentence
    assert "report" not in ended.stderr and "\x1b" not in ended.stderr
    assert ("Traceback (most recent call last):" in above) is (frames and name != "no_syntax")
    assert not any("importlib" in line or os.sep + "workers" + os.sep in line for line in above)
    if name == "caused":
        assert any(line.startswith("KeyError") for line in above), "the cause"
    told = json.loads(zwheel(folder, "worker", f"{name}:wheel", "--json").stderr)
    assert (told["exit"], what in told["error"]) == (2, True)


@pytest.mark.anyio
@one_kind
async def test_an_app_without_tasks_is_warned_of_with_the_cure(wheel: Wheel, url: str, folder: Path) -> None:
    async with worker_process(url, folder / "stage", app="empty_app", cwd=folder) as worker:
        (line,) = await worker.says("has no tasks")
        assert " WARNING " in line and "--include" in line
        await worker.says(r"worker \w{8}: 0 tasks")


@pytest.mark.anyio
@one_kind
async def test_tasks_of_several_modules_are_included(wheel: Wheel, url: str, folder: Path) -> None:
    async with worker_process(url, folder / "stage", "--include", "two_jobs", app="parts_app", cwd=folder) as worker:
        for name in ("one", "two"):
            answer = await wheel.enqueue(name, keep=60)
            assert (await wheel.wait(answer.job_id, timeout=20)).state is JobState.DONE
        assert not [line for line in worker.lines if "has no tasks" in line]
