"""Jobs that run a command: the arguments of the task `zwheel.shell`, which a worker has only when it is told to."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence, Set
from typing import Any

from zwheel.errors import InvalidInput

#: The task that runs commands; `zwheel worker --allow-shell` registers it.
SHELL_TASK = "zwheel.shell"
DEFAULT_SHELL = "/bin/sh"
#: The longest single argument, line or variable that Linux hands to a program, bytes.
WORD_LIMIT = 131_071
#: The longest command with its input and its variables, bytes; a payload of a job holds a little more.
COMMAND_LIMIT = 250_000

_SHELLS = frozenset(
    f"{folder}/{name}" for folder in ("/bin", "/usr/bin", "/usr/local/bin")
    for name in ("sh", "bash", "dash", "ksh", "zsh")
)  # fmt: skip
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def shell_kwargs(
    *,
    argv: Sequence[str] | None = None,
    line: str | None = None,
    stdin: str = "",
    env: Mapping[str, str] | None = None,
    shell: str = DEFAULT_SHELL,
    home: bool = False,
) -> dict[str, Any]:
    """Check a command and give the keyword arguments of its job; what is left out has its default on the worker.

    Args:
        argv: A program and its arguments, run without a shell.
        line: A whole line, run by `shell`; either this or argv.
        stdin: What the command reads.
        env: Variables beside those that the worker passes on.
        shell: The absolute path of the shell that runs `line`.
        home: Whether it runs in the directory HOME, as cron does it; else where the worker runs.

    Raises: InvalidInput.
    """
    if (argv is None) == (line is None):
        raise InvalidInput("a command is either argv=, a program with its arguments, or line=, for a shell")
    kwargs: dict[str, Any] = {}
    size = 0
    if argv is not None:
        if isinstance(argv, str) or not isinstance(argv, Sequence) or not argv:
            raise InvalidInput("argv is a list of texts: the program and its arguments")
        size += sum(_size(word, "argv") for word in argv)
        if not argv[0]:
            raise InvalidInput("argv: the name of the program is empty")
        kwargs["argv"] = list(argv)
    else:
        size += _size(line, "line")
        assert line is not None
        if not line.strip():
            raise InvalidInput("line: there is no command in it")
        kwargs["line"] = line
        _size(shell, "shell")
        if not shell.startswith("/"):
            raise InvalidInput(f"shell: {shell[:100]!r} is not an absolute path, such as /bin/bash")
        if shell != DEFAULT_SHELL:
            kwargs["shell"] = shell
    if not isinstance(home, bool):
        raise InvalidInput("home is True or False")
    if home:
        kwargs["home"] = True
    if stdin:
        size += _size(stdin, "stdin", COMMAND_LIMIT)
        kwargs["stdin"] = stdin
    if env:
        kwargs["env"] = _variables(env)
        size += sum(_size(f"{name}={value}", f"env {name}") for name, value in env.items())
    if size > COMMAND_LIMIT:
        raise InvalidInput(f"the command is {size:,} bytes with its input, over the limit of {COMMAND_LIMIT:,}")
    return kwargs


def digest(text: str) -> str:
    """A short name for a text that is not shown itself."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


#: The entry of an allow-list that allows everything, as workers publish it.
EVERYTHING = digest("*")


def allows(entries: Set[str], needs: Set[str]) -> bool:
    """Whether an allow-list lets a command run that needs these entries; all of them as digests."""
    return needs <= entries or EVERYTHING in entries


def needed(argv: list[str] | None, line: str | None, env: Mapping[str, str], shell: str) -> dict[str, str]:
    """The entries that a command needs, each with what it is about."""
    if argv is not None:
        program = argv[0]
        wanted = {"*": f"the program {program!r}"} if _is_line(program) else {program: f"the program {program}"}
    else:
        wanted = {str(line): "this line"} | ({} if shell in _SHELLS else {"*": f"lines with {shell}"})
    names = (name for name in env if name not in ("TZ", "LANG") and not name.startswith("LC_"))
    return wanted | {f"{name}=": f"commands for which a job sets {name}" for name in names}


def _is_line(entry: str) -> bool:
    return any(character.isspace() for character in entry)


def _variables(env: Mapping[str, str]) -> dict[str, str]:
    if not isinstance(env, Mapping):
        raise InvalidInput("env is a mapping of names to texts")
    for name, value in env.items():
        if not isinstance(name, str) or not _VARIABLE.match(name):
            raise InvalidInput(f"env: {name!r} is not the name of a variable: use letters, digits and _")
        if not isinstance(value, str):
            raise InvalidInput(f"env: the value of {name} is not a text")
    return dict(env)


def _size(text: object, what: str, limit: int = WORD_LIMIT) -> int:
    """Give the size in bytes of a text that a program can be given."""
    if not isinstance(text, str):
        raise InvalidInput(f"{what}: a text is needed, not {type(text).__name__}")
    if "\0" in text:
        raise InvalidInput(f"{what}: a NUL character cannot be passed to a program")
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        raise InvalidInput(f"{what}: not valid UTF-8") from None
    if size > limit:
        raise InvalidInput(f"{what}: {size:,} bytes are over the limit of {limit:,}")
    return size
