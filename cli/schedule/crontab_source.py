"""Where a crontab comes from: its text, its format, and whose its schedules are."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

from zwheel.cli.context import Context
from zwheel.errors import InvalidInput

from .owner import owner_of

_SYSTEM_FILE, _SYSTEM_FOLDER = "/etc/crontab", "/etc/cron.d/"
#: Where cron keeps what `crontab -e` writes, on Linux and on the BSDs.
_USER_FOLDERS = ("/var/spool/cron/", "/var/cron/tabs/", "/usr/lib/cron/tabs/")
_MOST_BYTES = 10_000_000


@cache
def is_user(name: str) -> bool:
    """Whether this machine has a user of that name."""
    try:
        import pwd

        pwd.getpwnam(name)
    except (ImportError, KeyError, ValueError):
        return False
    return True


@cache
def is_program(name: str) -> bool:
    """Whether this machine has a program of that name."""
    return shutil.which(name) is not None


class Source:
    """One crontab that was named on the command line."""

    def __init__(self, path: str) -> None:
        """Read it; `-` is stdin. Raises: OSError, InvalidInput."""
        from zwheel.schedules.crontab import crontab_text

        self.stdin = path == "-"
        self.path = "stdin" if self.stdin else os.path.abspath(path)
        raw = sys.stdin.buffer.read(_MOST_BYTES + 1) if self.stdin else Path(path).read_bytes()
        if len(raw) > _MOST_BYTES:
            raise InvalidInput(f"{path}: a crontab of more than 10 MB is none")
        self.text = crontab_text(raw)

    def _lies(self, *places: str) -> bool:
        paths = {self.path, os.path.realpath(self.path)}
        return not self.stdin and any(
            path.startswith(place) if place.endswith("/") else path == place for path in paths for place in places
        )

    @property
    def users(self) -> Callable[[str], bool] | None:
        """Who may be named before a command: where cron itself reads the file, only users that exist."""
        return is_user if self._lies(_SYSTEM_FILE, _SYSTEM_FOLDER) else None

    def is_system(self, ctx: Context) -> bool:
        """Whether its lines have a user before the command; asks a person where that is not clear.

        Raises: InvalidInput where nobody can be asked.
        """
        from zwheel.schedules.crontab_format import Format, format_of

        if self._lies(_SYSTEM_FILE, _SYSTEM_FOLDER):
            return True
        # What `crontab -l` shows has no users, whatever its commands are called; but no command is called root.
        by_user = self.stdin or self._lies(*_USER_FOLDERS)
        found, word = format_of(self.text, is_user=lambda name: not by_user and is_user(name), is_program=is_program)
        if found is Format.UNCLEAR or (by_user and found is Format.SYSTEM):
            if self.stdin or not ctx.out.interactive:
                raise InvalidInput(
                    f"{self.path}: is {word!r} the user that runs a command, or its first word? "
                    "Say --system for the format of /etc/crontab, or --user for that of crontab -l"
                )
            return ctx.out.confirm(f"{self.path}: is {word!r} the user that runs the command, not its first word?")
        return found is Format.SYSTEM

    def owner(self, prefix: str | None) -> str:
        """Whose its schedules are: the whole path, or for stdin who gave it, on which machine, with which prefix.

        Where cron keeps its files every machine has some of its own: the path stands behind the machine's name then.
        """
        import socket

        host = socket.gethostname()
        if not self.stdin and not self._lies(_SYSTEM_FILE, _SYSTEM_FOLDER, *_USER_FOLDERS):
            return owner_of("crontab", self.path)
        if not self.stdin:
            name = f"{host}:{self.path}"
        else:
            import getpass

            try:
                user = getpass.getuser()
            except (KeyError, OSError):
                user = str(os.getuid())
            name = f"{user}@{host}" + (f":{prefix}" if prefix else "")
        return "crontab:" + name.encode("utf-8", "backslashreplace").decode()
