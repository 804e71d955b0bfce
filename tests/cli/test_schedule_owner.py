"""Services that are started alike keep the schedules that their code declares."""

from __future__ import annotations

import time
from pathlib import Path

from zwheel import SyncWheel

from .conftest import Shell

CODE = """
from zwheel import Wheel

wheel = Wheel()


@wheel.cron("0 1 1 1 *")
@wheel.task(name="{name}", queue="{queue}")
async def task() -> None: ...
"""


def owners(url: str) -> dict[str, str]:
    with SyncWheel(url, namespace="zw") as wheel:
        return {info.name: info.owner for info in wheel.schedules()}


def serve(shell: Shell, url: str, folder: Path, *, name: str, queue: str, options: tuple[str, ...] = ()) -> None:
    """Run a service until its schedule is there and it was told to end."""
    folder.mkdir(exist_ok=True)
    (folder / "tasks.py").write_text(CODE.format(name=name, queue=queue), encoding="utf-8")
    worker = shell.process("worker", "tasks:wheel", *options, cwd=folder)
    deadline = time.monotonic() + 40
    while name not in owners(url) and time.monotonic() < deadline:
        time.sleep(0.05)
    worker.terminate()
    _, said = worker.communicate(timeout=100)
    assert worker.returncode == 0, said


def test_services_that_are_started_alike_keep_their_schedules(shell: Shell, url: str, tmp_path: Path) -> None:
    serve(shell, url, tmp_path / "shop", name="report", queue="shop")
    serve(shell, url, tmp_path / "blog", name="news", queue="blog")
    serve(shell, url, tmp_path / "wiki", name="index", queue="shop")
    serve(shell, url, tmp_path / "mail", name="digest", queue="shop", options=("--owner", "mail"))
    assert owners(url) == {
        "report": "tasks:wheel@shop", "news": "tasks:wheel@blog", "index": "tasks:wheel@shop", "digest": "mail",
    }  # fmt: skip
