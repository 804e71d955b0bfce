"""Runs the hooks of the application: at the start of a worker process, before it claims, and at its end, after its last job.

All run in one task, since what a lifespan opens may have to be closed by the task that opened it.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from zwheel.client.hooks import Hook
from zwheel.errors import HookFailed
from zwheel.outside import escaped

log = escaped("zwheel.worker")

#: How long the hooks at the end may take together, and how long one that was cancelled may go on, seconds. Shorter than what a
#: process has after its drain.
LONGEST_S, _CANCELLED_S = 4.0, 0.5


class Lifespan:
    """The hooks of one worker process."""

    def __init__(self, hooks: Sequence[Hook]) -> None:
        self._hooks = tuple(hooks)
        self._ready, self._over = asyncio.Event(), asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def begin(self, stop: asyncio.Event) -> bool:
        """Do what is to be done before the first job; False when a stop came before that was done. Raises: HookFailed."""
        if not self._hooks:
            return not stop.is_set()
        self._task = asyncio.create_task(self._run(), name="hooks of the application")
        waits = [asyncio.create_task(event.wait()) for event in (self._ready, stop)]
        try:
            await asyncio.wait([self._task, *waits], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()
        if self._task.done():
            self._task.result()
        return self._ready.is_set() and not stop.is_set()

    async def end(self, abort: asyncio.Event) -> None:
        """Do what is to be done after the last job; `abort` cuts it short."""
        task = self._task
        if task is None or task.done():
            return
        self._over.set()
        if not self._ready.is_set():
            task.cancel()
        aborted = asyncio.create_task(abort.wait())
        await asyncio.wait([task, aborted], timeout=LONGEST_S, return_when=asyncio.FIRST_COMPLETED)
        aborted.cancel()
        if not task.done():
            log.error("what the application does at the end did not end within %g s: it is cut short", LONGEST_S)
            task.cancel()
            await asyncio.wait([task], timeout=_CANCELLED_S)

    async def _run(self) -> None:
        async with AsyncExitStack() as stack:
            for hook in self._hooks:
                try:
                    await _enter(hook, stack)
                except Exception as error:
                    log.error("%s (%s) failed", hook.name, hook.kind, exc_info=True)
                    told = f"{type(error).__name__}: {error}"[:200]
                    raise HookFailed(
                        f"{hook.name} ({hook.kind}) failed, so this worker claims no job: {told}"
                    ) from error
            self._ready.set()
            await self._over.wait()


async def _enter(hook: Hook, stack: AsyncExitStack) -> None:
    if hook.kind == "on_shutdown":
        stack.push_async_callback(_leave, hook, hook.call)
        return
    made = hook.call()
    if hook.kind == "lifespan":
        enter, leave = (
            (made.__aenter__, made.__aexit__) if hasattr(made, "__aenter__") else (made.__enter__, made.__exit__)
        )
        await _call(enter)
        stack.push_async_callback(_leave, hook, partial(leave, None, None, None))
    elif inspect.isawaitable(made):
        await made


async def _leave(hook: Hook, call: Callable[[], Any]) -> None:
    """One that fails keeps no other from its end."""
    try:
        await _call(call)
    except Exception:
        log.error("%s (%s) failed", hook.name, hook.kind, exc_info=True)


async def _call(function: Callable[[], Any]) -> None:
    made = function()
    if inspect.isawaitable(made):
        await made
