"""Workers that do not beat: silent for a moment, or dead without a word."""

from __future__ import annotations

from zwheel.doctor.finding import Finding, warning
from zwheel.info import WorkerInfo, WorkerState
from zwheel.keys import ShardKeys
from zwheel.operations.overview import read_workers
from zwheel.outside import shown
from zwheel.store import Steps

_PAGE = 500
_SHOWN = 3


def check_workers(keys: ShardKeys) -> Steps[list[Finding]]:
    """Tell of the workers of a queue that are silent or dead; those that signed off are not listed."""
    found: list[WorkerInfo] = []
    cursor = 0
    while True:
        page, clock = yield (("HSCAN", keys.workers, cursor, "COUNT", _PAGE), ("TIME",))
        now_ms = int(clock[0]) * 1000 + int(clock[1]) // 1000
        found += [info for info in read_workers(page[1], now_ms, keys.queue) if not info.alive]
        cursor = int(page[0])
        if cursor == 0:
            break
    findings = []
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
