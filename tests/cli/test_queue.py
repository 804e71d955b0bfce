from __future__ import annotations

import pytest

from zwheel import operations as ops
from zwheel.broker.connect import connect_sync

from .conftest import Hand, Shell


def fill(shell: Shell, hand: Hand) -> None:
    """One job of each state, and one of another queue."""
    for job_id in ("done", "dead", "running"):
        shell.ok("enqueue", "t", "--id", job_id, "--queue", "q")
    hand.claim("q")
    hand.complete("done", "q")
    hand.bury("dead", queue="q")
    shell.ok("enqueue", "t", "--id", "due", "--queue", "q")
    shell.ok("enqueue", "t", "--id", "later", "--queue", "q", "--at", "2031-12-01T08:00Z")
    shell.ok("enqueue", "t", "--id", "other", "--queue", "other", "--in", "1h")


def test_ls_and_show_count_what_is_there(shell: Shell, hand: Hand) -> None:
    fill(shell, hand)
    other, queue = shell.ok("queue", "ls", "--json").documents
    assert other["queue"] == "other"
    assert shell.ok("queue", "show", "q", "--json").document == queue
    expected = {"scheduled": 2, "due": 1, "processing": 1, "dead": 1, "done": 1, "paused": False, "cap": None}
    assert {name: queue[name] for name in expected} == expected
    assert queue["oldest_due_ms"] == queue["next_fire_ms"]
    header, first, second = shell.ok("queue", "ls").out.splitlines()
    assert header.split() == ["QUEUE", "SCHEDULED", "DUE", "PROCESSING", "DONE", "DEAD", "WORKERS", "NEXT"]
    assert first.split()[:7] == ["other", "1", "0", "0", "0", "0", "0"]
    assert second.split()[:7] == ["q", "2", "1", "1", "1", "1", "0"]
    shown = shell.ok("queue", "show", "q").out
    assert "state          open" in shown
    assert "of these due   1, the oldest " in shown


def test_no_queues_yet(shell: Shell) -> None:
    done = shell.ok("queue", "ls")
    assert (done.out, done.err) == ("", "no queues yet: the first enqueue makes one\n")
    assert shell.ok("queue", "show", "never", "--json").document["scheduled"] == 0


def test_pause_and_resume(shell: Shell, hand: Hand) -> None:
    shell.ok("enqueue", "t", "--id", "a", "--queue", "q")
    shell.ok("enqueue", "t", "--queue", "q2", "--in", "1h")
    assert shell.ok("queue", "pause", "q", "q2").out == "q paused\nq2 paused\n"
    assert hand.claim("q") == []
    assert "paused" in shell.ok("queue", "ls").out
    assert "state          paused" in shell.ok("queue", "show", "q").out
    assert shell.ok("queue", "resume", "q", "--json").document == {"queue": "q", "paused": False}
    assert hand.claim("q") == ["a"]


def test_a_cap_is_shown(shell: Shell, hand: Hand) -> None:
    hand.store.drive(ops.set_cap(hand.session, "q", 1000))
    assert "cap            1,000 jobs" in shell.ok("queue", "show", "q").out


def test_a_queue_becomes_precise_and_is_shown_so(shell: Shell, hand: Hand) -> None:
    shell.ok("enqueue", "t", "--id", "a", "--queue", "q", "--in", "1h")
    assert "timing         when jobs are due" in shell.ok("queue", "show", "q").out
    assert shell.ok("queue", "precise", "q", "on").out == "q is precise: jobs are claimed a few ms ahead and held\n"
    assert "timing         precise: jobs are claimed a few ms ahead" in shell.ok("queue", "show", "q").out
    assert shell.ok("queue", "show", "q", "--json").document["precise"] is True
    assert shell.ok("queue", "precise", "q", "off", "--json").document == {"queue": "q", "precise": False}
    assert shell.ok("queue", "show", "q", "--json").document["precise"] is False
    assert shell("queue", "precise", "q", "maybe").code == 2


