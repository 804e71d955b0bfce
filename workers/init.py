"""The first process of a container: collects orphans and passes signals on, while the command itself runs in a child.

The kernel treats process 1 as no other: a signal without a handler is dropped, and every orphan becomes its child, which
stays as a zombie until somebody collects it. A worker cannot collect them itself: it would take the exit codes that its
tasks wait for.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

from .asks import AT_ONCE_S, STOP_SIGNALS, Asks
from .lifeline import Lifeline

#: Signals that are passed on as they come. Signals that ask to stop go over the line instead.
_PASSED_ON = (signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH, signal.SIGCONT)


def fork_below_init() -> None:
    """Go on in a child; this process stays as its init, and ends with the child's exit code.

    Call it first of all: before threads, and before an import that takes its time.
    """
    line = Lifeline()
    # A signal that arrives while we fork waits until there is somebody to pass it on to.
    signals = (*STOP_SIGNALS, *_PASSED_ON)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    child = os.fork()
    if child == 0:
        line.is_child()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    line.started()
    _Init(child, line).install()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    os._exit(_collect_until(child))


class _Init:
    """Passes signals on to the one child."""

    def __init__(self, child: int, line: Lifeline) -> None:
        self._child = child
        self._line = line
        self._asks = Asks()

    def install(self) -> None:
        """Take the signals from now on."""
        for number in STOP_SIGNALS:
            signal.signal(number, self._on_stop)
        for number in _PASSED_ON:
            signal.signal(number, self._pass_on)
        signal.signal(signal.SIGALRM, self._on_alarm)

    def _on_stop(self, number: int, _: FrameType | None) -> None:
        # Ctrl-C of a terminal reached the child as well.
        typed = number == signal.SIGINT and os.isatty(0)
        if self._asks.signal(number):
            self._line.ask(lambda: None if typed else self._send(number))
            if self._asks.count > 1:
                signal.setitimer(signal.ITIMER_REAL, AT_ONCE_S + 0.8)

    def _pass_on(self, number: int, _: FrameType | None) -> None:
        self._send(number)

    def _on_alarm(self, number: int, _: FrameType | None) -> None:
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        try:
            os.kill(self._child, number)
        except ProcessLookupError:
            return


def _collect_until(child: int) -> int:
    """Collect whatever ends until the child does. Returns its exit code, as a shell would tell it."""
    while True:
        ended, status = os.waitpid(-1, 0)
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
