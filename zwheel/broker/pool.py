"""The connections of one client: opened when they are needed, never more than they may be, none kept that is no good."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

from redis.exceptions import MaxConnectionsError
from redis.exceptions import TimeoutError as SlowError

from zwheel.broker.address import Address
from zwheel.broker.connect import CONNECT_TIMEOUT_S, connect_async, connect_sync
from zwheel.broker.errors import ConnectFailed
from zwheel.broker.wire import SyncWire, Wire


class Pool:
    """Connections of one event loop. When there are as many as may be, callers share them: each answers in its order."""

    def __init__(self, url: str | Address, timeout_s: float, most: int) -> None:
        self._client = connect_async(url, timeout_s=timeout_s, max_connections=most)
        self._timeout_s = timeout_s
        self._most = most
        self._wires: list[Wire] = []
        #: Connections to use next, the last used one last.
        self._idle: list[Wire] = []
        self._opening = 0
        #: Callers that wait for a connection which another opens.
        self._waiting: list[asyncio.Future[None]] = []
        self._turn = 0

    async def ask(self, packed: bytes, expected: int, within_s: float) -> list[Any]:
        """Send packed commands and give their replies. Raises: as Wire.ask, and what connecting raises."""
        wire = self._idle.pop() if self._idle else None
        if wire is None or wire.lost or wire.unread():
            try:
                async with asyncio.timeout(within_s):
                    wire = await self._sound(wire)
            except TimeoutError as error:
                raise ConnectFailed(f"no connection within {within_s:g} s") from error
        try:
            return await wire.ask(packed, expected, within_s)
        except SlowError:
            if wire.lost:
                self._end_idle()
            raise
        finally:
            idle = self._idle
            if not wire.lost and (not idle or wire not in idle):
                idle.append(wire)

    async def _sound(self, wire: Wire | None) -> Wire:
        """A connection on which nothing lies unread: that would be its end, or what nobody asked for."""
        while True:
            if wire is None or wire.lost:
                wire = await self._another()
            if not wire.unread():
                return wire
            # Let the loop read it. Twice: what it finds now is handled in its next round.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            if not wire.lost:
                return wire  # TLS itself had something to say.

    async def _another(self) -> Wire:
        """Open a connection; at the limit share an open connection, or wait for a connection that is being opened."""
        while True:
            self._wires = [wire for wire in self._wires if not wire.lost]
            if len(self._wires) + self._opening < self._most:
                return await self._open()
            if self._wires:
                self._turn += 1
                return self._wires[self._turn % len(self._wires)]
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            await future

    async def _open(self) -> Wire:
        """redis-py opens the connection and logs in; its pool only makes them and gets none back."""
        connection: Any = self._client.connection_pool.make_connection()
        self._opening += 1
        try:
            await connection.connect()
            wire = Wire(connection, self._timeout_s)
        except BaseException as error:
            self._opening -= 1
            wires = [wire for wire in self._wires if not wire.lost]
            # All waiting callers get the error, unless another attempt is under way or there is a connection to share.
            told = error if isinstance(error, Exception) and not self._opening and not wires else None
            self._tell(told)
            if wires and isinstance(error, Exception):
                return wires[0]
            raise
        self._opening -= 1
        self._wires.append(wire)
        self._tell(None)
        return wire

    def _tell(self, error: Exception | None) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if future.done():
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

    def _end_idle(self) -> None:
        """End the connections that owe no answer: a server that was silent on one of them would be so on each in turn."""
        for wire in self._wires:
            if not wire.owes:
                wire.end("the server was silent on another connection")
        self._idle.clear()

    def distrust(self) -> None:
        """End every connection, also under callers that wait: one connection gave a reply that no script gives."""
        self._idle.clear()
        while self._wires:
            self._wires.pop().end("an answer on a connection of this client was none that could be")

    def abandon(self) -> None:
        """Let go of every connection: its event loop is gone, or is another process's."""
        self._idle.clear()
        while self._wires:
            self._wires.pop().abandon()

    async def aclose(self) -> None:
        """Close every connection."""
        self._idle.clear()
        while self._wires:
            await self._wires.pop().aclose()
        await self._client.aclose()


class SyncPool:
    """Connections that threads share. A forked process leaves those of its parent alone and opens its own."""

    def __init__(self, url: str | Address, timeout_s: float, most: int) -> None:
        self._client = connect_sync(url, timeout_s=timeout_s, max_connections=most)
        self._timeout_s = timeout_s
        self._most = most
        self._idle: list[SyncWire] = []
        #: How many connections were opened so far.
        self.opened = 0
        self._renew()

    def _renew(self) -> None:
        self.close()
        self._pid = os.getpid()
        self._room = threading.Semaphore(self._most)

    def ask(self, packed: bytes, expected: int, within_s: float) -> list[Any]:
        """Send packed commands and give their replies. Raises: as SyncWire.ask, and what connecting raises."""
        if self._pid != os.getpid():
            self._renew()
        room = self._room
        if not room.acquire(timeout=min(within_s, self._timeout_s)):
            raise MaxConnectionsError(f"all {self._most} connections are in use")
        try:
            wire = self._idle_wire() or self._open(within_s)
            try:
                return wire.ask(packed, expected, within_s)
            except SlowError:
                # A server that was silent on this connection would be so on each idle one in turn.
                self.close()
                raise
            finally:
                if not wire.lost:
                    self._idle.append(wire)
        finally:
            room.release()

    def _idle_wire(self) -> SyncWire | None:
        while True:
            try:
                wire = self._idle.pop()
            except IndexError:  # asked, not looked: another thread may take the last one in between
                return None
            if not wire.unread():
                return wire
            wire.close()  # The server closed it, or said what nobody asked for.

    def _open(self, within_s: float) -> SyncWire:
        connection: Any = self._client.connection_pool.make_connection()
        connection.socket_connect_timeout = min(CONNECT_TIMEOUT_S, within_s)
        connection.connect()
        self.opened += 1
        return SyncWire(connection, self._timeout_s)

    def close(self) -> None:
        """Close every idle connection; a connection in use ends with its request."""
        while self._idle:
            self._idle.pop().close()
