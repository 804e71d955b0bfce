r"""The stored form of a job: a fixed-width text header that Lua reads by position, then an opaque body.

    0      version, `1`                 37-44  worker, 8 characters, blank before the first claim
    1      state: s p d x c             45-48  max attempts
    2-5    attempt                      49-50  flags in hex: 1 dedup digest, 2 keep, 4 failures
    6-20   fire time, ms, 15 digits     51-    [32 digest] [10 keep, ms] [5 length, failures] task `\n` body
    21-36  token, µs, 16 digits

`lua/include/record.lua` has the same table, counted from 1. A record with another version, or with a flag that is
not known here, is never guessed at: it is set aside in the dead set until a version that knows it redrives it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from zwheel.errors import UndecodableJob
from zwheel.job import Failure, Job, JobId, JobState, QueueName, Reason, WorkerId
from zwheel.keys import NAME_LIMIT
from zwheel.outside import score_ms, shown
from zwheel.times import MAX_MS

VERSION = b"1"
#: Where the fields that the flags announce begin.
HEADER_BYTES = 51
NO_WORKER = b" " * 8
FLAG_DEDUP, FLAG_KEEP, FLAG_FAILURES = 1, 2, 4
KNOWN_FLAGS = 7
DIGEST_CHARS = 32
MAX_ATTEMPTS = 9999
MAX_KEEP_MS = 9_999_999_999
#: How many failures a record keeps, and how long their texts may get, in characters.
FAILURES_KEPT = 5
MESSAGE_CHARS = 500
TRACEBACK_CHARS = 2_000
_FAILURES_BYTES = 90_000

STATES = {
    "s": JobState.SCHEDULED,
    "p": JobState.PROCESSING,
    "d": JobState.DONE,
    "x": JobState.DEAD,
    "c": JobState.CANCELLED,
}


def record_tail(task: str, *, max_attempts: int, keep_ms: int = 0, dedup: str | None = None) -> bytes:
    """Build what follows the token in a new record, up to the body: worker, max attempts, flags, fields, task.

    max_attempts: 1 to 9999. keep_ms: 0 to 9,999,999,999 (115 days). dedup: a digest of 32 characters.
    """
    flags = (FLAG_DEDUP if dedup else 0) | (FLAG_KEEP if keep_ms else 0)
    keep = f"{keep_ms:010d}" if keep_ms else ""
    return NO_WORKER + f"{max_attempts:04d}{flags:02x}{dedup or ''}{keep}{task}\n".encode()


def task_and_body(raw: bytes) -> tuple[bytes, bytes]:
    """Split off the task's name and the body of a claimed record, on the hot path: no header field is parsed."""
    start = HEADER_BYTES
    if raw[49:51] != b"00":
        start = _fields_end(raw)
    line = raw.index(b"\n", start)
    return raw[start:line], raw[line + 1 :]


def _flags(raw: bytes) -> int:
    flags = int(raw[49:51], 16)
    if flags & ~KNOWN_FLAGS:
        raise UndecodableJob(f"the record has flags {flags:#04x}, which this version does not know")
    return flags


def _fields_end(raw: bytes) -> int:
    flags = _flags(raw)
    at = HEADER_BYTES + (DIGEST_CHARS if flags & FLAG_DEDUP else 0) + (10 if flags & FLAG_KEEP else 0)
    if flags & FLAG_FAILURES:
        at += 5 + int(raw[at : at + 5])
    return at


def failures_of(raw: bytes) -> tuple[Failure, ...]:
    """Read the failures of a record, oldest first."""
    flags = _flags(raw)
    if not flags & FLAG_FAILURES:
        return ()
    at = HEADER_BYTES + (DIGEST_CHARS if flags & FLAG_DEDUP else 0) + (10 if flags & FLAG_KEEP else 0)
    length = int(raw[at : at + 5])
    return parse_failures(raw[at + 5 : at + 5 + length])