@pytest.mark.parametrize(("state", "left"), [("scheduled", 0), ("dead", 2), ("done", 2)])
def test_purge_counts_first_and_needs_yes(shell: Shell, hand: Hand, state: str, left: int) -> None:
    fill(shell, hand)
    count = 2 if state == "scheduled" else 1
    refused = shell("queue", "purge", "q", "--state", state)
    assert refused.code == 6
    jobs = "jobs" if count > 1 else "job"
    assert refused.err == (
        f"zwheel: this would delete {count} {state} {jobs} of q; nothing was changed, repeat it with --yes to do it\n"
    )
    assert shell("queue", "purge", "q", "--state", state, "--json").errors[0]["count"] == count
    before = shell.ok("queue", "show", "q", "--json").document
    assert before[state] == count
    assert shell.ok("queue", "purge", "q", "--state", state, "--yes").out == f"{count} {state} {jobs} of q deleted\n"
    after = shell.ok("queue", "show", "q", "--json").document
    assert (after[state], after["scheduled"], after["processing"]) == (0, left, 1)
    assert shell.ok("queue", "show", "other", "--json").document["scheduled"] == 1
    assert shell.ok("queue", "purge", "q", "--state", state, "--json").document == {
        "queue": "q",
        "state": state,
        "purged": 0,
    }


def test_purge_needs_a_state_and_takes_no_running_jobs(shell: Shell) -> None:
    assert "Missing option '--state'" in shell("queue", "purge", "q").err
    done = shell("queue", "purge", "q", "--state", "processing")
    assert done.code == 2
    assert "'processing' is not one of scheduled, done, dead" in done.err


def test_a_queue_that_cannot_exist_is_a_usage_error(shell: Shell) -> None:
    for arguments in (("show", "a b"), ("pause", "a b"), ("resume", ""), ("purge", "a b", "--state", "done")):
        done = shell("queue", *arguments)
        assert done.code == 2
        assert "is not a valid queue" in done.err


@pytest.mark.parametrize(
    "command",
    [
        ("queue", "pause", "q", "nope"),
        ("queue", "resume", "q", "nope"),
        ("queue", "purge", "nope", "--state", "done"),
        ("queue", "rm", "nope", "--yes"),
        ("queue", "cap", "nope", "5"),
        ("queue", "cap", "nope", "none"),
        ("queue", "precise", "nope", "on"),
        ("dead", "redrive", "--queue", "nope", "--yes"),
        ("dead", "purge", "--queue", "nope", "--yes"),
    ],
)
def test_a_slip_in_a_queues_name_is_said_and_makes_no_queue(
    shell: Shell, hand: Hand, command: tuple[str, ...], url: str
) -> None:
    shell.ok("enqueue", "t", "--id", "a", "--queue", "q")
    shell.ok("enqueue", "t", "--queue", "none", "--in", "1h")
    with connect_sync(url) as client:
        before = set(client.scan_iter(count=1000))
        done = shell(*command)
        assert (done.code, done.out) == (4, "")
        assert done.err == (
            "zwheel: queue nope: nobody has put a job there, and no worker serves it; known queues: none, q\n"
        )
        assert set(client.scan_iter(count=1000)) == before
    assert shell(*command, "--json").errors[0]["exit"] == 4
    # Nor was the other one touched that stood beside it.
    assert hand.claim("q") == ["a"]


@pytest.mark.parametrize(
    "command",
    [
        ("queue", "show", "nope"),
        ("job", "ls", "-q", "nope"),
        ("day", "ls", "-q", "nope"),
        ("day", "show", "-q", "nope"),
        ("dead", "ls", "-q", "nope"),
        ("workers", "ls", "-q", "nope"),
        ("schedule", "ls", "-q", "nope"),
    ],
)
def test_a_look_at_a_queue_that_does_not_exist_says_so(shell: Shell, command: tuple[str, ...]) -> None:
    note = "note: queue nope: nobody has put a job there, and no worker serves it; "
    assert note + "there are no queues yet\n" in shell.ok(*command).err
    shell.ok("enqueue", "t", "--queue", "q")
    assert note + "known queues: q\n" in shell.ok(*command).err
    assert [info["queue"] for info in shell.ok("queue", "ls", "--json").documents] == ["q"]


