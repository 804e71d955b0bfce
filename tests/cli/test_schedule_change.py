"""`zwheel schedule pause`, `resume`, `trigger`, `remove` and `backfill` on a real server."""

from __future__ import annotations

import time

import pytest

from zwheel import SyncWheel
from zwheel.client.backfill import LIMIT
from zwheel.schedules.state import Status

from .conftest import Hand, Shell
from .test_terminal import on_terminal

FAR = "0 0 1 1 *"
DAYS = ("--from", "2021-01-01T00:00Z", "--to", "2021-01-03T00:00Z")


def add(shell: Shell, *names: str) -> None:
    for name in names:
        shell.ok("schedule", "add", name, FAR, "t", "x=1")


def status(url: str, name: str) -> Status:
    with SyncWheel(url, namespace="zw") as wheel:
        return wheel.schedule(name).status


def names(url: str) -> list[str]:
    with SyncWheel(url, namespace="zw") as wheel:
        return [info.name for info in wheel.schedules()]


def test_pause_and_resume(shell: Shell, url: str) -> None:
    add(shell, "a", "b")
    assert shell.ok("schedule", "pause", "a", "b").out == "a paused\nb paused\n"
    assert (status(url, "a"), status(url, "b")) == (Status.PAUSED, Status.PAUSED)
    shell.ok("schedule", "pause", "a")
    assert shell.ok("schedule", "resume", "a").out.startswith("a resumed, next 20")
    document = shell.ok("schedule", "resume", "b", "--json").document
    assert {key: document[key] for key in ("schedule", "queue", "status")} == {
        "schedule": "b", "queue": "default", "status": "active",
    }  # fmt: skip
    assert document["next"].endswith("-01-01T00:00:00.000Z")
    assert (status(url, "a"), status(url, "b")) == (Status.ACTIVE, Status.ACTIVE)


@pytest.mark.parametrize("catch_up", [False, True])
def test_resume_goes_on_from_now_unless_it_is_to_catch_up(shell: Shell, url: str, catch_up: bool) -> None:
    add(shell, "a")
    shell.ok("schedule", "pause", "a")
    with SyncWheel(url, namespace="zw") as wheel:
        cursor = wheel.schedule("a").state.cursor_ms
        while time.time_ns() // 1_000_000 <= cursor + 1:
            pass
        shell.ok("schedule", "resume", "a", *(("--catch-up",) if catch_up else ()))
        assert (wheel.schedule("a").state.cursor_ms == cursor) == catch_up


def test_what_is_finished_is_neither_paused_nor_resumed(shell: Shell, url: str) -> None:
    shell.ok("schedule", "add", "a", "at 2021-01-01T00:00Z", "t")
    assert status(url, "a") is Status.FINISHED
    for act in ("pause", "resume"):
        done = shell("schedule", act, "a")
        assert (done.code, done.out, done.err.count("\n")) == (6, "", 1)
        assert "is finished" in done.err


def test_trigger_runs_the_job_now(shell: Shell, hand: Hand) -> None:
    add(shell, "a")
    document = shell.ok("schedule", "trigger", "a", "--json").document
    assert (document["schedule"], document["queue"]) == ("a", "default")
    assert document["job_id"].startswith("a@")
    assert document["job_id"].endswith("Z:trigger")
    assert shell.ok("job", "show", document["job_id"], "--json").document["kwargs"] == {"x": "1"}
    job_id = shell.ok("schedule", "trigger", "a", "--quiet").out.strip()
    assert job_id in shell.ok("job", "ls").out
    shell.ok("schedule", "pause", "a")
    assert " enqueued in default" in shell.ok("schedule", "trigger", "a").out


@pytest.mark.parametrize("act", ["pause", "resume", "trigger", "remove"])
def test_what_is_not_there_is_exit_4_and_among_others_5(shell: Shell, act: str) -> None:
    add(shell, "a")
    done = shell("schedule", act, "none")
    assert (done.code, done.out) == (4, "")
    assert done.err == "zwheel: no schedule none: it was never added, or it was removed\n"
    several = shell("schedule", act, "none", "a", "--yes", "--json")
    assert several.code == 5
    assert several.document["schedule"] == "a"
    (error,) = several.errors
    assert (error["schedule"], error["kind"], error["exit"]) == ("none", "ScheduleNotFound", 4)
    assert shell("schedule", act, "no name", "--yes").code == 2


