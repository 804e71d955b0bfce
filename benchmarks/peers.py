"""Peers that are measured beside zwheel. They are no dependency: a Python that has them is named with --peers."""

from __future__ import annotations

import subprocess
from pathlib import Path

from .bench import PAYLOAD, Bench
from .machine import Server, end, spawn

_JOBS = 10_000
_SCRIPT = Path(__file__).with_name("peer_dramatiq.py")


class DramatiqDrain:
    """Drains dramatiq's queue in a process of its own, placed as zwheel's worker is."""

    def __init__(self, bench: Bench, server: Server) -> None:
        self._bench = bench
        self._server = server

    def round(self) -> float:
        """Jobs a second of one drain, after a first one that warms it up."""
        bench = self._bench
        assert bench.peers is not None
        process = spawn(
            [bench.peers, "-I", str(_SCRIPT), self._server.url, str(_JOBS), PAYLOAD], bench.placement.one(0, 1),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        )  # fmt: skip
        try:
            output, _ = process.communicate(timeout=180)
        finally:
            end(process)
        if process.returncode:
            raise RuntimeError(f"{bench.peers} could not run {_SCRIPT.name}")
        return float(output.decode().split()[-1])
