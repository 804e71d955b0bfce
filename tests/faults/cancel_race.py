"""Cancels that race claims, ends and each other: `python -m tests.faults.cancel_race --rounds 100000`.

Each round is one job that falls due about when its cancel arrives. The answer, how often the job started and how it ended are
a triple, and only some triples may be.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from collections import Counter
from collections.abc import Iterable

from tests.servers import RedisServer, binary_of
from tests.workers.harness import Log, running
from zwheel import CancelOutcome, JobState, Wheel

Triple = tuple[str, int, str]
AT_ONCE = 250
#: Whether it may have started, and how it may end, by the answer to its cancel.
ALLOWED: dict[str, set[tuple[int, str]]] = {
    CancelOutcome.CANCELLED: {(0, JobState.CANCELLED)},
    CancelOutcome.CANCEL_REQUESTED: {(0, JobState.CANCELLED), (1, JobState.CANCELLED), (1, JobState.DONE)},
    CancelOutcome.TOO_LATE: {(1, JobState.DONE)},
}


def forbidden(triples: Iterable[Triple]) -> set[Triple]:
    """Those that may not be."""
    return {
        (answer, starts, state)
        for answer, starts, state in triples
        if (starts, state) not in ALLOWED.get(answer, set())
    }


async def race(url: str, rounds: int, seed: int = 1) -> Counter[Triple]:
    """Race so many times. How often each triple came."""
    dice, met = random.Random(seed), Counter[Triple]()
    async with Wheel(url) as wheel:

        @wheel.task(keep=600, name="short")
        async def short(seconds: float) -> None:
            if seconds:
                await asyncio.sleep(seconds)

        log = Log()
        async with running(wheel, log, concurrency=40):
            while sum(met.values()) < rounds:
                log.events.clear()
                jobs = await wheel.enqueue_many(
                    short.options(delay=dice.uniform(0, 0.03)).job(dice.choice((0, 0, 0.005, 5.0)))
                    for _ in range(min(AT_ONCE, rounds - sum(met.values())))
                )
                answers = await asyncio.gather(*(wheel.cancel(job.job_id, "default") for job in jobs))
                ends = [await wheel.wait(job.job_id, timeout=60) for job in jobs]
                starts = log.starts()
                met.update(
                    (str(answer), starts[end.id], str(end.state)) for answer, end in zip(answers, ends, strict=True)
                )
    return met


def main() -> None:
    """Race, and print what came of it; exit code 1 when something came that may not be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    binary = binary_of("redis") or binary_of("valkey")
    assert binary is not None, "no server is installed"
    with RedisServer(binary) as server:
        met = asyncio.run(race(server.url, chosen.rounds, chosen.seed))
    for triple, count in met.most_common():
        print(f"{count:8,}  {triple}")  # noqa: T201
    raise SystemExit(bool(forbidden(met)))


if __name__ == "__main__":
    main()
