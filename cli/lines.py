"""Numbered lines of a file or of stdin, read by a thread, so that the event loop never waits for input."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator

#: A line longer than this many bytes is reported, not kept: no payload could be that long.
LINE_LIMIT = 4 * 1024 * 1024
_READ_BYTES = 256 * 1024
#: How many reads may wait for the event loop.
_READ_AHEAD = 4

Line = tuple[int, bytes | None]
"""A line's number, counted from 1, and its bytes without the end; None for one over the limit."""


class Splitter:
    """Cuts what is read into numbered lines, whatever the pieces are, in bounded memory."""

    def __init__(self, limit: int = LINE_LIMIT) -> None:
        self._limit = limit
        self._rest = b""
        self._number = 0
        self._too_long = False

    def feed(self, piece: bytes) -> list[Line]:
        """Take a piece, give the lines that it ends."""
        *whole, rest = (self._rest + piece).split(b"\n")
        self._rest = rest
        lines = list(self._numbered(whole))
        if len(self._rest) > self._limit:
            self._rest, self._too_long = b"", True
        return lines

    def end(self) -> list[Line]:
        """Give the last line, when it has no end of line."""
        rest, self._rest = self._rest, b""
        return list(self._numbered([rest])) if rest or self._too_long else []

    def _numbered(self, lines: list[bytes]) -> Iterator[Line]:
        for line in lines:
            self._number += 1
            too_long = self._too_long or len(line) > self._limit
            self._too_long = False
            yield self._number, None if too_long else line.removesuffix(b"\r")


class LineReader:
    """Reads lines in a thread of its own; `get` gives them in the groups in which they arrived.

    The thread is a daemon that may stay blocked in a read for ever: `tail -f` never ends.
    """

    def __init__(self, path: str) -> None:
        """Open a file, or take stdin for `-`. Raises: OSError."""
        self._path = path
        self._fd = 0 if path == "-" else os.open(path, os.O_RDONLY)
        self._loop = asyncio.get_running_loop()
        self._arrived: asyncio.Queue[list[Line] | OSError | None] = asyncio.Queue()
        self._room = threading.Semaphore(_READ_AHEAD)
        self.bytes_read = 0

    @property
    def size(self) -> int | None:
        """The bytes of a regular file; None for a pipe or a terminal."""
        import stat

        status = os.fstat(self._fd)
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def start(self) -> None:
        """Begin to read."""
        threading.Thread(target=self._read, name="zwheel-lines", daemon=True).start()

    async def get(self) -> list[Line] | None:
        """Give the next lines, None at the end. Raises: OSError."""
        group = await self._arrived.get()
        self._room.release()
        if isinstance(group, OSError):
            raise OSError(group.errno, group.strerror, "stdin" if self._path == "-" else self._path)
        return group

    def _read(self) -> None:
        splitter = Splitter()
        try:
            while piece := os.read(self._fd, _READ_BYTES):
                self.bytes_read += len(piece)
                lines = splitter.feed(piece)
                if lines:
                    self._hand_over(lines)
            last = splitter.end()
            if last:
                self._hand_over(last)
            self._hand_over(None)
        except OSError as error:
            self._hand_over(error)

    def _hand_over(self, group: list[Line] | OSError | None) -> None:
        self._room.acquire()
        try:
            self._loop.call_soon_threadsafe(self._arrived.put_nowait, group)
        except RuntimeError:
            return  # The loop is closed: the command has ended.
