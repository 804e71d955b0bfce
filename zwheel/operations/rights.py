"""Asking the server what this user may do, before something is half done without a right."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Generator, Sequence
from typing import Any

from zwheel.broker.acl import Role, command_for, questions
from zwheel.broker.store import Steps
from zwheel.calls import Session
from zwheel.errors import BrokerRefused

#: Answers with the numbers of the commands in ARGV that are refused to its caller: each is how many words, then these.
#: A server that cannot be asked (fakeredis) has no users. One whose operator renamed a command does not know it. Redis 8
#: refuses to be asked with too few words: it gets more of them.
_ASK = """local may, refused, at, number = redis.acl_check_cmd, {}, 1, 0
while may and ARGV[at] do
  local words = {}
  for i = 1, tonumber(ARGV[at]) do
    words[i] = ARGV[at + i]
  end
  at, number = at + #words + 1, number + 1
  local known, allowed = pcall(may, unpack(words))
  for _ = 1, 4 do
    local said = not known and (type(allowed) == 'table' and allowed.err or tostring(allowed)) or ''
    if string.find(said, 'Wrong number of args', 1, true) then
      words[#words + 1] = '0'
      known, allowed = pcall(may, unpack(words))
    end
  end
  if not known or not allowed then
    refused[#refused + 1] = number
  end
end
return refused"""


#: Of so many queues one call asks.
_QUEUES = 100
#: So many missing rules a sentence names.
_NAMED = 12


def refused(commands: Sequence[Sequence[str | int]]) -> Generator[Any, list[Any], list[int]]:
    """Which of these commands the server would refuse to this user, counted from 0. None of them is carried out.

    Raises: BrokerRefused when scripts may not even be loaded.
    """
    sha = hashlib.sha1(_ASK.encode(), usedforsecurity=False).hexdigest()
    words = [word for command in commands for word in (len(command), *command)]
    _, numbers = yield (("SCRIPT", "LOAD", _ASK), ("EVALSHA", sha, 0, *words))
    return [number - 1 for number in numbers]


def missing_rights(session: Session, role: Role, queues: Sequence[str]) -> Steps[list[str]]:
    """Give the rules that this user lacks for a role in these queues, keys first; [] when it has them all.

    Raises: BrokerRefused when scripts may not even be loaded.
    """
    found: dict[str, None] = {}
    for start in range(0, max(1, len(queues)), _QUEUES):
        asked = questions(role, session.namespace, queues[start : start + _QUEUES], commands_too=start == 0)
        numbers = yield from refused([command for _, command in asked])
        found |= dict.fromkeys(asked[number][0] for number in numbers)
    lacking = list(found)
    keys = [rule for rule in lacking if rule.startswith("~")]
    # A command was asked about with a key: where that key is refused, its answer says nothing about the command.
    first = f"~{session.keys(queues[0]).tag}:*" if queues else ""
    return keys if first in keys else [*keys, *(rule for rule in lacking if rule.startswith("+"))]


_COMMAND = re.compile(r"run the '([^' ]+)' command")
_SCRIPT = re.compile(r"lacks (\+[^:;]+)")


def lacks(error: BrokerRefused, keys: str = "the right to a key") -> str:
    """The right that a user was refused for, as an ACL rule where the server names it; '' when it was no right.

    keys: what to call a refusal of the keys that were asked for: servers do not name them.
    """
    if error.code != "NOPERM":
        return ""
    said = str(error)
    if (found := _COMMAND.search(said)) is not None:
        return f"+{found[1]}"
    if (found := _SCRIPT.search(said)) is not None:
        return found[1].strip()
    return keys if "key" in said else "a right that the server does not name"


def in_words(missing: Sequence[str]) -> str:
    """Name missing rules, and of many the first ones and how many more there are."""
    more = len(missing) - _NAMED
    return " ".join(missing[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def refusal_of_rights(role: Role, namespace: str, queues: Sequence[str], missing: Sequence[str]) -> BrokerRefused:
    """Say in a sentence which rights a user lacks, and how it gets them."""
    return BrokerRefused(
        f"this Redis user lacks {in_words(missing)}: `{command_for(role, namespace, queues)}` prints the rules that it needs",
        "NOPERM",
    )
