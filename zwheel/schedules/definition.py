"""What a schedule says: when, under which policies, and which job. Written down as one line of JSON."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from typing import Any

from zwheel.errors import InvalidInput, InvalidName, UndecodableJob
from zwheel.job import QueueName
from zwheel.keys import check_name, check_task
from zwheel.outside import shown
from zwheel.schedules.calendars import Calendar, OnBlocked
from zwheel.schedules.kinds import Every, Kind, kind_from_json, kind_to_json, notes, words
from zwheel.schedules.occurrences import Rhythm
from zwheel.schedules.zones import Fold, Gap, zone
from zwheel.times import MAX_MS

#: A job id holds the schedule's name, the nominal time and what made it.
NAME_LIMIT = 90
#: No policy puts more missed occurrences on the wheel at once.
MISFIRE_CAP = 1000
#: So many occurrences may wait for their jitter at a time.
MOST_DELAYED = 100
MAX_TEXT = 400_000
_DAY_MS = 86_400_000


class Misfire(StrEnum):
    """What becomes of occurrences whose time passed while nothing could fire them."""

    SKIP = "skip"
    """None of them runs."""
    FIRE_ONCE = "fire_once"
    """The newest runs, once."""
    FIRE_ALL = "fire_all"
    """The newest `misfire_limit` run, oldest first. With an overlap policy other than allow only the oldest of them runs
    at once: the others come while it is active."""


class Overlap(StrEnum):
    """What an occurrence does while an earlier occurrence still waits or runs."""

    ALLOW = "allow"
    """It runs beside it."""
    SKIP = "skip"
    """It does not run."""
    BUFFER_ONE = "buffer_one"
    """It runs when the earlier occurrence ends; at most one waits, further ones do not run."""
    CANCEL_OTHER = "cancel_other"
    """The earlier occurrence is cancelled, and it runs when that has ended; at most one waits, further ones do not run."""

    @property
    def buffers(self) -> bool:
        """Whether one waits for the end of the earlier occurrence."""
        return self in (Overlap.BUFFER_ONE, Overlap.CANCEL_OTHER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """A schedule as its author wrote it. Changes only by an edit."""

    name: str
    queue: QueueName
    kind: Kind
    tz: str = "UTC"
    """IANA name of the zone whose wall clock the rhythm follows."""
    gap: Gap = Gap.RUN_AFTER
    fold: Fold = Fold.FIRST
    misfire: Misfire = Misfire.FIRE_ONCE
    misfire_limit: int = 100
    """For fire_all: how many run at the most, 1 to 1000."""
    grace_ms: int = 60_000
    """The newest past occurrence still counts as on time when it is late by no more than this, ms."""
    window_ms: int | None = None
    """Catch-up window: missed occurrences older than this are left out, ms; None: however old."""
    overlap: Overlap = Overlap.ALLOW
    jitter_ms: int = 0
    """Each occurrence fires up to this much later, by a hash of its name and time, ms."""
    calendar: Calendar | None = None
    on_blocked: OnBlocked = OnBlocked.SKIP
    start_ms: int | None = None
    """No occurrence before this."""
    end_ms: int | None = None
    """No occurrence after this."""
    max_count: int | None = None
    """Finished after so many occurrences."""
    task: str
    payload: bytes = b""
    """The encoded arguments and headers (`Codec.encode`), bound to `payload_context` where a cipher binds them."""
    max_attempts: int = 11
    keep_ms: int | None = None
    """How long an ended occurrence can still be read; None: long enough for 20 occurrences, an hour to 100 days."""
    owner: str = ""
    """Which application, file or crontab it is synced from; '' when it was added by hand."""
    description: str = ""

    def check(self) -> Definition:
        """Return it, or raise InvalidInput in one sentence."""
        self._check_parts()
        self._check_fires()
        if len(self.text()) > MAX_TEXT:
            raise InvalidInput(f"schedule {self.name}: its arguments are too large, keep them under 256 KiB")
        return self

    def _check_parts(self) -> None:
        """Look at each field by itself, also when it is read: what a newer or a damaged record says is not believed."""
        check_name(self.name, "schedule")
        if len(self.name) > NAME_LIMIT:
            raise InvalidName(f"a schedule's name has at most {NAME_LIMIT} characters, and this one {len(self.name)}")
        check_name(self.queue)
        check_task(self.task)
        for text in (self.tz, self.owner, self.description):
            if not isinstance(text, str):
                raise InvalidInput(f"schedule {self.name}: {text!r} is not a text")
        zone(self.tz)
        for what, value, least, most in (
            ("misfire_limit", self.misfire_limit, 1, MISFIRE_CAP),
            ("grace", self.grace_ms, 0, 365 * _DAY_MS),
            ("window", self.window_ms, 0, 3650 * _DAY_MS),
            ("jitter", self.jitter_ms, 0, 31 * _DAY_MS),
            ("max_count", self.max_count, 1, 10**9),
            ("start", self.start_ms, 0, MAX_MS),
            ("end", self.end_ms, 0, MAX_MS),
            ("max_attempts", self.max_attempts, 1, 9999),
            ("keep", self.keep_ms, 0, MAX_MS),
        ):
            if value is None and what in _OPTIONAL:
                continue
            if type(value) is not int or not least <= value <= most:
                raise InvalidInput(f"schedule {self.name}: {what} is {value}, and may be {least} to {most}")
        if self.start_ms is not None and self.end_ms is not None and self.end_ms < self.start_ms:
            raise InvalidInput(f"schedule {self.name}: it ends before it starts")
        if len(self.description) > 1000 or len(self.owner) > 300:
            raise InvalidInput(f"schedule {self.name}: its description or owner is too long")

    def _check_fires(self) -> None:
        """Occurrences that wait for their jitter are listed in the schedule's record, which is read and written whole."""
        rhythm = self.rhythm(0)
        first = next(rhythm.after((self.start_ms or 0) - 1), None)
        if first is None or (self.end_ms is not None and first.at_ms > self.end_ms):
            reason = (
                "its calendar blocks each of its times" if self.calendar is not None else "none of its times is left"
            )
            if self.start_ms is not None or self.end_ms is not None:
                reason = "it has no time between its start and its end"
            raise InvalidInput(f"schedule {self.name} never fires: {reason}")
        if (
            self.jitter_ms
            and len(rhythm.between(first.at_ms - 1, first.at_ms + self.jitter_ms, MOST_DELAYED + 1)) > MOST_DELAYED
        ):
            raise InvalidInput(
                f"schedule {self.name}: with this jitter more than {MOST_DELAYED} of its occurrences would wait at a time"
            )

    def rhythm(self, anchor_ms: int) -> Rhythm:
        """Build what enumerates the occurrences. anchor_ms: where `@every` counts from."""
        anchor = anchor_ms if isinstance(self.kind, Every) else 0
        return _rhythm(self.kind, self.tz, self.gap, self.fold, self.calendar, self.on_blocked, anchor, self.name)

    def same_times(self, other: Definition) -> bool:
        """Whether both have the same nominal times, from the same anchor."""
        return all(getattr(self, field) == getattr(other, field) for field in _RHYTHM)

    def text(self) -> str:
        """Write it down: JSON on one line, keys sorted, what is left at its default left out."""
        given = {"name": self.name, "queue": self.queue, "kind": kind_to_json(self.kind), "task": self.task}
        given["payload"] = base64.b64encode(self.payload).decode()
        if self.calendar is not None:
            given["calendar"] = self.calendar.to_json()
        for field in _PLAIN:
            value = getattr(self, field)
            if value != _DEFAULTS[field]:
                given[field] = value
        return json.dumps(given, sort_keys=True, separators=(",", ":"), ensure_ascii=True)

    @classmethod
    def parse(cls, text: str | bytes) -> Definition:
        """Read it back. Raises: UndecodableJob when this version cannot."""
        try:
            return _parsed(text if isinstance(text, str) else text.decode())
        except Exception as error:  # whatever anyone wrote there ends nothing but this read
            raise UndecodableJob(f"a schedule cannot be read: {shown(error)}") from None

    def digest(self) -> str:
        """A short hash of all that it says."""
        return hashlib.sha256(self.text().encode()).hexdigest()[:16]

    def payload_context(self) -> bytes:
        """What a cipher binds the stored arguments to."""
        return f"{self.task}\nschedule {self.name}".encode()

    def when(self) -> str:
        """Its rhythm in words, with the zone."""
        return words(self.kind, self.name)

    def notes(self) -> tuple[str, ...]:
        """What a person should know of how it was read and what its policies do together, in sentences."""
        found = notes(self.kind, self.name)
        if self.misfire is not Misfire.FIRE_ALL or self.overlap is Overlap.ALLOW:
            return found
        others = "skipped" if self.overlap is Overlap.SKIP else "skipped, but for one that waits until it has ended"
        return (
            *found,
            f"misfire fire_all with overlap {self.overlap}: of several missed occurrences the oldest runs and the others "
            f"are {others}, since they all come at once",
        )

    def with_owner(self, owner: str) -> Definition:
        """The same, owned by an application, a file or a crontab."""
        return replace(self, owner=owner)


