"""A newcomer takes part in what is offered already.

A job that a worker could not run is noted for the groups that knew its task in that moment, and they may all be busy.
Where nobody knew it, it is noted for the group of no worker. A worker of a group that came later, or that was away,
copies the notes of jobs that it knows to its own group. A note only says where a job may be claimed, and is void when
its record says something else; so copying is safe at any time.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable
from typing import Any

from zwheel.broker.store import Store, pause_s
from zwheel.calls import GROUPS_LIMIT
from zwheel.errors import BrokerError
from zwheel.keys import ShardKeys
from zwheel.outside import Sayer, escaped, flat, score_ms
from zwheel.record import task_and_body

from .contact import Contact
from .lookout import Lookout
from .peers import FRESH_S, NOBODY, read_peer

log = escaped("zwheel.worker")

#: Who offers may believe an older list of workers for a while: a newcomer looks again when that is over, seconds.
_AGAIN_S = FRESH_S + 0.3
#: Nobody knows a worker until its own row is in the list. How often to look for it: seconds between the tries, and tries.
_LISTED_S, _LISTED_TRIES = 0.1, 50
#: A worker that did not run, or had no contact, is a newcomer again. How often it looks whether that happened, and how
#: long it must have been away, seconds.
_WATCH_S, _AWAY_S = 5.0, 20.0
#: The most notes that are copied from one group, and at a time; records are read in slices of at most so many, and about
#: so many bytes.
_NOTES, _PAGE, _SLICE, _SLICE_BYTES = 10_000, 1_000, 100, 1_000_000


class Newcomer:
    """One worker in one shard. Asks nothing more once it is known."""

    def __init__(
        self, store: Store, keys: ShardKeys, worker: str, tasks: Iterable[str], group: str,
        found: Callable[[], None], contact: Contact | None = None, lookout: Lookout | None = None,
    ) -> None:  # fmt: skip
        """found: called when there is something to claim. contact: that with this shard. lookout: what reads for all shards."""
        self._store = store
        self._keys = keys
        self._worker = worker
        self._tasks = frozenset(tasks)
        self._group = group
        self._found = found
        self._contact = contact
        self._lookout = lookout or Lookout(store)
        self._sayer = Sayer(log)

    @property
    def queue(self) -> str:
        """The queue it comes to."""
        return self._keys.name

    async def run(self) -> None:
        """Look now and once more, and again after each time away, until cancelled."""
        while True:
            breaks = self._breaks
            await self._arrive()
            away = False
            while not away:
                before = time.monotonic()
                await asyncio.sleep(_WATCH_S)
                away = time.monotonic() - before > _WATCH_S + _AWAY_S or self._breaks != breaks

    @property
    def _breaks(self) -> int:
        return 0 if self._contact is None else self._contact.breaks

    async def _arrive(self) -> None:
        failures = looks = 0
        while looks < 2:
            try:
                await self.take_offers()
            except BrokerError as error:
                failures += 1
                self._sayer.say(
                    logging.INFO, "away", "queue %s: cannot ask yet which jobs are offered to other workers: %s",
                    self._keys.name, error,
                )  # fmt: skip
                await asyncio.sleep(pause_s(failures))
                continue
            except Exception as error:
                self._sayer.say(
                    logging.ERROR, repr(error)[:200], "queue %s: cannot read which jobs are offered to other workers: %r",
                    self._keys.name, error, trace=True,
                )  # fmt: skip
            looks += 1
            if looks < 2:
                await asyncio.sleep(_AGAIN_S)

    async def take_offers(self) -> None:
        """Claim also jobs that were offered to other workers: copy the offers of jobs whose task this worker knows."""
        for group in await self._others():
            await self._copy(group)
        await self._copy(NOBODY)

    async def _others(self) -> list[str]:
        """The groups of workers that know some task of ours, or knew it: the dead cannot take any more what was offered to them."""
        rows: dict[bytes, bytes] = {}
        for _ in range(_LISTED_TRIES):
            rows = await self._lookout.rows(self._keys)
            if self._worker.encode() in rows:
                break
            await asyncio.sleep(_LISTED_S)
        peers = [read_peer(row, None) for row in rows.values()]
        groups = {peer.group for peer in peers if peer is not None and peer.group and peer.tasks & self._tasks}
        groups.discard(self._group)
        return sorted(groups if len(groups) <= GROUPS_LIMIT else random.sample(sorted(groups), GROUPS_LIMIT))

    async def _copy(self, group: str) -> None:
        now_ms = self._store.session.clock.now_ms()
        for first in range(0, _NOTES, _PAGE):
            if await self._copy_page(group, now_ms, first) < _PAGE:
                return

    async def _copy_page(self, group: str, now_ms: int, first: int) -> int:
        """Copy some notes. Returns how many there were."""
        ask = (
            "ZRANGE",
            self._keys.offered(group),
            f"({now_ms}",
            "+inf",
            "BYSCORE",
            "LIMIT",
            first,
            _PAGE,
            "WITHSCORES",
        )
        (reply,) = await self._store.send([ask], each=True)
        if isinstance(reply, BrokerError):
            # The key holds another program's data. The workers that claim there say so.
            log.info(
                "queue %s: cannot read which jobs are offered to the workers %s: %s", self._keys.name, group, reply
            )
            return 0
        rows = flat(reply)
        notes = [(note, until) for note, until in rows if score_ms(until) is not None]
        start, step = 0, 8
        while start < len(notes):
            part = notes[start : start + step]
            start += step
            asks: list[tuple[Any, ...]] = [("HMGET", self._keys.jobs, *(note.split(b" ")[0] for note, _ in part))]
            (records,) = await self._store.send(asks)
            known = [
                word
                for (note, until), raw in zip(part, records, strict=True) if raw is not None and self._knows(raw)
                for word in (score_ms(until), note)
            ]  # fmt: skip
            if known:
                await self._store.send([("ZADD", self._keys.offered(self._group), *known)])
                self._found()
            size = sum(len(raw) for raw in records if raw is not None)
            step = min(_SLICE, 2 * step) if size < _SLICE_BYTES else max(1, step // 4)
        return len(rows)

    def _knows(self, raw: bytes) -> bool:
        try:
            return task_and_body(raw)[0].decode() in self._tasks
        except (ValueError, LookupError):
            return False
