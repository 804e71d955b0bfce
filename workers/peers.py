"""The peers of a worker: which groups of living workers know a task that this one does not know.

Each worker publishes the names of its tasks beside its heartbeat; workers with the same names are one group. Nothing
that is read here is trusted: a row that is too long or not as it should be says nothing, and never ends a worker.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

from zwheel.broker.store import Store
from zwheel.calls import GROUPS_LIMIT
from zwheel.errors import BrokerError
from zwheel.keys import ShardKeys
from zwheel.operations.overview import MOST_NAMES, published_names
from zwheel.outside import escaped, flat
from zwheel.shell import allows, digest

log = escaped("zwheel.worker")

#: The group of no worker: what nobody knows is noted for it, and who comes later looks there.
NOBODY = "0" * 16

#: A list of the other workers is used for this long before it is read again, seconds.
FRESH_S = 1.0
#: A worker that names more tasks, or longer ones in all, names none: it may know any.
NAMES_LIMIT, NAMES_BYTES = MOST_NAMES, 32_768
_ROW_BYTES = 65_536
_GROUP = re.compile(r"[0-9a-f]{16}\Z")
#: How long a worker lives on after its last heartbeat, as a part of its lease, and at least, ms.
_LEAST_ALIVE_MS, _MOST_LEASE_MS = 60_000, 86_400_000
#: How soon, how often and how long it is looked whether a job that was offered was taken, seconds.
_LOOK_S = (0.3, 0.3, 0.9, 0.9, 0.9, 3.0, 5.0, 10.0, 10.0, 10.0, 10.0, 15.0)


class Peer(NamedTuple):
    """What one living worker says of itself."""

    group: str
    """'' when the worker does not say what it knows."""
    tasks: frozenset[str]
    allows: frozenset[str] = frozenset()
    """Digests of the commands that it allows."""
    stops: bool = False
    """Whether it claims no more, and only lets its jobs end."""

    def can_run(self, task: str, needs: frozenset[str]) -> bool:
        """Whether it knows the task and allows all that a command needs."""
        return task in self.tasks and allows(self.allows, needs)


def group_of(tasks: Iterable[str], entries: Iterable[str] = ()) -> str:
    """The group of workers that know just these tasks and allow just these commands."""
    return digest("\n".join([*sorted(tasks), *sorted(entries)]))


def about_tasks(tasks: Iterable[str], entries: Iterable[str] = ()) -> dict[str, object]:
    """What a worker publishes of its tasks, and of the commands that it allows."""
    names, digests = sorted(tasks), sorted(entries)
    if len(names) + len(digests) > NAMES_LIMIT or sum(map(len, names)) > NAMES_BYTES:
        return {}
    about: dict[str, object] = {"group": group_of(names, digests), "tasks": names}
    return about | {"allows": digests} if digests else about


def read_peer(raw: bytes, now_ms: int | None) -> Peer | None:
    """Read a row of `workers`; None for a worker that is not known to live. now_ms: None to read the row of a dead one too."""
    if len(raw) > _ROW_BYTES:
        return None
    try:
        row = json.loads(raw)
        beat = int(row["beat"])
        lease = row.get("lease", 0)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return None
    lease_ms = min(_MOST_LEASE_MS, lease) if isinstance(lease, int) and not isinstance(lease, bool) else 0
    alive_ms = max(_LEAST_ALIVE_MS, lease_ms)
    if now_ms is not None and not now_ms - alive_ms <= beat <= now_ms + alive_ms:
        return None
    group, tasks, entries = row.get("group"), published_names(row.get("tasks")), published_names(row.get("allows", []))
    if not isinstance(group, str) or not _GROUP.match(group) or tasks is None or entries is None:
        return Peer("", frozenset(), stops=row.get("stops") is True)
    return Peer(group, tasks, entries, row.get("stops") is True)


class Peers:
    """The living workers of one shard."""

    def __init__(self, store: Store, keys: ShardKeys, worker: str, group: str) -> None:
        self._store = store
        self._keys = keys
        self._worker = worker
        self._group = group
        self._known: list[Peer] = []
        self._read_at = 0.0
        self._reading: asyncio.Future[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        #: Groups that something was offered to and that may not have taken it yet.
        self._offered: set[str] = set()
        self._looks = 0
        self._news = asyncio.Event()

    async def who_know(self, task: str, needs: frozenset[str] = frozenset()) -> tuple[tuple[str, ...], bool]:
        """The groups that know a task and allow its command, and whether a worker that does not say what it knows may too.

        When Redis cannot be asked, somebody may.
        """
        if time.monotonic() - self._read_at > FRESH_S:
            try:
                await self._refresh()
            except BrokerError as error:
                log.info("queue %s: cannot read the list of workers: %s", self._keys.name, error)
                return (), True
        groups = sorted({peer.group for peer in self._known if peer.can_run(task, needs) and peer.group != self._group})
        if len(groups) > GROUPS_LIMIT:
            groups = sorted(random.sample(groups, GROUPS_LIMIT))
        return tuple(groups), any(not peer.group for peer in self._known)

    async def _refresh(self) -> None:
        """Read the list; calls that ask meanwhile wait for the same answer."""
        if self._reading is not None:
            await asyncio.shield(self._reading)
            return
        self._reading = asyncio.get_running_loop().create_future()
        try:
            (rows,) = await self._store.send([("HGETALL", self._keys.workers)])
            now_ms = self._store.session.clock.now_ms()
            own = self._worker.encode()
            found = (read_peer(raw, now_ms) for name, raw in flat(rows) if name != own)
            self._known = [peer for peer in found if peer is not None]
            self._read_at = time.monotonic()
        finally:
            self._reading.set_result(None)
            self._reading = None

    def offered(self, groups: Iterable[str]) -> None:
        """Something was offered: see to it that it is taken. A worker that is frozen may have got the token."""
        self._offered.update(groups)
        self._looks = 0
        self._news.set()
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._see_it_taken())

    async def _see_it_taken(self) -> None:
        while self._offered:
            try:
                if self._looks < len(_LOOK_S):
                    await self._pause(_LOOK_S[self._looks])
                    self._looks += 1
                    await self._call_again()
                else:
                    await self._tidy()
            except BrokerError as error:
                log.info(
                    "queue %s: cannot look after jobs that were offered to other workers: %s", self._keys.name, error
                )
                if self._looks >= len(_LOOK_S):
                    self._offered.clear()

    async def _pause(self, seconds: float) -> None:
        """Wait; when something more is offered meanwhile, no longer than for that."""
        self._news.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return
        await asyncio.sleep(_LOOK_S[0])

    async def _call_again(self) -> None:
        """Call again where something that was offered is left and no call lies there."""
        groups, keys = sorted(self._offered), self._keys
        asks: list[tuple[Any, ...]] = []
        for group in groups:
            asks += [("ZCARD", keys.offered(group)), ("LLEN", keys.call(group))]
        replies = await self._store.send(asks)
        calls: list[tuple[Any, ...]] = []
        for group, left, tokens in zip(groups, replies[::2], replies[1::2], strict=True):
            if not left:
                self._offered.discard(group)
            elif not tokens:
                # A token that lies there means that all of them are busy: each looks when it has room.
                calls.append(("RPUSH", keys.call(group), "1"))
        if calls:
            await self._store.send(calls)

    async def _tidy(self) -> None:
        """Take away what nobody took in its time, and the call of a group of which nobody lives."""
        await self._refresh()
        living = {peer.group for peer in self._known}
        now_ms = self._store.session.clock.now_ms()
        groups = sorted(self._offered)
        for group in groups:
            offered = self._keys.offered(group)
            (void,) = await self._store.send([("ZRANGE", offered, "-inf", now_ms, "BYSCORE", "LIMIT", 0, 1000)])
            asks: list[tuple[Any, ...]] = [("ZREM", offered, *void)] if void else []
            if group not in living:
                asks.append(("BLPOP", self._keys.call(group), "0.01"))
            if asks:
                await self._store.send(asks)
        if self._looks >= len(_LOOK_S):
            self._offered.difference_update(groups)

    async def aclose(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
