"""What went wrong, in our words: every class of the client's exceptions, and what real servers say when they refuse."""

from __future__ import annotations

import asyncio
import inspect
import socket
from pathlib import Path

import pytest
from redis import exceptions as client_errors

from tests.client.asking import ESCAPED, SECRET, open_async, refused
from tests.conftest import MakeServer
from tests.servers import RedisServer
from zwheel.broker import errors as redis_errors
from zwheel.broker.connect import connect_sync, translate
from zwheel.errors import BrokerError, BrokerFull, BrokerRefused, BrokerUnavailable, OutcomeUnknown

pytestmark = [pytest.mark.anyio, pytest.mark.raw_keys]


def test_every_exception_class_of_the_client_is_mapped() -> None:
    found = [
        kind
        for _, kind in inspect.getmembers(client_errors, inspect.isclass)
        if issubclass(kind, Exception) and kind.__module__ == "redis.exceptions"
    ]
    assert len(found) > 25
    assert [kind.__name__ for kind in found if kind not in redis_errors._BY_CLASS] == []


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionRefusedError(111, "Connection refused"), BrokerUnavailable),
        (socket.gaierror(-2, "Name or service not known"), BrokerUnavailable),
        (TimeoutError(), OutcomeUnknown),
        (ConnectionResetError(104, "Connection reset by peer"), OutcomeUnknown),
        (BrokenPipeError(32, "Broken pipe"), OutcomeUnknown),
        (client_errors.ConnectionError("Connection closed by server."), OutcomeUnknown),
        (client_errors.ConnectionError("max number of clients reached", status_code="ERR"), BrokerUnavailable),
        (client_errors.BusyLoadingError("Redis is loading", status_code="LOADING"), BrokerUnavailable),
        (client_errors.ResponseError("BUSY Redis is busy running a script"), BrokerUnavailable),
        (client_errors.ClusterDownError("The cluster is down"), BrokerUnavailable),
        (client_errors.MasterDownError("Link with MASTER is down"), BrokerUnavailable),
        (client_errors.ResponseError("UNBLOCKED force unblock from blocking operation"), BrokerUnavailable),
        (client_errors.OutOfMemoryError("command not allowed", status_code="OOM"), BrokerFull),
        (client_errors.ResponseError("OOM command not allowed"), BrokerFull),
        (client_errors.ResponseError("MISCONF Redis is configured to save RDB snapshots"), BrokerRefused),
        (client_errors.MovedError("3999 127.0.0.1:6381"), BrokerRefused),
        (client_errors.DataError("Invalid input of type"), BrokerRefused),
        (RuntimeError("a surprise"), OutcomeUnknown),
        (BrokerFull("already ours"), BrokerFull),
    ],
    ids=lambda value: f"{type(value).__name__}" if isinstance(value, BaseException) else "",
)
def test_an_exception_becomes_ours(error: BaseException, expected: type[BrokerError]) -> None:
    told = translate(error, f"redis://u:{ESCAPED}@h/0")
    assert type(told) is expected
    assert ESCAPED not in str(told)


@pytest.mark.parametrize("text", ["MISCONF no disk", "OOM no memory", "BUSY a script"])
def test_the_code_is_found_behind_a_pipelines_note_and_the_command_is_not_shown(text: str) -> None:
    seen = []
    for quoted in (text, f"('{text}',)"):
        error = client_errors.ResponseError(f"Command # 3 (EVALSHA x {SECRET}) of pipeline caused error: {quoted}")
        told = translate(error, "redis://h")
        assert SECRET not in str(told)
        seen.append((type(told), str(told)))
    assert seen[0] == seen[1]
    assert seen[0][0] is type(translate(client_errors.ResponseError(text), "redis://h"))


async def test_nobody_listens(tmp_path: Path) -> None:
    error = await refused(f"unix://{tmp_path}/none.sock", "PING")
    assert isinstance(error, BrokerUnavailable)
    assert "No such file" in str(error)


async def test_a_closed_port() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        error = await refused(f"redis://:{ESCAPED}@127.0.0.1:{taken.getsockname()[1]}/0", "PING")
    assert isinstance(error, BrokerUnavailable)
    assert "refused" in str(error).lower()


def test_a_sync_client_that_nobody_answers(tmp_path: Path) -> None:
    url = f"unix://{tmp_path}/none.sock"
    with connect_sync(url) as client, pytest.raises(client_errors.ConnectionError) as raised:
        client.ping()
    assert isinstance(translate(raised.value, url), BrokerUnavailable)


@pytest.mark.parametrize(
    ("login", "cure"), [("", "put the password into the URL"), (":wrong@", "check the user name and the password")]
)
async def test_a_missing_or_wrong_password(own_server: MakeServer, login: str, cure: str) -> None:
    server = own_server(arguments=("--requirepass", SECRET))
    error = await refused(f"unix://{login}{server.socket}", "PING")
    assert isinstance(error, BrokerRefused)
    assert cure in str(error)