def read_record(job_id: JobId, queue: QueueName, raw: bytes) -> Job:
    """Turn a stored record into a Job. Raises: UndecodableJob, with the reason."""
    if raw[:1] != VERSION:
        raise UndecodableJob(f"job {shown(job_id)}: record version {raw[:1]!r} is not known to this version of zwheel")
    try:
        flags = _flags(raw)
        state = STATES[chr(raw[1])]
        worker = raw[37:45].decode("ascii").strip()
        at = HEADER_BYTES
        dedup = None
        if flags & FLAG_DEDUP:
            dedup = raw[at : at + DIGEST_CHARS].decode("ascii")
            at += DIGEST_CHARS
        keep_ms = int(raw[at : at + 10]) if flags & FLAG_KEEP else 0
        task, body = task_and_body(raw)
        if len(task) > NAME_LIMIT:
            raise ValueError(f"its task's name is {len(task):,} bytes long")
        if int(raw[6:21]) > MAX_MS:
            raise ValueError("its fire time lies beyond the year 9999")
        return Job(
            id=job_id,
            queue=queue,
            task=task.decode("utf-8"),
            state=state,
            attempt=int(raw[2:6]),
            max_attempts=int(raw[45:49]),
            fire_at_ms=int(raw[6:21]),
            token=int(raw[21:37]),
            worker=WorkerId(worker) if worker else None,
            keep_ms=keep_ms,
            dedup=dedup,
            failures=failures_of(raw),
            body=body,
        )
    except UndecodableJob as error:
        raise UndecodableJob(f"job {shown(job_id)}: {shown(error)}") from None
    except Exception as error:  # whatever anyone wrote there ends nothing but this read
        raise UndecodableJob(f"job {shown(job_id)}: the record cannot be read ({shown(error)})") from None


def write_failures(failures: Sequence[Failure]) -> bytes:
    """Turn failures into lines of JSON, the newest FAILURES_KEPT of them, bounded in size."""
    lines = [_failure_line(failure) for failure in failures[-FAILURES_KEPT:]]
    while len(lines) > 1 and sum(map(len, lines)) > _FAILURES_BYTES:
        lines.pop(0)
    return b"".join(lines)


def _failure_line(failure: Failure) -> bytes:
    entry: dict[str, object] = {"at": failure.at_ms, "attempt": failure.attempt, "reason": str(failure.reason)}
    if failure.kind:
        entry["kind"] = failure.kind[:200]
    if failure.message:
        entry["message"] = failure.message[:MESSAGE_CHARS]
    if failure.traceback:
        entry["traceback"] = failure.traceback[-TRACEBACK_CHARS:]
    if failure.worker:
        entry["worker"] = failure.worker
    if failure.claimed_ms is not None:
        entry["claimed"] = failure.claimed_ms
    return json.dumps(entry, separators=(",", ":")).encode() + b"\n"


def parse_failures(text: bytes) -> tuple[Failure, ...]:
    """Read lines of JSON back; a line that is none becomes a failure that says so."""
    return tuple(_parse_failure(line) for line in text.split(b"\n") if line)


def _parse_failure(line: bytes) -> Failure:
    try:
        entry = json.loads(line)
        reason = str(entry["reason"])
        at_ms, attempt = score_ms(entry["at"]), int(entry["attempt"])
        if at_ms is None:
            raise ValueError("its time cannot be")
        return Failure(
            at_ms=at_ms,
            attempt=attempt,
            reason=Reason(reason) if reason in Reason.__members__.values() else reason,
            kind=str(entry.get("kind", "")),
            message=str(entry.get("message", "")),
            traceback=str(entry.get("traceback", "")),
            worker=str(entry.get("worker", "")),
            claimed_ms=int(entry["claimed"]) if "claimed" in entry else None,
        )
    except Exception:
        return Failure(at_ms=0, attempt=0, reason="unreadable", message=line[:100].decode("utf-8", "backslashreplace"))
