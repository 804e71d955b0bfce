from __future__ import annotations

import re
from typing import Any

import pytest

from zwheel.job import Failure

from .conftest import Hand, Shell

TRACEBACK = """Traceback (most recent call last):
  File "/app/run.py", line 1, in run
    send()
  File "/app/mail.py", line 22, in send
    raise ValueError(reason)
ValueError: \x1b[31mno\x1b[0m
"""


def failed(attempt: int, message: str = "no", **fields: Any) -> Failure:
    return Failure(
        at_ms=1_795_000_000_000 + attempt, attempt=attempt, reason="error", kind="ValueError", message=message, **fields
    )


def test_show_tells_people_what_is_known(shell: Shell) -> None:
    shell.ok("enqueue", "mail.send", "1", "to=ann", "--id", "a", "--at", "2031-12-01T08:00Z", "--timeout", "1m30s")
    lines = shell.ok("job", "show", "a", "--tz", "Europe/Berlin").out.splitlines()
    shown = {line[:8].strip(): line[9:] for line in lines}
    assert (shown["id"], shown["task"], shown["queue"], shown["state"]) == ("a", "mail.send", "default", "scheduled")
    assert shown["fires"].startswith("2031-12-01 08:00:00Z = 2031-12-01 09:00:00 +0100 Europe/Berlin, in ")
    assert (shown["args"], shown["kwargs"], shown["timeout"]) == ("[1]", '{"to": "ann"}', "1 m 30 s")
    assert (shown["attempt"], shown["keep"]) == ("0, of as many as its task says", "1 h")


def test_show_follows_a_job_through_its_states(shell: Shell, hand: Hand) -> None:
    def state() -> tuple[str, int]:
        job = shell.ok("job", "show", "a", "--json").document
        return job["state"], job["attempt"]

    shell.ok("enqueue", "t", "--id", "a")
    assert state() == ("scheduled", 0)
    assert "state    due" in shell.ok("job", "show", "a").out
    hand.claim()
    assert state() == ("processing", 1)
    out = shell.ok("job", "show", "a").out
    assert "lease until" in out
    assert "hand-001" in out
    hand.complete("a")
    assert state() == ("done", 1)
    # Its tombstone does not say that its task decided how many there may be.
    assert re.search(r"^attempt +1$", shell.ok("job", "show", "a").out, re.MULTILINE)
    out = shell.ok("job", "show", "a").out
    assert "kept until" in out and "ran for" in out and "done  " in out
    assert "arguments   not kept" in out


def test_failures_are_shown_with_their_last_frame_and_equal_ones_once(shell: Shell, hand: Hand) -> None:
    shell.ok("enqueue", "t", "--id", "a")
    hand.claim()
    same = [failed(attempt, traceback=TRACEBACK, worker="w-1") for attempt in (2, 3)]
    hand.bury("a", failed(1, "other"), *same)
    out = shell.ok("job", "show", "a").out
    assert "dead because  error" in out
    assert out.index("attempt 1, ") < out.index("attempts 2-3, ")
    assert "on w-1, same error x2" in out
    assert out.count("ValueError: no") == 1
    assert 'File "/app/mail.py", line 22, in send' in out
    assert "/app/run.py" not in out
    assert "--traceback shows them" in out
    whole = shell.ok("job", "show", "a", "--traceback").out
    assert "/app/run.py" in whole
    assert "\x1b" not in whole
    document = shell.ok("job", "show", "a", "--json").document
    assert [failure["attempt"] for failure in document["failures"]] == [1, 2, 3]
    assert document["failures"][1]["traceback"] == TRACEBACK
    assert document["reason"] == "error"


def test_a_body_that_cannot_be_read_is_said_and_not_guessed(shell: Shell, hand: Hand) -> None:
    shell.ok("enqueue", "t", "1", "--id", "a")
    keys = hand.session.keys("default")
    (raw,) = hand.store.send([("HGET", keys.jobs, "a")])
    hand.store.send([("HSET", keys.jobs, "a", raw[:-2] + b"\xc1\xc1")])
    assert "arguments  cannot be read: " in shell.ok("job", "show", "a").out
    document = shell.ok("job", "show", "a", "--json").document
    assert document["args"] is None
    assert document["undecodable"]


