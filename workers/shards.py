"""What a worker has for each shard that it serves, in one place. A shard is begun with `add` and ended with `drop`, also
while the worker runs; everything else here is per worker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from zwheel.broker.store import Listener, Store
from zwheel.client.registry import Registry
from zwheel.keys import ShardKeys

from .claims import Observer, Slots
from .contact import Contact, say_jumps
from .ear import Ear, own_list
from .lookout import Lookout
from .newcomer import Newcomer
from .parts import end_parts
from .peers import Peers
from .poller import Poller
from .reaper import Reaper
from .rounds import Rounds
from .runner import Runner
from .scheduler import Scheduler
from .settings import WorkerSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One shard, as this worker serves it."""

    keys: ShardKeys
    contact: Contact
    peers: Peers
    scheduler: Scheduler
    poller: Poller
    reaper: Reaper
    newcomer: Newcomer

    def parts(self) -> dict[str, Coroutine[Any, Any, None]]:
        """What runs for it until it is cancelled; the poller's ends when it was stopped and all is settled."""
        name = self.keys.name
        others = (self.reaper.run(), self.newcomer.run(), self.scheduler.run())
        return {**dict(zip(_others_of(name), others, strict=True)), _poller_of(name): self.poller.run()}


def _poller_of(shard: str) -> str:
    return f"poller of {shard}"


def _others_of(shard: str) -> tuple[str, ...]:
    return f"reaper of {shard}", f"newcomer to {shard}", f"scheduler of {shard}"


class Shards:
    """Those that a worker serves. Belongs to the event loop; `contacts` may be asked by any thread."""

    def __init__(
        self, store: Store, wheel: Registry, settings: WorkerSettings, worker: str, group: str, slots: Slots,
        observer: Observer | None, published: str = "",
    ) -> None:  # fmt: skip
        """Serves nothing yet. Needs its `runner` before the first shard. published: the group as other workers read it."""
        self._store = store
        self._wheel = wheel
        self._settings = settings
        self.worker = worker
        self._group = group
        self._slots = slots
        self._observer = observer
        self._sayer = say_jumps()
        self.runner: Runner | None = None
        self._shards: dict[str, Shard] = {}
        #: One for each queue that has several shards on one server. Any other poller hears for itself.
        self._ears: dict[tuple[str, int], Ear] = {}
        #: What runs, by its name; and set when there is more or less of it.
        self.parts: dict[str, asyncio.Task[None]] = {}
        self.changed = asyncio.Event()
        self._runs = False
        #: Called when a shard says that its queue was cut into another number of shards.
        self.on_cut: Callable[[], None] = lambda: None
        self._lookout = Lookout(store, worker, published)
        store.session.clock.on_jump = self._jumped

    def __iter__(self) -> Iterator[Shard]:
        return iter(list(self._shards.values()))

    @property
    def pollers(self) -> list[Poller]:
        """Those of all shards."""
        return [shard.poller for shard in self]

    def contacts(self) -> Mapping[ShardKeys, Contact]:
        """What is known of the contact with each shard."""
        return {shard.keys: shard.contact for shard in self}

    def peers_of(self, name: str) -> Peers | None:
        """The workers of a shard; None for one that is not served."""
        shard = self._shards.get(name)
        return None if shard is None else shard.peers

    def advance(self, name: str) -> None:
        """A schedule of a shard may have been written."""
        if (shard := self._shards.get(name)) is not None:
            shard.scheduler.kick()

    def follows(self, name: str) -> bool:
        """Whether others keep time for this shard, and look more often: this worker has nothing to do, or its fleet spares."""
        if name not in self._shards:
            return False
        looks = self._shards[name].poller.looks
        return looks.follows and (looks.spares or not self._slots.running)

    def add(self, keys: ShardKeys) -> None:
        """Serve a shard from now on, or from `start` on."""
        runner = self.runner
        assert runner is not None, "the worker has one"
        store, settings, follows = self._store, self._settings, partial(self.follows, keys.name)
        contact = Contact(settings, keys.name, self._sayer)
        scheduler = Scheduler(store, keys, self._wheel.codec, follows)
        poller = Poller(
            store, keys, settings, self.worker, self._slots, runner, self._observer, scheduler, contact.count,
            self._group, self._ear_of(keys), self._lookout,
        )  # fmt: skip
        poller.founding.on_cut = lambda: self.on_cut()
        poller.on_summons = self.look
        shard = self._shards[keys.name] = Shard(
            keys=keys, contact=contact, scheduler=scheduler, poller=poller,
            peers=Peers(store, keys, self.worker, self._group),
            reaper=Reaper(
                store, keys, settings, self._observer, contact, lambda: follows() and not poller.looks.sees_to, poller.claim,
                self._lookout,
            ),
            newcomer=Newcomer(store, keys, self.worker, self._wheel.tasks, self._group, poller.claim, contact, self._lookout),
        )  # fmt: skip
        if self._runs:
            self._begin(shard)

    async def drop(self, name: str) -> None:
        """Claim no more of a shard, and serve it until all that was claimed there is settled. Nothing of it is left then."""
        shard = self._shards[name]
        shard.poller.stop()
        last = self.parts.pop(_poller_of(name), None)
        self.changed.set()
        if last is not None:
            await last
        parts = [part for part in (self.parts.pop(one, None) for one in _others_of(name)) if part is not None]
        self.changed.set()
        del self._shards[name]
        await end_parts(parts)
        await shard.peers.aclose()
        which = shard.keys.queue, shard.keys.shards
        if which in self._ears:
            self._ears[which].remove(shard.poller)
            if not any((other.keys.queue, other.keys.shards) == which for other in self):
                await self._ears.pop(which).aclose()

    def _ear_of(self, keys: ShardKeys) -> Ear | None:
        if keys.shards == 1 or self._store.in_parts:
            return None  # A blocking command of a cluster has keys of one slot.
        which = keys.queue, keys.shards
        if which not in self._ears:
            self._ears[which] = Ear(self._store, Listener(self._store.url), keys.call(own_list()))
        return self._ears[which]

    def start(self) -> None:
        """Begin to serve."""
        self._runs = True
        if self._store.in_parts:
            self.parts["rounds"] = asyncio.create_task(self._rounds().run())
        for shard in self:
            self._begin(shard)

    def _rounds(self) -> Rounds:
        return Rounds(self._store, self._lookout, lambda: self.pollers, self._slots.full)

    def look(self, name: str) -> None:
        """Look at a shard now, if it is one of those that are served: a token named it."""
        if (shard := self._shards.get(name)) is not None:
            shard.poller.look()

    def _begin(self, shard: Shard) -> None:
        self.parts.update({name: asyncio.create_task(part) for name, part in shard.parts().items()})
        self.changed.set()

    def stop(self) -> asyncio.Future[list[Any]]:
        """Claim no more of any. Done when all that was claimed is settled, with what each poller ended with."""
        for poller in self.pollers:
            poller.stop()
        loops = [part for name, part in self.parts.items() if name.startswith(_poller_of(""))]
        return asyncio.gather(*loops, return_exceptions=True)

    def _jumped(self, by_us: int) -> None:
        """The clock of a server jumped; told from any thread."""
        for contact in self.contacts().values():
            contact.jumped(by_us)

    async def aclose(self) -> None:
        """Hear and look no more. Whatever runs is to be ended before."""
        await self._lookout.aclose()
        for ear in self._ears.values():
            await ear.aclose()
        await asyncio.gather(*(shard.peers.aclose() for shard in self))
