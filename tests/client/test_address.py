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
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert mask_url(url) == shown
