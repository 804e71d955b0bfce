from __future__ import annotations

import json
import re
from typing import Any

from .conftest import Hand, Shell


def worker(hand: Hand, name: str, *, beat_ago_ms: int, **fields: Any) -> None:
    ((seconds, _),) = hand.store.send([("TIME",)])
    now_ms = int(seconds) * 1000
    entry = {
        "host": "box", "pid": 7, "queues": ["mail", "q2"], "concurrency": 10, "running": 3, "version": "1.0",
        "started": now_ms - 3_600_000, "beat": now_ms - beat_ago_ms, **fields,
    }  # fmt: skip
    for queue in entry["queues"]:
        hand.store.send([("HSET", hand.session.keys(queue).workers, name, json.dumps(entry))])


def test_workers_are_listed_once_with_what_they_do(shell: Shell, hand: Hand) -> None:
    shell.ok("enqueue", "t", "--queue", "mail")
    shell.ok("enqueue", "t", "--queue", "q2")
    worker(hand, "w-1", beat_ago_ms=1000)
    worker(hand, "w-2", beat_ago_ms=300_000, host="\x1b[31mother", pid=8, queues=["q2"])
    first, second = shell.ok("workers", "ls", "--json").documents
    assert (second["id"], second["host"], second["alive"]) == ("w-1", "box", True)
    assert (second["queues"], second["running"], second["concurrency"]) == (["mail", "q2"], 3, 10)
    assert (first["id"], first["alive"]) == ("w-2", False)
    assert [each["id"] for each in shell.ok("workers", "ls", "--queue", "mail", "--json").documents] == ["w-1"]
    assert {"started_at", "started_at_ms", "beat_at", "beat_at_ms"} < set(first)
    assert first["beat_at_ms"] - first["started_at_ms"] == 3_300_000
    out = shell.ok("workers", "ls").out
    assert "\x1b" not in out
    header, *rows = out.splitlines()
    assert header.split() == ["WORKER", "HOST", "PID", "QUEUES", "RUNNING", "STARTED", "HEARD", "VERSION"]
    by_name = {row.split()[0]: row for row in rows}
    assert "mail q2" in by_name["w-1"]
    assert "3/10" in by_name["w-1"]
    assert by_name["w-1"].endswith("alive")
    assert by_name["w-2"].endswith("dead")


def test_a_worker_is_silent_after_half_a_lease_and_dead_after_a_whole_one(shell: Shell, hand: Hand) -> None:
    """The same words in every listing and in JSON; a worker that does not say its lease has the default, 30 s."""
    shell.ok("enqueue", "t", "--queue", "mail")
    expected = {
        "a": (9_000, 30_000, "alive"), "b": (17_000, 30_000, "silent"), "c": (33_000, 30_000, "dead"),
        "d": (17_000, None, "silent"), "e": (40_000, 600_000, "alive"), "f": (3_000, 2_000, "dead"),
        "g": (9_000, "abc", "alive"), "h": (9_000, -5, "alive"), "i": (-900_000, 30_000, "dead"),
    }  # fmt: skip
    for name, (ago, lease, _) in expected.items():
        worker(hand, name, beat_ago_ms=ago, queues=["mail"], **({} if lease is None else {"lease": lease}))
    listed = {each["id"]: each for each in shell.ok("workers", "ls", "--json").documents}
    assert {name: each["state"] for name, each in listed.items()} == {n: word for n, (_, _, word) in expected.items()}
    assert {name: each["alive"] for name, each in listed.items()} == {
        n: w == "alive" for n, (_, _, w) in expected.items()
    }
    assert 17_000 <= listed["b"]["silent_ms"] < 29_000
    rows = {row.split()[0]: row for row in shell.ok("workers", "ls").out.splitlines()}
    assert re.search(r"silent for \d\d s$", rows["b"])
    (queue,) = shell.ok("queue", "ls", "--json").documents
    assert (queue["workers"], queue["workers_silent"], queue["workers_dead"]) == (4, 2, 3)
    assert "workers: 2 silent, 3 dead" in shell.ok("queue", "ls").out
    assert "4, 2 silent, 3 dead" in shell.ok("queue", "show", "mail").out
    found = [f for f in shell("doctor", "--json").documents if f.get("check") == "workers"]
    assert [f["level"] for f in found] == ["warning", "warning"]
    assert found[0]["text"].startswith("2 workers are silent (")
    assert found[1]["text"].startswith("3 workers are dead (")


def test_no_workers(shell: Shell) -> None:
    assert shell.ok("workers", "ls").err == "no workers: start one with zwheel worker\n"
