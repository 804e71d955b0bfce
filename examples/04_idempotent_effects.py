"""Idempotent effects: a job may be run twice, its effect must happen once. The fencing token makes that simple.

    python examples/04_idempotent_effects.py

A worker can stop for longer than its lease - a long pause of its machine, a cut network - and go on later, not knowing
that another worker has the job by now. Every claim of a job has a token larger than the one before. Write it beside the
effect, in one transaction, and refuse a smaller one: then the old worker changes nothing, however late it wakes up.
"""

from __future__ import annotations

import asyncio
import sqlite3

from playground import private_server, worker

from zwheel import Retry, Wheel, current_job

wheel = Wheel()
bank = sqlite3.connect(":memory:", isolation_level=None)
bank.executescript(
    """
    CREATE TABLE accounts (owner TEXT PRIMARY KEY, cents INTEGER NOT NULL);
    CREATE TABLE transfers (job TEXT PRIMARY KEY, token INTEGER NOT NULL, done INTEGER NOT NULL DEFAULT 0);
    INSERT INTO accounts VALUES ('ann', 10000), ('ben', 0);
    """
)


def take(job: str, token: int) -> None:
    """Say that this claim of the job is at work. An older one, that slept, cannot take it back."""
    bank.execute(
        "INSERT INTO transfers (job, token) VALUES (?, ?)"
        " ON CONFLICT (job) DO UPDATE SET token = excluded.token WHERE excluded.token > token",
        (job, token),
    )


def move(job: str, token: int, payer: str, payee: str, cents: int) -> bool:
    """Move the money if this claim is the last one and nobody has done it: all in one transaction."""
    bank.execute("BEGIN IMMEDIATE")
    mine = bank.execute("UPDATE transfers SET done = 1 WHERE job = ? AND token = ? AND done = 0", (job, token)).rowcount
    if mine:
        bank.execute("UPDATE accounts SET cents = cents - ? WHERE owner = ?", (cents, payer))
        bank.execute("UPDATE accounts SET cents = cents + ? WHERE owner = ?", (cents, payee))
    bank.execute("COMMIT")
    return mine == 1


asleep: list[int] = []


@wheel.task(queue="bank", retries=5, keep=60)
async def transfer(payer: str, payee: str, cents: int) -> None:
    job = current_job()
    take(job.id, job.token)
    if job.attempt == 1:
        # The first worker falls asleep here, with its token in hand; the job goes to the next.
        asleep.append(job.token)
        raise Retry("as if the lease had run out", delay=0)
    print(f"attempt {job.attempt} moves the money: {move(job.id, job.token, payer, payee, cents)}")
    if job.attempt == 2:
        # The money is moved, but the worker dies before it can say so: the job runs once more.
        raise Retry("as if the worker had died", delay=0)


async def main() -> None:
    with private_server() as url:
        wheel.configure(url=url)
        async with wheel, worker(wheel, "bank"):
            job = await transfer.enqueue("ann", "ben", 2500)
            await wheel.wait(job.job_id, timeout=10)
            print(f"the sleeper wakes up and moves the money: {move(job.job_id, asleep[0], 'ann', 'ben', 2500)}")
    for owner, cents in bank.execute("SELECT * FROM accounts ORDER BY owner"):
        print(f"{owner} has {cents / 100:.2f}")


if __name__ == "__main__":
    asyncio.run(main())
