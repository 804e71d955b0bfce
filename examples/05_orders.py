"""The orders of the demo: each is to be cancelled at its own time, unless it is paid before.

    python examples/05_orders.py [N]     # the first N lines of orders.jsonl; 150 without it

`zwheel demo` does the same with all of them, two worker processes, and a SIGKILL in the middle.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path

from playground import private_server, worker

from zwheel import Wheel

ORDERS = Path(__file__).with_name("orders.jsonl")

wheel = Wheel()
unpaid: dict[str, str] = {}
cancelled: list[str] = []


@wheel.task(name="orders.cancel_unpaid", queue="orders")
async def cancel_unpaid(order: str, customer: str, amount: str, currency: str, placed_at: str) -> None:
    if unpaid.pop(order, None) is None:
        return
    cancelled.append(order)
    if len(cancelled) <= 3:
        print(f"cancelled {order} of {customer}: {amount} {currency} were not paid")


async def enqueue(lines: list[str], url: str) -> None:
    """Pipe the lines into the shell's command, as `head orders.jsonl | zwheel enqueue --jsonl -` does."""
    command = [sys.executable, "-m", "zwheel.cli", "enqueue", "--jsonl", "-"]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, env={**os.environ, "ZWHEEL_URL": url}
    )
    await process.communicate("".join(lines).encode())
    if process.returncode:
        sys.exit(process.returncode)


async def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 150
    lines = ORDERS.read_text(encoding="utf-8").splitlines(keepends=True)[:count]
    numbers = [line.split('"order": "')[1].split('"')[0] for line in lines]
    unpaid.update(dict.fromkeys(numbers, "unpaid"))

    with private_server() as url:
        wheel.configure(url=url)
        async with wheel, worker(wheel, "orders"):
            await enqueue(lines, url)
            paying = random.Random(7).sample(numbers, len(numbers) // 4)
            for order in paying:
                del unpaid[order]
            for order in numbers:
                await wheel.wait(f"cancel-{order}", "orders", timeout=60)
    print(f"{len(numbers)} orders: {len(paying)} were paid, {len(cancelled)} cancelled, {len(unpaid)} forgotten")


if __name__ == "__main__":
    asyncio.run(main())
