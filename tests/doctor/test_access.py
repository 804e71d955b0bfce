"""Who may come in, by what a server answers: pure, since no test server listens beyond this machine."""

from __future__ import annotations

from typing import Any

import pytest

from zwheel.doctor.access import check_access
from zwheel.errors import BrokerRefused

OPEN = [b"flags", [b"on", b"nopass"], b"passwords", []]
CLOSED = [b"flags", [b"on"], b"passwords", [b"aa"]]
OFF = [b"flags", [b"off", b"nopass"], b"passwords", []]


def levels(user: Any = OPEN, **settings: str | None) -> list[tuple[str, str]]:
    """Answer the check's questions; a setting that is None is refused."""
    defaults: dict[str, str | None] = {
        "port": "6379", "tls-port": "0", "bind": "* -::*", "protected-mode": "yes", "enable-debug-command": "no",
    }  # fmt: skip
    known = {**defaults, **{name.replace("_", "-"): value for name, value in settings.items()}}
    steps = check_access()
    ask: Any = next(steps)
    try:
        while True:
            ((command, *words),) = ask
            if command == "ACL":
                reply = b"default" if words[0] == "WHOAMI" else user
            else:
                value = known.get(words[1])
                reply = None if value is None else [words[1].encode(), value.encode()]
            ask = steps.throw(BrokerRefused("no", "NOPERM")) if reply is None else steps.send([reply])
    except StopIteration as end:
        return [(str(finding.level), finding.text) for finding in end.value]


@pytest.mark.parametrize(
    ("user", "settings", "expected"),
    [
        (OPEN, {"protected_mode": "no"}, "problem"),
        (OPEN, {"protected_mode": "no", "bind": "127.0.0.1 10.0.0.5"}, "problem"),
        (OPEN, {"protected_mode": "no", "bind": ""}, "problem"),
        (OPEN, {}, "warning"),
        (OPEN, {"bind": "127.0.0.1 -::1", "protected_mode": "no"}, "warning"),
        (CLOSED, {"protected_mode": "no"}, "warning"),
        (CLOSED, {}, "ok"),
        (OFF, {}, "ok"),
        (OPEN, {"port": "0"}, "ok"),
        (CLOSED, {"enable_debug_command": "yes"}, "warning"),
        (CLOSED, {"enable_debug_command": "local"}, "warning"),
        (OPEN, {"port": "0", "enable_debug_command": "local"}, "ok"),
        (None, {"requirepass": ""}, "warning"),
        (None, {"requirepass": "secret"}, "ok"),
        (None, {"port": None, "bind": None, "protected_mode": None, "enable_debug_command": None}, "warning"),
    ],
)
def test_the_worst_finding(user: Any, settings: dict[str, str | None], expected: str) -> None:
    found = levels(user, **settings)
    assert max((level for level, _ in found), key=["ok", "warning", "problem"].index) == expected, found
