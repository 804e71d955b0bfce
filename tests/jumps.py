"""A server whose clock jumps, without touching any clock: a door to a server that tells its scripts another time.

Each script takes the time from its first argument when there is one; production leaves it empty. The door puts the
server's time and an offset there, and answers TIME with the same. A client that comes in by it meets a server whose clock the
test moves. It has a thread of its own, so that worker processes can come in too.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self


class Door:
    """One door to one server, as long as the block lasts."""

    def __init__(self, server: Path, path: Path) -> None:
        self._server = server
        self._path = path
        #: How far the clock behind this door is ahead, seconds.
        self.ahead_s = 0.0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="door", daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()
        self._listening: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"unix://{self._path}"

    def now_us(self) -> int:
        """The clock behind the door."""
        return time.time_ns() // 1000 + int(self.ahead_s * 1_000_000)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _open(self) -> None:
        self._listening = await asyncio.start_unix_server(self._come_in, str(self._path))

    async def _close(self) -> None:
        assert self._listening is not None
        self._listening.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _come_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        there, back = await asyncio.open_unix_connection(str(self._server))
        answers = asyncio.create_task(self._answer(there, writer))
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                back.write(_packed(self._told(await _words(reader))))
                await back.drain()
        for end in (writer, back):
            end.close()
        answers.cancel()
        await asyncio.gather(answers, return_exceptions=True)
        self._tasks.discard(task)

    @staticmethod
    async def _answer(there: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await there.read(65536):
                writer.write(data)
                await writer.drain()
            writer.close()

    def _told(self, words: list[bytes]) -> list[bytes]:
        name = words[0].upper()
        if name == b"EVALSHA":
            at = 3 + int(words[2])
            if len(words) > at and words[at] == b"":
                words[at] = b"%d" % self.now_us()
        elif name == b"TIME":
            seconds, micros = divmod(self.now_us(), 1_000_000)
            return [b"EVAL", b"return { ARGV[1], ARGV[2] }", b"0", b"%d" % seconds, b"%d" % micros]
        return words


async def _words(reader: asyncio.StreamReader) -> list[bytes]:
    """Read one command."""
    head = await reader.readuntil(b"\r\n")
    words = []
    for _ in range(int(head[1:])):
        length = int((await reader.readuntil(b"\r\n"))[1:])
        words.append((await reader.readexactly(length + 2))[:-2])
    return words


def _packed(words: list[bytes]) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
