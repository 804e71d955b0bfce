"""`zwheel demo`, run for real: its counts are right, and it leaves neither processes nor files, whatever ends it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

DEMO = [sys.executable, "-m", "zwheel.cli", "demo"]


@pytest.fixture
def temporary() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="zw-", dir="/tmp") as directory:
        yield Path(directory)


def environment(temporary: Path) -> dict[str, str]:
    """An environment whose settings the demo must not follow."""
    return {
        **os.environ,
        "TMPDIR": str(temporary),
        "ZWHEEL_URL": "redis://127.0.0.1:1",
        "ZWHEEL_ENV": "production",
        "ZWHEEL_NAMESPACE": "other",
    }


def lives(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.slow
@pytest.mark.timeout(90)
def test_the_demo_counts_what_happened(temporary: Path) -> None:
    done = subprocess.run(
        [*DEMO, "--json", "--svg", str(temporary / "demo.svg")],
        capture_output=True,
        timeout=60,
        check=False,
        env=environment(temporary),
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr == b""
    found = json.loads(done.stdout)
    assert found["ok"] is True
    assert (found["enqueued"], found["fired"]) == (1200, 1200)
    assert (found["applied_twice"], found["lost"], found["early"], found["dead"]) == (0, 0, 0, 0)
    assert found["redelivered"] >= found["held_by_the_killed"] > 0
    assert found["orders_cancelled"] + found["orders_paid"] == 1200
    assert 0 < found["lateness_ms"]["p50"] <= found["lateness_ms"]["p99"] <= found["lateness_ms"]["max"]
    assert 1000 < found["redelivery_ms"]["max"] < 15_000
    assert found["seconds"] < 40
    assert [path.name for path in temporary.iterdir()] == ["demo.svg"]


@pytest.mark.parametrize(
    ("moment", "number", "code"),
    [("started two workers", signal.SIGINT, 130), ("enqueued 1,200", signal.SIGTERM, 143)],
    ids=["ctrl-c", "sigterm"],
)
def test_a_demo_that_is_stopped_leaves_nothing_behind(
    moment: str, number: signal.Signals, code: int, temporary: Path
) -> None:
    process = subprocess.Popen(
        DEMO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(temporary)
    )
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if line.startswith(moment):
            break
    pids = [
        int(pid)
        for line in said
        for words in re.findall(r"\(pids? ([^)]*)\)", line)
        for pid in re.findall(r"\d+", words)
    ]
    assert len(pids) == 3
    assert all(lives(pid) for pid in pids)
    process.send_signal(number)
    # A second one must not keep it from cleaning up.
    process.send_signal(number)
    out, err = process.communicate(timeout=100)
    assert (process.returncode, out) == (code, ""), err
    assert not any(lives(pid) for pid in pids)
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--url", "redis://localhost"], "the demo has a server of its own: leave out --url"),
        (["--svg", "/no/such/place/demo.svg"], "--svg /no/such/place/demo.svg: there is no such directory"),
    ],
)
def test_what_the_demo_refuses(words: list[str], sentence: str) -> None:
    done = subprocess.run([*DEMO, *words], capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stderr) == (2, f"zwheel: {sentence}\n")
