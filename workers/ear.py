"""Hears wake-up tokens: one blocked connection for all shards of a queue, so that a worker holds few of them.

A poller asks for its tokens when it rests, and is called when one comes. It is not called while it is busy: a token that
its own claim pushed is for another worker. So the lists that are listened to change; a list that is missing while others
are listened to is added by a token of our own, which ends the blocking call.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from zwheel.broker.listener import LOOK, Listener, Token
from zwheel.broker.store import Store, pause_s
from zwheel.errors import BrokerError, BrokerRefused
from zwheel.outside import Sayer, escaped

log = escaped("zwheel.worker")

#: A blocked connection is renewed this often, and a list that holds something else is tried again so often, seconds.
_LISTEN_S = 30.0
#: So long a poller that was called may take to rest again before the others are listened to without it, seconds.
_TURN_S = 0.002


class Hearer(Protocol):
    """A poller, as far as it hears."""

    @property
    def rests(self) -> bool:
        """Whether a token is to wake it."""
        ...

    @property
    def listens(self) -> bool:
        """Whether tokens of its shard concern this worker at all."""
        ...

    @property
    def lists(self) -> Sequence[str]:
        """The keys of its lists of tokens."""
        ...

    async def called(self, token: Token, waited_s: float) -> float:
        """A token came, after so long. Returns how long to hear none from its list, seconds."""
        ...


class Ear:
    """The blocked connection of one worker for one queue."""

    def __init__(self, store: Store, listener: Listener, own: str) -> None:
        """own: the key of a list that no other worker listens to, in a shard of the queue."""
        self._store = store
        self._listener = listener
        self._own = own
        self._hearers: list[Hearer] = []
        self._task: asyncio.Task[None] | None = None
        self._asked = asyncio.Event()
        #: The lists that are listened to now.
        self._armed: frozenset[str] = frozenset()
        self._adding: asyncio.Task[None] | None = None
        #: Lists that are not listened to for a while, and until when, monotonic seconds.
        self._deaf: dict[str, float] = {}
        self._closing = False
        self._sayer = Sayer(log)

    def add(self, hearer: Hearer) -> None:
        """Hear for this poller too, from its next `listen` on."""
        self._hearers.append(hearer)

    def remove(self, hearer: Hearer) -> None:
        """Hear for this poller no more: it has stopped."""
        self._hearers.remove(hearer)

    def listen(self, hearer: Hearer) -> None:
        """Hear for a poller that rests from now on."""
        self._asked.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        elif self._armed and hearer.lists[0] not in self._armed and self._adding is None and not self._is_deaf(hearer):
            self._adding = asyncio.create_task(self._add_lists())

    def _is_deaf(self, hearer: Hearer) -> bool:
        return self._deaf.get(hearer.lists[0], 0.0) > time.monotonic()

    async def _add_lists(self) -> None:
        try:
            await self._store.send([("RPUSH", self._own, LOOK)])
        except BrokerError as error:
            log.debug("a list of tokens is listened to later: %s", error)
        finally:
            self._adding = None

    async def _run(self) -> None:
        failures = 0
        try:
            while not self._closing:
                now = time.monotonic()
                self._deaf = {key: until for key, until in self._deaf.items() if until > now}
                resting = [hearer for hearer in self._hearers if hearer.rests]
                heard = {key: one for one in resting for key in one.lists if key not in self._deaf}
                if not resting:
                    if not any(hearer.listens for hearer in self._hearers):
                        await self._listener.aclose()
                    return
                within_s = min(_LISTEN_S, *(until - now for until in self._deaf.values())) if self._deaf else _LISTEN_S
                if not heard:
                    await asyncio.sleep(within_s)
                    continue
                try:
                    token = await self._next(heard, max(0.01, within_s))
                    failures = 0
                except BrokerError as error:
                    failures += 1
                    if not (isinstance(error, BrokerRefused) and await self._leave_out(list(heard))):
                        await asyncio.sleep(pause_s(failures))
                    continue
                if token is not None and token.list in heard:
                    await self._tell(heard[token.list], token, time.monotonic() - now)
        except Exception as error:
            self._sayer.say(logging.WARNING, "token", "a wake-up token could not be handed on: %s", error)
        finally:
            self._task = None

    async def _next(self, heard: dict[str, Hearer], within_s: float) -> Token | None:
        lists = [*heard, self._own] if len(self._hearers) > 1 else list(heard)
        self._armed = frozenset(lists)
        try:
            return await self._listener.listen(lists, within_s)
        finally:
            self._armed = frozenset()

    async def _tell(self, hearer: Hearer, token: Token, waited_s: float) -> None:
        self._asked.clear()
        pause = await hearer.called(token, waited_s)
        if pause:
            self._deaf[token.list] = time.monotonic() + pause
        if len(self._hearers) > 1:
            # It claims now, and rests in a moment: then all are listened to with one command.
            with suppress(TimeoutError):
                async with asyncio.timeout(_TURN_S):
                    await self._asked.wait()

    async def _leave_out(self, lists: Sequence[str]) -> bool:
        """Redis refuses the whole call when one list holds another program's data: leave that out. Whether there was one."""
        with suppress(BrokerError):
            sizes = await self._store.send([("LLEN", key) for key in lists], each=True)
            wrong = [key for key, size in zip(lists, sizes, strict=True) if isinstance(size, BrokerRefused)]
            self._deaf.update(dict.fromkeys(wrong, time.monotonic() + _LISTEN_S))
            return bool(wrong)
        return False

    def interrupt(self) -> None:
        """End the wait that is under way and connect anew: there may be another primary."""
        self._listener.interrupt()

    async def aclose(self) -> None:
        """Hear no more, and close the connection. Twice is once."""
        self._closing = True
        tasks = [task for task in (self._task, self._adding) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._listener.aclose()


def own_list() -> str:
    """The name of a group that no worker is in, for a list of our own."""
    return secrets.token_hex(8)
