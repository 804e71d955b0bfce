"""The tasks of the worker processes in these tests, beside those of tests/workers."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.workers import stage
from tests.workers.app import wheel
from zwheel import Discard, Retry, current_job

__all__ = ["move", "open_bank", "wheel"]

RETRY_S = 60


def open_bank(path: Path) -> sqlite3.Connection:
    """A user's own table: each effect beside the token of the claim that may make it."""
    bank = sqlite3.connect(path, isolation_level=None, timeout=10)
    bank.execute(
        "CREATE TABLE IF NOT EXISTS moves (job TEXT PRIMARY KEY, token INTEGER NOT NULL, moved INTEGER NOT NULL)"
    )
    return bank


def move(bank: sqlite3.Connection, job: str, token: int) -> None:
    """Make the effect of a job once: only the newest claim may, and only when none did."""
    bank.execute("BEGIN IMMEDIATE")
    bank.execute(
        "INSERT INTO moves VALUES (?, ?, 0) ON CONFLICT (job) DO UPDATE SET token = excluded.token"
        " WHERE excluded.token > token",
        (job, token),
    )
    bank.execute("UPDATE moves SET moved = moved + 1 WHERE job = ? AND token = ? AND moved = 0", (job, token))
    bank.execute("COMMIT")


@wheel.task(name="pay", keep=60)
async def pay(path: str) -> None:
    """Make an effect in the user's table."""
    job = current_job()
    with closing(open_bank(Path(path))) as bank:
        move(bank, job.id, job.token)


@wheel.task(name="fail", keep=60)
async def fail(name: str) -> None:
    await stage.pass_by(name)
    raise Retry(name, delay=RETRY_S)


@wheel.task(name="doom", keep=60)
async def doom(name: str) -> None:
    await stage.pass_by(name)
    raise Discard(name)


@wheel.task(name="hang_once", keep=600, retries=5)
async def hang_once() -> None:
    """Never ends the first time."""
    if current_job().attempt == 1:
        await asyncio.Event().wait()


@wheel.task(name="tick", queue="ticks", keep=600)
async def tick() -> None:
    """Do nothing, in a queue of its own."""
