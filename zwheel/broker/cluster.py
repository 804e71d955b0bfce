"""Which node of a Redis Cluster a command goes to. No I/O here: `nodes` carries what `routed` asks for.

All keys of a call share a hash tag, so each call goes to one node. What a node answers is followed: MOVED for good, ASK for
this once. TRYAGAIN, CLUSTERDOWN and a node that does not answer are left to the one retry loop, that of the store.
"""

from __future__ import annotations

import binascii
import random
from collections.abc import Generator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from hiredis import pack_command
from redis import exceptions as client_errors

from zwheel.broker.address import Address, place
from zwheel.broker.errors import ConnectFailed, Misdirected, NoPrimary, why
from zwheel.calls.call import Call
from zwheel.calls.waits import WAITS

SLOTS = 16_384
Node = tuple[str, int]
Command = Call | tuple[Any, ...]
#: How often one exchange is sent on, because nodes say that something lies elsewhere, before the retry loop has a pause.
MOST_HOPS = 6
#: In a cursor of SCAN that a caller gets: which primary it belongs to, counted from 0.
_PRIMARIES = 4096
#: Commands without a key: they go where the others of their exchange go, else to any primary.
_KEYLESS = frozenset(
    {"ACL", "CLIENT", "CLUSTER", "CONFIG", "ECHO", "INFO", "PING", "SCAN", "SCRIPT", "TIME", "WAIT", "WAITAOF"}
)


def slot_of(key: str | bytes) -> int:
    """The slot of a key: the CRC16 of its hash tag, or of all of it."""
    return _slot(key.encode() if isinstance(key, str) else bytes(key))


@lru_cache(maxsize=4096)
def _slot(key: bytes) -> int:
    start = key.find(b"{")
    end = key.find(b"}", start + 1) if start >= 0 else -1
    return binascii.crc_hqx(key[start + 1 : end] if end > start + 1 else key, 0) % SLOTS


class Topology:
    """What is known of a cluster: who has which slot. All stores and listeners of one URL share it, in all threads."""

    def __init__(self, address: Address) -> None:
        self.address = address
        #: The node of each slot.
        self._owners: list[Node | None] = [None] * SLOTS
        #: Every node that has slots, always in the same order.
        self.primaries: list[Node] = []
        #: All nodes, replicas included: any of them can tell who has what.
        self._nodes: tuple[Node, ...] = ()
        #: Nodes that did not answer lately: they are asked last.
        self._silent: set[Node] = set()
        #: The nodes that answer, the last one last: it is asked first, and gets what any node can answer.
        self._heard: dict[Node, None] = {}
        #: Where commands go while nobody may ask for the slots: this user lacks the right.
        self._guess: Node | None = None
        #: Whether slots were seen to move, or nodes to vanish, since `learn`.
        self.stale = True

    def owner(self, slot: int) -> Node | None:
        """The node that has a slot, as far as it is known."""
        return self._owners[slot] or self._guess

    def candidates(self) -> list[Node]:
        """Whom to ask about the cluster, in this order: known nodes, the hosts of the URL, those that were silent."""
        known = list(self._nodes)
        random.shuffle(known)
        places = list(dict.fromkeys([*reversed(list(self._heard)), *known, *self.address.hosts]))
        return sorted(places, key=lambda node: node in self._silent)

    def any_primary(self) -> Node | None:
        """A primary for what any node can answer: the one that answered last."""
        primaries = self.primaries
        heard = [node for node in reversed(list(self._heard)) if node in primaries]
        return next(iter([*heard, *(node for node in primaries if node not in self._silent), *primaries]), None)

    def heard(self, node: Node) -> None:
        """A node answered."""
        self._heard.pop(node, None)
        self._heard[node] = None
        self._silent.discard(node)

    def learn(self, reply: Sequence[Any], asked: Node) -> None:
        """Take in the answer to CLUSTER SLOTS."""
        owners: list[Node | None] = [None] * SLOTS
        nodes: list[Node] = []
        for first, last, *places in reply:
            found = [node_of(one[0], one[1], asked) for one in places]
            nodes += found
            owners[int(first) : int(last) + 1] = [found[0]] * (int(last) + 1 - int(first))
        self._guess, self.stale = None, False
        self._own(owners)
        self._nodes = tuple(dict.fromkeys(nodes))
        self.heard(asked)

    def guess(self, node: Node) -> None:
        """Send everything there first: this user may not ask for the slots, and each MOVED tells of one."""
        self._guess, self.stale = node, False
        self._own(self._owners)

    def moved(self, error: client_errors.MovedError, asked: Node) -> None:
        """Take in that a slot is elsewhere."""
        node = node_of(error.host, error.port, asked)
        if self._owners[error.slot_id] != node:
            self._own([node if slot == error.slot_id else owner for slot, owner in enumerate(self._owners)])
        if node not in self._nodes:
            self._nodes = (*self._nodes, node)
        self.stale = self._guess is None

    def forget(self, node: Node) -> None:
        """A node did not answer: what it had may be elsewhere by now."""
        self._guess = None if self._guess == node else self._guess
        self._own([None if owner == node else owner for owner in self._owners])
        self._silent.add(node)
        self._heard.pop(node, None)
        self.stale = True

    def _own(self, owners: list[Node | None]) -> None:
        self._owners = owners
        self.primaries = sorted({node for node in (*owners, self._guess) if node is not None})


