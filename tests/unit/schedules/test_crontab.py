"""Crontabs: what their lines say, and what is said of lines that cannot be carried over."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zwheel.errors import InvalidInput
from zwheel.schedules.crontab import crontab_text, read_crontab
from zwheel.schedules.crontab_format import format_of

MISSING = "it has only {} of the 5 fields before its command: one of them, or the space before the command, is missing"
ANACRON = "it is a line of an anacrontab, with a delay and a name before its command: write a line of a crontab for it"
SYSTEM = """\
# what a package installs
SHELL=/bin/sh
PATH=/usr/local/sbin:/usr/sbin:/bin
MAILTO="ops"

# the first of each month
57 0 * * 0 root if [ -x /usr/share/checkarray ] && [ $(date +\\%d) -le 7 ]; then /usr/share/checkarray --all; fi
5-55/10 * * * * root command -v sa1 > /dev/null && sa1 1 1
@daily  www-data  test -x /usr/bin/stats && /usr/bin/stats
0 */12 * * * root test -x /usr/bin/cert -a \\! -d /run/systemd/system && perl -e 'sleep int(rand(43200))' && cert -q renew
@reboot root /usr/sbin/once
-*/15 * * * * root quiet
9,39 * * * * root [ -x /usr/lib/clean ] && if [ ! -d /run/systemd/system ]; then /usr/lib/clean; fi
"""


def test_a_package_s_file_is_read() -> None:
    found = read_crontab(SYSTEM, system=True)
    assert [(e.line, e.when, e.user) for e in found.entries] == [
        (7, "57 0 * * 0", "root"), (8, "5-55/10 * * * *", "root"), (9, "@daily", "www-data"),
        (10, "0 */12 * * *", "root"), (12, "*/15 * * * *", "root"), (13, "9,39 * * * *", "root"),
    ]  # fmt: skip
    first = found.entries[0]
    assert "$(date +%d)" in first.command
    assert (first.stdin, first.description) == ("", "the first of each month")
    assert first.environment == {"SHELL": "/bin/sh", "PATH": "/usr/local/sbin:/usr/sbin:/bin"}
    assert [(p.line, p.lost) for p in found.problems] == [(4, False), (9, False), (11, True)]
    assert "www-data" in found.problems[1].reason
    assert "@reboot" in found.problems[2].reason


@pytest.mark.parametrize(
    ("text", "command", "stdin"),
    [
        ("0 9 * * * mail ann%Subject: hi%%Bye", "mail ann", "Subject: hi\n\nBye\n"),
        (r"0 9 * * * date +\%F", "date +%F", ""),
        (r"0 9 * * * echo a\\b", r"echo a\\b", ""),
        ("0 9 * * * cat%", "cat", ""),
        ("0 9 * * * cat%a%", "cat", "a\n"),
    ],
)
def test_a_percent_sign_ends_the_command(text: str, command: str, stdin: str) -> None:
    (entry,) = read_crontab(text, system=False).entries
    assert (entry.command, entry.stdin) == (command, stdin)


def test_variables_hold_for_the_lines_after_them() -> None:
    text = '0 1 * * * a\nCRON_TZ=Asia/Tokyo\nRANDOM_DELAY=5\n0 2 * * * b\nCRON_TZ = "Europe/Berlin"\n0 3 * * * c\n'
    entries = read_crontab(text, system=False).entries
    assert [(e.command, e.zone, e.jitter_ms) for e in entries] == [
        ("a", None, 0), ("b", "Asia/Tokyo", 300_000), ("c", "Europe/Berlin", 300_000),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [
        "99 * * * * x", "0 9 * *", "0 9 * * *", "@reboot x", "@never x", "1~30 * * * * x", "hello", "0 0 30 2 * x",
        "0 9 * * * %only input", "*/10 * * * * * * /bin/a", "00 12 * * * * /srv/a", "0 0 9 * * MON-FRI /opt/a",
        "0 9 * * * /opt/a \\", "export A=1", "0 9 * * * -x /opt/a", "@600 /opt/a", "@every 5 fortnights /opt/a",
        "0 9 * * * /opt/\udce9", "%nightly * 1-5 /opt/a",
    ],
)  # fmt: skip
def test_what_cannot_be_carried_over_is_listed(line: str) -> None:
    found = read_crontab(line, system=False)
    assert found.entries == ()
    assert [(p.line, p.lost, bool(p.reason)) for p in found.problems] == [(1, True, True)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("*/10 * * * * * * /bin/a", "it has 7 fields before its command, and a line of a crontab has 5"),
        ("00 12 * * * * /srv/a", "it has 6 fields before its command, and a line of a crontab has 5"),
        ("TZ=Asia/Tokyo 0 5 * * mon /opt/a", "TZ needs a line of its own: here all that follows is its value"),
        ("export A=1", "cron has no export: write A=1"),
        ("* * * * echo x", MISSING.format(4)),
        ("*/5 * * * *echo x", MISSING.format(4)),
        ("0 5 * * weekly-report", MISSING.format(4)),
        ("0 5 * mon /opt/all what is due", MISSING.format(4)),
        ("7 25 cron.weekly nice run-parts /etc/cron.weekly", MISSING.format(2)),
        ("@monthly 45 cron.monthly nice run-parts /etc/cron.monthly", ANACRON),
        ("@daily 5 x", ANACRON),
        (
            "0 9 * * monday /opt/a",
            "'0 9 * * monday' is not a cron line: it has a bad day-of-week: 'MONDAY' is none of 0 to 7, SUN to SAT, "
            "MON#2 or 5L; 0 and 7 are Sunday",
        ),
        ("hello world and all that is in it", "it is no line of a crontab"),
    ],
)
def test_the_reason_names_the_cure(line: str, reason: str) -> None:
    (problem,) = read_crontab(line, system=False).problems
    assert problem.reason == reason


@pytest.mark.parametrize(
    ("text", "commands", "lost"),
    [
        ("SHELL=python3\n0 9 * * * a\nSHELL=/bin/bash\n0 9 * * * b\n", ["b"], [1, 2]),
        ("CRON_TZ=Nowhere/Town\n0 9 * * * a\nCRON_TZ=UTC\n0 9 * * * b\n", ["b"], [1, 2]),
        ("CITY=K\udce9\n0 9 * * * a $CITY\n0 9 * * * b $CITYS\n0 9 * * * c ${CITY}\n", ["b $CITYS"], [1, 2, 4]),
        ("NO-NAME=1\n0 9 * * * a\n", ["a"], [1]),
        ("RANDOM_DELAY=soon\n0 9 * * * a\n", ["a"], [1]),
        (f"LONG={'x' * 200_000}\n0 9 * * * a\n", ["a"], [1]),
    ],
)
def test_a_variable_that_cannot_be_carried_over_costs_only_the_lines_that_need_it(
    text: str, commands: list[str], lost: list[int]
) -> None:
    found = read_crontab(text, system=False)
    assert [entry.command for entry in found.entries] == commands
    assert [problem.line for problem in found.problems if problem.lost] == lost


def test_a_shell_without_its_path_is_found_and_said() -> None:
    found = read_crontab("SHELL=bash\n0 9 * * * a\n", system=False)
    assert found.entries[0].environment == {"SHELL": "/bin/bash"}
    assert [(problem.line, problem.lost) for problem in found.problems] == [(1, False)]


def test_a_setting_of_cron_is_given_to_the_commands_that_name_it() -> None:
    found = read_crontab("MAILTO=ann\nA=1\n0 9 * * * a\n0 9 * * * b | mail $MAILTO\n", system=False)
    assert [entry.environment for entry in found.entries] == [{"A": "1"}, {"A": "1", "MAILTO": "ann"}]


def test_a_user_who_is_not_here_is_refused_where_cron_would_refuse_it() -> None:
    text = "0 9 * * * cd /srv && make\n0 9 * * * root:wheel /opt/a\n"
    found = read_crontab(text, system=True, is_user=lambda name: name == "root")
    assert [(entry.user, entry.command) for entry in found.entries] == [("root", "/opt/a")]
    (problem,) = found.problems
    assert (problem.line, problem.lost) == (1, True)
    assert problem.reason.startswith("there is no user cd here")


@pytest.mark.parametrize(
    ("line", "system", "command"),
    [
        ("0 2 * * /opt/run.sh us west", False, "/opt/run.sh us west"),
        ("0 2 * * /opt/run.sh", False, "/opt/run.sh"),
        ("0 2 * * root /opt/run.sh us%in", True, "/opt/run.sh us"),
        ("0 2 * root /opt/run.sh us", True, "/opt/run.sh us"),
        ("0 2 * * root", True, ""),
        ("@monthly 45 cron.monthly nice run-parts", True, "45 cron.monthly nice run-parts"),
        ("99 2 * * * /opt/run.sh us", False, "/opt/run.sh us"),
    ],
)
def test_the_command_behind_too_few_fields_is_read(line: str, system: bool, command: str) -> None:
    (problem,) = read_crontab(line, system=system).problems
    assert (problem.lost, problem.command) == (True, command)


def test_a_command_that_goes_on_in_the_background_is_noted() -> None:
    text = "0 9 * * * nohup /opt/a &\n0 9 * * * a && b\n0 9 * * * (a; b) & \n"
    found = read_crontab(text, system=False)
    assert len(found.entries) == 3
    assert [(problem.line, problem.lost) for problem in found.problems] == [(1, False), (3, False)]
    assert "ends with it" in found.problems[0].reason


def test_the_drawing_of_the_fields_is_no_description() -> None:
    text = """\
