"""Redis URLs: what is refused, and that no secret in one is ever shown."""

from __future__ import annotations

import pytest

from tests.client.asking import ESCAPED, SECRET
from zwheel.broker.address import mask_url, parse_url
from zwheel.errors import ConfigError


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "localhost:6379",
        "http://h",
        "redis://h/zero",
        "redis://h/0?db=1",
        "redis://h?socket_timeout=1",
        "redis://h?protocol=3",
        "redis://h?ssl_ca_certs=x",
        "redis://h:port",
        "redis://h#x",
        "unix://relative/path",
        "rediss://h?ssl_cert_reqs=maybe",
        "memory://h:1",
        f"redis://u:{SECRET}@h/0",
        f"redis://h?password={SECRET}&password=2",
        f"redis://u:{ESCAPED}@h1,h2/0",
        f"redis://:{ESCAPED}@h?password_file=/x",
        "rediss://h?ssl_keyfile=/x",
        f"redis+sentinel://:{ESCAPED}@h1,h2",
        f"redis+sentinel://:{ESCAPED}@h1,h2/0",
        f"redis+sentinel://:{ESCAPED}@h1,h2/my master/0",
        f"redis+sentinel://:{ESCAPED}@h1,h2/mymaster/0/1",
        f"redis+sentinel://:{SECRET}@h1,h2/mymaster/0",
        f"redis+cluster://:{ESCAPED}@h1,h2/1",
        f"redis+cluster://:{ESCAPED}@h1,,h2",
        f"redis+cluster://:{ESCAPED}@h1,h2:port",
        f"redis+cluster://h1?sentinel_password={SECRET}",
        "redis+cluster://",
        "unix+cluster:///tmp/a",
    ],
)
def test_a_bad_url_is_refused_without_showing_its_password(bad: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_url(bad)
    assert SECRET not in str(raised.value)
    assert "word" not in str(raised.value).replace("password", "")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h", "redis://h:6379/0"),
        (f"redis://u:{ESCAPED}@h:1/2", "redis://u:***@h:1/2"),
        (f"valkeys://:{ESCAPED}@[::1]", "rediss://:***@[::1]:6379/0"),
        (f"redis://h?password={ESCAPED}", "redis://:***@h:6379/0"),
        ("rediss://h?ssl_password=abc", "rediss://h:6379/0?ssl_password=***"),
        ("unix:///tmp/a?db=2", "unix:///tmp/a?db=2"),
        ("memory://x", "memory://x"),
        (f"what://u:{SECRET}@h", "what://u:***@h"),
        (f"redis+sentinel://u:{ESCAPED}@h1,[::1]:2/m", "redis+sentinel://u:***@h1:26379,[::1]:2/m/0"),
        (f"rediss+sentinel://h/m/1?sentinel_password={ESCAPED}", "rediss+sentinel://h:26379/m/1?sentinel_password=***"),
        (f"valkeys+cluster://:{ESCAPED}@h1:1,h2", "rediss+cluster://:***@h1:1,h2:6379"),
        ("redis://u@h?password_file=/run/secret", "redis://***@h:6379/0?password_file=/run/secret"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert mask_url(url) == shown


def test_a_url_may_name_several_hosts() -> None:
    found = parse_url("rediss+sentinel://h1:1,h2/mymaster/3?ssl_ca_certs=/x")
    assert (found.scheme, found.kind, found.master, found.db) == ("rediss", "sentinel", "mymaster", 3)
    assert found.hosts == (("h1", 1), ("h2", 26379))
    assert parse_url("redis+cluster://h1,h2:7/0").hosts == (("h1", 6379), ("h2", 7))
    assert str(found.at("h9", 9)) == "rediss://h9:9/3?ssl_ca_certs=/x"


def test_several_hosts_of_a_plain_url_are_told_what_they_may_be() -> None:
    with pytest.raises(ConfigError, match=r"redis\+sentinel://h1,h2/mymaster/0, or a cluster: redis\+cluster://h1,h2"):
        parse_url("redis://h1:1,h2:2/0")
