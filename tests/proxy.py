"""A proxy between a client and a server that can cut a connection at a chosen moment of a chosen request.

It listens on a loopback port and speaks to the server's Unix socket. It runs in a thread of its own, so that it serves
async clients, blocking ones and other processes alike.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from enum import Enum, auto
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import hiredis

from zwheel.calls.scripts import NAMES, script
from zwheel.calls.settle import ENDS

T = TypeVar("T")
Command = list[bytes]
Match = Callable[[Command], bool]
_SCRIPT_OF = {script(name).sha.encode(): name for name in NAMES}


class Fault(Enum):
    """Where the connection is cut."""

    BEFORE = auto()
    """The request does not reach the server."""
    AFTER = auto()
    """The server carries it out; no byte of its reply reaches the client."""
    MIDDLE = auto()
    """The server carries it out; half of its reply reaches the client."""


def name_of(command: Command) -> str:
    """The script that a command runs, else the command's own name in capitals."""
    first = command[0].upper()
    if first == b"EVALSHA":
        return _SCRIPT_OF.get(command[1], "EVALSHA")
    return first.decode()


def names_of(command: Command) -> list[str]:
    """The same, and the ways in which jobs end by a `settle`."""
    name = name_of(command)
    if name != "settle":
        return [name]
    args = command[5 + int(command[2]) :]
    done = args.index(b"") if b"" in args else len(args)
    others = args[done + 3 + 2 * int(args[done + 2]) :] if done < len(args) else []
    letters = {chr(token[0]) for token in others[1::4]} | ({"d"} if done else set())
    return [name, *(ENDS[letter] for letter in letters)]


def runs(name: str) -> Match:
    """Match a script by its name, or that of a way in which jobs end by it, or a command by its name in capitals."""
    return lambda command: name in names_of(command)


class _Arming:
    def __init__(self, fault: Fault, match: Match, times: int) -> None:
        self.fault = fault
        self.match = match
        self.left = times
        self.done = threading.Event()


class Proxy:
    """Passes on what it is given until it is told to do otherwise.

    `arm` cuts the next requests that match; `cut` ends every connection; `freeze` passes nothing on and keeps the
    connections open, until `thaw`; `mute` and `mute_at` hold back replies only, until `unmute`; `slow` lets everything take longer;
    `refuse` turns new connections away, until `accept`; `shut` lets them be refused for good.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._armed: list[_Arming] = []
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = asyncio.Event()
        self._open.set()
        self._answering = asyncio.Event()
        self._answering.set()
        self._mute_at = 0
        self._latency: Callable[[], float] | None = None
        self._refusing = False
        #: What nobody asked for: said in front of the next reply, which follows after that many seconds.
        self.noise: tuple[bytes, float] | None = None
        self._server: asyncio.Server | None = None
        self.port = 0
        #: How often each script or command reached the server, counted when it was passed on.
        self.passed: Counter[str] = Counter()
        #: How often each script or command was sent by a client.
        self.asked: Counter[str] = Counter()

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"redis://127.0.0.1:{self.port}/0"

    def arm(self, fault: Fault, match: Match | str, *, times: int = 1) -> threading.Event:
        """Cut the next `times` matching requests. The event is set when the last of them was cut."""
        arming = _Arming(fault, runs(match) if isinstance(match, str) else match, times)
        self._armed.append(arming)
        return arming.done

    def cut(self) -> None:
        """End every connection now."""
        self._call(self._cut())

    def freeze(self) -> None:
        """Pass nothing on, in either direction; connections stay open."""
        self._call(self._set(self._open, False))

    def thaw(self) -> None:
        """Pass on again, held-back bytes included."""
        self._call(self._set(self._open, True))

    def mute(self) -> None:
        """Pass on requests and hold back replies; connections stay open."""
        self._call(self._set(self._answering, False))

    def mute_at(self, size: int) -> None:
        """Mute with the first reply of that many bytes: it is held back with all that follow."""
        self._mute_at = size

    def unmute(self) -> None:
        """Pass on replies again, held-back replies included."""
        self._call(self._set(self._answering, True))

    def slow(self, latency: Callable[[], float] | None) -> None:
        """Let each part of a request or a reply wait that many seconds, asked anew for each; None: no longer."""
        self._latency = latency

    def refuse(self) -> None:
        """End every connection and turn new ones away."""
        self._refusing = True
        self.cut()

    def accept(self) -> None:
        """Take new connections again."""
        self._refusing = False

    def shut(self) -> None:
        """End every connection and listen no more: connecting is refused."""
        self._call(self._shut())

    async def _shut(self) -> None:
        assert self._server is not None
        self._server.close()
        await self._cut()

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._listen())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._meet, "127.0.0.1", 0, limit=1 << 20)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        await self._cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # A connection that was accepted in the last moment is met in the next turns of the loop, and turned away.
        for _ in range(3):
            await asyncio.sleep(0)
        await self._cut()

    async def _set(self, event: asyncio.Event, value: bool) -> None:
        if value:
            event.set()
        else:
            event.clear()

    async def _cut(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take a new connection, or turn it away. No coroutine: a task that is cancelled before it began closes nothing."""
        if self._refusing or self._server is None or not self._server.is_serving():
            writer.transport.abort()
            return
        self._writers.add(writer)
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_unix_connection(str(self._target), limit=1 << 20)
        except OSError:
            writer.transport.abort()
            self._writers.discard(writer)
            return
        self._writers.add(server_writer)
        link = _Link(self, reader, writer, server_reader, server_writer)
        back = asyncio.create_task(link.replies())
        try:
            await link.requests()
        except (ConnectionError, hiredis.ProtocolError, asyncio.CancelledError):
            pass
        finally:
            back.cancel()
            await asyncio.gather(back, return_exceptions=True)
            for one in (writer, server_writer):
                one.transport.abort()
                self._writers.discard(one)
                with contextlib.suppress(ConnectionError):
                    await one.wait_closed()

    async def opened(self, *, reply: bytes = b"") -> None:
        """Wait while the proxy is frozen, or muted, or slow."""
        await self._open.wait()
        if reply:
            if 0 < self._mute_at <= len(reply):
                self._mute_at = 0
                self._answering.clear()
            await self._answering.wait()
        if self._latency is not None:
            await asyncio.sleep(self._latency())

    def fault_for(self, batch: list[Command]) -> _Arming | None:
        """The arming that this batch of requests meets."""
        for arming in self._armed:
            if arming.left > 0 and any(arming.match(command) for command in batch):
                arming.left -= 1
                return arming
        return None


