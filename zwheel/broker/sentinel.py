"""Finding the primary by its sentinels: they are asked anew for each connection, and what they name must be a primary.

A sentinel that does not answer, or whose primary is none, is asked last the next time. So one retry loop is enough, that of
the store: nothing is tried twice here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

from redis import exceptions as client_errors

from zwheel.broker.address import Address, place
from zwheel.broker.errors import Misdirected, NoPrimary, why

ASK_S = 1.0
"""How long one sentinel may take to answer, its login included."""

Place = tuple[str, int]
#: Yields whom to ask, and what; is sent the answer, or the error. Its return value is where the primary is.
Asking = Generator[tuple[Place, tuple[str, ...]], Any, Place]


class Sentinels:
    """The sentinels of one URL, in the order in which they are asked."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._order = list(address.hosts)
        #: Who named the primary that was tried last.
        self._named: Place | None = None

    def asking(self) -> Asking:
        """Ask one sentinel after the other where the primary is. Raises: NoPrimary, Misdirected, AuthenticationError."""
        silent: dict[str, list[str]] = {}
        ignorant: Place | None = None
        other: Exception | None = None
        for sentinel in list(self._order):
            answer = yield sentinel, ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.address.master)
            if isinstance(answer, list) and len(answer) == 2:
                self._named = sentinel
                return _text(answer[0]), int(answer[1])
            if answer is None:
                ignorant = sentinel
            elif isinstance(answer, (client_errors.AuthenticationError, client_errors.NoPermissionError)):
                other = client_errors.AuthenticationError(
                    f"the sentinel {place(*sentinel)} lets us not in: {answer}; its own password is ?sentinel_password="
                )
            elif isinstance(answer, client_errors.ResponseError) and "unknown command" in str(answer):
                plain = self.address.at(*sentinel)
                other = Misdirected(
                    f"{place(*sentinel)} is a Redis and no sentinel: name the sentinels, or write {plain}"
                )
            else:
                reason = why(answer) if isinstance(answer, Exception) else "no sentinel answers so"
                silent.setdefault(reason, []).append(place(*sentinel))
                self._put_last(sentinel)
        if ignorant is not None:
            known = yield ignorant, ("SENTINEL", "MASTERS")
            names = [_text(one[1]) for one in known] if isinstance(known, list) else []
            raise Misdirected(
                f"the sentinels know no primary called {self.address.master}"
                + (f", but {', '.join(sorted(names)[:10])}" if names else "")
            )
        told = "; ".join(f"{', '.join(places)}: {reason}" for reason, places in silent.items())
        raise other or NoPrimary(f"none of the sentinels answers, {told}")

    def doubt(self) -> None:
        """Ask another sentinel first the next time: what this one named could not be used."""
        if self._named is not None:
            self._put_last(self._named)

    def check(self, reply: Any, host: str, port: int) -> None:
        """Take in the answer to ROLE. A user that may not ask is believed. Raises: NoPrimary."""
        role = _text(reply[0]) if isinstance(reply, list) and reply else "master"
        if role != "master":
            self.doubt()
            raise NoPrimary(f"the sentinels name {place(host, port)}, which is a {role} and no primary")

    def _put_last(self, sentinel: Place) -> None:
        if sentinel in self._order:
            self._order.remove(sentinel)
            self._order.append(sentinel)


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


class AsyncToPrimary:
    """Mixed into redis-py's asyncio connections: it leads to the primary that the sentinels name."""

    def __init__(self, *, sentinels: Sentinels, ask: Any, **settings: Any) -> None:
        """Take ask: makes the connection to a sentinel, from its host and port."""
        self._sentinels, self._ask = sentinels, ask
        super().__init__(**settings)

    async def _connect(self) -> None:
        connection: Any = self
        asking = self._sentinels.asking()
        try:
            sentinel, words = next(asking)
            while True:
                sentinel, words = asking.send(await self._answer(sentinel, words))
        except StopIteration as end:
            connection.host, connection.port = end.value
        try:
            await super()._connect()  # type: ignore[misc]
        except (OSError, client_errors.RedisError):
            self._sentinels.doubt()
            raise

    async def _answer(self, sentinel: Place, words: tuple[str, ...]) -> Any:
        one = self._ask(*sentinel)
        try:
            async with asyncio.timeout(ASK_S):
                await one.connect()
                await one.send_command(*words)
                return await one.read_response()
        except (OSError, client_errors.RedisError, TimeoutError) as error:
            return _refusal(error)
        finally:
            await one.disconnect(nowait=True)

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        """Log in, and ask whether this is a primary."""
        connection: Any = self
        await super().on_connect_check_health(check_health=check_health)  # type: ignore[misc]
        try:
            await connection.send_command("ROLE")
            reply = await connection.read_response()
        except client_errors.NoPermissionError:
            return
        self._sentinels.check(reply, connection.host, connection.port)


class SyncToPrimary:
    """The same for redis-py's blocking connections."""

    def __init__(self, *, sentinels: Sentinels, ask: Any, **settings: Any) -> None:
        """Take ask: makes the connection to a sentinel, from its host and port."""
        self._sentinels, self._ask = sentinels, ask
        super().__init__(**settings)

    def _connect(self) -> Any:
        connection: Any = self
        asking = self._sentinels.asking()
        try:
            sentinel, words = next(asking)
            while True:
                sentinel, words = asking.send(self._answer(sentinel, words))
        except StopIteration as end:
            connection.host, connection.port = end.value
        try:
            return super()._connect()  # type: ignore[misc]
        except (OSError, client_errors.RedisError):
            self._sentinels.doubt()
            raise

    def _answer(self, sentinel: Place, words: tuple[str, ...]) -> Any:
        one = self._ask(*sentinel)
        try:
            one.connect()
            one.send_command(*words)
            return one.read_response()
        except (OSError, client_errors.RedisError) as error:
            return _refusal(error)
        finally:
            one.disconnect()

    def on_connect_check_health(self, check_health: bool = True) -> None:
        """Log in, and ask whether this is a primary."""
        connection: Any = self
        super().on_connect_check_health(check_health=check_health)  # type: ignore[misc]
        try:
            connection.send_command("ROLE")
            reply = connection.read_response()
        except client_errors.NoPermissionError:
            return
        self._sentinels.check(reply, connection.host, connection.port)


def _refusal(error: BaseException) -> BaseException:
    """What a sentinel said, out of the failure of the connection to it."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, (client_errors.AuthenticationError, client_errors.NoPermissionError)):
            return link
        link = link.__cause__
    return error
