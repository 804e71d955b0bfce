"""The history of a run: every call with its outcome and every attempt of a handler, as lines of JSON.

Off unless `ZWHEEL_HISTORY` names a directory or a wheel is given one. Each process appends to a file of its own there:
one unbuffered write a line, so that a process that is killed loses no line it wrote. `zwheel verify` reads them;
docs/history.md describes them.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import time
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from zwheel.calls.call import UNCHANGED, Call, clock_us
from zwheel.calls.session import Session
from zwheel.calls.traces import request_of
from zwheel.calls.waits import WAITS, reached
from zwheel.errors import (
    BrokerFull,
    BrokerRefused,
    BrokerUnavailable,
    ConfigError,
    OutcomeUnknown,
    QueueFull,
    ZwheelError,
)
from zwheel.keys import TAG, shard_named

#: The environment variable that names the directory, and the one that asks for an fsync after each handler's line.
VARIABLE = "ZWHEEL_HISTORY"
FSYNC_VARIABLE = "ZWHEEL_HISTORY_FSYNC"

_TAG = re.compile(f"{TAG}:")
#: Events of a worker that last from one time to another, monotonic seconds, and the words for them in a history.
_SPANS = {"looked": "look", "stalled": "stall"}
_open: dict[tuple[int, str], History] = {}


class History:
    """The file of one process in a directory. Safe to share between threads."""

    def __init__(self, directory: str | os.PathLike[str], *, fsync: bool = False) -> None:
        """Make the directory and the file. fsync: after each line of a handler. Raises: ConfigError."""
        self.host = socket.gethostname()
        self.pid = os.getpid()
        self.fsync = fsync
        self.path = Path(directory) / f"{self.host}-{self.pid}-{secrets.token_hex(4)}.jsonl"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ConfigError(f"the history cannot be written to {os.fspath(directory)}: {error.strerror}") from None
        self._numbers = count(1)

    @classmethod
    def of(cls, directory: str | os.PathLike[str]) -> History:
        """Give this process's file in a directory, opened once; a forked child gets its own. Raises: ConfigError."""
        key = (os.getpid(), os.path.abspath(directory))
        found = _open.get(key)
        if found is None:
            fsync = os.environ.get(FSYNC_VARIABLE, "") not in ("", "0")
            found = _open[key] = cls(directory, fsync=fsync)
        return found

    def number(self) -> int:
        """Take the next sequence number of this file."""
        return next(self._numbers)

    def write(self, lines: Sequence[Mapping[str, object]], *, sync: bool = False) -> None:
        """Append lines in one write."""
        text = "".join([json.dumps(line, separators=(",", ":")) + "\n" for line in lines])
        os.write(self._fd, text.encode())
        if sync:
            os.fsync(self._fd)

    def close(self) -> None:
        """Close the file."""
        _open.pop((self.pid, os.path.abspath(self.path.parent)), None)
        os.close(self._fd)


class Recorder:
    """Writes what one session does. A store calls it around each round trip, a runner around each attempt."""

    __slots__ = ("_history", "_proc", "_session")

    def __init__(self, history: History, session: Session) -> None:
        self._history = history
        self._session = session
        self._proc = f"{history.host}:{history.pid}:{session.caller}"

    def _line(self, seq: int, op: str, phase: str) -> dict[str, Any]:
        return {"seq": seq, "proc": self._proc, "op": op, "phase": phase}

    def _stamps(self) -> dict[str, int]:
        # Where a test gives the time, no other clock may run beside it: a stall would look like a step back.
        mono_ns = int(self._session.now) * 1000 if self._session.now else time.monotonic_ns()
        return {"mono_ns": mono_ns, "wall_ns": time.time_ns()}

    def _estimate(self) -> dict[str, int]:
        """The server's clock as it is believed here, µs, and by how much that may be wrong."""
        if self._session.now:
            return {"est_us": int(self._session.now), "err_us": 0}
        clock = self._session.clock
        return {"est_us": clock.now_us(), "err_us": clock.error_us()}

    def invoke(self, commands: Sequence[Call | tuple[Any, ...]]) -> Span:
        """Write the `invoke` line of each change among the commands; the span takes what becomes of them."""
        return Span(self, commands)

    def attempt(self, op: str, facts: Mapping[str, object], outcome: str = "") -> None:
        """Write the `start` or the `end` of one attempt. facts: job, queue, token, attempt, fire."""
        line = self._line(self._history.number(), op, "ok")
        line["queue"] = facts.get("queue")
        job = {"id": facts["job"], "token": facts["token"], "attempt": facts["attempt"]}
        if "fire" in facts:
            job["fire"] = facts["fire"]
        line["jobs"] = [job]
        if outcome:
            line["args"] = {"outcome": outcome}
        line |= self._estimate() | self._stamps()
        self._history.write([line], sync=self._history.fsync)

    def observe(self, event: str, facts: Mapping[str, Any]) -> None:
        """Write lines for what a worker's parts tell: attempts, looks, stalls, and a reaper that holds itself back."""
        if event == "start":
            self.attempt("start", facts)
        elif event == "held":
            self._tell("hold", facts["queue"])
        elif event in _SPANS:
            now, us = time.monotonic(), self._estimate()["est_us"]
            window = [us - int((now - facts[edge]) * 1e6) for edge in ("since", "until")]
            self._tell(_SPANS[event], facts.get("queue"), {"args": {"window": window}})
        elif "token" in facts:
            self.attempt("end", facts, event)

    def _tell(self, op: str, queue: str | None, more: Mapping[str, object] | None = None) -> None:
        line = self._line(self._history.number(), op, "ok") | {"queue": queue, "jobs": [], **(more or {})}
        self._history.write([line | self._estimate() | self._stamps()])


