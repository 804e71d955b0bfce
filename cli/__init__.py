"""The command line of zwheel: `zwheel`, or `python -m zwheel.cli`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typer.exceptions import TyperException

COMPLETE_VARIABLE = "_ZWHEEL_COMPLETE"


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code."""
    from .standard import open_closed_streams

    open_closed_streams()
    if os.getpid() == 1:
        from zwheel.workers.init import fork_below_init

        fork_below_init()
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    try:
        code = run(sys.argv[1:] if argv is None else list(argv))
        sys.stdout.flush()
    except BrokenPipeError:
        from .context import drop_stdout
        from .exits import ExitCode

        drop_stdout()
        code = ExitCode.BROKEN_PIPE
    except OSError as error:
        from .context import drop_stdout
        from .exits import ExitCode

        drop_stdout()
        sys.stderr.write(f"zwheel: writing the output failed: {error.strerror}\n")
        code = ExitCode.UNEXPECTED
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run one command and give its exit code; nothing but KeyboardInterrupt and BrokenPipeError gets out."""
    import typer
    from typer.exceptions import TyperException

    from .app import build
    from .exits import ExitCode

    if COMPLETE_VARIABLE in os.environ:
        from typer.completion import completion_init  # type: ignore[attr-defined]

        completion_init()
    try:
        result = build().main(arguments, prog_name="zwheel", complete_var=COMPLETE_VARIABLE, standalone_mode=False)
    except TyperException as error:
        return _usage(error, json="--json" in arguments)
    except typer.Abort:
        return ExitCode.INTERRUPTED
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):
            raise end.__context__ from None
        raise
    return result if isinstance(result, int) else ExitCode.OK


def _usage(error: TyperException, *, json: bool) -> int:
    """Say what is wrong with the command line in one sentence; a group without a command shows its help."""
    from .exits import ExitCode
    from .output import Output

    out = Output(json=json)
    message = error.format_message()
    if message.startswith("Usage:"):
        out.stderr.write(message + "\n")
        return ExitCode.USAGE
    context = getattr(error, "ctx", None)
    hint = f"; see {context.command_path} --help" if context is not None else ""
    sentence = " ".join(message.split()).rstrip(".")
    out.error(f"{sentence}{hint}", kind="UsageError", exit=int(ExitCode.USAGE))
    return ExitCode.USAGE
