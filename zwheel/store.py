"""The shells that carry calls to Redis and answers back, one async and one blocking; nothing else here does I/O.

The only retry loop is here. It may repeat, because every call is safe to send twice: a repeat of a request whose
reply was lost gets the first answer from its lane. A script that Redis does not know is loaded and sent again.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from hiredis import pack_command
from redis.exceptions import NoScriptError, RedisError

from zwheel.calls.call import Call, Session, clock_us
from zwheel.connect import connect_async, connect_blocking, connect_sync, translate
from zwheel.errors import BrokerError, BrokerUnavailable, OutcomeUnknown, ZwheelError
from zwheel.failpoints import FAILPOINTS
from zwheel.scripts import Script
from zwheel.wire import Wire

if TYPE_CHECKING:
    import redis
    import redis.asyncio

    from zwheel.history import Recorder

T = TypeVar("T")
#: What an operation asks for: calls and plain commands sent in one round trip, or a pause in seconds.
Ask = Sequence[Call | tuple[Any, ...]] | float
#: An operation without I/O: it yields what to send and is sent the replies; its return value is the result.
Steps = Generator[Ask, list[Any], T]

FIRST_PAUSE_S = 0.02
LONGEST_PAUSE_S = 1.0


def pause_s(failures: int) -> float:
    """How long to wait before trying again after `failures` failures in a row: exponential, full jitter, in seconds."""
    return random.uniform(0, min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(failures, 10)))


def _words(command: Call | tuple[Any, ...]) -> Sequence[Any]:
    return command.command() if isinstance(command, Call) else command


def _missing(commands: Sequence[Call | tuple[Any, ...]], replies: list[Any]) -> list[int]:
    if len(replies) == 1 and type(replies[0]) is list:
        return []
    return [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]


def _scripts(commands: Iterable[Call | tuple[Any, ...]]) -> list[Script]:
    return list({c.script.sha: c.script for c in commands if isinstance(c, Call)}.values())


def _reach(commands: Sequence[Call | tuple[Any, ...]], side: str) -> None:
    for command in commands:
        if isinstance(command, Call):
            FAILPOINTS.reach(f"{command.script.name}.{side}")


class _Shell:
    """What both shells share: the session, and what to make of replies."""

    def __init__(self, url: str, session: Session, timeout_s: float, give_up_s: float) -> None:
        self.url = url
        self.session = session
        self.timeout_s = timeout_s
        #: How long a producer tries before it gets a typed error, seconds.
        self.give_up_s = give_up_s
        #: Writes each change and what became of it to a history; None: none is kept.
        self.recorder: Recorder | None = None
        self._in_memory = url.startswith("memory:")

    def _known(self, commands: Sequence[Call | tuple[Any, ...]]) -> Sequence[Call | tuple[Any, ...]]:
        """The commands as this server knows them: fakeredis wants its scripts plain."""
        if not self._in_memory:
            return commands
        return [c._replace(script=c.script.plain) if isinstance(c, Call) else c for c in commands]

    def _observe(
        self, commands: Sequence[Call | tuple[Any, ...]], replies: list[Any], sent: int, each: bool = False
    ) -> None:
        """Raise what was refused, and take in the server's clock.

        each: put the error of what was refused in the place of its reply instead.

        sent: before anything was sent, also where a part of it was sent again because its script was missing: the rest
        was answered before that.
        """
        for i, (command, reply) in enumerate(zip(commands, replies, strict=True)):
            if isinstance(reply, BaseException):
                error = self._translate(reply)
                error.__cause__ = reply
                if not each:
                    raise error
                replies[i] = error
            elif isinstance(command, Call) and not self.session.now:
                self.session.clock.observe(clock_us(reply), sent, time.monotonic_ns())

    def _translate(self, error: BaseException) -> ZwheelError:
        return error if isinstance(error, ZwheelError) else translate(error, self.url)


class Store(_Shell):
    """The async shell. Connects on first use; belongs to one event loop."""

    def __init__(
        self, url: str, session: Session, *, timeout_s: float = 10.0, give_up_s: float = 15.0, max_connections: int = 8
    ) -> None:
        super().__init__(url, session, timeout_s, give_up_s)
        self._client: redis.asyncio.Redis = connect_async(url, timeout_s=timeout_s, max_connections=max_connections)
        self._most = max_connections
        self._wires: list[Wire] = []
        #: Connections to use next, the last used one last.
        self._idle: list[Wire] = []
        self._connecting = 0
        self._turn = 0

    async def send(self, commands: Sequence[Call | tuple[Any, ...]], *, each: bool = False) -> list[Any]:
        """Send once, in one round trip (two when Redis did not know a script). Raises: BrokerError and its kinds.

        each: what is refused does not raise: its BrokerError stands in the place of its reply.
        """
        commands = self._known(commands)
        span = None if self.recorder is None else self.recorder.invoke(commands)
        replies: list[Any] = []
        try:
            if FAILPOINTS.active:
                _reach(commands, "before")
            sent = time.monotonic_ns()
            replies = await self._exchange(commands)
            missing = _missing(commands, replies)
            if missing:
                again = [commands[i] for i in missing]
                await self._exchange([("SCRIPT", "LOAD", script.source) for script in _scripts(again)])
                for i, reply in zip(missing, await self._exchange(again), strict=True):
                    replies[i] = reply
            self._observe(commands, replies, sent, each)
            if FAILPOINTS.active:
                _reach(commands, "after")
        except BaseException as error:
            if span is not None:
                span.ended(replies, error)
            raise
        if span is not None:
            span.ended(replies)
        return replies

    async def _exchange(self, commands: Sequence[Call | tuple[Any, ...]]) -> list[Any]:
        try:
            if self._in_memory:
                pipe = self._client.pipeline(transaction=False)
                for command in commands:
                    pipe.execute_command(*_words(command))
                return await pipe.execute(raise_on_error=False)
            packed = b"".join([pack_command(tuple(_words(command))) for command in commands])
            wire = self._idle.pop() if self._idle else None
            if wire is None or wire.lost:
                wire = await self._another()
            try:
                return await wire.ask(packed, len(commands))
            finally:
                if not wire.lost and wire not in self._idle:
                    self._idle.append(wire)
        except (RedisError, OSError, TimeoutError) as error:
            raise self._translate(error) from error

    async def _another(self) -> Wire:
        """Connect once more, or share a connection when there are as many as may be: it answers in its order.

        redis-py opens the connection and logs in; its pool only makes them and gets none back.
        """
        self._wires = [wire for wire in self._wires if not wire.lost]
        if len(self._wires) + self._connecting >= self._most and self._wires:
            self._turn += 1
            return self._wires[self._turn % len(self._wires)]
        connection: Any = self._client.connection_pool.make_connection()
        self._connecting += 1
        try:
            await connection.connect()
        finally:
            self._connecting -= 1
        wire = Wire(connection, self.timeout_s)
        self._wires.append(wire)
        return wire

    async def drive(self, steps: Steps[T], *, give_up_s: float | None = None) -> T:
        """Carry an operation through, repeating what got no answer until `give_up_s` is over.

        Raises: what the operation raises, and BrokerError and its kinds.
        """
        limit = self.give_up_s if give_up_s is None else give_up_s
        try:
            ask = next(steps)
            while True:
                if isinstance(ask, (int, float)):
                    await asyncio.sleep(ask)
                    ask = steps.send([])
                    continue
                try:
                    replies = await self._persist(ask, limit)
                except BrokerError as error:
                    # An operation may go on without what it asked for; one that does not say so ends with the error.
                    ask = steps.throw(error)
                else:
                    ask = steps.send(replies)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            steps.close()

    async def _persist(self, commands: Sequence[Call | tuple[Any, ...]], give_up_s: float) -> list[Any]:
        deadline = time.monotonic() + give_up_s
        failures = 0
        while True:
            try:
                return await self.send(commands)
            except (BrokerUnavailable, OutcomeUnknown):
                failures += 1
                pause = pause_s(failures)
                if time.monotonic() + pause >= deadline:
                    raise
            await asyncio.sleep(pause)

    async def aclose(self) -> None:
        """Close every connection."""
        self._idle.clear()
        while self._wires:
            await self._wires.pop().aclose()
        await self._client.aclose()


class Listener:
    """The blocking connection of one shard: carries wake-up tokens and nothing else."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client: redis.asyncio.Redis = connect_blocking(url)

    async def listen(self, keys: Sequence[str], timeout_s: float) -> str:
        """Wait for a token; give the list it came from, '' when none came in time. Raises: BrokerError and its kinds."""
        try:
            async with asyncio.timeout(timeout_s + 10):
                found = await self._client.execute_command("BLPOP", *keys, f"{timeout_s:.3f}")
            if found is None:
                return ""
            return found[0].decode() if isinstance(found[0], bytes) else str(found[0])
        except (RedisError, OSError, TimeoutError) as error:
            raise translate(error, self.url) from error

    async def aclose(self) -> None:
        """Close the connection."""
        await self._client.aclose()


