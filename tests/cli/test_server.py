"""`zwheel server`: the private server from the shell."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from zwheel import embedded
from zwheel.cli.server import human_bytes

Shell = Any


@pytest.fixture
def home(bare: Shell, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The home of the shell's private server, with a path short enough for its socket; the server ends with the test."""
    with tempfile.TemporaryDirectory(prefix="zw-", dir="/tmp") as directory:
        path = Path(directory) / "home"
        monkeypatch.setenv("ZWHEEL_HOME", str(path))
        bare.environment["ZWHEEL_HOME"] = str(path)
        yield path
        embedded.stop(path)


def test_start_status_stop(bare: Shell, home: Path) -> None:
    gone = bare("server", "status")
    assert (gone.code, "not running" in gone.out) == (3, True)
    started = bare.ok("server", "start").out
    assert started.startswith("started ")
    assert f"unix://{home}/redis.sock" in started
    assert bare.ok("server", "start").out.startswith("already runs: ")
    shown = bare.ok("server", "status").out
    assert "running" in shown
    assert str(home) in shown
    assert bare.ok("server", "stop").out == f"stopped; the jobs stay in {home}\n"
    again = bare.ok("server", "stop")
    assert (again.out, again.err) == ("", f"no private server runs in {home}\n")


def test_the_documents_for_machines(bare: Shell, home: Path) -> None:
    gone = bare("server", "status", "--json")
    assert (gone.code, gone.document) == (3, {"running": False, "home": str(home), "data_bytes": 0})
    started = bare.ok("server", "start", "--json").document
    server = embedded.status(home)
    assert server is not None
    assert started == {
        "running": True,
        "url": server.url,
        "pid": server.pid,
        "family": server.family,
        "version": server.version,
        "binary": str(server.binary),
        "home": str(home),
        "uptime_s": started["uptime_s"],
        "started": True,
    }
    shown = bare.ok("server", "status", "--json").document
    assert shown["pid"] == server.pid
    assert shown["data_bytes"] > 0
    assert bare.ok("server", "stop", "--json").document == {"stopped": True, "home": str(home)}
    assert bare.ok("server", "stop", "--json").document == {"stopped": False, "home": str(home)}


def test_reset_needs_a_yes(bare: Shell, home: Path) -> None:
    bare.ok("server", "start")
    refused = bare.piped("server", "reset")
    assert refused.code == 6
    assert "--yes" in refused.err
    assert embedded.status(home) is not None
    assert bare.ok("server", "reset", "--yes").out.startswith("deleted ")
    assert embedded.status(home) is None
    assert not (home / "redis-data" / "appendonlydir").exists()
    assert bare.ok("server", "reset").err == f"there was nothing in {home}\n"


def test_a_url_that_is_set_is_mentioned(bare: Shell, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZWHEEL_URL", "redis://:hidden@elsewhere")
    done = bare.ok("server", "start")
    assert "ZWHEEL_URL is set" in done.err
    assert "hidden" not in done.err
    monkeypatch.delenv("ZWHEEL_URL")
    monkeypatch.setenv("ZWHEEL_ENV", "production")
    assert "only zwheel server and zwheel dev use the private server" in bare.ok("server", "status").err


def test_a_failure_is_one_sentence(bare: Shell, home: Path) -> None:
    home.mkdir()
    home.chmod(0o777)
    (home / "file").touch()
    done = bare("server", "start")
    assert (done.code, done.err.count("\n")) == (3, 1)
    assert "chmod 700" in done.err
    home.chmod(0o700)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 20, "5.0 MiB"), (1 << 60, "1048576.0 TiB")],
)
def test_sizes_for_people(count: int, text: str) -> None:
    assert human_bytes(count) == text
