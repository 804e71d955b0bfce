"""A sync producer: enqueue from code without an event loop, such as a Django view or a script, by the task's name.

    python examples/03_sync_producer.py

The producer needs none of the worker's code. Threads may share a SyncWheel, and a forked process connects anew.
"""

from __future__ import annotations

import asyncio
import threading

from playground import private_server, worker

from zwheel import SyncWheel


def web_view(wheel: SyncWheel) -> str:
    """What a request does: it takes the job's id home, and answers at once."""
    answer = wheel.enqueue(
        "reports.render",
        kwargs={"month": "2026-11", "pages": 3},
        queue="reports",
        delay=0.2,
        dedup="report-2026-11",  # however often the button is pressed: one living job
        keep=600,
    )
    return answer.job_id


def produce(url: str) -> None:
    with SyncWheel(url) as wheel:
        first, second = web_view(wheel), web_view(wheel)
        print(f"pressed twice, one job: {first == second}")
        job = wheel.wait(first, timeout=10)
        print(f"{job.task} is {job.state} after {job.attempt} attempt")

        many = [
            wheel.new_job("reports.render", args=[f"2026-{month:02}", 1], queue="reports") for month in range(1, 11)
        ]
        print(f"enqueued in one round trip: {len(wheel.enqueue_many(many))}")


async def main() -> None:
    tasks = SyncWheel()
    rendered = threading.Semaphore(0)

    @tasks.task(name="reports.render", queue="reports")
    def render(month: str, pages: int) -> None:
        """A function that is not async runs in a thread."""
        rendered.release()

    with private_server() as url:
        tasks.configure(url=url)
        async with worker(tasks, "reports"):
            await asyncio.to_thread(produce, url)
            for _ in range(11):
                await asyncio.to_thread(rendered.acquire, timeout=10)
            print("all are rendered")


if __name__ == "__main__":
    asyncio.run(main())
