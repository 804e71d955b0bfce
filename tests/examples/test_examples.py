"""Each example runs by itself, says what it should, and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SAID = {
    "01_producer_and_worker.py": [
        "to ann@example.com: Welcome (",
        "to ben@example.com: Half a second later (",
        "to cem@example.com: A second later (",
        "tip-dana existed: True",
        "the last one is done",
    ],
    "02_retries_and_dead_jobs.py": [
        "charged lucky at attempt 1",
        "charged busy at attempt 2",
        "dead after attempt 1: discarded, CardDeclined: no credit",
        "dead after attempt 1: discarded, Discard: nobody to charge",
        "dead after attempt 3: error, ConnectionError: the bank does not answer",
        "redriven: 1",
        "charged unlucky at attempt 1",
        "still dead: 2",
    ],
    "03_sync_producer.py": [
        "pressed twice, one job: True",
        "reports.render is done after 1 attempt",
        "enqueued in one round trip: 10",
        "all are rendered",
    ],
    "04_idempotent_effects.py": [
        "attempt 2 moves the money: True",
        "attempt 3 moves the money: False",
        "the sleeper wakes up and moves the money: False",
        "ann has 75.00",
        "ben has 25.00",
    ],
    "05_orders.py": ["60 enqueued in ", "cancelled SO-", "60 orders: 15 were paid, 45 cancelled, 0 forgotten"],
    "06_schedules.py": [
        "pulse of ",
        "first text",
        "second text",
        "notes fires every 1 s",
        "pulse fires every second",
        "seconds that ran twice: 0",
    ],
}
ARGUMENTS = {"05_orders.py": ["60"]}


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory for all temporary files, with a path short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="zw-", dir="/tmp") as directory:
        monkeypatch.setenv("TMPDIR", directory)
        for name in ("ZWHEEL_URL", "REDIS_URL", "ZWHEEL_HOME", "ZWHEEL_NAMESPACE"):
            monkeypatch.delenv(name, raising=False)
        yield Path(directory)


def test_each_numbered_example_is_run_here() -> None:
    assert sorted(path.name for path in EXAMPLES.glob("[0-9]*.py")) == sorted(SAID)


@pytest.mark.parametrize("name", sorted(SAID))
def test_an_example_says_what_happened_and_leaves_nothing_behind(name: str, temporary: Path) -> None:
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), *ARGUMENTS.get(name, [])]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=100, check=False, cwd=temporary, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [said for said in SAID[name] if not any(line.startswith(said) for line in lines)] == []
    # What its tasks raise is in the log, each line behind a bar.
    assert not any(line.startswith("Traceback") for line in done.stderr.splitlines())
    assert list(temporary.iterdir()) == []