def test_arguments_of_all_kinds_are_shown_and_cannot_reach_the_terminal(shell: Shell, hand: Hand) -> None:
    from datetime import UTC, date, datetime, timedelta
    from decimal import Decimal
    from uuid import UUID

    from zwheel import SyncWheel

    args = [
        *("\x1b[2J\u202eevil", b"\x00\xff", datetime(2031, 1, 2, tzinfo=UTC), date(2031, 1, 2), timedelta(seconds=1.5)),
        *(Decimal("1.10"), UUID(int=7), {3, 1}, 2**70, {"k": (1, 2)}, float("inf"), None, True),
    ]
    with SyncWheel(hand.store.url) as wheel:
        wheel.enqueue("t", args=args, id="a")
    assert shell.ok("job", "show", "a", "--json").document["args"] == [
        *("\x1b[2J\u202eevil", {"base64": "AP8="}, "2031-01-02T00:00:00+00:00", "2031-01-02", 1.5),
        *("1.10", "00000000-0000-0000-0000-000000000007", [1, 3], 2**70, {"k": [1, 2]}, "inf", None, True),
    ]
    for arguments in (("job", "show", "a"), ("job", "show", "a", "--json"), ("job", "ls", "--json")):
        out = shell.ok(*arguments).out
        assert "\x1b" not in out
        assert "\u202e" not in out


def test_long_arguments_are_cut_for_people_only(shell: Shell) -> None:
    shell.ok("enqueue", "t", f"x={'y' * 5000}", "--id", "a")
    assert "more, --json has all)" in shell.ok("job", "show", "a").out
    assert len(shell.ok("job", "show", "a", "--json").document["kwargs"]["x"]) == 5000


def test_a_missing_job_is_not_found(shell: Shell) -> None:
    for arguments in (("job", "show", "a"), ("job", "wait", "a"), ("dead", "show", "a")):
        done = shell(*arguments)
        assert done.code == 4
        assert done.err.startswith("zwheel: no job a: ")
    assert shell("job", "show", "a", "--json").errors[0]["kind"] == "JobNotFound"


def test_ls_lists_by_queue_and_state_in_pages(shell: Shell, hand: Hand) -> None:
    for i in range(3):
        shell.ok("enqueue", "t", "--id", f"later-{i}", "--in", f"{i + 1}h")
    shell.ok("enqueue", "t", "--id", "dead")
    hand.kill("dead")
    shell.ok("enqueue", "t", "--id", "other", "--queue", "q2", "--in", "1h")

    def ids(*arguments: str) -> list[str]:
        return [job["id"] for job in shell.ok("job", "ls", "--json", *arguments).documents]

    assert ids() == ["later-0", "later-1", "later-2", "dead", "other"]
    assert ids("--queue", "q2") == ["other"]
    assert ids("--queue", "default", "--state", "scheduled", "--limit", "1", "--offset", "1") == ["later-1"]
    assert ids("--state", "dead") == ["dead"]
    assert ids("--state", "done") == []
    table = shell.ok("job", "ls").out.splitlines()
    assert table[0].split()[:4] == ["ID", "QUEUE", "TASK", "STATE"]
    assert "error: ValueError: no" in table[4]
    empty = shell.ok("job", "ls", "--state", "done")
    assert (empty.out, empty.err) == ("", "no such jobs\n")


def test_cancel_names_what_it_left_alone(shell: Shell, hand: Hand) -> None:
    shell.ok("enqueue", "t", "--id", "running")
    hand.claim()
    shell.ok("enqueue", "t", "--id", "later", "--in", "1h")
    assert shell.ok("job", "cancel", "later").out == "later cancelled\n"
    assert shell.ok("job", "show", "later", "--json").document["state"] == "cancelled"
    shown = shell.ok("job", "show", "later").out
    assert "was to fire" in shown
    assert "fired for" not in shown
    assert shell.ok("job", "cancel", "later").out == "later cancelled\n"
    running = shell.ok("job", "cancel", "running").out
    assert running == "running cancel requested: it runs, and its worker is told\n"
    assert "cancel asked" in shell.ok("job", "show", "running").out
    assert shell.ok("job", "show", "running", "--json").document["cancel_asked_at_ms"]
    shell.ok("enqueue", "t", "--id", "ended", "--keep", "1h")
    hand.claim()
    hand.complete("ended")
    ended = shell("job", "cancel", "ended")
    assert (ended.code, ended.err) == (6, "zwheel: job ended: it has already ended: too late\n")
    assert shell("job", "cancel", "missing").code == 4


