"""The applications of docs/fastapi.md and docs/django.md, as written there, under uvicorn and gunicorn."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import MakeServer
from tests.docs.pages import ROOT, blocks
from tests.servers import RedisServer

#: How long anything may take that is waited for, seconds.
WITHIN_S = 60.0
one_kind = pytest.mark.parametrize("server_kind", ["valkey"], indirect=True, scope="session")


class Project:
    """The files of a page in a directory, and the processes that run there."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.environment = {
            "HOME": str(folder), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONUNBUFFERED": "1",
            "ZWHEEL_URL": url,
        }  # fmt: skip
        self.processes: list[subprocess.Popen[bytes]] = []

    def write(self, page: str) -> None:
        """Write every file of a page."""
        for block in blocks((ROOT / "docs" / page).read_text(encoding="utf-8")):
            if block.kind == "python" and block.about:
                (self.folder / block.about).write_text(block.text)

    def run(self, *words: str) -> str:
        """Run a program to its good end."""
        done = subprocess.run(
            words, cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=WITHIN_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, *words: str) -> Path:
        """Start a program, and give the file that has what it says."""
        log = self.folder / f"{words[0]}.log"
        with log.open("wb") as output:
            self.processes.append(
                subprocess.Popen(
                    words, cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, stdout=output,
                    stderr=subprocess.STDOUT,
                )
            )  # fmt: skip
        return log

    def end(self) -> list[int]:
        """End what was started with SIGTERM, and give the exit codes."""
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
        try:
            return [process.wait(WITHIN_S) for process in self.processes]
        finally:
            for process in self.processes:
                process.kill()
            self.processes.clear()


@pytest.fixture
def broker(own_server: MakeServer) -> RedisServer:
    """A server that can be killed."""
    return own_server(appendonly=True)


@pytest.fixture
def project(tmp_path: Path, broker: RedisServer) -> Iterator[Project]:
    """An empty directory with a Redis."""
    made = Project(tmp_path, broker.url)
    yield made
    made.end()


def seen(log: Path, pattern: str) -> re.Match[str]:
    """Wait until a program says this."""

    def look() -> re.Match[str] | None:
        return re.search(pattern, log.read_text(errors="replace"))

    return until(look, lambda: log.read_text(errors="replace"))


def until(look: Callable[[], re.Match[str] | None], otherwise: Callable[[], str]) -> re.Match[str]:
    """Look until there is something."""
    deadline = time.monotonic() + WITHIN_S
    while (found := look()) is None:
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.02)
    return found


def ask(url: str, data: dict[str, str] | None = None) -> tuple[int, dict[str, object], float]:
    """Ask a web application; the status, the document, and how long it took, seconds."""
    body = None if data is None else urllib.parse.urlencode(data).encode()
    began = time.monotonic()
    try:
        with urllib.request.urlopen(url, body, timeout=WITHIN_S) as answer:  # noqa: S310  the test's own server
            status, text = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            status, text = error.code, error.read()
    return status, json.loads(text), time.monotonic() - began


@one_kind
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_fastapi_shop_reminds_and_answers_503_while_redis_is_away(project: Project, broker: RedisServer) -> None:
    project.write("fastapi.md")
    worker = project.start("zwheel", "worker", "tasks:wheel")
    web = project.start("uvicorn", "web:app", "--port", "0")
    at = seen(web, r"running on (http://127\.0\.0\.1:\d+)")[1]

    status, answer, _ = ask(f"{at}/orders/7?wait_s=0", {})
    assert (status, answer) == (202, {"job": "order-7-reminder", "was_there_before": False})
    seen(worker, "order 7 is still unpaid")
    ask(f"{at}/orders/8", {})
    assert ask(f"{at}/orders/8/payment", {})[:2] == (200, {"reminder": "cancelled"})
    assert ask(f"{at}/health")[0] == 200

    broker.kill()
    status, answer, took_s = ask(f"{at}/orders/9", {})
    assert (status, answer) == (503, {"detail": "try again soon"})
    assert 4 < took_s < 20
    broker.start()
    assert ask(f"{at}/orders/9?wait_s=0", {})[0] == 202
    seen(worker, "order 9 is still unpaid")
    # uvicorn ends by the signal itself, when its application has ended.
    assert project.end() == [0, -signal.SIGTERM]
    assert "Application shutdown complete" in web.read_text()


@one_kind
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_django_shop_reminds_under_gunicorn_and_sweeps_up_what_an_outage_left(
    project: Project, broker: RedisServer
) -> None:
    page = (ROOT / "docs" / "django.md").read_text(encoding="utf-8")
    begin, tables = (
        next(b for b in blocks(page) if b.kind == "sh" and words in b.text) for words in ("startproject", "migrate")
    )
    project.run("bash", "-c", begin.text)
    project.write("django.md")
    project.run("bash", "-c", tables.text)
    # The first process connects before it forks: its children must not use its connection.
    (project.folder / "early.py").write_text(
        "from shop.wsgi import application\nfrom shop.wheel import wheel\n\nwheel.ping()\n"
    )
    worker = project.start("zwheel", "worker", "shop.worker:wheel", "--concurrency", "10")
    web = project.start(
        "gunicorn", "early:application", "--preload", "--workers", "2", "--threads", "2", "--bind", "127.0.0.1:0"
    )
    at = seen(web, r"Listening at: (http://127\.0\.0\.1:\d+)")[1]
    for n in range(1, 9):
        order = {"customer": f"{n}@example.com", "delay": "0"}
        assert ask(f"{at}/orders", order)[:2] == (201, {"order": n})
    for n in range(1, 9):
        seen(worker, f"order {n} of {n}@example.com is still unpaid")

    broker.kill()
    status, answer, took_s = ask(f"{at}/orders", {"customer": "late@example.com"})
    assert (status, answer) == (201, {"order": 9})
    assert 4 < took_s < 20
    seen(web, "BrokerUnavailable")
    broker.start()
    assert "order-9-reminder" not in project.run("zwheel", "job", "ls", "-q", "emails", "--json")
    project.run("python", "manage.py", "shell", "-c", "from orders.sweep import sweep; sweep()")
    assert "order-9-reminder" in project.run("zwheel", "job", "ls", "-q", "emails", "--json")
    assert project.end() == [0, 0]
