"""The version before records of version 2, from the history of this repository, to run beside this one.

`git archive` of one commit: it is what ran, scripts and all, and needs no network and no copy in the tree. Where the
repository is not there, or was cloned without its past, what needs it is skipped.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

#: The last commit whose workers read and write records of version 1 alone.
COMMIT = "9d051e84dab81e28f15e6692a3255fb9d0ab2210"
ROOT = Path(__file__).parents[2]


def unpack(target: Path) -> None:
    """Put the former version's tree into a folder, or skip the test."""
    done = subprocess.run(["git", "archive", COMMIT], cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"the former version is not in this repository: {done.stderr.decode().strip()[:200]}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(target, filter="tar")


class Former:
    """The former version in a folder of its own, run in processes whose zwheel it is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def environment(self, *more: Path) -> dict[str, str]:
        """What makes a process import the former version."""
        path = os.pathsep.join(map(str, (self.folder, *more)))
        return {**os.environ, "PYTHONPATH": path}

    def python(self, code: str, *words: str) -> str:
        """Run a few lines and give what they print."""
        done = subprocess.run(
            [sys.executable, "-c", f"import zwheel; assert zwheel.__file__.startswith({str(self.folder)!r})\n{code}", *words],
            env=self.environment(), cwd=self.folder, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()
