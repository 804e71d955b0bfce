from __future__ import annotations

import json
import signal
from datetime import UTC, datetime
from pathlib import Path

import pytest

from .conftest import Hand, Shell, served

HOUR_MS = 3_600_000


def test_a_job_is_enqueued_with_all_its_options(shell: Shell) -> None:
    done = shell.ok(
        *("enqueue", "emails.send", "7", "to=ann@example.com", "n:=[2]", "--json"),
        *("--at", "2031-12-01 09:00 Europe/Berlin", "--queue", "mail", "--id", "mail-1", "--retries", "2"),
        *("--timeout", "30s", "--keep", "5m", "--header", "trace=1", "--unique", "ann", "--within", "1h"),
    )
    fire_at_ms = int(datetime(2031, 12, 1, 8, tzinfo=UTC).timestamp() * 1000)
    assert done.document == {
        "job_id": "mail-1",
        "existed": False,
        "queue": "mail",
        "state": "scheduled",
        "fire_at": "2031-12-01T08:00:00.000Z",
        "fire_at_ms": fire_at_ms,
        "unserved": ["no worker has published a task emails.send, and no live worker serves queue mail"],
    }
    job = shell.ok("job", "show", "mail-1", "--json").document
    expected = {
        "task": "emails.send",
        "queue": "mail",
        "fire_at_ms": fire_at_ms,
        "max_attempts": 3,
        "keep_ms": 300_000,
        "timeout_ms": 30_000,
        "args": [7],
        "kwargs": {"to": "ann@example.com", "n": [2]},
        "headers": {"trace": "1"},
        "state": "scheduled",
    }
    assert {name: job[name] for name in expected} == expected
    assert job["dedup"] is not None


def test_in_is_counted_by_the_servers_clock_and_keep_is_an_hour(shell: Shell, hand: Hand) -> None:
    fire_at_ms = shell.ok("enqueue", "t", "--in", "10m", "--json").document["fire_at_ms"]
    ((seconds, micros),) = hand.store.send([("TIME",)])
    now_ms = int(seconds) * 1000 + int(micros) // 1000
    assert now_ms + 600_000 - 10_000 < fire_at_ms <= now_ms + 600_001  # counted from the next whole ms
    (job,) = shell.ok("job", "ls", "--json").documents
    assert job["keep_ms"] == HOUR_MS


def test_people_read_where_and_when(shell: Shell) -> None:
    out = shell.ok("enqueue", "t", "--id", "a", "--at", "2031-12-01T08:00Z", "--tz", "Europe/Berlin").out
    assert out.startswith("a enqueued in default, fires 2031-12-01 08:00:00Z = 2031-12-01 09:00:00 +0100 Europe/Berlin")
    assert shell.ok("enqueue", "t", "--id", "b", "--quiet").out == "b\n"


def test_an_id_that_exists_is_answered_and_changes_nothing(shell: Shell) -> None:
    shell.ok("enqueue", "t", "1", "--id", "a", "--in", "1h")
    again = shell("enqueue", "other", "2", "--id", "a", "--in", "2h")
    assert again.code == 6
    assert "a exists in default: scheduled" in again.out
    (said,) = again.err.splitlines()
    assert said.startswith("zwheel: nothing was stored: job a exists in default and is scheduled; ")
    assert "zwheel job reschedule a" in said and "zwheel job cancel a" in said
    assert shell.ok("job", "show", "a", "--json").document["args"] == [1]
    again = shell("enqueue", "t", "--id", "a", "--json", "--replace")
    assert (again.code, again.document["existed"], again.document["state"]) == (6, True, "scheduled")
    (error,) = again.errors
    assert (error["kind"], error["job_id"], error["state"], error["exit"]) == ("JobExists", "a", "scheduled", 6)
    assert shell("enqueue", "t", "--id", "a", "--quiet").out == "a\n"


def test_after_a_cancel_the_same_line_enqueues_again(shell: Shell) -> None:
    shell.ok("enqueue", "remind", "--id", "a", "--in", "1h")
    shell.ok("job", "cancel", "a")
    again = shell.ok("enqueue", "remind", "--id", "a", "--in", "2h")
    assert again.out.startswith("a enqueued in default in the place of the job that had ended, fires ")
    shell.ok("job", "cancel", "a")
    document = shell.ok("enqueue", "remind", "--id", "a", "--in", "2h", "--json").document
    assert (document["existed"], document["replaced"], document["state"]) == (False, True, "scheduled")


