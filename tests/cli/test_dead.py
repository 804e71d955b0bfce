from __future__ import annotations

import time

import pytest

from zwheel.cli import dead as dead_module
from zwheel.job import Failure

from .conftest import Hand, Shell


def died(reason: str) -> Failure:
    return Failure(at_ms=1_795_000_000_000, attempt=1, reason=reason, kind="Oops", message=f"{reason} happened")


def fill(shell: Shell, hand: Hand) -> None:
    """Three dead jobs of two tasks and two reasons, one of them long dead, and a living one."""
    for job_id, task in (("a", "mail"), ("b", "mail"), ("c", "report")):
        shell.ok("enqueue", task, "--id", job_id)
    hand.claim()
    for job_id, reason in (("a", "timeout"), ("b", "error"), ("c", "timeout")):
        hand.bury(job_id, died(reason))
    long_ago_ms = int(time.time() * 1000) - 3 * 86_400_000
    hand.store.send([("ZADD", hand.session.keys("default").dead, long_ago_ms, "a")])
    shell.ok("enqueue", "mail", "--id", "living", "--in", "1h")


def ids(shell: Shell, *arguments: str) -> set[str]:
    return {job["id"] for job in shell.ok("dead", "ls", "--json", *arguments).documents}


def state(shell: Shell, job_id: str) -> str | None:
    done = shell("job", "show", job_id, "--json")
    return None if done.code == 4 else str(done.document["state"])


def test_ls_lists_dead_jobs_and_filters_them(shell: Shell, hand: Hand) -> None:
    fill(shell, hand)
    assert ids(shell) == {"a", "b", "c"}
    assert ids(shell, "--reason", "timeout") == {"a", "c"}
    assert ids(shell, "--task", "mail") == {"a", "b"}
    assert ids(shell, "--task", "mail", "--reason", "timeout") == {"a"}
    assert ids(shell, "--older-than", "2d") == {"a"}
    assert ids(shell, "--queue", "other") == set()
    assert len(ids(shell, "--reason", "timeout", "--limit", "1")) == 1
    first = ids(shell, "--reason", "timeout", "--limit", "1")
    assert ids(shell, "--reason", "timeout", "--offset", "1") == {"a", "c"} - first
    table = shell.ok("dead", "ls", "--older-than", "2d").out.splitlines()
    assert table[0].split()[:3] == ["ID", "QUEUE", "TASK"]
    assert "timeout: Oops: timeout happened" in table[1]


def test_no_dead_jobs(shell: Shell) -> None:
    assert shell.ok("dead", "ls").err == "no dead jobs\n"


def test_show_is_for_dead_jobs_only(shell: Shell, hand: Hand) -> None:
    fill(shell, hand)
    assert "dead because  timeout" in shell.ok("dead", "show", "a").out
    assert shell.ok("dead", "show", "a", "--json").document["failures"][0]["message"] == "timeout happened"
    done = shell("dead", "show", "living")
    assert (done.code, done.err) == (6, "zwheel: job living is scheduled, not dead\n")


def test_named_jobs_are_redriven_without_a_question(shell: Shell, hand: Hand) -> None:
    fill(shell, hand)
    assert shell.ok("dead", "redrive", "a", "b").out == "a redriven\nb redriven\n"
    assert [state(shell, job_id) for job_id in "abc"] == ["scheduled", "scheduled", "dead"]
    assert set(hand.claim()) == {"a", "b"}


@pytest.mark.parametrize(("verb", "word", "after"), [("redrive", "redriven", "scheduled"), ("purge", "deleted", None)])
def test_json_tells_the_state_in_which_a_named_job_is_left(
    shell: Shell, hand: Hand, verb: str, word: str, after: str | None
) -> None:
    fill(shell, hand)
    assert shell.ok("dead", verb, "a", "--json").document == {"job_id": "a", word: True, "state": after}


def test_named_jobs_that_are_not_dead_are_said(shell: Shell, hand: Hand) -> None:
    fill(shell, hand)
    done = shell("dead", "purge", "a", "living", "missing")
    assert (done.code, done.out) == (5, "a deleted\n")
    assert done.err == "zwheel: job living: it is scheduled, not dead\nzwheel: job missing: no such job\n"
    nothing = shell("dead", "redrive", "living", "--json")
    assert nothing.code == 4
    assert nothing.document == {"job_id": "living", "redriven": False, "state": "scheduled"}


def test_a_dead_job_whose_unique_key_is_held_again_stays_dead(shell: Shell, hand: Hand) -> None:
    shell.ok("enqueue", "t", "--id", "a", "--unique", "key")
    hand.kill("a")
    shell.ok("enqueue", "t", "--id", "b", "--unique", "key", "--in", "1h")
    done = shell("dead", "redrive", "a")
    assert (done.code, done.err) == (4, "zwheel: job a: another job holds its unique key by now\n")
    assert state(shell, "a") == "dead"


