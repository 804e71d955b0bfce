"""What carries out the calls of a run: a real server over its socket, at the time that the run says."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any, Protocol

import hiredis

from tests.lua.shard import Keyspace
from zwheel.calls import Call
from zwheel.calls.scripts import Script, all_scripts, reading

Command = Call | tuple[Any, ...]


#: The answer to a call whose script the server does not know: it did not run.
NOT_RUN = object()
#: The answer to a request that a later one of its lane overtook: it changed nothing.
LATE = object()


class Backend(Protocol):
    """One shard's server."""

    def run(self, commands: Sequence[Command]) -> list[Any]:
        """Carry out commands whose calls have their time in them; an answer each, or NOT_RUN."""

    def load(self, scripts: Sequence[Script]) -> None:
        """Have it know these scripts."""

    def forget_scripts(self) -> None:
        """Have it know none."""

    def keyspace(self, prefix: str, likely: Sequence[str] = ()) -> Keyspace:
        """What it holds below a prefix, replays left out; foreign keys below "?". likely: names of buckets there."""

    def reset(self) -> None:
        """Forget everything."""


class Server:
    """A real server on a Unix socket. scripts: what to run instead of the scripts of these names."""

    def __init__(self, path: str, scripts: dict[str, Script] | None = None) -> None:
        self.scripts = scripts or {}
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(20)
        self._socket.connect(path)
        self._reader = hiredis.Reader()
        self._knows_all = False

    def close(self) -> None:
        self._socket.close()

    def reset(self) -> None:
        """Empty it; what scripts it knows is the same for each run."""
        self.plain([("FLUSHALL",)])
        if not self._knows_all:
            self.load([*all_scripts(), reading("look")])
            self._knows_all = True

    def load(self, scripts: Sequence[Script]) -> None:
        """Have it know these scripts."""
        self.plain([("SCRIPT", "LOAD", self.scripts.get(script.name, script).source) for script in scripts])

    def forget_scripts(self) -> None:
        """What SCRIPT FLUSH by a person does."""
        self.plain([("SCRIPT", "FLUSH")])
        self._knows_all = False

    def plain(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """One round trip; errors come back as values."""
        self._socket.sendall(b"".join([hiredis.pack_command(tuple(words)) for words in commands]))
        replies: list[Any] = []
        while len(replies) < len(commands):
            reply = self._reader.gets()
            if reply is False:
                self._reader.feed(self._socket.recv(65536))
                continue
            replies.append(reply)
        return replies

    def run(self, commands: Sequence[Command]) -> list[Any]:
        words = [self._changed(command).command() if isinstance(command, Call) else command for command in commands]
        replies = self.plain(words)
        for command, reply in zip(commands, replies, strict=True):
            if isinstance(reply, hiredis.ReplyError):
                name = command.script.name if isinstance(command, Call) else command[0]
                if not str(reply).startswith("NOSCRIPT") and "ZWLATE" not in str(reply):
                    raise AssertionError(f"{name} failed: {reply}")
        return [_meant(reply) if isinstance(reply, hiredis.ReplyError) else reply for reply in replies]

    def _changed(self, call: Call) -> Call:
        other = self.scripts.get(call.script.name)
        return call if other is None else call._replace(script=other)

    def keyspace(self, prefix: str, likely: Sequence[str] = ()) -> Keyspace:
        guessed = list(dict.fromkeys((*_ALWAYS, *likely)))
        found, *replies = self.plain([("KEYS", "*"), *(_reading(name, prefix + name) for name in guessed)])
        names = sorted(key.decode() for key in found)
        own = [name.removeprefix(prefix) for name in names if name.startswith(prefix) and ":replay:" not in name]
        more = [name for name in own if name not in guessed]
        if more:
            guessed += more
            replies += self.plain([_reading(name, prefix + name) for name in more])
        keyspace: Keyspace = {"?": [name for name in names if not name.startswith((prefix, "zw:queues"))]}
        return keyspace | {name: _readable(name, reply) for name, reply in zip(guessed, replies, strict=True) if reply}


def _meant(error: Exception) -> object:
    return LATE if "ZWLATE" in str(error) else NOT_RUN


_ALWAYS = ("jobs", "bodies", "meta", "processing", "dead", "done", "days", "dedup", "dedup:expiry")
_HASHES = ("jobs", "bodies", "dedup", "meta", "workers", "schedules")


def _reading(short: str, key: str) -> tuple[Any, ...]:
    if short in _HASHES:
        return ("HGETALL", key)
    return (
        ("LRANGE", key, 0, -1) if short == "wake" or short.startswith("call:") else ("ZRANGE", key, 0, -1, "WITHSCORES")
    )


def _readable(short: str, reply: list[bytes]) -> Any:
    if short == "wake" or short.startswith("call:"):
        return [token.decode() for token in reply]
    pairs = zip(reply[::2], reply[1::2], strict=True)
    if short in ("jobs", "bodies"):
        return {name.decode(): raw for name, raw in pairs}
    if short in _HASHES:
        return {name.decode(): value.decode() for name, value in pairs}
    return {name.decode(): int(float(score)) for name, score in pairs}
