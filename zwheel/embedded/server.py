"""The private server: one Redis or Valkey for a project, shared by its processes, reached over a Unix socket only.

Nothing here needs the Redis client: joining a running server takes about a millisecond. `server_home.py` says what lies in
its directory, `server_binary.py` which program may open the data.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from zwheel.embedded import home as server_home
from zwheel.embedded.binary import ServerBinary, find_binary, spoken
from zwheel.embedded.home import POLL_S, locked, server_lives
from zwheel.errors import EmbeddedServerError

__all__ = ["Server", "find_binary", "reset", "start", "status", "stop"]

ANSWER_S = 2.0
"""A server that accepts a connection and says nothing for so long is stuck."""
START_S = 15.0
"""How long a start may take, without the time to read its data."""
LOAD_S = 300.0
"""How long a server may read its data."""
STOP_S = 30.0
_OF_NO_MATTER = "Memory overcommit must be enabled"
"""A warning that every start may bring."""
LOG_LIMIT = 1_000_000
"""Above so many bytes the log is set aside at the next start, as server.log.1."""


class _Silent(EmbeddedServerError):
    """Somebody listens there and does not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running private server. A snapshot: it does no I/O."""

    url: str
    """Its `unix://` URL."""
    pid: int
    binary: Path
    family: str
    """`valkey` or `redis`."""
    version: str
    home: Path
    """The directory with its data."""
    uptime_s: int
    """For how long it has been running, in seconds."""
    started: bool = False
    """True when the call that gave this started it; False when it was already running."""

    def __str__(self) -> str:
        """The name for a sentence: `Valkey 9.1.2`."""
        return spoken(self.family, self.version)


def start(home: Path) -> Server:
    """Join the server of a home directory, or start it. Any number of processes may do so at once.

    It goes on running when this process ends.

    Raises: EmbeddedServerError when no program is found, the data is another server's, or it does not start.
    """
    with _in_a_sentence(home):
        home = server_home.real(home)
        server_home.prepare(home)
        # A server that says nothing may be starting. Then whoever starts it has the lock.
        with contextlib.suppress(_Silent):
            running = _joined(home)
            if running is not None:
                return running
        server_home.check_inside(home)
        with locked(home):
            _settled(home)
            return _joined(home) or _start(home)


def status(home: Path) -> Server | None:
    """Look at the server of a home directory; None when it does not run. Nothing is made or changed.

    Raises: EmbeddedServerError when it runs but does not answer, or the directory is not private.
    """
    with _in_a_sentence(home):
        home = server_home.real(home)
        if not home.exists():
            return None
        server_home.check(home)
        path = server_home.recorded_socket(home)
        info = _ask(path, "INFO server")
        return None if info is None else _described(home, path, info)


def stop(home: Path) -> bool:
    """Stop the server in order, all jobs safe on disk; False when none was running.

    Raises: EmbeddedServerError when it does not end within 30 s.
    """
    with _in_a_sentence(home):
        home = server_home.real(home)
        if not home.exists():
            return False
        server_home.check(home)
        with locked(home):
            return _stop(home)


def reset(home: Path) -> bool:
    """Stop the server and delete its data, and nothing else in the directory; False when there was nothing.

    Raises: EmbeddedServerError when the server does not end, or something cannot be deleted.
    """
    with _in_a_sentence(home):
        home = server_home.real(home)
        if not home.exists():
            return False
        server_home.check(home)
        with locked(home):
            stopped = _stop(home)
            return server_home.clear(home) or stopped


@contextlib.contextmanager
def _in_a_sentence(home: Path) -> Iterator[None]:
    """Turn what the system refuses (a full or read-only disk, missing rights) into one sentence."""
    try:
        yield
    except OSError as error:
        raise EmbeddedServerError(f"{home} cannot be used: {error.strerror or error}") from error


def _settled(home: Path) -> Server | None:
    """The server that answers, or None once no process holds the data.

    A server that begins has no socket yet (its starter may have been killed), a server that ends has none any more.
    """
    deadline = time.monotonic() + START_S
    while (running := status(home)) is None and server_lives(home):
        if time.monotonic() > deadline:
            raise EmbeddedServerError(
                f"a server still uses {home}, but its socket {server_home.recorded_socket(home)} is gone: "
                f"end that server (its pid should be in {home}/redis.pid), then try again"
            )
        time.sleep(POLL_S)
    return running


def _joined(home: Path) -> Server | None:
    """The running server once it has read its data; None when none runs."""
    path = server_home.recorded_socket(home)
    deadline = time.monotonic() + LOAD_S
    while (answer := _ask(path, "PING")) is not None:
        if not answer.startswith("LOADING"):
            return status(home)
        if time.monotonic() > deadline:
            raise EmbeddedServerError(f"the server in {home} is still reading its data: see {home}/server.log")
        time.sleep(POLL_S)
    return None


def _start(home: Path) -> Server:
    """Start it; the caller holds the start lock and saw that nothing answers."""
    binary = find_binary(server_home.read_stamp(home))
    path = server_home.socket_path(home)
    path.unlink(missing_ok=True)
    log = home / "server.log"
    if log.exists() and log.stat().st_size > LOG_LIMIT:
        log.replace(home / "server.log.1")
    begins_at = log.stat().st_size if log.exists() else 0
    before = (home / "server.json").read_bytes() if (home / "server.json").exists() else None
    server_home.write_stamp(home, binary, path)
    try:
        _spawn(home, binary, path)
        _wait_until_it_answers(binary, home, path, begins_at)
    except BaseException:
        if not server_lives(home):
            server_home.restore_stamp(home, before)
        raise
    running = status(home)
    if running is None:
        raise EmbeddedServerError(f"the server in {home} ended as soon as it had started: see {home}/server.log")
    return dataclasses.replace(running, started=True)


def _spawn(home: Path, binary: ServerBinary, path: Path) -> None:
    """Start the program as a daemon that holds `server.lock` for as long as it lives."""
    data = home / server_home.DATA
    data.mkdir(mode=0o700, exist_ok=True)
    listens_at = f"../{path.name}" if path.parent == home else str(path)
    held = os.open(home / "server.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not server_home.try_lock(held):
            raise EmbeddedServerError(f"another server already uses the data in {home}")
        done = subprocess.run(
            [
                str(binary.path),
                # First of all it goes to its data. The other files are named from there: Valkey 8.1 does not start with
                # a quotation mark in a path.
                *("--dir", data.name, "--appendonly", "yes", "--appendfsync", "everysec", "--save", ""),
                *("--port", "0", "--unixsocket", listens_at, "--unixsocketperm", "700"),
                *("--maxmemory", "0", "--maxmemory-policy", "noeviction"),
                *("--daemonize", "yes", "--pidfile", "../redis.pid", "--logfile", "../server.log"),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            cwd=home,
            pass_fds=(held,),
            umask=0o077,
            timeout=START_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EmbeddedServerError(f"{binary.path} cannot be run: {error}") from error
    finally:
        os.close(held)
    if done.returncode != 0:
        lines = (done.stdout + done.stderr).strip().splitlines() or [f"exit code {done.returncode}"]
        raise EmbeddedServerError(f"{binary} ({binary.path}) did not start: {' '.join(lines[-3:])}")


def _wait_until_it_answers(server: ServerBinary, home: Path, path: Path, log_begins_at: int) -> None:
    started = time.monotonic()
    limit = START_S
    while True:
        # On a busy disk it listens, and says nothing for seconds.
        with contextlib.suppress(_Silent):
            answer = _ask(path, "PING")
            if answer is None and not server_lives(home):
                raise EmbeddedServerError(f"{server} did not start on {home}: {_last_words(home, log_begins_at)}")
            if answer is not None and not answer.startswith("LOADING"):
                return
            if answer is not None:
                limit = LOAD_S
        if time.monotonic() - started > limit:
            raise EmbeddedServerError(f"{server} did not answer within {limit:.0f} s: see {home}/server.log")
        time.sleep(POLL_S)


def _stop(home: Path) -> bool:
    if _settled(home) is None:
        return False
    path = server_home.recorded_socket(home)
    try:
        with _connected(path, STOP_S) as connection:
            connection.sendall(b"SHUTDOWN\r\n")
            refusal = connection.recv(4096)
    except (FileNotFoundError, ConnectionError):
        refusal = b""
    except TimeoutError:
        raise EmbeddedServerError(f"the server in {home} did not end within {STOP_S:.0f} s") from None
    if refusal:
        said = refusal.decode(errors="replace").strip().lstrip("-")
        raise EmbeddedServerError(f"the server in {home} refused to end ({said}): see {home}/server.log")
    deadline = time.monotonic() + STOP_S
    while server_lives(home):
        if time.monotonic() > deadline:
            raise EmbeddedServerError(f"the server in {home} did not end within {STOP_S:.0f} s")
        time.sleep(POLL_S)
    return True


@contextlib.contextmanager
def _connected(path: Path, timeout_s: float) -> Iterator[socket.socket]:
    if not hasattr(socket, "AF_UNIX"):
        raise EmbeddedServerError("the embedded server needs Unix sockets: set ZWHEEL_URL to a server that runs")
    if len(os.fsencode(path)) > server_home.SOCKET_PATH_LIMIT:
        raise FileNotFoundError(f"no socket can have a path as long as {path}")
    if path.exists() and not server_home.is_own_socket(path):
        raise FileNotFoundError(f"{path} is no socket of this user")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout_s)
        connection.connect(str(path))
        yield connection


def _ask(path: Path, command: str) -> str | None:
    """Send one command and give the answer's text; None when nobody listens there.

    Raises: _Silent when somebody listens and does not answer.
    """
    try:
        with _connected(path, ANSWER_S) as connection:
            connection.sendall(f"{command}\r\n".encode())
            return _read_answer(connection)
    except (FileNotFoundError, ConnectionRefusedError, ConnectionResetError, BrokenPipeError):
        return None
    except TimeoutError:
        raise _Silent(f"the server at {path} is there but does not answer: is it stopped or overloaded?") from None


def _read_answer(connection: socket.socket) -> str | None:
    """Read one RESP answer: a status, an error (without its minus sign) or a bulk string."""
    read = b""
    wanted = None
    while wanted is None or len(read) < wanted:
        part = connection.recv(65536)
        if not part:
            return None
        read += part
        line, ended, _ = read.partition(b"\r\n")
        if wanted is None and ended:
            if not line.startswith(b"$"):
                return line[1:].decode(errors="replace")
            wanted = len(line) + 2 + int(line[1:])
    return read.partition(b"\r\n")[2].decode(errors="replace")


def _described(home: Path, path: Path, info: str) -> Server:
    fields = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
    family = "valkey" if "valkey_version" in fields else "redis"
    try:
        return Server(
            url=f"unix://{quote(str(path))}",
            pid=int(fields["process_id"]),
            binary=Path(fields["executable"]),
            family=family,
            version=fields[f"{family}_version"],
            home=home,
            uptime_s=int(fields["uptime_in_seconds"]),
        )
    except (KeyError, ValueError):
        raise EmbeddedServerError(f"what listens at {path} is no Redis or Valkey of zwheel's") from None


def _last_words(home: Path, begins_at: int) -> str:
    try:
        with (home / "server.log").open("rb") as log:
            log.seek(begins_at)
            lines = log.read().decode(errors="replace").splitlines()
    except OSError:
        lines = []
    warnings = [line.partition("# ")[2] for line in lines if " # " in line and _OF_NO_MATTER not in line]
    said = [line for line in warnings or lines if line.strip()][-2:]
    full = "the disk is full: " if server_home.is_full(home) else ""
    return f"{full}{' / '.join(said) or 'it said nothing'}; see {home}/server.log"