@pytest.mark.parametrize(("verb", "word", "after"), [("redrive", "redriven", "scheduled"), ("purge", "deleted", None)])
def test_a_whole_queue_is_counted_first_and_needs_yes(
    shell: Shell, hand: Hand, verb: str, word: str, after: str | None
) -> None:
    fill(shell, hand)
    act = "delete" if verb == "purge" else verb
    refused = shell("dead", verb, "--queue", "default")
    assert refused.code == 6
    assert f"this would {act} 3 dead jobs of default; nothing was changed" in refused.err
    assert ids(shell) == {"a", "b", "c"}
    done = shell.ok("dead", verb, "--queue", "default", "--yes")
    assert done.out == f"3 dead jobs of default {word}\n"
    assert [state(shell, job_id) for job_id in "abc"] == [after] * 3
    assert state(shell, "living") == "scheduled"
    assert shell.ok("dead", verb, "--queue", "default", "--json").document == {"queue": "default", word: 0}


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        (("--reason", "timeout"), {"b"}),
        (("--task", "mail"), {"c"}),
        (("--older-than", "2d"), {"b", "c"}),
        (("--older-than", "9d"), {"a", "b", "c"}),
    ],
)
@pytest.mark.parametrize("verb", ["redrive", "purge"])
def test_a_filter_takes_just_the_jobs_it_counted(
    shell: Shell, hand: Hand, verb: str, arguments: tuple[str, ...], left: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_module, "PAGE", 1)
    fill(shell, hand)
    count = 3 - len(left)
    if count:
        jobs = "jobs" if count > 1 else "job"
        assert f"{count} dead {jobs} of default" in shell("dead", verb, "--queue", "default", *arguments).err
    done = shell.ok("dead", verb, "--queue", "default", *arguments, "--yes", "--json")
    assert count in done.document.values()
    assert ids(shell) == left


def test_it_must_be_said_which_jobs(shell: Shell) -> None:
    for verb, word in (("redrive", "redrive"), ("purge", "delete")):
        done = shell("dead", verb, "--yes")
        assert (done.code, done.err) == (
            2,
            f"zwheel: say which jobs to {word}: their ids, --queue NAME, or a filter such as --task NAME\n",
        )
        done = shell("dead", verb, "a", "--reason", "timeout")
        assert (done.code, done.err) == (2, "zwheel: name the jobs or give a filter, not both\n")


@pytest.mark.parametrize("verb", ["redrive", "purge"])
def test_a_filter_without_a_queue_looks_into_all_of_them(shell: Shell, hand: Hand, verb: str) -> None:
    """The help said so, and the command asked for a queue."""
    fill(shell, hand)
    shell.ok("enqueue", "mail", "--id", "elsewhere", "--queue", "other", "--in", "1h")
    asked = shell("dead", verb, "--task", "mail")
    assert (asked.code, ids(shell)) == (6, {"a", "b", "c"})
    assert (
        f"this would {'delete' if verb == 'purge' else verb} 2 dead jobs of default; nothing was changed" in asked.err
    )
    done = shell.ok("dead", verb, "--task", "mail", "--yes", "--json")
    assert [(row["queue"], row["deleted" if verb == "purge" else "redriven"]) for row in done.documents] == [
        ("default", 2)
    ]
    assert ids(shell) == {"c"}
    assert "no dead job is meant" in shell.ok("dead", verb, "--task", "mail", "--yes").err


@pytest.mark.raw_keys
def test_a_filter_leaves_a_queue_out_that_cannot_be_read_and_says_so(shell: Shell, hand: Hand) -> None:
    fill(shell, hand)
    shell.ok("enqueue", "mail", "--queue", "broken", "--in", "1h")
    hand.store.send([("SET", hand.session.keys("broken").dead, "x")])
    done = shell("dead", "redrive", "--task", "mail", "--yes")
    assert (done.code, ids(shell, "--queue", "default")) == (5, {"c"})
    assert "queue broken is left out: " in done.err


@pytest.mark.raw_keys
def test_a_damaged_record_can_be_got_rid_of(shell: Shell, hand: Hand) -> None:
    fill(shell, hand)
    hand.store.send([("HSET", hand.session.keys("default").jobs, "a", "garbage")])
    done = shell("dead", "redrive", "a")
    assert done.code == 4
    assert "its record is damaged, or was written by another version" in done.err
    assert "zwheel dead purge a" in done.err
    shell.ok("dead", "purge", "a")
    assert ids(shell) == {"b", "c"}


@pytest.mark.raw_keys
def test_a_dead_job_that_cannot_be_read_is_listed_all_the_same(shell: Shell, hand: Hand) -> None:
    fill(shell, hand)
    hand.store.send([("HSET", hand.session.keys("default").jobs, "a", "garbage")])
    listed = shell.ok("dead", "ls", "--json").documents
    assert [one["id"] for one in listed if "unreadable" in one] == ["a"]


def test_a_list_of_dead_jobs_that_is_cut_says_so(shell: Shell, hand: Hand) -> None:
    for name in ("a", "b", "c"):
        shell.ok("enqueue", "t", "--id", name)
    hand.kill("a", "b", "c")
    for words in ((), ("--task", "t")):
        cut = shell.ok("dead", "ls", "--limit", "2", *words)
        assert len(cut.out.splitlines()) == 1 + 2
        assert "of default there are more than these 2: --offset 2" in cut.err
        assert shell.ok("dead", "ls", "--limit", "1", "--offset", "2", *words).err == ""
        assert [one["limit"] for one in shell.ok("dead", "ls", "--limit", "2", *words, "--json").errors] == [2]
