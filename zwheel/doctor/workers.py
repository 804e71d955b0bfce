"""Workers that do not beat, silent for a moment or dead without a word, and jobs that no worker would run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from zwheel.broker.store import Steps
from zwheel.calls import Session
from zwheel.doctor.finding import Finding, warning
from zwheel.info import WorkerInfo, WorkerState
from zwheel.keys import ShardKeys
from zwheel.operations.learn import published
from zwheel.operations.overview import read_workers
from zwheel.outside import shown
from zwheel.plain import counted

_PAGE = 500
_SHOWN, _ASKED = 3, 50


def check_workers(session: Session, keys: ShardKeys, waiting: Mapping[str, int], held: int = 0) -> Steps[list[Finding]]:
    """Tell of the workers of a queue that are silent or dead; those that signed off are not listed.

    waiting: how many jobs of each task are on the wheel; of those that no worker would run it tells too. held: how many
    jobs workers hold: when none of those lives, nobody takes them back.
    """
    found: list[WorkerInfo] = []
    living: list[WorkerInfo] = []
    cursor = 0
    while True:
        page, clock = yield (("HSCAN", keys.workers, cursor, "COUNT", _PAGE), ("TIME",))
        now_ms = int(clock[0]) * 1000 + int(clock[1]) // 1000
        listed = read_workers(page[1], now_ms, keys.queue)
        found += [info for info in listed if not info.alive]
        living += [info for info in listed if info.state is not WorkerState.DEAD]
        cursor = int(page[0])
        if cursor == 0:
            break
    findings = yield from _unserved(session, keys, living, waiting, held)
    for state, means, cure in (
        (WorkerState.SILENT, "frozen, cut off from Redis, or killed a moment ago", "see whether it runs"),
        (
            WorkerState.DEAD,
            "their jobs come back, and they did not sign off",
            "see why it ended: its log, the kernel's log",
        ),
    ):
        some = sorted((info for info in found if info.state is state), key=lambda info: info.silent_ms)
        if some:
            named = ", ".join(
                f"{shown(info.id, 40)} on {shown(info.host, 60)}, pid {info.pid}, silent for {info.silent_ms // 1000:,} s"
                for info in some[:_SHOWN]
            )
            more = f" and {len(some) - _SHOWN:,} more" if len(some) > _SHOWN else ""
            number = f"{len(some):,} worker{'s are' if len(some) > 1 else ' is'}"
            findings.append(warning("workers", f"{number} {state} ({named}{more}): {means}", cure, keys.queue))
    return findings


def _unserved(
    session: Session, keys: ShardKeys, living: Sequence[WorkerInfo], waiting: Mapping[str, int], held: int
) -> Steps[list[Finding]]:  # fmt: skip
    """The jobs that no worker would run: nobody serves the queue, or nobody who does knows their tasks."""
    if not waiting and not held:
        return []
    if not living:
        back = f", {counted(held, 'job')} held by workers that are gone" if held else ""
        text = f"{counted(sum(waiting.values()), 'job')} on its wheel{back}, and no live worker serves it"
        cure = f"start a worker: `zwheel worker APP --queue {keys.queue}`"
        elsewhere = yield from _published_elsewhere(
            session, keys, sorted(waiting, key=lambda task: -waiting[task])[:_ASKED]
        )
        if elsewhere:
            text += f", while workers publish {elsewhere}: these jobs were made before that was known, or for this queue on purpose"
            cure = (
                "cancel them and enqueue them anew, or let a worker serve this queue too; not both, or they run twice"
            )
        return [warning("unserved", text, cure, keys.queue)]
    if any(info.tasks is None for info in living):
        return []
    known = frozenset[str]().union(*(info.tasks for info in living if info.tasks is not None))
    unknown = sorted((task for task in waiting if task not in known), key=lambda task: (-waiting[task], task))
    if not unknown:
        return []
    named = ", ".join(f"{shown(task, 60)}: {counted(waiting[task], 'job')}" for task in unknown[:_SHOWN])
    more = f" and {len(unknown) - _SHOWN:,} more" if len(unknown) > _SHOWN else ""
    text = f"no live worker of this queue knows the tasks of some of its jobs ({named}{more})"
    cure = "start a worker whose application has them, or look at `zwheel task ls` for the right names"
    return [warning("unserved", text, cure, keys.queue)]


def _published_elsewhere(session: Session, keys: ShardKeys, tasks: Sequence[str]) -> Steps[str]:
    """Which of these tasks workers publish for other queues, in words."""
    known = yield from published(session, tasks)
    named = [
        f"{shown(name, 60)} for queue {task.policy.queue}"
        for name, task in known.items()
        if task.policy.queue != keys.queue
    ]
    return ", ".join(named[:_SHOWN])
