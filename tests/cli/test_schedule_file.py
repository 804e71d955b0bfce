"""`zwheel schedule sync` on a real server, and the files that it reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from zwheel import SyncWheel
from zwheel.cli.schedule.file import EXAMPLE, read_schedules
from zwheel.client.declare import ScheduleOptions
from zwheel.errors import InvalidInput
from zwheel.payload.codec import DEFAULT
from zwheel.schedules.calendars import Calendar, OnBlocked
from zwheel.schedules.definition import Definition, Misfire, Overlap
from zwheel.schedules.kinds import Cron
from zwheel.schedules.zones import Fold, Gap
from zwheel.shell import SHELL_TASK, shell_kwargs
from zwheel.times import to_datetime

from .conftest import Shell

FULL = """
[schedules.report]
when = "0 9 * * MON-FRI"
task = "reports.build"
args = [7]
kwargs = { to = "ann", n = [2] }
tz = "Europe/Berlin"
gap = "skip"
fold = "both"
misfire = "fire_all"
misfire_limit = 5
grace = "2m"
window = "2h"
overlap = "buffer_one"
jitter = "30s"
on_blocked = "next"
start = 2031-12-01T00:00:00+01:00
end = "2032-12-01 00:00"
max_count = 9
queue = "mail"
retries = 2
timeout = "30s"
keep = "5m"
headers = { trace = "1" }
description = "the daily one"

