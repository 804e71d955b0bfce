"""`zwheel schedule add` and `edit` on a real server."""

from __future__ import annotations

from dataclasses import replace

import pytest

from zwheel import SyncWheel, Wheel
from zwheel.cli.schedule import options as options
from zwheel.payload.codec import DEFAULT
from zwheel.policy import POLICY_HEADER
from zwheel.schedules.calendars import Calendar, OnBlocked
from zwheel.schedules.definition import Definition, Misfire, Overlap
from zwheel.schedules.kinds import Cron, Every
from zwheel.schedules.state import ScheduleInfo
from zwheel.schedules.zones import Fold, Gap
from zwheel.shell import SHELL_TASK, shell_kwargs
from zwheel.times import to_datetime

from .conftest import Shell

NINE = "0 9 * * MON-FRI"
FAR = "0 0 1 1 *"


def stored(url: str, name: str) -> Definition:
    with SyncWheel(url, namespace="zw") as wheel:
        return wheel.schedule(name).definition


def decoded(definition: Definition) -> tuple[list[object], dict[str, object], dict[str, str]]:
    """Its arguments and headers; no worker has published its task, so that the task's own retries hold."""
    args, kwargs, headers = DEFAULT.decode(definition.payload, context=definition.payload_context())
    headers.pop(POLICY_HEADER, "")
    return args, kwargs, headers


@pytest.mark.parametrize(
    ("choices", "meant"),
    [
        (options.GapChoice, Gap),
        (options.FoldChoice, Fold),
        (options.MisfireChoice, Misfire),
        (options.OverlapChoice, Overlap),
        (options.BlockedChoice, OnBlocked),
    ],
)
def test_the_choices_are_those_of_the_library(choices: type[Gap], meant: type[Gap]) -> None:
    assert [str(choice) for choice in choices] == [str(choice) for choice in meant]


def test_add_stores_every_option(shell: Shell, url: str) -> None:
    shell.ok(
        *("schedule", "add", "report", NINE, "reports.build", "7", "to=ann@example.com", "n:=[2]"),
        *("--zone", "Europe/Berlin", "--gap", "skip", "--fold", "both", "--misfire", "fire_all"),
        *("--misfire-limit", "5", "--grace", "2m", "--window", "2h", "--overlap", "skip", "--jitter", "30s"),
        *("--holidays", "DE-BE", "--holidays", "CN", "--block-date", "2026-12-24", "--open-date", "2026-12-26"),
        *("--block-day", "SAT,sun", "--block-time", "22:00-06:00", "--on-blocked", "next"),
        *("--start", "2031-12-01 00:00", "--end", "2032-12-01T00:00Z", "--max-count", "9"),
        *("--queue", "mail", "--retries", "2", "--timeout", "30s", "--keep", "5m", "--description", "the daily one"),
    )
    found = stored(url, "report")
    assert (found.kind, found.tz, found.gap, found.fold) == (Cron(NINE), "Europe/Berlin", Gap.SKIP, Fold.BOTH)
    assert (found.misfire, found.misfire_limit, found.overlap) == (Misfire.FIRE_ALL, 5, Overlap.SKIP)
    assert (found.grace_ms, found.window_ms, found.jitter_ms, found.keep_ms) == (120_000, 7_200_000, 30_000, 300_000)
    assert found.calendar == Calendar(
        holidays=("DE-BE", "CN"), dates=("2026-12-24",), open_dates=("2026-12-26",), weekdays=("sat", "sun"),
        windows=("22:00-06:00",),
    )  # fmt: skip
    assert (found.on_blocked, found.max_count, found.max_attempts) == (OnBlocked.NEXT, 9, 3)
    # Without a zone of its own, a start is read in the schedule's zone.
    assert found.start_ms is not None
    assert found.end_ms is not None
    assert to_datetime(found.start_ms).isoformat() == "2031-11-30T23:00:00+00:00"
    assert to_datetime(found.end_ms).isoformat() == "2032-12-01T00:00:00+00:00"
    assert (found.queue, found.description, found.owner) == ("mail", "the daily one", "")
    assert decoded(found) == ([7], {"to": "ann@example.com", "n": [2]}, {"zwheel-timeout-ms": "30000"})


def test_add_says_how_it_was_read_and_when_it_runs(shell: Shell) -> None:
    shown = shell.ok("schedule", "add", "report", NINE, "t").out
    assert shown.splitlines()[0] == "report added to default"
    assert "UTC" in shown
    assert "09:00" in shown
    document = shell.ok("schedule", "add", "b", "@every 90s", "t", "x:=1", "--json").document
    expected: dict[str, object] = {
        "schedule": "b",
        "queue": "default",
        "status": "active",
        "zone": "UTC",
        "when": {"every_ms": 90_000},
    }
    expected |= {"words": "every 1 min 30 s", "task": "t", "kwargs": {"x": 1}, "dry_run": False}
    assert {name: document[name] for name in expected} == expected
    document = shell.ok("schedule", "add", "c", "at 2031-12-01T09:00Z", "t", "--json").document
    assert [run["at"] for run in document["next"]] == ["2031-12-01T09:00:00.000Z"]


