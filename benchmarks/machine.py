"""The machine: its CPUs, a Redis server of our own, and worker processes, each pinned where they do not disturb."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis

from tests.servers import free_port
from zwheel.broker.cluster import slot_of
from zwheel.embedded.binary import examine, find_binary

from .figures import Cpu

ROOT = Path(__file__).resolve().parent.parent
_START_S = 10.0
_STOP_S = 10.0
_SLOTS = 16_384
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Which CPUs the server and what is measured may use; both empty where nothing is pinned."""

    server: frozenset[int] = frozenset()
    measured: frozenset[int] = frozenset()

    @classmethod
    def choose(cls, *, pin: bool) -> Placement:
        """Give the server a CPU of its own and the rest to what is measured; with one CPU, or no say in it, none."""
        if not pin or not hasattr(os, "sched_getaffinity"):
            return cls()
        cpus = sorted(os.sched_getaffinity(0))
        if len(cpus) < 2:
            return cls()
        return cls(server=frozenset(cpus[:1]), measured=frozenset(cpus[1:]))

    def one(self, index: int, processes: int) -> frozenset[int]:
        """The CPU of one of several measured processes; all CPUs when there are more processes than CPUs for them."""
        if len(self.measured) >= processes:
            return frozenset([sorted(self.measured)[index]])
        return self.server | self.measured


@contextmanager
def on_cpus(cpus: frozenset[int]) -> Iterator[None]:
    """Keep this process on these CPUs for a while; no CPUs means wherever it is."""
    if not cpus:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def spawn(command: Sequence[str], cpus: frozenset[int], **options: object) -> subprocess.Popen[bytes]:
    """Start a process on these CPUs that dies with this one."""

    def prepare() -> None:
        if _libc is not None:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if cpus:
            os.sched_setaffinity(0, cpus)

    return subprocess.Popen(command, preexec_fn=prepare, cwd=ROOT, **options)  # type: ignore[call-overload, no-any-return]


def end(process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> None:
    """Stop a process that we started, by force when it does not stop by itself."""
    if process.poll() is None:
        process.send_signal(number)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def server_program(path: str | None) -> Path:
    """The server to use: the one asked for, else the system's redis-server, else what the embedded server would take."""
    if path is not None:
        return Path(path)
    found = shutil.which("redis-server")
    return Path(found) if found else find_binary().path


class Server:
    """A server of our own on a loopback port, or on a Unix socket, without persistence, in a temporary directory."""

    def __init__(self, program: Path, cpus: frozenset[int], *, unix: bool, arguments: Sequence[str] = ()) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="zwb-"))
        self._program = program
        self._cpus = cpus
        self._unix = unix
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""
        #: Where it listens; 0 for a Unix socket.
        self.port = 0

    def __enter__(self) -> Self:
        path = self.directory / "s"
        self.port = port = 0 if self._unix else free_port()
        self.url = f"unix://{path}" if self._unix else f"redis://127.0.0.1:{port}/0"
        self._process = spawn(
            [
                str(self._program), "--port", str(port), "--bind", "127.0.0.1", "--unixsocket", str(path),
                "--unixsocketperm", "700", "--dir", str(self.directory), "--save", "", "--appendonly", "no",
                *self._arguments,
            ],
            self._cpus, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + _START_S
        while True:
            try:
                with self.client() as client:
                    client.ping()
                    return self
            except redis.ConnectionError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.close()
                    raise
                time.sleep(0.01)

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def pids(self) -> list[int]:
        """The process ids of all servers that are meant."""
        return [self.pid]

    def client(self) -> redis.Redis:
        """A plain blocking client, for the caller to close."""
        return redis.Redis.from_url(self.url)

    def close(self) -> None:
        """Stop it and remove its directory."""
        if self._process is not None:
            end(self._process)
        shutil.rmtree(self.directory, ignore_errors=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Cluster:
    """Servers of our own that are a Redis Cluster of primaries. keys: each lies on the next server, in turns."""

    def __init__(self, program: Path, cpus: frozenset[int], count: int, keys: Sequence[str]) -> None:
        self._stack = ExitStack()
        self._buses = [free_port() for _ in range(count)]
        self.servers: list[Server] = [
            Server(program, cpus, unix=False, arguments=("--cluster-enabled", "yes", "--cluster-port", str(bus)))
            for bus in self._buses
        ]
        self._keys = keys

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def _start(self) -> None:
        count = len(self.servers)
        owners = [slot * count // _SLOTS for slot in range(_SLOTS)]
        for number, key in enumerate(self._keys):
            owners[slot_of(key)] = number % count
        for number, server in enumerate(self.servers):
            self._stack.enter_context(server)
            with server.client() as client:
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
                client.execute_command(
                    "CLUSTER", "ADDSLOTS", *(slot for slot in range(_SLOTS) if owners[slot] == number)
                )
                for other, bus in zip(self.servers[:number], self._buses, strict=False):
                    client.execute_command("CLUSTER", "MEET", "127.0.0.1", other.port, bus)
        deadline = time.monotonic() + _START_S
        while not all(self._is_whole(server) for server in self.servers):
            if time.monotonic() > deadline:
                raise RuntimeError("the servers did not become a cluster")
            time.sleep(0.05)

    def _is_whole(self, server: Server) -> bool:
        with server.client() as client:
            told: Any = client.execute_command("CLUSTER INFO")
        return bool(told["cluster_state"] == "ok" and int(told["cluster_slots_ok"]) == _SLOTS)

    @property
    def url(self) -> str:
        """The URL that names all of them."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in self.servers)

    @property
    def pids(self) -> list[int]:
        """The process ids of all of them."""
        return [server.pid for server in self.servers]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


class CpuMeter:
    """Adds up the CPU time of some processes and of the server over the stretches between `start` and `stop`."""

    def __init__(self, server: Server | Cluster, pids: Sequence[int] = ()) -> None:
        self._server = server
        self._pids = pids or (os.getpid(),)
        self._began = (0.0, 0.0)
        self._spent = (0.0, 0.0)

    def start(self) -> None:
        """Begin a stretch."""
        self._began = self._read()

    def stop(self) -> None:
        """End it."""
        now = self._read()
        measured, server = (spent + at - began for spent, at, began in zip(self._spent, now, self._began, strict=True))
        self._spent = (measured, server)

    def take(self, jobs: int) -> Cpu:
        """What one job took over all stretches so far, which are then forgotten."""
        measured, server = self._spent
        self._spent = (0.0, 0.0)
        return Cpu(measured_us=measured * 1e6 / jobs, server_us=server * 1e6 / jobs)

    def _read(self) -> tuple[float, float]:
        return sum(map(_cpu_s, self._pids)), sum(map(_cpu_s, self._server.pids))


def _cpu_s(pid: int) -> float:
    """User and system time of a process with all its threads, s; another's is known to 10 ms, on Linux only."""
    if pid == os.getpid():
        return time.process_time()
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists():
        return 0.0
    fields = stat.read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def describe(program: Path, placement: Placement) -> dict[str, object]:
    """What the figures depend on."""
    binary = examine(program)
    model = ""
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    return {
        "server": str(binary) if binary else str(program),
        "python": sys.version.split()[0],
        "redis_py": redis.__version__,
        "cpus": os.cpu_count(),
        "cpu": model,
        "server_cpus": sorted(placement.server),
        "measured_cpus": sorted(placement.measured),
        "load": round(os.getloadavg()[0], 2),
    }
