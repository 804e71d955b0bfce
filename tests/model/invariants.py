"""What must hold whatever happened: looked up in what Redis holds and in what the scripts answered, not in the model.

The numbers are those of lua/README.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.lua.shard import Keyspace
from zwheel.job import Job, JobId, JobState, QueueName
from zwheel.record import read_record
from zwheel.times import day_of

HOME = {
    JobState.PROCESSING: "processing",
    JobState.DEAD: "dead",
    JobState.DONE: "done",
    JobState.CANCELLED: "done",
}


def read(keyspace: Keyspace) -> dict[str, Job]:
    """Every job by its id."""
    raws = keyspace.get("jobs", {})
    return {job_id: read_record(JobId(job_id), QueueName("q"), raw) for job_id, raw in raws.items()}


def check_places(keyspace: Keyspace, jobs: dict[str, Job]) -> None:
    """I9: each job is in exactly the one place that its state names. I10: buckets and their index agree."""
    buckets = {name.removeprefix("wheel:"): fires for name, fires in keyspace.items() if name.startswith("wheel:")}
    places = [*buckets.values(), *(keyspace.get(name, {}) for name in ("processing", "dead", "done"))]
    assert sum(map(len, places)) == len(jobs), "I9: a job is in no place, or in two, or a place holds no job"
    for job_id, job in jobs.items():
        if job.state is JobState.SCHEDULED:
            bucket = buckets.get(day_of(job.fire_at_ms), {})
            assert bucket.get(job_id) == job.fire_at_ms, f"I10: {job_id} is not in the bucket of its fire time"
        else:
            assert job_id in keyspace.get(HOME[job.state], {}), f"I9: {job_id} is not where its state says"
    assert keyspace.get("days", {}) == {day: int(day) for day in buckets}, "I10: the index is not the non-empty buckets"


def check_bodies(keyspace: Keyspace, jobs: dict[str, Job]) -> None:
    """I9: each large body lies apart for as long as its job may run, and no other does."""
    found = {job_id: len(body) for job_id, body in keyspace.get("bodies", {}).items()}
    asked = {job_id: job.bytes_apart for job_id, job in jobs.items() if job.bytes_apart}
    assert found == asked, f"I9: the bodies {found} lie apart, and the records ask for {asked}"


def check_dedup(keyspace: Keyspace, jobs: dict[str, Job]) -> None:
    """I11: a key has at most one living holder, and names it; a key without a living holder has a window that ends."""
    dedup = keyspace.get("dedup", {})
    living: dict[str, list[str]] = {}
    for job_id, job in jobs.items():
        if job.dedup and not job.state.terminal:
            living.setdefault(job.dedup, []).append(job_id)
    for digest, ids in living.items():
        assert len(ids) == 1, f"I11: {ids} live with one key"
        assert dedup.get(digest) == ids[0], f"I11: the key of {ids[0]} names {dedup.get(digest)}"
    for digest in dedup:
        assert digest in living or digest in keyspace.get("dedup:expiry", {}), (
            f"I11: {digest} is held by nobody for ever"
        )


def check_step(
    before: dict[str, Job], after: dict[str, Job], *, redriven: bool, deletes: bool, adds: bool,
    replaced: Mapping[str, bool | None] | None = None,
) -> None:  # fmt: skip
    """I13: what ended stays as it is, but for a redrive, and where a new job took its place. I1, I2: jobs appear and
    vanish only where that is meant. replaced: the ids of the latter, and whether that was asked for (see `Wanted`)."""
    replaced = replaced or {}
    for job_id, asked in replaced.items():
        was, made = before[job_id], after.get(job_id)
        may = was.state.terminal if asked else asked is not None and was.state is JobState.CANCELLED
        assert may, f"I13: {job_id} gave way and was {was.state}"
        assert made is None or made.token > was.token, f"I6: {job_id} went from the token {was.token} to {made.token}"
    for job_id, old in before.items():
        new = after.get(job_id)
        if new is None:
            assert deletes, f"I1: {job_id} was lost"
        elif old.state.terminal and new != old and job_id not in replaced:
            assert redriven and old.state is JobState.DEAD, f"I13: {job_id} left {old.state}"
    assert adds or set(after) <= set(before), "I2: a job came from nowhere"
    for job in after.values():
        assert job.attempt <= job.max_attempts, f"I8: {job.id} is at attempt {job.attempt} of {job.max_attempts}"


@dataclass(slots=True)
class Life:
    """One job from its enqueue on, as the answers tell it."""

    starts: int = 0
    causes: int = 1
    """Why it may start: it was enqueued, went back, was reaped or redriven."""
    lease_until: int | None = None
    """End of the lease of its holder; None: nobody holds it."""
    token: int | None = None
    cancelled: bool = False
    asked: bool = False
    """Whether it was asked to cancel it while it ran."""


@dataclass(slots=True)
class History:
    """What the answers told so far, judged as they come."""

    lives: dict[str, Life] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    """The last token of each id; it outlives the job."""

    def enqueued(self, job_id: str) -> None:
        self.lives[job_id] = Life()

    def claimed(self, job: Job, now_ms: int, lease: int, ahead: int = 0) -> None:
        """I2, I3, I4, I6, I7, I12 at a claim that takes jobs so many ms ahead; a start follows when the job is due."""
        life = self.lives.get(job.id)
        assert life is not None, f"I2: {job.id} was never enqueued"
        assert job.fire_at_ms <= now_ms + ahead, f"I3: {job.id} started {job.fire_at_ms - now_ms} ms early"
        assert life.lease_until is None, f"I4: {job.id} is held until {life.lease_until}, at {now_ms}"
        assert job.token > self.tokens.get(job.id, 0), f"I6: {job.id} got the token {job.token} again"
        assert not life.cancelled, f"I12: {job.id} started after it was cancelled"
        life.starts += 1
        assert life.starts <= life.causes, f"I7: {job.id} started {life.starts} times for {life.causes} causes"
        self.tokens[job.id] = life.token = job.token
        life.lease_until = now_ms + lease

    def accepted(self, job_id: str, token: int, *, back: bool) -> None:
        """I5: only the token of the last claim ends or moves a job."""
        life = self.lives[job_id]
        assert token == life.token, f"I5: {job_id} obeyed the token {token}, the last is {life.token}"
        assert not (back and life.asked), f"I12: {job_id} went back although it was asked to cancel it"
        life.token = life.lease_until = None
        life.causes += back

    def cancel(self, job_id: str, letter: str) -> None:
        """What a cancel was answered: c cancelled, q asked for, or that neither is so."""
        if letter in "cq":
            self.lives[job_id].cancelled |= letter == "c"
            self.lives[job_id].asked |= letter == "q"

    def extended(self, job_id: str, token: int, until: int) -> None:
        life = self.lives[job_id]
        assert token == life.token, f"I5: {job_id} was renewed by the token {token}, the last is {life.token}"
        life.lease_until = until

    def shortened(self, now_ms: int, longest: int) -> None:
        """Leases that ended later than any can end one lease from now."""
        for life in self.lives.values():
            if life.lease_until is not None and life.lease_until > now_ms + longest + 1000:
                life.lease_until = now_ms + longest

    def reaped(self, job_id: str, now_ms: int, *, back: bool) -> None:
        life = self.lives[job_id]
        assert life.lease_until is not None and life.lease_until <= now_ms, f"I4: {job_id} was reaped within its lease"
        assert not (back and life.asked), f"I12: {job_id} went back although it was asked to cancel it"
        life.token = life.lease_until = None
        life.causes += back
