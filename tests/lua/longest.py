"""The CPU time of each script at the size of batch that zwheel sends, and at the most that a call may carry.

    python -m tests.lua.longest

`python -m benchmarks scripts` does this for the three most frequent ones while a million jobs lie there. Linux only.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from benchmarks.machine import Server, server_program
from zwheel.calls import BATCH_LIMIT
from zwheel.calls.scripts import NAMES

from .batches import prepare
from .shard import Shard

#: How many jobs a call of each has, where it is fewer than it may have; see `_BATCH` in `workers/` and `operations/act.py`.
SENT = {
    "enqueue": 250, "claim": 150, "settle": 150, "offer": 150, "reap": 100, "cancel": 1, "reschedule": 1, "redrive": 500,
    "purge": 500, "prune": 100, "advance": 20,
}  # fmt: skip
ROUNDS = 7


def spent_ms(server: Server) -> float:
    """How long the server's main thread was on a CPU so far."""
    own, _, _ = Path(f"/proc/{server.pid}/task/{server.pid}/schedstat").read_text(encoding="ascii").split()
    return int(own) / 1e6


def longest_ms(server: Server, name: str, size: int) -> float:
    """The longest of some calls, each on a shard made for it; the first one loads the script and does not count."""
    found = []
    with server.client() as client:
        for _ in range(ROUNDS):
            client.flushall()
            call = prepare(name, Shard(client, "redis"), size)
            sha = client.script_load(call.script.source)
            time.sleep(0.01)
            before = spent_ms(server)
            client.evalsha(sha, len(call.keys), *call.keys, *call.args)
            found.append(spent_ms(server) - before)
    return max(found[1:])


def main() -> None:
    """Print a line for each script."""
    with Server(server_program(None), frozenset(), unix=True) as server:
        for name in NAMES:
            sent = SENT.get(name, BATCH_LIMIT)
            sys.stdout.write(
                f"{name:11} {sent:5,} jobs {longest_ms(server, name, sent):6.2f} ms"
                f"   {BATCH_LIMIT:,} jobs {longest_ms(server, name, BATCH_LIMIT):6.2f} ms\n"
            )


if __name__ == "__main__":
    main()
