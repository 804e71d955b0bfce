"""The heartbeat: a thread with a connection of its own that renews every lease, also while a task blocks the event loop.

A claim is renewed until Redis has acknowledged its outcome: a job that ended and is not settled yet is still ours.

Each node of a cluster is beaten by itself, at the same time as the others: one that is dead or slow costs its own shards
their leases, and no other.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from zwheel import calls
from zwheel.broker.address import parse_url
from zwheel.broker.store import SyncStore
from zwheel.calls import BATCH_LIMIT, Reply
from zwheel.errors import BrokerError, BrokerFull, BrokerUnavailable, OutcomeUnknown
from zwheel.keys import ShardKeys
from zwheel.outside import Sayer, escaped

from .beside import Beside
from .claims import Claim, Stop
from .contact import Contact
from .parts import PartThread
from .runner import Runner
from .settings import WorkerSettings

log = escaped("zwheel.worker")

#: A lease is given up this much before it ends, as a part of it, when Redis cannot be asked.
_MARGIN = 0.1
#: How long a beat waits for the slowest of several nodes, as a part of the time between two beats.
_WAITS = 0.2
#: How often in a lease the event loop looks for claims that were not renewed.
_LOOKS = 20


class Heartbeat(PartThread):
    """Beats every third of a lease, all queues in one round trip. Tells the event loop of each claim that was lost."""

    def __init__(
        self,
        store: SyncStore,
        contacts: Callable[[], Mapping[ShardKeys, Contact]],
        settings: WorkerSettings,
        worker: str,
        runner: Runner,
        describe: Callable[[], dict[str, object]],
        on_beat: Callable[[], None] | None = None,
    ) -> None:
        """contacts: gives the shards that are served now, and what is known of the contact with each."""
        super().__init__("zwheel-heartbeat")
        self._store = store
        self._contacts = contacts
        self._settings = settings
        self._worker = worker
        self._runner = runner
        self._describe = describe
        #: The shards that got no good answer to the last beat: they are tried again sooner than the next beat of all is due.
        self._troubled: set[str] = set()
        self._due_ns = 0
        #: The shards whose node did not answer the last beat yet: nobody waits for it.
        self._under_way: set[str] = set()
        self._on_beat = on_beat
        self._woken = threading.Event()
        self._ending = False
        #: Whether the runner waits for the next beat.
        self._asked = False
        #: When the server of each shard was last seen to be away, monotonic ns.
        self._away_ns: dict[str, int] = {}
        #: Whether a task has blocked the event loop for so long that its outcomes are settled here.
        self.is_stuck: Callable[[], bool] = lambda: False
        self._sayer = Sayer(log)
        self.beside = Beside(store, runner, self._loop)

    def work(self) -> None:
        """Beat until `stop`."""
        interval = self._settings.beat_ms / 1000
        pause = 0.0
        while True:
            self._woken.wait(pause)
            if self._ending:
                return
            self._woken.clear()
            if self._on_beat is not None:
                self._on_beat()
            try:
                if self._beat() and (self.beside.owes or self.is_stuck()):
                    self.beside.settle()
                pause = (self._due_ns - time.monotonic_ns()) / 1e9
                if self._troubled:
                    pause = min(1.0, interval / 5) * random.uniform(0.5, 1.0)
            except BrokerError:
                pause = min(1.0, interval / 5) * random.uniform(0.5, 1.0)
            except Exception as error:
                self._sayer.say(
                    logging.ERROR, repr(error)[:200], "the heartbeat failed; it goes on: %r", error, trace=True
                )
                pause = interval / 5
            pause = max(0.0, pause)

    def kick(self) -> None:
        """Beat now: a job waits for its lease to be renewed, or the event loop is stuck."""
        self._asked = True
        self._woken.set()

    def _beat(self) -> bool:
        """Beat every node; between two beats of all, those that gave no good answer. Returns whether any answered well."""
        now_ns = time.monotonic_ns()
        asked, self._asked = self._asked, False
        every = asked or not self._troubled or now_ns >= self._due_ns
        if every:
            self._due_ns = now_ns + int(self._settings.beat_ms * random.uniform(0.9, 1.0) * 1e6)
        claims = self._young(now_ns)
        info = self._describe()
        info["beat"] = self._store.session.clock.now_ms()
        news = json.dumps(info)
        nodes: dict[object, tuple[list[ShardKeys], dict[str, None]]] = {}
        contacts = self._contacts()
        self._troubled.intersection_update([keys.name for keys in contacts])
        for keys in contacts:
            if keys.name not in self._under_way and (every or keys.name in self._troubled):
                nodes.setdefault(self._store.node_of(keys.meta), ([], {}))[0].append(keys)
                if every or keys.shard == 0:
                    nodes.setdefault(self._store.node_of(keys.workers), ([], {}))[1][keys.workers] = None
        beats = [
            partial(
                self._beat_node,
                {keys: contacts[keys] for keys in shards},
                claims,
                [("HSET", key, self._worker, news) for key in lists],
            )
            for shards, lists in nodes.values()
        ]
        if self._store.in_parts:
            self._side_by_side(beats)
        else:
            for one in beats:
                one()
        if asked:
            self._tell(self._runner.fill)
        return len(self._troubled) < len(contacts)

    def _side_by_side(self, beats: Sequence[Callable[[], None]]) -> None:
        """Beat several nodes. A node that takes its time is not waited for: the next beat of the others would be late."""
        threads = [threading.Thread(target=beat, name="zwheel-beat", daemon=True) for beat in beats]
        for thread in threads:
            thread.start()
        until = time.monotonic() + self._settings.beat_ms / 1000 * _WAITS
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _beat_node(
        self, contacts: Mapping[ShardKeys, Contact], claims: Sequence[Claim], told: Sequence[tuple[Any, ...]]
    ) -> None:
        """Renew what is held in shards of one node, and tell it of this worker; take in whether it answered."""
        names = [keys.name for keys in contacts]
        self._under_way.update(names)
        started_ns = time.monotonic_ns()
        error: BrokerError | None = None
        try:
            self._renew(list(contacts), claims, told)
        except BrokerError as trouble:
            error = trouble
        except Exception as fault:
            error = BrokerError(repr(fault))
            self._sayer.say(logging.ERROR, repr(fault)[:200], "the heartbeat failed; it goes on: %r", fault, trace=True)
        for contact in contacts.values():
            if isinstance(error, (BrokerUnavailable, OutcomeUnknown)):
                contact.lost()
            else:
                contact.heard(started_ns, 0 if error else self._store.opened)
        if server_is_away(error, self._store.url):
            self._away_ns.update(dict.fromkeys(names, time.monotonic_ns()))
        if error is None:
            self._troubled.difference_update(names)
        else:
            self._troubled.update(names)
        self._under_way.difference_update(names)

    def _renew(self, shards: Sequence[ShardKeys], claims: Sequence[Claim], told: Sequence[tuple[Any, ...]]) -> None:
        """Renew what is held in these shards, in as many round trips as it takes. Raises: BrokerError."""
        settings = self._settings
        batches: list[tuple[ShardKeys, Sequence[Claim]]] = []
        for keys in shards:
            mine = [claim for claim in claims if claim.queue == keys.name]
            # A worker with nothing to renew sends no extend: the claims of waiting workers show that workers reach Redis.
            batches += [(keys, mine[start : start + BATCH_LIMIT]) for start in range(0, len(mine), BATCH_LIMIT)]
        if shards and not batches and not told:
            # Whether a node answers is known of each of them.
            told = [("HGET", shards[0].meta, "schema")]
        refused: BrokerError | None = None
        while told or batches:
            sent_ns = time.monotonic_ns()
            extends = [
                calls.extend(
                    keys, [(claim.id, claim.token) for claim in batch],
                    lease_ms=settings.lease_ms, now=self._store.session.now,
                )
                for keys, batch in batches
            ]  # fmt: skip
            replies = self._store.send([*extends, *told], each=True)
            # One shard's trouble does not cost the others their leases. A full Redis renews leases, but takes no news
            # about this worker.
            for reply in replies:
                if isinstance(reply, BrokerError) and not isinstance(reply, BrokerFull):
                    refused = reply
            batches = [
                (keys, left)
                for (keys, batch), reply in zip(batches, replies, strict=False)
                if not isinstance(reply, BrokerError) and (left := self._read(batch, reply, sent_ns))
            ]
            told = []
        if refused is not None:
            raise refused

    def _young(self, now_ns: int) -> list[Claim]:
        """The claims to renew. A claim that is older than the longest time is given up: another worker shall try."""
        longest_ns = self._settings.longest_ms * 1_000_000
        young = []
        for claim in list(self._runner.held):
            if claim.ended or now_ns - claim.claimed_ns < longest_ns:
                young.append(claim)
            else:
                self._tell(self._runner.lost, claim)
        return young

    def _read(self, batch: Sequence[Claim], reply: Reply, sent_ns: int) -> list[Claim]:
        """Read an answer. Returns the claims that were left for another call: their records are large."""
        try:
            letters = calls.read_letters(reply) or ""
            left = [claim for claim, letter in zip(batch, letters, strict=True) if letter == "l"]
            if len(left) == len(batch):
                raise ValueError("nothing was renewed and all of it left for another call")
        except (BrokerError, ValueError, LookupError, TypeError) as error:
            # An answer that cannot be read renews none of these claims. All others go on.
            self._sayer.say(
                logging.ERROR, repr(error)[:200], "queue %s: the answer of Redis to a renewal of leases cannot be read: %r",
                batch[0].queue, error,
            )  # fmt: skip
            return []
        for claim, letter in zip(batch, letters, strict=True):
            if letter == "k":
                claim.leased_ns = sent_ns
            elif letter != "l" and not claim.ended:
                self._tell(self._runner.lost, claim)
        return left

    async def watch(self) -> None:
        """Stop, in time, jobs that were not renewed and may soon run elsewhere. Runs in the event loop, until cancelled.

        Not in the thread, which may hang on a network that swallows everything until long after a lease ended. Not
        while the server itself is away: then no one can claim, and after its return a grace period of one lease lets
        every worker renew first. And not before the heartbeat had its turn when this whole process did not run. What
        has not started need not be stopped: it does not start before it was renewed.

        Nothing is given up by that. When Redis answers before others have the job, what was stopped goes back unharmed.
        A function in a thread cannot be stopped: its job stays ours, and its lease is renewed, though late.
        """
        lease_ns = self._settings.lease_ms * 1_000_000
        limit_ns = int(lease_ns * (1 - _MARGIN))
        looked_ns = time.monotonic_ns()
        patience = 0
        while True:
            await asyncio.sleep(lease_ns / 1e9 / _LOOKS)
            now_ns = time.monotonic_ns()
            patience = 3 if now_ns - looked_ns > 4 * lease_ns // _LOOKS else max(0, patience - 1)
            looked_ns = now_ns
            if patience:
                continue
            for claim in list(self._runner.held):
                if claim.running is None or claim.ended or claim.stop is not None or claim.thread:
                    continue
                silent_ns = now_ns - max(claim.leased_ns, self._away_ns.get(claim.queue, 0))
                if silent_ns > limit_ns:
                    log.warning(
                        "job %s: Redis has not renewed its lease for %.1f s of %.1f s: it is stopped, since others may "
                        "have it soon", claim.job_id, silent_ns / 1e9, lease_ns / 1e9,
                    )  # fmt: skip
                    claim.cancel(Stop.SILENT)

    def _tell(self, what: Callable[..., None], *about: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(what, *about)

    def stop(self) -> None:
        """Beat no more; join it afterwards."""
        self._ending = True
        self._woken.set()


def is_near(url: str) -> bool:
    """Whether a server that refuses a connection is away for all: it is on this machine, and no route lies between."""
    address = parse_url(url)
    if address.scheme in ("unix", "memory"):
        return True
    return all(_is_loopback(host) for host, _ in address.hosts or ((address.host, address.port),))


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def server_is_away(error: BaseException | None, url: str) -> bool:
    """Whether the server runs for nobody: it is loading or busy with somebody's script, or refuses and is near.

    Elsewhere a refusal may come from a firewall or a proxy on this worker's own way to the server, which serves others.
    """
    refusals: tuple[type[BaseException], ...] = (ConnectionRefusedError,) if is_near(url) else ()
    if parse_url(url).scheme == "unix":
        refusals += (FileNotFoundError,)
    while error is not None:
        said = str(error)[:40].upper()
        if isinstance(error, refusals) or "LOADING" in said or said.startswith("BUSY "):
            return True
        error = error.__cause__ or error.__context__
    return False
