"""Redis URLs: read strictly, shown without their password. No I/O and no Redis client here.

    redis://[[user]:password@]host[:port][/db]     also valkey://
    rediss://...                                   TLS, certificates checked; also valkeys://
    redis+sentinel://host[:port],.../master[/db]   the primary that these sentinels name; rediss+sentinel:// with TLS
    redis+cluster://host[:port],...                a cluster, found from any of these nodes; rediss+cluster:// with TLS
    unix:///path/to/redis.sock[?db=n]
    memory://[name]                                inside this process only

A URL may carry `db`, `username`, `password`, `password_file` and the `ssl_*` options of redis-py. Timeouts, retries and the
protocol are zwheel's own and are refused there, because a queue depends on them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

from zwheel.errors import ConfigError

DEFAULT_PORT = 6379
SENTINEL_PORT = 26379
MASK = "***"
MEMORY_BANNER = "IN-MEMORY: jobs are lost when this process ends, and no other process can see them."
_ALIASES = {"valkey": "redis", "valkeys": "rediss", "valkey+unix": "unix", "redis+unix": "unix"}
_SCHEMES = ("redis", "rediss", "unix", "memory")
_STARTS = "redis://, rediss://, redis+sentinel://, redis+cluster://, unix:// or memory://"
#: The schemes that name several hosts.
_MANY = re.compile(r"(?P<scheme>rediss?|valkeys?)\+(?P<kind>sentinel|cluster)://", re.IGNORECASE)
_SEVERAL = re.compile(r"redis[^/]*://[^/?#]*,", re.IGNORECASE)
_MASTER = re.compile(r"[A-Za-z0-9._-]{1,128}")
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
_SENTINEL_TEXT = ("sentinel_username", "sentinel_password")
_USERINFO = re.compile(r"(?P<before>[A-Za-z][A-Za-z0-9+.-]*:/{0,2})(?P<userinfo>\S*)@")
_SECRET_QUERY = re.compile(r"(?P<before>[?&;](?:\w*pass\w*|pwd|auth|secret|token)=)[^&#;\s]*", re.IGNORECASE)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,20}://")
#: What is shown of a URL that is not valid: a plain name before the colon, a plain place behind the last @.
_PLAIN_USER = re.compile(r"[\w.-]{0,64}", re.ASCII)
_ONE_PLACE = r"(?:[\w.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5}(?=$|[,/?#]))?"
_PLAIN_PLACE = re.compile(rf"{_ONE_PLACE}(?:,{_ONE_PLACE})*(?:/[0-9]{{0,5}}(?=$|[?#]))?", re.ASCII)
_PLAIN_PATH = re.compile(r"/?[\w.~/-]{1,200}(?=$|[?#])", re.ASCII)
_HOST = re.compile(r"[\w.:%~-]+")
_PLAIN_OPTION = re.compile(r"[a-z_]{1,40}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a server listens and how to log in, taken apart from a URL."""

    scheme: str
    """`redis`, `rediss`, `unix` or `memory`."""
    kind: str = ""
    """`sentinel` or `cluster`, where `hosts` lead to the server; empty for a server that is named itself."""
    host: str = ""
    """Name or address; for `memory`, the name of the store; empty for `unix`, and where there are `hosts`."""
    port: int = DEFAULT_PORT
    hosts: tuple[tuple[str, int], ...] = ()
    """Names and ports of the sentinels, or of some nodes of the cluster."""
    master: str = ""
    """What the sentinels call the primary and its replicas."""
    path: str = ""
    """The socket's path; empty for any other scheme."""
    db: int = 0
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    password_file: str = ""
    """The file that holds the password, read anew for each connection; empty: there is none."""
    sentinel_username: str | None = field(default=None, repr=False)
    sentinel_password: str | None = field(default=None, repr=False)
    """How to log in at the sentinels; None: without a password."""
    tls: dict[str, str | bool] = field(default_factory=dict, repr=False)
    """The `ssl_*` options, only for `rediss`."""

    def __str__(self) -> str:
        """The URL with its secrets hidden."""
        user = ""
        if self.password is not None:
            user = f"{quote(self.username, safe='') if self.username else ''}:{MASK}@"
        elif self.username is not None:
            # A name without a password logs nobody in: it is the password, most likely, without its colon.
            user = f"{MASK}@"
        if self.scheme == "memory":
            return f"memory://{self.host}"
        if self.scheme == "unix":
            return f"unix://{user}{quote(self.path)}" + (f"?db={self.db}" if self.db else "")
        shown = {name: MASK if name in _SECRET_OPTIONS else value for name, value in self.tls.items()}
        if self.password_file:
            shown["password_file"] = self.password_file
        shown |= {name: MASK for name in _SENTINEL_TEXT if getattr(self, name) is not None}
        scheme = f"{self.scheme}+{self.kind}" if self.kind else self.scheme
        places = ",".join(place(host, port) for host, port in self.hosts or ((self.host, self.port),))
        path = {"sentinel": f"{self.master}/{self.db}", "cluster": ""}.get(self.kind, str(self.db))
        return (
            f"{scheme}://{user}{places}"
            + (f"/{path}" if path else "")
            + (f"?{urlencode(shown, safe='*/')}" if shown else "")
        )

    def at(self, host: str, port: int) -> Address:
        """The address of one server that the hosts led to, or may lead to: everything else stays."""
        return replace(
            self, kind="", hosts=(), master="", host=host, port=port, sentinel_username=None, sentinel_password=None
        )

    def instead(self, kind: str) -> str:
        """How a URL of that kind, `sentinel` or `cluster`, names this one server; its secrets hidden."""
        if self.scheme == "unix":
            return f"redis+{kind}://host:port" + ("/mymaster" if kind == "sentinel" else "")
        master = "mymaster" if kind == "sentinel" else ""
        return str(replace(self, kind=kind, hosts=((self.host, self.port),), master=master))


