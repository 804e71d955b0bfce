"""Schedule records that this version cannot advance: newer, damaged, or in need of what is missing here."""

from __future__ import annotations

import base64
import json
from typing import Any

PAYLOAD = base64.b64encode(b"\x01\x00\x92\x90\x80").decode()


def stored(
    name: str = "bad", queue: str = "default", *, head: str = "1a", state: Any = None, **definition: Any
) -> bytes:
    """A schedule record as some version could write it, due long ago."""
    given = {"name": name, "queue": queue, "kind": {"cron": "* * * * * *"}, "task": "ring", "payload": PAYLOAD}
    given |= definition
    marks = {"created": 1, "cursor": 1} if state is None else state
    return f"{head}{5:016d}\n{json.dumps(marks)}\n{json.dumps(given)}".encode()


DEEP = b"1a" + b"5" * 16 + b"\n" + b"[" * 100_000 + b"\n{}"
FAILS_WHEN_DUE = "arguments that cannot be decoded"
"""It is read."""
#: What it is -> the record, which this version cannot advance.
STRANGE = {
    "a field of a newer version": stored(priority=5),
    "a header of a newer version": stored(head="2a"),
    "an unknown status": stored(head="1z"),
    "holidays that are not known here": stored(calendar={"holidays": ["XQ"]}),
    "a zone that is not known here": stored(tz="Mars/Olympus"),
    "a list for a time": stored(state={"cursor": [1]}),
    "a huge time": stored(state={"cursor": 10**300}),
    "a time below nothing": stored(state={"ahead": [[-5, -5]]}),
    "a fraction that is no number": stored(state={"created": float("inf")}),
    "a state that is no mapping": stored(state=[1, 2]),
    "a text for a number": stored(grace_ms="a while"),
    "a number for a text": stored(tz=5),
    "a definition of another name": stored(name="other"),
    "a definition of another queue": stored(queue="other"),
    "a cron line that is none": stored(kind={"cron": "every so often"}),
    "a kind of a newer version": stored(kind={"moon": "full"}),
    FAILS_WHEN_DUE: stored(payload=base64.b64encode(b"\xff" * 9).decode()),
    "no text": b"\xff\xfe",
    "nothing": b"",
    "half a record": stored()[:60],
    "nested deep": DEEP,
    "no attempts": stored(max_attempts=0),
    "a name of 10 KB": stored(name="n" * 10_000),
}
