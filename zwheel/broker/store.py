"""What carries calls to Redis and answers back, one async and one blocking; nothing else here does I/O.

The only retry loop is here. It may repeat, because every call is safe to send twice: a repeat of a request whose
reply was lost gets the first answer from its lane. A script that Redis does not know is loaded and sent again.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Coroutine, Generator, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from hiredis import pack_command
from redis.exceptions import NoScriptError, RedisError

from zwheel.broker.address import mask_url, parse_url
from zwheel.broker.cluster import slot_of, topology_of
from zwheel.broker.connect import connect_async, connect_sync, translate
from zwheel.broker.errors import NOT_CARRIED_OUT
from zwheel.broker.listener import Listener as Listener
from zwheel.broker.nodes import Nodes, SyncNodes
from zwheel.broker.pool import Pool, SyncPool
from zwheel.broker.wire import LONGEST
from zwheel.calls.call import Call, clock_us
from zwheel.calls.scripts import Script
from zwheel.calls.session import Session
from zwheel.calls.waits import WAITS
from zwheel.errors import BrokerError, BrokerUnavailable, OutcomeUnknown, ZwheelError
from zwheel.failpoints import FAILPOINTS

T = TypeVar("T")
Commands = Sequence[Call | tuple[Any, ...]]
#: What an operation asks for: calls and plain commands sent in one round trip, or a pause in seconds.
Ask = Commands | float
#: An operation without I/O: it yields what to send and is sent the replies; its return value is the result.
Steps = Generator[Ask, list[Any], T]


#: One exchange: commands that are sent in one round trip, and when their caller gives up, on the monotonic clock (None: it
#: does not say). A plain tuple: one is made for every call.
Try = tuple[Commands, float | None]
#: What a store carries: it yields tries and pauses in seconds.
Work = Generator[Try | float, list[Any], T]
Exchange = Work[list[Any]]


class Span(Protocol):
    """One exchange in a history: what was asked is written already."""

    def ended(self, replies: Sequence[Any], error: BaseException | None = None) -> None:
        """Write what was answered."""


class Recording(Protocol):
    """What writes a history (`zwheel/history.py`)."""

    def invoke(self, commands: Sequence[Call | tuple[Any, ...]]) -> Span:
        """Write what is about to be sent."""

    def observe(self, event: str, facts: Mapping[str, Any]) -> None:
        """Write what happened in a worker."""


FIRST_PAUSE_S = 0.02
LONGEST_PAUSE_S = 1.0
#: A last try is given at least so long, seconds.
LEAST_TRY_S = 0.25


class Apart(list[Any]):
    """Commands of an operation that are answered each for itself: what is refused, or lies on a node of a cluster that gives
    no answer, is answered by its BrokerError. When nothing is answered, that is raised as for any others.
    """


def pause_s(failures: int) -> float:
    """How long to wait before trying again after `failures` failures in a row: exponential, full jitter, in seconds."""
    return random.uniform(0, min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(failures, 10)))


def _words(command: Call | tuple[Any, ...]) -> Sequence[Any]:
    return command.command() if isinstance(command, Call) else command


def _missing(commands: Commands, replies: list[Any]) -> list[int]:
    if len(replies) == 1 and type(replies[0]) is list:
        return []
    found = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
    # A wait speaks of what is sent before it.
    return found and found + [i for i, command in enumerate(commands) if command[0] in WAITS]


def _any_answered(commands: Commands, replies: list[Any]) -> bool:
    """Whether something was carried out. To wait is nothing."""
    pairs = zip(commands, replies, strict=True)
    return any(not isinstance(reply, BaseException) and command[0] not in WAITS for command, reply in pairs)


def _scripts(commands: Iterable[Call | tuple[Any, ...]]) -> list[Script]:
    return list({c.script.sha: c.script for c in commands if isinstance(c, Call)}.values())


def _reach(commands: Commands, side: str) -> None:
    for command in commands:
        if isinstance(command, Call):
            for place in sorted(command.places()):
                FAILPOINTS.reach(f"{place}.{side}")


def _tried(error: BrokerError, give_up_s: float) -> BrokerError:
    """Add to an error how long it was tried."""
    if give_up_s > 0:
        text = str(error)
        end = NOT_CARRIED_OUT if text.endswith(NOT_CARRIED_OUT) else ""
        error.args = (f"{text.removesuffix(end)}; tried for {give_up_s:g} s{end}",)
    return error


class _Carrier:
    """What both stores share: all but the exchange itself. Each of these generators yields what to exchange or how long
    to pause, and is sent the replies.
    """

    def __init__(self, url: str, session: Session, timeout_s: float, give_up_s: float) -> None:
        self.url = url
        self.session = session
        #: How long nothing may move while a request is under way, seconds.
        self.timeout_s = timeout_s
        #: How long a producer tries before it gets a typed error, seconds.
        self.give_up_s = give_up_s
        #: Writes each change and what became of it to a history; None: none is kept.
        self.recorder: Recording | None = None
        #: The command that prints the rules which this user needs; '' when each refused command is to tell.
        self.acl = ""
        self._in_memory = url.startswith("memory:")
        address = parse_url(url)
        self._topology = topology_of(url, address) if address.kind == "cluster" else None
        #: Whether some of it may answer while the rest does not: it has several nodes.
        self.in_parts = self._topology is not None

    def node_of(self, key: str) -> object:
        """Which node has a key, for comparison: what lies on one node shares its fate. One server is one for all keys; while
        it is not known who has a slot, that is a node of its own.
        """
        if self._topology is None:
            return None
        slot = slot_of(key)
        return self._topology.owner(slot) or slot

    def _known(self, commands: Commands) -> Commands:
        """The commands as this server knows them: fakeredis wants its scripts plain."""
        if not self._in_memory:
            return commands
        return [c._replace(script=c.script.plain) if isinstance(c, Call) else c for c in commands]

    def _sending(self, commands: Commands, ends: float | None = None, each: bool = False) -> Exchange:
        """Send once, in one round trip (two when Redis did not know a script).

        ends: when the caller gives up. each: a refused command has its error in the place of its reply.
        """
        commands = self._known(commands)
        span = None if self.recorder is None else self.recorder.invoke(commands)
        replies: list[Any] = []
        try:
            if FAILPOINTS.active:
                _reach(commands, "before")
            sent = time.monotonic_ns()
            replies = yield commands, ends
            missing = _missing(commands, replies)
            if missing:
                yield from self._loading(commands, missing, replies, ends)
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

    def _loading(self, commands: Commands, missing: list[int], replies: list[Any], ends: float | None) -> Work[None]:
        """Load the scripts that Redis did not know, send their calls again and put the answers among the replies."""
        try:
            again = [commands[i] for i in missing]
            yield [("SCRIPT", "LOAD", script.source) for script in _scripts(again)], ends
            for i, reply in zip(missing, (yield again, ends), strict=True):
                replies[i] = reply
        except BrokerUnavailable as error:
            if len(missing) == len(commands):
                raise
            raise self._in_doubt(error) from error  # The others of the batch were carried out.

    def _observe(self, commands: Commands, replies: list[Any], sent: int, each: bool) -> None:
        """Raise the error of a refused command, or put it in the place of the reply, and take in the server's clock.

        sent: before anything was sent, also where a part of it was sent again because its script was missing: the rest
        was answered before that.
        """
        try:
            if len(replies) == 1 and type(replies[0]) is list and isinstance(commands[0], Call):
                # The most frequent exchange: one call that was answered.
                if not self.session.now:
                    self.session.clock.observe(clock_us(replies[0]), sent, time.monotonic_ns())
                return
            self._take_in(commands, replies, sent, each)
        except (LookupError, TypeError, ValueError) as error:
            # No script answers so, and replies carry no name: the next ones may be answers to what was asked before.
            self._distrust()
            raise OutcomeUnknown(
                f"Redis at {mask_url(self.url)} gave what no script answers: is there a proxy, or another server? "
                "The request may or may not have been carried out"
            ) from error

    def _take_in(self, commands: Commands, replies: list[Any], sent: int, each: bool) -> None:
        """The same for any number of replies, one by one."""
        for i, (command, reply) in enumerate(zip(commands, replies, strict=True)):
            if isinstance(reply, BaseException):
                error = self._translate(reply, command)
                if not each and isinstance(error, BrokerUnavailable) and _any_answered(commands, replies):
                    error = self._in_doubt(error)
                error.__cause__ = reply
                if not each and command[0] not in WAITS:
                    raise error
                replies[i] = error
            elif isinstance(command, Call) and not self.session.now:
                if type(reply) is not list:
                    raise TypeError(f"a script answers with a list, not with {type(reply).__name__}")
                self.session.clock.observe(clock_us(reply), sent, time.monotonic_ns())

    def _distrust(self) -> None:
        """End all connections: replies on them may belong to other requests."""
        raise NotImplementedError

    def _translate(self, error: BaseException, command: Call | Sequence[Any] = ()) -> ZwheelError:
        return error if isinstance(error, ZwheelError) else translate(error, self.url, lambda: self._acl(command))

    def _acl(self, command: Call | Sequence[Any]) -> str:
        if self.acl or not command:
            return self.acl or "zwheel acl"
        from zwheel.broker.acl import command_after

        if isinstance(command, Call):
            return command_after(command.script.name, command.keys, command.args[1])
        return command_after(str(command[0]), command[1:])

    def _in_doubt(self, error: BrokerError) -> OutcomeUnknown:
        """What to raise when a later try ended with a certain no, and an earlier one with no answer."""
        last = str(error).removesuffix(NOT_CARRIED_OUT)
        return OutcomeUnknown(f"{last}; an earlier try had no answer: the request may or may not have been carried out")

    def _persisting(self, commands: Commands, give_up_s: float) -> Exchange:
        """Repeat what got no answer until `give_up_s` is over.

        Raises BrokerUnavailable only when no try can have been carried out; else what is known is OutcomeUnknown, also
        where the last try was refused.
        """
        deadline = time.monotonic() + give_up_s
        ends = deadline if give_up_s > 0 else None
        failures = 0
        doubtful = False
        each = type(commands) is Apart
        #: Which commands of `Apart` may have been carried out by a try that had no answer.
        unknown: set[int] = set()
        while True:
            try:
                if self.recorder is not None or self._in_memory or FAILPOINTS.active:
                    replies = yield from self._sending(commands, ends, each)
                else:
                    # The same without its further generator, which costs as much as all that this does.
                    sent = time.monotonic_ns()
                    replies = yield commands, ends
                    missing = _missing(commands, replies)
                    if missing:
                        yield from self._loading(commands, missing, replies, ends)
                    self._observe(commands, replies, sent, each)
                if not each or not any(isinstance(reply, (BrokerUnavailable, OutcomeUnknown)) for reply in replies):
                    return self._told_of(unknown, replies) if unknown else replies
                unknown.update(i for i, reply in enumerate(replies) if isinstance(reply, OutcomeUnknown))
                failures += 1
                pause = pause_s(failures)
                if time.monotonic() + pause >= deadline:
                    return self._told_of(unknown, replies)
            except (BrokerUnavailable, OutcomeUnknown) as error:
                failures += 1
                doubtful = doubtful or bool(unknown) or isinstance(error, OutcomeUnknown)
                pause = pause_s(failures)
                if time.monotonic() + pause >= deadline:
                    if doubtful and not isinstance(error, OutcomeUnknown):
                        raise _tried(self._in_doubt(error), give_up_s) from error
                    _tried(error, give_up_s)
                    raise
            except BrokerError as error:
                if doubtful or unknown:
                    raise self._in_doubt(error) from error
                raise
            yield pause

    def _told_of(self, unknown: set[int], replies: list[Any]) -> list[Any]:
        """The replies, where commands in doubt that were refused in the last try stay in doubt."""
        for i in unknown:
            if isinstance(replies[i], BrokerError) and not isinstance(replies[i], OutcomeUnknown):
                replies[i] = self._in_doubt(replies[i])
        return replies

    def _driving(self, steps: Steps[T], give_up_s: float) -> Work[T]:
        """Carry an operation through."""
        try:
            ask = next(steps)
            while True:
                if isinstance(ask, (int, float)):
                    yield ask
                    ask = steps.send([])
                    continue
                try:
                    replies = yield from self._persisting(ask, give_up_s)
                except BrokerError as error:
                    # An operation may catch the error and go on without the reply; else the error ends it.
                    ask = steps.throw(error)
                else:
                    ask = steps.send(replies)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            steps.close()

    def _within(self, ends: float | None) -> float:
        """How long one exchange may take in all, seconds. ends: when its caller gives up, None: no such time."""
        most = LONGEST * self.timeout_s
        if ends is None:
            return most
        left = ends - time.monotonic()
        left = left if left > LEAST_TRY_S else LEAST_TRY_S
        return left if left < most else most


class Store(_Carrier):
    """The async store. Connects on first use; belongs to one event loop."""

    def __init__(
        self, url: str, session: Session, *, timeout_s: float = 10.0, give_up_s: float = 15.0, max_connections: int = 8
    ) -> None:
        super().__init__(url, session, timeout_s, give_up_s)
        self._memory = connect_async(url) if self._in_memory else None
        address = parse_url(url)
        self._nodes = Nodes(url, address, timeout_s, max_connections) if address.kind == "cluster" else None
        self._pool = None if self._in_memory or self._nodes else Pool(address, timeout_s, max_connections)

    def send(self, commands: Commands, *, each: bool = False) -> Coroutine[Any, Any, list[Any]]:
        """Send once, in one round trip (two when Redis did not know a script). Raises: BrokerError and its kinds.

        each: what is refused does not raise: its BrokerError stands in the place of its reply.
        """
        return self._carry(self._sending(commands, each=each))

    def drive(self, steps: Steps[T], *, give_up_s: float | None = None) -> Coroutine[Any, Any, T]:
        """Carry an operation through, repeating what got no answer until `give_up_s` is over.

        Raises: what the operation raises, and BrokerError and its kinds.
        """
        return self._carry(self._driving(steps, self.give_up_s if give_up_s is None else give_up_s))

    async def _carry(self, work: Work[T]) -> T:
        try:
            ask = next(work)
            while True:
                if not isinstance(ask, tuple):
                    await asyncio.sleep(ask)
                    ask = work.send([])
                    continue
                try:
                    replies = await self._exchange(*ask)
                except BrokerError as error:
                    ask = work.throw(error)
                else:
                    ask = work.send(replies)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            work.close()

    async def _exchange(self, commands: Commands, ends: float | None = None) -> list[Any]:
        try:
            if self._pool is not None:
                packed = b"".join([pack_command(tuple(_words(command))) for command in commands])
                return await self._pool.ask(packed, len(commands), self._within(ends))
            if self._nodes is not None:
                return await self._nodes.ask(commands, self._within(ends))
            assert self._memory is not None
            pipe = self._memory.pipeline(transaction=False)
            for command in commands:
                pipe.execute_command(*_words(command))
            return await pipe.execute(raise_on_error=False)
        except (RedisError, OSError, TimeoutError) as error:
            raise self._translate(error) from error

    def _pools(self) -> list[Pool | Nodes]:
        return [pool for pool in (self._pool, self._nodes) if pool is not None]

    def _distrust(self) -> None:
        for pool in self._pools():
            pool.distrust()

    def abandon(self) -> None:
        """Let go of connections whose event loop is gone, or is another process's."""
        for pool in self._pools():
            pool.abandon()

    async def aclose(self) -> None:
        """Close every connection."""
        for pool in self._pools():
            await pool.aclose()
        if self._memory is not None:
            await self._memory.aclose()


