"""`zwheel demo`: a thousand orders, two workers, one of them killed, and what came of it."""

from __future__ import annotations

from typing import Annotated

import typer

from zwheel.cli.app import command, single
from zwheel.cli.context import Context
from zwheel.cli.exits import ExitCode
from zwheel.errors import InvalidInput

app = single()


@command(app, "demo", examples=["zwheel demo", "zwheel demo --json", "zwheel demo --svg demo.svg"])
def demo(
    ctx: Context,
    svg: Annotated[
        str | None, typer.Option("--svg", metavar="FILE", help="Draw the table of this run as a picture, too.")
    ] = None,
) -> None:
    """Watch jobs fire on time while a worker is killed.

    Starts a Redis and two workers of its own, enqueues 1,200 orders that are to be cancelled unless they are paid in
    time, kills one worker in the middle with SIGKILL, and counts what was lost, early or done twice. It takes less
    than 40 s, leaves nothing behind, and ends with 1 when any count is wrong.
    """
    from pathlib import Path

    from .run import Stopped, perform

    if ctx.shared.url is not None:
        raise InvalidInput("the demo has a server of its own: leave out --url")
    target = None if svg is None else Path(svg)
    if target is not None and not target.absolute().parent.is_dir():
        raise InvalidInput(f"--svg {svg}: there is no such directory")
    try:
        figures = perform(ctx)
    except Stopped as stopped:
        raise ctx.fail(stopped.code) from None
    if target is not None:
        from .report import save_picture

        save_picture(figures, target)
        ctx.out.note(f"the table is drawn in {svg}")
    if ctx.json:
        ctx.out.value(figures.document())
    else:
        from rich.console import Console

        from .report import table

        width = None if ctx.out.stdout.isatty() else ctx.out.width
        console = Console(file=ctx.out.stdout, no_color=not ctx.color, highlight=False, width=width)
        console.print(table(figures))
    wrong = figures.wrong()
    for sentence in wrong if not ctx.json else ():
        ctx.out.error(sentence)
    if wrong:
        raise ctx.fail(ExitCode.UNEXPECTED)
