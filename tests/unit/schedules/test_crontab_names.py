"""Names of schedules that are made of commands: no secret in them, and the same at every import."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.schedules.crontab_shapes import USER_SHAPES
from zwheel.schedules.crontab_names import Line, name_lines, program
from zwheel.schedules.kinds import kind_from_text


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("/opt/bin/report --all", "report"),
        ("cd /srv/shop && php artisan schedule:run", "php"),
        ("PGPASSWORD=hunter2 pg_dump shop", "pg_dump"),
        ("PGPASSWORD='my hunter2 word' pg_dump shop", "pg_dump"),
        ("MYSQL_PWD=a/b/hunter2 nice -n 5 mysqldump", "nice"),
        ("env TOKEN=hunter2 curl https://x", "curl"),
        ("export TOKEN=hunter2; ./run.sh", "run.sh"),
        ("echo hunter2 | sudo -S reboot-all", "sudo"),
        ("if [ -x /usr/bin/a ]; then /usr/bin/a --once; fi", "a"),
        ("test -x /usr/bin/x || /usr/bin/y", "y"),
        ('"$HOME/my bin"/run.sh x', "run.sh"),
        ("> /tmp/log", ""),
        ("<<< hunter2 cat", ""),
        ("A[0]=hunter2 /opt/run", "run"),
        ("echo 'not closed", "echo"),
        ("echo hunter2 >> /tmp/log", "echo"),
        ("printf hunter2; echo word", "echo"),
        ("echo hunter2 | mail ann", "mail"),
        ("cd /srv", ""),
    ],
)
def test_a_name_is_that_of_the_program_and_shows_no_secret(command: str, name: str) -> None:
    assert program(command) == name


@pytest.mark.parametrize("shape", USER_SHAPES)
def test_no_secret_of_an_ordinary_line_is_in_a_name(shape: str) -> None:
    for command in USER_SHAPES[shape][1]:
        assert "s3cret" not in program(command)
        assert "word" not in program(command)


@given(st.text(max_size=80))
def test_any_line_has_a_program_or_none(command: str) -> None:
    assert isinstance(program(command), str)


def line(command: str, when: str = "@daily") -> Line:
    return Line(command, "", kind_from_text(when))


def names(lines: list[Line], known: dict[str, Line], unread: tuple[Line, ...] = ()) -> tuple[list[str], set[str]]:
    return name_lines("x", lines, unread, known, known)


def carried(*lines: Line) -> dict[str, Line]:
    found, _ = names(list(lines), {})
    assert len(set(found)) == len(lines)
    return dict(zip(found, lines, strict=True))


def test_lines_of_one_program_get_names_of_their_own() -> None:
    lines = [line("/opt/backup one"), line("/opt/backup two"), line("/opt/backup-2 three"), line("/opt/sync")]
    assert list(carried(*lines)) == ["x-backup", "x-backup-2", "x-backup-2-2", "x-sync"]
    assert len(carried(*[line("a")] * 5)) == 5


def test_a_name_that_others_have_is_not_taken() -> None:
    assert name_lines("x", [line("a")], [], {}, {"x-a", "x-a-2"})[0] == ["x-a-3"]


def test_names_stay_when_lines_move_or_others_come_and_go() -> None:
    one, two, three = line("/opt/backup one"), line("/opt/backup two"), line("/opt/backup three")
    known = carried(one, two, three)
    assert names([three, one, two], known)[0] == ["x-backup-3", "x-backup", "x-backup-2"]
    assert names([three], known)[0] == ["x-backup-3"]
    assert names([line("/opt/backup zero"), one, two, three], known)[0] == [
        "x-backup-4", "x-backup", "x-backup-2", "x-backup-3",
    ]  # fmt: skip


def test_a_line_that_changed_keeps_its_name() -> None:
    known = carried(line("/opt/backup one"), line("/opt/backup two"), line("php a"))
    assert names([line("/opt/backup one"), line("/opt/backup two", "@weekly"), line("php b")], known)[0] == list(known)


def test_a_line_that_cannot_be_read_any_more_keeps_its_schedule() -> None:
    one, sync = line("/opt/backup one"), line("/opt/sync all")
    known = carried(one, sync)
    assert names([one], known, (Line("/opt/sync all"),)) == (["x-backup"], {"x-sync"})
    assert names([one], known, (Line("/opt/sync other"),)) == (["x-backup"], {"x-sync"})
    assert names([one], known, (Line(""),)) == (["x-backup"], {"x-sync"})
    assert names([one], known, (Line("/opt/sync other", exact=True),)) == (["x-backup"], set())
    assert names([one, line("/opt/sync new")], known, (Line("/opt/sync other"),)) == (
        ["x-backup", "x-sync-2"], {"x-sync"},
    )  # fmt: skip


def test_a_line_without_a_command_keeps_what_no_changed_line_is() -> None:
    us, eu, other = line("/opt/run us"), line("/opt/run eu"), line("/opt/other")
    known = carried(us, eu, other)
    assert names([us, line("/opt/run eu west")], known, (Line(""),)) == (["x-run", "x-run-2"], {"x-other"})
