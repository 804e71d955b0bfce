"""What any version of zwheel stored, this one reads: each record in `tests/fixtures/records/`, by release."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.make_records import DIGEST, FAILURES, FIRE, JOBS, LATER, NAME, NOW, RECORDS, WORKER, make
from zwheel.errors import UndecodableJob
from zwheel.job import Job, JobId, JobState, QueueName, Reason
from zwheel.payload.codec import DEFAULT
from zwheel.record import read_record, task_and_body

VERSIONS = sorted(path.name for path in RECORDS.iterdir() if path.is_dir())
FILES = sorted(RECORDS.rglob("*.record"))
STATES = {
    "processing": JobState.PROCESSING,
    "dead": JobState.DEAD,
    "done": JobState.DONE,
    "cancelled": JobState.CANCELLED,
}

each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")


def read(path: Path) -> Job:
    return read_record(JobId(path.stem), QueueName("fixtures"), path.read_bytes())


def test_this_version_has_its_records_in_the_tree() -> None:
    assert NAME in VERSIONS, "run `python -m tests.fixtures.make_records` once for this version of the record"
    about = json.loads((RECORDS / NAME / "about.json").read_text(encoding="utf-8"))
    assert about == {"version": NAME, "jobs": sorted(JOBS)}


@each_file
def test_a_stored_record_is_read(path: Path) -> None:
    job = read(path)
    assert job.task == "mail.send"
    assert job.state is STATES.get(path.stem, JobState.SCHEDULED)
    assert job.max_attempts == 3
    claimed = path.stem in ("processing", "failed", "dead", "done", "reaped")
    assert job.attempt == int(claimed)
    assert job.worker == (WORKER if claimed else None)
    assert NOW * 1000 <= job.token < NOW * 1000 + 1000
    fires = {"later": LATER, "failed": LATER}
    if path.stem == "reaped":
        assert NOW < job.fire_at_ms < NOW + 2_000
    else:
        assert job.fire_at_ms == fires.get(path.stem, FIRE)
    more = JOBS[path.stem][3]
    assert job.keep_ms == more.get("keep", 0)
    assert job.dedup == more.get("dedup")


@each_file
def test_a_stored_body_is_decoded(path: Path) -> None:
    raw = path.read_bytes()
    task, body = task_and_body(raw)
    assert task == b"mail.send"
    if path.stem in ("done", "cancelled"):
        assert body == b""
        with pytest.raises(UndecodableJob):
            DEFAULT.decode(body)
        return
    args, kwargs, headers, _ = JOBS[path.stem]
    assert DEFAULT.decode(body) == (args, kwargs, headers)
    assert read(path).body == body


def test_stored_failures_are_read() -> None:
    for version in VERSIONS:
        folder = RECORDS / version
        assert read(folder / "dead.record").failures == tuple(FAILURES)
        assert read(folder / "failed.record").failures == tuple(FAILURES)
        assert read(folder / "dead.record").reason == Reason.TIMEOUT
        (reaped,) = read(folder / "reaped.record").failures
        assert (reaped.reason, reaped.attempt, reaped.worker) == (Reason.LEASE_EXPIRED, 1, WORKER)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_fixtures_have_every_kind_of_field_and_body(version: str) -> None:
    stored: dict[str, Any] = {path.stem: path.read_bytes() for path in FILES if path.parent.name == version}
    counts = {"0.1.0": {b"00", b"01", b"02", b"04", b"07"}, "v2": {b"00", b"01", b"03"}}
    assert {raw[49:51] for raw in stored.values()} >= counts[version]
    assert {chr(raw[1]) for raw in stored.values()} == set("spdxc")
    assert task_and_body(stored["large"])[1][1] & 1, "compressed"
    assert len(stored["large"]) < 1000 < 40 * 100
    assert DIGEST.encode() in stored["dedup"]


def test_this_version_still_writes_what_its_records_say() -> None:
    """The format may change only with the version of the record; zstd's own output may differ between its versions."""
    folder = RECORDS / NAME
    made = make()
    assert sorted(made) == sorted(path.stem for path in folder.glob("*.record"))
    for job_id, raw in made.items():
        if job_id == "large":
            stored = task_and_body((folder / "large.record").read_bytes())[1]
            assert DEFAULT.decode(task_and_body(raw)[1]) == DEFAULT.decode(stored)
        else:
            assert raw == (folder / f"{job_id}.record").read_bytes(), job_id
