"""Crontabs: what their lines say, and what is said of those that cannot be carried over."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zwheel.schedules.crontab import looks_like_system, read_crontab

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


def test_the_format_is_told_by_the_look_of_the_lines() -> None:
    assert looks_like_system(SYSTEM)
    assert not looks_like_system("0 9 * * * /opt/report\n*/5 * * * * curl -s https://example.com\n")
    assert not looks_like_system("")


@pytest.mark.parametrize(
    ("text", "command", "stdin"),
    [
        ("0 9 * * * mail ann%Subject: hi%%Bye", "mail ann", "Subject: hi\n\nBye\n"),
        (r"0 9 * * * date +\%F", "date +%F", ""),
        (r"0 9 * * * echo a\\b", r"echo a\\b", ""),
        ("0 9 * * * cat%", "cat", "\n"),
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
        "CRON_TZ=Nowhere/Town\n0 9 * * * x", "0 9 * * * %only input",
    ],
)  # fmt: skip
def test_what_cannot_be_carried_over_is_listed(line: str) -> None:
    found = read_crontab(line, system=False)
    assert found.entries == ()
    assert [(p.line, p.lost, bool(p.reason)) for p in found.problems] == [(line.count("\n") + 1, True, True)]


@given(st.text(alphabet="0123456789*/,-@~%\\ \t=#abroot\n\x00é", max_size=300), st.booleans())
def test_nothing_is_ever_raised_and_no_line_is_forgotten(text: str, system: bool) -> None:
    looks_like_system(text)
    found = read_crontab(text, system=system)
    told = {e.line for e in found.entries} | {p.line for p in found.problems}
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if line and not line.startswith("#") and "=" not in line:
            assert number in told
