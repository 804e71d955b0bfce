"""Users of a test server with exactly the rules that `zwheel acl` prints."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.servers import RedisServer
from zwheel.broker.acl import Role, rules

AsRole = Callable[..., str]


@pytest.fixture
def as_role(fresh: RedisServer) -> Iterator[AsRole]:
    """Make a user with the rules of these roles in these queues, less some; give the URL that it connects with."""
    made: list[str] = []

    def make(*roles: Role, queues: tuple[str, ...] = ("default",), without: tuple[str, ...] = ()) -> str:
        name = f"user{len(made)}"
        made.append(name)
        kept = [rule for rule in rules(roles, "zw", queues) if rule not in without]
        with fresh.client() as admin:
            admin.execute_command("ACL", "SETUSER", name, "reset", "on", ">secret", *kept)
            admin.script_flush()
        return f"unix://{name}:secret@{fresh.socket}"

    yield make
    with fresh.client() as admin:
        if made:
            admin.execute_command("ACL", "DELUSER", *made)
