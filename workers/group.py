"""Ends a program with all processes that it started: they are one process group."""

from __future__ import annotations

import asyncio
import os
import signal
import time

#: How long the processes of a group may take to end after SIGTERM, seconds.
GRACE_S = 5.0
#: How long killed ones may take to be gone, and how often to look, seconds. Nothing tells when a group is empty.
_KILLED_S, _LOOK_S = 1.0, 0.02


async def end_group(leader: asyncio.subprocess.Process) -> None:
    """End all processes of a group: SIGTERM, then SIGKILL. At once when there are none.

    Cancelled, it kills them and waits for the leader alone. A process that made a group or a session of its own is not reached.
    """
    if not _signal(leader, signal.SIGTERM):
        return
    try:
        if await _gone(leader, GRACE_S):
            return
    except asyncio.CancelledError:
        _signal(leader, signal.SIGKILL)
        await _collect(leader)
        raise
    _signal(leader, signal.SIGKILL)
    await leader.wait()
    await _gone(leader, _KILLED_S)


async def _collect(leader: asyncio.subprocess.Process) -> None:
    """Wait for a process that was killed, which ends at once: nothing of it may outlive the loop."""
    try:
        async with asyncio.timeout(_KILLED_S):
            await leader.wait()
    except (TimeoutError, asyncio.CancelledError):
        return


def _signal(leader: asyncio.subprocess.Process, number: int) -> bool:
    """Send a signal to the group; False when nobody is left in it, or nobody who may be sent one."""
    if leader.returncode is not None:
        # Those whose parent ended may be our children now: they are those of the first process of a container.
        try:
            while os.waitpid(-leader.pid, os.WNOHANG)[0]:
                continue
        except ChildProcessError:
            pass
    try:
        os.killpg(leader.pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


async def _gone(leader: asyncio.subprocess.Process, within_s: float) -> bool:
    began = time.monotonic()
    while _signal(leader, 0):
        if leader.returncode is not None and not _LIVING.has(leader.pid, began):
            return True
        if time.monotonic() > began + within_s:
            return False
        await asyncio.sleep(_LOOK_S)
    return True


class _Living:
    """Which groups have a process that has not ended, read from /proc.

    A group can be sent signals for as long as an ended process of it was not collected by its parent, and the first
    process of a container may never do that. One look serves all who ask within a short time.
    """

    def __init__(self) -> None:
        self._looked = 0.0
        self._groups: set[int] | None = set()

    def has(self, group: int, since: float) -> bool:
        """Whether the group has a living process, at some time after `since`; True also where nothing can tell."""
        now = time.monotonic()
        if self._looked < since or now - self._looked > 2 * _LOOK_S:
            self._groups = _living_groups()
            self._looked = now
        return self._groups is None or group in self._groups


def _living_groups() -> set[int] | None:
    found: set[int] = set()
    try:
        pids = [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return None
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                # The name of the program stands in brackets and may hold anything.
                state, _, group = file.read().rpartition(b")")[2].split()[:3]
        except OSError:
            continue
        if state not in (b"Z", b"X"):
            found.add(int(group))
    return found if found else None


_LIVING = _Living()