def test_a_queue_may_be_paused_before_its_first_job(shell: Shell, hand: Hand) -> None:
    assert shell.ok("queue", "pause", "new", "--create").out == "new paused\n"
    shell.ok("enqueue", "t", "--id", "a", "--queue", "new")
    assert hand.claim("new") == []
    shell.ok("queue", "resume", "new")
    assert hand.claim("new") == ["a"]


def test_a_queue_may_be_limited_and_precise_before_its_first_job(shell: Shell) -> None:
    assert shell.ok("queue", "cap", "new", "5", "--create").out == "new takes 5 living jobs at the most\n"
    shell.ok("queue", "precise", "bids", "on", "--create")
    shown = {info["queue"]: (info["cap"], info["precise"]) for info in shell.ok("queue", "ls", "--json").documents}
    assert shown == {"new": (5, False), "bids": (None, True)}


def test_of_many_known_queues_the_most_alike_are_named(shell: Shell) -> None:
    for n in range(10):
        shell.ok("enqueue", "t", "--queue", f"reports-{n}")
    shell.ok("enqueue", "t", "--queue", "emails")
    said = shell("queue", "pause", "email").err
    assert "known queues: emails, " in said
    assert said.endswith(" and 3 more, see zwheel queue ls\n")


def test_a_queue_is_made_with_shards_once(shell: Shell) -> None:
    assert shell.ok("queue", "create", "orders", "--shards", "3").out == "orders has 3 shards\n"
    assert shell.ok("queue", "create", "orders", "--shards", "3", "--json").document == {"queue": "orders", "shards": 3}
    other = shell("queue", "create", "orders", "--shards", "4")
    assert (other.code, other.err) == (6, "zwheel: queue 'orders' exists already, with 3 shards\n")
    for wrong in ("0", "-2", "1025"):
        done = shell("queue", "create", "new", "--shards", wrong)
        assert done.code == 2 and "between 1 and 1,024" in done.err
    assert shell("queue", "create", "new", "--shards", "many").code == 2
    assert shell("queue", "create", "a/b").code == 2
    shell.ok("enqueue", "t", "1", "--queue", "orders", "--id", "a")
    shell.ok("enqueue", "t", "2", "--queue", "orders", "--id", "b", "--in", "1h")
    shown = shell.ok("queue", "show", "orders").out
    assert "\nscheduled      2\n" in shown and "\nshards         3\n" in shown
    assert shell.ok("queue", "show", "orders", "--json").document["shards"] == 3
    listed = shell.ok("queue", "ls").out
    assert listed.count("orders") == 1 and "/" not in listed.splitlines()[1]
    assert shell.ok("job", "show", "b", "--json").document["queue"] == "orders"
    assert "a" in shell.ok("job", "ls", "--queue", "orders").out
    shell.ok("job", "cancel", "b")
    assert "places" in shell.ok("doctor", "--queue", "orders").out


def test_doctor_looks_at_each_shard_and_repairs_it(shell: Shell, hand: Hand) -> None:
    shell.ok("queue", "create", "orders", "--shards", "3")
    for number in range(9):
        shell.ok("enqueue", "t", str(number), "--queue", "orders", "--id", f"j{number}", "--in", "1h")
    hand.store.send([("ZADD", hand.session.keys("orders/1of3").dead, 5, "ghost")])
    found = shell("doctor", "--queue", "orders")
    assert "orders/1of3" in found.out and "ghost" in found.out and "--repair --queue orders`" in found.out
    repaired = shell.ok("doctor", "--repair", "--yes")
    assert "repaired orders/1of3: 1 thing" in repaired.out
    assert "ghost" not in shell.ok("doctor").out