def place(host: str, port: int) -> str:
    """A host and a port as a URL writes them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_url(url: str) -> Address:
    """Take a URL apart, or raise ConfigError with a sentence that shows no secret."""
    if not isinstance(url, str) or not url.strip():
        raise ConfigError("the Redis URL is empty: use redis://host:6379/0, rediss://..., unix:///path or memory://")
    url = url.strip()
    many = _MANY.match(url)
    kind = "" if many is None else many["kind"].lower()
    single, others = (url, []) if many is None else _first_host(url, many.end())
    parts, wrong = _taken_apart(single)
    if not kind and _SEVERAL.search(_remains(url)):
        wrong = (
            "several hosts are sentinels, as in redis+sentinel://h1,h2/mymaster/0, or a cluster: redis+cluster://h1,h2"
        )
        raise _bad(url, wrong)
    if parts is None:
        raise _bad(url, f"{wrong}; write @ : / # ? % in a password as %40 %3A %2F %23 %3F %25")
    host, port = parts.hostname, parts.port
    query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    scheme = parts.scheme.partition("+")[0] if kind else parts.scheme
    scheme = _ALIASES.get(scheme, scheme)
    if "://" not in url or scheme not in _SCHEMES:
        raise _bad(url, f"it must start with {_STARTS}")
    if parts.fragment:
        raise _bad(url, "a # in it must be written %23")
    options = _options(url, scheme, kind, query)
    username = unquote(parts.username) if parts.username else _text(options, "username")
    password = unquote(parts.password) if parts.password else _text(options, "password")
    password_file = _text(options, "password_file") or ""
    if password_file and password is not None:
        raise _bad(url, "the password is given twice: in the URL and as password_file")
    sentinel_username, sentinel_password = (_text(options, name) for name in _SENTINEL_TEXT)
    master, path = _master(url, parts.path) if kind == "sentinel" else ("", parts.path)
    db = _database(url, scheme, path, _text(options, "db"))
    if kind == "cluster" and db:
        raise _bad(url, "a cluster has the database 0 only: leave the number out")
    if "ssl_keyfile" in options and "ssl_certfile" not in options:
        raise _bad(url, "ssl_keyfile needs ssl_certfile beside it")
    tls = {name: value for name, value in options.items() if name.startswith("ssl_")}
    if scheme == "memory":
        return _memory(url, host, port, parts.path, username, password, db)
    if scheme == "unix":
        if host or port or not parts.path.startswith("/"):
            raise _bad(url, "a socket needs an absolute path: unix:///path/to/redis.sock")
        return Address(
            scheme=scheme, path=unquote(parts.path), db=db,
            username=username, password=password, password_file=password_file,
        )  # fmt: skip
    usual = SENTINEL_PORT if kind == "sentinel" else DEFAULT_PORT
    hosts = [(host or "", port), *(_host_and_port(url, other) for other in others)]
    for name, _ in hosts:
        if (kind and not name) or (name and _HOST.fullmatch(name) is None):
            raise _bad(
                url,
                "its host must be a name or an address" + (", with a comma and no space between two" if kind else ""),
            )
    places = tuple((unquote(name) or "localhost", usual if at is None else at) for name, at in hosts)
    return Address(
        scheme=scheme, kind=kind, hosts=places if kind else (), master=master,
        host="" if kind else places[0][0], port=DEFAULT_PORT if kind else places[0][1], db=db,
        username=username, password=password, password_file=password_file,
        sentinel_username=sentinel_username, sentinel_password=sentinel_password, tls=tls,
    )  # fmt: skip


def _first_host(url: str, start: int) -> tuple[str, list[str]]:
    """A URL with several hosts as one with the first of them only, and the others."""
    end = next((at for at, letter in enumerate(url[start:], start) if letter in "/?#"), len(url))
    user, at, places = url[start:end].rpartition("@")
    first, *others = places.split(",")
    return f"{url[:start]}{user}{at}{first}{url[end:]}", others


def _host_and_port(url: str, place: str) -> tuple[str, int | None]:
    parts, wrong = _taken_apart(f"redis://{place}")
    if parts is None:
        raise _bad(url, wrong)
    return parts.hostname or "", parts.port


def _master(url: str, path: str) -> tuple[str, str]:
    """The name of the primary in the path of a URL of sentinels, and the rest of the path."""
    name, slash, rest = path.removeprefix("/").partition("/")
    if _MASTER.fullmatch(name) is None or (name.isdigit() and not rest):
        raise _bad(url, "it must name the primary as the sentinels do: redis+sentinel://host1,host2,host3/mymaster/0")
    return name, f"{slash}{rest}"


def mask_url(url: str) -> str:
    """Give the URL as it may be shown: the password hidden, whatever else is wrong with it."""
    try:
        return str(parse_url(url))
    except ConfigError:
        return _remains(url)


def mask_text(text: str) -> str:
    """Hide the password of every URL in a text. An unescaped / or # in a password does not show the rest of it."""

    def hide(found: re.Match[str]) -> str:
        user, colon, _ = found["userinfo"].partition(":")
        return f"{found['before']}{f'{user}:' if colon else ''}{MASK}@"

    return _SECRET_QUERY.sub(rf"\g<before>{MASK}", _USERINFO.sub(hide, text))


