"""The rounds of a worker in a fleet that spares: it looks in turn at the shards that it does not wait for.

Those that wait for a shard may all be full, or dead, while this worker has room. So it looks at one shard more every few beats.
Where it finds that a job is overdue, or that nobody has a role, there may be other such shards: then it looks at twice as many
on each beat, until it finds none.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from zwheel.broker.store import Store
from zwheel.outside import Sayer, escaped

from .lookout import BEAT_S, Lookout
from .poller import Poller
from .summons import Summons

log = escaped("zwheel.worker")

#: A worker looks at one shard every so many beats, and all workers together at each shard not more often than so, seconds.
BEATS, TOGETHER_S = 8, 0.9


@dataclass(slots=True)
class _Round:
    """That of one queue."""

    #: Beats until the next look, how many shards it is for, and where in the turn they begin.
    beats: float = field(default_factory=lambda: random.uniform(0, BEATS))
    most: int = 1
    begin: int = field(default_factory=lambda: random.randrange(1 << 16))
    #: Those that were looked at last, and the alarms of each before.
    asked: list[tuple[Poller, int]] = field(default_factory=list)
    #: Whether each poller was listening.
    listens: dict[Poller, bool] = field(default_factory=dict)


class Rounds:
    """Those of one worker. Belongs to the event loop."""

    def __init__(
        self, store: Store, lookout: Lookout, pollers: Callable[[], Sequence[Poller]], full: Callable[[], bool]
    ) -> None:  # fmt: skip
        """pollers: those of all shards that the worker serves now. full: whether it has no room."""
        self._lookout = lookout
        lookout.on_learned = self._heed_all
        self._pollers = pollers
        self._full = full
        self._summons = Summons(store)
        self._rounds: dict[str, _Round] = {}
        self._sayer = Sayer(log)

    async def run(self) -> None:
        """Make them until cancelled."""
        try:
            while True:
                try:
                    self.turn()
                except Exception as error:
                    self._sayer.say(
                        logging.ERROR, repr(error)[:200], "the rounds of this worker failed; they go on: %r", error, trace=True
                    )  # fmt: skip
                await asyncio.sleep(BEAT_S)
        finally:
            self._summons.close()

    def turn(self) -> None:
        """What one beat asks for."""
        queues: dict[str, list[Poller]] = {}
        for poller in self._pollers():
            queues.setdefault(poller.keys.workers, []).append(poller)
        self._rounds = {name: self._rounds.get(name) or _Round() for name in queues}
        for name, pollers in queues.items():
            self._lookout.learn(pollers[0].keys)
            self._heed(self._rounds[name], pollers)
            self._look(self._rounds[name], pollers)
        if self._full():
            self._summons.turn([poller for poller in self._pollers() if poller.looks.sees_to])
        else:
            self._summons.rest()

    def _heed_all(self) -> None:
        """Others may be the ones that listen, by now."""
        for one in self._rounds.values():
            self._heed(one, list(one.listens))

    def _heed(self, one: _Round, pollers: Sequence[Poller]) -> None:
        now = {poller: poller.listens for poller in pollers}
        for poller, listens in now.items():
            if listens and not one.listens.get(poller):
                # It rests without its tokens until it is told.
                poller.kick()
        one.listens = now

    def _look(self, one: _Round, pollers: Sequence[Poller]) -> None:
        if any(poller.looks.alarms > before for poller, before in one.asked):
            one.most, one.beats = 2 * one.most, 0.0
        elif one.asked:
            one.most = max(1, one.most // 2)
        one.asked = []
        one.beats -= 1
        far = [poller for poller in pollers if poller.looks.in_turn]
        if one.beats > 0 or not far:
            return
        fleet, shards = self._lookout.fleet(pollers[0].keys), len(pollers)
        one.beats = 1.0 if one.most > 1 else max(BEATS, TOGETHER_S / BEAT_S * fleet.size / shards)
        one.most, one.begin = min(one.most, len(far)), one.begin % len(far)
        for poller in [*far, *far][one.begin : one.begin + one.most]:
            one.asked.append((poller, poller.looks.alarms))
            poller.look()
        one.begin += one.most
