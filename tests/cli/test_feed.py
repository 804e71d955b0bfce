from __future__ import annotations

import json
import signal
from collections.abc import Iterable
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest

from zwheel import operations as ops
from zwheel.cli import feed as feed_module

from ..conftest import MakeServer
from .conftest import Hand, Shell

#: Each with the number it has in the file, and a part of what is said about it.
BAD_LINES = [
    ('{"task": "t", "tsak": 1}', "unknown key 'tsak', did you mean 'task'?"),
    ("nonsense", "not JSON: Expecting value at column 1"),
    ('{"args": []}', "the key 'task' is missing"),
    ('{"task": null}', "the key 'task' is missing"),
    ('["t"]', "a line is one JSON object"),
    ('{"task": "t", "in": 600}', "'in' must be a duration such as \"10m\""),
    ('{"task": "t", "in": "soon"}', "'in': 'soon' is not a duration"),
    ('{"task": "t", "at": "2031-12-01 09:00"}', "'at': '2031-12-01 09:00' has no time zone"),
    ('{"task": "t", "in": "1s", "at": "2031-12-01T09:00Z"}', "'in' and 'at' contradict each other"),
    ('{"task": "bad name"}', "'bad name' is not a valid task"),
    ('{"task": "t", "queue": "a b"}', "'a b' is not a valid queue"),
    ('{"task": "t", "id": "a\\u001b[31m"}', "is not a valid job id"),
    ('{"task": "t", "retries": -1}', "'retries' must not be negative"),
    ('{"task": "t", "retries": true}', "'retries' must be a whole number"),
    ('{"task": "t", "args": {}}', "'args' must be a list"),
    ('{"task": "t", "headers": {"a": 1}}', "'headers' must be an object of texts"),
    ('{"task": "t", "within": "1h"}', "'within' needs 'unique'"),
    ('{"task": "t", "args": [NaN]}', "NaN is not JSON"),
    ('{"task": "t", "args": ["\\ud800"]}', "not valid Unicode"),
    ('{"task": "t", "args": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deep"),
]


def jsonl(path: Path, lines: Iterable[object]) -> str:
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return str(path)


def say(process: Popen[bytes], *documents: object) -> None:
    assert process.stdin is not None
    process.stdin.write(b"".join(json.dumps(document).encode() + b"\n" for document in documents))
    process.stdin.flush()


def hear(process: Popen[bytes]) -> dict[str, Any]:
    assert process.stdout is not None
    document: dict[str, Any] = json.loads(process.stdout.readline())
    return document


def test_each_line_becomes_a_job(shell: Shell, tmp_path: Path) -> None:
    lines: list[object] = [
        {"task": "a", "id": "1", "args": [1, "ż"], "kwargs": {"x": None}, "in": "1h", "queue": "q1", "retries": 0},
        {"task": "b", "id": "2", "at": "2031-12-01 09:00 Europe/Berlin", "keep": "5m", "timeout": "3s"},
        "",
        {"task": "c", "id": "3", "unique": "key", "within": "1m", "headers": {"a": "b"}, "in": None},
    ]
    done = shell.ok("enqueue", "--jsonl", jsonl(tmp_path / "jobs", lines))
    assert done.out.startswith("3 enqueued in ")
    assert done.said == ""
    assert len(done.err.splitlines()) == 3
    assert "no worker has published a task a, and no live worker serves queue q1: the job waits until one" in done.err
    jobs = {job["id"]: job for job in shell.ok("job", "ls", "--json").documents}
    assert (jobs["1"]["args"], jobs["1"]["kwargs"], jobs["1"]["max_attempts"]) == ([1, "ż"], {"x": None}, 1)
    assert (jobs["1"]["queue"], jobs["2"]["queue"]) == ("q1", "default")
    assert (jobs["2"]["fire_at"], jobs["2"]["timeout_ms"]) == ("2031-12-01T08:00:00.000Z", 3000)
    assert [jobs[i]["keep_ms"] for i in "123"] == [3_600_000, 300_000, 3_600_000]
    assert jobs["3"]["headers"] == {"a": "b"}


def test_options_are_the_defaults_of_all_lines(shell: Shell, tmp_path: Path) -> None:
    file = jsonl(tmp_path / "jobs", [{"task": "a", "id": "1"}, {"task": "a", "id": "2", "queue": "own", "in": "2h"}])
    shell.ok("enqueue", "--jsonl", file, "--queue", "q", "--in", "1h", "--retries", "3", "--keep", "1m")
    jobs = {job["id"]: job for job in shell.ok("job", "ls", "--json").documents}
    assert [(jobs[i]["queue"], jobs[i]["max_attempts"], jobs[i]["keep_ms"]) for i in "12"] == [
        ("q", 4, 60_000),
        ("own", 4, 60_000),
    ]
    assert 3_500_000 < jobs["2"]["fire_at_ms"] - jobs["1"]["fire_at_ms"] <= 3_601_000


def test_lines_that_fail_are_listed_with_their_numbers_and_the_rest_goes_on(shell: Shell, tmp_path: Path) -> None:
    good = [{"task": "t", "id": f"good-{i}"} for i in range(2)]
    file = jsonl(tmp_path / "jobs", [good[0], *(line for line, _ in BAD_LINES), "", good[1]])
    done = shell("enqueue", "--jsonl", file)
    assert done.code == 5
    assert f"2 enqueued, {len(BAD_LINES)} failed in " in done.out
    told = done.said.splitlines()
    assert len(told) == len(BAD_LINES)
    for number, (line, (_, sentence)) in enumerate(zip(told, BAD_LINES, strict=True), 2):
        assert line.startswith(f"zwheel: line {number}: ")
        assert sentence in line
    assert {job["id"] for job in shell.ok("job", "ls", "--json").documents} == {"good-0", "good-1"}


def test_with_json_every_line_has_its_document(shell: Shell, tmp_path: Path) -> None:
    file = jsonl(tmp_path / "jobs", [{"task": "t", "id": "a"}, "bad", {"task": "t", "id": "a"}])
    done = shell("enqueue", "--jsonl", file, "--json")
    assert done.code == 5
    assert [(doc["line"], doc["job_id"], doc["existed"]) for doc in done.documents] == [(1, "a", False), (3, "a", True)]
    error, summary = done.errors
    assert (error["line"], error["kind"]) == (2, "InvalidInput")
    counts = {name: summary["summary"][name] for name in ("enqueued", "existed", "failed", "last_line", "whole")}
    assert counts == {"enqueued": 1, "existed": 1, "failed": 1, "last_line": 3, "whole": True}


def test_people_are_told_the_first_hundred_failures(shell: Shell, tmp_path: Path) -> None:
    file = jsonl(tmp_path / "jobs", ["bad"] * 250)
    told = shell("enqueue", "--jsonl", file).err.splitlines()
    assert len(told) == 101
    assert told[-1] == "zwheel: further failing lines are only counted; --json lists all"
    assert len(shell("enqueue", "--jsonl", file, "--json").errors) == 251


def test_more_than_one_batch_keeps_every_job(shell: Shell, tmp_path: Path) -> None:
    count = 2 * feed_module.BATCH + 7
    file = jsonl(
        tmp_path / "jobs", [{"task": "t", "args": [i], "id": f"j{i}", "queue": f"q{i % 3}"} for i in range(count)]
    )
    done = shell.ok("enqueue", "--jsonl", file, "--json")
    assert [document["job_id"] for document in done.documents] == [f"j{i}" for i in range(count)]
    assert sum(queue["scheduled"] for queue in shell.ok("queue", "ls", "--json").documents) == count


def test_a_batch_is_also_bounded_in_bytes(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "BATCH_BYTES", 10)
    sizes: list[int] = []
    send = feed_module.Feed._send

    async def counted(self: feed_module.Feed, batch: list[feed_module.Pending]) -> None:
        sizes.append(len(batch))
        await send(self, batch)

    monkeypatch.setattr(feed_module.Feed, "_send", counted)
    shell.ok("enqueue", "--jsonl", jsonl(tmp_path / "jobs", [{"task": "t", "args": ["x" * 9]}] * 3))
    assert sizes == [1, 1, 1]


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "jobs"
    file.write_bytes(b'\xef\xbb\xbf{"task": "t", "id": "a"}\r\n{"task": "t", "id": "b"}\r\n')
    assert shell.ok("enqueue", "--jsonl", str(file)).out.startswith("2 enqueued")


def test_a_dry_run_checks_the_lines_and_sends_none(shell: Shell, tmp_path: Path) -> None:
    done = shell("enqueue", "--jsonl", jsonl(tmp_path / "jobs", [{"task": "t"}, "bad"]), "--dry-run")
    assert done.code == 5
    assert done.out.startswith("1 checked, nothing sent, 1 failed in ")
    assert shell.ok("queue", "ls", "--json").out == ""


def test_a_file_that_cannot_be_read_is_a_usage_error(shell: Shell, tmp_path: Path) -> None:
    done = shell("enqueue", "--jsonl", "nowhere.jsonl")
    assert (done.code, done.err) == (2, "zwheel: nowhere.jsonl: No such file or directory\n")
    (tmp_path / "folder").mkdir()
    done = shell("enqueue", "--jsonl", "folder")
    assert (done.code, done.err) == (2, "zwheel: folder: Is a directory\n")


def test_a_full_queue_fails_its_lines_and_no_others(shell: Shell, hand: Hand, tmp_path: Path) -> None:
    hand.store.drive(ops.set_cap(hand.session, "small", 1))
    shell.ok("enqueue", "t", "--queue", "small")
    lines = [{"task": "t", "id": str(i), "queue": "small" if i % 2 else "wide"} for i in range(4)]
    done = shell("enqueue", "--jsonl", jsonl(tmp_path / "jobs", lines))
    assert done.code == 5
    assert [line.split(":")[1] for line in done.said.splitlines()] == [" line 2", " line 4"]
    assert "queue 'small' is full" in done.err
    assert [job["id"] for job in shell.ok("job", "ls", "--queue", "wide", "--json").documents] == ["0", "2"]


def test_a_stream_is_flushed_without_waiting_for_more(shell: Shell) -> None:
    process = shell.process("enqueue", "--jsonl", "-", "--json")
    for i in range(3):
        say(process, {"task": "t", "id": str(i)})
        assert hear(process)["job_id"] == str(i)
    out, err = process.communicate(timeout=100)
    assert (process.returncode, out) == (0, b"")
    assert json.loads(err)["summary"]["enqueued"] == 3


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_stream_and_says_how_far_it_came(shell: Shell, number: signal.Signals, code: int) -> None:
    process = shell.process("enqueue", "--jsonl", "-", "--json")
    say(process, {"task": "t", "id": "a"})
    assert hear(process)["line"] == 1
    process.send_signal(number)
    _, err = process.communicate(timeout=100)
    assert process.returncode == code
    summary = json.loads(err)["summary"]
    assert (summary["enqueued"], summary["last_line"], summary["whole"]) == (1, 1, False)


def test_a_stream_outlasts_a_restart_of_redis(bare: Shell, own_server: MakeServer) -> None:
    server = own_server(appendonly=True, arguments=("--appendfsync", "always"))
    process = bare.process("enqueue", "--jsonl", "-", "--json", "--url", server.url)
    say(process, {"task": "t", "id": "a"})
    assert not hear(process)["existed"]
    server.kill()
    say(process, {"task": "t"})
    server.start()
    assert not hear(process)["existed"]
    _, err = process.communicate(timeout=100)
    assert process.returncode == 0
    assert json.loads(err)["summary"]["enqueued"] == 2


def test_giving_up_says_which_lines_were_not_sent(
    shell: Shell, own_server: MakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = own_server()
    monkeypatch.setattr(feed_module, "PATIENCE_S", 0.0)
    monkeypatch.setattr(feed_module, "BATCH", 2)
    send = feed_module.Feed._send

    async def cut_off(self: feed_module.Feed, batch: list[feed_module.Pending]) -> None:
        await send(self, batch)
        server.kill()

    monkeypatch.setattr(feed_module.Feed, "_send", cut_off)
    file = jsonl(tmp_path / "jobs", [{"task": "t"}] * 5)
    done = shell("enqueue", "--jsonl", file, "--url", server.url, "--redis-timeout", "100ms")
    assert done.code == 3
    assert done.out.startswith("2 enqueued in ")
    note, error = done.said.splitlines()
    assert note == "stopped after line 2; go on with the line after it"
    assert error.startswith("zwheel: ")


def test_when_no_line_is_stored_the_command_fails_and_with_some_it_does_not(shell: Shell, tmp_path: Path) -> None:
    one = [{"task": "t", "id": "a", "in": "1h"}]
    file = jsonl(tmp_path / "one", one)
    shell.ok("enqueue", "--jsonl", file)
    again = shell("enqueue", "--jsonl", file)
    assert (again.code, again.out.startswith("0 enqueued, 1 existed in ")) == (6, True)
    assert "nothing was stored" in again.err and "--replace" in again.err
    again = shell("enqueue", "--jsonl", file, "--json")
    assert (again.code, again.documents[0]["existed"], again.errors[-1]["exit"]) == (6, True, 6)
    more = shell.ok("enqueue", "--jsonl", jsonl(tmp_path / "two", [*one, {"task": "t", "id": "b"}]))
    assert more.out.startswith("1 enqueued, 1 existed in ")
    assert shell.ok("enqueue", "--jsonl", jsonl(tmp_path / "none", [])).out.startswith("0 enqueued in ")


def test_a_line_may_replace_a_job_that_ended(shell: Shell, hand: Hand, tmp_path: Path) -> None:
    shell.ok("enqueue", "t", "--id", "a")
    hand.kill("a")
    line = {"task": "t", "id": "a", "in": "1h"}
    assert shell("enqueue", "--jsonl", jsonl(tmp_path / "plain", [line])).code == 6
    assert shell("enqueue", "--jsonl", jsonl(tmp_path / "no", [line | {"replace": False}]), "--replace").code == 6
    told = shell.ok("enqueue", "--jsonl", jsonl(tmp_path / "yes", [line | {"replace": True}, {"task": "t"}]), "--json")
    assert [document.get("replaced") for document in told.documents[:2]] == [True, None]
    shell.ok("job", "cancel", "a")
    everything = jsonl(tmp_path / "all", [line, {"task": "t"}])
    assert shell.ok("enqueue", "--jsonl", everything, "--replace").out.startswith("2 enqueued in ")
    refused = shell("enqueue", "--jsonl", jsonl(tmp_path / "bad", [{"task": "t", "replace": True}]))
    assert (refused.code, "'replace' needs 'id'" in refused.err) == (5, True)
    refused = shell("enqueue", "--jsonl", jsonl(tmp_path / "bad", [line | {"replace": 1}]))
    assert (refused.code, "'replace' must be true or false" in refused.err) == (5, True)