# Example of job definition:
# .---------------- minute (0 - 59)
# |  .------------- hour (0 - 23)
# *  *  *  *  * user-name command to be executed
17 * * * *  run-parts
# what it does
# in two lines
0 9 * * * a
"""
    assert [e.description for e in read_crontab(text, system=False).entries] == ["", "what it does in two lines"]


def test_a_flag_that_says_one_at_a_time_is_kept() -> None:
    found = read_crontab("0 9 * * * -ns a\n0 9 * * * -n b\n", system=False)
    assert [(entry.command, entry.single) for entry in found.entries] == [("a", True), ("b", False)]


@pytest.mark.parametrize(
    "raw",
    ["0 9 * * * é\n".encode("utf-8-sig"), "0 9 * * * é\n".encode("utf-16"), "0 9 * * * é\r\n".encode()],
)
def test_marks_of_other_systems_are_no_part_of_a_line(raw: bytes) -> None:
    (entry,) = read_crontab(crontab_text(raw), system=False).entries
    assert (entry.line, entry.when, entry.command) == (1, "0 9 * * *", "é")


def test_bytes_that_are_no_text_cost_their_own_line_only() -> None:
    raw = b"# caf\xe9\n0 9 * * * /opt/caf\xe9\n0 9 * * * /opt/b\n"
    found = read_crontab(crontab_text(raw), system=False)
    assert [entry.command for entry in found.entries] == ["/opt/b"]
    (problem,) = found.problems
    assert (problem.line, problem.text) == (2, "0 9 * * * /opt/caf\\udce9")
    assert "UTF-8" in problem.reason


def test_a_file_of_too_many_lines_is_refused_and_not_cut() -> None:
    with pytest.raises(InvalidInput):
        read_crontab("\n" * 100_001, system=False)


@given(st.text(alphabet="0123456789*/,-@~%\\ \t=#abroot\n\x00é", max_size=300), st.booleans())
def test_nothing_is_ever_raised_and_no_line_is_forgotten(text: str, system: bool) -> None:
    format_of(text, is_user=lambda name: True, is_program=lambda name: False)
    found = read_crontab(text, system=system)
    told = {e.line for e in found.entries} | {p.line for p in found.problems}
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.rstrip("\r").strip(" \t")
        if line and not line.startswith("#") and "=" not in line:
            assert number in told