def test_quiet_shows_no_reading(shell: Shell) -> None:
    done = shell.ok("schedule", "add", "a", NINE, "t", "--quiet")
    assert (done.out, done.err) == ("a added to default\n", "")


def test_what_does_not_run_says_so(shell: Shell) -> None:
    done = shell.ok("schedule", "add", "a", "at 2021-01-01T00:00Z", "t")
    assert "note: it is finished" in done.err
    shell.ok("schedule", "add", "b", NINE, "t")
    shell.ok("schedule", "pause", "b")
    assert "note: it is paused until zwheel schedule resume b" in shell.ok("schedule", "edit", "b", "x=1").err
    document = shell.ok("schedule", "edit", "b", "x=2", "--json").document
    assert (document["status"], document["next"]) == ("paused", [])


def test_a_name_that_is_taken_is_refused_and_replaced_on_request(shell: Shell, url: str) -> None:
    shell.ok("schedule", "add", "a", NINE, "t", "--overlap", "skip")
    refused = shell("schedule", "add", "a", FAR, "t")
    assert refused.code == 6
    assert refused.err.count("\n") == 1
    assert "exists already in queue default" in refused.err
    assert stored(url, "a").kind == Cron(NINE)
    assert shell("schedule", "add", "a", FAR, "t", "--queue", "other", "--replace").code == 6
    assert shell.ok("schedule", "add", "a", FAR, "t", "--replace").out.startswith("a written to default\n")
    assert (stored(url, "a").kind, stored(url, "a").overlap) == (Cron(FAR), Overlap.ALLOW)


def test_what_belongs_to_another_is_not_replaced(shell: Shell, url: str) -> None:
    with SyncWheel(url, namespace="zw") as wheel:
        wheel.sync_schedules([wheel.new_schedule("a", NINE, "t")], "app:shop")
    refused = shell("schedule", "add", "a", FAR, "t", "--replace")
    assert refused.code == 6
    assert "belongs to app:shop" in refused.err
    assert stored(url, "a").kind == Cron(NINE)


def test_a_dry_run_needs_no_server(bare: Shell) -> None:
    done = bare.ok("schedule", "add", "a", NINE, "t", "--dry-run")
    assert done.err == "nothing was sent\n"
    assert "added" not in done.out
    document = bare.ok(
        *("schedule", "add", "a", FAR, "t", "--start", "2031-06-01T00:00Z", "--dry-run", "--json")
    ).document  # fmt: skip
    assert (document["dry_run"], document["status"]) == (True, None)
    assert [run["at"][:4] for run in document["next"]] == ["2032", "2033", "2034", "2035", "2036"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("0 9 * *", "t"), "field"),
        (("0", "9", "t"), "'0' is only a part of when it fires: put all of it in quotes"),
        ((NINE, "t", "hello", "--shell", "ls"), "--shell stands for a task"),
        ((NINE, "--shell", " "), "there is no command in it"),
        ((NINE,), "say which task"),
        (
            (NINE, "t", "--zone", "europe/berlin"),
            "--zone: 'europe/berlin' is not the name of a time zone: did you mean Europe/Berlin?",
        ),
        ((NINE, "t", "--grace", "10"), "--grace"),
        ((NINE, "t", "--window", "soon"), "--window"),
        ((NINE, "t", "--max-count", "many"), "--max-count: 'many' is not a whole number"),
        ((NINE, "t", "--max-count", "0"), "max_count"),
        ((NINE, "t", "--start", "2026-12-01 09:00"), "--start: '2026-12-01 09:00' has no time zone"),
        ((NINE, "t", "--start", "2031-12-01T00:00Z", "--end", "2030-12-01T00:00Z"), "ends before it starts"),
        ((NINE, "t", "--block-day", "someday"), "'someday' is none of mon"),
        ((NINE, "t", "--block-time", "late"), "'late' is not a time of day"),
        ((NINE, "t", "--block-date", "tomorrow"), "'tomorrow' is not a day"),
        ((NINE, "t", "--holidays", "XX"), "no holidays are known"),
        (("*/5 * * * *", "t", "--block-day", "sun", "--on-blocked", "next"), "only fixed times can move"),
        ((NINE, "t", "--overlap", "never"), "'never' is not one of allow, skip, buffer_one, cancel_other"),
        ((NINE, "t", "x=1", "x=2"), "given twice"),
        ((NINE, "t", "--retries", "99999"), "retries"),
    ],
)
def test_what_cannot_be_is_one_sentence_before_anything_is_sent(
    bare: Shell, words: tuple[str, ...], sentence: str
) -> None:
    done = bare("schedule", "add", "a", *words)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert sentence in done.err


