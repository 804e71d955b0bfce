"""Timeouts are read from stored records, by processes that have no claim."""

from __future__ import annotations

from zwheel import Wheel
from zwheel.calls import NewJob
from zwheel.payload.codec import DEFAULT
from zwheel.workers.timeouts import Timeouts


def record(made: NewJob) -> tuple[bytes, bytes]:
    return made.id.encode(), b"2p0001" + b"0" * 31 + b"w" * 8 + made.tail[8:] + made.body


def test_timeouts_are_read_from_a_stored_record_and_none_from_one_that_cannot_be_read() -> None:
    wheel = Wheel("redis://localhost/0")

    @wheel.task(name="limited", timeout=2)
    def limited() -> None:
        pass

    @wheel.task(name="free")
    def free() -> None:
        pass

    timeouts = Timeouts(wheel.tasks, DEFAULT)

    assert timeouts.of(*record(limited.job())) == 2000
    assert timeouts.of(*record(limited.options(timeout=7).job())) == 7000
    assert timeouts.of(*record(free.job())) is None
    assert timeouts.of(*record(free.options(timeout=0.5).job())) == 500
    assert timeouts.of(*record(wheel.new_job("stranger", timeout=3))) is None
    job_id, raw = record(limited.job())
    for damaged in (raw[:60], raw[:-1] + b"\xc1", b"", b"2p" + b"\xff" * 80):
        assert timeouts.of(job_id, damaged) in (None, 2000)
