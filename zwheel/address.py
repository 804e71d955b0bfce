"""Redis URLs: read strictly, shown without their password. No I/O and no Redis client here.

    redis://[[user]:password@]host[:port][/db]     also valkey://
    rediss://...                                   TLS, certificates checked; also valkeys://
    unix:///path/to/redis.sock[?db=n]
    memory://[name]                                inside this process only

A URL may carry `db`, `username`, `password` and the `ssl_*` options of redis-py. Timeouts, retries and the protocol are
zwheel's own and are refused there, because a queue depends on them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from zwheel.errors import ConfigError

DEFAULT_PORT = 6379
MASK = "***"
MEMORY_BANNER = "IN-MEMORY: jobs are lost when this process ends, and no other process can see them."
_ALIASES = {"valkey": "redis", "valkeys": "rediss", "valkey+unix": "unix", "redis+unix": "unix"}
_SCHEMES = ("redis", "rediss", "unix", "memory")
_TLS_TEXT = (
    "ssl_ca_certs",
    "ssl_ca_path",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_password",
    "ssl_cert_reqs",
    "ssl_ciphers",
)
_TLS_SWITCH = "ssl_check_hostname"
_SECRET_OPTIONS = ("password", "ssl_password")
_USERINFO = re.compile(r"(?P<before>[A-Za-z][A-Za-z0-9+.-]*://)(?P<userinfo>\S*)@")
_SECRET_QUERY = re.compile(r"(?P<before>[?&](?:password|ssl_password)=)[^&#\s]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a server listens and how to log in, taken apart from a URL."""

    scheme: str
    """`redis`, `rediss`, `unix` or `memory`."""
    host: str = ""
    """Name or address; for `memory`, the name of the store; empty for `unix`."""
    port: int = DEFAULT_PORT
    path: str = ""
    """The socket's path; empty for any other scheme."""
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: dict[str, str | bool] = field(default_factory=dict, repr=False)
    """The `ssl_*` options, only for `rediss`."""

    def __str__(self) -> str:
        """The URL with its secrets hidden."""
        user = ""
        if self.username is not None or self.password is not None:
            secret = "" if self.password is None else f":{MASK}"
            user = f"{quote(self.username, safe='') if self.username else ''}{secret}@"
        if self.scheme == "memory":
            return f"memory://{self.host}"
        if self.scheme == "unix":
            return f"unix://{user}{quote(self.path)}" + (f"?db={self.db}" if self.db else "")
        host = f"[{self.host}]" if ":" in self.host else self.host
        shown = {name: MASK if name in _SECRET_OPTIONS else value for name, value in self.tls.items()}
        return f"{self.scheme}://{user}{host}:{self.port}/{self.db}" + (
            f"?{urlencode(shown, safe='*/')}" if shown else ""
        )


def parse_url(url: str) -> Address:
    """Take a URL apart, or raise ConfigError with a sentence that shows no secret."""
    if not isinstance(url, str) or not url.strip():
        raise ConfigError("the Redis URL is empty: use redis://host:6379/0, rediss://..., unix:///path or memory://")
    url = url.strip()
    try:
        parts = urlsplit(url)
        port = parts.port
        host = parts.hostname
        query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError as error:
        raise _bad(
            url, f"{_without_values(error)}; write @ : / # ? % in a password as %40 %3A %2F %23 %3F %25"
        ) from None
    scheme = _ALIASES.get(parts.scheme, parts.scheme)
    if "://" not in url or scheme not in _SCHEMES:
        raise _bad(url, "it must start with redis://, rediss://, unix:// or memory://")
    if parts.fragment:
        raise _bad(url, "a # in it must be written %23")
    options = _options(url, scheme, query)
    username = unquote(parts.username) if parts.username else _text(options, "username")
    password = unquote(parts.password) if parts.password else _text(options, "password")
    db = _database(url, scheme, parts.path, _text(options, "db"))
    tls = {name: value for name, value in options.items() if name.startswith("ssl_")}
    if scheme == "memory":
        return _memory(url, host, port, parts.path, username, password, db)
    if scheme == "unix":
        if host or port or not parts.path.startswith("/"):
            raise _bad(url, "a socket needs an absolute path: unix:///path/to/redis.sock")
        return Address(scheme=scheme, path=unquote(parts.path), db=db, username=username, password=password)
    return Address(
        scheme=scheme,
        host=unquote(host) if host else "localhost",
        port=DEFAULT_PORT if port is None else port,
        db=db,
        username=username,
        password=password,
        tls=tls,
    )


def mask_url(url: str) -> str:
    """Give the URL as it may be shown: the password hidden, whatever else is wrong with it."""
    try:
        return str(parse_url(url))
    except ConfigError:
        return mask_text(url)


def mask_text(text: str) -> str:
    """Hide the password of every URL in a text. An unescaped / or # in a password does not show the rest of it."""

    def hide(found: re.Match[str]) -> str:
        user, colon, _ = found["userinfo"].partition(":")
        return f"{found['before']}{user}{f':{MASK}' if colon else ''}@"

    return _SECRET_QUERY.sub(rf"\g<before>{MASK}", _USERINFO.sub(hide, text))


def _memory(
    url: str, host: str | None, port: int | None, path: str, username: str | None, password: str | None, db: int
) -> Address:
    if port is not None or path not in ("", "/") or username or password or db:
        raise _bad(url, "memory:// takes nothing but a name, as in memory:// or memory://tests")
    return Address(scheme="memory", host=host or "")


def _options(url: str, scheme: str, query: list[tuple[str, str]]) -> dict[str, str | bool]:
    known = {"db", "username", "password"} if scheme != "memory" else set()
    if scheme == "rediss":
        known |= {*_TLS_TEXT, _TLS_SWITCH}
    options: dict[str, str | bool] = {}
    for name, value in query:
        if name not in known:
            allowed = ", ".join(sorted(known)) or "none"
            raise _bad(url, f"the option {name!a} is not one that zwheel takes here (allowed: {allowed})")
        if name in options:
            raise _bad(url, f"the option {name} is given twice")
        if name == _TLS_SWITCH:
            if value.lower() not in ("true", "false", "1", "0", "yes", "no"):
                raise _bad(url, f"{name} must be true or false")
            options[name] = value.lower() in ("true", "1", "yes")
        else:
            options[name] = value
    if options.get("ssl_cert_reqs", "required") not in ("required", "optional", "none"):
        raise _bad(url, "ssl_cert_reqs must be required, optional or none")
    return options


def _text(options: dict[str, str | bool], name: str) -> str | None:
    value = options.pop(name, None)
    return value if isinstance(value, str) and value else None


def _database(url: str, scheme: str, path: str, option: str | None) -> int:
    written = option
    if scheme in ("redis", "rediss") and path not in ("", "/"):
        if option is not None:
            raise _bad(url, "the database is given twice")
        written = unquote(path[1:])
    if written is None:
        return 0
    if re.fullmatch(r"[0-9]{1,5}", written, re.ASCII) is None:
        raise _bad(url, "the database must be a number, as in redis://host:6379/0")
    return int(written)


def _without_values(error: ValueError) -> str:
    """A parser's complaint may quote the secret it stumbled over: keep its words only up to the quote."""
    return re.split(r"[:'\"]", str(error), maxsplit=1)[0].strip()


def _bad(url: str, why: str) -> ConfigError:
    return ConfigError(f"the Redis URL {mask_text(''.join(url.split()))} is not valid: {why}")
