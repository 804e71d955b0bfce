r"""The stored form of a job: a fixed-width text header that Lua reads by position, then an opaque body.

    0      version, `2`                 37-44  worker, 8 characters, blank before the first claim
    1      state: s p d x c             45-48  max attempts
    2-5    attempt                      49-50  how many fields follow, in hex
    6-20   fire time, ms, 15 digits     51-    each field: letter, length of its value in bytes (5 digits), value;
    21-36  token, µs, 16 digits                then task `\n` body

The letters are in LETTERS. Who does not know an upper-case letter cannot read the record; a lower-case letter that is not
known is passed over here, and copied by the scripts. `lua/include/record.lua` has the same table, counted from 1. A record
that cannot be read is never guessed at: it is set aside in the dead set until a version that knows it comes.

Version `1`, of older records, has flags in hex at 49-50 (1 dedup digest, 2 keep, 4 failures), and from 51 on
[32 digest] [10 keep] [5 length, failures] task `\n` body. It is read for ever; the next transition writes version `2`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from zwheel.errors import UndecodableJob
from zwheel.job import Failure, Job, JobId, JobState, QueueName, Reason, WorkerId
from zwheel.keys import NAME_LIMIT
from zwheel.outside import score_ms, shown
from zwheel.times import MAX_MS

VERSION, FIRST_VERSION = b"2", b"1"
#: Where the fields begin.
HEADER_BYTES = 51
NO_WORKER = b" " * 8
#: What each field holds. Upper case: it must be understood.
LETTERS = {
    "B": "bytes of the body, which lies in `bodies`",
    "D": "dedup digest",
    "k": "keep, ms",
    "f": "failures, lines of JSON",
    "c": "when it was asked to cancel it, ms",
}
_UNDERSTOOD = frozenset(letter for letter in LETTERS if letter.isupper())
_FLAGS_OF_1 = {"D": 1, "k": 2, "f": 4}
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
    fields = _field("D", dedup) if dedup else ""
    fields += _field("k", str(keep_ms)) if keep_ms else ""
    return NO_WORKER + f"{max_attempts:04d}{bool(dedup) + bool(keep_ms):02x}{fields}{task}\n".encode()


def _field(letter: str, value: str) -> str:
    return f"{letter}{len(value):05d}{value}"


def task_and_body(raw: bytes) -> tuple[bytes, bytes]:
    """Split off the task's name and the body of a claimed record, on the hot path: no header field is parsed.

    Raises: UndecodableJob when its body lies apart and is gone; ValueError.
    """
    start, apart = HEADER_BYTES, None
    if raw[49:51] != b"00":
        fields, start = read_fields(raw)
        apart = fields.get("B")
    line = raw.index(b"\n", start)
    task, body = raw[start:line], raw[line + 1 :]
    if apart is not None and int(apart) != len(body):
        raise UndecodableJob(f"its body of {int(apart):,} bytes is gone from Redis: {len(body):,} are there")
    return task, body


def bytes_apart(raw: bytes) -> int:
    """How many bytes of a record's body lie in the hash `bodies`; 0: none, or the record cannot be read.

    The scripts write this field first, so the others need not be read.
    """
    if raw[:1] != VERSION or raw[49:51] == b"00" or raw[51:57] != b"B00007":
        return 0
    return int(raw[57:64]) if raw[57:64].isdigit() else 0


def read_fields(raw: bytes, first: int = 0) -> tuple[dict[str, bytes], int]:
    """Read the fields of a record by their letters, and where its task begins. first: how many bytes of it are missing.

    Raises: UndecodableJob for one that must be understood and is not known here; ValueError.
    """
    at = HEADER_BYTES - first
    count, found = int(raw[at - 2 : at], 16), {}
    if raw[:1] == FIRST_VERSION and not first:
        return _fields_of_1(raw, count)
    for _ in range(count):
        letter, length = raw[at : at + 1].decode("ascii"), raw[at + 1 : at + 6]
        if not (letter.isalpha() and length.isdigit() and len(length) == 5):
            raise ValueError("a field is damaged")
        if letter.isupper() and letter not in _UNDERSTOOD:
            raise UndecodableJob(f"the record has the field {letter}, which this version does not know")
        end = at + 6 + int(length)
        found[letter] = raw[at + 6 : end]
        at = end
    return found, at


def _fields_of_1(raw: bytes, flags: int) -> tuple[dict[str, bytes], int]:
    if flags & ~sum(_FLAGS_OF_1.values()):
        raise UndecodableJob(f"the record has flags {flags:#04x}, which this version does not know")
    at, found = HEADER_BYTES, {}
    for letter, length in (("D", DIGEST_CHARS), ("k", 10), ("f", 5)):
        if flags & _FLAGS_OF_1[letter]:
            found[letter] = raw[at : at + length]
            at += length
    if "f" in found:
        length = int(found["f"])
        found["f"] = raw[at : at + length]
        at += length
    return found, at


def failures_of(raw: bytes) -> tuple[Failure, ...]:
    """Read the failures of a record, oldest first."""
    return parse_failures(read_fields(raw)[0].get("f", b""))


def read_record(job_id: JobId, queue: QueueName, raw: bytes) -> Job:
    """Turn a stored record into a Job. Raises: UndecodableJob, with the reason."""
    if raw[:1] not in (VERSION, FIRST_VERSION):
        raise UndecodableJob(f"job {shown(job_id)}: record version {raw[:1]!r} is not known to this version of zwheel")
    try:
        state = STATES[chr(raw[1])]
        worker = raw[37:45].decode("ascii").strip()
        fields, start = read_fields(raw)
        line = raw.index(b"\n", start)
        task, body = raw[start:line], raw[line + 1 :]
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
            keep_ms=int(fields.get("k", 0)),
            dedup=fields["D"].decode("ascii") if "D" in fields else None,
            failures=parse_failures(fields.get("f", b"")),
            cancel_asked_ms=int(fields["c"]) if "c" in fields else None,
            body=body,
            bytes_apart=int(fields.get("B", 0)),
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
