"""Which format a crontab has: a wrong guess loses the first word of each command."""

from __future__ import annotations

import pytest

from tests.unit.schedules.crontab_shapes import PROGRAMS, SYSTEM_SHAPES, USER_SHAPES, USERS
from zwheel.schedules.crontab import read_crontab
from zwheel.schedules.crontab_format import Format, format_of


def look(text: str) -> Format:
    return format_of(text, is_user=USERS.__contains__, is_program=PROGRAMS.__contains__)[0]


@pytest.mark.parametrize("name", USER_SHAPES)
def test_a_user_s_crontab_is_read_with_every_word(name: str) -> None:
    text, commands = USER_SHAPES[name]
    assert look(text) is Format.USER
    found = read_crontab(text, system=False)
    assert [entry.command for entry in found.entries] == commands
    assert not [problem for problem in found.problems if problem.lost]


@pytest.mark.parametrize("name", SYSTEM_SHAPES)
def test_a_system_s_crontab_is_told_by_the_users_that_exist(name: str) -> None:
    text, lines = SYSTEM_SHAPES[name]
    assert look(text) is Format.SYSTEM
    found = read_crontab(text, system=True, is_user=USERS.__contains__)
    assert [(entry.user, entry.command) for entry in found.entries] == lines
    assert not [problem for problem in found.problems if problem.lost]


@pytest.mark.parametrize(
    "text",
    [
        "0 1 * * * backup /srv\n",
        "0 1 * * * ann migrate\n",
        "0 1 * * * mail /srv/a\n0 2 * * * git test\n",
        "0 1 * * * root /opt/a\n0 2 * * * cd /srv && make\n",
        "0 1 * * * root /opt/a\n0 2 * * * stranger /opt/b\n",
    ],
)
def test_what_can_be_read_in_both_ways_is_in_doubt(text: str) -> None:
    assert look(text) is Format.UNCLEAR


def test_lines_that_run_nothing_tell_nothing() -> None:
    assert look("A=root\n# 0 1 * * * /opt/x\n\nroot\n0 1 * * * root /opt/a\n0 1 * *\n") is Format.SYSTEM