def node_of(host: Any, port: Any, asked: Node) -> Node:
    """A node as others name it. A node that does not know its own address names none: it is where it was asked."""
    name = host.decode() if isinstance(host, bytes) else str(host or "")
    return (asked[0] if name in ("", "?", "None") else name, int(port))


_topologies: dict[str, Topology] = {}


def topology_of(url: str, address: Address) -> Topology:
    """What this process knows of the cluster of a URL."""
    return _topologies.get(url) or _topologies.setdefault(url, Topology(address))


class Batch(NamedTuple):
    """Commands for one node, to be sent in one round trip."""

    node: Node
    packed: bytes
    places: list[int]
    """Where each reply belongs among those of the exchange; -1: nowhere."""


#: Yields what to send, to each node side by side; is sent the replies of each, or what went wrong.
Routed = Generator[list[Batch], list[list[Any] | Exception], list[Any]]


class _Item(NamedTuple):
    """One command that is still to be answered."""

    at: int
    """Where it stands in the exchange."""
    node: Node | None = None
    """Where a node said that it is to go, for this once."""
    asking: bool = False
    load: bool = False


def routed(topology: Topology, commands: Sequence[Command]) -> Routed:
    """Send commands to the nodes that have their keys; gives their replies in order, errors among them.

    A node that fails is the reply of each of its commands, as long as others answer. Raises: what the nodes raised when
    none answered, else NoPrimary, Misdirected.
    """
    if topology.stale:
        yield from _discover(topology)
    replies: list[Any] = [None] * len(commands)
    left = []
    for at, command in enumerate(commands):
        if _is_past(topology, command):
            replies[at] = [0, []]
        else:
            left.append(_Item(at))
    failed: list[Exception] = []
    answered = False
    for hop in range(MOST_HOPS + 1) if left else ():
        batches = _batches(topology, commands, left)
        if batches is None:
            yield from _discover(topology)
            batches = _batches(topology, commands, left)
            if batches is None:
                raise NoPrimary("no node of the cluster has the slot of this key")
        results = yield batches
        left = []
        for batch, result in zip(batches, results, strict=True):
            if isinstance(result, Exception):
                if not isinstance(result, client_errors.MaxConnectionsError):
                    topology.forget(batch.node)
                error = _told_of(result, batch.node)
                failed.append(error)
                result = [error] * len(batch.places)
            else:
                answered = True
                topology.heard(batch.node)
            for at, reply in zip(batch.places, result, strict=True):
                if at >= 0:
                    replies[at] = reply
                    again = _again(topology, commands[at], reply, at, batch) if hop < MOST_HOPS else None
                    left += [again] if again else []
        if not left:
            break
        # They speak of what is sent before them, on the same connection.
        left += [_Item(at, left[-1].node) for at, command in enumerate(commands) if command[0] in WAITS]
    if failed and not answered:
        # Where one request may have been carried out, that is what the caller must know.
        raise next((error for error in failed if not isinstance(error, (NoPrimary, ConnectFailed))), failed[0])
    return [_whole(command, reply, topology) for command, reply in zip(commands, replies, strict=True)]


def _batches(topology: Topology, commands: Sequence[Command], left: Sequence[_Item]) -> list[Batch] | None:
    """Group what is left by its nodes; None when the node of something is not known."""
    usual = next((key for command in commands if (key := _key(command)) is not None), None)
    packed: dict[Node, list[bytes]] = {}
    places: dict[Node, list[int]] = {}
    loaded: set[tuple[Node, str]] = set()
    for item in left:
        command = commands[item.at]
        node = item.node or _goes_to(topology, command, usual)
        if node is None:
            return None
        parts, its = packed.setdefault(node, []), places.setdefault(node, [])
        if item.load and isinstance(command, Call) and (node, command.script.sha) not in loaded:
            loaded.add((node, command.script.sha))
            parts.append(_packed("SCRIPT", "LOAD", command.script.source))
            its.append(-1)
        if item.asking:
            parts.append(_packed("ASKING"))
            its.append(-1)
        parts.append(_packed(*_words(command)))
        its.append(item.at)
    return [Batch(node, b"".join(parts), places[node]) for node, parts in packed.items()]


def _packed(*words: Any) -> bytes:
    packed: bytes = pack_command(words)
    return packed


