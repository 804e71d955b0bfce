"""A runner without a worker around it: what the runtime holds, step by step."""

from __future__ import annotations

import time
from collections.abc import Sequence

from tests.workers.harness import Log
from zwheel import Reason, Wheel
from zwheel.calls import Session
from zwheel.calls.settle import ENDS
from zwheel.job import Failure, QueueName
from zwheel.payload.codec import DEFAULT
from zwheel.record import write_failures
from zwheel.workers.claims import Claim, Slots
from zwheel.workers.runner import Runner
from zwheel.workers.settler import Settler

_LETTERS = {end: letter for letter, end in ENDS.items()}


class Hands:
    """A runner without a worker around it, and claims made up for it."""

    def __init__(self, wheel: Wheel, concurrency: int, lease_ms: int = 600) -> None:
        self.session = session = Session("zw", caller="w" * 8)
        self.log = Log()
        self.slots = Slots(concurrency, 10)
        self.runner = Runner(wheel.tasks, DEFAULT, session, self.slots, "w" * 8, 1000, lease_ms, self.log)
        self.settler = Settler(session, session.keys("default"), "w" * 8, 100, settled=self.runner.settled)
        self.wheel = wheel

    def claim(
        self, task: str, *, token: int = 1, age_ms: int = 0, args: Sequence[object] = (), attempt: int = 1,
        reasons: Sequence[Reason] = (), fire_ms: int = 1,
    ) -> Claim:  # fmt: skip
        job = self.wheel.new_job(task, args=args)
        tail = job.tail[8:]
        if reasons:
            lines = write_failures([Failure(at_ms=1, attempt=n, reason=reason) for n, reason in enumerate(reasons)])
            tail = tail[:4] + b"01f%05d" % len(lines) + lines + tail[6:]
        raw = f"2p{attempt:04d}{fire_ms:015d}{token:016d}".encode() + b"w" * 8 + tail + job.body
        return Claim(job.id.encode(), raw, QueueName("default"), time.monotonic_ns() - age_ms * 1_000_000)

    def rescue(self) -> None:
        for claim, settler in self.runner.held.copy().items():
            self.runner.rescue(claim, settler)

    def hold(self, claim: Claim) -> None:
        self.slots.held += 1
        self.runner.hold(claim, self.settler, lambda: None)
        self.runner.start_due()

    def submit(self, claim: Claim) -> None:
        self.slots.held += 1
        self.runner.submit(claim, self.settler, lambda: None)

    @property
    def waiting(self) -> list[str]:
        """What is sent, and acknowledged."""
        ended: list[str] = []
        for call, read in self.settler.take():
            ends = [job["end"] for job in call.trace(None).jobs]
            read(["ok", 1, "".join(_LETTERS[end] for end in ends)])
            ended += ends
        return list(dict.fromkeys(ended))
