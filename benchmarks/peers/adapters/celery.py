"""Celery over Redis: acks_late, so that a job is acknowledged after its run; results off; pool `solo`, which does more empty jobs
than threads; no limit of prefetch, since the worker holds delayed jobs until their time; no gossip, mingle or heartbeat. No
call for many."""

# mypy: disable-error-code="import-not-found, untyped-decorator"
from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from celery import Celery

from .harness import PAYLOAD, Adapter, Spec, marks

_app = Celery("bench")
_app.conf.update(
    task_ignore_result=True, task_acks_late=True, worker_prefetch_multiplier=0, worker_send_task_events=False,
    broker_connection_retry_on_startup=True, task_default_queue="bench",
)  # fmt: skip


@_app.task(name="noop")
def noop(text: str) -> None:
    marks.ran()


@_app.task(name="late")
def late(due_ms: int) -> None:
    marks.late(due_ms)


class Peer(Adapter):
    """Celery by `delay` and its worker."""

    has_bulk = False

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        _app.conf.broker_url = spec.url.replace("unix://", "redis+socket://")

    async def one(self, jobs: int) -> None:
        delay = noop.delay
        for _ in range(jobs):
            delay(PAYLOAD)

    async def at(self, dues: Sequence[int]) -> None:
        for due in dues:
            late.apply_async((due,), eta=datetime.fromtimestamp(due / 1000, UTC))

    def work(self) -> None:
        _app.worker_main(
            ["worker", "--pool=solo", "--loglevel=ERROR", "--without-gossip", "--without-mingle", "--without-heartbeat"]
        )
