"""`zwheel task`, and what every command that names a task says of who will run it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from tests.servers import RedisServer
from zwheel import SyncWheel, Wheel
from zwheel.keys import ShardKeys, tasks_key
from zwheel.published.task import row_of

from .conftest import Hand, Shell

Live = Callable[..., None]
TASKS = tasks_key("zw")


class Color(Enum):
    RED = "red"
    BLUE = "blue"


def remind(
    order: int, note: str = "", when: datetime | None = None, color: Color = Color.RED, wait: timedelta = timedelta(0),
    urgent: bool = False, rate: float = 1.0, ids: list[int] | None = None, limit: int | None = None, raw: bytes = b"",
) -> None:  # fmt: skip
    """Remind of an order."""


@pytest.fixture
def live(fresh: RedisServer) -> Iterator[Live]:
    """Write down a living worker of a queue that knows tasks; None: it does not say which."""
    with fresh.client() as client:

        def add(queue: str, *tasks: str, says: bool = True, ago_s: float = 0) -> None:
            now_ms = int(time.time() * 1000 - ago_s * 1000)
            row: dict[str, Any] = {
                "host": "here", "pid": 1, "queues": [queue], "concurrency": 1, "running": 0, "started": now_ms, "beat": now_ms,
                "version": "0.1.0", "lease": 30_000,
            }  # fmt: skip
            known = {"group": "0" * 16, "tasks": list(tasks)} if says else {}
            client.hset(ShardKeys.of("zw", queue).workers, f"w{client.dbsize()}", json.dumps(row | known))

        yield add


@pytest.fixture
def published(fresh: RedisServer, live: Live) -> None:
    """A published task, and a living worker that serves its queue."""
    task = Wheel(fresh.url).task(name="shop.remind", queue="mail", retries=0, timeout=30)(remind)
    with fresh.client() as client:
        client.hset(TASKS, "shop.remind", row_of(task, "shop:wheel", int(time.time() * 1000)))
    live("mail", "shop.remind")


pytestmark = pytest.mark.usefixtures("fresh")


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize(
    ("words", "kwargs"),
    [
        (["order=8"], {"order": 8}),
        (["order:=8"], {"order": 8}),
        (["order=8", "note=12"], {"order": 8, "note": "12"}),
        (["order=8", "urgent=true", "rate=2"], {"order": 8, "urgent": True, "rate": 2.0}),
        (["order=8", "when=2026-12-01T09:00:00+01:00"], {"order": 8, "when": "2026-12-01T09:00:00+01:00"}),
        (["order=8", "when:=null", "limit=null"], {"order": 8, "when": None, "limit": None}),
        (["order=8", "color=blue", "ids=[1, 2]"], {"order": 8, "color": "blue", "ids": [1, 2]}),
    ],
)
def test_words_become_what_the_task_asks_for(shell: Shell, words: list[str], kwargs: dict[str, Any]) -> None:
    done = shell.ok("enqueue", "shop.remind", *words, "--json")
    assert "unserved" not in done.document
    job = shell.ok("job", "show", done.document["job_id"], "--json").document
    assert (job["queue"], job["max_attempts"], job["retries_by"], job["kwargs"]) == ("mail", 1, "job", kwargs)


@pytest.mark.usefixtures("published")
def test_a_duration_becomes_one_and_bytes_become_bytes(shell: Shell, url: str) -> None:
    answer = shell.ok("enqueue", "shop.remind", "8", "wait=90s", "raw=abc", "--json").document
    with SyncWheel(url, namespace="zw") as wheel:
        job = wheel.get(answer["job_id"])
        assert job is not None
        args, kwargs, _ = wheel.codec.decode(job.body, context=f"shop.remind\n{job.id}".encode())
    assert (args, kwargs) == ([8], {"wait": timedelta(seconds=90), "raw": b"abc"})


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["order=eight"], "order must be a whole number, not 'eight'"),
        (["eight"], "order must be a whole number, not 'eight'"),
        (["order=8", "urgent=yes"], "urgent must be true or false, not 'yes'"),
        (["order=8", "color=green"], 'color must be one of "red", "blue", not \'green\''),
        (["order=8", "wait=90"], "wait must be a duration, not '90'"),
        (["order=8", "when=null"], "cannot take when: it is text that is no datetime"),
        (["order=8", "when=tomorrow"], "cannot take when: it is text that is no datetime"),
        (["order=8", 'ids=[1, "two"]'], "ids must be a list, each a whole number or null"),
        ([], "needs 'order'"),
        (["order=8", "oder=9"], "does not take 'oder'"),
        (["order=8", "order:=9"], "the argument order is given twice"),
    ],
)
def test_what_the_task_would_refuse_is_refused_and_nothing_is_sent(shell: Shell, words: list[str], why: str) -> None:
    for command in (
        ("enqueue", "shop.remind", *words), ("enqueue", "shop.remind", *words, "--dry-run"),
        ("schedule", "add", "s", "@daily", "shop.remind", *words),
    ):  # fmt: skip
        done = shell(*command)
        assert (done.code, done.out) == (2, "")
        assert why in done.err and len(done.err.splitlines()) == 1
    assert shell.ok("queue", "ls", "--json").out == ""


@pytest.mark.usefixtures("published")
def test_it_is_said_when_nobody_would_run_a_job_and_strict_sends_nothing(shell: Shell, live: Live) -> None:
    live("slow", "other.task")
    live("old", says=False)
    live("gone", "shop.remind", ago_s=600)
    for words, why in (
        (("shop.remnid", "order=1"), "no worker has published a task shop.remnid: did you mean shop.remind?"),
        (("shop.remnid", "order=1", "-q", "none"), "did you mean shop.remind?, and no live worker serves queue none"),
        (("shop.remind", "order=1", "-q", "none"), "no live worker serves queue none, while workers publish shop.remind for "),
        (("shop.remind", "order=1", "-q", "gone"), "no live worker serves queue gone"),
        (("shop.remind", "order=1", "-q", "slow"), "no live worker of queue slow knows the task shop.remind"),
    ):  # fmt: skip
        for command in (("enqueue", *words), ("schedule", "add", "s", "@daily", *words)):
            strict = shell(*command, "--strict")
            assert (strict.code, strict.out) == (6, "")
            assert why in strict.err and strict.err.endswith("; nothing was sent\n")
        done = shell.ok("enqueue", *words)
        assert len(done.out.splitlines()) == len(done.err.splitlines()) == 1
        assert done.err.startswith("note: ") and why in done.err
        assert why in shell.ok("enqueue", *words, "--json").document["unserved"][0]
        assert why in shell.ok("enqueue", *words, "--dry-run").err
    # A worker that does not say what it knows may know it.
    assert shell.ok("enqueue", "shop.remind", "order=1", "-q", "old", "--strict").err == ""
    assert shell.ok("enqueue", "shop.remind", "order=1", "--strict").err == ""
    assert shell.ok("schedule", "ls", "--json").out == ""


@pytest.mark.usefixtures("published")
def test_lines_are_checked_each_for_itself(shell: Shell, tmp_path: Path) -> None:
    lines = [
        {"task": "shop.remind", "kwargs": {"order": 1}}, {"task": "shop.remind", "kwargs": {"order": "1"}},
        {"task": "shop.remnid", "args": [1]}, {"task": "shop.remnid", "args": [2]},
        {"task": "shop.remind", "args": [3], "kwargs": {"wait": "90s"}},
    ]  # fmt: skip
    file = tmp_path / "lines"
    file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    done = shell("enqueue", "--jsonl", str(file))
    assert done.code == 5 and done.out.startswith("4 enqueued, 1 failed")
    assert "line 2: shop.remind(" in done.err and "order must be a whole number" in done.err
    assert done.err.count("no worker has published a task shop.remnid: did you mean shop.remind?") == 1
    jobs = shell.ok("job", "ls", "--json").documents
    assert sorted((job["queue"], job["max_attempts"]) for job in jobs) == [
        ("default", 11), ("default", 11), ("mail", 1), ("mail", 1),
    ]  # fmt: skip
    assert {job["kwargs"].get("wait") for job in jobs} == {None, 90.0}
    strict = shell("enqueue", "--jsonl", str(file), "--strict")
    assert strict.code == 5 and strict.out.startswith("2 enqueued, 3 failed")
    assert "line 3: no worker has published a task shop.remnid" in strict.err


@pytest.mark.usefixtures("published")
def test_schedules_take_the_published_queue_and_policy(shell: Shell, tmp_path: Path) -> None:
    shell.ok("schedule", "add", "daily", "@daily", "shop.remind", "order=8")
    added = shell.ok("schedule", "show", "daily", "--json").document
    assert (added["queue"], added["retries"], added["kwargs"]) == ("mail", 0, {"order": 8})
    assert shell("schedule", "edit", "daily", "order=nine").code == 2
    shell.ok("schedule", "edit", "daily", "order=9")
    assert shell.ok("schedule", "show", "daily", "--json").document["kwargs"] == {"order": 9}
    file = tmp_path / "s.toml"
    file.write_text('[schedules.weekly]\nwhen = "@weekly"\ntask = "shop.remind"\nargs = [1]\n', encoding="utf-8")
    assert shell.ok("schedule", "sync", str(file)).err.startswith(f"1 schedule of file:{file}")
    synced = shell.ok("schedule", "show", "weekly", "--json").document
    assert (synced["queue"], synced["retries"]) == ("mail", 0)
    file.write_text(file.read_text().replace("[1]", '["one"]'), encoding="utf-8")
    done = shell("schedule", "sync", str(file))
    assert done.code == 2 and "schedules.weekly: shop.remind(" in done.err


def test_retries_that_an_edit_gives_hold_though_the_task_is_not_known(shell: Shell, url: str) -> None:
    shell.ok("schedule", "add", "daily", "@daily", "unknown.task")
    with SyncWheel(url, namespace="zw") as wheel:
        headers = [
            wheel.codec.decode(wheel.schedule("daily").definition.payload, context=b"unknown.task\nschedule daily")[2]
        ]
        shell.ok("schedule", "edit", "daily", "--retries", "4")
        headers += [
            wheel.codec.decode(wheel.schedule("daily").definition.payload, context=b"unknown.task\nschedule daily")[2]
        ]
    assert headers == [{"zwheel-policy": "task"}, {"zwheel-policy": "job"}]


@pytest.mark.usefixtures("published")
def test_tasks_are_listed_and_shown(shell: Shell, fresh: RedisServer, live: Live) -> None:
    with fresh.client() as client:
        client.hset(TASKS, mapping={"broken": b"[", b"\xff\x1b[2J": b"{}"})
        task = Wheel(fresh.url).task(name="shop.gone", queue="cold")(remind)
        client.hset(TASKS, "shop.gone", row_of(task, "shop:wheel", 1_790_000_000_000))
    table = shell.ok("task", "ls").out
    assert "Remind of an order." in table and "\x1b" not in table
    rows = {line.split()[0]: line.split() for line in table.splitlines()[1:]}
    assert rows["shop.remind"][1:5] == ["mail", "0", "30", "s"]
    documents = {one["task"]: one for one in shell.ok("task", "ls", "--json").documents}
    assert (documents["shop.remind"]["workers"], documents["shop.gone"]["workers"]) == (1, 0)
    assert documents["shop.remind"]["parameters"][0] == {
        "name": "order", "kind": "either", "required": True, "type": "int", "shape": "int",
    }  # fmt: skip
    assert "unreadable" in documents["broken"]
    assert [one["task"] for one in shell.ok("task", "ls", "--queue", "cold", "--json").documents if "queue" in one] == [
        "shop.gone"
    ]
    shown = shell.ok("task", "show", "shop.remind")
    assert (
        "order: int" in shown.out
        and "wait: timedelta, optional" in shown.out
        and "1 of the 1 that serve mail" in shown.out
    )
    assert shown.err == "enqueue it with: zwheel enqueue shop.remind order=VALUE\n"
    assert "none of 0" in shell.ok("task", "show", "shop.gone").out
    missing = shell("task", "show", "shop.remnid")
    assert missing.code == 4 and "did you mean shop.remind?" in missing.err
    assert shell("task", "show", "a b").code == 2


def test_without_any_task_the_listing_says_what_to_do(shell: Shell) -> None:
    assert "no worker has published a task yet" in shell.ok("task", "ls").out + shell.ok("task", "ls").err


@pytest.mark.usefixtures("published")
def test_a_job_that_nobody_would_run_shows_in_every_listing(shell: Shell, live: Live) -> None:
    shell.ok("enqueue", "shop.remind", "order=1", "-q", "lonely", "--id", "a")
    live("slow", "other.task")
    shell.ok("enqueue", "shop.remind", "order=1", "-q", "slow", "--id", "b")
    shell.ok("enqueue", "shop.remind", "order=1", "--id", "c")
    assert "no live worker serves queue lonely, while" in shell.ok("job", "show", "a").out
    assert (
        "no live worker of queue slow knows the task shop.remind"
        in shell.ok("job", "show", "b", "--json").document["unserved"][0]
    )
    assert "unserved" not in shell.ok("job", "show", "c", "--json").document
    queues = {one["queue"]: one.get("unserved") for one in shell.ok("queue", "ls", "--json").documents}
    assert queues == {"lonely": "no live worker", "slow": "no live worker knows shop.remind", "mail": None}
    assert "no live worker knows shop.remind: it waits until one does" in shell.ok("queue", "show", "slow").out
    found = {
        one["queue"]: one["text"] for one in shell("doctor", "--json").documents if one.get("check") == "unserved"
    }  # fmt: skip
    assert found["lonely"].startswith(
        "1 job on its wheel, and no live worker serves it, while workers publish shop.remind"
    )
    assert found["slow"] == "no live worker of this queue knows the tasks of some of its jobs (shop.remind: 1 job)"
    assert set(found) == {"lonely", "slow"}


@pytest.mark.usefixtures("published")
def test_jobs_that_were_made_before_their_queue_was_known_are_told_apart(shell: Shell) -> None:
    shell.ok("enqueue", "shop.remind", "order=1", "-q", "early")
    (finding,) = [one for one in shell("doctor", "--json").documents if one.get("check") == "unserved"]
    assert "while workers publish shop.remind for queue mail" in finding["text"]
    assert "not both, or they run twice" in finding["cure"]


@pytest.mark.usefixtures("published")
def test_a_paused_or_full_queue_is_said_where_one_looks(shell: Shell, live: Live) -> None:
    assert shell.ok("queue", "cap", "mail", "2", "--create").out == "mail takes 2 living jobs at the most\n"
    shell.ok("queue", "pause", "mail")
    said = shell.ok("enqueue", "shop.remind", "order=1", "--id", "a", "--strict")
    assert said.err == "note: queue mail is paused: nothing of it starts until `zwheel queue resume mail`\n"
    assert "queue mail is paused" in shell.ok("job", "show", "a").out
    assert shell.ok("job", "show", "a", "--json").document["paused"] is True
    assert [one["check"] for one in shell("doctor", "--json").documents if one.get("queue") == "mail"].count(
        "paused"
    ) == 1
    shell.ok("enqueue", "shop.remind", "order=2")
    assert shell("enqueue", "shop.remind", "order=3").code == 6
    assert "full: it takes 2" in shell.ok("queue", "ls").out
    for wrong in ("0", "-1", "many", "1e3", ""):
        assert shell("queue", "cap", "--", "mail", wrong).code == 2
    shell.ok("queue", "cap", "mail", "none")
    shell.ok("queue", "resume", "mail")
    assert shell.ok("enqueue", "shop.remind", "order=3").err == ""


def test_what_gone_workers_held_shows_when_nobody_takes_it_back(shell: Shell, hand: Hand) -> None:
    shell.ok("enqueue", "t", "--id", "held")
    hand.claim()
    assert shell.ok("queue", "ls", "--json").document["unserved"] == "no live worker"
    assert "no live worker serves queue default" in shell.ok("job", "show", "held").out
    (finding,) = [one for one in shell("doctor", "--json").documents if one.get("check") == "unserved"]
    assert finding["text"] == "0 jobs on its wheel, 1 job held by workers that are gone, and no live worker serves it"


def test_a_command_says_when_no_worker_may_run_it(shell: Shell, live: Live) -> None:
    live("default", "mine")
    assert "as one with --allow-shell does" in shell.ok("enqueue", "--", "true").err
    live("default", "zwheel.shell")
    assert shell.ok("enqueue", "--strict", "--", "true").err == ""


def test_stdin_is_read_once_however_often_the_words_are(shell: Shell, published: None) -> None:
    done = shell.piped("enqueue", "shop.remind", "order:=@-", "--json", stdin=b"17")
    assert done.code == 0, done.err
    assert shell.ok("job", "show", done.document["job_id"], "--json").document["kwargs"] == {"order": 17}
