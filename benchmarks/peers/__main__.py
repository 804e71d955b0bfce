"""The one command: `python -m benchmarks.peers`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from typing import Any

from rich.console import Console

from benchmarks.machine import Placement, Server, describe, server_program
from zwheel import __version__

from .environments import Unavailable, cache, command
from .measure import Bench, Failed, versions
from .report import Result, table
from .table import OURS, OURS_BLOCKING, PEERS, WHAT, Peer

_ALL = (OURS, OURS_BLOCKING, *PEERS)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers", description="Measure the same work by zwheel and by its peers, in turns.",
        epilog=f"Each peer is installed once into an environment of its own below {cache()}.",
    )  # fmt: skip
    parser.add_argument("--list", action="store_true", help="list the peers with their versions and adapters, and end")
    parser.add_argument(
        "--peer", action="append", metavar="NAME", help="this one only; may be repeated; zwheel: beside itself"
    )
    parser.add_argument(
        "--what", default=",".join(WHAT), metavar="LIST", help=f"some of {','.join(WHAT)} (default all)"
    )
    parser.add_argument(
        "--jobs", type=int, default=20_000, help="jobs of a run; slower peers get fewer (default 20000)"
    )
    parser.add_argument("--delayed", type=int, default=2_000, help="delayed jobs, 100 a second (default 2000)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each rate (default 3); lateness has one")
    parser.add_argument(
        "--python", action="append", default=[], metavar="PATH", help="a newer Python, for peers that need it"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON document instead of the table")
    parser.add_argument("--socket", action="store_true", help="reach Redis over a Unix socket, not loopback TCP")
    parser.add_argument("--server", metavar="PATH", help="the redis-server or valkey-server to run")
    parser.add_argument("--no-pin", action="store_true", help="leave the placement on CPUs to the system")
    given = parser.parse_args()
    given.what = given.what.split(",")
    for kind, named, there in (
        ("peer", given.peer or [], [peer.name for peer in (OURS, *PEERS)]),
        ("what", given.what, WHAT),
    ):
        if unknown := [name for name in named if name not in there]:
            parser.error(f"--{kind}: unknown {', '.join(unknown)}; there are {', '.join(there)}")
    if min(given.rounds, given.jobs, given.delayed) < 1:
        parser.error("--rounds, --jobs and --delayed must be at least 1")
    return given


class Run:
    """All that was asked for, round by round. What a peer cannot do is a sentence, and the others go on."""

    def __init__(self, given: argparse.Namespace, errors: Console) -> None:
        self._given = given
        self._errors = errors
        self.results = {peer.name: Result() for peer in _ALL if self._asked(peer)}
        self._commands: dict[str, list[str]] = {}

    def all(self, placement: Placement) -> None:
        """Install, then measure."""
        given = self._given
        for peer in _ALL:
            if self._asked(peer):
                self._install(peer)
        there = [peer for peer in PEERS if peer.name in self._commands]
        if OURS.name in (given.peer or ()):
            there.insert(0, OURS)
        with Server(server_program(given.server), placement.server, unix=given.socket) as server:
            bench = Bench(server, placement, given.jobs, given.delayed)
            for what in given.what:
                for number in range(1 if what == "lateness" else given.rounds):
                    for peer in dict.fromkeys([OURS, *there]) if what == "lateness" else there:
                        if what == "bulk" and not peer.bulk:
                            continue
                        self._say(f"{what}, round {number + 1}: {peer.name}")
                        if what == "lateness":
                            self._late(bench, peer)
                        else:
                            self._pair(bench, peer, what)

    def _asked(self, peer: Peer) -> bool:
        named = self._given.peer or [peer.name for peer in PEERS]
        blocking = any(other.blocking for other in PEERS if other.name in named)
        return peer is OURS or peer.name in named or (peer is OURS_BLOCKING and blocking)

    def _say(self, text: str) -> None:
        self._errors.print(text, style="dim", highlight=False, markup=False)

    def _install(self, peer: Peer) -> None:
        result = self.results[peer.name]
        try:
            self._commands[peer.name] = found = command(peer, self._given.python)
        except Unavailable as why:
            self._fail(peer, f"not measured, {why}")
        else:
            result.version = versions(found, peer) if peer.requirements else __version__

    def _fail(self, peer: Peer, why: str) -> None:
        self.results[peer.name].failed.append(why)
        self._say(f"{peer.name}: {why}")

    def _pair(self, bench: Bench, peer: Peer, what: str) -> None:
        """zwheel, then the peer: the two met the same neighbours on the machine."""
        mine = OURS_BLOCKING if peer.blocking and what != "drain" else OURS
        asked = mine
        try:
            ours = bench.rate(mine, self._commands[mine.name], what)
            if peer is not OURS:
                self.results[mine.name].rates[what].append((ours, ours))
            asked = peer
            theirs = bench.rate(peer, self._commands[peer.name], what)
        except Failed as why:
            self._fail(asked, f"{what}: {why}")
            return
        self.results[peer.name].rates[what].append((ours, theirs))
        self._say(f"  {theirs.jobs_s:,.0f} jobs/s beside {ours.jobs_s:,.0f}, ratio {ours.jobs_s / theirs.jobs_s:.1f}")

    def _late(self, bench: Bench, peer: Peer) -> None:
        try:
            found = bench.lateness(self._commands[peer.name])
        except Failed as why:
            self._fail(peer, f"lateness: {why}")
            return
        self.results[peer.name].lateness = found
        self._say(f"  p50 {found.p50:.2f}, p99 {found.p99:.2f} ms, {found.early} early, {found.missing} missing")


def _list(console: Console) -> None:
    for peer in PEERS:
        kind = "Node" if peer.node else f"Python {'.'.join(map(str, peer.python))}+"
        console.print(
            f"{peer.name:10} {' '.join(peer.requirements)}  ({kind})", highlight=False, markup=False, soft_wrap=True
        )


def main() -> int:
    """0, or 1 when nothing was measured."""
    given = _arguments()
    out = Console(width=None if sys.stdout.isatty() else 150)
    if given.list:
        _list(out)
        return 0
    placement = Placement.choose(pin=not given.no_pin)
    machine = describe(server_program(given.server), placement)
    started = time.time()
    run = Run(given, Console(stderr=True))
    run.all(placement)
    if given.json:
        document: dict[str, Any] = {
            "machine": machine, "started_ms": int(started * 1000), "took_s": round(time.time() - started, 1),
            "transport": "unix" if given.socket else "tcp", "jobs": given.jobs, "delayed": given.delayed,
            "peers": {name: asdict(result) | {"ratios": result.ratios()} for name, result in run.results.items()},
        }  # fmt: skip
        print(json.dumps(document, indent=2))
    else:
        table(run.results, machine, out)
    return 0 if any(result.measured for result in run.results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
