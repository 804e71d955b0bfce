"""What a worker and the processes of its `process=True` tasks say to each other: msgpack maps, each behind its length.

Plain data only; nothing that either side reads can name code beyond the task of a job, which the worker chooses.

    worker -> process    settings, once; then job after job, and leased each time its lease was renewed
    process -> worker    started, log (any number), then ended; or nothing more, when the process dies
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from msgpack import Packer, unpackb

#: The longest frame that the worker takes, bytes: a failure or a line of a log is far shorter.
LONGEST_ANSWER = 1_000_000
_LENGTH = struct.Struct(">I")


def pack(kind: str, /, **fields: Any) -> bytes:
    """Make a frame."""
    packed = Packer().pack({"is": kind, **fields})
    return _LENGTH.pack(len(packed)) + packed


class Frames:
    """Puts frames together from what arrives."""

    def __init__(self, longest: int | None = None) -> None:
        self._longest = longest
        self._read = bytearray()

    def feed(self, data: bytes) -> None:
        """Take in what arrived."""
        self._read += data

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Give the frames that are complete. Raises: ValueError for a frame that is too long, or bytes that are no frame."""
        read = self._read
        while len(read) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(read)
            if self._longest is not None and length > self._longest:
                raise ValueError(f"a frame of {length:,} bytes")
            end = _LENGTH.size + length
            if len(read) < end:
                return
            frame = unpackb(bytes(read[_LENGTH.size : end]), strict_map_key=True)
            del read[:end]
            if not isinstance(frame, dict) or not isinstance(frame.get("is"), str):
                raise ValueError("no frame")
            yield frame