@pytest.mark.parametrize("end", ["done", "dead"])
def test_replace_takes_the_place_of_a_job_that_ended(shell: Shell, hand: Hand, end: str) -> None:
    shell.ok("enqueue", "t", "--id", "a")
    if end == "dead":
        hand.kill("a")
    else:
        hand.claim()
        hand.complete("a")
    refused = shell("enqueue", "t", "--id", "a")
    assert refused.code == 6
    assert f"job a exists in default and is {end}; for a new one in its place: --replace" in refused.err
    assert ("zwheel dead redrive a" in refused.err) == (end == "dead")
    shell.ok("enqueue", "t", "--id", "a", "--replace", "--in", "1h")
    assert shell.ok("job", "show", "a", "--json").document["state"] == "scheduled"
    refused = shell("enqueue", "t", "--id", "a", "--replace")
    assert (refused.code, "zwheel job cancel a" in refused.err) == (6, True)


def test_a_running_job_is_not_replaced(shell: Shell, hand: Hand) -> None:
    shell.ok("enqueue", "t", "--id", "a")
    hand.claim()
    refused = shell("enqueue", "t", "--id", "a", "--replace")
    assert refused.code == 6
    assert "is processing; it goes on; when it has ended, enqueue again with --replace" in refused.err


def test_a_record_that_cannot_be_read_is_left_alone_and_said_to_be(shell: Shell, hand: Hand) -> None:
    shell.ok("enqueue", "t", "--id", "a", "--in", "1h")
    shell.ok("job", "cancel", "a")
    keys = hand.store.session.keys("default")
    (raw,) = hand.store.send([("HGET", keys.jobs, "a")])
    hand.store.send([("HSET", keys.jobs, "a", b"3" + raw[1:])])
    refused = shell("enqueue", "t", "--id", "a", "--replace")
    assert refused.code == 6
    assert "this version cannot read its record" in refused.err


def test_a_held_unique_key_is_refused_with_the_job_that_holds_it(shell: Shell) -> None:
    shell.ok("enqueue", "t", "--id", "a", "--unique", "key", "--in", "1h")
    refused = shell("enqueue", "t", "--id", "b", "--unique", "key")
    assert refused.code == 6
    assert "a holds the unique key" in refused.out
    assert (
        "nothing was stored: job a holds the unique key in default and is scheduled; zwheel job cancel a" in refused.err
    )
    assert shell("enqueue", "t", "--unique", "key", "--json").document["job_id"] == "a"
    assert len(shell.ok("job", "ls", "--json").documents) == 1


