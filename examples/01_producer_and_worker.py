"""A producer and a worker: define a task, enqueue calls of it for a time, watch them run at that time.

    python examples/01_producer_and_worker.py

In an application the producer is your web service, and the worker is a process of its own that knows the same tasks:
`zwheel worker shop.tasks:wheel --queue emails`.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from playground import private_server, worker

from zwheel import CancelOutcome, Wheel, current_job

wheel = Wheel()


@wheel.task(queue="emails", keep=60)
async def send(to: str, subject: str) -> None:
    late = datetime.now(UTC) - current_job().fire_at
    print(f"to {to}: {subject} ({late / timedelta(milliseconds=1):.1f} ms after its time)")


async def main() -> None:
    with private_server() as url:
        wheel.configure(url=url)
        async with wheel, worker(wheel, "emails"):
            # As soon as possible.
            await send.enqueue("ann@example.com", "Welcome")

            # At a time: an aware datetime, or a delay from now.
            soon = datetime.now(UTC) + timedelta(seconds=0.5)
            await send.options(at=soon).enqueue("ben@example.com", "Half a second later")
            last = await send.options(delay=1).enqueue("cem@example.com", "A second later")

            # An id of one's own makes the call safe to repeat: the second answer names the job of the first.
            tip = send.options(id="tip-dana", delay=3600)
            await tip.enqueue("dana@example.com", "A tip for later")
            again = await tip.enqueue("dana@example.com", "A tip for later")
            print(f"{again.job_id} existed: {again.existed}")

            # What has not started can be called off.
            assert await wheel.cancel("tip-dana") is CancelOutcome.CANCELLED

            job = await wheel.wait(last.job_id, timeout=10)
            print(f"the last one is {job.state}")


if __name__ == "__main__":
    asyncio.run(main())
