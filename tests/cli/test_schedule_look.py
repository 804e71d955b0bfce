"""`zwheel schedule ls`, `show`, `next`, `explain`, `history` and `import`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from zwheel import SyncWheel

from .conftest import Shell


def zwheel(shell: Shell, *words: str, code: int = 0) -> str:
    """Run a command that must end with a code, and give all that it wrote."""
    done = shell(*words)
    assert done.code == code, done.out + done.err
    return done.out + done.err


@pytest.fixture
def schedules(shell: Shell, url: str) -> Shell:
    with SyncWheel(url, namespace="zw") as wheel:
        wheel.add_schedule(wheel.new_schedule("report", "0 9 * * MON-FRI", "send", args=[1], tz="Europe/Berlin"))
        wheel.add_schedule(wheel.new_schedule("often", "@every 90s", "send", overlap="skip"))
        wheel.pause_schedule("often")
        wheel.trigger_schedule("report")
    return shell


def test_ls_names_each_with_its_rhythm_and_what_comes_next(schedules: Shell) -> None:
    told = zwheel(schedules, "schedule", "ls")
    assert "at 09:00 on Monday through Friday" in told
    assert "every 1 min 30 s" in told
    assert "paused" in told
    rows = [json.loads(line) for line in zwheel(schedules, "schedule", "ls", "--json").splitlines()]
    assert [(row["name"], row["status"], row["next"] is None) for row in rows] == [
        ("often", "paused", True), ("report", "active", False),
    ]  # fmt: skip
    assert [row["when"] for row in rows] == [{"every_ms": 90_000}, {"cron": "0 9 * * MON-FRI"}]


def test_the_chart_counts_the_runs_of_the_coming_day(shell: Shell, url: str) -> None:
    assert zwheel(shell, "schedule", "ls", "--chart").splitlines()[-1].startswith("0 runs")
    with SyncWheel(url, namespace="zw") as wheel:
        wheel.add_schedule(wheel.new_schedule("often", "*/10 * * * *", "send"))
    last = zwheel(shell, "schedule", "ls", "--chart").splitlines()[-1]
    assert 141 <= int(last.split()[0]) <= 144
    assert "3 in half an hour" in last


def test_show_tells_everything(schedules: Shell) -> None:
    told = zwheel(schedules, "schedule", "show", "report")
    for words in ("Europe/Berlin", "fire_once", "read as", "5 fields", "triggered", "clocks", "nobody"):
        assert words in told
    document = json.loads(zwheel(schedules, "schedule", "show", "report", "--json"))
    assert (document["zone"] if "zone" in document else document["tz"]) == "Europe/Berlin"
    assert len(document["runs"]) == 5
    assert document["past"][0]["verdict"] == "triggered"
    zwheel(schedules, "schedule", "show", "nobody", code=4)


def test_next_shows_local_time_and_utc_and_what_is_left_out(shell: Shell, url: str) -> None:
    with SyncWheel(url, namespace="zw") as wheel:
        wheel.add_schedule(wheel.new_schedule("late", "30 2 28 3 *", "send", tz="Europe/Berlin", gap="skip"))
    runs = [
        json.loads(line) for line in zwheel(shell, "schedule", "next", "late", "--count", "3", "--json").splitlines()
    ]
    assert [run["at"][:10] for run in runs] == ["2028-03-28", "2029-03-28", "2030-03-28"]
    every = zwheel(shell, "schedule", "next", "late", "--count", "2", "--all")
    assert "02:30 does not exist on 2027-03-28: skipped" in every


def test_explain_needs_no_redis(bare: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZWHEEL_URL", "unix:///nowhere/r.sock")
    told = zwheel(bare, "schedule", "explain", "0 0 * * *", "--tz", "Asia/Shanghai")
    assert "at 00:00 every day" in told
    assert "+0800" in told
    assert "they do not change there" in told
    told = zwheel(bare, "schedule", "explain", "*/10 * * * * *", "--zone", "Europe/Berlin")
    assert "6 fields" in told
    assert "keeps its real rhythm" in told
    assert "@reboot" in zwheel(bare, "schedule", "explain", "@reboot", code=2)


def test_what_the_shell_took_apart_is_to_be_put_in_quotes(bare: Shell) -> None:
    told = zwheel(bare, "schedule", "explain", "0", "9", "a.txt", "b.txt", "MON", code=2)
    assert told == "zwheel: '0' is only a part of when it fires: put all of it in quotes, as in '0 9 * * *'\n"


def test_the_reading_has_names_without_blanks_for_machines(bare: Shell) -> None:
    assert explained(bare, "0 9 * * *")["read_as"].startswith("5 fields")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("every weekday at 09:05", "5 9 * * MON-FRI"), ("every weekday", "0 0 * * MON-FRI"),
        ("every working day at 9:00", "0 9 * * MON-FRI"),
    ],
)  # fmt: skip
def test_working_days_are_told_as_a_cron_line(bare: Shell, given: str, meant: str) -> None:
    assert f"write '{meant}'" in zwheel(bare, "schedule", "explain", given, code=2)


def explained(bare: Shell, *words: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(zwheel(bare, "schedule", "explain", *words, "--json"))
    return document


def test_explain_says_or_where_one_of_two_days_is_enough(bare: Shell) -> None:
    told = zwheel(bare, "schedule", "explain", "0 9 1 * MON")
    assert "at 09:00 on the first day of the month or on Monday" in told
    assert " and on " not in told


def test_explain_says_what_h_stands_for(bare: Shell) -> None:
    (note,) = explained(bare, "H 3 * * *", "--name", "report")["notes"]
    assert "for 'report' it is read as '" in note
    told = zwheel(bare, "schedule", "explain", "H 3 * * *")
    assert "H stands for a number drawn from the schedule's name" in told
    assert "give --name NAME" in told


def test_explain_says_what_two_policies_do_together(bare: Shell) -> None:
    (note,) = explained(bare, "0 9 * * *", "--misfire", "fire_all", "--overlap", "skip")["notes"]
    assert "the oldest runs and the others are skipped" in note
    assert "the oldest runs" in zwheel(
        bare, "schedule", "explain", "0 9 * * *", "--misfire", "fire_all", "--overlap", "skip"
    )


def test_explain_warns_of_a_step_that_is_longer_than_its_field(bare: Shell) -> None:
    told = zwheel(bare, "schedule", "explain", "*/90 * * * *")
    assert "at the start of every hour" in told
    assert "write '@every 90m'" in told


def test_explain_reads_the_zone_of_given_times_and_of_a_line_that_names_it(bare: Shell) -> None:
    given = explained(bare, "at 2090-12-01 09:00", "--zone", "Europe/Berlin")
    assert [run["at"] for run in given["runs"]] == ["2090-12-01T08:00:00.000Z"]
    assert explained(bare, "at 2090-12-01 09:00", "--tz", "Asia/Tokyo")["runs"][0]["at"] == "2090-12-01T00:00:00.000Z"
    assert explained(bare, "CRON_TZ=Asia/Tokyo 0 5 * * *")["zone"] == "Asia/Tokyo"
    assert "has no zone" in zwheel(bare, "schedule", "explain", "at 2090-12-01 09:00", code=2)
    for zone, hint in (("GMT+2", "Etc/GMT-2"), ("PST", "America/Los_Angeles")):
        refused = zwheel(bare, "schedule", "explain", "0 9 * * *", "--zone", zone, code=2)
        assert hint in refused
        assert "+01:00" not in refused


def test_what_never_fires_is_refused_at_once(bare: Shell) -> None:
    told = zwheel(bare, "schedule", "explain", "* * * 31W 2 *", code=2)
    assert "never fires: day-of-month 31W contradicts month 2" in told
    told = zwheel(bare, "schedule", "explain", "0 9 * * MON", "--block-day", "mon", code=2)
    assert "never fires: its calendar blocks each of its times" in told


def test_machines_are_told_the_unit_of_an_interval(shell: Shell) -> None:
    zwheel(shell, "schedule", "add", "often", "every 6 hours", "send")
    zwheel(shell, "schedule", "add", "once", "at 2090-12-01T09:00Z", "send")
    shown = [json.loads(zwheel(shell, "schedule", "show", name, "--json")) for name in ("often", "once")]
    assert [document["when"] for document in shown] == [{"every_ms": 21_600_000}, {"times_ms": [3_815_802_000_000]}]


def test_an_edit_reads_given_times_and_a_named_zone(shell: Shell, url: str) -> None:
    zwheel(shell, "schedule", "add", "s", "0 9 * * *", "send", "--zone", "Asia/Tokyo")
    zwheel(shell, "schedule", "edit", "s", "--when", "at 2090-12-01 09:00")
    with SyncWheel(url, namespace="zw") as wheel:
        assert wheel.schedule("s").next_ms == 3_815_769_600_000
    zwheel(shell, "schedule", "edit", "s", "--when", "CRON_TZ=Europe/Berlin 0 9 * * *")
    with SyncWheel(url, namespace="zw") as wheel:
        assert wheel.schedule("s").definition.tz == "Europe/Berlin"


def test_history_tells_what_became_of_each(schedules: Shell) -> None:
    rows = [json.loads(line) for line in zwheel(schedules, "schedule", "history", "report", "--json").splitlines()]
    assert [(row["verdict"], row["state"]) for row in rows] == [("triggered", "scheduled")]
    assert rows[0]["job"].endswith(":trigger")
    assert "triggered" in zwheel(schedules, "schedule", "history", "report")
