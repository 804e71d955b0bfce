"""The shop's database in the demo: its orders, and a record of every attempt, written by the workers as they work.

Fencing: an attempt that begins writes its token into the order, unless a larger one is there; it may change the order
only while the token is still its own. So a worker that lost its lease, and does not know it, changes nothing.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .orders import Order

_SCHEMA = """
CREATE TABLE orders (
  number TEXT PRIMARY KEY, customer TEXT NOT NULL, amount_cent INTEGER NOT NULL,
  state TEXT NOT NULL DEFAULT 'unpaid', token INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE attempts (
  job TEXT NOT NULL, token INTEGER NOT NULL, attempt INTEGER NOT NULL, pid INTEGER NOT NULL,
  fire_at_ms INTEGER NOT NULL, began_us INTEGER NOT NULL, ended_us INTEGER, outcome TEXT,
  PRIMARY KEY (job, token)
) WITHOUT ROWID;
CREATE TABLE cancellations (number TEXT NOT NULL, token INTEGER NOT NULL, at_us INTEGER NOT NULL);
CREATE INDEX unfinished ON attempts (pid) WHERE ended_us IS NULL;
"""
#: How long to wait for another process that writes, seconds.
_BUSY_S = 10.0


def now_us() -> int:
    """The time of this machine, which is also the time of the demo's server, µs since the epoch."""
    return time.time_ns() // 1000


class Shop:
    """A connection to the shop's database. `attempts` has no opinion: it tells what happened."""

    def __init__(self, path: Path) -> None:
        self.db = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)
        # Written data outlives a killed process; only a crash of the whole machine could lose the last of it.
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = NORMAL")

    @classmethod
    def create(cls, path: Path, orders: Iterable[Order]) -> Shop:
        """Make the database, with these orders, all unpaid."""
        shop = cls(path)
        shop.db.executescript(_SCHEMA)
        with shop._transaction():
            shop.db.executemany(
                "INSERT INTO orders (number, customer, amount_cent) VALUES (?, ?, ?)",
                [(order.number, order.customer, order.amount_cent) for order in orders],
            )
        return shop

    def pay(self, numbers: Iterable[str]) -> None:
        """Let customers pay; an order that is cancelled already stays cancelled."""
        with self._transaction():
            self.db.executemany(
                "UPDATE orders SET state = 'paid' WHERE number = ? AND state = 'unpaid'", [(n,) for n in numbers]
            )

    def begin(
        self, number: str, *, job: str, token: int, attempt: int, pid: int, fire_at_ms: int, began_us: int
    ) -> bool:
        """Note that an attempt began, and write its token into the order; False when a larger one is there."""
        with self._transaction():
            self.db.execute(
                "INSERT INTO attempts (job, token, attempt, pid, fire_at_ms, began_us) VALUES (?, ?, ?, ?, ?, ?)",
                (job, token, attempt, pid, fire_at_ms, began_us),
            )
            taken = self.db.execute(
                "UPDATE orders SET token = ? WHERE number = ? AND token < ?", (token, number, token)
            ).rowcount
        return taken == 1

    def cancel(self, number: str, *, job: str, token: int) -> str:
        """Cancel an order if it is unpaid and the token is the last one, and note how the attempt ended.

        Returns the outcome: `cancelled`; `paid` or `repeated` when there was nothing to do; `fenced` when another
        attempt has begun meanwhile.
        """
        with self._transaction():
            changed = self.db.execute(
                "UPDATE orders SET state = 'cancelled' WHERE number = ? AND token = ? AND state = 'unpaid'",
                (number, token),
            ).rowcount
            if changed:
                outcome = "cancelled"
                self.db.execute("INSERT INTO cancellations VALUES (?, ?, ?)", (number, token, now_us()))
            else:
                state, last = self.db.execute("SELECT state, token FROM orders WHERE number = ?", (number,)).fetchone()
                outcome = "fenced" if last != token else "paid" if state == "paid" else "repeated"
            self.db.execute(
                "UPDATE attempts SET ended_us = ?, outcome = ? WHERE job = ? AND token = ?",
                (now_us(), outcome, job, token),
            )
        return outcome

    def running(self, since_us: int) -> dict[int, int]:
        """Count the attempts that began after `since_us` and have not ended, for each process id."""
        return dict(
            self.db.execute(
                "SELECT pid, count(*) FROM attempts WHERE ended_us IS NULL AND began_us > ? GROUP BY pid", (since_us,)
            )
        )

    def count(self, what: str) -> int:
        """Count distinct jobs: jobs that `began`, or jobs that `ended`."""
        where = {"began": "", "ended": "WHERE ended_us IS NOT NULL AND outcome != 'fenced'"}[what]
        row = self.db.execute(f"SELECT count(DISTINCT job) FROM attempts {where}").fetchone()  # noqa: S608  constants
        return int(row[0])

    def close(self) -> None:
        """Close the connection."""
        self.db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")
