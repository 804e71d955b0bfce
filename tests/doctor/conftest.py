"""A doctor for a test server, a queue with jobs in every state, and the keys of that queue to damage."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.servers import RedisServer
from tests.skew.hand import QUEUE, Hand
from zwheel.cli import run


@dataclass(frozen=True)
class Diagnosis:
    """What one call of `zwheel doctor --json` said."""

    code: int
    findings: list[dict[str, Any]]
    err: str

    def of(self, check: str) -> dict[str, Any]:
        """The one finding of a check."""
        (found,) = [f for f in self.findings if f.get("check") == check]
        return found

    def levels(self) -> dict[str, str]:
        """The worst level of each check."""
        order = ["ok", "warning", "problem"]
        worst: dict[str, str] = {}
        for f in self.findings:
            if "check" in f:
                worst[f["check"]] = max(worst.get(f["check"], "ok"), f["level"], key=order.index)
        return worst


Doctor = Callable[..., Diagnosis]


@pytest.fixture
def doctor(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., Diagnosis]:
    """Call it for a URL."""
    monkeypatch.setenv("ZWHEEL_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.chdir(tmp_path)

    def call(url: str, *words: str) -> Diagnosis:
        capsys.readouterr()
        code = run(["doctor", "--json", "--url", url, *words])
        out, err = capsys.readouterr()
        return Diagnosis(int(code), [json.loads(line) for line in out.splitlines()], err)

    return call


@pytest.fixture
def hand(url: str) -> Iterator[Hand]:
    """A worker by hand on an empty server."""
    made = Hand(url, "hand-001")
    yield made
    made.store.close()


@pytest.fixture
def client(fresh: RedisServer) -> Iterator[redis.Redis]:
    """A plain client to damage keys with."""
    with fresh.client() as made:
        made.hset("zw:queues", QUEUE, "1")
        yield made
