"""One connection without redis-py's command path: requests go out as they come, replies come back in their order.

redis-py opens the socket, encrypts it and logs in; then this takes over. A round trip costs about half of what redis-py's
own path does, which is more than the scripts themselves take.

A time-out counts from the last progress, bytes that leave or arrive, so that a large batch on a slow line is no silence;
in all, a request has `LONGEST` times as long, and no longer than its caller waits.

Replies carry no name: bytes that nobody asked for would be taken for the answer of the next request, and shift all later
ones. Such a connection ends.
"""

from __future__ import annotations

import asyncio
import math
import select
import socket
import ssl
import time
from collections import deque
from typing import Any

import hiredis
from redis.exceptions import ConnectionError as LostError
from redis.exceptions import ReadOnlyError
from redis.exceptions import TimeoutError as SlowError

#: How many time-outs a request may take in all, while bytes go on leaving or arriving.
LONGEST = 6
#: How many looks at what has left a time-out has.
_LOOKS = 10
#: The most bytes that are handed to the socket, or taken from it, at a time.
_PIECE = 1 << 16


def _reader(connection: Any) -> Any:
    parse = connection._parser.parse_error

    def error(text: str) -> Exception:
        # A primary that lost its replicas may be one that was cut off, and another may have its place: as READONLY.
        return ReadOnlyError(text) if text.startswith("NOREPLICAS") else parse(text)

    return hiredis.Reader(protocolError=LostError, replyError=error)


def _watched(sock: Any) -> select.poll:
    poll = select.poll()
    if sock.fileno() >= 0:
        poll.register(sock.fileno(), select.POLLIN)
    return poll


class _Request:
    """What one caller waits for."""

    __slots__ = ("began", "ends", "expected", "future", "got")

    def __init__(self, expected: int, future: asyncio.Future[list[Any]], began: float, ends: float) -> None:
        self.expected = expected
        self.future = future
        self.began = began
        self.ends = ends
        self.got: list[Any] = []


class Wire(asyncio.Protocol):
    """A logged-in connection. A caller that stops waiting leaves it intact: its reply is read and dropped."""

    def __init__(self, connection: Any, timeout_s: float) -> None:
        """Take over the transport of a connected redis-py connection. timeout_s: how long nothing may move."""
        self._connection = connection
        self._timeout_s = timeout_s
        #: How soon it is looked whether bytes have left: a progress is dated when it is seen.
        self._look_s = timeout_s / _LOOKS
        self._transport: Any = connection._writer.transport
        self._before: asyncio.BaseProtocol = self._transport.get_protocol()
        self._loop = asyncio.get_running_loop()
        self._reader = _reader(connection)
        self._poll = _watched(self._transport.get_extra_info("socket"))
        self._waiting: deque[_Request] = deque()
        self._watch: asyncio.TimerHandle | None = None
        #: When `_check_progress` is called next.
        self._wakes_at = math.inf
        #: When bytes last arrived, or were last seen to have left; how many were written, and of these had left then.
        self._moved = 0.0
        self._written = 0
        self._left = 0
        #: Whether it can no longer be used.
        self.lost = self._transport.is_closing()
        self._transport.set_protocol(self)

    def unread(self) -> bool:
        """Whether something lies unread on an idle connection: its end, or what nobody asked for."""
        return not self._waiting and bool(self._poll.poll(0))

    @property
    def owes(self) -> bool:
        """Whether answers are still to come, also such that nobody waits for any more."""
        return bool(self._waiting)

    def ask(self, packed: bytes, expected: int, within_s: float) -> asyncio.Future[list[Any]]:
        """Send packed commands, to be answered by that many replies; an error reply comes as an exception object.

        Raises, here or from the future: redis.exceptions.ConnectionError, TimeoutError.
        """
        if self.lost:
            raise LostError("the connection is gone")
        loop = self._loop
        future: asyncio.Future[list[Any]] = loop.create_future()
        now = loop.time()
        ends = now + within_s
        self._waiting.append(_Request(expected, future, now, ends))
        at = now + self._look_s
        at = at if at < ends else ends
        if at < self._wakes_at:
            self._wake(at)
        self._written += len(packed)
        self._transport.write(packed)
        return future

    def data_received(self, data: bytes) -> None:
        """Hand each complete answer to its caller."""
        reader = self._reader
        reader.feed(data)
        waiting = self._waiting
        while waiting:
            request = waiting[0]
            got = request.got
            while len(got) < request.expected:
                try:
                    reply = reader.gets()
                except LostError as error:
                    self._fail(error)
                    return
                if reply is False:
                    self._moved = self._loop.time()
                    return
                if isinstance(reply, ReadOnlyError):
                    # After a failover the same address may lead to the new primary: connect anew.
                    self.lost = True
                got.append(reply)
            waiting.popleft()
            if not request.future.done():
                request.future.set_result(got)
        # From here on nothing is owed: the time of a request that comes counts from when it is sent.
        if reader.has_data():
            self._fail(LostError("bytes arrived that nobody asked for"))
        elif self.lost:
            self._transport.close()

    def _wake(self, at: float) -> None:
        """Look at the requests at that time, or before: once in a while, instead of with a timer for each."""
        if at < self._wakes_at:
            if self._watch is not None:
                self._watch.cancel()
            self._watch = self._loop.call_at(at, self._check_progress)
            self._wakes_at = at

    def _check_progress(self) -> None:
        self._watch, self._wakes_at = None, math.inf
        if not self._waiting:
            return
        now = self._loop.time()
        left = self._written - self._unsent()
        leaving = left > self._left or left < self._written
        if left > self._left:
            self._left, self._moved = left, now
        oldest = self._waiting[0].began
        end = min(max(oldest, self._moved) + self._timeout_s, oldest + LONGEST * self._timeout_s)
        if end <= now:
            self._fail(SlowError(f"no answer within {self._timeout_s:g} s"))
            return
        for request in self._waiting:
            if request.future.done():
                continue
            if request.ends <= now:
                # Its caller waits no longer; the answer, if one comes, is read and dropped.
                request.future.set_exception(SlowError(f"no answer within {now - request.began:.1f} s"))
            else:
                end = min(end, request.ends)
        self._wake(min(end, now + self._look_s) if leaving else end)

    def _unsent(self) -> int:
        """How many bytes wait for the socket to take them. Under TLS encrypted bytes wait in another place."""
        size: int = self._transport.get_write_buffer_size()
        beneath = getattr(getattr(self._transport, "_ssl_protocol", None), "_transport", None)
        return size if beneath is None else size + int(beneath.get_write_buffer_size())

    def _fail(self, error: Exception) -> None:
        self.lost = True
        waiting, self._waiting = self._waiting, deque()
        for request in waiting:
            if not request.future.done():
                request.future.set_exception(error)
        self._transport.abort()
        self._connection._close()

    def end(self, why: str) -> None:
        """End the connection; a caller that waits does not know what became of its request."""
        self._fail(LostError(why))

    def eof_received(self) -> None:
        """Be used no more; the transport closes itself."""
        self.lost = True

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the callers that still wait."""
        self._fail(LostError(str(exc or "the server closed the connection")))
        if self._watch is not None:
            self._watch.cancel()
        self._before.connection_lost(exc)

    def abandon(self) -> None:
        """Close the socket and nothing else: the loop is gone, or is another process's, which must not notice."""
        self.lost = True
        beneath = getattr(getattr(self._transport, "_ssl_protocol", None), "_transport", self._transport)
        sock = getattr(beneath, "_sock", None)
        if sock is not None:
            sock.close()
            # asyncio and redis-py look at these fields when the objects are collected, and would complain of open sockets.
            beneath._sock, beneath._closing = None, True
            if self._transport is not beneath:
                self._transport._closed = True
        self._connection._reader = self._connection._writer = None

    async def aclose(self) -> None:
        """Close it."""
        self.lost = True
        await self._connection.disconnect(nowait=True)


