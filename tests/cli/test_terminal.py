"""What a person at a terminal sees: the commands run on a pseudo-terminal."""

from __future__ import annotations

import os
import pty
import select
import signal
import time

import pytest

from zwheel.cli import output
from zwheel.cli.output import Output

from .conftest import Hand, Shell

LIMIT_S = 100.0


def read_until(terminal: int, awaited: bytes | None) -> bytes:
    """Read what the terminal shows until a text appears, or with None until the command ends."""
    shown = b""
    deadline = time.monotonic() + LIMIT_S
    while awaited is None or awaited not in shown:
        ready, _, _ = select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"{awaited!r} did not appear in {shown!r}"
        try:
            piece = os.read(terminal, 65_536)
        except OSError:
            piece = b""
        if not piece:
            assert awaited is None, f"{awaited!r} did not appear in {shown!r}"
            break
        shown += piece
    return shown


def on_terminal(shell: Shell, *arguments: str, answer: str | None = None, **environment: str) -> tuple[int, str]:
    """Run a command on a terminal, answer its question, and give its exit code and all that was shown."""
    ours, theirs = pty.openpty()
    shell.environment.update({"TERM": "xterm", "COLUMNS": "100", **environment})
    process = shell.process(*arguments, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    try:
        shown = b""
        if answer is not None:
            shown = read_until(ours, b"[y/N] ")
            os.write(ours, answer.encode() + b"\n")
        shown += read_until(ours, None)
    finally:
        os.close(ours)
    return process.wait(LIMIT_S), shown.decode()


@pytest.mark.parametrize("verb", ["purge", "redrive"])
def test_ctrl_c_at_a_question_ends_the_command_at_once_and_changes_nothing(shell: Shell, hand: Hand, verb: str) -> None:
    shell.ok("enqueue", "t", "--id", "dead")
    hand.kill("dead")
    ours, theirs = pty.openpty()
    process = shell.process("dead", verb, "-q", "default", stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    try:
        read_until(ours, b"[y/N] ")
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT_S) == 130
    finally:
        os.close(ours)
    assert shell.ok("job", "show", "dead", "--json").document["state"] == "dead"


def test_a_table_has_colours_on_a_terminal_and_no_foreign_escapes(shell: Shell, hand: Hand) -> None:
    shell.ok("enqueue", "t", "--id", "a-very-long-id-that-a-person-copies-" + "x" * 60)
    shell.ok("enqueue", "t", "--id", "dead")
    hand.kill("dead")
    code, shown = on_terminal(shell, "job", "ls")
    assert code == 0
    assert "a-very-long-id-that-a-person-copies-" + "x" * 60 in shown
    assert "\x1b[31mdead" in shown


def test_columns_that_a_narrow_terminal_has_no_room_for_are_named(shell: Shell, hand: Hand) -> None:
    shell.ok("enqueue", "a.long.name.of.a.task.that.takes.some.room", "--id", "a-very-long-id-that-a-person-copies")
    _, narrow = on_terminal(shell, "job", "ls", COLUMNS="60")
    _, wide = on_terminal(shell, "job", "ls", COLUMNS="250")
    titles = next(line for line in wide.splitlines() if "id" in line.lower()).split()
    left_out = narrow.partition("without ")[2].partition(":")[0].split(", ")
    assert left_out and all(word.lower() in " ".join(titles).lower() for word in left_out)
    assert "this terminal is too narrow" in narrow and "too narrow" not in wide
    heading = narrow.partition("without ")[0].lower()
    assert not [word for word in left_out if f" {word.lower()} " in heading.splitlines()[0]]


@pytest.mark.parametrize("arguments", [("--no-color",), ()])
def test_colours_can_be_switched_off(shell: Shell, hand: Hand, arguments: tuple[str, ...]) -> None:
    shell.ok("enqueue", "t", "--id", "dead")
    hand.kill("dead")
    for command in (("job", "ls"), ("job", "show", "dead")):
        _, shown = on_terminal(shell, *command, *arguments, **({} if arguments else {"NO_COLOR": "1"}))
        assert "\x1b[3" not in shown
        assert "dead" in shown


def test_a_person_is_asked_before_a_purge(shell: Shell) -> None:
    shell.ok("enqueue", "t", "--in", "1h")
    purge = ("queue", "purge", "default", "--state", "scheduled")
    for answer in ("n", ""):
        code, shown = on_terminal(shell, *purge, answer=answer)
        assert code == 6
        assert "Delete 1 scheduled job of default? [y/N] " in shown
        assert "nothing was changed" in shown
    assert shell.ok("queue", "show", "default", "--json").document["scheduled"] == 1
    code, shown = on_terminal(shell, *purge, answer="y")
    assert code == 0
    assert "1 scheduled job of default deleted" in shown
    assert shell.ok("queue", "show", "default", "--json").document["scheduled"] == 0


class Terminal:
    """A stderr that says it is a terminal."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("delay_s", "shows"), [(0.0, True), (1000.0, False)])
def test_a_bar_appears_for_long_work_only(monkeypatch: pytest.MonkeyPatch, delay_s: float, shows: bool) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(output, "BAR_AFTER_S", delay_s)
    terminal = Terminal()
    out = Output(stderr=terminal)  # type: ignore[arg-type]
    with out.progress("purge \x1b[31mq", 10) as report:
        report(5)
        report(10, "almost")
    assert ("purge q" in terminal.text or "almost" in terminal.text) == shows
    assert "\x1b[31mq" not in terminal.text


@pytest.mark.parametrize("setting", ["quiet", "json"])
def test_a_bar_stays_away_when_it_is_not_wanted(monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    monkeypatch.setattr(output, "BAR_AFTER_S", 0.0)
    terminal = Terminal()
    out = Output(stderr=terminal, **{setting: True})  # type: ignore[arg-type]
    with out.progress("work", 10) as report:
        report(5)
    assert terminal.text == ""


def test_what_is_left_out_has_a_name_and_the_queues_fit_into_80_columns(shell: Shell, hand: Hand) -> None:
    shell.ok("enqueue", "t", "--queue", "emails", "--in", "4m")
    _, shown = on_terminal(shell, "queue", "ls", COLUMNS="80")
    assert max(line.count("─") for line in shown.splitlines()) <= 80, shown
    shell.ok("enqueue", "t", "--id", "a-very-long-id-that-a-person-copies")
    hand.kill("a-very-long-id-that-a-person-copies")
    _, narrow = on_terminal(shell, "dead", "ls", COLUMNS="40")
    assert all(name.strip() for name in narrow.partition("without ")[2].partition(":")[0].split(",")), narrow
