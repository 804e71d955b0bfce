"""The renewer renews leases for a worker whose task holds the GIL, and for no other."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time

import pytest

from zwheel import SyncWheel
from zwheel.broker.store import SyncStore
from zwheel.calls import Session, claim, day_name, read_claim
from zwheel.payload.codec import Codec
from zwheel.times import DAY_MS
from zwheel.workers import WorkerSettings
from zwheel.workers import renewer as keeper_module
from zwheel.workers.alive import is_running
from zwheel.workers.renewer import Renewal, Renewer, Stillness, renew
from zwheel.workers.timeouts import Timeouts


def _claim_one(url: str, worker: str, lease_ms: int) -> tuple[SyncStore, Session, str]:
    with SyncWheel(url, namespace="zw") as wheel:
        job = wheel.enqueue("t", id="held")
    session = Session("zw", caller=worker)
    store = SyncStore(url, session)
    keys = session.keys("default")
    with session.lane() as lane:
        store.send([("PING",)])
        day = day_name(job.fire_at_ms // DAY_MS)
        time.sleep(0.002)  # what is due at once is due from the next ms on
        call = claim(keys, day=day, worker=worker, lease_ms=lease_ms, limit=1, lane=lane)
        (reply,) = store.send([call])
    assert len(read_claim(reply).jobs) == 2
    return store, session, "held"


def _deadline(store: SyncStore, session: Session, job_id: str) -> int:
    (score,) = store.send([("ZSCORE", session.keys("default").processing, job_id)])
    return int(float(score))


def test_it_renews_the_leases_of_its_own_worker_and_no_other(url: str) -> None:
    store, session, job_id = _claim_one(url, "aaaaaaaa", 1_000)
    before = _deadline(store, session, job_id)
    settings = WorkerSettings(lease_ms=60_000)
    keys = session.keys("default")
    assert renew(store, keys, "bbbbbbbb", settings) == 0
    assert _deadline(store, session, job_id) == before
    assert renew(store, keys, "aaaaaaaa", settings) == 1
    assert _deadline(store, session, job_id) > before + 30_000
    store.close()


def test_a_worker_that_holds_the_gil_keeps_its_leases(url: str) -> None:
    """The fork happens in this process; then it stops ticking and holds the GIL in a C call for three leases."""
    store, session, job_id = _claim_one(url, "aaaaaaaa", 1_500)
    settings = WorkerSettings(lease_ms=1_500)
    renewer = Renewer(url, "zw", "aaaaaaaa", settings)
    try:
        ctypes.PyDLL(None).usleep(4_500_000)
        (clock,) = store.send([("TIME",)])
        assert _deadline(store, session, job_id) > int(clock[0]) * 1000 + int(clock[1]) // 1000
    finally:
        renewer.close()
        store.close()


def test_a_stopped_process_does_not_count_as_running() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    try:
        assert is_running(child.pid)
        os.kill(child.pid, signal.SIGSTOP)
        deadline = time.monotonic() + 10
        while is_running(child.pid):
            assert time.monotonic() < deadline
            os.sched_yield()
    finally:
        child.kill()
        child.wait()
    assert not is_running(child.pid)


def test_a_worker_that_slept_together_with_its_keeper_is_not_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A paused container: both were frozen for two minutes, and the renewer runs first."""
    now = 1_000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    asked: list[int] = []
    monkeypatch.setattr(keeper_module, "ask_for_stacks", asked.append)
    stillness = Stillness(os.getpid(), WorkerSettings(lease_ms=1_500))
    now += 120
    stillness.slept()
    assert not stillness.begins() and not stillness.too_long(overdue=True)
    stillness.ask()
    assert asked == []
    now += 8
    assert stillness.begins(), "from here on silence counts"
    stillness.ask()
    stillness.ask()
    assert asked == [os.getpid()]
    assert stillness.too_long(overdue=True)


def test_it_ends_when_its_worker_closes_the_pipe(url: str) -> None:
    renewer = Renewer(url, "zw", "aaaaaaaa", WorkerSettings())
    renewer.tick()
    renewer.close()
    assert not is_running(renewer.pid)


def test_the_timeout_of_a_large_job_is_read_with_its_body(url: str) -> None:
    with SyncWheel(url, namespace="zw", codec=Codec(compress_over=None)) as wheel:

        @wheel.task(name="large")
        def work(text: str) -> None: ...

        job = wheel.enqueue("large", args=["x" * 5_000], id="large", timeout=0.001)
    session = Session("zw", caller="aaaaaaaa")
    store = SyncStore(url, session)
    keys = session.keys("default")
    settings = WorkerSettings(lease_ms=500)
    renewal = Renewal(url, "zw", "aaaaaaaa", settings, None, Timeouts({"large": work}, Codec(compress_over=None)))
    time.sleep(0.002)
    with session.lane() as lane:
        day = day_name(job.fire_at_ms // DAY_MS)
        (reply,) = store.send([claim(keys, day=day, worker="aaaaaaaa", lease_ms=60_000, limit=9, lane=lane)])
    assert read_claim(reply).jobs[::2] == [b"large"]
    assert not renewal.run()
    time.sleep(0.55)
    assert renewal.run(), "its timeout and a lease are over"
    store.close()