def test_a_shell_line_stands_for_a_task(shell: Shell, url: str) -> None:
    shell.ok("schedule", "add", "a", NINE, "--shell", "ls | wc -l")
    assert (stored(url, "a").task, stored(url, "a").max_attempts) == (SHELL_TASK, 1)
    assert decoded(stored(url, "a"))[:2] == ([], shell_kwargs(line="ls | wc -l"))
    shell.ok("schedule", "edit", "a", "--shell", "date")
    assert decoded(stored(url, "a"))[:2] == ([], shell_kwargs(line="date"))
    shell.ok("schedule", "edit", "a", "--task", "t", "--clear-args", "1", "--retries", "5")
    assert (stored(url, "a").task, decoded(stored(url, "a"))[:2]) == ("t", ([1], {}))
    refused = shell("schedule", "edit", "a", "x=1", "--shell", "date")
    assert (refused.code, "--shell stands for a task" in refused.err) == (2, True)
    shell.ok("schedule", "edit", "a", "--shell", "date")
    assert (stored(url, "a").task, decoded(stored(url, "a"))[:2]) == (SHELL_TASK, ([], shell_kwargs(line="date")))
    assert stored(url, "a").max_attempts == 1
    shell.ok("schedule", "edit", "a", "--retries", "3")
    shell.ok("schedule", "edit", "a", "--shell", "ls")
    assert stored(url, "a").max_attempts == 4


def test_a_secret_on_the_command_line_is_pointed_out(shell: Shell) -> None:
    assert "others can read a command line" in shell.ok("schedule", "add", "a", NINE, "t", "password=x").err
    assert "others can read a command line" in shell.ok("schedule", "edit", "a", "token=x").err


def test_an_edit_changes_what_is_given_and_shows_it(shell: Shell, url: str) -> None:
    shell.ok(
        *("schedule", "add", "a", NINE, "t", "7", "to=ann", "n:=1", "--zone", "Europe/Berlin", "--window", "2h"),
        *("--block-day", "sat", "--block-date", "2026-12-24", "--max-count", "9", "--timeout", "30s", "--keep", "5m"),
    )
    before = stored(url, "a")
    done = shell.ok("schedule", "edit", "a", "--when", "@every 90s", "--grace", "2m", "--overlap", "skip")
    assert done.out.startswith("a in default changed\n")
    for name, old, new in (("when", NINE, "every 1 min 30 s"), ("grace", "1 m", "2 m"), ("overlap", "allow", "skip")):
        assert any(line.split() == f"{name} {old} → {new}".split() for line in done.out.splitlines())
    after = stored(url, "a")
    assert (after.kind, after.grace_ms, after.overlap) == (Every(90_000), 120_000, Overlap.SKIP)
    untouched = ("tz", "window_ms", "calendar", "max_count", "payload", "keep_ms", "max_attempts", "queue")
    assert [getattr(after, name) for name in untouched] == [getattr(before, name) for name in untouched]