def _key(command: Command) -> str | bytes | None:
    """A key of a command; None when it has none."""
    if isinstance(command, Call):
        return command.keys[0]
    if command[0] == "EVALSHA":
        return command[3] if int(command[2]) else None
    return None if command[0] in _KEYLESS or len(command) == 1 else command[1]


def _goes_to(topology: Topology, command: Command, usual: str | bytes | None) -> Node | None:
    key = _key(command)
    if key is None and command[0] == "SCAN":
        primaries, number = topology.primaries, place_of(int(command[1]))
        return primaries[number] if number < len(primaries) else None
    key = usual if key is None else key
    if key is None:
        return topology.any_primary()
    return topology.owner(slot_of(key))


def _is_past(topology: Topology, command: Command) -> bool:
    """Whether it is a SCAN behind the last node."""
    if isinstance(command, Call) or command[0] != "SCAN" or not topology.primaries:
        return False
    return place_of(int(command[1])) >= len(topology.primaries)


def place_of(cursor: int) -> int:
    """Which of the nodes a SCAN with this cursor goes to, counted from 0."""
    return cursor % _PRIMARIES


def next_node(cursor: int) -> int:
    """The cursor of a SCAN that passes over the node where this cursor is, since that gives no answer."""
    return place_of(cursor) + 1


def _words(command: Command) -> Sequence[Any]:
    if isinstance(command, Call):
        return command.command()
    if command[0] == "SCAN":
        return ("SCAN", int(command[1]) // _PRIMARIES, *command[2:])
    return command


def _whole(command: Command, reply: Any, topology: Topology) -> Any:
    """A reply as one server would give it: SCAN goes on with the next primary where one has no more."""
    if isinstance(command, Call) or command[0] != "SCAN" or isinstance(reply, Exception):
        return reply
    cursor, number = int(reply[0]), place_of(int(command[1]))
    if cursor == 0:
        number = number + 1 if number + 1 < len(topology.primaries) else 0
    return [cursor * _PRIMARIES + number, reply[1]]


def _again(topology: Topology, command: Command, reply: Any, at: int, batch: Batch) -> _Item | None:
    """What is to be sent once more, and how; None: the reply stands."""
    if not isinstance(reply, Exception):
        return None
    if isinstance(reply, client_errors.AskError):
        return _Item(at, node_of(reply.host, reply.port, batch.node), asking=True)
    if isinstance(reply, client_errors.MovedError):
        topology.moved(reply, batch.node)
        return _Item(at)
    if isinstance(reply, client_errors.NoScriptError) and isinstance(command, Call):
        # Sent with ASKING, since it may have come by that way; who has the slot for good takes no notice.
        return _Item(at, batch.node, asking=True, load=True)
    if isinstance(reply, (client_errors.ClusterDownError, client_errors.MasterDownError)):
        topology.stale = True
    return None


def _discover(topology: Topology) -> Generator[list[Batch], list[list[Any] | Exception], None]:
    """Ask one node after the other who has which slot. Raises: NoPrimary, Misdirected, or why no node lets us in."""
    silent: dict[str, list[str]] = {}
    refusal: Exception | None = None
    for node in topology.candidates():
        (result,) = yield [Batch(node, _packed("CLUSTER", "SLOTS"), [-1])]
        if isinstance(result, Exception):
            topology.forget(node)
            silent.setdefault(why(result), []).append(place(*node))
            refusal = refusal or (None if _is_away(result) else result)
            continue
        (reply,) = result
        if isinstance(reply, client_errors.NoPermissionError):
            topology.guess(node)
            return
        if isinstance(reply, client_errors.ResponseError) and "cluster support disabled" in str(reply):
            refusal = Misdirected(f"{place(*node)} is no node of a cluster: write {topology.address.at(*node)}")
            continue
        if isinstance(reply, client_errors.ResponseError) and "unknown command" in str(reply).lower():
            sentinel = topology.address.at(*node).instead("sentinel")
            refusal = Misdirected(f"{place(*node)} does not know CLUSTER: if it is a sentinel, write {sentinel}")
            continue
        if isinstance(reply, list) and reply:
            topology.learn(reply, node)
            return
        silent.setdefault("it knows no node with slots", []).append(place(*node))
    told = "; ".join(f"{', '.join(places)}: {reason}" for reason, places in silent.items())
    raise refusal or NoPrimary(f"none of the nodes answers, {told}")


def _is_away(error: Exception) -> bool:
    """Whether a node was not reached at all, which may be told in our own words."""
    link: BaseException | None = error
    while link is not None:
        if type(link).__module__ == "ssl" or isinstance(
            link, (client_errors.AuthenticationError, client_errors.InvalidResponse)
        ):
            return False
        link = link.__cause__ or link.__context__
    return isinstance(error, ConnectFailed)


def _told_of(error: Exception, node: Node) -> Exception:
    if not _is_away(error):
        return error
    told = NoPrimary(f"the node {place(*node)}: {why(error)}")
    told.__cause__ = error
    return told
