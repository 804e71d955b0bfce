"""The course of the demo: start everything, feed the orders, kill a worker, wait for the end, take everything down.

A signal only sets a flag, which is looked at between short steps: whatever was started is known, and is ended.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from zwheel import JobState, SyncWheel, embedded
from zwheel.cli.context import Context
from zwheel.cli.exits import ExitCode
from zwheel.cli.when import human_count
from zwheel.errors import EmbeddedServerError, ZwheelError

from .app import DATABASE
from .orders import QUEUE, Order, make_orders, to_jsonl
from .report import Figures, Kill, measure
from .shop import Shop, now_us

if TYPE_CHECKING:
    from zwheel.cli.output import Report

#: After so long the demo counts what there is, s: it ends within 40 s, also where something is wrong.
LONGEST_S = 36.0
READY_S = 15.0
FEED_S = 10.0
ANSWER_S = 3.0
#: Short, so that what the killed worker held comes back while one watches.
LEASE = "2s"
CONCURRENCY = 20
#: How often to look, s; also how long a signal may go unnoticed.
LOOK_S = 0.02
#: The kill waits until the worker has begun jobs so lately that they cannot have ended, µs.
FRESH_US = 20_000
#: So many running jobs make a good moment for the kill; after this long any one does, s.
HELD = 3
PICKY_S = 3.0
END_S = 3.0
SAY_EVERY_S = 5.0


class DemoFailed(ZwheelError):
    """Something that the demo needs did not work. The message names it, and what it said last."""


class Stopped(Exception):
    """A signal asked for the end. Everything is taken down before this is raised."""

    def __init__(self, code: ExitCode) -> None:
        super().__init__(code)
        self.code = code


class Signals:
    """Notes SIGINT, SIGTERM and SIGHUP until it is left."""

    _CODES = {
        signal.SIGINT: ExitCode.INTERRUPTED,
        signal.SIGTERM: ExitCode.TERMINATED,
        signal.SIGHUP: ExitCode.TERMINATED,
    }

    def __init__(self) -> None:
        self._got: ExitCode | None = None

    def check(self) -> None:
        """Raise Stopped when a signal has arrived."""
        if self._got is not None:
            raise Stopped(self._got)

    def pause(self) -> None:
        """Wait for a moment. Raises: Stopped."""
        self.check()
        time.sleep(LOOK_S)
        self.check()

    def _note(self, number: int, frame: object) -> None:
        self._got = self._got or self._CODES[signal.Signals(number)]

    def __enter__(self) -> Signals:
        self._before = {number: signal.signal(number, self._note) for number in self._CODES}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class Stage:
    """The temporary directory, the server and the processes of one demo."""

    def __init__(self, signals: Signals) -> None:
        self.signals = signals
        self.home = Path(tempfile.mkdtemp(prefix="zwheel-demo-"))
        self.database = self.home / "shop.db"
        self.server: embedded.Server | None = None
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self._logs: dict[int, Path] = {}

    def start_server(self) -> embedded.Server:
        """Start the server. Raises: EmbeddedServerError."""
        self.server = embedded.start(self.home / "server")
        return self.server

    def spawn(self, *words: str, stdin: int, stdout: int, stderr: int) -> subprocess.Popen[bytes]:
        """Start `zwheel` with these words, away from the terminal's signals."""
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "zwheel.cli", *words],
            cwd=self.home,
            env=self._environment(),
            start_new_session=True,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
        )
        self.processes[process.pid] = process
        return process

    def start_worker(self, number: int) -> subprocess.Popen[bytes]:
        """Start a worker whose words go to a file."""
        path = self.home / f"worker-{number}.log"
        with path.open("wb") as log:
            worker = self.spawn(
                *("worker", "zwheel.cli.demo.app:wheel", "--queue", QUEUE, "--lease", LEASE, "--drain", "1s"),
                *("--concurrency", str(CONCURRENCY)),
                stdin=subprocess.DEVNULL,
                stdout=log.fileno(),
                stderr=log.fileno(),
            )
        self._logs[worker.pid] = path
        return worker

    def feed(self, text: str) -> dict[str, int]:
        """Pipe lines into `zwheel enqueue --jsonl -`; give each new job's id with its fire time, ms.

        Raises: DemoFailed, Stopped.
        """
        pipe = subprocess.PIPE
        process = self.spawn("enqueue", "--jsonl", "-", "--json", stdin=pipe, stdout=pipe, stderr=pipe)
        said: list[bytes] = []
        talking = threading.Thread(target=lambda: said.extend(process.communicate(text.encode())), daemon=True)
        talking.start()
        until = time.monotonic() + FEED_S
        while talking.is_alive():
            if time.monotonic() > until:
                raise DemoFailed(f"zwheel enqueue did not end within {FEED_S:.0f} s")
            self.signals.pause()
        out, err = said
        if process.returncode != 0:
            raise DemoFailed(f"zwheel enqueue ended with {process.returncode}: {err.decode(errors='replace').strip()}")
        answers = [json.loads(line) for line in out.splitlines()]
        return {answer["job_id"]: answer["fire_at_ms"] for answer in answers if not answer["existed"]}

    def check_workers(self, workers: Sequence[subprocess.Popen[bytes]]) -> None:
        """Make sure that these still run. Raises: DemoFailed with a worker's last words."""
        for worker in workers:
            if worker.poll() is not None:
                raise DemoFailed(
                    f"the worker {worker.pid} ended with {worker.returncode}: {self.last_words(worker.pid)}"
                )

    def last_words(self, pid: int) -> str:
        """Give the last lines that a worker wrote."""
        lines = self._logs[pid].read_text(errors="replace").splitlines()
        return " / ".join(lines[-3:]) or "it said nothing"

    def close(self) -> None:
        """End what was started, by its pid, and remove the directory. Bounded, and not to be interrupted."""
        living = [process for process in self.processes.values() if process.poll() is None]
        for process in living:
            process.terminate()
        until = time.monotonic() + END_S
        for process in living:
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for process in self.processes.values():
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
        try:
            embedded.stop(self.home / "server")
        except EmbeddedServerError:
            if self.server is not None:
                with suppress(ProcessLookupError):
                    os.kill(self.server.pid, signal.SIGKILL)
        shutil.rmtree(self.home, ignore_errors=True)

    def _environment(self) -> dict[str, str]:
        """The environment without any setting for another server; zwheel is found where this one was."""
        import zwheel

        assert self.server is not None
        others = ("ZWHEEL_", "_ZWHEEL_", "REDIS_URL")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(others)}
        found = [str(Path(zwheel.__file__).resolve().parents[1]), *filter(None, [kept.get("PYTHONPATH")])]
        return {
            **kept,
            "PYTHONPATH": os.pathsep.join(found),
            "ZWHEEL_URL": self.server.url,
            "ZWHEEL_HOME": str(self.home / "server"),
            DATABASE: str(self.database),
        }


