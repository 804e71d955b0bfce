"""What a worker cannot make sense of ends no part of it: it is said at a bounded rate, and tried again ever less often."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from tests.workers.harness import Log, eventually, one_kind, running
from zwheel import Wheel
from zwheel.calls import read_claim
from zwheel.errors import ZwheelError
from zwheel.logs import TextLines
from zwheel.outside import Escaping, Sayer, escape, escaped, shown
from zwheel.workers import poller as pollers
from zwheel.workers import reaper as reapers
from zwheel.workers import scheduler as schedulers

pytestmark = [pytest.mark.anyio]


def twice(real: Callable[..., Any], times: int = 3) -> tuple[Callable[..., Any], list[int]]:
    """A reader that fails so many times, then reads."""
    failed: list[int] = []

    def read(*given: Any) -> Any:
        if len(failed) < times:
            failed.append(1)
            raise IndexError("an answer that no script gives")
        return real(*given)

    return read, failed


@one_kind
async def test_an_answer_that_cannot_be_read_costs_one_queue_a_moment(
    wheel: Wheel, log: Log, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    @wheel.task(name="t")
    async def nothing() -> None: ...

    async with running(wheel, log, queues=("default", "other"), concurrency=1, prefetch=0):
        await wheel.enqueue("t", id="first")
        await log.seen("done", "first")
        read, failed = twice(read_claim)
        monkeypatch.setattr(pollers, "read_claim", read)
        await wheel.enqueue("t", id="unread")
        await eventually(lambda: _count(failed), lambda n: n >= 1)
        # The claim took no room with it.
        await wheel.enqueue("t", queue="other", id="beside")
        await log.seen("done", "beside")
        await wheel.enqueue("t", id="later")
        await log.seen("done", "later")
        await log.seen("done", "unread")
    assert sum("cannot be read" in r.getMessage() for r in caplog.records) == 1


async def _count(failed: list[int]) -> int:
    return len(failed)


@one_kind
@pytest.mark.parametrize("part", ["poller", "reaper", "scheduler"])
async def test_a_part_that_fails_goes_on(
    wheel: Wheel, log: Log, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, part: str
) -> None:
    @wheel.task(name="t", keep=60)
    async def nothing() -> None: ...

    place: dict[str, tuple[Any, str]] = {
        "poller": (pollers.Poller, "_may_claim"), "reaper": (reapers.Reaper, "_reap"),
        "scheduler": (schedulers.Scheduler, "_turn"),
    }  # fmt: skip
    kind, name = place[part]
    fail, failed = twice(getattr(kind, name))
    async with running(wheel, log):
        await wheel.enqueue("t", id="first")
        await log.seen("done", "first")
        monkeypatch.setattr(kind, name, fail)
        await wheel.add_schedule(wheel.new_schedule("s", "* * * * * *", "t"))
        await wheel.enqueue("t", id="second")
        await eventually(lambda: _count(failed), lambda n: n == 3, 20.0)
        await wheel.enqueue("t", id="third")
        for job in ("second", "third"):
            await log.seen("done", job)
        await eventually(lambda: wheel.schedule("s"), lambda info: info.state.fired > 0, 20.0)
    assert 1 <= sum("it goes on" in r.getMessage() for r in caplog.records) <= 2


def test_a_record_is_one_line_whatever_its_values_are(caplog: pytest.LogCaptureFixture) -> None:
    log = escaped("zwheel.test")
    assert escaped("zwheel.test") is log
    assert sum(isinstance(f, Escaping) for f in log.filters) == 1
    evil = "a\nb\x1b[2J\u202e\x9b" + "x" * 1_000_000
    log.warning("job %s of %r took %d ms: %s", evil, evil.encode(), 5, ValueError(evil))
    try:
        raise ValueError("line\nERROR forged")
    except ValueError:
        log.exception("it failed")
    one, two = caplog.records
    assert one.getMessage().isprintable()
    assert len(one.getMessage()) < 20_000
    assert "took 5 ms" in one.getMessage()
    text = logging.Formatter("%(message)s").format(two)
    assert all(line.startswith("  | ") for line in text.split("\n")[1:])


def test_what_tasks_and_libraries_log_forges_no_record_on_stderr() -> None:
    formatter = TextLines()
    record = logging.LogRecord("shop", logging.INFO, "", 0, "two\nlines\x1b[2J %s", ("x" * 200_000,), None)
    text = formatter.format(record)
    assert " shop: two\n    lines\\x1b[2J xxx" in text
    assert len(text) < 110_000


def every_error(kind: type[ZwheelError] = ZwheelError) -> list[type[ZwheelError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in every_error(child))]


def test_the_text_of_an_error_is_one_line_whatever_it_quotes() -> None:
    evil = "a\nERROR forged\x1b[2J\u202e" + "x" * 100_000
    for kind in every_error():
        error = Exception.__new__(kind)
        error.args = (evil,)
        assert str(error).startswith("a\\nERROR forged\\x1b[2J\\u202exxx"), kind
        assert len(str(error)) < 5_000


class Unshowable:
    """Raises when it is shown."""

    def __str__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain"), (b"\xff\n", r"\xff\n"), ("é\t\x00", r"é\t\x00"), ("\u202e\u2028", r"\u202e\u2028"),
        ("\ud800", r"\ud800"), (5, "5"), (None, "None"), (Unshowable(), "(it cannot be shown: RuntimeError)"),
        ("x" * 300, "x" * 200 + "... (100 more characters)"),
    ],
    ids=range(9),
)  # fmt: skip
def test_a_value_is_shown_in_one_line(value: object, text: str) -> None:
    assert shown(value) == text
    assert escape(text).isprintable()


def test_the_same_trouble_is_said_once_and_many_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    sayer = Sayer(escaped("zwheel.test"), most=3)
    for number in range(100):
        sayer.say(logging.ERROR, "same", "the same %d", number)
    for number in range(10):
        sayer.say(logging.ERROR, number, "other %d", number)
    assert [r.getMessage() for r in caplog.records] == ["the same 0", "other 0", "other 1"]