[schedules.report.calendar]
holidays = ["DE-BE"]
dates = [2026-12-24, "2026-12-31"]
open_dates = [2026-12-26]
weekdays = ["sat"]
windows = ["22:00-06:00"]
"""
SMALL = '[schedules.{name}]\nwhen = "{when}"\ntask = "t"\n'


def read(text: str) -> list[Definition]:
    return read_schedules(text.encode(), "s.toml")


def small(*names: str, when: str = "0 0 1 1 *") -> str:
    return "".join(SMALL.format(name=name, when=when) for name in names)


def names(url: str) -> dict[str, str]:
    with SyncWheel(url, namespace="zw") as wheel:
        return {info.name: info.owner for info in wheel.schedules()}


def test_a_file_says_all_that_a_schedule_has() -> None:
    (found,) = read(FULL)
    assert (found.name, found.kind, found.task, found.tz) == (
        "report", Cron("0 9 * * MON-FRI"), "reports.build", "Europe/Berlin",
    )  # fmt: skip
    assert (found.gap, found.fold, found.misfire, found.misfire_limit) == (Gap.SKIP, Fold.BOTH, Misfire.FIRE_ALL, 5)
    assert (found.grace_ms, found.window_ms, found.jitter_ms, found.keep_ms) == (120_000, 7_200_000, 30_000, 300_000)
    assert (found.overlap, found.on_blocked, found.max_count) == (Overlap.BUFFER_ONE, OnBlocked.NEXT, 9)
    assert (found.queue, found.max_attempts, found.description) == ("mail", 3, "the daily one")
    assert found.start_ms is not None
    assert found.end_ms is not None
    assert to_datetime(found.start_ms).isoformat() == "2031-11-30T23:00:00+00:00"
    assert to_datetime(found.end_ms).isoformat() == "2032-11-30T23:00:00+00:00"
    assert found.calendar == Calendar(
        holidays=("DE-BE",), dates=("2026-12-24", "2026-12-31"), open_dates=("2026-12-26",), weekdays=("sat",),
        windows=("22:00-06:00",),
    )  # fmt: skip
    args, kwargs, headers = DEFAULT.decode(found.payload, context=found.payload_context())
    assert (args, kwargs, headers) == (
        [7],
        {"to": "ann", "n": [2]},
        {"trace": "1", "zwheel-timeout-ms": "30000", "zwheel-policy": "job"},
    )


@pytest.mark.parametrize("given", ["2031-12-01T09:00:00", "2031-12-01 09:00:00.250000", "'2031-12-01 09:00'"])
def test_a_local_time_is_read_in_the_zone_of_its_schedule(given: str) -> None:
    (found,) = read(small("a") + f"tz = 'Europe/Berlin'\nstart = {given}\n")
    assert found.start_ms is not None
    assert to_datetime(found.start_ms).isoformat(timespec="seconds") == "2031-12-01T08:00:00+00:00"


def test_every_option_of_a_schedule_has_its_key() -> None:
    for option in ScheduleOptions.__annotations__:
        assert f"\n{option} = " in FULL or f".{option}]" in FULL
        assert option in EXAMPLE


def test_the_example_of_the_help_can_be_read() -> None:
    text = EXAMPLE.replace("\b", "").split("A file:")[1].split("Further keys")[0]
    (found,) = read(text)
    assert found.calendar == Calendar(holidays=("DE-BE",), dates=("2026-12-24",))


def test_a_shell_line_stands_for_a_task() -> None:
    (found,) = read("[schedules.a]\nwhen = '@daily'\nshell = 'ls | wc -l'\n")
    assert (found.task, found.max_attempts) == (SHELL_TASK, 1)
    assert DEFAULT.decode(found.payload)[:2] == ([], shell_kwargs(line="ls | wc -l"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("when =", "s.toml: it is not TOML"),
        ("", "it has no table [schedules.NAME]"),
        ("[schedule.a]\n", "there is no key schedule, did you mean schedules?"),
        ("schedules = 1\n", "schedules must hold tables"),
        ("[schedules]\nwhen = '@daily'\n", "write [schedules.NAME] above when"),
        ("[schedules.a]\ntask = 't'\n", "schedules.a: the key when is missing"),
        ("[schedules.a]\nwhen = '@daily'\n", "schedules.a: it needs either the key task or the key shell"),
        (small("a") + "shell = 'ls'\n", "either the key task or the key shell"),
        ("[schedules.a]\nwhen = '@daily'\nshell = 'ls'\nargs = [1]\n", "args and kwargs go with task"),
        (small("a") + "overlp = 'skip'\n", "schedules.a: there is no key overlp, did you mean overlap?"),
        (small("a") + "zone = 'Europe/Berlin'\n", "there is no key zone, did you mean tz?"),
        ("[schedules.a]\nwhen = '@daily'\ncommand = 'ls'\n", "there is no key command, did you mean shell?"),
        (small("a") + "qqq = 1\n", "there is no key qqq, there are when, task,"),
        (small("a") + "grace = 10\n", 'grace must be a duration such as "10m"'),
        (small("a") + "grace = '10'\n", "schedules.a: grace: '10' is not a duration"),
        (small("a") + "retries = true\n", "retries must be a whole number"),
        (small("a") + "overlap = 'never'\n", "overlap: 'never' is none of allow, skip, buffer_one, cancel_other"),
        (small("a") + "start = 2026-12-01T09:00:00\n", "start: '2026-12-01T09:00:00' has no time zone"),
        (small("a") + "start = '2026-12-01 09:00'\n", "start: '2026-12-01 09:00' has no time zone"),
        (small("a") + "start = 'tomorrow 09:00 UTC'\n", "start: 'tomorrow 09:00 UTC' does not name a day"),
        (small("a") + "start = '09:00 UTC'\n", "does not name a day"),
        (small("a") + "[schedules.a.calendar]\nholiday = ['DE']\n", "did you mean holidays?"),
        (small("a") + "[schedules.a.calendar]\nholidays = 'DE'\n", "calendar: holidays must be a list"),
        (small("a") + "[schedules.a.calendar]\ndates = [1]\n", "calendar: dates must be a list of days"),
        (small("a") + "[schedules.a.calendar]\ndates = ['soon']\n", "calendar: 'soon' is not a day"),
        (small("a", when="0 9 * *"), "schedules.a: "),
        (small("'a b'"), "schedules.a b: "),
        (small("a") + "misfire_limit = 0\n", "schedules.a: misfire_limit is 0, and may be 1 to 1000"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(text: str, sentence: str) -> None:
    with pytest.raises(InvalidInput) as error:
        read(text)
    assert str(error.value).startswith("s.toml: ")
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_sync_adds_changes_and_removes(shell: Shell, url: str) -> None:
    shell.ok("schedule", "add", "mine", "0 0 1 1 *", "t")
    file = Path("s.toml")
    file.write_text(small("a", "b"), encoding="utf-8")
    dry = shell.ok("schedule", "sync", "s.toml", "--dry-run")
    assert dry.out == "added   a\nadded   b\n"
    assert dry.err.endswith("nothing was changed\n")
    assert names(url) == {"mine": ""}
    done = shell.ok("schedule", "sync", "s.toml")
    assert done.out == "added   a\nadded   b\n"
    whose = f"file:{file.resolve()}"
    assert done.err.endswith(f"2 schedules of {whose}: 2 added, 0 changed, 0 removed, 0 unchanged\n")
    assert names(url) == {"a": whose, "b": whose, "mine": ""}
    assert shell.ok("schedule", "sync", "s.toml").out == ""
    file.write_text(small("b", when="0 0 2 1 *") + small("c"), encoding="utf-8")
    document = shell.ok("schedule", "sync", "s.toml", "--json", "--yes").document
    assert document == {
        "owner": whose, "dry_run": False, "added": ["c"], "changed": ["b"], "removed": ["a"], "unchanged": [],
        "unserved": ["no worker has published a task t, and no live worker serves queue default"],
    }  # fmt: skip
    assert sorted(names(url)) == ["b", "c", "mine"]
    file.write_text("[schedules]\n", encoding="utf-8")
    assert shell.ok("schedule", "sync", "s.toml", "--yes").out == "removed b\nremoved c\n"
    assert sorted(names(url)) == ["mine"]


def test_files_of_one_name_in_two_projects_are_two_owners(shell: Shell, url: str) -> None:
    for project, name in (("shop", "a"), ("blog", "b")):
        Path(project).mkdir()
        Path(project, "s.toml").write_text(small(name), encoding="utf-8")
        assert shell.ok("schedule", "sync", f"{project}/s.toml").out == f"added   {name}\n"
    assert names(url) == {"a": f"file:{Path('shop/s.toml').resolve()}", "b": f"file:{Path('blog/s.toml').resolve()}"}


def test_removing_more_than_a_third_of_an_owners_schedules_needs_a_yes(shell: Shell, url: str) -> None:
    file = Path("s.toml")
    file.write_text(small("a", "b", "c"), encoding="utf-8")
    shell.ok("schedule", "sync", "s.toml", "--owner", "shop")
    file.write_text(small("a", "b"), encoding="utf-8")
    shell.ok("schedule", "sync", "s.toml", "--owner", "shop")
    file.write_text(small("a"), encoding="utf-8")
    refused = shell("schedule", "sync", "s.toml", "--owner", "shop")
    assert (refused.code, "remove 1 of the 2 schedules of shop (b)" in refused.err) == (6, True)
    assert sorted(names(url)) == ["a", "b"]
    assert shell.ok("schedule", "sync", "s.toml", "--owner", "shop", "--dry-run").out == "removed b\n"
    shell.ok("schedule", "sync", "s.toml", "--owner", "shop", "--yes")
    assert sorted(names(url)) == ["a"]


def test_a_file_that_moved_is_told_how_to_go_on_with_its_schedules(shell: Shell, url: str) -> None:
    Path("old.toml").write_text(small("a"), encoding="utf-8")
    shell.ok("schedule", "sync", "old.toml")
    old = f"file:{Path('old.toml').resolve()}"
    Path("old.toml").rename("new.toml")
    refused = shell("schedule", "sync", "new.toml")
    assert (refused.code, f"--owner {old} goes on" in refused.err) == (6, True)
    assert shell.ok("schedule", "sync", "new.toml", "--owner", old).out == ""
    assert names(url) == {"a": old}


def test_schedules_come_from_stdin_too_for_an_owner_that_is_named(shell: Shell, url: str) -> None:
    nameless = shell.piped("schedule", "sync", "-", stdin=small("a").encode())
    assert (nameless.code, "--owner" in nameless.err) == (2, True)
    done = shell.piped("schedule", "sync", "-", "--owner", "shop", stdin=small("a").encode())
    assert (done.code, names(url)) == (0, {"a": "shop"}), done.err
    wrong = shell.piped("schedule", "sync", "-", "--owner", "shop", stdin=b"[schedules.a]")
    assert wrong.err == "zwheel: stdin: schedules.a: the key when is missing\n"


def test_a_name_of_another_owner_is_refused_and_nothing_is_changed(shell: Shell, url: str) -> None:
    Path("s.toml").write_text(small("a"), encoding="utf-8")
    shell.ok("schedule", "sync", "s.toml", "--owner", "billing")
    assert names(url) == {"a": "billing"}
    Path("s.toml").write_text(small("a", "b"), encoding="utf-8")
    refused = shell("schedule", "sync", "s.toml")
    assert (refused.code, refused.out, refused.err.count("\n")) == (6, "", 1)
    assert "belongs to billing" in refused.err
    assert names(url) == {"a": "billing"}


def test_a_bad_file_is_one_sentence_before_anything_is_sent(bare: Shell) -> None:
    missing = bare("schedule", "sync", "none.toml")
    assert (missing.code, missing.err) == (2, "zwheel: none.toml: No such file or directory\n")
    Path("s.toml").write_bytes(b"\xff")
    assert bare("schedule", "sync", "s.toml").code == 2
