"""Derives the blocking client from the async one: `make format` writes it, a test compares it.

What differs by more than `await` is not here but in `drive` and `sync_drive`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

CLIENT = Path(__file__).resolve().parents[2] / "zwheel" / "client"
DERIVED = {"schedules.py": "sync_schedules.py", "wheel.py": "sync.py"}
_HEAD = "# Derived from {} by `make format`: edit that one.\n"
_WORDS = {
    r"\basync def ": "def ",
    r"\bawait ": "",
    r"\b__aenter__\b": "__enter__",
    r"\b__aexit__\b": "__exit__",
    r"\baclose\b": "close",
    r"\bclient\.(drive|schedules)\b": r"client.sync_\1",
    r"\b(Drive|Task|Wheel|WheelSchedules)\b": r"Sync\1",
}
#: Texts that are about being async, and what they are here.
_TEXTS = {
    "schedules.py": {
        "The schedules of the async client; the blocking one has the same without await.": "The schedules of the blocking client.",
    },
    "wheel.py": {
        """The async client: define tasks, enqueue jobs, look at them and act on them.

`make format` derives the blocking client from this file and from schedules, so that a method is written once.
""": "The blocking client: the same surface as Wheel, without await. For scripts, web views and threads.",
        """The async client. Connects on first use; may be made at import time and shared by event loops in any threads.

    Each loop has connections of its own. `aclose` closes those of the loop that it runs in; the end of `asyncio.run`
    closes what was left open there. Every method raises BrokerUnavailable or OutcomeUnknown when Redis stays away for
    `give_up_s`.
    """: """The blocking client. Connects on first use; threads may share it, and a forked process connects anew.

    Every method raises BrokerUnavailable or OutcomeUnknown when Redis stays away for `give_up_s`.
    """,
        "A task of an async Wheel.": "A task of a Wheel.",
    },
}  # fmt: skip


def derived(name: str) -> str:
    """The text of the blocking counterpart of one file of the async client, unformatted."""
    text = (CLIENT / name).read_text(encoding="utf-8")
    for given, wanted in _TEXTS[name].items():
        if given not in text:
            raise SystemExit(f"tests/tidy/derive.py: {name} does not say {given[:60]!r} any more")
        text = text.replace(given, wanted)
    for word, wanted in _WORDS.items():
        text = re.sub(word, wanted, text)
    return _HEAD.format(name) + text


def main() -> None:
    """Write the derived files."""
    for name, other in DERIVED.items():
        path = CLIENT / other
        path.write_text(derived(name), encoding="utf-8")
        subprocess.run([sys.executable, "-m", "ruff", "check", "-q", "--fix-only", "--select", "I", path], check=True)
        subprocess.run([sys.executable, "-m", "ruff", "format", "-q", path], check=True)


if __name__ == "__main__":
    main()
