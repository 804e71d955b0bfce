"""`zwheel workers`: who serves the queues."""

from __future__ import annotations

from zwheel.info import WorkerInfo, WorkerState

from .app import command, group
from .context import Context
from .output import Cell, Column, Row
from .show import iso, now_ms, relative, unreadable_document, unreadable_row
from .values import QueueOption, note_unknown
from .when import human_duration

app = group("See the workers that serve the queues.")


@command(app, "ls", examples=["zwheel workers ls", "zwheel workers ls --queue emails --json"])
async def ls(ctx: Context, queue: QueueOption = None) -> None:
    """List the workers.

    Where they run, what they serve, and when they were last heard. One that missed a beat is silent, one that did not
    beat for its whole lease is dead: its jobs come back.
    """
    async with ctx.wheel() as wheel:
        await note_unknown(ctx, wheel, queue)
        workers = await wheel.workers(queue)
    if ctx.json:
        for worker in workers:
            ctx.out.value(
                {
                    "id": worker.id,
                    "host": worker.host,
                    "pid": worker.pid,
                    "queues": list(worker.queues),
                    "concurrency": worker.concurrency,
                    "running": worker.running,
                    "started_at": iso(worker.started_ms),
                    "started_at_ms": worker.started_ms,
                    "beat_at": iso(worker.beat_ms),
                    "beat_at_ms": worker.beat_ms,
                    "version": worker.version,
                    "alive": worker.alive,
                    "state": str(worker.state),
                    "silent_ms": worker.silent_ms,
                }
            )
        for one in workers.unreadable:
            ctx.out.value(unreadable_document(one, "id"))
        return
    now = now_ms(ctx)
    rows: list[Row] = [
        [
            worker.id,
            worker.host,
            str(worker.pid),
            " ".join(worker.queues),
            f"{worker.running:,}/{worker.concurrency:,}",
            relative(worker.started_ms, now),
            relative(worker.beat_ms, now),
            worker.version,
            _state(worker),
        ]
        for worker in workers
    ]
    columns = [Column("worker"), Column("host", flexible=True), Column("pid", right=True)]
    columns += [Column("queues", flexible=True), Column("running", right=True), Column("started", drop=2)]
    columns += [Column("heard", drop=1), Column("version", drop=3), Column("")]
    rows += [unreadable_row(columns, one) for one in workers.unreadable]
    ctx.out.table(columns, rows, empty="no workers: start one with zwheel worker")


def _state(worker: WorkerInfo) -> Cell:
    if worker.state is WorkerState.SILENT:
        return Cell(f"silent for {human_duration(worker.silent_ms)}", "yellow")
    return Cell(str(worker.state), "green" if worker.alive else "red")
