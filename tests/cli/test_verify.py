"""`zwheel verify` at the command line: what tests/verify does not show."""

from __future__ import annotations

from pathlib import Path

from tests.servers import RedisServer
from zwheel import SyncWheel
from zwheel.broker.acl import Role, rules

from .conftest import Shell


def test_a_history_in_which_nothing_was_recorded_proves_nothing(bare: Shell, tmp_path: Path) -> None:
    (tmp_path / "h").mkdir()
    (tmp_path / "h" / "empty.jsonl").touch()
    done = bare("verify", "h")
    assert (done.code, done.out) == (2, "")
    assert "nothing of any job was recorded there" in done.err


def test_a_reader_may_take_a_snapshot(shell: Shell, fresh: RedisServer) -> None:
    with SyncWheel(fresh.url, namespace="zw") as wheel:
        wheel.enqueue("t", queue="q", id="a", delay=60)
    with fresh.client() as admin:
        admin.execute_command("ACL", "SETUSER", "looks", "on", ">looks", *rules([Role.READER], "zw", ["q"]))
        try:
            done = shell.ok("verify", "--snapshot", "--queue", "q", "--url", f"unix://looks:looks@{fresh.socket}")
        finally:
            admin.execute_command("ACL", "DELUSER", "looks")
    assert '"id":"a"' in done.out or '"a"' in done.out
