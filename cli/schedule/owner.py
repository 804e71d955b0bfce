"""Whose the schedules of a file are, and the schedules of one owner made those of a file."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from zwheel.cli.context import Context
from zwheel.cli.when import human_count

if TYPE_CHECKING:
    from zwheel import Wheel
    from zwheel.operations.schedules import SyncReport
    from zwheel.schedules.definition import Definition
    from zwheel.schedules.state import ScheduleInfo


def owner_of(kind: str, path: str) -> str:
    """Name the owner of a file's schedules by its whole path: two files of one name are two owners."""
    return f"{kind}:{os.path.abspath(path)}".encode("utf-8", "backslashreplace").decode()


async def make_those(
    ctx: Context,
    wheel: Wheel,
    definitions: Sequence[Definition],
    whose: str,
    listed: Sequence[ScheduleInfo],
    *,
    keep: Collection[str] = (),
    dry_run: bool,
) -> SyncReport:
    """Make the schedules of an owner exactly these.

    listed: the schedules there are. Raises: Refused when more than a third would be removed and nobody agrees.
    """
    report = await wheel.sync_schedules(definitions, owner=whose, keep=keep, dry_run=True)
    if dry_run:
        return report
    had = sum(info.owner == whose for info in listed)
    if 3 * len(report.removed) > had:
        few = ", ".join(report.removed[:3]) + ", ..." * (len(report.removed) > 3)
        ctx.confirm(
            f"remove {len(report.removed)} of the {human_count(had, 'schedule')} of {whose} ({few})",
            len(report.removed),
        )
    return await wheel.sync_schedules(definitions, owner=whose, keep=keep)
