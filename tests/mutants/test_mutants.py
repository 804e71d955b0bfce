"""The faults are noticed. `python -m tests.mutants` tries them all; here the faults that are noticed in a moment are tried."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import RedisServer, binary_of
from zwheel.calls.scripts import NAMES

from .fault import Fault
from .run import ROOT
from .scenario import play
from .table import MUTANTS

#: The table is tried in parts, so that test processes can share the work.
PARTS = 4


def test_each_fault_replaces_a_text_that_is_there_once() -> None:
    assert len(MUTANTS) >= 25
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    for mutant in MUTANTS:
        assert mutant.made()


@pytest.mark.parametrize("old", ["no such text", "local "])
def test_a_fault_whose_text_is_not_there_exactly_once_is_refused(old: str) -> None:
    with pytest.raises(LookupError, match=rf"moved: '{old}' is \d+ times in lua/claim\.lua, not once"):
        Fault("moved", "claim.lua", old, "").text()


def test_a_fault_in_a_file_that_its_script_does_not_include_is_refused() -> None:
    with pytest.raises(LookupError, match=r"idle: lua/include/wake\.lua is no part of extend"):
        Fault("idle", "include/wake.lua", "redis.call('RPUSH', list, '1')", "", ("enqueue", "extend")).made()


def test_every_script_of_a_jobs_life_has_a_fault() -> None:
    named = {name for mutant in MUTANTS for name in mutant.tables}
    assert named - {"bodies", "replay"} == set(NAMES)


@pytest.mark.parametrize("seed", range(100, 112))
def test_without_a_fault_nothing_is_noticed(tmp_path: Path, seed: int) -> None:
    binary = binary_of("valkey")
    assert binary is not None
    with RedisServer(binary) as server:
        report = play(server, tmp_path, seed=seed)
    assert [(verdict.number, verdict.breaches) for verdict in report.broken] == []
    assert report.summary["starts"] > 10
    assert sum(report.summary["unknown_outcomes"].values()) > 3


@pytest.mark.parametrize("part", range(PARTS))
def test_the_checker_notices_what_a_history_can_show(part: int) -> None:
    names = [mutant.name for mutant in MUTANTS if mutant.first == "checker"][part::PARTS]
    run(names, "--check", "checker")


def test_the_tables_notice_what_no_history_can_show() -> None:
    names = [mutant.name for mutant in MUTANTS if mutant.first == "tables"]
    run(names[::4], "--check", "tables")


def run(names: list[str], *options: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.mutants", "--jobs", "1", *options, "--", *names],
        cwd=ROOT, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"\n{len(names)} mutants, 0 survived" in done.stdout