class _Link:
    """One connection through the proxy."""

    def __init__(
        self,
        proxy: Proxy,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        server_reader: asyncio.StreamReader,
        server_writer: asyncio.StreamWriter,
    ) -> None:
        self._proxy = proxy
        self._reader = reader
        self._writer = writer
        self._server_reader = server_reader
        self._server_writer = server_writer
        self._held_back: bytearray | None = None
        self._more = asyncio.Event()

    async def requests(self) -> None:
        """Pass on requests, batch by batch."""
        parser = hiredis.Reader()
        while data := await self._reader.read(1 << 20):
            await self._proxy.opened()
            parser.feed(data)
            batch: list[Command] = []
            while (command := parser.gets()) is not False:
                batch.append(command)
            names = [name for command in batch for name in names_of(command)]
            self._proxy.asked.update(names)
            arming = self._proxy.fault_for(batch)
            if arming is not None and arming.fault is Fault.BEFORE:
                self._writer.transport.abort()
                arming.done.set()
                return
            if arming is not None:
                self._held_back = bytearray()
            self._proxy.passed.update(names)
            for command in batch:
                self._server_writer.write(hiredis.pack_command(tuple[Any, ...](command)))
            await self._server_writer.drain()
            if arming is not None:
                answer = await self._answers(len(batch))
                if arming.fault is Fault.MIDDLE:
                    self._writer.write(answer[: max(1, len(answer) // 2)])
                    await self._writer.drain()
                    self._writer.close()
                else:
                    self._writer.transport.abort()
                arming.done.set()
                return

    async def _answers(self, expected: int) -> bytes:
        """Wait until the server answered `expected` requests; what it said was held back."""
        assert self._held_back is not None
        parser = hiredis.Reader()
        fed = 0
        while expected:
            self._more.clear()
            parser.feed(bytes(self._held_back[fed:]))
            fed = len(self._held_back)
            while expected and parser.gets() is not False:
                expected -= 1
            if expected:
                await self._more.wait()
        return bytes(self._held_back)

    async def replies(self) -> None:
        """Pass on replies, or hold them back."""
        while data := await self._server_reader.read(1 << 20):
            await self._proxy.opened(reply=data)
            if self._held_back is not None:
                self._held_back += data
                self._more.set()
            else:
                noise, self._proxy.noise = self._proxy.noise, None
                if noise is not None:
                    self._writer.write(noise[0])
                    await self._writer.drain()
                    await asyncio.sleep(noise[1])
                self._writer.write(data)
                await self._writer.drain()
        self._writer.close()
