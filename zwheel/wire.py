"""One connection without redis-py's command path: requests go out as they come, replies come back in their order.

redis-py opens the socket, encrypts it and logs in; then this takes over the transport. A round trip costs about half of
what redis-py's own path does, which is more than the scripts themselves take.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import hiredis
from redis.exceptions import ConnectionError as LostError
from redis.exceptions import ReadOnlyError
from redis.exceptions import TimeoutError as SlowError


class Wire(asyncio.Protocol):
    """A logged-in connection. A caller that stops waiting leaves it intact: its reply is read and dropped."""

    def __init__(self, connection: Any, timeout_s: float) -> None:
        """Take over the transport of a connected redis-py connection. timeout_s: how long a reply may take."""
        self._connection = connection
        self._timeout_s = timeout_s
        self._transport: Any = connection._writer.transport
        self._before: asyncio.BaseProtocol = self._transport.get_protocol()
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(protocolError=LostError, replyError=connection._parser.parse_error)
        self._waiting: deque[tuple[int, list[Any], asyncio.Future[list[Any]], float]] = deque()
        self._watch: asyncio.TimerHandle | None = None
        #: Whether it can no longer be used.
        self.lost = self._transport.is_closing()
        self._transport.set_protocol(self)

    async def ask(self, packed: bytes, expected: int) -> list[Any]:
        """Send packed commands and wait for that many replies; one that is an error comes as an exception object.

        Raises: redis.exceptions.ConnectionError, TimeoutError.
        """
        if self.lost:
            raise LostError("the connection is gone")
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        self._waiting.append((expected, [], future, self._loop.time()))
        if self._watch is None:
            self._watch = self._loop.call_later(self._timeout_s, self._look)
        self._transport.write(packed)
        return await future

    def data_received(self, data: bytes) -> None:
        """Hand each complete answer to its caller."""
        reader = self._reader
        reader.feed(data)
        waiting = self._waiting
        while waiting:
            expected, got, future, _ = waiting[0]
            while len(got) < expected:
                try:
                    reply = reader.gets()
                except LostError as error:
                    self._fail(error)
                    return
                if reply is False:
                    return
                if isinstance(reply, ReadOnlyError):
                    # After a failover the same address may lead to the new primary: connect anew.
                    self.lost = True
                got.append(reply)
            waiting.popleft()
            if not future.done():
                future.set_result(got)
        if self.lost:
            self._transport.close()

    def _look(self) -> None:
        """Look at the oldest request once in a while, instead of keeping a timer for each."""
        self._watch = None
        if not self._waiting:
            return
        left = self._waiting[0][3] + self._timeout_s - self._loop.time()
        if left > 0:
            self._watch = self._loop.call_later(left, self._look)
        else:
            self._fail(SlowError(f"no answer within {self._timeout_s:g} s"))

    def _fail(self, error: Exception) -> None:
        self.lost = True
        waiting, self._waiting = self._waiting, deque()
        for _, _, future, _ in waiting:
            if not future.done():
                future.set_exception(error)
        self._transport.abort()
        self._connection._close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever still waits."""
        self._fail(LostError(str(exc or "the server closed the connection")))
        if self._watch is not None:
            self._watch.cancel()
        self._before.connection_lost(exc)

    async def aclose(self) -> None:
        """Close it."""
        self.lost = True
        await self._connection.disconnect(nowait=True)
