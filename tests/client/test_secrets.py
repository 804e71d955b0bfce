"""Passwords: however a URL is written and wherever it comes from, nothing that is shown, logged or raised tells them."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.client.asking import open_async
from tests.conftest import MakeServer
from zwheel import SyncWheel, Wheel
from zwheel.broker import connect
from zwheel.broker.address import mask_url, parse_url
from zwheel.broker.connect import connect_async, connect_sync, translate
from zwheel.config import load_settings
from zwheel.errors import BrokerRefused, ConfigError

PASSWORD = "s3cr3t"
VALID = [
    "redis://u:s3cr3t@h",
    "redis://:s3cr3t@h:6379/0",
    "redis://s3cr3t@h",
    "redis://u:p@s3cr3t@h",
    "redis://u:s3cr3t%ZZ@h",
    "redis://u:s3cr3t%@h",
    "redis://u:a s3cr3t b@h",
    "redis://u:a\ts3cr3t@h",
    "redis://u:a:s3cr3t@h",
    "redis://u@x:s3cr3t@h",
    "redis://h?password=s3cr3t",
    "redis://h?username=u&password=s3cr3t",
    "rediss://h?ssl_password=s3cr3t",
    "unix://:s3cr3t@/tmp/a.sock",
    "unix:///tmp/a.sock?password=s3cr3t",
    "valkeys://u:s3cr3t@[::1]:1",
]
BAD = [
    "redis://u:s3cr3t@h:port",
    "redis://u:s3cr3t@h:99999",
    "redis://u:s3cr3t@h:-1",
    "redis://u:s3cr3t@h:6379:6380",
    "redis://u:s3cr3t@[::1",
    "redis://u:s3cr3t@[h]",
    "redis://u:[s3cr3t@h",
    "redis://u:s3cr3t]@h",
    "redis://u:[s3cr3t]@h",
    "redis://[s3cr3t]",
    "redis://u:a/s3cr3t@h",
    "redis://u:1/s3cr3t@h",
    "redis://u:a#s3cr3t@h",
    "redis://u:1#s3cr3t@h",
    "redis://u:1?s3cr3t@h",
    "redis://u:1?s3cr3t=1@h",
    "redis://u:1?password=x&s3cr3t=@h",
    "redis://u:a?b@s3cr3t:x@h",
    "redis://u:1/a?@s3cr3t",
    "redis://u:a@b/s3cr3t@h",
    "redis://u:s3cr3t",
    "redis://:s3cr3t",
    "redis://h:s3cr3t/0",
    "redis://:s3cr3t@h/zero",
    "redis://h/s3cr3t",
    "redis://h?db=s3cr3t",
    "redis://h?s3cr3t",
    "redis://h?s3cr3t=1",
    "redis://h?pass=s3cr3t",
    "redis://h?auth=s3cr3t",
    "redis://h?PASSWORD=s3cr3t",
    "redis://h;password=s3cr3t",
    "redis://h?password=s3cr3t&password=s3cr3t",
    "redis://u:s3cr3t\u2100@h",
    "redis://u:s3cr3t@\u2100h",
    "redis://u:%5Bs3cr3t@h:%",
    "redis://u:a b s3cr3t@h:x y",
    "redis:/u:s3cr3t@h",
    "redis:u:s3cr3t@h",
    "u:s3cr3t@h:6379",
    "//u:s3cr3t@h",
    "http://u:s3cr3t@h",
    "redis+sentinel://u:s3cr3t@a:1,b:2",
    "redis ://u:s3cr3t@h",
    "unix://u:s3cr3t@relative/path",
    "unix://:s3cr3t/tmp/a.sock",
    "memory://u:s3cr3t@x",
    "rediss://u:s3cr3t@h?ssl_cert_reqs=s3cr3t",
    "rediss://u:s3cr3t@h?ssl_check_hostname=s3cr3t",
    "redis://u:s3cr3t@h?password=s3cr3t#s3cr3t",
]


def told(error: BaseException) -> str:
    """All that anybody could print of an exception, also of what is chained to it without being shown."""
    texts, left, seen = [], [error], set()
    while left:
        link = left.pop()
        if id(link) not in seen:
            seen.add(id(link))
            texts += [str(link), repr(link), *traceback.format_exception(link)]
            left += [other for other in (link.__cause__, link.__context__) if other is not None]
    return "\n".join(texts)


@pytest.fixture
def forgotten() -> Iterator[None]:
    """No warning was given before."""
    before = set(connect._warned)
    connect._warned.clear()
    yield
    connect._warned.clear()
    connect._warned.update(before)


@pytest.mark.parametrize("url", BAD)
def test_a_malformed_url_is_refused_and_no_place_of_it_tells_the_password(url: str, tmp_path: Path) -> None:
    quoted = url.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t")
    file = tmp_path / "zwheel.toml"
    file.write_text(f'[zwheel]\nurl = "{quoted}"\n', encoding="utf-8")
    file.chmod(0o600)
    empty = tmp_path / "empty"
    empty.mkdir()
    tries: list[Callable[[], object]] = [
        lambda: parse_url(url),
        lambda: load_settings(url=url, cwd=empty, env={}),
        lambda: load_settings(cwd=empty, env={"ZWHEEL_URL": url}),
        lambda: load_settings(cwd=empty, env={"REDIS_URL": url}),
        lambda: load_settings(cwd=tmp_path, env={}),
        lambda: connect_async(url),
        lambda: connect_sync(url),
    ]
    for attempt in tries:
        with pytest.raises(ConfigError) as raised:
            attempt()
        assert PASSWORD not in told(raised.value)
        assert "redis" in str(raised.value).lower(), "it says what it is about"
    assert PASSWORD not in mask_url(url)
    assert PASSWORD not in str(translate(OSError("broken"), url))
    assert PASSWORD not in repr(Wheel(url)) + repr(SyncWheel(url))


@pytest.mark.parametrize("url", VALID)
def test_an_odd_url_that_works_shows_no_password(url: str, tmp_path: Path) -> None:
    settings = load_settings(url=url, cwd=tmp_path, env={})
    address = parse_url(url)
    shown = [mask_url(url), str(address), repr(address), repr(settings), repr(Wheel(url)), repr(SyncWheel(url))]
    client = connect_sync(url)
    shown += [repr(client), repr(client.connection_pool), repr(connect_async(url))]
    shown += [str(translate(OSError("broken"), url))]
    assert PASSWORD not in "\n".join(shown)


@pytest.mark.parametrize("url", ["redis://u:[s3cr3t]@h", "redis://u:1/s3cr3t@h", "redis://u:1?s3cr3t=1@h"])
@pytest.mark.parametrize("place", ["--url", "ZWHEEL_URL", "REDIS_URL", "zwheel.toml"])
def test_no_command_shows_the_password_of_a_malformed_url_not_even_with_debug(
    url: str, place: str, tmp_path: Path
) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("ZWHEEL_URL", "REDIS_URL")}
    arguments = [sys.executable, "-m", "zwheel.cli", "queue", "ls", "--debug"]
    if place == "--url":
        arguments += ["--url", url]
    elif place == "zwheel.toml":
        (tmp_path / place).write_text(f'[zwheel]\nurl = "{url}"\n')
        (tmp_path / place).chmod(0o600)
    else:
        environment[place] = url
    done = subprocess.run(
        arguments, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode != 0
    assert place in done.stderr
    assert PASSWORD not in done.stdout + done.stderr


@pytest.mark.parametrize("key", ['"redis://u:s3cr3t@h"', '"url redis://u:s3cr3t@h"'])
def test_a_setting_that_is_no_setting_shows_no_password(key: str, tmp_path: Path) -> None:
    file = tmp_path / "zwheel.toml"
    for text in (f"{key} = 1\n", f"[zwheel]\n{key} = 1\n"):
        file.write_text(text)
        file.chmod(0o600)
        with pytest.raises(ConfigError) as raised:
            load_settings(cwd=tmp_path, env={})
        assert PASSWORD not in told(raised.value)


@pytest.mark.anyio
@pytest.mark.raw_keys
@pytest.mark.parametrize("login", [":s3cr3t", "u:s3cr3t", ":a%40s3cr3t%27%25x", "u:s3cr3t%0A%5C", f":{'s3cr3t' * 40}"])
async def test_a_server_that_does_not_know_auth_repeats_the_password_and_nobody_else_does(
    own_server: MakeServer, login: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = own_server(arguments=("--rename-command", "AUTH", ""))
    url = f"unix://{login}@{server.socket}"
    client = open_async(url)
    with pytest.raises(Exception) as raised:
        await client.ping()
    await client.aclose()
    with connect_sync(url) as blocking, pytest.raises(Exception) as other:
        blocking.ping()
    async with Wheel(url, give_up_s=0.5) as wheel:
        with pytest.raises(BrokerRefused) as ours:
            await wheel.ping()
    with SyncWheel(url, give_up_s=0.5) as sync, pytest.raises(BrokerRefused) as theirs:
        sync.ping()
    for error in (raised.value, other.value, ours.value, theirs.value, translate(raised.value, url)):
        assert PASSWORD not in told(error)
    assert "AUTH" in str(ours.value)
    assert PASSWORD not in caplog.text


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ("ssl_cert_reqs=none", "ssl_cert_reqs=none"),
        ("ssl_cert_reqs=none&ssl_check_hostname=false", "ssl_cert_reqs=none"),
        ("ssl_check_hostname=false", "ssl_check_hostname=false"),
        ("ssl_check_hostname=0", "ssl_check_hostname=false"),
    ],
)
def test_tls_without_its_checks_is_said_once_and_loudly(
    options: str, word: str, caplog: pytest.LogCaptureFixture, forgotten: None
) -> None:
    url = f"rediss://u:s3cr3t@h?{options}"
    for _ in range(3):
        connect_async(url)
        connect_sync(url)
        connect.connect_blocking(url)
    (line,) = [record for record in caplog.records if record.name.startswith("zwheel")]
    assert line.levelno == logging.WARNING
    assert "INSECURE" in line.getMessage()
    assert word in line.getMessage()
    assert PASSWORD not in line.getMessage()


def test_tls_with_its_checks_is_not_talked_about(caplog: pytest.LogCaptureFixture, forgotten: None) -> None:
    connect_async("rediss://u:s3cr3t@h?ssl_check_hostname=true&ssl_cert_reqs=required")
    connect_async("redis://u:s3cr3t@h")
    assert caplog.records == []
