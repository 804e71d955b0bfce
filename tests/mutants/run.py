"""Runs each mutant in a forked process against the checks, the fastest first, and tells which one noticed it.

Nothing in the tree is changed: the forked process loads the faulty text in place of the file. Each process has a server
of its own, so that several can run side by side.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .fault import standing_in
from .table import Mutant

ROOT = Path(__file__).parents[2]
#: How many seeds of the scenario, and how many histories of the model, a mutant gets before it counts as survived.
SEEDS = range(1, 25)
MODEL_EXAMPLES = 150


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one mutant."""

    mutant: Mutant
    caught: dict[str, str]
    """Check -> what it said; empty: it survived."""
    tried: tuple[str, ...]
    seconds: float
    fault: str = ""
    """Why it could not be tried."""


def _checker(mutant: Mutant) -> str:
    """The history checker, over a few lives of one queue."""
    from tests.servers import RedisServer, binary_of

    from .scenario import play

    binary = binary_of("valkey")
    assert binary is not None
    with RedisServer(binary) as server:
        for seed in SEEDS:
            with tempfile.TemporaryDirectory(prefix="zw-mutant-") as directory:
                try:
                    report = play(server, Path(directory), seed=seed)
                except Exception as error:
                    return f"{type(error).__name__}: {error}"[:200]
                if report.broken:
                    first = report.broken[0]
                    return f"{' '.join(v.number for v in report.broken)}: {first.breaches[0].text}"
    return ""


def _pytest(paths: Sequence[str], *options: str) -> str:
    """A run of pytest in this process; says the first test that failed."""
    import pytest

    class First:
        said = ""

        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            if report.failed and not self.said:
                self.said = report.nodeid.rpartition("/")[2]

    first = First()
    words = [
        "-x",
        "-q",
        "-p",
        "no:randomly",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-W",
        "ignore::pytest.PytestAssertRewriteWarning",
        "-k",
        "valkey",
        *options,
    ]
    code = pytest.main([*(str(ROOT / path) for path in paths), "--rootdir", str(ROOT), *words], plugins=[first])
    if code in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        return ""
    return first.said or f"pytest ended with {code}"


def _tables(mutant: Mutant) -> str:
    """The tables of the mutant."""
    own = [
        str(path.relative_to(ROOT))
        for name in mutant.tables
        for path in sorted((ROOT / "tests/lua").glob(f"test_{name}*.py"))
    ]
    return _pytest([path for path in own if (ROOT / path).exists()]) if own else ""


def _all_tables(mutant: Mutant) -> str:
    return _pytest(["tests/lua"])


def _model(mutant: Mutant) -> str:
    os.environ["ZWHEEL_MODEL_EXAMPLES"] = str(MODEL_EXAMPLES)
    return _pytest(["tests/model/test_model.py"])


#: The checks by name, the fastest first. `all tables` runs only when nothing else noticed.
CHECKS: dict[str, Callable[[Mutant], str]] = {
    "checker": _checker,
    "tables": _tables,
    "model": _model,
    "all tables": _all_tables,
}


def run(mutants: Iterable[Mutant], checks: Sequence[str], *, jobs: int, every: bool = False) -> Iterator[Result]:
    """Try each mutant, `jobs` at a time. every: with all checks, not only until one notices it."""
    waiting = list(mutants)[::-1]
    running: dict[int, tuple[Mutant, Path, float]] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            mutant = waiting.pop()
            handle, name = tempfile.mkstemp(prefix="zw-mutant-")
            os.close(handle)
            running[_fork(mutant, Path(name), checks, every)] = (mutant, Path(name), time.monotonic())
        pid, status = os.wait()
        if pid not in running:
            continue
        mutant, path, started = running.pop(pid)
        lines = [line.partition("\t") for line in path.read_text(encoding="utf-8").splitlines()]
        path.unlink()
        caught = {name: said for name, _, said in lines if said}
        fault = caught.pop("error", f"its process ended with {os.waitstatus_to_exitcode(status)}" if status else "")
        yield Result(mutant, caught, tuple(name for name, _, _ in lines), time.monotonic() - started, fault)


def _fork(mutant: Mutant, path: Path, checks: Sequence[str], every: bool) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(null, number)
        _child(mutant, path, checks, every)
        code = 0
    except BaseException:
        path.write_text(f"error\t{traceback.format_exc()[-200:]!r}\n", encoding="utf-8")
    finally:
        os._exit(code)


def _child(mutant: Mutant, path: Path, checks: Sequence[str], every: bool) -> None:
    noticed = False
    for name in sorted(checks, key=lambda name: name != mutant.first):
        if noticed and (not every or name == "all tables"):
            break
        with standing_in(mutant.file, mutant.text()):
            said = CHECKS[name](mutant)
        noticed = noticed or bool(said)
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{name}\t{' '.join(said.split())}\n")