_PLAIN = (
    "tz", "gap", "fold", "misfire", "misfire_limit", "grace_ms", "window_ms", "overlap", "jitter_ms", "on_blocked",
    "start_ms", "end_ms", "max_count", "max_attempts", "keep_ms", "owner", "description",
)  # fmt: skip
_OPTIONAL = frozenset({"window", "max_count", "start", "end", "keep"})
_RHYTHM = ("name", "kind", "tz", "gap", "fold", "calendar", "on_blocked")
_DEFAULTS: Mapping[str, Any] = {
    name: Definition.__dataclass_fields__[name].default for name in _PLAIN
}  # fmt: skip


@lru_cache(maxsize=4096)
def _rhythm(
    kind: Kind, tz: str, gap: Gap, fold: Fold, calendar: Calendar | None, on_blocked: OnBlocked, anchor: int, name: str
) -> Rhythm:
    return Rhythm(kind, tz, gap, fold, calendar, on_blocked, anchor, name)


@lru_cache(maxsize=16384)
def _parsed(text: str) -> Definition:
    given = json.loads(text)
    unknown = set(given) - set(_PLAIN) - {"name", "queue", "kind", "task", "payload", "calendar"}
    if unknown:
        raise ValueError(f"it has {', '.join(sorted(unknown))}, which this version does not know")
    enums = {"gap": Gap, "fold": Fold, "misfire": Misfire, "overlap": Overlap, "on_blocked": OnBlocked}
    plain: dict[str, Any] = {
        key: enums[key](value) if key in enums else value for key, value in given.items() if key in _PLAIN
    }
    made = Definition(
        name=given["name"], queue=QueueName(given["queue"]), kind=kind_from_json(given["kind"]), task=given["task"],
        payload=base64.b64decode(given["payload"]),
        calendar=Calendar.from_json(given["calendar"]) if given.get("calendar") else None, **plain,
    )  # fmt: skip
    made._check_parts()
    return made


def occurrence_id(name: str, at_ms: int, suffix: str = "") -> str:
    """Name an occurrence's job: schedule and nominal time, such as `report@2026-11-21T09:00:00Z`."""
    from zwheel.times import to_datetime

    text = to_datetime(at_ms).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f".{at_ms % 1000:03d}" if at_ms % 1000 else ""
    return f"{name}@{text}{fraction}Z{suffix}"


def jitter_of(name: str, at_ms: int, jitter_ms: int) -> int:
    """How much later an occurrence fires, 0 to `jitter_ms`: the same for everyone who asks."""
    if jitter_ms <= 0:
        return 0
    drawn = hashlib.blake2s(f"{name}@{at_ms}".encode(), digest_size=8).digest()
    return int.from_bytes(drawn, "big") % (jitter_ms + 1)
