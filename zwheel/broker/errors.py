"""What an exception of redis-py means for the request, in zwheel's words: the only place that maps them."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterable, Iterator
from urllib.parse import quote

from redis import exceptions as client_errors

from zwheel.broker.address import MASK, mask_text, mask_url, parse_url
from zwheel.errors import BrokerError, BrokerFull, BrokerRefused, BrokerUnavailable, ConfigError, OutcomeUnknown
from zwheel.plain import as_text


class ConnectFailed(client_errors.ConnectionError):
    """No connection could be made, so nothing was sent. The cause is chained."""


class NoPrimary(client_errors.ConnectionError):
    """The sentinels name no primary, or no node of the cluster answers: for now."""


class Misdirected(client_errors.ConnectionError):
    """The URL leads to a server of another kind, or names a primary that the sentinels do not know."""


#: How the message of BrokerUnavailable ends.
NOT_CARRIED_OUT = "; the request was not carried out"
_UNAVAILABLE = "unavailable"
_UNKNOWN = "unknown"
_FULL = "full"
_REFUSED = "refused"

#: What each exception class of redis-py means for the request. A class that is not here is treated as its parent.
_BY_CLASS: dict[type[BaseException], str] = {
    ConnectFailed: _UNAVAILABLE,
    NoPrimary: _UNAVAILABLE,
    Misdirected: _REFUSED,
    client_errors.RedisError: _UNKNOWN,
    client_errors.ConnectionError: _UNKNOWN,
    client_errors.TimeoutError: _UNKNOWN,
    client_errors.InvalidResponse: _UNKNOWN,
    client_errors.InvalidPipelineStack: _UNKNOWN,
    client_errors.MaxConnectionsError: _UNAVAILABLE,
    client_errors.BusyLoadingError: _UNAVAILABLE,
    client_errors.ClusterError: _UNAVAILABLE,
    client_errors.ClusterDownError: _UNAVAILABLE,
    client_errors.MasterDownError: _UNAVAILABLE,
    client_errors.TryAgainError: _UNAVAILABLE,
    client_errors.SlotNotCoveredError: _UNAVAILABLE,
    client_errors.RedisClusterException: _UNAVAILABLE,
    client_errors.NoScriptError: _UNAVAILABLE,
    client_errors.ChildDeadlockedError: _UNAVAILABLE,
    client_errors.OutOfMemoryError: _FULL,
    client_errors.AuthenticationError: _REFUSED,
    client_errors.AuthenticationWrongNumberOfArgsError: _REFUSED,
    client_errors.AuthorizationError: _REFUSED,
    client_errors.ExternalAuthProviderError: _REFUSED,
    client_errors.NoPermissionError: _REFUSED,
    client_errors.ReadOnlyError: _REFUSED,
    client_errors.ResponseError: _REFUSED,
    client_errors.ExecAbortError: _REFUSED,
    client_errors.ModuleError: _REFUSED,
    client_errors.NoSuchFieldsetError: _REFUSED,
    client_errors.DataError: _REFUSED,
    client_errors.PubSubError: _REFUSED,
    client_errors.WatchError: _REFUSED,
    client_errors.LockError: _REFUSED,
    client_errors.LockNotOwnedError: _REFUSED,
    client_errors.AskError: _REFUSED,
    client_errors.MovedError: _REFUSED,
    client_errors.ClusterCrossSlotError: _REFUSED,
    client_errors.CrossSlotTransactionError: _REFUSED,
    client_errors.IncorrectPolicyType: _REFUSED,
    ConnectionRefusedError: _UNAVAILABLE,
    FileNotFoundError: _UNAVAILABLE,
    PermissionError: _UNAVAILABLE,
    socket.gaierror: _UNAVAILABLE,
    OSError: _UNKNOWN,
    TimeoutError: _UNKNOWN,
    Exception: _UNKNOWN,
}

#: The first word of an error reply, for the replies to which redis-py gives no class of their own.
_BY_CODE = {
    "LOADING": _UNAVAILABLE,
    "BUSY": _UNAVAILABLE,
    "CLUSTERDOWN": _UNAVAILABLE,
    "MASTERDOWN": _UNAVAILABLE,
    "TRYAGAIN": _UNAVAILABLE,
    "UNBLOCKED": _UNAVAILABLE,
    "NOSCRIPT": _UNAVAILABLE,
    "OOM": _FULL,
}

_CURES = {
    "NOAUTH": "put the password into the URL, as in redis://:password@host",
    "WRONGPASS": "check the user name and the password in the URL",
    "NOPERM": "give this Redis user its rights: `{acl}` prints the rules",
    "READONLY": "this is a replica: connect to the primary",
    "DEMOTED": "it is no primary any more: the sentinels are asked again",
    "MISCONF": "it cannot write to its disk: free space there, then look at its log",
    "NOREPLICAS": "it has fewer replicas than its min-replicas-to-write asks for: bring them back",
    "DENIED": "its protected mode lets nobody in from outside: give it a password or a bind address",
    "MOVED": "it is a node of a Redis Cluster: write {cluster}",
    "ASK": "it is a node of a Redis Cluster: write {cluster}",
    "MOVING": "the cluster is moving this queue from node to node",
    "WRONGTYPE": "another program keeps a key of the same name here: use a database or a namespace of its own",
    "BUSY": "a script has been running there for too long: look for it with SCRIPT KILL",
    "TLS": "check the certificates, or name your own authority with ?ssl_ca_certs=/path/ca.pem",
    "TLS DATE": "renew its certificate, or set the clock of this machine right where that is wrong",
    "TLS NAME": "write the host by a name that is in its certificate, or have this name put into it",
    "TLS CLIENT": "it wants a certificate that it trusts: name yours with ?ssl_certfile=/path/cert.pem&ssl_keyfile=/path/key.pem",
    "NO TLS": "its port may be one without TLS: then write {plain}://",
    "HUNG UP": "its port may be one without TLS: then write {plain}://; or it wants a certificate that it trusts: "
    "ssl_certfile and ssl_keyfile",
    "LACKS": "it lacks a command that zwheel needs; if it is a sentinel, write {sentinel}",
    "CLOSED": "it hung up at once: if its port wants TLS, write {tls}://",
    "ABSENT": "is it running? Start it, or set ZWHEEL_URL to where one runs",
    "NO HOST": "check the name of the host",
    "NO REDIS": "what answers there does not speak Redis's protocol: check the host and the port",
    "DB": "its number, at the end of the URL, is too large for this server, which has 16 databases if it was not told else",
}
_CODE_OF_CLASS: dict[type[BaseException], str] = {
    client_errors.ReadOnlyError: "READONLY",
    client_errors.NoPermissionError: "NOPERM",
    client_errors.MovedError: "MOVED",
    client_errors.AskError: "ASK",
    client_errors.AuthenticationError: "WRONGPASS",
}
#: What OpenSSL finds wrong with a certificate: not valid yet, expired; another host name, another address.
_TLS_CODES = {9: "TLS DATE", 10: "TLS DATE", 62: "TLS NAME", 64: "TLS NAME"}
#: What an error says of a connection that the other side ended.
_TOO_LONG = "it took too long"
_HUNG_UP = ("closed by server", "reset by peer", "Connection lost", "Broken pipe", "EOF occurred")


def translate(error: BaseException, url: str, acl: Callable[[], str] = lambda: "zwheel acl") -> BrokerError:
    """Say in zwheel's words what happened to a request; the caller raises it `from error`.

    The message shows neither passwords nor any part of the command, which holds a job's arguments. acl: gives the
    command that prints the rules which its user needs.
    """
    if isinstance(error, BrokerError):
        return error
    told = _most_telling(error)
    code, reason = _code_and_reason(told)
    kind = _kind(error, told, code)
    if isinstance(error, (ConnectFailed, NoPrimary)) and code not in _CURES:
        code = _why_not_connected(told, reason, url) or code
    where = mask_url(url)
    if isinstance(told, Misdirected):
        return BrokerRefused(f"cannot use {where}: {reason}")
    if code in ("READONLY", "NOREPLICAS") and "+sentinel:" in url:
        kind, code = _UNAVAILABLE, "DEMOTED" if code == "READONLY" else code
    if code in ("MOVED", "ASK"):
        reason = f"{code} {reason}"
        if "+cluster:" in url:
            kind, code = _UNAVAILABLE, "MOVING"
    if code in ("", "ERR") and reason.startswith("unknown command"):
        code = "LACKS"
    cure = f": {_cure(code, url, acl)}" if code in _CURES else ""
    if kind == _UNAVAILABLE:
        return BrokerUnavailable(f"cannot reach Redis at {where} ({reason}){cure}{NOT_CARRIED_OUT}")
    if kind == _FULL:
        return BrokerFull(
            f"Redis at {where} is out of memory and stored nothing: raise its maxmemory, or remove jobs that are done"
        )
    if kind == _REFUSED:
        return BrokerRefused(f"Redis at {where} refused ({reason}){cure}", code)
    return OutcomeUnknown(
        f"no answer from Redis at {where} ({reason}); the request may or may not have been carried out"
    )


def _cure(code: str, url: str, acl: Callable[[], str]) -> str:
    """What to do about it. A URL that is to be written instead keeps what this one says of TLS and of the login."""
    cure = _CURES[code]
    if "{acl}" in cure:
        return cure.format(acl=acl())
    if "{" not in cure:
        return cure
    address = parse_url(url)
    kind = f"+{address.kind}" if address.kind else ""
    other = {name: address.instead(name) for name in ("cluster", "sentinel") if f"{{{name}}}" in cure}
    return cure.format(plain=f"redis{kind}", tls=f"rediss{kind}", **other)


def _why_not_connected(told: BaseException, reason: str, url: str) -> str:
    """Which mistake in a URL may be behind a connection that failed; '' when none comes to mind."""
    if isinstance(told, client_errors.InvalidResponse):
        return "NO REDIS"
    if "DB index is out of range" in reason:
        return "DB"
    if isinstance(told, socket.gaierror):
        return "NO HOST"
    hung_up = any(word in reason for word in _HUNG_UP)
    if url.startswith(("rediss", "valkeys")):
        late = isinstance(told, TimeoutError) or _TOO_LONG in reason
        return "HUNG UP" if hung_up else "NO TLS" if late else ""
    if isinstance(told, (ConnectionRefusedError, FileNotFoundError)):
        return "ABSENT"
    return "CLOSED" if hung_up else ""


def scrub(error: BaseException, secrets: Iterable[str | None]) -> BaseException:
    """Take the secrets out of an exception and of all that is chained to it, which a traceback would print.

    A server that does not know AUTH repeats its arguments, and redis-py makes that the text of its exception.
    """
    hidden = sorted({form for secret in secrets if secret for form in _written(secret)}, key=len, reverse=True)
    left, seen = [error], set()
    while left:
        link = left.pop()
        if id(link) in seen:
            continue
        seen.add(id(link))
        link.args = tuple(_hide(word, hidden) if isinstance(word, (str, bytes)) else word for word in link.args)
        left += [other for other in (link.__cause__, link.__context__) if other is not None]
    return error


def _written(secret: str) -> set[str]:
    """A secret as answers and messages quote it."""
    return {secret, quote(secret, safe=""), quote(secret), repr(secret)[1:-1], repr(secret.encode())[2:-1]}


def _hide(word: str | bytes, hidden: Iterable[str]) -> str:
    text = _without_arguments(as_text(word))
    for form in hidden:
        text = text.replace(form, MASK)
    return mask_text(text)


def _without_arguments(text: str) -> str:
    """Cut the arguments off an answer that repeats the command."""
    return _ARGUMENTS.sub("", text)


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__


def why(error: BaseException) -> str:
    """Why a connection failed, in the words of the first error of its chain."""
    # That a wait was cancelled says less than what it was cancelled for.
    return _code_and_reason([link for link in _chain(error) if isinstance(link, Exception)][-1])[1]


def _most_telling(error: BaseException) -> BaseException:
    """A failed connection wraps its cause, several times over: find the error that says why it failed."""
    if not isinstance(error, ConnectFailed):
        return error
    links = [link for link in _chain(error) if isinstance(link, Exception)]
    ours = [link for link in links if isinstance(link, (NoPrimary, Misdirected, ConfigError))]
    if ours:
        return ours[-1]
    refusals = [link for link in links if _class_kind(link) == _REFUSED]
    return refusals[-1] if refusals else links[-1]


def _kind(error: BaseException, told: BaseException, code: str) -> str:
    if isinstance(error, ConnectFailed):
        if isinstance(told, client_errors.InvalidResponse):
            return _REFUSED
        refused = _class_kind(told) == _REFUSED and code not in _BY_CODE
        return _REFUSED if refused or code == "DENIED" else _UNAVAILABLE
    if code in _BY_CODE:
        return _BY_CODE[code]
    if isinstance(told, client_errors.ConnectionError):
        if getattr(told, "status_code", None) is not None and _class_kind(told) == _UNKNOWN:
            return _UNAVAILABLE
        if told.args and told.args[0] in ("No connection available.", "Connection not ready"):
            return _UNAVAILABLE
    return _class_kind(told)


def _class_kind(error: BaseException) -> str:
    return next((_BY_CLASS[base] for base in type(error).__mro__ if base in _BY_CLASS), _UNKNOWN)


_ARGUMENTS = re.compile(r",? with args beginning with:.*", re.DOTALL)
_PIPELINE = re.compile(r"Command # \d+ \(.*\) of pipeline caused error: ", re.DOTALL)
_SSL_SOURCE = re.compile(r" ?\(?_ssl\.c:\d+\)?:? ?")
#: Where in a script it was refused, which tells a person nothing.
_IN_LUA = re.compile(r",? script: [0-9a-f]{40}, on @\w+:\d+\.?$")
_CODE = re.compile(r"([A-Z][A-Z0-9]+)(?: |$)")
#: How Redis and Valkey refuse a command inside a script. zwheel's own refusal there begins with NOPERM.
_IN_A_SCRIPT = re.compile("The user executing the script can't|ACL failure in script")


def _code_and_reason(error: BaseException) -> tuple[str, str]:
    """The first word of the server's answer (empty when there is none), and a short reason fit for a sentence."""
    if isinstance(error, OSError) and not isinstance(error, client_errors.RedisError):
        code = _tls_code(error)
        plain = os.strerror(error.errno) if error.errno and error.errno > 0 and not code else error.strerror
        return code, _one_line(_SSL_SOURCE.sub("", plain or str(error)) or _TOO_LONG)
    text = _without_arguments(str(error))
    annotated = _PIPELINE.match(text)
    if annotated is not None:
        text = text[annotated.end() :].removeprefix("('").removeprefix('("').removesuffix(",)").rstrip("'\"")
    found = _CODE.match(text)
    code = getattr(error, "status_code", None) or (found[1] if found else "")
    if code in ("", "ERR") and _IN_A_SCRIPT.search(text) is not None:
        code = "NOPERM"
    if code in ("", "ERR"):
        code = next((name for base, name in _CODE_OF_CLASS.items() if isinstance(error, base)), code)
    text = _IN_LUA.sub("", text)
    fallback = _TOO_LONG if isinstance(error, TimeoutError) else type(error).__name__
    return code, _one_line(text.removeprefix(f"{code} ").removeprefix("ERR ")) or fallback


def _tls_code(error: BaseException) -> str:
    if type(error).__module__ != "ssl":
        return ""
    text = str(error)
    if "EOF" in text:
        return "HUNG UP"
    if "WRONG_VERSION_NUMBER" in text or "RECORD_LAYER" in text:
        return "NO TLS"
    if "ALERT" in text and ("CERTIFICATE" in text or "UNKNOWN_CA" in text):
        return "TLS CLIENT"
    return _TLS_CODES.get(getattr(error, "verify_code", 0), "TLS")


def _one_line(text: str) -> str:
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split()).rstrip(".")
    return line if len(line) <= 200 else line[:197] + "..."