def _remains(url: str) -> str:
    """What may be shown of a URL that is not valid. Where its password ends is a guess: only what is plain is shown."""
    url = "".join(url.split())
    scheme = _SCHEME.match(url)
    start = "" if scheme is None else scheme[0]
    before, at, place = url[len(start) :].rpartition("@")
    if "?" in before or "#" in before or (at and scheme is None):
        return start + MASK
    user, colon, secret = before.partition(":")
    shown = start
    if at:
        named = colon and secret and _PLAIN_USER.fullmatch(user)
        shown += f"{user}:{MASK}@" if named else f"{MASK}@"
    plain = (_PLAIN_PATH if place.startswith("/") or start == "unix://" else _PLAIN_PLACE).match(place)
    found = "" if plain is None else plain[0]
    return shown + found + ("" if found == place else MASK)


def _memory(
    url: str, host: str | None, port: int | None, path: str, username: str | None, password: str | None, db: int
) -> Address:
    if port is not None or path not in ("", "/") or username or password or db:
        raise _bad(url, "memory:// takes nothing but a name, as in memory:// or memory://tests")
    return Address(scheme="memory", host=host or "")


def _options(url: str, scheme: str, kind: str, query: list[tuple[str, str]]) -> dict[str, str | bool]:
    known = {"db", "username", "password", "password_file"} if scheme != "memory" else set()
    if kind == "sentinel":
        known |= set(_SENTINEL_TEXT)
    if scheme == "rediss":
        known |= {*_TLS_TEXT, _TLS_SWITCH}
    options: dict[str, str | bool] = {}
    for name, value in query:
        if name.startswith("ssl_") and scheme == "redis" and _PLAIN_OPTION.fullmatch(name):
            raise _bad(url, f"{name} is for TLS: write rediss{f'+{kind}' if kind else ''}://")
        if name not in known:
            allowed = ", ".join(sorted(known)) or "none"
            told = repr(name) if _PLAIN_OPTION.fullmatch(name) and "@" not in url.partition("?")[2] else "in it"
            raise _bad(url, f"the option {told} is not one that zwheel takes here (allowed: {allowed})")
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


def _taken_apart(url: str) -> tuple[SplitResult | None, str]:
    """The parts of a URL, or what is wrong with it. The parser's own complaint quotes the secret it stumbled over."""
    try:
        parts = urlsplit(url)
        _ = parts.hostname
    except ValueError:
        return None, "its host cannot be read (brackets are for an IPv6 address)"
    try:
        _ = parts.port
    except ValueError:
        return None, "its port must be a number up to 65535"
    try:
        parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        return None, "its options must be written as ?name=value&name=value"
    return parts, ""


def _bad(url: str, why: str) -> ConfigError:
    return ConfigError(f"the Redis URL {_remains(url)} is not valid: {why}")
