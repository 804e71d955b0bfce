"""`zwheel completion`: the script that lets a shell complete zwheel's commands and options."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from . import COMPLETE_VARIABLE
from .app import command, single
from .context import Context

app = single()


class Shell(StrEnum):
    """The shells there is a script for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


@command(
    app,
    "completion",
    examples=[
        "zwheel completion bash > ~/.local/share/bash-completion/completions/zwheel",
        "zwheel completion zsh > ~/.zfunc/_zwheel",
        "zwheel completion fish > ~/.config/fish/completions/zwheel.fish",
    ],
)
def completion(
    ctx: Context, shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="bash, zsh or fish.")]
) -> None:
    """Print the completion script of a shell; put it where the shell looks for such scripts."""
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    script = get_completion_script(prog_name="zwheel", complete_var=COMPLETE_VARIABLE, shell=shell.value)
    if ctx.json:
        ctx.out.value({"shell": shell.value, "script": script})
    else:
        ctx.out.verbatim(script)