def test_two_edits_at_once_both_hold(shell: Shell, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shell.ok("schedule", "add", "a", NINE, "t")
    read = Wheel.schedule
    others = iter(["Asia/Tokyo", "Asia/Kathmandu"])

    async def read_and_let_another_edit(wheel: Wheel, name: str, queue: str | None = None) -> ScheduleInfo:
        info = await read(wheel, name, queue)
        if (zone := next(others, None)) is not None:
            await wheel.edit_schedule(replace(info.definition, tz=zone))
        return info

    monkeypatch.setattr(Wheel, "schedule", read_and_let_another_edit)
    shell.ok("schedule", "edit", "a", "--overlap", "skip")
    monkeypatch.undo()
    after = stored(url, "a")
    assert (after.tz, after.overlap) == ("Asia/Kathmandu", Overlap.SKIP)


def test_an_edit_takes_options_back(shell: Shell, url: str) -> None:
    shell.ok(
        *("schedule", "add", "a", NINE, "t", "--window", "2h", "--block-day", "sat", "--block-date", "2026-12-24"),
        *("--max-count", "9", "--timeout", "30s", "--keep", "5m", "--end", "2032-12-01T00:00Z"),
    )
    words = ("--window", "none", "--block-day", "none", "--max-count", "none", "--timeout", "none", "--keep", "auto")
    document = shell.ok("schedule", "edit", "a", *words, "--end", "none", "--json").document
    after = stored(url, "a")
    assert (after.window_ms, after.max_count, after.keep_ms, after.end_ms) == (None, None, None, None)
    assert after.calendar == Calendar(dates=("2026-12-24",))
    assert decoded(after) == ([], {}, {})
    assert document["changed"]["window_ms"] == {"old": 7_200_000, "new": None}
    assert document["changed"]["timeout_ms"] == {"old": 30_000, "new": None}
    assert document["changed"]["end"] == {"old": "2032-12-01T00:00:00.000Z", "new": None}
    assert len(document["changed"]) == 6
    shell.ok("schedule", "edit", "a", "--block-date", "none")
    assert stored(url, "a").calendar is None


def test_arguments_are_edited_by_name(shell: Shell, url: str) -> None:
    shell.ok("schedule", "add", "a", NINE, "t", "7", "8", "to=ann", "n:=1", "--timeout", "30s")
    shell.ok("schedule", "edit", "a", "to=bob", "9")
    timeout = {"zwheel-timeout-ms": "30000"}
    assert decoded(stored(url, "a")) == ([9], {"to": "bob", "n": 1}, timeout)
    shell.ok("schedule", "edit", "a", "--clear-args", "x=y")
    assert decoded(stored(url, "a")) == ([], {"x": "y"}, timeout)
    shell.ok("schedule", "edit", "a", "--task", "other", "--timeout", "1m")
    after = stored(url, "a")
    assert (after.task, decoded(after)) == ("other", ([], {"x": "y"}, {"zwheel-timeout-ms": "60000"}))


def test_an_edit_that_says_nothing_new_writes_nothing(shell: Shell, url: str) -> None:
    shell.ok("schedule", "add", "a", NINE, "t", "x=1")
    with SyncWheel(url, namespace="zw") as wheel:
        stamp = wheel.schedule("a").stamp
        done = shell.ok("schedule", "edit", "a", "--when", NINE, "x=1")
        assert "nothing was changed" in done.out
        assert wheel.schedule("a").stamp == stamp
        dry = shell.ok("schedule", "edit", "a", "--when", FAR, "--dry-run")
        assert dry.out.startswith("a in default would change\n")
        assert wheel.schedule("a").stamp == stamp
    nothing = shell("schedule", "edit", "a")
    assert (nothing.code, nothing.err.count("\n")) == (2, 1)
    assert "say what to change" in nothing.err


def test_an_edit_is_checked_as_a_whole(shell: Shell, url: str) -> None:
    shell.ok(
        "schedule", "add", "a", NINE, "t", "--block-day", "sat", "--on-blocked", "next", "--end", "2032-01-01T00:00Z"
    )
    moved = shell("schedule", "edit", "a", "--when", "@every 90s")
    assert (moved.code, moved.err.count("\n")) == (2, 1)
    assert "only fixed times" in moved.err
    late = shell("schedule", "edit", "a", "--start", "2033-01-01T00:00Z")
    assert (late.code, "ends before it starts" in late.err) == (2, True)
    assert stored(url, "a").kind == Cron(NINE)


def test_an_edit_of_what_another_owns_says_so(shell: Shell, url: str) -> None:
    with SyncWheel(url, namespace="zw") as wheel:
        wheel.sync_schedules([wheel.new_schedule("a", NINE, "t")], "app:shop")
    done = shell.ok("schedule", "edit", "a", "--when", FAR)
    assert "it belongs to app:shop" in done.err
    assert stored(url, "a").owner == "app:shop"
    assert shell.ok("schedule", "edit", "a", "--when", NINE, "--json").document["owner"] == "app:shop"


def test_an_edit_of_what_is_not_there_is_exit_4(shell: Shell) -> None:
    done = shell("schedule", "edit", "a", "--when", NINE)
    assert (done.code, done.err.count("\n")) == (4, 1)
    assert "no schedule a" in done.err


def test_a_dry_run_tells_of_a_name_that_is_taken(shell: Shell) -> None:
    dry = ("schedule", "add", "a", NINE, "t", "--dry-run")
    assert "refused" not in shell.ok(*dry).err
    assert "exists" not in shell.ok(*dry, "--json").document
    shell.ok("schedule", "add", "a", NINE, "t")
    assert "note: this would be refused: schedule a exists already in queue default" in shell.ok(*dry).err
    assert "would be refused" not in shell.ok(*dry, "--replace").err
    assert "would be refused" in shell.ok(*dry, "--replace", "--queue", "other").err
    assert shell.ok(*dry, "--json").document["exists"] is True


def test_a_task_in_the_place_of_a_shell_line_does_not_get_its_arguments(shell: Shell, url: str) -> None:
    shell.ok("schedule", "add", "a", NINE, "--shell", "ls | wc -l")
    shell.ok("schedule", "edit", "a", "x=1", "--task", "t")
    document = shell.ok("schedule", "show", "a", "--json").document
    assert (document["task"], document["kwargs"]) == ("t", {"x": "1"})
    shell.ok("schedule", "edit", "a", "--task", "u")
    assert shell.ok("schedule", "show", "a", "--json").document["kwargs"] == {"x": "1"}
