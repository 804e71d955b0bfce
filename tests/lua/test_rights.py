"""A Redis user that lacks one right: each script as each such user, whole or not at all, and the system goes on. V-09."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import redis

from tests.mutants.fault import standing_in
from tests.servers import RedisServer
from zwheel.calls import Call
from zwheel.calls.scripts import NAMES, Script, script

from .batches import prepare
from .going_on import ends, places
from .shard import KEYS, Keyspace, Shard

USER = "limited"
#: What Redis and Valkey themselves say of a command in a script; only what is read before the first write meets it.
IN_A_SCRIPT = re.compile("can't run this command|ACL failure in script")
SIZE = 30
COMMAND = re.compile(r"redis\.p?call\(\s*'([A-Z]+)'")
CASES = [(name, command) for name in NAMES for command in sorted(set(COMMAND.findall(script(name).source)))]
each_right = pytest.mark.parametrize(("name", "command"), CASES)


def refused_to(server: RedisServer, call: Call, command: str) -> str:
    """Run a call as a user who has every right but one; give what it was answered, '' when all went well."""
    with server.client() as admin:
        admin.execute_command(
            "ACL", "SETUSER", USER, "reset", "on", "nopass", "+@all", f"-{command.lower()}", f"~{KEYS.tag}:*"
        )
        admin.script_load(call.script.source)
    with redis.Redis(unix_socket_path=str(server.socket), username=USER, password="any") as client:
        try:
            client.execute_command(*call.command())
        except redis.exceptions.ResponseError as error:
            return f"{type(error).__name__} {error}"
    return ""


def without_marks(keyspace: Keyspace) -> Keyspace:
    """What was stored, without wake-up tokens and marks of the time."""
    left = {name: value for name, value in keyspace.items() if name not in ("wake", "meta")}
    marks = ("clock", "beat", "grace", "lease")
    return left | {"meta": {field: text for field, text in keyspace.get("meta", {}).items() if field not in marks}}


@each_right
def test_a_script_without_one_right_changes_nothing_or_does_all(
    real_shard: Shard, fresh: RedisServer, name: str, command: str
) -> None:
    call = prepare(name, real_shard, SIZE)
    before = real_shard.keyspace()
    answer = refused_to(fresh, call, command)
    if answer:
        assert without_marks(real_shard.keyspace()) == without_marks(before)
        assert f"lacks +{command.lower()}" in answer or IN_A_SCRIPT.search(answer)
    real_shard.run(call)
    after = real_shard.keyspace()
    real_shard.client.flushall()
    real_shard.run(prepare(name, real_shard, SIZE))
    assert without_marks(real_shard.keyspace()) == without_marks(after), (
        "the right came back, and all is as it should be"
    )


@pytest.fixture
def unasked() -> Iterator[None]:
    """Let scripts run without asking for their rights first: they end in the middle where one is missing."""
    with standing_in("include/rights.lua", "-- rights: asks for nothing.\nlocal function rights()\nend\n"):
        yield


@pytest.mark.usefixtures("unasked")
@each_right
def test_a_script_that_ends_in_the_middle_leaves_every_job_in_a_place_and_all_of_them_end(
    real_shard: Shard, fresh: RedisServer, name: str, command: str
) -> None:
    call = prepare(name, real_shard, SIZE)
    if name == "repair":
        pytest.skip("it is there to mend jobs that are in no place")
    refused_to(fresh, call, command)
    cut = real_shard.keyspace()
    found = {job_id: sets for job_id, sets in places(cut).items() if job_id in cut.get("jobs", {})}
    assert {job_id: sets for job_id, sets in found.items() if not 1 <= len(sets) <= 2} == {}
    ran = ends(real_shard)
    left = places(real_shard.keyspace())
    assert {job_id: sets for job_id, sets in left.items() if len(sets) != 1 or sets[0] not in ("done", "dead")} == {}
    living = {
        job_id for job_id in found if cut["jobs"][job_id][1:2] in (b"s", b"p") and cut["jobs"][job_id][:1] == b"2"
    }
    assert living - ran - set(left) == set()


def test_the_answer_names_what_is_missing(real_shard: Shard, fresh: RedisServer) -> None:
    call = prepare("claim", real_shard, 3)
    with fresh.client() as admin:
        rules = ("+@all", "-zadd", "-hset", f"~{KEYS.tag}:*")
        admin.execute_command("ACL", "SETUSER", USER, "reset", "on", "nopass", *rules)
        admin.script_load(call.script.source)
    with (
        redis.Redis(unix_socket_path=str(fresh.socket), username=USER, password="any") as client,
        pytest.raises(redis.exceptions.NoPermissionError, match=r"nothing was changed.* lacks \+zadd \+hset"),
    ):
        client.execute_command(*call.command())


def test_a_question_about_every_command_is_harmless_on_this_server(real_shard: Shard) -> None:
    commands = sorted({command for _, command in CASES})
    # Redis 8 answers with an error where words are missing; Redis 7.0 must live on, which is what is looked at here.
    source = "#!lua\n" + "\n".join(f"pcall(redis.acl_check_cmd, '{command}', KEYS[1])" for command in commands)
    user = "harmless"
    real_shard.client.execute_command(
        "ACL", "SETUSER", user, "reset", "on", "nopass", "+eval", "+set", f"~{KEYS.tag}:*"
    )
    try:
        made = Script("questions", source, "")
        assert real_shard.client.eval(made.source, 1, KEYS.meta) is None
    finally:
        real_shard.client.execute_command("ACL", "DELUSER", user)
