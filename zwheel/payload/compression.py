"""zstd where it is there: in Python's library from 3.14, before that in the extra `zstd`."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

LEVEL = 3
#: The window that zstd's own default levels ask for, as a power of two: what a decoder must be ready to allocate.
_WINDOW_LOG = 21


@cache
def library() -> Any | None:
    """Return the module, or None when there is none. Looked for once, on first use."""
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None


def compress(plain: bytes) -> bytes | None:
    """Return one zstd frame, or None without the library or when it does not save a tenth."""
    zstd = library()
    if zstd is None:
        return None
    packed: bytes = zstd.compress(plain, LEVEL)
    return packed if len(packed) * 10 <= len(plain) * 9 else None


def decompress(packed: bytes, limit: int) -> bytes:
    """Expand one zstd frame to at most `limit` bytes; the memory used is bounded by that limit and 2 MiB.

    Raises: ValueError when the library is missing, the frame is cut short or followed by bytes, or it expands to more;
    the library's own error for bytes that are not zstd.
    """
    zstd = library()
    if zstd is None:
        raise ValueError("it is compressed, and the zstd library is missing here: pip install 'zwheel[zstd]'")
    window = max(_WINDOW_LOG, (limit - 1).bit_length())
    decoder = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: min(window, 31)})
    plain: bytes = decoder.decompress(packed, max_length=limit + 1)
    if len(plain) > limit:
        raise ValueError(f"it expands to more than {limit:,} bytes")
    if not decoder.eof:
        raise ValueError("its compressed content is cut short")
    if decoder.unused_data:
        raise ValueError("bytes follow its compressed content")
    return plain
