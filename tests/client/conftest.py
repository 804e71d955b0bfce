"""A home for a private server, and the programs that it may find there."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.certificates import make
from tests.client.private import end, put_on_path
from tests.servers import binary_of


@pytest.fixture
def short() -> Iterator[Path]:
    """An empty directory with a path short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="zw-", dir="/tmp") as directory:
        yield Path(directory)
    with contextlib.suppress(OSError):
        Path(f"/tmp/zwheel-{os.getuid()}").rmdir()


@pytest.fixture
def home(short: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home that does not exist yet; whatever server it has at the end is ended."""
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    path = short / "home"
    yield path
    end(path)


@pytest.fixture
def only(server_kind: str, short: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only program to be found, alone on PATH: one run for each kind of server."""
    found = binary_of(server_kind)
    assert found is not None
    return put_on_path(short, monkeypatch, found)


@pytest.fixture(scope="session")
def certificate() -> Iterator[Path]:
    """A directory with `ca.pem`, and with `key.pem` and `cert.pem` for the name localhost only."""
    with tempfile.TemporaryDirectory(prefix="zw-", dir="/tmp") as made:
        yield make(Path(made))
