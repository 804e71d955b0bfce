"""Which format a crontab has: with a user before each command, or without."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from zwheel.schedules.crontab import crontab_lines, user_of, variable, words_of

#: Users of many systems whose names are those of commands as well.
_ALSO_COMMANDS = frozenset({
    "backup", "bin", "deploy", "games", "git", "halt", "list", "lp", "mail", "man", "mysql", "news", "operator",
    "postgres", "proxy", "redis", "shutdown", "sync", "uucp",
})  # fmt: skip
#: Users that no command is called like.
_NO_COMMANDS = frozenset({"root", "daemon", "nobody", "www-data", "Debian-exim"})
#: What a command may begin with that is no program.
_SHELL_WORDS = frozenset({"cd", "test", "[", "[[", "{", "(", "!", "if", ".", "source", "export", "exec", "command"})


class Format(StrEnum):
    """What the lines of a crontab have before their command."""

    USER = "user"
    """Nothing, as `crontab -l` shows them."""
    SYSTEM = "system"
    """A user, as in /etc/crontab and /etc/cron.d."""
    UNCLEAR = "unclear"
    """It can be read in both ways, and a word of each command depends on it."""


def format_of(text: str, *, is_user: Callable[[str], bool], is_program: Callable[[str], bool]) -> tuple[Format, str]:
    """Tell the format by the sixth words of the lines, with the word that it hangs on.

    It is the system format when each of them is a user that exists, and one at least is followed by a command and could
    not be one itself.
    """

    def could_run(word: str) -> bool:
        return "/" in word or "=" in word or word in _SHELL_WORDS or is_program(word)

    def could_be_program(word: str) -> bool:
        return word != "root" and (word in _ALSO_COMMANDS or is_program(word))

    count, users, sure = 0, [], ""
    for line in crontab_lines(text):
        if not line or line.startswith("#") or variable(line) is not None:
            continue
        words = words_of(line)[1].split(None, 2)
        if not words:
            continue
        count += 1
        user = user_of(words[0])
        if user is None or len(words) < 2 or not (user == "root" or is_user(user)):
            continue
        # What follows a user is a command; what follows a command may be an option or any other word.
        is_command, runs = could_be_program(user), could_run(words[1])
        if user == "root" or not (words[1].startswith("-") or (is_command and not runs)):
            users.append(user)
            if user in _NO_COMMANDS or (runs and not is_command):
                sure = sure or user
    if not users:
        return Format.USER, ""
    if len(users) == count:
        return (Format.SYSTEM, sure) if sure else (Format.UNCLEAR, users[0])
    # No program is called root: either these lines or the others are not what they seem.
    return (Format.UNCLEAR, "root") if "root" in users else (Format.USER, "")
