# Derived from schedules.py by `make format`: edit that one.
"""The schedules of the blocking client."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from zwheel.client.sync_drive import SyncDrive
from zwheel.job import Enqueued
from zwheel.operations.act import Progress

if TYPE_CHECKING:
    from zwheel.operations.schedules import SyncReport
    from zwheel.outside import Listing
    from zwheel.schedules.definition import Definition
    from zwheel.schedules.state import Past, ScheduleInfo

T = TypeVar("T")


class SyncWheelSchedules(SyncDrive):
    """What a client does with schedules. cronsim is imported when one of these is called."""

    def schedules(self, queue: str | None = None) -> Listing[ScheduleInfo]:
        """Read every schedule of a queue, or of all, sorted by name; `unreadable` names the unreadable schedules."""
        from zwheel.operations import schedules as ops

        return self._drive(lambda session: ops.schedules(session, queue))

    def schedule(self, name: str, queue: str | None = None) -> ScheduleInfo:
        """Read one schedule. Raises: ScheduleNotFound."""
        from zwheel.operations import schedules as ops

        return self._drive(lambda session: ops.schedule(session, name, queue))

    def add_schedule(self, definition: Definition, *, replace: bool = False) -> ScheduleInfo:
        """Write a new schedule, or with `replace` an existing one; it fires from now on. Raises: ScheduleExists."""
        from zwheel.operations import schedules as ops

        return self._drive(lambda session: ops.add_schedule(session, self.codec, definition, replace))

    def edit_schedule(self, definition: Definition, *, before: Definition | None = None) -> ScheduleInfo:
        """Give a schedule another definition, from now on: old and new never both fire. Raises: ScheduleNotFound.

        What it has missed by now is decided by the new one, unless that has other times: then it is left out.

        before: the definition that this one was made from; ScheduleChanged is raised where it is another by now.
        """
        from zwheel.operations import schedules as ops

        return self._drive(lambda session: ops.edit_schedule(session, self.codec, definition, before))

    def pause_schedule(self, name: str, queue: str | None = None) -> ScheduleInfo:
        """Fire nothing of a schedule until it is resumed; what runs goes on. Raises: ScheduleNotFound."""
        from zwheel.operations import schedules as ops

        return self._drive(lambda session: ops.pause_schedule(session, self.codec, name, queue))

    def resume_schedule(self, name: str, queue: str | None = None, *, catch_up: bool = False) -> ScheduleInfo:
        """Let a paused schedule go on from now, or treat what it left out as missed. Raises: ScheduleNotFound."""
        from zwheel.operations import schedules as ops

        return self._drive(lambda session: ops.resume_schedule(session, self.codec, name, queue, catch_up))

    def remove_schedule(self, name: str, queue: str | None = None) -> None:
        """Delete a schedule; what runs goes on. Raises: ScheduleNotFound."""
        from zwheel.operations import schedules as ops

        self._drive(lambda session: ops.remove_schedule(session, name, queue))

    def trigger_schedule(self, name: str, queue: str | None = None) -> Enqueued:
        """Run a schedule's job now, beside its occurrences. Raises: ScheduleNotFound."""
        from zwheel.operations import schedules as ops

        return self._drive(lambda session: ops.trigger_schedule(session, self.codec, name, queue))

    def sync_schedules(
        self, definitions: Iterable[Definition], owner: str, *, keep: Collection[str] = (), dry_run: bool = False
    ) -> SyncReport:
        """Make the schedules of one owner exactly these; those of others, and those to keep, stay.

        Raises: ScheduleExists.
        """
        from zwheel.operations import schedules as ops

        given = list(definitions)
        return self._drive(lambda session: ops.sync_schedules(session, self.codec, given, owner, dry_run, keep))

    def schedule_history(self, name: str, queue: str | None = None) -> list[Past]:
        """Tell what became of the newest 20 occurrences, newest first. Raises: ScheduleNotFound."""
        from zwheel.operations import past

        return self._drive(lambda session: past.schedule_history(session, name, queue))

    def backfill_schedule(
        self, name: str, start: datetime, end: datetime, *, queue: str | None = None, progress: Progress | None = None
    ) -> list[Enqueued]:
        """Run the occurrences of a past time after all, each once, due now; at most 10,000.

        One whose job can still be read is not run again. Raises: ScheduleNotFound, InvalidInput.
        """
        from zwheel.client.backfill import backfill_jobs

        info = self.schedule(name, queue)
        return self.enqueue_many(backfill_jobs(info, self.codec, start, end), progress=progress)
