"""A stage on which the jobs of worker processes appear: each says hello to the test, and may wait there for a word.

The test sees a job start, tells it to go on, and sees its process die, all without looking at a clock.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from zwheel import current_job

PATH = "ZW_TEST_STAGE"


def _hello(name: str) -> bytes:
    job = current_job()
    about = {"name": name, "job": job.id, "token": job.token, "attempt": job.attempt, "pid": os.getpid()}
    return json.dumps(about).encode() + b"\n"


async def play(name: str) -> None:
    """Appear, and end when the test says so; for async tasks."""
    reader, writer = await asyncio.open_unix_connection(os.environ[PATH])
    try:
        writer.write(_hello(name))
        await reader.read(1)
    finally:
        writer.close()


def play_blocking(name: str) -> None:
    """Appear, and block the calling thread until the test says so."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(os.environ[PATH])
        connection.sendall(_hello(name))
        connection.recv(1)


def announce(name: str) -> None:
    """Appear, and go on; the connection stays until the process ends."""
    connection = socket.socket(socket.AF_UNIX)
    _kept.append(connection)
    connection.connect(os.environ[PATH])
    connection.sendall(_hello(name))


_kept: list[socket.socket] = []


async def pass_by(name: str) -> None:
    """Appear, and go on at once."""
    reader, writer = await asyncio.open_unix_connection(os.environ[PATH])
    writer.write(_hello(name))
    writer.write_eof()
    await reader.read(1)
    writer.close()


class Actor:
    """One start of one job."""

    def __init__(self, about: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.name: str = about["name"]
        self.job: str = about["job"]
        self.token: int = about["token"]
        self.attempt: int = about["attempt"]
        self.pid: int = about["pid"]
        self._reader = reader
        self._writer = writer

    def go(self) -> None:
        """Let the job end."""
        self._writer.write(b"g")

    async def gone(self, within: float = 10.0) -> None:
        """Wait until the job ended, or its process."""
        async with asyncio.timeout(within):
            try:
                await self._reader.read()
            except ConnectionError:
                return


class Stage:
    """Where jobs appear."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.actors: list[Actor] = []
        self._changed = asyncio.Event()
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._enter, str(self.path))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _enter(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        line = await reader.readline()
        if not line:
            return
        actor = Actor(json.loads(line), reader, writer)
        self.actors.append(actor)
        self._changed.set()
        if actor.name.startswith("pass"):
            writer.close()

    async def nth(self, number: int, within: float = 10.0) -> Actor:
        """Wait for the start that comes `number`th, counted from 1."""
        async with asyncio.timeout(within):
            while len(self.actors) < number:
                self._changed.clear()
                await self._changed.wait()
        return self.actors[number - 1]