def test_a_wrong_password_of_a_sync_client(own_server: MakeServer) -> None:
    server = own_server(arguments=("--requirepass", SECRET))
    url = f"unix://:wrong@{server.socket}"
    with connect_sync(url) as client, pytest.raises(client_errors.ConnectionError) as raised:
        client.ping()
    assert isinstance(translate(raised.value, url), BrokerRefused)


async def test_a_user_without_rights(fresh: RedisServer) -> None:
    with fresh.client() as plain:
        plain.execute_command("ACL", "SETUSER", "small", "on", f">{SECRET}", "~zw:*", "+get")
    try:
        error = await refused(f"unix://small:{ESCAPED}@{fresh.socket}", "SET", "k", "v")
    finally:
        with fresh.client() as plain:
            plain.execute_command("ACL", "DELUSER", "small")
    assert isinstance(error, BrokerRefused)
    assert "rights" in str(error)


async def test_a_full_server_is_told_from_one_that_refuses(own_server: MakeServer) -> None:
    server = own_server(maxmemory="1")
    assert isinstance(await refused(server.url, "SET", "k", "v"), BrokerFull)
    assert isinstance(await refused(server.url, "EVAL", "return redis.call('set', KEYS[1], 1)", 1, "k"), BrokerFull)
    client = open_async(server.url)
    async with client.pipeline(transaction=False) as pipeline:
        pipeline.set("k", SECRET)
        with pytest.raises(client_errors.RedisError) as raised:
            await pipeline.execute()
    await client.aclose()
    told = translate(raised.value, server.url)
    assert isinstance(told, BrokerFull)
    assert SECRET not in str(told)


async def test_too_few_replicas(own_server: MakeServer) -> None:
    server = own_server(arguments=("--min-replicas-to-write", "1"))
    error = await refused(server.url, "SET", "k", "v")
    assert isinstance(error, BrokerRefused)
    assert "replicas" in str(error)


async def test_a_replica_is_refused_and_its_connection_is_not_used_again(own_server: MakeServer) -> None:
    server = own_server()
    client = open_async(server.url)
    first = await client.client_id()
    with server.client() as plain:
        plain.replicaof("127.0.0.1", "1")
    with pytest.raises(client_errors.ReadOnlyError) as raised:
        await client.set("k", "v")
    second = await client.client_id()
    async with client.pipeline(transaction=False) as pipeline:
        pipeline.set("k", "v")
        with pytest.raises(client_errors.ReadOnlyError):
            await pipeline.execute()
    third = await client.client_id()
    await client.aclose()
    error = translate(raised.value, server.url)
    assert isinstance(error, BrokerRefused)
    assert "connect to the primary" in str(error)
    assert len({first, second, third}) == 3


def test_a_sync_client_leaves_a_replica_too(own_server: MakeServer) -> None:
    server = own_server()
    with connect_sync(server.url) as client, server.client() as plain:
        first = client.client_id()
        plain.replicaof("127.0.0.1", "1")
        with pytest.raises(client_errors.ReadOnlyError):
            client.set("k", "v")
        assert client.client_id() != first


async def test_a_script_that_runs_for_too_long(own_server: MakeServer) -> None:
    server = own_server(arguments=("--busy-reply-threshold", "1"))
    endless = open_async(server.url)
    running = asyncio.create_task(endless.eval("while true do end", 0))
    watcher = open_async(server.url)
    with pytest.raises(client_errors.ResponseError) as raised:
        while True:
            await watcher.ping()
    await watcher.script_kill()
    with pytest.raises(client_errors.ResponseError):
        await running
    await watcher.aclose()
    await endless.aclose()
    error = translate(raised.value, server.url)
    assert isinstance(error, BrokerUnavailable)
    assert "SCRIPT KILL" in str(error)


async def test_a_server_that_has_no_room_for_another_client(own_server: MakeServer) -> None:
    server = own_server(arguments=("--maxclients", "1"))
    with server.client() as plain:
        plain.ping()
        error = await refused(server.url, "PING")
    assert isinstance(error, BrokerUnavailable)


async def test_an_unknown_command(url: str) -> None:
    error = await refused(url, "ZWNOSUCH")
    assert isinstance(error, BrokerRefused)
    assert "unknown command" in str(error)


def test_a_right_that_a_script_lacks_is_named_without_where_in_the_script() -> None:
    said = "NOPERM nothing was changed, since this Redis user lacks +zadd"
    error = client_errors.NoPermissionError(
        f"{said} script: {'a05a911b' * 5}, on @user_script:84.".removeprefix("NOPERM ")
    )
    told = str(translate(error, "redis://h", lambda: "zwheel acl worker --queue emails"))
    assert told == (
        "Redis at redis://h:6379/0 refused (nothing was changed, since this Redis user lacks +zadd): give this Redis user its "
        "rights: `zwheel acl worker --queue emails` prints the rules"
    )