def test_a_dry_run_needs_no_server_and_sends_nothing(bare: Shell) -> None:
    shown = bare.ok("enqueue", "t", "1", "--in", "10m", "--keep", "1d", "--dry-run").out
    assert "fires  " in shown
    document = bare.ok("enqueue", "t", "1", "x=y", "--keep", "1d", "--dry-run", "--json").document
    assert document["dry_run"]
    assert (document["args"], document["kwargs"], document["keep_ms"]) == ([1], {"x": "y"}, 86_400_000)
    assert document["bytes"] > 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "say which task to enqueue, or --jsonl FILE"),
        (("t", "--in", "1h", "--at", "2031-01-01T00:00Z"), "--in and --at contradict each other"),
        (("t", "--in", "10"), "--in: '10' is not a duration"),
        (("t", "--at", "2031-01-01 09:00"), "--at: '2031-01-01 09:00' has no time zone"),
        (("t", "--within", "1h"), "--within needs --unique"),
        (("t", "--replace"), "--replace needs --id"),
        (("bad name",), "'bad name' is not a valid task"),
        (("t", "--queue", "a b"), "'a b' is not a valid queue"),
        (("t", "--id", "a b"), "'a b' is not a valid job id"),
        (("t", "word"), "'word' is not JSON"),
        (("t", "--retries", "-1"), "-1 must be at least 0"),
        (("t", "--retries", "many"), "'many' is not a whole number"),
        (("t", "--wait", "--keep", "0s"), "--wait needs --keep"),
        (("t", "--wait=soon"), "--wait: 'soon' is not a duration"),
        (("t", "--header", "x"), "write it as name=value"),
        (("t", "@nowhere.json"), "nowhere.json: No such file or directory"),
        (("t", "--jsonl", "-"), "TASK belongs to one job"),
        (("--jsonl", "-", "--wait"), "--wait belongs to one job"),
        (("t", "--tz", "Mars/Olympus"), "--tz: 'Mars/Olympus' is not the name of a time zone"),
        (("t", "--redis-timeout", "0s"), "--redis-timeout must be longer than nothing"),
        (("t", "--durable", "disk"), "'disk' is none of memory, fsynced and replicated(N)"),
        (("t", "--nonsense"), "No such option: --nonsense"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence_before_anything_is_sent(
    bare: Shell, arguments: tuple[str, ...], sentence: str
) -> None:
    done = bare("enqueue", *arguments)
    assert done.code == 2
    assert sentence in done.err
    assert len(done.err.splitlines()) == 1
    assert done.out == ""
    (error,) = bare("enqueue", *arguments, "--json").errors
    assert sentence in error["error"]
    assert error["exit"] == 2


def test_a_secret_on_the_command_line_gets_a_note(shell: Shell, tmp_path: Path) -> None:
    assert "others can read a command line" in shell.ok("enqueue", "t", "password=x").err
    (tmp_path / "secret.json").write_text('"x"')
    assert shell.ok("enqueue", "t", "password:=@secret.json").said == ""


def test_wait_shows_how_the_job_ended(shell: Shell, hand: Hand) -> None:
    process = shell.process("enqueue", "t", "--id", "a", "--wait")
    assert process.stdout is not None
    assert process.stdout.readline().startswith(b"a enqueued")
    hand.claim()
    hand.complete("a")
    out, err = process.communicate(timeout=100)
    assert (process.returncode, out, served(err.decode())) == (0, b"a done\n", "")


def test_waiting_for_a_job_that_dies_is_a_failure(shell: Shell, hand: Hand) -> None:
    process = shell.process("enqueue", "t", "--id", "a", "--wait=60")
    assert process.stdout is not None
    process.stdout.readline()
    hand.kill("a")
    out, _ = process.communicate(timeout=100)
    assert (process.returncode, out) == (8, b"a dead, error: ValueError: no\n")


def test_waiting_has_an_end(shell: Shell) -> None:
    done = shell("enqueue", "t", "--id", "a", "--in", "1h", "--wait=0")
    assert done.code == 7
    assert "job a is still scheduled" in done.err


def test_a_wait_that_is_over_names_its_job_for_machines(shell: Shell) -> None:
    done = shell("enqueue", "t", "--id", "a", "--in", "1h", "--wait=0", "--json")
    assert (done.code, done.errors[-1]["kind"], done.errors[-1]["job_id"]) == (7, "WaitTimeout", "a")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full disk at hand")
@pytest.mark.parametrize("more", [(), ("--json",), ("--quiet",)])
def test_a_job_that_was_stored_is_named_when_that_cannot_be_written(shell: Shell, more: tuple[str, ...]) -> None:
    with open("/dev/full", "w") as full:
        process = shell.process("enqueue", "t", "--id", "a", *more, stdout=full)
        _, err = process.communicate(timeout=100)
    assert process.returncode == 1
    assert "No space left on device; job a was stored in queue default all the same" in err.decode()
    assert shell.ok("job", "show", "a", "--json").document["id"] == "a"


def test_a_number_behind_a_wait_alone_is_named_as_the_argument_that_it_is(shell: Shell) -> None:
    assert "--wait=5" in shell.ok("enqueue", "t", "--wait", "5", "--dry-run").err
    assert "--wait=1.5s" in shell("enqueue", "--wait", "1.5s", "t", "--dry-run").err
    for words in (("t", "5", "--wait"), ("--wait", "t", "5"), ("--wait=5", "t"), ("--", "sleep", "--wait", "5")):
        assert "--wait=" not in shell.ok("enqueue", "--dry-run", *words).err, words


def test_a_fire_time_that_is_long_past_is_remarked_on(shell: Shell) -> None:
    assert "long past" in shell.ok("enqueue", "t", "--id", "a", "--at", "2020-01-01T09:00Z").err
    assert "long past" not in shell.ok("enqueue", "t", "--at", "2031-01-01T09:00Z").err
    assert "long past" in shell("job", "reschedule", "a", "--at", "2020-01-01T09:00Z").err


def test_with_json_only_the_ended_job_is_written(shell: Shell, hand: Hand) -> None:
    shell.ok("enqueue", "t", "--id", "a")
    hand.claim()
    hand.complete("a")
    document = shell.ok("enqueue", "t", "--id", "a", "--wait", "--json").document
    assert (document["id"], document["state"]) == ("a", "done")


def test_ctrl_c_ends_a_wait_quietly(shell: Shell) -> None:
    process = shell.process("enqueue", "t", "--id", "a", "--in", "1h", "--wait")
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=100)
    assert (process.returncode, served(err.decode())) == (130, "")
    assert shell.ok("job", "show", "a", "--json").document["state"] == "scheduled"


