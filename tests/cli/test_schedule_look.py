"""`zwheel schedule ls`, `show`, `next`, `explain`, `history` and `import`."""

from __future__ import annotations

import json

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


def test_history_tells_what_became_of_each(schedules: Shell) -> None:
    rows = [json.loads(line) for line in zwheel(schedules, "schedule", "history", "report", "--json").splitlines()]
    assert [(row["verdict"], row["state"]) for row in rows] == [("triggered", "scheduled")]
    assert rows[0]["job"].endswith(":trigger")
    assert "triggered" in zwheel(schedules, "schedule", "history", "report")