def test_cancelling_some_of_several_is_partly(shell: Shell) -> None:
    shell.ok("enqueue", "t", "--id", "a", "--in", "1h")
    done = shell("job", "cancel", "a", "missing", "a", "--json")
    assert done.code == 5
    assert done.documents == [{"job_id": "a", "outcome": "cancelled"}, {"job_id": "missing", "outcome": "unknown"}]
    assert [error["job_id"] for error in done.errors] == ["missing"]


def test_reschedule_moves_a_job(shell: Shell, hand: Hand) -> None:
    shell.ok("enqueue", "t", "--id", "a", "--in", "1h")
    out = shell.ok("job", "reschedule", "a", "--at", "2031-12-01 09:00", "--tz", "Europe/Berlin").out
    assert out.startswith("a fires 2031-12-01 08:00:00Z = ")
    document = shell.ok("job", "reschedule", "a", "--in", "0s", "--json").document
    assert document["outcome"] == "rescheduled"
    assert hand.claim() == ["a"]
    assert shell("job", "reschedule", "a", "--in", "1h").code == 6
    assert shell("job", "reschedule", "b", "--in", "1h").code == 4
    assert shell("job", "reschedule", "a").err == (
        "zwheel: say when: --in 30m or --at '2026-12-01 09:00 Europe/Berlin'\n"
    )


def test_wait_awaits_the_end_of_several(shell: Shell, hand: Hand) -> None:
    for job_id in ("a", "b"):
        shell.ok("enqueue", "t", "--id", job_id)
    process = shell.process("job", "wait", "a", "b")
    assert process.stdout is not None
    hand.claim()
    hand.complete("a")
    assert process.stdout.readline() == b"a done\n"
    hand.complete("b")
    out, err = process.communicate(timeout=100)
    assert (process.returncode, out, err) == (0, b"b done\n", b"")


def test_wait_ends_with_the_worst_of_its_jobs(shell: Shell, hand: Hand) -> None:
    for job_id in ("good", "bad"):
        shell.ok("enqueue", "t", "--id", job_id)
    shell.ok("enqueue", "t", "--id", "late", "--in", "1h")
    hand.claim()
    hand.complete("good")
    hand.bury("bad")
    assert shell("job", "wait", "good", "--timeout", "1s").code == 0
    assert shell("job", "wait", "good", "late", "--timeout", "0s").code == 7
    done = shell("job", "wait", "good", "late", "bad", "--timeout", "0s", "--json")
    assert done.code == 8
    assert [job["state"] for job in done.documents] == ["done", "dead"]
    assert [error["job_id"] for error in done.errors] == ["late"]


@pytest.mark.parametrize("arguments", [("job", "show", "a b"), ("job", "cancel", "\x1b[31m"), ("job", "wait", "")])
def test_an_id_that_cannot_exist_is_a_usage_error(shell: Shell, arguments: tuple[str, ...]) -> None:
    done = shell(*arguments)
    assert done.code == 2
    assert "is not a valid job id" in done.err
    assert "\x1b" not in done.err


def test_a_list_that_is_cut_says_so_and_names_the_queues(shell: Shell) -> None:
    for number in range(3):
        shell.ok("enqueue", "t", "--queue", "long", "--id", f"a{number}")
    shell.ok("enqueue", "t", "--queue", "short", "--id", "b")
    cut = shell.ok("job", "ls", "--limit", "2")
    assert len(cut.out.splitlines()) == 1 + 3
    assert "note: of long there are more than these 2: --offset 2 shows the next ones" in cut.err
    machine = shell.ok("job", "ls", "--limit", "2", "--json")
    assert (len(machine.documents), [(one["queues"], one["limit"]) for one in machine.errors]) == (3, [(["long"], 2)])
    assert shell.ok("job", "ls", "--limit", "3").err == ""
    assert shell.ok("job", "ls", "--limit", "2", "--offset", "1", "--queue", "long").err == ""


def test_a_large_body_is_shown_and_one_that_is_gone_is_said(shell: Shell, hand: Hand) -> None:
    numbers = [number * number for number in range(2_000)]
    shell.ok("enqueue", "t", str(numbers), "--id", "b")
    keys = hand.session.keys("default")
    assert hand.store.send([("HLEN", keys.bodies)]) == [1]
    assert shell.ok("job", "show", "b", "--json").document["args"] == [numbers]
    hand.store.send([("HDEL", keys.bodies, "b")])
    assert "cannot be read: its body of " in shell.ok("job", "show", "b").out
    document = shell.ok("job", "show", "b", "--json").document
    assert document["args"] is None and "is gone from Redis" in document["undecodable"]
