from __future__ import annotations

from .conftest import Shell


def fill(shell: Shell) -> None:
    for at, queue in (("08:00", "a"), ("08:30", "a"), ("23:59:59.999", "b")):
        shell.ok("enqueue", "t", "--at", f"2031-12-01 {at} UTC", "--queue", queue)
    shell.ok("enqueue", "t", "--at", "2031-12-02T00:00Z", "--queue", "b")


def test_ls_lists_the_days_of_all_queues_or_of_one(shell: Shell) -> None:
    fill(shell)
    first, second = shell.ok("day", "ls", "--json").documents
    assert (first["day"], first["jobs"], first["queues"]) == ("2031-12-01", 3, {"a": 2, "b": 1})
    assert (first["first"], first["last"]) == ("2031-12-01T08:00:00.000Z", "2031-12-01T23:59:59.999Z")
    assert (second["day"], second["jobs"]) == ("2031-12-02", 1)
    (only,) = shell.ok("day", "ls", "--queue", "a", "--json").documents
    assert (only["day"], only["queues"]) == ("2031-12-01", {"a": 2})


def test_days_have_bars_that_compare_them(shell: Shell) -> None:
    fill(shell)
    header, first, second = shell.ok("day", "ls").out.splitlines()
    assert header.split() == ["DAY", "JOBS", "FIRST", "(UTC)", "LAST", "(UTC)"]
    assert first.split()[:2] == ["2031-12-01", "3"]
    assert first.count("█") == 40
    assert second.count("█") == 13


def test_the_list_is_bounded(shell: Shell) -> None:
    fill(shell)
    done = shell.ok("day", "ls", "--limit", "1")
    assert len(done.out.splitlines()) == 2
    assert done.err == "1 later day not shown, see --limit\n"


def test_show_counts_the_hours_of_a_day(shell: Shell) -> None:
    fill(shell)
    hours = shell.ok("day", "show", "2031-12-01", "--json").documents
    assert [hour["hour"] for hour in hours] == list(range(24))
    assert {hour["hour"]: hour["jobs"] for hour in hours if hour["jobs"]} == {8: 2, 23: 1}
    assert hours[8]["from"] == "2031-12-01T08:00:00.000Z"
    only = shell.ok("day", "show", "20311201", "--queue", "b", "--json").documents
    assert {hour["hour"]: hour["jobs"] for hour in only if hour["jobs"]} == {23: 1}


def test_hours_are_shown_in_another_zone_too(shell: Shell) -> None:
    fill(shell)
    done = shell.ok("day", "show", "2031-12-01", "--tz", "Asia/Kolkata")
    lines = done.out.splitlines()
    assert lines[0].split() == ["2031-12-01", "UTC", "LOCAL", "(Asia/Kolkata)", "JOBS"]
    assert lines[9].split()[:5] == ["08:00", "2031-12-01", "13:30:00", "+0530", "2"]
    assert lines[9].count("█") == 40
    assert done.err == "3 jobs on this day\n"


def test_an_empty_wheel(shell: Shell) -> None:
    done = shell.ok("day", "ls")
    assert (done.out, done.err) == ("", "nothing is on the wheel\n")
    assert all(hour["jobs"] == 0 for hour in shell.ok("day", "show", "tomorrow", "--json").documents)


def test_what_is_no_day_is_a_usage_error(shell: Shell) -> None:
    done = shell("day", "show", "2031-02-30")
    assert (done.code, done.err) == (2, "zwheel: '2031-02-30' is not a day: write 2026-12-01, today or tomorrow\n")
