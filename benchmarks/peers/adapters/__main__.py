"""`PYTHON -m benchmarks.peers.adapters PEER WHAT SPEC`: one piece of work by one peer, in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from importlib import import_module

from .harness import Adapter, Spec, clocks, marks, since


async def _produce(adapter: Adapter, what: str, spec: Spec) -> dict[str, float]:
    await adapter.open()
    try:
        enqueue = adapter.bulk if what == "bulk" or (what == "fill" and adapter.has_bulk) else adapter.one
        if what != "fill":
            await enqueue(spec.warm)
        began = clocks()
        if what == "schedule":
            await adapter.at(spec.dues())
        else:
            await enqueue(spec.jobs)
        return since(began)
    finally:
        await adapter.close()


def main() -> None:
    """Run the worker until it is ended from outside, or print how long it took to enqueue, as JSON."""
    name, what, text = sys.argv[1:]
    spec = Spec(**json.loads(text))
    adapter: Adapter = import_module(f".{name}", __package__).Peer(spec)
    if what == "worker":
        marks.expect(spec)
        adapter.work()
    else:
        print(json.dumps(asyncio.run(_produce(adapter, what, spec))), flush=True)
        # The work is done and said. How an interpreter and its extensions end is not what is measured.
        os._exit(0)


if __name__ == "__main__":
    main()