def test_a_queue_is_removed_with_what_is_in_it_after_a_yes(shell: Shell, hand: Hand) -> None:
    for name in ("a", "b"):
        shell.ok("enqueue", "t", "--id", name, "--queue", "q", "--in", "1h")
    shell.ok("schedule", "add", "s", "@daily", "t", "--queue", "q")
    refused = shell("queue", "rm", "q")
    what = "this would delete q with 2 jobs and 1 schedule; nothing was changed, repeat it with --yes to do it"
    assert (refused.code, refused.err) == (6, f"zwheel: {what}\n")
    done = shell.ok("queue", "rm", "q", "--yes", "--json").document
    assert (done["queue"], done["schedules"]) == ("q", 1)
    assert done["jobs"] >= 2
    assert shell.ok("queue", "ls", "--json").documents == []
    assert shell("queue", "rm", "q").code == 4
    shell.ok("queue", "create", "q", "--shards", "2")
    assert shell.ok("queue", "rm", "q").out == "q removed\n"


def test_a_queue_with_jobs_that_are_held_is_not_removed(shell: Shell, hand: Hand) -> None:
    shell.ok("enqueue", "t", "--id", "a", "--queue", "q")
    assert hand.claim("q") == ["a"]
    done = shell("queue", "rm", "q", "--yes")
    held = "1 job of it is held by workers that are gone: start a worker, which takes them back"
    assert (done.code, done.err) == (6, f"zwheel: queue 'q' is not removed: {held}\n")


def test_a_queue_is_cut_anew(shell: Shell) -> None:
    for number in range(9):
        shell.ok("enqueue", "t", str(number), "--queue", "orders", "--id", f"j{number}", "--in", "1h")
    done = shell.ok("queue", "reshard", "orders", "--shards", "4")
    assert done.out.startswith("orders has 4 shards; 9 jobs moved in ")
    assert shell.ok("queue", "show", "orders", "--json").document["shards"] == 4
    assert shell.ok("queue", "reshard", "orders", "--shards", "4").out == "orders has 4 shards already\n"
    told = shell.ok("queue", "reshard", "orders", "--shards", "2", "--json").document
    assert told == {"queue": "orders", "shards": 2, "changed": True, "moved": 9, "left": 0, "done": True}
    assert shell.ok("job", "show", "j7", "--json").document["state"] == "scheduled"
    for wrong in ("0", "-1", "1025"):
        refused = shell("queue", "reshard", "orders", "--shards", wrong)
        assert refused.code == 2 and "between 1 and 1,024" in refused.err
    assert shell("queue", "reshard", "orders").code == 2
    missing = shell("queue", "reshard", "order", "--shards", "3")
    assert missing.code == 4 and "orders" in missing.err


def test_a_job_that_runs_stays_behind_and_is_named(shell: Shell, hand: Hand) -> None:
    shell.ok("enqueue", "t", "1", "--queue", "orders", "--id", "a")
    shell.ok("enqueue", "t", "2", "--queue", "orders", "--id", "b", "--in", "1h")
    assert hand.claim("orders") == ["a"]
    done = shell.ok("queue", "reshard", "orders", "--shards", "3", "--no-wait")
    assert "1 job moved" in done.out
    assert "1 job in the former shards, 1 running: workers move the rest" in done.err
    assert (
        "\nshards         3; jobs of its former 1 shard are on their way\n" in shell.ok("queue", "show", "orders").out
    )
    assert shell.ok("queue", "show", "orders", "--json").document["former_shards"] == 1
    other = shell("queue", "reshard", "orders", "--shards", "5")
    assert other.code == 6 and "3 shards" in other.err
    assert "orders" in shell.ok("doctor", "--queue", "orders").out
    hand.complete("a", "orders")
    assert shell.ok("queue", "reshard", "orders", "--shards", "3", "--json").document["done"] is True
    assert "former_shards" not in shell.ok("queue", "show", "orders", "--json").document
