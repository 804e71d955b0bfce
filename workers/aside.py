"""Takes back jobs that another version of zwheel set aside in the dead set: it could not read their records, this one can.

Example: a fleet is half upgraded. A worker of the older version meets a record that a newer one wrote and sets it aside,
as a job that is still scheduled. A newer worker finds it among what came into the dead set since it looked last, puts it
back on the wheel and claims it.

One worker of a shard is enough for that. So an idle worker leaves it to the timekeeper, when the timekeeper says that it
reads the same records.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from zwheel import calls
from zwheel.broker.store import Store
from zwheel.errors import BrokerError, UndecodableJob
from zwheel.job import JobId, QueueName
from zwheel.keys import ShardKeys
from zwheel.outside import as_text, flat, score_ms
from zwheel.record import LETTERS, VERSION, read_record
from zwheel.times import DAY_MS, MAX_MS, day_of

#: How many dead jobs one step looks at, and how many steps one look has.
PAGE, _PAGES = 100, 10
#: What this version can read, as its workers say of themselves: the newest version of a record, and the fields that must
#: be understood.
READS = VERSION.decode() + "".join(sorted(filter(str.isupper, LETTERS)))


def _ms(score: Any) -> int:
    """The time of a death, ms; a score that is no time counts for the last of all."""
    ms = score_ms(score)
    return MAX_MS if ms is None else ms


def _reads(row: bytes | None) -> object:
    """What a worker says that it can read; None when it does not."""
    try:
        return json.loads(row or b"").get("reads")
    except Exception:
        return None


class Aside:
    """What one worker has seen of a shard's dead set. It looks at all of it once, then at what came since."""

    def __init__(self, store: Store, keys: ShardKeys) -> None:
        self._store = store
        self._keys = keys
        #: Deaths before this time were looked at, ms by the server's clock; and so many of the deaths at this very time.
        self._from_ms = 0
        self._skip = 0
        #: The last timekeeper that was seen to read the same as this worker.
        self._alike: bytes | None = None

    async def is_seen_to(self, keeper: bytes | None) -> bool:
        """Whether the timekeeper reads the same as this worker, and so takes back the jobs that this one could.

        keeper: its worker id; None when no worker keeps time.
        """
        if keeper is not None and keeper != self._alike:
            try:
                (row,) = await self._store.send([("HGET", self._keys.workers, keeper)])
            except BrokerError:
                return False  # The list may be on another node, whose trouble is not that of this shard.
            if _reads(row) == READS:
                self._alike = keeper
        return keeper is not None and keeper == self._alike

    def forget(self) -> None:
        """Look at all of it again: the server's clock jumped, so newer deaths may have earlier times."""
        self._from_ms = self._skip = 0

    async def look(self, *, mixed: bool = False, newest: tuple[bytes | None] | None = None) -> int:
        """Put back what can be read. Returns how many jobs these were. Most looks end with the newest death: it was seen.

        mixed: a former version is known to set jobs aside. newest: when the last job died; None: that was not seen yet.
        """
        if newest is None:
            (last,) = await self._store.send([("ZRANGE", self._keys.dead, -1, -1, "WITHSCORES")])
            newest = (next((score for _, score in flat(last)), None),)
        back = 0
        for _ in range(_PAGES):
            if newest[0] is None or _ms(newest[0]) < self._from_ms:
                return back
            (now, reply) = await self._store.send(
                [
                    ("TIME",),
                    ("ZRANGE", self._keys.dead, self._from_ms, "+inf", "BYSCORE", "LIMIT", self._skip, PAGE, "WITHSCORES"),
                ]
            )  # fmt: skip
            page = [(job_id, _ms(score)) for job_id, score in flat(reply)]
            moved = await self._place([job_id for job_id, _ in page], mixed)
            back += len(moved)
            now_ms = self._now_ms(now)
            if len(page) < PAGE or page[-1][1] > now_ms:
                # Whatever is set aside from now on comes at this ms or later.
                self._from_ms, self._skip = now_ms, 0
                return back
            last_ms = page[-1][1]
            stayed = sum(at_ms == last_ms and job_id not in moved for job_id, at_ms in page)
            self._skip = stayed + (self._skip if last_ms == self._from_ms else 0)
            self._from_ms = last_ms
        return back

    def _now_ms(self, now: Sequence[Any]) -> int:
        given = self._store.session.now
        return int(given) // 1000 if given else int(now[0]) * 1000 + int(now[1]) // 1000

    async def _place(self, ids: Sequence[bytes], mixed: bool) -> set[bytes]:
        """Let the script put jobs where their records say. Returns the jobs that are not in the dead set any more.

        Where any was set aside, or lately was, jobs that went on meanwhile are taken off the dead set too.
        """
        letters = await self._letters(ids)
        moved = {job_id for job_id, letter in letters.items() if letter == "f"}
        if moved or mixed:
            left = [job_id for job_id, letter in letters.items() if letter == "e"]
            cleared = await self._letters(left, clear=True)
            moved |= {job_id for job_id, letter in cleared.items() if letter in "fo"}
        return moved

    async def _letters(self, ids: Sequence[bytes], *, clear: bool = False) -> dict[bytes, str]:
        """What the script says of each job, the buckets of their fire times named."""
        today_ms = self._store.session.clock.now_ms()
        days = [day_of(today_ms), day_of(max(0, today_ms - DAY_MS))]
        found: dict[bytes, str] = {}
        left = list(ids)
        while left:
            found |= zip(left, await self._call(days, left, clear), strict=True)
            left = [job_id for job_id in left if found[job_id] == "l"]
        for job_id in [job_id for job_id, letter in found.items() if letter == "m"]:
            (raw,) = await self._store.send([("HGET", self._keys.jobs, job_id)])
            with suppress(UndecodableJob):
                job = read_record(JobId(as_text(job_id)), QueueName(self._keys.name), raw or b"")
                found[job_id] = await self._call([day_of(job.fire_at_ms)], [job_id], clear)
        return found

    async def _call(self, days: Sequence[str], ids: Sequence[bytes], clear: bool) -> str:
        call = calls.repair(
            self._keys, days=days, ids=ids, mend=False, place=not clear, clear=clear, now=self._store.session.now
        )
        (reply,) = await self._store.send([call])
        return calls.read_repair(call, reply).jobs
