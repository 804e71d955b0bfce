"""docs/settings.md names every setting that there is, and none that there is not."""

from __future__ import annotations

import inspect
import re

from tests.docs.pages import ROOT
from zwheel import config
from zwheel.client.registry import Registry

PAGE = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
#: What zwheel sets for its own processes and for commands that it runs, or what only tests use.
_OWN = {
    "ZWHEEL_ATTEMPT", "ZWHEEL_COMPLETE", "ZWHEEL_DEMO_SHOP", "ZWHEEL_FAILPOINTS", "ZWHEEL_JOB_ID", "ZWHEEL_NOMINAL",
    "ZWHEEL_PARENT_LINE", "ZWHEEL_SCHEDULE", "ZWHEEL_TOKEN",
}  # fmt: skip


def table(title: str) -> set[str]:
    """The names in the first column of the first table below a heading."""
    section = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])}


def test_every_key_of_the_file_is_there() -> None:
    assert table("zwheel.toml") == set(config._KEYS)


def test_every_variable_of_the_environment_is_there() -> None:
    sources = [
        path.read_text(encoding="utf-8")
        for part in ("zwheel", "workers", "cli")
        for path in (ROOT / part).rglob("*.py")
    ]
    read = {name for text in sources for name in re.findall(r"\bZWHEEL_[A-Z_]+\b", text)} - _OWN
    assert {name for name in table("The environment") if name.startswith("ZWHEEL_")} == read


def test_every_argument_of_a_wheel_is_there() -> None:
    assert table("In code") == set(inspect.signature(Registry.__init__).parameters) - {"self"}
