"""Makes each peer an environment of its own, once, in a cache outside the checkout."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from .table import Peer

_LONGEST_S = 300
_READY = "ready"


class Unavailable(Exception):
    """A peer cannot be measured here. Its text is one sentence that says why."""


def cache() -> Path:
    """Where the environments are: $XDG_CACHE_HOME/zwheel-peers, else ~/.cache/zwheel-peers."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zwheel-peers"


def command(peer: Peer, pythons: list[str]) -> list[str]:
    """What starts the peer's adapter: a program and its first arguments. Raises: Unavailable."""
    adapters = f"{__package__}.adapters"
    if not peer.requirements:
        return [sys.executable, "-m", adapters, peer.name]
    if peer.node:
        home = _make(peer, "node")
        return [_program("node", peer), str(Path(__file__).parent / "adapters" / f"{peer.name}.mjs"), str(home)]
    home = _make(peer, _python(peer, pythons))
    return [str(home / "bin" / "python"), "-m", adapters, peer.name]


def _python(peer: Peer, pythons: list[str]) -> str:
    """The first Python that is new enough: this one, those of the command line, then those on PATH."""
    for python in [sys.executable, *pythons, *(f"python3.{minor}" for minor in range(14, peer.python[1] - 1, -1))]:
        check = f"import sys, ensurepip; sys.exit(sys.version_info < {peer.python})"
        try:
            done = subprocess.run([python, "-c", check], capture_output=True, timeout=30, check=False)
        except OSError:
            continue
        if done.returncode == 0:
            return python
    needed = ".".join(map(str, peer.python))
    raise Unavailable(f"it needs Python {needed} or newer with its venv module; --python names one")


def _program(name: str, peer: Peer) -> str:
    found = shutil.which(name)
    if found is None:
        raise Unavailable(f"it needs {name}, which is not on PATH")
    return found


def _make(peer: Peer, python: str) -> Path:
    """The directory of an environment that holds what the peer requires."""
    # With its own name first, for a person who looks; a change of the requirements makes a new one.
    wanted = " ".join([python, *peer.requirements])
    home = cache() / f"{peer.name}-{hashlib.sha256(wanted.encode()).hexdigest()[:12]}"
    if (home / _READY).exists():
        return home
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    if peer.node:
        quiet = ["--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
        _run([_program("npm", peer), "install", *quiet, "--prefix", str(home), *peer.requirements], peer)
    else:
        _run([python, "-m", "venv", str(home)], peer)
        _run(
            [str(home / "bin/python"), "-m", "pip", "--disable-pip-version-check", "-q", "install", *peer.requirements],
            peer,
        )
    (home / _READY).write_text(wanted, encoding="utf-8")
    return home


def _run(arguments: list[str], peer: Peer) -> None:
    try:
        subprocess.run(arguments, capture_output=True, timeout=_LONGEST_S, check=True, text=True)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{peer.requirements[0]} was not installed within {_LONGEST_S} s") from None
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if "error" in line.lower()] or ["no reason given"]
        raise Unavailable(f"{peer.requirements[0]} could not be installed: {lines[0].strip()}") from None