def test_one_is_removed_and_more_need_a_yes(shell: Shell, url: str) -> None:
    add(shell, "a", "b", "c", "d")
    assert shell.ok("schedule", "remove", "a").out == "a removed from default\n"
    refused = shell("schedule", "remove", "b", "c")
    assert (refused.code, refused.out) == (6, "")
    assert "this would remove 2 schedules; nothing was changed" in refused.err
    assert names(url) == ["b", "c", "d"]
    code, shown = on_terminal(shell, "schedule", "remove", "b", "c", answer="n")
    assert (code, "Remove 2 schedules? [y/N]" in shown) == (6, True)
    assert names(url) == ["b", "c", "d"]
    documents = shell.ok("schedule", "remove", "b", "c", "b", "--yes", "--json").documents
    assert documents == [{"schedule": name, "queue": "default", "removed": True} for name in ("b", "c")]
    assert names(url) == ["d"]


def test_removing_what_another_owns_says_that_it_comes_back(shell: Shell, url: str) -> None:
    with SyncWheel(url, namespace="zw") as wheel:
        wheel.sync_schedules([wheel.new_schedule("a", FAR, "t")], "app:shop")
    assert "belongs to app:shop" in shell.ok("schedule", "remove", "a").err


def test_a_backfill_runs_each_once(shell: Shell) -> None:
    shell.ok("schedule", "add", "a", "0 0 * * *", "t", "--keep", "1h")
    refused = shell("schedule", "backfill", "a", *DAYS)
    assert (refused.code, refused.out) == (6, "")
    assert "this would run 3 occurrences of a, 2021-01-01 00:00:00Z to 2021-01-03 00:00:00Z" in refused.err
    assert "a@2021" not in shell.ok("job", "ls").out
    # One alone needs no yes.
    one = shell.ok("schedule", "backfill", "a", "--from", "2021-01-01T00:00Z", "--to", "2021-01-01T12:00Z")
    assert one.out == "1 occurrence of a enqueued in default\n"
    document = shell.ok("schedule", "backfill", "a", *DAYS, "--yes", "--json").document
    assert document == {
        "schedule": "a", "queue": "default", "from": "2021-01-01T00:00:00.000Z", "to": "2021-01-03T00:00:00.000Z",
        "occurrences": 3, "enqueued": 2, "existed": 1,
    }  # fmt: skip
    again = shell.ok("schedule", "backfill", "a", *DAYS, "--yes")
    assert again.out == "0 occurrences of a enqueued in default, 3 existed already\n"
    ids = {job["id"] for job in shell.ok("job", "ls", "--json").documents}
    assert {f"a@2021-01-0{day}T00:00:00Z" for day in (1, 2, 3)} <= ids


def test_a_backfill_of_nothing_does_nothing(shell: Shell) -> None:
    add(shell, "a")
    done = shell.ok("schedule", "backfill", "a", "--from", "2021-02-01T00:00Z", "--to", "2021-03-01T00:00Z")
    assert done.out == "0 occurrences of a enqueued in default\n"
    assert "no occurrence of a from 2021-02-01" in done.err


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ((), 2, "say which time"),
        (("--from", "2021-01-01T00:00Z"), 2, "say which time"),
        (("--from", "yesterdayish", "--to", "2021-01-01T00:00Z"), 2, "--from: 'yesterdayish' is not a time"),
        (("--from", "2021-01-01T00:00Z", "--to", "2021-01-01 00:00"), 2, "--to: '2021-01-01 00:00' has no time zone"),
        (("--from", "2021-01-02T00:00Z", "--to", "2021-01-01T00:00Z"), 2, "--to lies before --from"),
        (("--from", "2021-01-02T00:00Z", "--to", "2999-01-01T00:00Z"), 2, "--to lies ahead"),
        (("--from", "2021-01-01T00:00Z", "--to", "2021-01-02T00:00Z", "--yes"), 2, f"more than {LIMIT:,} occurrences"),
    ],
)
def test_a_backfill_that_cannot_be_is_one_sentence(
    shell: Shell, words: tuple[str, ...], code: int, sentence: str
) -> None:
    shell.ok("schedule", "add", "a", "* * * * * *", "t")
    shell.ok("schedule", "pause", "a")
    done = shell("schedule", "backfill", "a", *words)
    assert (done.code, done.out, done.err.count("\n")) == (code, "", 1)
    assert sentence in done.err


def test_a_backfill_of_what_is_not_there_is_exit_4(shell: Shell) -> None:
    assert shell("schedule", "backfill", "a", *DAYS).code == 4
