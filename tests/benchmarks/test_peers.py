"""The comparison with peers: what it installs is pinned, each peer has an adapter, and zwheel's own adapter works.

No peer is ever installed here, and nothing is said about how fast anything is.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import KINDS, binary_of
from tests.tidy.tree import ROOT

ADAPTERS = ROOT / "benchmarks" / "peers" / "adapters"
_NO_PEER = {"harness", "__main__", "__init__", "zwheel", "zwheel_sync"}


def peers(*arguments: str, timeout: float = 50) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.peers", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=timeout,
        check=False,
    )  # fmt: skip


def listed() -> dict[str, list[str]]:
    """What each peer installs."""
    lines = [line.partition("  (")[0].split() for line in peers("--list").stdout.splitlines()]
    return {name: requirements for name, *requirements in lines}


def test_each_peer_has_an_adapter_that_says_how_it_is_set() -> None:
    adapters = {path.stem: path for path in ADAPTERS.glob("*.*") if path.stem not in _NO_PEER}
    assert set(listed()) == set(adapters)
    for path in adapters.values():
        text = path.read_text(encoding="utf-8")
        first = ast.get_docstring(ast.parse(text)) if path.suffix == ".py" else text.partition("\n\n")[0]
        assert first
        assert re.search(r"\b(?:the|its) run\b|has run", first), f"{path.name} does not say when a job is acknowledged"


def test_each_requirement_of_a_peer_is_pinned() -> None:
    loose = [
        item for items in listed().values() for item in items if not re.fullmatch(r"[\w\[\],-]+(?:==|@)\d[\w.]*", item)
    ]
    assert loose == []


def test_a_peer_that_does_not_exist_is_named_in_one_sentence() -> None:
    done = peers("--peer", "nobody")
    assert done.returncode == 2
    assert "--peer: unknown nobody; there are zwheel, celery" in done.stderr


def test_an_adapter_needs_nothing_of_zwheel_but_its_own() -> None:
    for path in ADAPTERS.glob("*.py"):
        if not path.stem.startswith("zwheel"):
            assert not re.search(
                r"^(?:from|import) (?:zwheel|rich|benchmarks)", path.read_text(encoding="utf-8"), re.MULTILINE
            )


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_zwheel_is_measured_beside_itself(tmp_path: Path) -> None:
    program = next(path for path in map(binary_of, KINDS) if path is not None)
    arguments = ["--jobs", "200", "--delayed", "20", "--rounds", "1", "--json", "--socket", "--server", str(program)]
    done = peers("--peer", "zwheel", *arguments, timeout=170)
    assert done.returncode == 0, done.stderr
    ours = json.loads(done.stdout)["peers"]["zwheel"]
    assert ours["failed"] == []
    assert {what: len(rounds) for what, rounds in ours["rates"].items()} == {"one": 1, "bulk": 1, "drain": 1}
    assert ours["lateness"]["missing"] == 0
    assert ours["lateness"]["smallest"] >= 0