class SyncWire:
    """A logged-in connection for code without an event loop; one request at a time."""

    def __init__(self, connection: Any, timeout_s: float) -> None:
        """Take over the socket of a connected redis-py connection. timeout_s: how long nothing may move."""
        self._connection = connection
        self._timeout_s = timeout_s
        self._socket: Any = connection._sock
        self._reader = _reader(connection)
        self._poll = _watched(self._socket)
        #: Whether it can no longer be used.
        self.lost = False

    def unread(self) -> bool:
        """Whether something lies unread: the connection's end, or what nobody asked for."""
        if not self._poll.poll(0):
            return False
        if not isinstance(self._socket, ssl.SSLSocket):
            return True
        try:
            self._socket.setblocking(False)
            self._socket.recv(1)
        except ssl.SSLWantReadError:
            return False  # TLS itself had something to say.
        except OSError:
            return True
        return True

    def ask(self, packed: bytes, expected: int, within_s: float) -> list[Any]:
        """Send packed commands and wait for that many replies; an error reply comes as an exception object.

        Raises: redis.exceptions.ConnectionError, TimeoutError, OSError.
        """
        ends = time.monotonic() + min(within_s, LONGEST * self._timeout_s)
        try:
            self._send(packed, ends)
            got: list[Any] = []
            while len(got) < expected:
                reply = self._reader.gets()
                if reply is False:
                    self._reader.feed(self._receive(ends))
                else:
                    got.append(reply)
        except BaseException as error:
            # Also where the caller was interrupted: the rest of this answer is not to be taken for another's.
            self.close()
            if isinstance(error, TimeoutError) and not isinstance(error, SlowError):
                raise SlowError(f"no answer within {min(within_s, self._timeout_s):g} s") from error
            raise
        if self._reader.has_data() or any(isinstance(reply, ReadOnlyError) for reply in got):
            self.close()
        return got

    def _patience(self, ends: float) -> None:
        left = ends - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(min(left, self._timeout_s))

    def _send(self, packed: bytes, ends: float) -> None:
        rest = memoryview(packed)
        while rest:
            self._patience(ends)
            rest = rest[self._socket.send(rest[:_PIECE]) :]

    def _receive(self, ends: float) -> bytes:
        self._patience(ends)
        data: bytes = self._socket.recv(_PIECE)
        if not data:
            raise LostError("the server closed the connection")
        return data

    def close(self) -> None:
        """Close it."""
        self.lost = True
        self._socket.close()
        self._connection.disconnect()


class Bounded:
    """A socket that is given no more than so long in all, while redis-py logs in over it."""

    def __init__(self, sock: socket.socket, within_s: float) -> None:
        self.sock = sock
        self._ends = time.monotonic() + within_s

    def _patience(self) -> None:
        left = self._ends - time.monotonic()
        if left <= 0:
            raise TimeoutError("the login took too long")
        self.sock.settimeout(left)

    def recv(self, *args: Any) -> bytes:
        """As a socket does."""
        self._patience()
        return self.sock.recv(*args)

    def recv_into(self, *args: Any) -> int:
        """As a socket does."""
        self._patience()
        return self.sock.recv_into(*args)

    def sendall(self, *args: Any) -> None:
        """As a socket does."""
        self._patience()
        self.sock.sendall(*args)

    def settimeout(self, timeout: float | None) -> None:
        """Leave it: the time is bounded here."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sock, name)