class SyncStore(_Shell):
    """The blocking shell, for sync producers and for threads. Safe to share between threads and across fork."""

    def __init__(self, url: str, session: Session, *, timeout_s: float = 10.0, give_up_s: float = 15.0) -> None:
        super().__init__(url, session, timeout_s, give_up_s)
        self._client: redis.Redis = connect_sync(url, timeout_s=timeout_s)

    def send(self, commands: Sequence[Call | tuple[Any, ...]], *, each: bool = False) -> list[Any]:
        """Send once, in one round trip (two when Redis did not know a script). Raises: BrokerError and its kinds.

        each: what is refused does not raise: its BrokerError stands in the place of its reply.
        """
        commands = self._known(commands)
        span = None if self.recorder is None else self.recorder.invoke(commands)
        replies: list[Any] = []
        try:
            if FAILPOINTS.active:
                _reach(commands, "before")
            sent = time.monotonic_ns()
            replies = self._exchange(commands, each)
            missing = _missing(commands, replies)
            if missing:
                again = [commands[i] for i in missing]
                self._exchange([("SCRIPT", "LOAD", script.source) for script in _scripts(again)])
                for i, reply in zip(missing, self._exchange(again, each), strict=True):
                    replies[i] = reply
            self._observe(commands, replies, sent, each)
            if FAILPOINTS.active:
                _reach(commands, "after")
        except BaseException as error:
            if span is not None:
                span.ended(replies, error)
            raise
        if span is not None:
            span.ended(replies)
        return replies

    def _exchange(self, commands: Sequence[Call | tuple[Any, ...]], each: bool = False) -> list[Any]:
        try:
            if len(commands) == 1 and not each:
                try:
                    return [self._client.execute_command(*_words(commands[0]))]
                except NoScriptError as error:
                    return [error]
            pipe = self._client.pipeline(transaction=False)
            for command in commands:
                pipe.execute_command(*_words(command))
            return list(pipe.execute(raise_on_error=False))
        except (RedisError, OSError, TimeoutError) as error:
            raise self._translate(error) from error

    def drive(self, steps: Steps[T], *, give_up_s: float | None = None) -> T:
        """Carry an operation through, repeating what got no answer until `give_up_s` is over.

        Raises: what the operation raises, and BrokerError and its kinds.
        """
        limit = self.give_up_s if give_up_s is None else give_up_s
        try:
            ask = next(steps)
            while True:
                if isinstance(ask, (int, float)):
                    time.sleep(ask)
                    ask = steps.send([])
                    continue
                try:
                    replies = self._persist(ask, limit)
                except BrokerError as error:
                    ask = steps.throw(error)
                else:
                    ask = steps.send(replies)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            steps.close()

    def _persist(self, commands: Sequence[Call | tuple[Any, ...]], give_up_s: float) -> list[Any]:
        deadline = time.monotonic() + give_up_s
        failures = 0
        while True:
            try:
                return self.send(commands)
            except (BrokerUnavailable, OutcomeUnknown):
                failures += 1
                pause = pause_s(failures)
                if time.monotonic() + pause >= deadline:
                    raise
            time.sleep(pause)

    def close(self) -> None:
        """Close every connection."""
        self._client.close()
