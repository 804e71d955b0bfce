"""Drain dramatiq 2.x once. Run by another Python: peer_dramatiq.py URL JOBS PAYLOAD prints jobs a second.

Its defaults: 8 threads, all default middleware; but a prefetch of 200, as zwheel has, for with its own of 16 its consumer
sleeps most of the time. Jobs count as ended when Redis holds none any more.
"""

# mypy: disable-error-code="import-not-found, untyped-decorator"
from __future__ import annotations

import logging
import os
import sys
import time

os.environ.setdefault("dramatiq_queue_prefetch", "200")

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.worker import Worker


def main(url: str, jobs: int, payload: str) -> None:
    logging.basicConfig(level=logging.ERROR)
    broker = RedisBroker(client=redis.Redis.from_url(url))
    dramatiq.set_broker(broker)

    @dramatiq.actor(queue_name="bench")
    def noop(text: str) -> None:
        pass

    rate = 0.0
    watch = redis.Redis.from_url(url)
    for count in (jobs // 5, jobs):
        for _ in range(count):
            noop.send(payload)
        worker = Worker(broker, worker_threads=8)
        started = time.perf_counter()
        worker.start()
        while watch.hlen("dramatiq:bench.msgs"):
            time.sleep(0.01)
        rate = count / (time.perf_counter() - started)
        worker.stop()
    print(rate)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
