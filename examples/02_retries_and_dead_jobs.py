"""Retries and dead jobs: what happens when a task fails, and what a person can do about it.

python examples/02_retries_and_dead_jobs.py
"""

from __future__ import annotations

import asyncio

from playground import private_server, worker

from zwheel import Backoff, Discard, JobState, Retry, Wheel, current_job

wheel = Wheel()
bank_is_open = False


class CardDeclined(Exception):
    """The bank said no: to ask again would not help."""


@wheel.task(
    queue="payments",
    retries=2,  # three attempts in all; a worker that dies costs one as well
    backoff=Backoff(
        first=0.2, factor=2
    ),  # then up to 0.2 s and 0.4 s, drawn at random; the default is 1 s, 3 s, 9 s ...
    give_up_on=[CardDeclined],
    keep=60,
)
async def charge(customer: str) -> None:
    attempt = current_job().attempt
    if customer == "busy" and attempt == 1:
        raise Retry("the bank asks us to come back", delay=0.1)
    if customer == "declined":
        raise CardDeclined("no credit")
    if customer == "closed account":
        raise Discard("nobody to charge")
    if customer == "unlucky" and not bank_is_open:
        raise ConnectionError("the bank does not answer")
    print(f"charged {customer} at attempt {attempt}")


async def main() -> None:
    global bank_is_open
    customers = ("lucky", "busy", "declined", "closed account", "unlucky")
    with private_server() as url:
        wheel.configure(url=url)
        async with wheel, worker(wheel, "payments"):
            jobs = await wheel.enqueue_many([charge.job(customer) for customer in customers])
            for job in jobs:
                await wheel.wait(job.job_id, timeout=20)

            # What failed for good is kept, with the reason and the last errors.
            dead = await wheel.dead("payments")
            for found in sorted(dead, key=lambda job: job.attempt):
                last = found.failures[-1]
                print(f"dead after attempt {found.attempt}: {found.reason}, {last.kind}: {last.message}")

            # The bank is back: redrive what died of errors, and leave the rest. In the shell:
            # zwheel dead redrive -q payments --reason error
            bank_is_open = True
            count = await wheel.redrive("payments", reason="error")
            print(f"redriven: {count}")
            await wheel.wait(jobs[-1].job_id, timeout=20)
            print(f"still dead: {await wheel.count('payments', JobState.DEAD)}")


if __name__ == "__main__":
    asyncio.run(main())