class SyncStore(_Carrier):
    """The blocking store, for sync producers and for threads. Safe to share between threads and across fork."""

    def __init__(
        self, url: str, session: Session, *, timeout_s: float = 10.0, give_up_s: float = 15.0, max_connections: int = 8
    ) -> None:
        super().__init__(url, session, timeout_s, give_up_s)
        self._memory = connect_sync(url) if self._in_memory else None
        address = parse_url(url)
        self._nodes = SyncNodes(url, address, timeout_s, max_connections) if address.kind == "cluster" else None
        self._pool = None if self._in_memory or self._nodes else SyncPool(address, timeout_s, max_connections)

    @property
    def opened(self) -> int:
        """How many connections were opened so far. At the end of a new one there may be another process of the server."""
        return sum(pool.opened for pool in self._pools())

    def send(self, commands: Commands, *, each: bool = False) -> list[Any]:
        """Send once, in one round trip (two when Redis did not know a script). Raises: BrokerError and its kinds.

        each: what is refused does not raise: its BrokerError stands in the place of its reply.
        """
        return self._carry(self._sending(commands, each=each))

    def drive(self, steps: Steps[T], *, give_up_s: float | None = None) -> T:
        """Carry an operation through, repeating what got no answer until `give_up_s` is over.

        Raises: what the operation raises, and BrokerError and its kinds.
        """
        return self._carry(self._driving(steps, self.give_up_s if give_up_s is None else give_up_s))

    def _carry(self, work: Work[T]) -> T:
        try:
            ask = next(work)
            while True:
                if not isinstance(ask, tuple):
                    time.sleep(ask)
                    ask = work.send([])
                    continue
                try:
                    replies = self._exchange(*ask)
                except BrokerError as error:
                    ask = work.throw(error)
                else:
                    ask = work.send(replies)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            work.close()

    def _pools(self) -> list[SyncPool | SyncNodes]:
        return [pool for pool in (self._pool, self._nodes) if pool is not None]

    def _distrust(self) -> None:
        for pool in self._pools():
            pool.close()

    def _exchange(self, commands: Commands, ends: float | None = None) -> list[Any]:
        try:
            if self._pool is not None:
                packed = b"".join([pack_command(tuple(_words(command))) for command in commands])
                return self._pool.ask(packed, len(commands), self._within(ends))
            if self._nodes is not None:
                return self._nodes.ask(commands, self._within(ends))
            assert self._memory is not None
            pipe = self._memory.pipeline(transaction=False)
            for command in commands:
                pipe.execute_command(*_words(command))
            return list(pipe.execute(raise_on_error=False))
        except (RedisError, OSError, TimeoutError) as error:
            raise self._translate(error) from error

    def close(self) -> None:
        """Close every connection."""
        for pool in self._pools():
            pool.close()
        if self._memory is not None:
            self._memory.close()
