"""`zwheel dev`: a private server and a worker that starts anew when the code changes."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from zwheel.errors import ConfigError

from .app import command, single
from .context import Context
from .worker import Allow, AllowShell, allowed_commands

app = single()

_LOOK_S = 0.5
_SKIPPED = {"node_modules", "site-packages", "__pycache__"}
#: How long running jobs may take to end when the code changed.
_DRAIN = "2s"


def _sources(root: Path) -> Iterator[tuple[str, int]]:
    for folder, folders, files in os.walk(root):
        folders[:] = [f for f in folders if not f.startswith(".") and f not in _SKIPPED and not f.endswith("venv")]
        for name in files:
            if name.endswith(".py"):
                path = os.path.join(folder, name)
                try:
                    yield path, os.stat(path).st_mtime_ns
                except OSError:
                    continue


def _changed(before: dict[str, int], after: dict[str, int]) -> list[str]:
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))


@command(app, "dev", examples=["zwheel dev app:wheel", "zwheel dev shop.tasks:wheel --queue emails --no-reload"])
async def dev(
    ctx: Context,
    target: Annotated[
        str | None, typer.Argument(metavar="[APP]", help="The wheel, as module:attribute; else from zwheel.toml.")
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option("--include", metavar="MODULE", help="Import this module for its tasks too; may be repeated."),
    ] = None,
    queue: Annotated[
        list[str] | None,
        typer.Option(
            "--queue", "-q", metavar="NAME", help="Serve this queue; may be repeated. Else those of the tasks."
        ),
    ] = None,
    concurrency: Annotated[int, typer.Option("--concurrency", "-c", metavar="N", help="Jobs run at a time.")] = 100,
    reload: Annotated[
        bool, typer.Option("--reload/--no-reload", help="Start the worker anew when a .py file below here changes.")
    ] = True,
    allow_shell: AllowShell = False,
    allow: Allow = None,
) -> None:
    """Start the project's private server and a worker; reload the worker when the code changes. Ctrl-C ends both.

    With a URL, that server is used. A private server that already ran is left running.
    """
    from zwheel import embedded
    from zwheel.broker.address import mask_url
    from zwheel.workers.asks import STOP_SIGNALS
    from zwheel.workers.settings import refuse_memory

    settings = ctx.settings()
    name = target or settings.app
    commands = allowed_commands(allow_shell, allow)
    if name is None and not commands:
        raise ConfigError("which app? Name it as module:attribute, or set app in zwheel.toml")
    server = None
    url = settings.url
    refuse_memory(url)
    if url is None:
        server = embedded.start(settings.home)
        url = server.url
        verb = "started" if server.started else "using"
        if settings.production:
            ctx.out.note("zwheel: ZWHEEL_ENV is production: dev uses the private server all the same")
        ctx.out.note(f"zwheel: {verb} {server} with its data in {server.home}{settings.of_project()}")
    ctx.out.note(f'zwheel: in another terminal: export ZWHEEL_URL="{mask_url(url)}"')
    words = [sys.executable, "-P", "-m", "zwheel.cli", "worker", "--drain", _DRAIN, "--log-done"]
    words += ["--concurrency", str(concurrency)]
    words += [] if name is None else [name]
    words += ["--allow-shell", *(word for one in commands for word in ("--allow", one))] if commands else []
    words += [word for one in include or [] for word in ("--include", one)]
    words += [word for one in queue or [] for word in ("--queue", one)]
    if settings.namespace:
        words += ["--namespace", settings.namespace]
    stopping = _Stopping()
    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, stopping.ask, number)
    try:
        await _run(ctx, words, {**os.environ, "ZWHEEL_URL": url}, stopping, reload)
    finally:
        if server is not None and server.started:
            embedded.stop(settings.home)
            ctx.out.note("zwheel: stopped the private server; its data stays")


class _Stopping(asyncio.Event):
    """Set by Ctrl-C; a second one is passed on to the worker that is ending, which then stops at once."""

    def __init__(self) -> None:
        from zwheel.workers.asks import Asks

        super().__init__()
        self._asks = Asks()
        #: Asks the worker that runs to stop, once more.
        self.again: Callable[[], None] | None = None

    def ask(self, number: int) -> None:
        if not self._asks.signal(number):
            return
        if self.is_set() and self.again is not None:
            self.again()
        self.set()


async def _run(ctx: Context, words: list[str], env: dict[str, str], stopping: _Stopping, reload: bool) -> None:
    from zwheel.workers.lifeline import Lifeline

    root = Path.cwd()
    seen = dict(_sources(root))
    while not stopping.is_set():
        line = Lifeline()
        child = await asyncio.create_subprocess_exec(
            *words, env={**env, **line.environment()}, pass_fds=(line.descriptor,), start_new_session=True
        )
        line.started()
        ended = asyncio.create_task(child.wait())
        try:
            while not stopping.is_set():
                await _either(stopping, _LOOK_S)
                now = dict(_sources(root)) if reload else seen
                changed = _changed(seen, now)
                seen = now
                if changed:
                    name = changed[0].removeprefix(str(root)).lstrip(os.sep)
                    ctx.out.note(f"zwheel: {name} changed: starting the worker anew")
                    break
                if ended.done() and not reload:
                    raise typer.Exit(ended.result())
        finally:
            if not ended.done():
                stopping.again = partial(line.ask, child.terminate)
                stopping.again()
            code = await ended
            stopping.again = None
            line.close()
        if code and reload and not stopping.is_set():
            ctx.out.note("zwheel: waiting for a change")


async def _either(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
