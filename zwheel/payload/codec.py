"""The body of a job: its arguments as bytes. No script ever reads it.

    byte 0   0x01, the version of the format
    byte 1   flags: bit 0 compressed with zstd, bit 1 encrypted; all other bits zero
    rest     a msgpack array, [args, kwargs] or [args, kwargs, headers], compressed first, then encrypted

    encode(["anna"], {"n": 2})  ->  01 00  92  91 a4 'anna'  81 a1 'n' 02

Anyone who can write to Redis can write a body, so decoding trusts nothing: version, flags, length, counts, depth, hashes and
text are checked, memory is bounded, and any fault is UndecodableJob. Encoding refuses whatever decoding would refuse:
a job that was accepted can be read. `zwheel/payload/extensions.py` has the types beyond plain msgpack.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from msgpack import ExtraData, Packer, StackError

from zwheel.errors import ConfigError, PayloadError, PayloadTooLarge, UndecodableJob
from zwheel.payload.compression import compress, decompress
from zwheel.payload.extensions import MAX_DEPTH, MAX_ITEMS, NATIVE, pack_rich, register, to_wire, unpack_rich
from zwheel.payload.spread import Colliding

__all__ = ["DEFAULT", "Cipher", "Codec", "describe_body", "register"]

#: Default limit of an encoded body, bytes.
LIMIT = 262_144
#: The largest limit of a client's codec, bytes: the scripts take no larger body.
MOST = 2_097_152
#: Bodies longer than this are worth compressing, bytes.
COMPRESS_OVER = 1024
#: What a body may expand to, as a multiple of its limit.
EXPANSION = 4
#: Values looked at to explain a failure.
MAX_EXPLAINED = 100_000
MAX_HEADERS = 64
#: Characters of one header's name, and of its value: W3C baggage may be 8,192 bytes.
MAX_HEADER_NAME = 128
MAX_HEADER_VALUE = 8192

_VERSION = 0x01
_ZSTD = 0x01
_ENCRYPTED = 0x02
_PLAIN = bytes((_VERSION, 0))
_SCALARS = frozenset({str, int, float, bool, bytes, type(None)})
_TEXT = frozenset({str})


class Cipher(Protocol):
    """Encrypts bodies. It brings its own key ids and nonces, and authenticates `context` with the body."""

    def encrypt(self, plain: bytes, context: bytes) -> bytes:
        """Return the sealed bytes."""

    def decrypt(self, sealed: bytes, context: bytes) -> bytes:
        """Return the plain bytes, or raise any Exception when `sealed` and `context` do not belong together."""


class Codec:
    """Encodes and decodes bodies under one set of limits. It has no mutable state: share it between threads.

    Args:
        limit: bytes of an encoded body, at least 64 (a wheel takes 2,097,152 at most); what it expands to is bounded by
            four times that.
        compress_over: compress content longer than this many bytes, where the zstd library is there and it saves
            at least a tenth; None: never.
        cipher: encrypts every body, and bodies that are not encrypted are then refused.
        accept_plain: with a cipher, read unencrypted bodies too, while a queue still holds some.
    """

    __slots__ = ("_accept_plain", "_cipher", "_compress_over", "_expanded", "_limit", "_plain_up_to")

    def __init__(
        self,
        *,
        limit: int = LIMIT,
        compress_over: int | None = COMPRESS_OVER,
        cipher: Cipher | None = None,
        accept_plain: bool = False,
    ) -> None:
        if limit < 64:
            raise ConfigError(f"a payload limit of {limit} bytes is too small: use at least 64")
        if compress_over is not None and compress_over < 0:
            raise ConfigError("compress_over is a number of bytes, 0 or more, or None")
        self._limit = limit
        self._expanded = limit * EXPANSION
        self._compress_over = compress_over
        self._cipher = cipher
        self._accept_plain = accept_plain or cipher is None
        # Content up to this many bytes is stored as it is behind the two first bytes.
        unpressed = limit if compress_over is None else compress_over
        self._plain_up_to = -1 if cipher is not None else min(limit - 2, unpressed)

    @property
    def limit(self) -> int:
        """The longest body, bytes."""
        return self._limit

    @property
    def binds(self) -> bool:
        """Whether a body is bound to its context, so that encode and decode need it."""
        return self._cipher is not None

    def encode(
        self,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        headers: Mapping[str, str] | None = None,
        *,
        context: bytes = b"",
    ) -> bytes:
        """Encode the arguments of one job.

        Args:
            context: what the body belongs to, such as task name and job id; a cipher binds them, decode needs the same.

        Raises: PayloadError for a value that cannot travel, PayloadTooLarge.
        """
        if type(args) is not list and type(args) is not tuple:
            args = _check_args(args)
        if type(kwargs) is not dict:
            kwargs = _check_kwargs(kwargs)
        content = [args, kwargs] if not headers else [args, kwargs, _check_headers(headers)]
        if _SCALARS.issuperset(map(type, args)) and (
            not kwargs or (_SCALARS.issuperset(map(type, kwargs.values())) and _TEXT.issuperset(map(type, kwargs)))
        ):
            try:
                packed = Packer().pack(content)
            except (OverflowError, ValueError):  # an int beyond 64 bits, text that is not Unicode
                packed = self._pack(content)
        else:
            packed = self._pack(content)
        if len(packed) <= self._plain_up_to:
            return _PLAIN + packed
        return self._seal(packed, context)

    def decode(self, body: bytes, *, context: bytes = b"") -> tuple[list[Any], dict[str, Any], dict[str, str]]:
        """Decode a body to args, kwargs and headers.

        Raises: UndecodableJob for any fault of the body, and nothing else; only a MemoryError, which says nothing
        about the body, passes through.
        """
        try:
            if len(body) > self._limit:
                raise ValueError(f"it is {len(body):,} bytes, over the limit of {self._limit:,}")
            if self._accept_plain and body[:2] == _PLAIN:
                content = unpack_rich(body[2:])
            else:
                content = unpack_rich(self._open(body, context))
            if type(content) is list and len(content) == 2:
                args, kwargs = content
                headers: dict[str, str] = {}
            elif type(content) is list and len(content) == 3:
                args, kwargs, headers = content
                _check_headers(headers)
            else:
                raise ValueError("it is not an array of args and kwargs")
            if (
                type(args) is not list
                or type(kwargs) is not dict
                or (kwargs and not _TEXT.issuperset(map(type, kwargs)))
            ):
                raise ValueError("its args are not an array, or its kwargs not a map with text as keys")
        except MemoryError:
            raise
        except Exception as error:
            raise UndecodableJob(f"the job's body cannot be read: {_fault(error)}") from error
        return args, kwargs, headers

    def _pack(self, content: list[Any]) -> bytes:
        """Pack anything that travels, and read it back, so that nothing is accepted that decode would refuse."""
        if not all(isinstance(key, str) for key in content[1]):
            raise PayloadError("kwargs: every key must be text, the name of a parameter")
        try:
            packed = pack_rich(content)
            if len(packed) > self._expanded:
                raise PayloadTooLarge(len(packed) + 2, self._limit)
            unpack_rich(packed)
        except (MemoryError, PayloadTooLarge):
            raise
        except Colliding as error:
            raise PayloadError(f"the arguments cannot be encoded: {error}") from error
        except Exception as error:
            raise PayloadError(
                explain(content[0], content[1]) or f"the arguments cannot be encoded: {error}"
            ) from error
        return packed

    def _seal(self, packed: bytes, context: bytes) -> bytes:
        """Compress and encrypt, as the settings say, and check the size."""
        if len(packed) > self._expanded:
            raise PayloadTooLarge(len(packed) + 2, self._limit)
        flags = 0
        if self._compress_over is not None and len(packed) > self._compress_over:
            smaller = compress(packed)
            if smaller is not None:
                packed, flags = smaller, _ZSTD
        if self._cipher is not None:
            flags |= _ENCRYPTED
            try:
                packed = self._cipher.encrypt(packed, bytes((_VERSION, flags)) + context)
            except Exception as error:
                raise PayloadError(f"the cipher failed: {type(error).__name__}") from error
        if len(packed) + 2 > self._limit:
            raise PayloadTooLarge(len(packed) + 2, self._limit)
        return bytes((_VERSION, flags)) + packed

    def _open(self, body: bytes, context: bytes) -> bytes:
        """Check the two first bytes, decrypt and expand. Raises: any Exception."""
        if len(body) < 2 or body[0] != _VERSION:
            raise ValueError("it does not start as a body of this version")
        flags = body[1]
        if flags & ~(_ZSTD | _ENCRYPTED):
            raise ValueError(f"it has flags unknown to this version: {flags:#04x}")
        packed = body[2:]
        if flags & _ENCRYPTED:
            if self._cipher is None:
                raise ValueError("it is encrypted, and no cipher is set here")
            packed = self._cipher.decrypt(packed, body[:2] + context)
        elif not self._accept_plain:
            raise ValueError("it is not encrypted, and a cipher is set here")
        return decompress(packed, self._expanded) if flags & _ZSTD else packed


def describe_body(body: bytes) -> str:
    """Describe a body for a person who looks into a fault: its length, a digest, its first 64 bytes escaped."""
    digest = hashlib.sha256(body).hexdigest()[:16]
    start = "".join(chr(byte) if 32 <= byte < 127 and byte != 92 else f"\\x{byte:02x}" for byte in body[:64])
    return f"{len(body):,} bytes, sha256 {digest}, starting {start}"


def explain(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    """Find the first value that cannot travel and say where it is and why; None when each travels by itself."""
    found: list[tuple[str, Any, int]] = [(f"args[{i}]", value, 3) for i, value in enumerate(args)]
    found += [(f"kwargs[{key!r}]", value, 3) for key, value in kwargs.items()]
    found.reverse()
    for _ in range(MAX_EXPLAINED):
        if not found:
            break
        path, value, depth = found.pop()
        if depth > MAX_DEPTH:
            return f"{path[:60]}...: nested deeper than {MAX_DEPTH} levels, or within itself"
        inner: list[tuple[str, Any, int]] = []
        try:
            plain = value if isinstance(value, (list, tuple, dict)) else _own_form(value)
            if isinstance(plain, dict):
                for key, item in plain.items():
                    if isinstance(key, (list, tuple, dict)):
                        return f"{path}: a map key must be text or a number, not a {type(key).__name__}"
                    unpack_rich(pack_rich({key: None}))
                    inner.append((f"{path}[{key!r}]", item, depth + 1))
            elif isinstance(plain, (list, tuple)):
                inner = [(f"{path}[{i}]", item, depth + 1) for i, item in enumerate(plain)]
            else:
                unpack_rich(pack_rich(value))
            if isinstance(plain, (list, tuple, dict)) and len(plain) > MAX_ITEMS:
                return f"{path}: {len(plain):,} items are too many: at most {MAX_ITEMS:,} travel in one container"
        except PayloadError as error:
            return f"{path}: {error}"
        except Exception as error:
            return f"{path}: a value of type {type(value).__name__} cannot be encoded: {_fault(error)}"
        found.extend(reversed(inner))
    return None


def _own_form(value: Any) -> Any:
    """Give a dataclass or model as the map it travels as, anything else as it is. Raises: PayloadError."""
    if value is None or isinstance(value, NATIVE):
        return value
    wire = to_wire(value)
    return wire if type(wire) in (dict, list, tuple) else value


def _fault(error: Exception) -> str:
    """Say in a few words what is wrong with a body, without showing what is in it beyond a short piece."""
    if isinstance(error, ExtraData):
        return "bytes follow its content"
    if isinstance(error, StackError):
        return "it is nested too deep"
    if isinstance(error, RecursionError):
        return "it is nested too deep to be handled here"
    if isinstance(error, UnicodeError):
        return "it has text that is not valid Unicode"
    if isinstance(error, TypeError) and "unhashable" in str(error):
        return "a map key or a set member is not a plain value"
    text = str(error)
    text = text if type(error) in (ValueError, PayloadError, Colliding) and text else f"{type(error).__name__}: {text}"
    text = text.encode("ascii", "backslashreplace").decode().replace("\n", " ")
    return text if len(text) <= 200 else text[:197] + "..."


def _check_args(args: Any) -> list[Any]:
    if isinstance(args, Sequence) and not isinstance(args, (str, bytes, bytearray, memoryview)):
        return list(args)
    raise PayloadError(f"args must be a list or a tuple, not a {type(args).__name__}")


def _check_kwargs(kwargs: Any) -> dict[str, Any]:
    if isinstance(kwargs, Mapping):
        return dict(kwargs)
    raise PayloadError(f"kwargs must be a mapping, not a {type(kwargs).__name__}")


def _check_headers(headers: Any) -> dict[str, str]:
    """Return the headers as a dict of bounded text, or raise PayloadError."""
    if not isinstance(headers, Mapping) or len(headers) > MAX_HEADERS:
        raise PayloadError(f"headers must be a mapping of text to text with at most {MAX_HEADERS} entries")
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise PayloadError("headers: every name and every value must be text")
        if not 0 < len(name) <= MAX_HEADER_NAME or len(value) > MAX_HEADER_VALUE:
            raise PayloadError(
                f"headers: a name has 1 to {MAX_HEADER_NAME} characters, a value at most {MAX_HEADER_VALUE:,}: "
                f"{ascii(name)[:60]} is outside that"
            )
    return dict(headers)


#: The codec of everyone who asks for nothing else.
DEFAULT = Codec()


def body_context(task: str, job_id: str) -> bytes:
    """What a cipher binds a body to, so that it cannot be moved to another job: the task's name and the job's id."""
    return f"{task}\n{job_id}".encode()