def test_shared_options_stand_before_and_after_the_command(shell: Shell) -> None:
    for arguments in (("--json", "enqueue", "t"), ("enqueue", "--json", "t"), ("enqueue", "t", "--json")):
        assert not shell.ok(*arguments).document["existed"]
    for arguments in (("--json", "queue", "ls"), ("queue", "--json", "ls"), ("queue", "ls", "--json")):
        (queue,) = shell.ok(*arguments).documents
        assert queue["scheduled"] == 3


def test_what_stands_nearer_to_the_command_wins(shell: Shell) -> None:
    shell.ok("-n", "one", "enqueue", "t", "-n", "zw")
    assert json.loads(shell.ok("queue", "ls", "--json").out)["scheduled"] == 1


def test_a_job_that_is_not_confirmed_is_told_with_its_receipt(shell: Shell, tmp_path: Path) -> None:
    asked = ("enqueue", "t", "--durable", "replicated(9)", "--redis-timeout", "2s")
    done = shell(*asked, "--id", "a")
    assert (done.code, done.out.splitlines()[0].split(" in ")[0]) == (5, "a enqueued")
    assert "job a of queue default: stored, but not confirmed as replicated(9) in time, only as memory" in done.said
    told = shell(*asked, "--id", "b", "--json")
    assert (told.code, told.document["existed"], told.document["receipt"]) == (
        5,
        False,
        {"replicas": 0, "fsynced": False},
    )
    assert told.errors[0]["kind"] == "NotDurable"
    file = tmp_path / "jobs"
    file.write_text('{"task": "t", "id": "c", "durable": "replicated(9)"}\n{"task": "t", "id": "d", "queue": "e"}\n')
    done = shell("enqueue", "--jsonl", str(file), "--redis-timeout", "2s")
    assert done.code == 5
    assert "2 enqueued, 2 not confirmed as durable" in done.out
    assert {job["id"] for job in shell.ok("job", "ls", "--json").documents} == {"a", "b", "c", "d"}


@pytest.mark.parametrize(
    ("when", "why"),
    [
        ("10", "'10' is not a duration: say the unit, 10s for seconds"),
        ("0", "say the unit"),
        ("-5m", "it cannot be negative"),
        ("99999999d", "goes beyond the year 9999"),
        ("0s", "must be longer than nothing"),
        ("garbage", "is neither a duration such as 10m nor a time such as"),
        ("", "is neither a duration such as 10m nor a time such as"),
        ("2020-01-01 00:00 UTC", "is not after the job's fire time: it would never start"),
    ],
)
def test_a_time_to_expire_that_makes_no_sense_is_told_with_the_cure(shell: Shell, when: str, why: str) -> None:
    done = shell("enqueue", "t", f"--expires={when}")
    assert (done.code, why in done.err) == (2, True), done.err


def test_when_a_job_expires_is_shown_before_and_after(shell: Shell) -> None:
    for when in ("10m", "2090-01-01 00:00 UTC"):
        assert "expires" in shell.ok("enqueue", "t", "--expires", when, "--dry-run").out
        document = shell.ok("enqueue", "t", "--expires", when, "--dry-run", "--json").document
        assert document.get("expires_ms", document.get("expires_at_ms")) in (600_000, 3_786_912_000_000)
    shell.ok("enqueue", "t", "--id", "a", "--in", "1h", "--expires", "10m")
    assert "expires" in shell.ok("job", "show", "a").out
    shown = shell.ok("job", "show", "a", "--json").document
    assert shown["expires_at_ms"] == shown["fire_at_ms"] + 600_000