class Payments:
    """The customers: each pays at its time, whatever the queue does."""

    def __init__(self, orders: Sequence[Order]) -> None:
        paying = [(order.paid_after_ms, order.number) for order in orders if order.paid_after_ms is not None]
        self._left = sorted(paying, reverse=True)
        self._started = time.monotonic()

    def arrive(self, shop: Shop) -> None:
        """Let those pay whose time has come."""
        elapsed_ms = (time.monotonic() - self._started) * 1000
        numbers = []
        while self._left and self._left[-1][0] <= elapsed_ms:
            numbers.append(self._left.pop()[1])
        if numbers:
            shop.pay(numbers)


def perform(ctx: Context) -> Figures:
    """Run the demo from start to end. Raises: Stopped, EmbeddedServerError, DemoFailed."""
    with Signals() as signals:
        stage = Stage(signals)
        try:
            return _Play(ctx, stage).run()
        finally:
            stage.close()


class _Play:
    """One run."""

    def __init__(self, ctx: Context, stage: Stage) -> None:
        self._ctx = ctx
        self._stage = stage
        self._began = time.monotonic()
        self._orders = make_orders()
        self._kill: Kill | None = None
        self._said = 0.0

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def run(self) -> Figures:
        stage, note = self._stage, self._ctx.out.note
        server = stage.start_server()
        note(f"started {server} in a temporary directory (pid {server.pid})")
        shop = Shop.create(stage.database, self._orders)
        wheel = SyncWheel(server.url, namespace="zw", timeout_s=ANSWER_S, give_up_s=ANSWER_S)
        try:
            workers = [stage.start_worker(number) for number in (1, 2)]
            self._await_workers(wheel, workers)
            note(f"started two workers (pids {workers[0].pid} and {workers[1].pid})")
            self._payments = Payments(self._orders)
            self._fire_at_ms = stage.feed(to_jsonl(self._orders))
            note(f"enqueued {len(self._fire_at_ms):,} orders through zwheel enqueue --jsonl -")
            self._watch(shop, workers)
            self._await_end(shop, wheel, [worker for worker in workers if worker.returncode is None])
            return measure(
                shop,
                self._fire_at_ms,
                self._kill,
                orders=len(self._orders),
                dead=wheel.count(QUEUE, JobState.DEAD),
                seconds=round(self._elapsed, 1),
                server=str(server),
            )
        finally:
            wheel.close()
            shop.close()

    def _await_workers(self, wheel: SyncWheel, workers: Sequence[subprocess.Popen[bytes]]) -> None:
        until = time.monotonic() + READY_S
        while not {process.pid for process in workers} <= {info.pid for info in wheel.workers(QUEUE)}:
            self._stage.check_workers(workers)
            if time.monotonic() > until:
                said = " / ".join(self._stage.last_words(worker.pid) for worker in workers)
                raise DemoFailed(f"the workers did not start within {READY_S:.0f} s: {said}")
            self._stage.signals.pause()

    def _watch(self, shop: Shop, workers: Sequence[subprocess.Popen[bytes]]) -> None:
        """Show how the jobs fire until it is time for the kill, then kill."""
        times = sorted(self._fire_at_ms.values())
        if not times:
            return
        middle_us = (times[0] + times[-1]) * 500
        with self._showing(shop) as look:
            while self._elapsed < LONGEST_S:
                look()
                self._stage.check_workers(workers)
                if now_us() >= middle_us and self._strike(shop, workers, now_us() - middle_us > PICKY_S * 1e6):
                    break
        if self._kill is not None:
            number = [worker.pid for worker in workers].index(self._kill.pid) + 1
            held, pid = shop.running(0).get(self._kill.pid, 0), self._kill.pid
            self._ctx.out.note(
                f"killed worker {number} (pid {pid}) with SIGKILL: it was running {human_count(held, 'job')}"
            )

    def _strike(self, shop: Shop, workers: Sequence[subprocess.Popen[bytes]], anyhow: bool) -> bool:
        """Kill the worker that runs the most jobs, if it runs enough of them."""
        running = shop.running(now_us() - FRESH_US)
        victim = max(workers, key=lambda worker: running.get(worker.pid, 0))
        if running.get(victim.pid, 0) < (1 if anyhow else HELD):
            return False
        victim.kill()
        victim.wait()
        self._kill = Kill(pid=victim.pid, at_us=now_us())
        return True

    def _await_end(self, shop: Shop, wheel: SyncWheel, workers: Sequence[subprocess.Popen[bytes]]) -> None:
        """Wait until all jobs have ended and Redis holds none of them any more, but not for ever."""
        with self._showing(shop) as look:
            while self._elapsed < LONGEST_S:
                look()
                self._stage.check_workers(workers)
                if shop.count("ended") >= len(self._fire_at_ms):
                    info = wheel.queue(QUEUE)
                    if not info.scheduled and not info.processing:
                        return

    @contextmanager
    def _showing(self, shop: Shop) -> Iterator[_Look]:
        with self._ctx.out.progress("firing", len(self._orders)) as report:
            yield _Look(self, shop, report)

    def look(self, shop: Shop, report: Report) -> None:
        """Let customers pay, show how far it is, wait for a moment."""
        self._payments.arrive(shop)
        began = shop.count("began")
        what = f"{began:,} of {len(self._orders):,} fired"
        report(began, what)
        if not self._ctx.out.stderr.isatty() and self._elapsed - self._said >= SAY_EVERY_S:
            self._said = self._elapsed
            self._ctx.out.note(f"{self._elapsed:4.0f} s  {what}")
        self._stage.signals.pause()


class _Look:
    """Looks once at how things stand; called in a loop."""

    def __init__(self, play: _Play, shop: Shop, report: Report) -> None:
        self._play, self._shop, self._report = play, shop, report

    def __call__(self) -> None:
        self._play.look(self._shop, self._report)
