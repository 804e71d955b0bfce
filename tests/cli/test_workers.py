from __future__ import annotations

import json
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
    out = shell.ok("workers", "ls").out
    assert "\x1b" not in out
    header, *rows = out.splitlines()
    assert header.split() == ["WORKER", "HOST", "PID", "QUEUES", "RUNNING", "STARTED", "HEARD", "VERSION"]
    by_name = {row.split()[0]: row for row in rows}
    assert "mail q2" in by_name["w-1"]
    assert "3/10" in by_name["w-1"]
    assert by_name["w-1"].endswith("alive")
    assert by_name["w-2"].endswith("lost")


def test_no_workers(shell: Shell) -> None:
    assert shell.ok("workers", "ls").err == "no workers: start one with zwheel worker\n"
