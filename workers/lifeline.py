"""The line between a worker process and the process of ours that started it: a pair of sockets.

The parent asks over it to stop, so that a signal which reaches the whole unit counts once in each process. The child says
over it that it listens; before, the parent sends SIGTERM instead. Then it says that it claims jobs. When the line closes, the parent is gone.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable

#: Where the child finds the number of its end.
VARIABLE = "ZWHEEL_PARENT_LINE"
_LISTENING, _READY, _STOP = b"l", b"r", b"s"


class Lifeline:
    """The parent's end."""

    def __init__(self) -> None:
        self._own, self._childs = socket.socketpair()
        self._own.setblocking(False)
        self._heard = b""

    @property
    def descriptor(self) -> int:
        """The child's end: pass it on."""
        return self._childs.fileno()

    def environment(self) -> dict[str, str]:
        """What the child's environment has beyond this one's."""
        return {VARIABLE: str(self.descriptor)}

    def started(self) -> None:
        """The child has its end: close it here, or its own end would never show."""
        self._childs.close()

    def is_child(self) -> None:
        """This process is the child, forked: keep its end only."""
        os.environ[VARIABLE] = str(self._childs.detach())
        self._own.close()

    def ask(self, terminate: Callable[[], None]) -> None:
        """Ask the child to stop, once more. terminate: sends it SIGTERM, for as long as it does not listen."""
        if _LISTENING not in self._heard:
            with contextlib.suppress(OSError):
                self._heard += self._own.recv(16)
        if _LISTENING not in self._heard:
            terminate()
        with contextlib.suppress(OSError):
            self._own.send(_STOP)

    async def until_ready(self) -> None:
        """Wait until the child says that it claims jobs; for ever when it ends before."""
        import asyncio  # Here: the first process of a container does without.

        loop = asyncio.get_running_loop()
        while _READY not in self._heard:
            heard = await loop.sock_recv(self._own, 16)
            if not heard:
                await asyncio.Event().wait()
            self._heard += heard

    def close(self) -> None:
        """Let go of both ends."""
        self._own.close()
        self._childs.close()


def take_line() -> socket.socket | None:
    """Take the child's end, so that no process started from here gets it; None: no process of ours started this one."""
    number = os.environ.pop(VARIABLE, "")
    if not number.isdigit():
        return None
    try:
        line = socket.socket(fileno=int(number))
    except OSError:
        return None
    line.set_inheritable(False)
    line.setblocking(False)
    return line


def listen(line: socket.socket, asked: Callable[[], None], gone: Callable[[], None]) -> None:
    """Say that this process listens, and call `asked` and `gone` in the running loop."""
    import asyncio  # Here: the first process of a container does without.

    loop = asyncio.get_running_loop()

    def read() -> None:
        try:
            said = line.recv(16)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        for _ in range(said.count(_STOP)):
            asked()
        if not said:
            loop.remove_reader(line)
            gone()

    loop.add_reader(line, read)
    with contextlib.suppress(OSError):
        line.send(_LISTENING)


def say_ready(line: socket.socket) -> None:
    """Say that this process claims jobs now."""
    with contextlib.suppress(OSError):
        line.send(_READY)