class Span:
    """The changes of one round trip, under way."""

    __slots__ = ("_changes", "_commands", "_recorder")

    def __init__(self, recorder: Recorder, commands: Sequence[Call | tuple[Any, ...]]) -> None:
        self._recorder = recorder
        self._commands = commands
        self._changes: list[tuple[int, int, Call | tuple[Any, ...], dict[str, Any]]] = []
        lines = []
        stamps: dict[str, int] = {}
        for position, command in enumerate(commands):
            asked = _asked(command)
            if asked is None:
                continue
            stamps = stamps or recorder._estimate() | recorder._stamps()
            seq = recorder._history.number()
            op = asked.pop("op")
            lines.append(recorder._line(seq, op, "invoke") | asked | stamps)
            common: dict[str, Any] = {key: asked[key] for key in ("queue", "request") if key in asked}
            self._changes.append((position, seq, command, {"op": op, **common}))
        if lines:
            recorder._history.write(lines)

    def ended(self, replies: Sequence[Any], error: BaseException | None = None) -> None:
        """Write the outcome of each change.

        replies: what arrived, in the order of the commands, exceptions among it; empty: nothing did.
        error: what ended the round trip, when it did not end well. Where it says that the answer was lost, what did
        arrive counts for nothing: the caller does not know it.
        """
        lines = []
        stamps = self._recorder._stamps()
        unheard = not replies or isinstance(error, OutcomeUnknown)
        for position, seq, command, common in self._changes:
            reply = error if unheard else replies[position]
            if error is not None and _is_missing(reply):
                reply = error
            phase, told = _outcome(command, reply)
            if common["op"] == "enqueue" and told.get("word") == "ok":
                told |= _receipt(told["args"], self._commands, replies)
            lines.append(self._recorder._line(seq, common["op"], phase) | common | told | stamps)
        if lines:
            self._recorder._history.write(lines)


def _is_missing(reply: object) -> bool:
    return isinstance(reply, BaseException) and str(reply).startswith(("NOSCRIPT", "No matching script"))


def _asked(command: Call | tuple[Any, ...]) -> dict[str, Any] | None:
    """What a command asks for; None when it changes nothing that a history is about."""
    if isinstance(command, Call):
        if command.tell is None:
            return None
        told = command.trace(None)
        found = _TAG.match(command.keys[0])
        asked = {
            "op": command.script.name,
            "queue": shard_named(found[2], found[3]) if found else "",
            "args": told.args,
            "jobs": told.jobs,
        }
        request = request_of(command)
        return asked if request is None else asked | {"request": request}
    return _asked_plainly(command)


def _asked_plainly(command: tuple[Any, ...]) -> dict[str, Any] | None:
    if len(command) < 3 or command[0] not in ("HSET", "HDEL"):
        return None
    found = _TAG.match(str(command[1]))
    if found is None or not str(command[1]).endswith("}:meta") or command[2] != "paused":
        return None
    return {
        "op": "pause" if command[0] == "HSET" else "resume",
        "queue": shard_named(found[2], found[3]),
        "args": {},
        "jobs": [],
    }


def _outcome(command: Call | tuple[Any, ...], reply: Any) -> tuple[str, dict[str, Any]]:
    """The phase of what became of a command, and what the answer tells."""
    if isinstance(reply, BaseException):
        return ("fail" if _known_undone(reply) else "info"), {"error": f"{type(reply).__name__}: {reply}"[:300]}
    if not isinstance(command, Call):
        return "ok", {"args": {}, "jobs": []}
    told = command.trace(reply)
    facts: dict[str, Any] = {"word": told.word, "redis_us": clock_us(reply), "args": told.args, "jobs": told.jobs}
    return ("fail" if told.word in UNCHANGED else "ok"), facts


def _receipt(args: dict[str, Any], commands: Sequence[Any], replies: Sequence[Any]) -> dict[str, Any]:
    """How safely an enqueue was stored, and what the server answered to who waited for that."""
    answers = {
        command[0].lower(): reply if command[0] == "WAIT" else reply[0]
        for command, reply in zip(commands, replies, strict=True)
        if command[0] in WAITS and not isinstance(reply, BaseException)
    }
    return {"receipt": str(reached(commands, replies)), "args": args | answers}


def _known_undone(error: BaseException) -> bool:
    """Whether the error says that nothing happened. A script that failed on its way may have done a part."""
    if not isinstance(error, Exception):
        return False
    if not isinstance(error, ZwheelError):
        from zwheel.broker.connect import translate

        if "user_script" in str(error) or " script: " in str(error):
            return False
        error = translate(error, "")
    elif error.__cause__ is not None and "user_script" in str(error.__cause__):
        return False
    return isinstance(error, (BrokerUnavailable, BrokerFull, BrokerRefused, QueueFull))
